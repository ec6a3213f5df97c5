//! Conversion of a pretrained softmax model, attention layer by attention layer.

mod layer;
mod local;
mod states;

pub use local::{Local, match_layers};
