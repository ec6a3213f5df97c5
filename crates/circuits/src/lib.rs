#![doc = include_str!("../README.md")]

pub mod bootstrap;
mod debug;
pub mod linear;
pub mod polynomial;
pub mod slots;
