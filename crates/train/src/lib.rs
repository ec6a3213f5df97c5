//! PowerSoftmax transformers in burn: training, range control, evaluation, export.
#![forbid(unsafe_code)]

pub mod attention;
pub mod block;
pub mod card;
pub mod checkpoint;
pub mod classify;
pub mod config;
pub mod corpus;
pub mod curves;
pub mod error;
pub mod eval;
pub mod experiment;
pub mod export;
mod fused;
pub mod generate;
mod heap;
pub mod import;
pub mod optim;
pub mod params;
pub mod power_softmax;
pub mod probe;
pub mod recipe;
pub mod stories;
pub mod tasks;
pub mod trainer;
pub mod transformer;

pub use burn::tensor::Device;
pub use error::{Error, Result};
