//! RNS-CKKS homomorphic encryption with bootstrapping.

pub mod linear;
pub mod slots;
