//! Edits of inputs: of plain bytes, of JSON, of safetensors, and of several files packed into one
//! input.

mod bytes;
mod json;
mod parts;
mod safetensors;

pub(crate) use bytes::bytes;
pub(crate) use json::json;
pub(crate) use parts::{join, split};
pub(crate) use safetensors::safetensors;

/// Integers at which counts, lengths and indices go wrong.
pub(crate) const EXTREMES: [u64; 22] = [
    0,
    1,
    2,
    3,
    7,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x1_0000,
    1 << 20,
    (1 << 20) + 1,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 32,
    1 << 53,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// Numbers at which floating point goes wrong.
pub(crate) const FLOATS: [f64; 16] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    1e-30,
    1e30,
    1e300,
    -1e300,
    f64::MAX,
    f64::MIN_POSITIVE,
    5e-324,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
    9_007_199_254_740_993.0,
];
