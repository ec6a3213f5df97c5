//! Conversion of a pretrained softmax model: attention layer by attention layer, and the difference
//! that is shipped.

mod difference;
mod half;
mod layer;
mod local;
mod states;

pub use difference::{DIFFERENCE_FILE, Difference, Report, apply, write};
pub use local::{Local, match_layers};
