//! Encrypted transformer inference: layouts, planner, encrypted layers, client and server.

mod checkpoint;
mod client;
mod cost;
mod error;
mod exec;
mod files;
mod fold;
mod geometry;
mod graph;
mod pairing;
mod placement;
mod plan;
mod refresh;
mod report;
mod run;

pub use checkpoint::Checkpoints;
pub use client::{Client, EncryptedLogits, EncryptedPrompt, Server};
pub use cost::CostModel;
pub use error::{InferError, Result};
pub use exec::Session;
pub use fold::Purpose;
pub use geometry::Geometry;
pub use graph::Operator;
pub use plan::{Options, Plan, Step, Target};
pub use refresh::{Bootstraps, Circuits};
pub use report::{Profiler, Report, StepTime};
pub use run::{Done, Observer, Progress};
