//! The vectors of the noise machine.

use super::super::ClearVector;
use super::name::Name;
use cipherlm_ckks::noise::{Prediction, SlotVariance};
use num_complex::Complex64;
use std::sync::Arc;

/// A vector of a [`Noise`](super::Noise) machine.
#[derive(Clone, Debug)]
pub struct NoiseVector {
    pub(super) exact: ClearVector,
    pub(super) noisy: ClearVector,
    pub(super) variance: Arc<Vec<SlotVariance>>,
    /// Equal for vectors that are one and the same ciphertext: the same operation on them has the
    /// same error.
    pub(super) name: Name,
    /// Equal for vectors with one and the same error, such as a ciphertext at two levels.
    pub(super) error: Name,
}

impl NoiseVector {
    /// The slots without any error.
    pub fn exact(&self) -> &[Complex64] {
        self.exact.slots().unwrap_or_default()
    }

    /// The slots with sampled errors: what decryption could have given.
    pub fn noisy(&self) -> &[Complex64] {
        self.noisy.slots().unwrap_or_default()
    }

    /// What is known of each slot's error.
    pub fn variance(&self) -> &[SlotVariance] {
        &self.variance
    }

    /// Multiplied by `i^turns`, which changes no error.
    pub(super) fn turned(&self, turns: u8, exact: ClearVector, noisy: ClearVector) -> Self {
        let (name, error) = (self.name.turned(turns), self.error.turned(turns));
        Self { exact, noisy, variance: self.variance.clone(), name, error }
    }

    /// The predicted error: never below what encryption shows (but for one run in 10^5), and within
    /// two bits of it.
    pub fn prediction(&self) -> Prediction {
        let errors: Vec<f64> =
            self.exact().iter().zip(self.noisy()).map(|(a, b)| (a - b).norm_sqr()).collect();
        Prediction::of(&self.variance, &errors)
    }
}

/// A vector whose errors went through a map of slots unchanged but for the variance given.
pub(super) fn carried(
    name: Name,
    exact: ClearVector,
    noisy: ClearVector,
    variance: Vec<SlotVariance>,
) -> NoiseVector {
    NoiseVector { exact, noisy, variance: Arc::new(variance), name, error: name }
}
