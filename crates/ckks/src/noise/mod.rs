//! How much error each homomorphic operation adds.
//!
//! # Level, scale and noise in one page
//! A slot of size `m` is carried by ring coefficients of size `m * scale`. Every operation that has to round or to hide something adds
//! an error to the coefficients, of about the same absolute size whatever the scale; seen from the slots it is that error divided by
//! the scale. So precision is bought with scale, and levels are what scale costs.
//!
//! All errors here are variances of the *complex* slot error, `E|e|^2`, in units of slots. A polynomial whose `N` coefficients have
//! independent errors of variance `v` has slot errors of variance `N v / scale^2`. The sources are
//! - fresh encryption: one Gaussian per coefficient (two more, convolved with ternary polynomials, under the public key);
//! - encoding: rounding the coefficients of a plaintext, 1/12 each;
//! - rounding: every division (rescale, leaving the special modulus) rounds both components of a ciphertext, and the second one meets
//!   the secret: `(1 + |s|^2) / 12`, which a dense secret makes `N / 18`;
//! - key switching: digits of size `D_i` meet the Gaussian errors of the key and are divided by the special modulus `P`:
//!   `N sigma^2 / 12 * sum (D_i / P)^2`.
//!
//! The component-wise view (errors slot by slot instead of one bound on a norm) follows Bossuat, Cammarota, Curtis and Jeljeli et al.,
//! "Security and noise in CKKS: component-wise estimates" (2024/853).

use crate::{Error, KeyPurpose, KeyRequest, KeyShape, Params, Scale};

/// Standard deviation of the Gaussian errors of encryptions and keys.
const SIGMA: f64 = cipherlm_ring::sample::SIGMA;

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

    /// The same model for a secret with `weight` nonzero coefficients.
    #[must_use]
    pub fn with_secret_weight(self, weight: usize) -> Self {
        Self { secret_norm: weight as f64, ..self }
    }

    /// The same model with keys as generated from `request`. A key made for a higher level than that of its use can have another shape
    /// and so another error.
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

    /// A fresh encryption under the public key at `scale`, encoding of full slots included.
    pub fn fresh_public(&self, scale: Scale) -> f64 {
        let ephemeral = self.degree() * 2.0 / 3.0;
        self.slots(SIGMA * SIGMA * (1.0 + ephemeral + self.secret_norm), scale)
            + self.encoding(self.params.slots(), scale)
    }

    /// The rounding of a plaintext of the given period at `scale`.
    pub fn encoding(&self, period: usize, scale: Scale) -> f64 {
        let scale = scale.to_f64();
        2.0 * period as f64 / 12.0 / (scale * scale)
    }

    /// The part of one division's rounding that is independent of the secret, at the scale after it.
    pub fn rounding_plain(&self, scale: Scale) -> f64 {
        self.slots(1.0 / 12.0, scale)
    }

    /// The part of one division's rounding that is multiplied by the secret. In each slot it is proportional to the square of the
    /// secret's own slot value; this is the mean.
    pub fn rounding_secret(&self, scale: Scale) -> f64 {
        self.slots(self.secret_norm / 12.0, scale)
    }

    /// The rounding of one division at the scale after it.
    pub fn rounding(&self, scale: Scale) -> f64 {
        self.rounding_plain(scale) + self.rounding_secret(scale)
    }

    /// The inner product of a key switch of a ciphertext at `level` and `scale`, without the rounding of the division after it.
    ///
    /// # Errors
    /// [`Error::BadKeyShape`] or [`Error::LevelOutOfRange`] if the parameters allow no such key.
    pub fn key_product(&self, purpose: KeyPurpose, level: usize, scale: Scale) -> Result<f64, Error> {
        let shape = KeyShape::cheapest(&self.params, self.key_level(purpose, level))?;
        let special = self.params.log2_of(&self.params.special_limbs(shape.special));
        let limbs = self.params.limb_count(level);
        let digit = |digit: std::ops::Range<usize>| {
            let bits: f64 =
                digit.filter(|&limb| limb < limbs).map(|limb| (self.params.prime(limb) as f64).log2()).sum();
            if bits == 0.0 { 0.0 } else { (2.0 * (bits - special)).exp2() }
        };
        let ratios: f64 = shape.digits(&self.params).into_iter().map(digit).sum();
        Ok(self.slots(self.degree() * SIGMA * SIGMA / 12.0 * ratios, scale))
    }

    /// A whole key switch: [`NoiseModel::key_product`] and one rounding.
    ///
    /// # Errors
    /// As [`NoiseModel::key_product`].
    pub fn key_switch(&self, purpose: KeyPurpose, level: usize, scale: Scale) -> Result<f64, Error> {
        Ok(self.key_product(purpose, level, scale)? + self.rounding(scale))
    }

    /// Level of the key that serves `purpose` at `level`: the lowest that is not below it.
    fn key_level(&self, purpose: KeyPurpose, level: usize) -> usize {
        let keys = self.keys.iter().flat_map(KeyRequest::iter);
        keys.filter(|&(p, l)| p == purpose && l >= level).map(|(_, l)| l).min().unwrap_or(level)
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

/// What is predicted about the error of a vector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Root mean square of the slot errors.
    pub rms: f64,
    /// Largest slot error.
    pub worst: f64,
}

/// Factor on the error of a single sampled run and on averages, for the randomness of the run that is predicted.
const MARGIN: f64 = 1.6;
/// How likely the worst slot of a vector may pass the prediction.
const MISS: f64 = 1e-3;

impl Prediction {
    /// The prediction from each slot's variance and the squared errors of one sampled run.
    pub fn of(variance: &[f64], sample: &[f64]) -> Self {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let max = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
        Self {
            rms: MARGIN * mean(variance).max(mean(sample)).sqrt(),
            worst: quantile(variance).max(MARGIN * max(sample).sqrt()),
        }
    }

    /// Bits below one of the largest slot error.
    pub fn bits(&self) -> f64 {
        -self.worst.log2()
    }
}

/// The size that some slot passes with probability [`MISS`].
///
/// Rounding meets the secret, so errors are products of two complex Gaussians, whose modulus passes `t` standard deviations with a
/// probability of about `sqrt(pi t) exp(-2 t)`: a longer tail than that of a single Gaussian.
fn quantile(variance: &[f64]) -> f64 {
    let largest = variance.iter().copied().fold(0.0, f64::max).sqrt();
    if largest == 0.0 {
        return 0.0;
    }
    let deviations: Vec<f64> = variance.iter().map(|v| v.sqrt()).filter(|&deviation| deviation > 0.0).collect();
    let passed = |size: f64| -> f64 {
        let one = |deviation: &f64| {
            let t = size / deviation;
            ((std::f64::consts::PI * t).sqrt() * (-2.0 * t).exp()).min(1.0)
        };
        deviations.iter().map(one).sum()
    };
    let (mut low, mut high) = (largest, 40.0 * largest);
    for _ in 0..16 {
        let middle = (low * high).sqrt();
        if passed(middle) > MISS { low = middle } else { high = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets;

    #[test]
    fn the_worst_slot_is_judged_by_all_of_them() {
        let uniform = quantile(&[1.0; 1024]);
        assert!((6.0..9.0).contains(&uniform), "{uniform}");
        let mut single = [1e-6; 1024];
        single[7] = 1.0;
        let one = quantile(&single);
        assert!(one < uniform && one > 3.0, "{one}");
        assert_eq!(quantile(&[0.0; 8]), 0.0);
    }

    #[test]
    fn known_sizes_come_out() -> Result<(), Error> {
        let params = presets::insecure::small(1 << 12, 45.0, 4)?;
        let model = NoiseModel::new(&params);
        let scale = Scale::from_log2(45);
        let bits = |variance: f64| variance.sqrt().log2();
        // sqrt(N) * 3.2 / 2^45 and sqrt(N * N / 18) / 2^45.
        assert!((bits(model.fresh(scale)) - (6.0 + 1.68 - 45.0)).abs() < 0.05);
        assert!((bits(model.rounding(scale)) - (12.0 - 2.085 - 45.0)).abs() < 0.05);
        assert!(model.fresh_public(scale) > model.fresh(scale));
        // A key switch adds no less than its rounding, and twice the scale halves everything.
        let switch = model.key_switch(KeyPurpose::Relinearise, 3, scale)?;
        assert!(switch > model.rounding(scale));
        let half = model.key_switch(KeyPurpose::Relinearise, 3, scale * Scale::from_log2(1))?;
        assert!((switch / half - 4.0).abs() < 1e-9);
        Ok(())
    }
}
