#![doc = include_str!("../README.md")]

#[cfg(target_arch = "wasm32")]
mod bindings;
mod desk;
mod error;
mod session;

pub use desk::Desk;
pub use error::{Error, Result};
pub use session::{Answer, Choice, Facts, Offer, Sealed, Session};
