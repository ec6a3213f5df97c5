#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod app;
mod auth;
mod compute;
mod error;
mod events;
mod http;
mod jobs;
mod journal;
mod keys;
mod listen;
mod metrics;
mod receive;
mod refusal;
mod served;
mod store;

pub use app::Config;
pub use auth::Scope;
pub use error::{Error, Result};
pub use journal::Journal;
pub use listen::{Service, Tls};
pub use served::Served;
