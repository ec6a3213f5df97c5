#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod app;
mod auth;
mod error;
mod events;
mod http;
mod job;
mod jobs;
mod journal;
mod keys;
mod listen;
mod local;
mod metrics;
#[cfg(feature = "nats")]
mod nats;
mod patience;
mod receive;
mod refusal;
mod runner;
mod schedule;
mod served;
mod simulate;
mod store;
mod task;
mod transport;
mod turns;

pub use app::Config;
pub use auth::Scope;
pub use error::{Error, Result};
pub use journal::Journal;
pub use listen::{Service, Tls};
#[cfg(feature = "nats")]
pub use nats::{Nats, Terms, Worker, WorkerConfig};
pub use served::Served;
pub use simulate::{Fleet, Outcome};
