//! The canonical embedding: real polynomials modulo X^(2n)+1 to n complex slots and back, by one
//! FFT of length n.
//!
//! Slot `j` is the value at `zeta^(5^j)`, `zeta = exp(i pi / 2n)`; the conjugate roots carry the
//! conjugates. All exponents `5^j` are 1 modulo 4, so `zeta^(5^j n) = i` and the two halves of the
//! coefficients fold into one complex vector `c_k = m_k + i m_(k+n)`. With `5^j = 4t + 1` the slot
//! is `sum_k (c_k zeta^k) exp(2 pi i t k / n)`: a twist and an FFT.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use cipherlm_ring::wipe;
use num_complex::Complex64;
use rustfft::{Fft, FftPlanner};

/// Tables for one slot count.
pub(crate) struct Embedding {
    slots: usize,
    /// `zeta^k`.
    twist: Vec<Complex64>,
    /// `(5^j - 1) / 4 mod n` for slot `j`.
    order: Vec<u32>,
    to_slots: Arc<dyn Fft<f64>>,
    to_coeffs: Arc<dyn Fft<f64>>,
    /// Memory that no transform uses now, all zeros. Fresh pages for each would cost as much as
    /// half a transform.
    spare: Mutex<Vec<Vec<Complex64>>>,
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
            spare: Mutex::default(),
        }
    }

    /// Slot values (missing ones are zero) to the 2n real coefficients, times `factor`.
    pub(crate) fn coefficients(
        &self,
        values: impl Iterator<Item = Complex64>,
        factor: f64,
    ) -> Coefficients<'_> {
        let n = self.slots;
        let mut work = self.buffer();
        for (value, &t) in values.zip(&self.order) {
            work[t as usize] = value;
        }
        self.transform(&self.to_coeffs, &mut work);
        let factor = factor / n as f64;
        for (c, twist) in work.iter_mut().zip(&self.twist) {
            *c = *c * twist.conj() * factor;
        }
        Coefficients(work)
    }

    /// Every `gap`-th of 2n `gap` real coefficients to slot values, times `factor`.
    pub(crate) fn values(&self, coefficients: &[f64], gap: usize, factor: f64) -> Vec<Complex64> {
        let mut work = self.buffer();
        let (real, imaginary) = coefficients.split_at(self.slots * gap);
        let pairs = real.iter().step_by(gap).zip(imaginary.iter().step_by(gap));
        for ((to, (&re, &im)), twist) in work.iter_mut().zip(pairs).zip(&self.twist) {
            *to = Complex64::new(re, im) * factor * twist;
        }
        self.transform(&self.to_slots, &mut work);
        self.order.iter().map(|&t| work[t as usize]).collect()
    }

    /// In place. The scratch space is wiped: what is transformed may be a message, or a secret key.
    fn transform(&self, fft: &Arc<dyn Fft<f64>>, work: &mut [Complex64]) {
        let mut scratch = self.buffer();
        fft.process_with_scratch(work, &mut scratch.values);
    }

    /// `n` zeros, and behind them what a transform needs as scratch space beyond that.
    fn buffer(&self) -> Buffer<'_> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let scratch = |fft: &Arc<dyn Fft<f64>>| fft.get_inplace_scratch_len();
        let room = || self.slots.max(scratch(&self.to_slots)).max(scratch(&self.to_coeffs));
        Buffer { owner: self, values: spare.unwrap_or_else(|| vec![Complex64::ZERO; room()]) }
    }
}

/// Memory of one transform, wiped and given back on drop.
struct Buffer<'a> {
    owner: &'a Embedding,
    values: Vec<Complex64>,
}

impl Deref for Buffer<'_> {
    type Target = [Complex64];

    fn deref(&self) -> &[Complex64] {
        &self.values[..self.owner.slots]
    }
}

impl DerefMut for Buffer<'_> {
    fn deref_mut(&mut self) -> &mut [Complex64] {
        &mut self.values[..self.owner.slots]
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        wipe(&mut self.values);
        let values = std::mem::take(&mut self.values);
        self.owner.spare.lock().unwrap_or_else(PoisonError::into_inner).push(values);
    }
}

/// The 2n real coefficients of a vector, wiped on drop.
pub(crate) struct Coefficients<'a>(Buffer<'a>);

impl Coefficients<'_> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = f64> + '_ {
        self.0.iter().map(|c| c.re).chain(self.0.iter().map(|c| c.im))
    }
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
            let values = embedding.values(&coefficients, 1, 1.0);
            for (a, b) in values.iter().zip(naive(&coefficients)) {
                assert!((a - b).norm() < 1e-12 * n as f64);
            }
            let back = embedding.coefficients(values.iter().copied(), 1.0);
            assert_eq!(back.iter().count(), 2 * n);
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
        let coefficients: Vec<f64> =
            embedding.coefficients(values.iter().copied(), 2f64.powi(45)).iter().collect();
        let back = embedding.values(&coefficients, 1, 2f64.powi(-45));
        let worst = back.iter().zip(&values).map(|(a, b)| (a - b).norm()).fold(0.0, f64::max);
        assert!(worst < 2f64.powi(-48), "worst slot is off by 2^{}", worst.log2());
    }

    #[test]
    fn every_second_coefficient_is_half_as_many_slots() {
        let coefficients: Vec<f64> = (0..32).map(|k| f64::from(k * 7 % 11)).collect();
        let second: Vec<f64> = coefficients.iter().step_by(2).copied().collect();
        let embedding = Embedding::new(8);
        assert_eq!(embedding.values(&coefficients, 2, 3.0), embedding.values(&second, 1, 3.0));
    }

    #[test]
    fn memory_is_used_again_and_holds_nothing_in_between() {
        let embedding = Embedding::new(64);
        let value = Complex64::new(3.0, 4.0);
        let whole: Vec<f64> = embedding.coefficients([value; 64].into_iter(), 1.0).iter().collect();
        let spare =
            |embedding: &Embedding| -> Vec<Vec<Complex64>> { embedding.spare.lock().unwrap().clone() };
        assert_eq!(spare(&embedding).len(), 2);
        assert!(spare(&embedding).iter().flatten().all(|c| *c == Complex64::ZERO));
        // Missing values are zeros, not what was there before.
        let few: Vec<f64> = embedding.coefficients([value].into_iter(), 1.0).iter().collect();
        let fresh: Vec<f64> = Embedding::new(64).coefficients([value].into_iter(), 1.0).iter().collect();
        assert_eq!(few, fresh);
        assert_ne!(few, whole);
        assert_eq!(spare(&embedding).len(), 2);
    }
}
