//! Shapes of switching keys: which level and special primes, and how the limbs are cut into digits.

use std::ops::Range;

use cipherlm_ring::PackedPair;

use super::{Params, SecretDistribution, check_security};
use crate::Error;
use crate::keys::KeyForm;

/// The level a switching key is cut to and the number of special primes it uses.
///
/// Limbs `0..n` of the level are cut into digits, each with a product of at most that of the special primes. Fewer
/// special primes make a smaller and, at low levels, faster key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyShape {
    /// Highest level of the ciphertexts that the key can switch.
    pub level: usize,
    /// Special primes in use.
    pub special: usize,
}

impl KeyShape {
    /// The shape with the cheapest key switch at `level`, by a count of transforms and multiplications.
    ///
    /// # Errors
    /// [`Error::LevelOutOfRange`], or [`Error::BadKeyShape`] if even all special primes do not cover the largest prime.
    pub fn cheapest(params: &Params, level: usize) -> Result<Self, Error> {
        params.check_level("key shape", level)?;
        (1..=params.special_count())
            .map(|special| Self { level, special })
            .filter(|shape| shape.check(params).is_ok())
            .min_by(|a, b| a.cost(params).total_cmp(&b.cost(params)))
            .ok_or(Error::BadKeyShape {
                level,
                special: params.special_count(),
                reason: "the special primes are smaller than a prime of the chain",
            })
    }

    /// Refuses shapes outside of the chain or whose digits are larger than the special modulus.
    pub fn check(self, params: &Params) -> Result<(), Error> {
        params.check_level("key shape", self.level)?;
        let bad = |reason| Err(Error::BadKeyShape { level: self.level, special: self.special, reason });
        if self.special == 0 || self.special > params.special_count() {
            return bad("the number of special primes must be between 1 and that of the parameters");
        }
        let p = params.log2_of(&params.special_limbs(self.special));
        if params.limbs(self.level).iter().any(|i| (params.prime(i) as f64).log2() > p) {
            return bad("a prime of the chain is larger than the special modulus");
        }
        Ok(())
    }

    /// Limbs of each digit (indices into the prime pool), lowest first.
    pub fn digits(self, params: &Params) -> Vec<Range<usize>> {
        let sizes: Vec<f64> = params.limbs(self.level).iter().map(|i| (params.prime(i) as f64).log2()).collect();
        let p = params.log2_of(&params.special_limbs(self.special));
        balanced(&sizes, digits_needed(&sizes, p), p)
    }

    /// log2 of the modulus the key lives at.
    pub fn log_qp(self, params: &Params) -> f64 {
        params.log2_of(&params.extended_limbs(self.level, self.special))
    }

    /// Refuses a key whose modulus is below 128-bit security for `secret`; insecure test parameters pass.
    pub(crate) fn check_security(self, params: &Params, secret: SecretDistribution) -> Result<(), Error> {
        let checked = check_security("switching key", params.degree(), secret, self.log_qp(params));
        if params.is_insecure() { Ok(()) } else { checked.map(drop) }
    }

    /// Bytes of the key in a file: one packed polynomial per digit and a seed.
    pub fn stored_bytes(self, params: &Params) -> u64 {
        let limbs = params.limb_count(self.level) + self.special;
        crate::wire::switching_key_bytes(self.digits(params).len(), limbs, params.degree())
    }

    /// Bytes of the key in memory, in the fastest form for this CPU ([`KeyForm::fastest`]).
    pub fn resident_bytes(self, params: &Params) -> u64 {
        self.resident_bytes_in(params, KeyForm::fastest(params))
    }

    /// Bytes of the key in memory: two polynomials per digit in the given form.
    pub fn resident_bytes_in(self, params: &Params, form: KeyForm) -> u64 {
        let (digits, limbs) = (self.digits(params).len() as u64, params.extended_limbs(self.level, self.special));
        digits
            * match form {
                KeyForm::Expanded => (2 * limbs.len() * params.ring().stride() * 8) as u64,
                // No error: these are limbs of the ring.
                KeyForm::Packed => PackedPair::bytes_over(params.ring(), &limbs).map_or(0, |bytes| bytes as u64),
                KeyForm::Seeded => limbs.len() as u64 * crate::wire::limb_bytes(params.degree()),
            }
    }

    /// Milliseconds of a key switch at N = 2^16 by the measured cost of its parts; only ratios matter.
    fn cost(self, params: &Params) -> f64 {
        let (l, k) = (params.limb_count(self.level) as f64, self.special as f64);
        let beta = self.digits(params).len() as f64;
        let transforms = beta * (l + k) + 2.0 * k + 2.0 * l;
        let conversions = beta * k * l + 2.0 * k * l;
        let products = 2.0 * beta * (l + k);
        0.2 * transforms + 0.0275 * conversions + 0.04 * products
    }
}

/// Sizes in bits of the limbs of a chain given by group sizes.
pub(super) fn limb_sizes(group_bits: &[f64]) -> Vec<f64> {
    group_bits.iter().flat_map(|&b| if b <= 50.0 { vec![b] } else { vec![b / 2.0; 2] }).collect()
}

/// Fewest contiguous digits of at most `capacity` bits.
pub(super) fn digits_needed(sizes: &[f64], capacity: f64) -> usize {
    let (mut count, mut filled) = (0, f64::INFINITY);
    for &size in sizes {
        if filled + size > capacity {
            count += 1;
            filled = 0.0;
        }
        filled += size;
    }
    count
}

/// Cuts `sizes` into `count` contiguous digits with the smallest possible largest digit.
fn balanced(sizes: &[f64], count: usize, capacity: f64) -> Vec<Range<usize>> {
    // Bisection on the largest digit: the greedy cut is optimal for a given bound.
    let (mut low, mut high) = (sizes.iter().copied().fold(0.0, f64::max), capacity);
    for _ in 0..50 {
        let middle = 0.5 * (low + high);
        if digits_needed(sizes, middle) <= count { high = middle } else { low = middle }
    }
    let mut digits: Vec<Range<usize>> = Vec::with_capacity(count);
    let mut filled = 0.0;
    for (i, &size) in sizes.iter().enumerate() {
        match digits.last_mut() {
            Some(last) if filled + size <= high => {
                last.end = i + 1;
                filled += size;
            }
            _ => {
                digits.push(i..i + 1);
                filled = size;
            }
        }
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_cover_the_limbs_and_stay_below_the_capacity() {
        for count in 1..40usize {
            let sizes: Vec<f64> = (0..count).map(|i| [50.0, 45.0, 28.0, 37.5][i % 4]).collect();
            for capacity in [50.0, 99.9, 150.0, 350.0] {
                let needed = digits_needed(&sizes, capacity);
                let digits = balanced(&sizes, needed, capacity);
                assert_eq!(digits.len(), needed);
                assert_eq!(digits[0].start, 0);
                assert_eq!(digits[needed - 1].end, count);
                assert!(digits.windows(2).all(|w| w[0].end == w[1].start));
                for digit in digits {
                    assert!(sizes[digit].iter().sum::<f64>() <= capacity);
                }
            }
        }
    }

    #[test]
    fn digits_are_balanced_by_bits() {
        let sizes = [vec![50.0], vec![45.0; 24]].concat();
        let digits = balanced(&sizes, digits_needed(&sizes, 450.0), 450.0);
        let bits: Vec<f64> = digits.iter().map(|d| sizes[d.clone()].iter().sum()).collect();
        assert_eq!(digits.len(), 3);
        assert!(bits.iter().all(|b| *b <= 410.0), "{bits:?}");
    }
}
