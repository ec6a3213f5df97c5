#![doc = include_str!("../README.md")]

mod digest;
mod job;
mod json;
mod limits;
mod manifest;
mod plan;
mod problem;

pub use digest::Digest;
pub use job::{Event, JobState, JobView};
pub use json::{JSON_BYTES, read_json};
pub use limits::Limits;
pub use manifest::{KeyEntry, KeyManifest, Missing};
pub use plan::{Answers, Blob, ClientPlan, Costs, KeyAsked, Layout, ModelFacts, PLAN_FORMAT, PlanError};
pub use problem::{Code, Problem};
