//! How much error each homomorphic operation adds.
//!
//! # Level, scale and noise in one page
//! A slot of size `m` is carried by ring coefficients of size `m * scale`. Every operation that has
//! to round or to hide something adds an error to the coefficients, of about the same absolute size
//! whatever the scale; seen from the slots it is that error divided by the scale. So precision is
//! bought with scale, and levels are what scale costs.
//!
//! All errors here are variances of the *complex* slot error, `E|e|^2`, in units of slots. A
//! polynomial whose `N` coefficients have independent errors of variance `v` has slot errors of
//! variance `N v / scale^2`. Where the error of a slot is multiplied by the secret, or by an error
//! of a key, its variance depends on what happens to stand there: [`SlotVariance`]. The sources are
//! - fresh encryption: one Gaussian per coefficient (two more, convolved with ternary polynomials,
//!   under the public key);
//! - encoding: rounding the coefficients of a plaintext, 1/12 each;
//! - rounding: every division (rescale, leaving the special modulus) rounds both components of a
//!   ciphertext, and the second one meets the secret: `(1 + |s|^2) / 12`, which a dense secret
//!   makes `N / 18`;
//! - key switching: digits of size `D_i` meet the Gaussian errors of the key and are divided by the
//!   special modulus `P`: `N sigma^2 / 12 * sum (D_i / P)^2`.
//!
//! The component-wise view (errors slot by slot instead of one bound on a norm) follows Bossuat,
//! Cammarota, Curtis and Jeljeli et al., "Security and noise in CKKS: component-wise estimates"
//! (2024/853).

mod prediction;

use crate::{Error, KeyPurpose, KeyRequest, KeyShape, Params, Scale};
use cipherlm_ring::Limbs;
pub use prediction::{Prediction, SlotVariance};

/// Standard deviation of the Gaussian errors of encryptions and keys.
const SIGMA: f64 = cipherlm_ring::sample::SIGMA;

/// log2 of the error that rounding both parts of a ciphertext leaves in a slot, in units of the
/// scale, in a ring of degree `2^log_degree` under a dense ternary secret: what one rescale costs
/// at least.
pub fn rounding_bits(log_degree: f64) -> f64 {
    let n = log_degree.exp2();
    (n * (1.0 + 2.0 * n / 3.0) / 12.0).log2() / 2.0
}

/// Variances of the slot errors of one parameter set with a dense ternary secret.
#[derive(Clone, Debug)]
pub struct NoiseModel {
    params: Params,
    /// Sum of the squared coefficients of the secret, on average.
    secret_norm: f64,
    /// Levels that keys are cut to; without, each key is cut to the level of its use.
    keys: Option<KeyRequest>,
}

impl NoiseModel {
    /// The model of a parameter set.
    pub fn new(params: &Params) -> Self {
        Self { params: params.clone(), secret_norm: params.degree() as f64 * 2.0 / 3.0, keys: None }
    }

    /// The same model with keys as generated from `request`. A key made for a higher level than
    /// that of its use can have another shape and so another error.
    #[must_use]
    pub fn with_keys(self, request: KeyRequest) -> Self {
        Self { keys: Some(request), ..self }
    }

    /// The parameter set.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// A fresh encryption under the secret key at `scale`, encoding of full slots included.
    pub fn fresh(&self, scale: Scale) -> f64 {
        self.slots(SIGMA * SIGMA, scale) + self.encoding(self.params.slots(), scale)
    }

    /// A fresh encryption under the public key at `scale`, encoding of full slots included: an
    /// error of its own, one multiplied by the secret, and that of the key multiplied by an
    /// ephemeral secret.
    pub fn fresh_public(&self, scale: Scale) -> SlotVariance {
        let multiplied = |norm: f64| SlotVariance::multiplied(self.slots(SIGMA * SIGMA * norm, scale));
        let ephemeral = multiplied(self.degree() * 2.0 / 3.0);
        multiplied(self.secret_norm).plus_apart(ephemeral).plus(SlotVariance::plain(self.fresh(scale)))
    }

    /// The rounding of a plaintext of the given period at `scale`.
    pub fn encoding(&self, period: usize, scale: Scale) -> f64 {
        let scale = scale.to_f64();
        2.0 * period as f64 / 12.0 / (scale * scale)
    }

    /// The rounding of one division at the scale after it: a part of its own, and one that is
    /// multiplied by the secret.
    pub fn rounding(&self, scale: Scale) -> SlotVariance {
        let secret = SlotVariance::multiplied(self.slots(self.secret_norm / 12.0, scale));
        secret.plus(SlotVariance::plain(self.slots(1.0 / 12.0, scale)))
    }

    /// The inner product of a key switch of a ciphertext at `level` and `scale`, without the
    /// rounding of the division after it. Each digit is multiplied by the errors of the key, which
    /// are Gaussian and the same in every use of the key.
    ///
    /// # Errors
    /// [`Error::BadKeyShape`] or [`Error::LevelOutOfRange`] if the parameters allow no such key.
    pub fn key_product(
        &self,
        purpose: KeyPurpose,
        level: usize,
        scale: Scale,
    ) -> Result<SlotVariance, Error> {
        Ok(self.product_with(self.key_shape(purpose, level)?, level, scale))
    }

    fn product_with(&self, shape: KeyShape, level: usize, scale: Scale) -> SlotVariance {
        let special = self.params.log_of(&self.params.special_limbs(shape.special));
        let limbs = self.params.limb_count(level);
        let unit = self.slots(self.degree() * SIGMA * SIGMA / 12.0, scale);
        let digit = |digit: std::ops::Range<usize>| {
            let bits = self.params.log_of(&Limbs::range(digit.start.min(limbs)..digit.end.min(limbs)));
            SlotVariance::multiplied(if bits == 0.0 { 0.0 } else { unit * (2.0 * (bits - special)).exp2() })
        };
        let digits = shape.digits(&self.params).into_iter().map(digit);
        digits.fold(SlotVariance::default(), SlotVariance::plus_apart)
    }

    /// What [`Evaluator::embed`](crate::Evaluator::embed) adds: a key switch at `level` with a key
    /// made for that level.
    ///
    /// # Errors
    /// As [`NoiseModel::key_product`].
    pub fn embedding(&self, level: usize, scale: Scale) -> Result<SlotVariance, Error> {
        let product = self.product_with(KeyShape::cheapest(&self.params, level)?, level, scale);
        Ok(product.plus_apart(self.rounding(scale)))
    }

    /// What [`Evaluator::project`](crate::Evaluator::project) adds to each slot of its result, at
    /// the level and with the special primes of the subring, and `scale`: a key switch to a secret
    /// that has coefficients of the subring alone.
    pub fn projection(&self, subring: &Params, scale: Scale) -> f64 {
        let limbs = Limbs::range(0..subring.limb_count(subring.max_level()));
        let special = self.params.log_of(&self.params.special_limbs(subring.special_count()));
        let ratio = (2.0 * (self.params.log_of(&limbs) - special)).exp2();
        let product = self.degree() * SIGMA * SIGMA / 12.0 * ratio;
        let rounding = (1.0 + subring.degree() as f64 * 2.0 / 3.0) / 12.0;
        subring.degree() as f64 * (product + rounding) / scale.to_f64().powi(2)
    }

    /// Shape of the key that serves `purpose` at `level`: that of the lowest level which is not
    /// below it.
    ///
    /// # Errors
    /// As [`NoiseModel::key_product`].
    pub fn key_shape(&self, purpose: KeyPurpose, level: usize) -> Result<KeyShape, Error> {
        let keys = self.keys.iter().flat_map(KeyRequest::iter);
        let lowest = keys.filter(|&(p, l)| p == purpose && l >= level).map(|(_, l)| l).min();
        KeyShape::cheapest(&self.params, lowest.unwrap_or(level))
    }

    fn degree(&self) -> f64 {
        self.params.degree() as f64
    }

    /// From the variance of coefficients to that of slots.
    fn slots(&self, coefficient: f64, scale: Scale) -> f64 {
        let scale = scale.to_f64();
        self.degree() * coefficient / (scale * scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets;

    #[test]
    fn known_sizes_come_out() -> Result<(), Error> {
        let params = presets::insecure::small(1 << 12, 45.0, 4)?;
        let model = NoiseModel::new(&params);
        let scale = Scale::from_log2(45);
        let bits = |variance: f64| variance.sqrt().log2();
        // sqrt(N) * 3.2 / 2^45 and sqrt(N * N / 18) / 2^45.
        assert!((bits(model.fresh(scale)) - (6.0 + 1.68 - 45.0)).abs() < 0.05);
        assert!((bits(model.rounding(scale).mean) - (12.0 - 2.085 - 45.0)).abs() < 0.05);
        assert!(model.fresh_public(scale).mean > model.fresh(scale));
        // A key switch adds no less than its rounding, and twice the scale halves everything.
        let key_switch = |scale: Scale| -> Result<SlotVariance, Error> {
            Ok(model.key_product(KeyPurpose::Relinearise, 3, scale)?.plus_apart(model.rounding(scale)))
        };
        let switch = key_switch(scale)?;
        assert!(switch.mean > model.rounding(scale).mean);
        let half = key_switch(scale * Scale::from_log2(1))?;
        assert!((switch.mean / half.mean - 4.0).abs() < 1e-9);
        Ok(())
    }
}
