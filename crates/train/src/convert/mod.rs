//! Conversion of a pretrained softmax model, attention layer by attention layer.

mod attenuate;
mod layer;
mod local;
mod states;

pub use attenuate::Attenuation;
pub use local::{Local, match_layers};
