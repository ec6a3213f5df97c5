//! Training and conversion: one program, since each would build burn's operators again.

mod common;
mod convert;
mod gradients;
mod parity;
mod prefix;
mod recipe;
mod teaching;
mod training;
