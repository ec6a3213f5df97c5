//! Arithmetic on ciphertexts.
//!
//! An [`Evaluator`] is a parameter set and a source of keys, nothing else: it has no state, so any number of threads can
//! share one. Every operation states what it does to level and scale; no operation changes either silently.

mod arith;
mod extended;
mod fused;
mod key_product;
mod keyswitch;
mod product;
mod rotate;

use num_complex::Complex64;

pub use extended::ExtendedCiphertext;
pub use keyswitch::Hoisted;

use crate::keys::{EvaluationKeys, KeySet};
use crate::{Ciphertext, Error, Params, Scale};

/// Evaluates circuits on ciphertexts with the public keys of their owner.
pub struct Evaluator<K = KeySet> {
    params: Params,
    keys: K,
}

impl<K: EvaluationKeys> Evaluator<K> {
    /// An evaluator over `keys`; pass [`NoKeys`](crate::NoKeys) for circuits without products and rotations.
    pub fn new(params: &Params, keys: K) -> Self {
        Self { params: params.clone(), keys }
    }

    /// The parameter set.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The source of keys.
    pub fn keys(&self) -> &K {
        &self.keys
    }

    fn check_one(&self, operation: &'static str, a: &Ciphertext) -> Result<(), Error> {
        self.params.check_same(operation, &a.params)
    }

    /// Same parameters, same secret, same level.
    fn check_pair(&self, operation: &'static str, a: &Ciphertext, b: &Ciphertext) -> Result<(), Error> {
        self.check_one(operation, a)?;
        self.check_one(operation, b)?;
        if a.key_id != b.key_id {
            return Err(Error::KeyMismatch { operation, left: a.key_id, right: b.key_id });
        }
        if a.level != b.level {
            return Err(Error::LevelMismatch { operation, left: a.level, right: b.level });
        }
        Ok(())
    }

    fn check_linear(&self, operation: &'static str, a: &Ciphertext) -> Result<(), Error> {
        self.check_one(operation, a)?;
        if a.is_linear() { Ok(()) } else { Err(Error::NotLinear { operation, parts: a.parts.len() }) }
    }

    /// Refuses a product whose scale leaves no room below the modulus of its level.
    fn check_room(&self, operation: &'static str, level: usize, scale: Scale) -> Result<(), Error> {
        if scale.is_usable() && scale.log2() >= self.params.log_q(level) {
            return Err(Error::LevelExhausted { operation, have: level, need: level + 1 });
        }
        crate::encode::check_scale(operation, scale)
    }
}

fn check_scales(operation: &'static str, left: Scale, right: Scale) -> Result<(), Error> {
    if left.matches(right) {
        return Ok(());
    }
    Err(Error::ScaleMismatch { operation, left: left.log2(), right: right.log2() })
}

fn check_finite(value: Complex64) -> Result<(), Error> {
    if value.is_finite() { Ok(()) } else { Err(Error::NotFinite { index: 0 }) }
}
