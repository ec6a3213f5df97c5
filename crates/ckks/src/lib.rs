//! RNS-CKKS homomorphic encryption with bootstrapping.

pub mod linear;
pub mod polynomial;
pub mod slots;
