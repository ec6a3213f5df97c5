//! The program from the outside.

mod clear;
mod common;
mod encrypted;
mod import;
mod inspect;
mod misuse;
mod parties;
mod trouble;
