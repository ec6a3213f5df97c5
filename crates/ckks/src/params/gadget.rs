//! Shapes of switching keys: which level and special primes, and how the limbs are cut into digits.

use std::ops::Range;

use num_bigint::BigUint;

use super::{Params, SecretDistribution, check_security};
use crate::Error;

/// The level a switching key is cut to and the number of special primes it uses.
///
/// Limbs `0..n` of the level are cut into digits, each with a product of at most that of the
/// special primes. Fewer special primes make a smaller and, at low levels, faster key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyShape {
    /// Highest level of the ciphertexts that the key can switch.
    pub level: usize,
    /// Special primes in use.
    pub special: usize,
}

impl KeyShape {
    /// The shape with the cheapest key switch at `level`, by a count of transforms and
    /// multiplications.
    ///
    /// # Errors
    /// [`Error::LevelOutOfRange`], or [`Error::BadKeyShape`] if even all special primes do not
    /// cover the largest prime.
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
        let capacity = product(&params.primes_of(&params.special_limbs(self.special)));
        let largest = params.primes_of(params.limbs(self.level)).into_iter().max();
        if largest.is_some_and(|q| BigUint::from(q) > capacity) {
            return bad("a prime of the chain is larger than the special modulus");
        }
        Ok(())
    }

    /// Limbs of each digit (indices into the prime pool), lowest first: as few digits as have
    /// products of at most that of the special primes, and of these cuts the one with the smallest
    /// largest digit.
    pub fn digits(self, params: &Params) -> Vec<Range<usize>> {
        let cut = || {
            let capacity = product(&params.primes_of(&params.special_limbs(self.special)));
            balanced(&params.primes_of(params.limbs(self.level)), &capacity)
        };
        params.cut(self, cut).to_vec()
    }

    /// log2 of the modulus the key lives at.
    pub fn log_qp(self, params: &Params) -> f64 {
        params.log_of(&params.extended_limbs(self.level, self.special))
    }

    /// Refuses a key whose modulus is below 128-bit security for `secret`; insecure test parameters
    /// pass.
    pub(crate) fn check_security(self, params: &Params, secret: SecretDistribution) -> Result<(), Error> {
        let checked = check_security("switching key", params.degree(), secret, self.log_qp(params));
        if params.is_insecure() { Ok(()) } else { checked.map(drop) }
    }

    /// Milliseconds of a key switch at N = 2^16 by the measured cost of its parts; only ratios
    /// matter.
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

fn product(primes: &[u64]) -> BigUint {
    primes.iter().map(|&q| BigUint::from(q)).product()
}

/// Contiguous digits with products of at most `bound`, each as long as it can be. A prime above the
/// bound has its own digit.
fn greedy(primes: &[u64], bound: &BigUint) -> Vec<Range<usize>> {
    let mut digits: Vec<Range<usize>> = Vec::new();
    let mut filled = BigUint::ZERO;
    for (i, &q) in primes.iter().enumerate() {
        let longer = &filled * q;
        match digits.last_mut() {
            Some(last) if longer <= *bound => {
                last.end = i + 1;
                filled = longer;
            }
            _ => {
                digits.push(i..i + 1);
                filled = q.into();
            }
        }
    }
    digits
}

/// Cuts `primes` into as few digits as `capacity` allows, with the smallest possible largest digit.
///
/// Products are compared as integers: the cut fixes the length of a key in a file, so it must not
/// hang on the last bit of a logarithm. The greedy cut is optimal for a given bound, and the best
/// bound is the product of some run of primes.
fn balanced(primes: &[u64], capacity: &BigUint) -> Vec<Range<usize>> {
    let fewest = greedy(primes, capacity);
    let mut bounds: Vec<BigUint> = Vec::new();
    for start in 0..primes.len() {
        let runs = primes[start..].iter().scan(BigUint::from(1u32), |run, &q| {
            *run *= q;
            (*run <= *capacity).then(|| run.clone())
        });
        bounds.extend(runs);
    }
    bounds.sort_unstable();
    let best = bounds.partition_point(|bound| greedy(primes, bound).len() > fewest.len());
    bounds.get(best).map_or(fewest, |bound| greedy(primes, bound))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(primes: &[u64]) -> f64 {
        primes.iter().map(|&q| (q as f64).log2()).sum()
    }

    fn primes(sizes: &[f64]) -> Vec<u64> {
        let mut taken = Vec::new();
        for &size in sizes {
            taken.extend(cipherlm_ring::primes_near(1 << 10, size, 1, &taken).unwrap());
        }
        taken
    }

    #[test]
    fn digits_are_counted_by_hand() {
        assert_eq!(digits_needed(&[], 50.0), 0);
        assert_eq!(digits_needed(&[40.0], 50.0), 1);
        // Full to the brim is not too full.
        assert_eq!(digits_needed(&[20.0, 30.0], 50.0), 1);
        assert_eq!(digits_needed(&[20.0, 30.0, 1.0], 50.0), 2);
        assert_eq!(digits_needed(&[30.0, 30.0, 15.0, 5.0, 40.0, 11.0], 50.0), 4);
    }

    #[test]
    fn digits_cover_the_limbs_and_stay_below_the_capacity() {
        for count in 1..40usize {
            let chain = primes(&(0..count).map(|i| [49.0, 45.0, 28.0, 37.5][i % 4]).collect::<Vec<_>>());
            for capacity in [50.0, 99.9, 150.0, 350.0] {
                let limit =
                    BigUint::from((capacity % 50.0f64).exp2() as u64) << ((capacity / 50.0) as usize * 50);
                let digits = balanced(&chain, &limit);
                assert_eq!(digits.len(), greedy(&chain, &limit).len());
                assert_eq!((digits[0].start, digits[digits.len() - 1].end), (0, count));
                assert!(digits.windows(2).all(|w| w[0].end == w[1].start));
                assert!(digits.into_iter().all(|digit| product(&chain[digit]) <= limit));
            }
        }
    }

    #[test]
    fn no_cut_with_as_few_digits_has_a_smaller_largest_digit() {
        let chain = primes(&[43.0, 40.0, 29.0, 40.0, 33.0, 40.0, 45.0, 21.0]);
        let limit = BigUint::from(1u32) << 130;
        let digits = balanced(&chain, &limit);
        let largest = |ends: &[usize]| {
            let starts = std::iter::once(&0).chain(ends);
            starts.zip(ends.iter().chain([&chain.len()])).map(|(&a, &b)| product(&chain[a..b])).max().unwrap()
        };
        assert_eq!(digits.len(), 3);
        let found = largest(&[digits[0].end, digits[1].end]);
        let cuts = (1..chain.len()).flat_map(|a| (a + 1..chain.len()).map(move |b| [a, b]));
        assert_eq!(found, cuts.map(|cut| largest(&cut)).min().unwrap());
    }

    #[test]
    fn a_digit_may_be_as_large_as_the_special_modulus_and_not_one_more() {
        let chain = primes(&[40.0, 40.0, 40.0]);
        let two = product(&chain[..2]).max(product(&chain[1..]));
        assert_eq!(greedy(&chain, &two).len(), 2);
        let exact = product(&chain);
        assert_eq!(greedy(&chain, &exact).len(), 1);
        assert_eq!(greedy(&chain, &(exact - 1u32)).len(), 2);
    }

    #[test]
    fn digits_are_balanced_by_bits() {
        let chain = primes(&[vec![50.0], vec![45.0; 24]].concat());
        let digits = balanced(&chain, &(BigUint::from(1u32) << 450));
        assert_eq!(digits.len(), 3);
        assert!(digits.iter().all(|digit| bits(&chain[digit.clone()]) <= 410.0), "{digits:?}");
    }
    /// By hand: 6 limbs in 6 digits of one prime, or in 3 of two.
    #[test]
    fn a_key_switch_costs_its_transforms_conversions_and_products() {
        let params = Params::insecure_for_tests(
            Params::builder().degree(1 << 6).base(45.0).levels(45.0, 5).special(50, 2),
        )
        .unwrap();
        let cost = |special| KeyShape { level: 5, special }.cost(&params);
        assert!((cost(1) - 15.88).abs() < 1e-9 && (cost(2) - 11.57).abs() < 1e-9, "{} {}", cost(1), cost(2));
        assert_eq!(KeyShape::cheapest(&params, 5).unwrap(), KeyShape { level: 5, special: 2 });
        assert_eq!(KeyShape::cheapest(&params, 0).unwrap(), KeyShape { level: 0, special: 1 });
        assert_eq!((params.group_bits(0), params.group_bits(3), params.group_bits(9)), (45.0, 45.0, 45.0));
    }
}
