//! What the stage programs of all workloads share: their command line, their files, their report.
//!
//! The harness starts one program per stage, in the root of its tree, as
//! `STAGE SIZE [--count_only] [--seed S ...]`. Stages hand their results on in `io/SIZE`; what the
//! harness measures lies under the names that it expects there.

mod error;
mod report;
mod task;

pub use error::{Error, Result};
pub use report::Report;
pub use task::{Task, floats, shorts};
