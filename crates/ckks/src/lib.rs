//! RNS-CKKS homomorphic encryption with bootstrapping.

pub mod bootstrap;
mod ciphertext;
pub mod encode;
mod encrypt;
mod error;
pub mod evaluator;
pub mod keys;
pub mod linear;
pub mod params;
pub mod polynomial;
mod scale;
pub mod slots;
pub mod wire;

pub use ciphertext::Ciphertext;
pub use encode::{LiftedPlaintext, Plaintext};
pub use encrypt::{DecodedSlots, Decrypted};
pub use error::{Error, WireError};
pub use evaluator::{Evaluator, ExtendedCiphertext, Hoisted};
pub use keys::{
    EvaluationKeys, GaloisElement, KeyId, KeyPurpose, KeyRequest, KeySet, MemoryBill, NoKeys, PublicKey, SecretKey,
    SwitchingKey,
};
pub use num_complex::Complex64;
pub use params::{KeyShape, Params, ParamsBuilder, ParamsHash, SecretDistribution, presets};
pub use scale::Scale;
pub use wire::Wire;

/// The ring layer, for those who work below the level of slots.
pub use cipherlm_ring as ring;
