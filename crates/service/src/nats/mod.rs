//! The transport over NATS JetStream, for workers in other processes and on other machines.
//!
//! NATS is a doorbell. What is true stands in the server's records: a message names a job that
//! waits, and may be lost, doubled or late. A worker that hears of a job asks the server whether it
//! may begin, and says its end to the server before it acknowledges the message. The server takes a
//! job back from a worker that has been silent for a lease, and rings again for every job that
//! waits without a message.

mod coordinator;
mod held;
mod line;
mod pull;
mod wire;
mod worker;

pub(crate) use coordinator::coordinate;
pub use line::Nats;
pub use wire::Terms;
pub use worker::{Worker, WorkerConfig};
