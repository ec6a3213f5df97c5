//! Choice of the primes: deterministic, distinct, and close enough to the nominal scale that
//! squaring does not drift.

use cipherlm_ring::{ntt_primes, primes_near};

use crate::Error;

/// The primes of a chain, bottom first, and the special primes.
pub(super) struct Chain {
    /// One group per level; the first is the base `q0`.
    pub(super) groups: Vec<Vec<u64>>,
    /// Special primes, largest first.
    pub(super) special: Vec<u64>,
}

/// Largest size of one prime.
const MAX_PRIME_BITS: f64 = 50.0;

/// Picks the primes for groups of the given sizes (bottom first) and `special_count` special
/// primes.
///
/// A group of more than 50 bits is made of two primes of half its size. Levels are filled from the
/// top: in a run of equal sizes the level below takes the prime nearest to `S^2 / 2^bits`, where
/// `S` is the scale that a product arriving there would have, so that the scale of a chain of
/// squarings stays within one prime gap of its nominal value.
pub(super) fn choose(
    degree: usize,
    group_bits: &[f64],
    special_bits: u32,
    special_count: usize,
) -> Result<Chain, Error> {
    let special = ntt_primes(degree, special_bits, special_count, &[])?;
    let mut taken = special.clone();
    let mut groups = vec![Vec::new(); group_bits.len()];
    let mut drift = 0.0; // log2 of (scale / nominal scale) on arrival at the level
    for level in (0..group_bits.len()).rev() {
        let bits = group_bits[level];
        let same_run = level + 1 < group_bits.len() && group_bits[level + 1] == bits;
        if !same_run || level == 0 {
            drift = 0.0;
        }
        let target = bits + 2.0 * drift;
        let group = if bits <= MAX_PRIME_BITS {
            primes_near(degree, target.min(MAX_PRIME_BITS), 1, &taken)?
        } else {
            let first = primes_near(degree, (target / 2.0).min(MAX_PRIME_BITS), 1, &taken)?;
            let rest = target - first.iter().map(|&q| (q as f64).log2()).sum::<f64>();
            taken.extend(&first);
            let second = primes_near(degree, rest.min(MAX_PRIME_BITS), 1, &taken)?;
            [first, second].concat()
        };
        taken.extend(&group);
        drift = target - group.iter().map(|&q| (q as f64).log2()).sum::<f64>();
        groups[level] = group;
    }
    Ok(Chain { groups, special })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_of_a_tower_of_squares_stays_near_its_nominal_value() {
        let degree = 1 << 16;
        let mut bits = vec![50.0];
        bits.extend([45.0; 24]);
        let chain = choose(degree, &bits, 50, 9).unwrap();
        let mut log_scale = 45.0f64;
        for group in chain.groups[1..].iter().rev() {
            log_scale = 2.0 * log_scale - (group[0] as f64).log2();
            assert!((log_scale - 45.0).abs() < 1e-4, "drifted to 2^{log_scale}");
        }
        let mut all: Vec<u64> = chain.groups.concat();
        all.extend(&chain.special);
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "primes must be distinct");
        assert!(all.iter().all(|&q| q < 1 << 50 && q % (2 * degree as u64) == 1));
    }

    #[test]
    fn a_wide_group_is_two_primes_with_the_right_product() {
        let chain = choose(1 << 14, &[60.0, 54.0, 58.0], 50, 2).unwrap();
        for (group, bits) in chain.groups.iter().zip([60.0, 54.0, 58.0]) {
            assert_eq!(group.len(), 2);
            let log: f64 = group.iter().map(|&q| (q as f64).log2()).sum();
            assert!((log - bits).abs() < 0.02, "{log} for {bits}");
        }
    }
}
