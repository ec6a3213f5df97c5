//! Primality and deterministic search for NTT-friendly primes.

use crate::bounds::{MAX_MODULUS_BITS, MAX_PRIMES, log_degree};
use crate::error::{Error, Result};

/// Whether `n` is prime; deterministic for every `u64` (Miller-Rabin to the first twelve prime
/// bases).
pub fn is_prime(n: u64) -> bool {
    const BASES: [u64; 12] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37];
    if n < 2 {
        return false;
    }
    for p in BASES {
        if n.is_multiple_of(p) {
            return n == p;
        }
    }
    let twos = (n - 1).trailing_zeros();
    let odd = (n - 1) >> twos;
    BASES.iter().all(|&base| {
        let mut x = pow(base, odd, n);
        x == 1
            || (0..twos).any(|_| {
                x == n - 1 || {
                    x = mul(x, x, n);
                    false
                }
            })
    })
}

/// The `count` largest primes below `2^bits` with `q = 1 mod 2 * degree`, descending, none of them
/// in `exclude`.
///
/// ```
/// let primes = cipherlm_ring::ntt_primes(1 << 16, 50, 2, &[])?;
/// assert!(primes[0] > primes[1] && primes.iter().all(|q| q % (1 << 17) == 1));
/// # Ok::<(), cipherlm_ring::Error>(())
/// ```
pub fn ntt_primes(degree: usize, bits: u32, count: usize, exclude: &[u64]) -> Result<Vec<u64>> {
    let step = 2u64 << log_degree(degree)?;
    if !(2..=MAX_MODULUS_BITS).contains(&bits) {
        return Err(Error::PrimeBits { bits: f64::from(bits), max_bits: MAX_MODULUS_BITS });
    }
    // Down to half the bound: fewer bits than asked for would surprise the caller.
    let (bound, floor) = (1u64 << bits, 1u64 << (bits - 1));
    let top = (bound - 1) / step * step + 1;
    let candidates = std::iter::successors(Some(top), |q| q.checked_sub(step)).take_while(|&q| q > floor);
    collect(candidates.filter(|&q| q < bound), degree, f64::from(bits), count, exclude)
}

/// The `count` primes with `q = 1 mod 2 * degree` nearest to `2^log2`, nearest first, none of them
/// in `exclude`.
///
/// The distance is measured in `|q - 2^log2|`; the result stays within half a bit of the target and
/// below `2^50`.
pub fn primes_near(degree: usize, log2: f64, count: usize, exclude: &[u64]) -> Result<Vec<u64>> {
    let step = 2u64 << log_degree(degree)?;
    if !(2.0..=f64::from(MAX_MODULUS_BITS)).contains(&log2) {
        return Err(Error::PrimeBits { bits: log2, max_bits: MAX_MODULUS_BITS });
    }
    let target = log2.exp2();
    let floor = (log2 - 0.5).exp2().max(2.0) as u64;
    let ceiling = (log2 + 0.5).exp2().min((1u64 << MAX_MODULUS_BITS) as f64) as u64;
    let middle = (target / step as f64).round() as u64 * step + 1;
    let mut below = std::iter::successors(Some(middle), move |q| q.checked_sub(step))
        .take_while(|&q| q > floor)
        .peekable();
    let mut above = std::iter::successors(Some(middle + step), move |q| Some(q + step))
        .take_while(|&q| q < ceiling)
        .peekable();
    let nearest = std::iter::from_fn(|| match (below.peek(), above.peek()) {
        (Some(&b), Some(&a)) if (a as f64 - target).abs() < (b as f64 - target).abs() => above.next(),
        (Some(_), _) => below.next(),
        (None, _) => above.next(),
    });
    collect(nearest.filter(|&q| q < ceiling), degree, log2, count, exclude)
}

fn collect(
    candidates: impl Iterator<Item = u64>,
    degree: usize,
    bits: f64,
    count: usize,
    exclude: &[u64],
) -> Result<Vec<u64>> {
    if count > MAX_PRIMES {
        return Err(Error::LimbOutOfRange { index: count, count: MAX_PRIMES });
    }
    let primes: Vec<u64> = candidates.filter(|q| !exclude.contains(q) && is_prime(*q)).take(count).collect();
    if primes.len() < count {
        return Err(Error::PrimesExhausted { degree, bits, wanted: count, found: primes.len() });
    }
    Ok(primes)
}

fn mul(a: u64, b: u64, n: u64) -> u64 {
    ((u128::from(a) * u128::from(b)) % u128::from(n)) as u64
}

fn pow(mut base: u64, mut exponent: u64, n: u64) -> u64 {
    let mut result = 1;
    base %= n;
    while exponent != 0 {
        if exponent & 1 == 1 {
            result = mul(result, base, n);
        }
        base = mul(base, base, n);
        exponent >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_trial_division() {
        for n in 0..5000u64 {
            let naive = n >= 2 && (2..n).take_while(|d| d * d <= n).all(|d| n % d != 0);
            assert_eq!(is_prime(n), naive, "{n}");
        }
        // Strong pseudoprimes to the first bases.
        for n in [2047, 3_215_031_751, 3_825_123_056_546_413_051] {
            assert!(!is_prime(n), "{n}");
        }
        assert!(is_prime(18_446_744_073_709_551_557));
    }

    #[test]
    fn search_is_ordered_and_excludes() {
        let first = ntt_primes(1 << 16, 50, 8, &[]).unwrap();
        let next = ntt_primes(1 << 16, 50, 4, &first[..4]).unwrap();
        assert_eq!(next, first[4..]);
        let near = primes_near(1 << 16, 40.0, 6, &[]).unwrap();
        let distance = |q: u64| (q as f64 - 40f64.exp2()).abs();
        assert!(near.windows(2).all(|w| distance(w[0]) <= distance(w[1])));
        assert!(near.iter().any(|&q| q > 1 << 40) && near.iter().any(|&q| q < 1 << 40));
    }

    #[test]
    fn says_when_the_supply_ends() {
        assert!(matches!(
            ntt_primes(1 << 16, 18, 10, &[]),
            Err(Error::PrimesExhausted { degree: 65536, wanted: 10, .. })
        ));
        assert!(matches!(ntt_primes(1 << 16, 51, 1, &[]), Err(Error::PrimeBits { .. })));
        assert!(matches!(primes_near(1 << 16, f64::NAN, 1, &[]), Err(Error::PrimeBits { .. })));
        assert!(matches!(ntt_primes(100, 30, 1, &[]), Err(Error::UnsupportedDegree { degree: 100, .. })));
    }
}
