//! Bootstrapping: back to a high level, without the secret key.

pub mod dft;
pub mod eval_mod;
pub mod simulate;
