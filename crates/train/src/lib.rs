//! PowerSoftmax transformers in burn: training, conversion, range control, evaluation, export.
#![forbid(unsafe_code)]

pub mod arch;
pub mod attention;
pub mod block;
pub mod card;
pub mod checkpoint;
pub mod classify;
pub mod convert;
pub mod corpus;
pub mod curves;
mod descent;
pub mod error;
pub mod eval;
pub mod experiment;
pub mod export;
mod fused;
pub mod generate;
mod heap;
pub mod journal;
pub mod layers;
mod learned;
pub mod loss;
pub mod optim;
pub mod params;
mod passages;
mod power_softmax;
pub mod prepared;
pub mod probe;
mod public;
pub mod recipe;
mod sentences;
pub mod settings;
mod stamp;
mod state;
pub mod stories;
pub mod text;
mod tokens;
pub mod trainer;
pub mod transformer;

pub use burn::tensor::Device;
pub use error::{Error, Result};
