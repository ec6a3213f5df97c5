//! Encrypted transformer inference: layouts, planner, encrypted layers, client and server.

mod client;
mod cost;
mod error;
mod exec;
mod fold;
mod geometry;
mod graph;
mod placement;
mod plan;
mod refresh;
mod run;

pub use client::{Client, EncryptedLogits, EncryptedPrompt, Server};
pub use cost::CostModel;
pub use error::{InferError, Result};
pub use geometry::Geometry;
pub use graph::Operator;
pub use plan::{Options, Plan, Step, Target};
pub use refresh::{Bootstraps, Circuits};
pub use run::{Done, Observer, Progress};
