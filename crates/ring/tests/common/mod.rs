//! Shared by the integration tests: rings, random polynomials and naive references.
#![allow(dead_code)]

use std::sync::Arc;

use cipherlm_ring::{Coeff, Domain, Kernel, Limbs, Poly, Ring, Seed, ntt_primes, primes_near, sample};
use num_bigint::BigInt;
use proptest::prelude::ProptestConfig;

/// Primes of mixed sizes, so that nothing depends on their being alike: 50, 40, 50, 30, 45, 49, 36
/// and 50 bits.
pub(crate) fn mixed_ring(log_n: u32) -> Arc<Ring> {
    mixed_ring_on(log_n, Kernel::best())
}

/// The same ring on a chosen kernel.
pub(crate) fn mixed_ring_on(log_n: u32, kernel: &'static Kernel) -> Arc<Ring> {
    let n = 1 << log_n;
    let mut primes: Vec<u64> = Vec::new();
    for bits in [50.0, 40.0, 50.0, 30.0, 45.0, 49.0, 36.0, 50.0] {
        let next =
            if bits == 50.0 { ntt_primes(n, 50, 1, &primes) } else { primes_near(n, bits, 1, &primes) };
        primes.extend(next.unwrap());
    }
    Ring::with_kernel(n, &primes, kernel).unwrap()
}

/// `PROPTEST_CASES` cases, or so many.
pub(crate) fn cases(default: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(default), ..ProptestConfig::default() }
}

/// Uniform residues.
pub(crate) fn random<D: Domain>(ring: &Arc<Ring>, limbs: &Limbs, seed: u64) -> Poly<D> {
    sample::uniform(ring, limbs, &Seed::from_bytes([7; 32]), "test", seed).unwrap()
}

/// The product of the primes of some limbs.
pub(crate) fn product(ring: &Ring, limbs: &Limbs) -> BigInt {
    limbs.iter().map(|i| BigInt::from(ring.prime(i).unwrap())).product()
}

/// The representative of `x` in `(-q/2, q/2)`, `q` odd.
pub(crate) fn centred(x: &BigInt, q: &BigInt) -> BigInt {
    let r = ((x % q) + q) % q;
    if &r * 2 > *q { r - q } else { r }
}

/// `round(x / d)` for odd `d`: there are no ties.
pub(crate) fn round_div(x: &BigInt, d: &BigInt) -> BigInt {
    (x - centred(x, d)) / d
}

/// The negacyclic product of integer polynomials, by the definition.
pub(crate) fn negacyclic(a: &[BigInt], b: &[BigInt]) -> Vec<BigInt> {
    let n = a.len();
    let mut out = vec![BigInt::ZERO; n];
    for (i, x) in a.iter().enumerate() {
        for (j, y) in b.iter().enumerate() {
            if i + j < n {
                out[i + j] += x * y;
            } else {
                out[i + j - n] -= x * y;
            }
        }
    }
    out
}

/// Coefficients reduced to the centred range of some limbs.
pub(crate) fn all_centred(xs: &[BigInt], q: &BigInt) -> Vec<BigInt> {
    xs.iter().map(|x| centred(x, q)).collect()
}

/// A polynomial with given integers, whatever their size.
pub(crate) fn from_integers(ring: &Arc<Ring>, limbs: &Limbs, xs: &[BigInt]) -> Poly<Coeff> {
    Poly::from_bigint(ring, limbs, xs).unwrap()
}

/// A polynomial from residues: limb after limb, `N` each.
pub(crate) fn from_residues<D: Domain>(ring: &Arc<Ring>, limbs: &Limbs, residues: &[u64]) -> Poly<D> {
    let mut poly = Poly::zero(ring, limbs).unwrap();
    for ((_, limb), residues) in poly.iter_mut().zip(residues.chunks_exact(ring.degree())) {
        limb.iter_mut().zip(residues).for_each(|(x, &residue)| *x = residue as f64);
    }
    poly.check().unwrap();
    poly
}
