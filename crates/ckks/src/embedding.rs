//! The canonical embedding: real polynomials modulo X^(2n)+1 to n complex slots and back, by one
//! FFT of length n.
//!
//! Slot `j` is the value at `zeta^(5^j)`, `zeta = exp(i pi / 2n)`; the conjugate roots carry the
//! conjugates. All exponents `5^j` are 1 modulo 4, so `zeta^(5^j n) = i` and the two halves of the
//! coefficients fold into one complex vector `c_k = m_k + i m_(k+n)`. With `5^j = 4t + 1` the slot
//! is `sum_k (c_k zeta^k) exp(2 pi i t k / n)`: a twist and an FFT.

use std::fmt;
use std::sync::Arc;

use cipherlm_ring::Wiped;
use num_complex::Complex64;
use rustfft::{Fft, FftPlanner};

use crate::secrecy::wipe;

/// Tables for one slot count.
pub(crate) struct Embedding {
    slots: usize,
    /// `zeta^k`.
    twist: Vec<Complex64>,
    /// `(5^j - 1) / 4 mod n` for slot `j`.
    order: Vec<u32>,
    to_slots: Arc<dyn Fft<f64>>,
    to_coeffs: Arc<dyn Fft<f64>>,
}

impl fmt::Debug for Embedding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Embedding({} slots)", self.slots)
    }
}

impl Embedding {
    /// Tables for `slots` (a power of two) slots.
    pub(crate) fn new(slots: usize) -> Self {
        let mut planner = FftPlanner::new();
        let step = std::f64::consts::PI / (2 * slots) as f64;
        let mut order = Vec::with_capacity(slots);
        let mut power = 1usize;
        for _ in 0..slots {
            order.push(((power - 1) / 4) as u32);
            power = power * 5 % (4 * slots);
        }
        Self {
            slots,
            twist: (0..slots).map(|k| Complex64::from_polar(1.0, k as f64 * step)).collect(),
            order,
            to_slots: planner.plan_fft_inverse(slots),
            to_coeffs: planner.plan_fft_forward(slots),
        }
    }

    /// Slot values (missing ones are zero) to the 2n real coefficients, times `factor`.
    pub(crate) fn coefficients(&self, values: &[Complex64], factor: f64) -> Wiped<f64> {
        let n = self.slots;
        let mut work = vec![Complex64::ZERO; n];
        for (value, &t) in values.iter().zip(&self.order) {
            work[t as usize] = *value;
        }
        transform(&self.to_coeffs, &mut work);
        let factor = factor / n as f64;
        let mut coefficients = Wiped::zeros(2 * n);
        let (real, imaginary) = coefficients.split_at_mut(n);
        for ((c, twist), (re, im)) in work.iter().zip(&self.twist).zip(real.iter_mut().zip(imaginary)) {
            let c = c * twist.conj() * factor;
            (*re, *im) = (c.re, c.im);
        }
        wipe(&mut work);
        coefficients
    }

    /// The 2n real coefficients to slot values, times `factor`.
    pub(crate) fn values(&self, coefficients: &[f64], factor: f64) -> Vec<Complex64> {
        let n = self.slots;
        let mut work: Vec<Complex64> = (0..n)
            .map(|k| Complex64::new(coefficients[k], coefficients[k + n]) * factor * self.twist[k])
            .collect();
        transform(&self.to_slots, &mut work);
        let values = self.order.iter().map(|&t| work[t as usize]).collect();
        wipe(&mut work);
        values
    }
}

/// In place. The scratch space is wiped: what is transformed may be a message, or a secret key.
fn transform(fft: &Arc<dyn Fft<f64>>, work: &mut [Complex64]) {
    let mut scratch = vec![Complex64::ZERO; fft.get_inplace_scratch_len()];
    fft.process_with_scratch(work, &mut scratch);
    wipe(&mut scratch);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, evaluated term by term.
    fn naive(coefficients: &[f64]) -> Vec<Complex64> {
        let n = coefficients.len() / 2;
        let mut power = 1usize;
        let mut slots = Vec::new();
        for _ in 0..n {
            let at = |k: usize| {
                Complex64::from_polar(
                    1.0,
                    std::f64::consts::PI * ((power * k) % (4 * n)) as f64 / (2 * n) as f64,
                )
            };
            slots.push(coefficients.iter().enumerate().map(|(k, &c)| at(k) * c).sum());
            power = power * 5 % (4 * n);
        }
        slots
    }

    #[test]
    fn agrees_with_the_definition_for_every_small_size() {
        for log in 0..8 {
            let n = 1usize << log;
            let coefficients: Vec<f64> =
                (0..2 * n).map(|k| ((k * 37 + 11) % 101) as f64 / 50.0 - 1.0).collect();
            let embedding = Embedding::new(n);
            let values = embedding.values(&coefficients, 1.0);
            for (a, b) in values.iter().zip(naive(&coefficients)) {
                assert!((a - b).norm() < 1e-12 * n as f64);
            }
            let back = embedding.coefficients(&values, 1.0);
            for (a, b) in back.iter().zip(&coefficients) {
                assert!((a - b).abs() < 1e-13);
            }
        }
    }

    #[test]
    fn the_round_trip_is_good_to_48_bits_at_full_size() {
        let n = 1 << 15;
        let values: Vec<Complex64> =
            (0..n).map(|j| Complex64::new((j as f64 * 0.7).sin(), (j as f64 * 1.3).cos())).collect();
        let embedding = Embedding::new(n);
        let back = embedding.values(&embedding.coefficients(&values, 2f64.powi(45)), 2f64.powi(-45));
        let worst = back.iter().zip(&values).map(|(a, b)| (a - b).norm()).fold(0.0, f64::max);
        assert!(worst < 2f64.powi(-48), "worst slot is off by 2^{}", worst.log2());
    }
}
