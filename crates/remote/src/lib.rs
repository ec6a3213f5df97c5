#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod ask;
mod endpoint;
mod error;
mod proxy;
mod push;
mod remote;

pub use ask::ask;
pub use endpoint::Endpoint;
pub use error::{Error, Result};
pub use proxy::{Oracle, Proxy};
pub use push::{Pushed, push};
pub use remote::Remote;
