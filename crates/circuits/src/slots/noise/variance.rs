//! What sums and products do to errors.

use super::{Name, Noise, NoiseVector};
use crate::slots::{Plain, Scale};
use cipherlm_ckks::noise::SlotVariance;
use num_complex::Complex64;

impl Noise {
    /// Variance of `left + unit * right` for a power of `i`.
    fn sum_variance(left: &NoiseVector, right: &NoiseVector, turns: u8) -> Vec<SlotVariance> {
        let both = left.variance.iter().zip(right.variance.iter());
        match right.error.turned(turns).over(left.error) {
            // The error of both is one and the same: doubled in a sum with itself, gone in a
            // difference.
            Some(unit) => left.variance.iter().map(|v| v.times((Complex64::ONE + unit).norm_sqr())).collect(),
            None => both.map(|(a, b)| a.plus(*b)).collect(),
        }
    }

    /// Name, name of the error and variance of `left + i^turns * right`.
    pub(super) fn sum(left: &NoiseVector, right: &NoiseVector, turns: u8) -> (Name, Name, Vec<SlotVariance>) {
        let sum = |left: Name, right: Name| Name::sum(vec![left, right.turned(turns)]);
        (sum(left.name, right.name), sum(left.error, right.error), Self::sum_variance(left, right, turns))
    }

    /// Error of a plaintext's own rounding: exact for real constants, an average otherwise.
    pub(super) fn plain_error(&self, plain: &Plain, scale: Scale) -> f64 {
        match plain.as_constant() {
            Some(constant) if constant.im == 0.0 => {
                let (high, low) = scale.round_times(constant.re);
                let rounded =
                    (Scale::from_parts(high.abs(), low * high.signum())).map(|integer| integer / scale);
                let error =
                    rounded.map_or(constant.re, |rounded| rounded.to_f64() * high.signum() - constant.re);
                error * error
            }
            _ => self.model.encoding(plain.period(), scale),
        }
    }

    /// Variance of a sum of products.
    pub(super) fn product_variance(pairs: &[(&NoiseVector, &NoiseVector)]) -> Vec<SlotVariance> {
        let slots = pairs.first().map_or(0, |(left, _)| left.variance.len());
        let mut variance = vec![SlotVariance::default(); slots];
        // To first order, each error meets the sum of all that it is multiplied with.
        let mut factors: Vec<(&NoiseVector, Vec<Complex64>)> = Vec::new();
        for (left, right) in pairs {
            for (own, other) in [(left, right), (right, left)] {
                let known = factors.iter().position(|(known, _)| own.error.over(known.error).is_some());
                let at = known.unwrap_or_else(|| {
                    factors.push((own, vec![Complex64::ZERO; slots]));
                    factors.len() - 1
                });
                let (known, sum) = &mut factors[at];
                let unit = own.error.over(known.error).unwrap_or(Complex64::ONE);
                sum.iter_mut().zip(other.exact()).for_each(|(sum, value)| *sum += unit * value);
            }
            for (slot, variance) in variance.iter_mut().enumerate() {
                let second = left.variance[slot].mean * right.variance[slot].mean;
                *variance = variance.plus(SlotVariance::multiplied(second));
            }
        }
        for (vector, factor) in &factors {
            for ((variance, own), factor) in variance.iter_mut().zip(vector.variance.iter()).zip(factor) {
                *variance = variance.plus(own.times(factor.norm_sqr()));
            }
        }
        variance
    }
}
