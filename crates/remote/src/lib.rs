#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod ask;
mod endpoint;
mod error;
mod loopback;
mod page;
mod proxy;
mod push;
mod remote;

pub use ask::ask;
pub use endpoint::{Certificates, Endpoint};
pub use error::{Error, Result};
pub use page::Page;
pub use proxy::{Oracle, Proxy};
pub use push::{Pushed, push};
pub use remote::Remote;
