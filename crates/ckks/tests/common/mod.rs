//! Shared set-up: one small ring with keys for everything, and precision in bits.
#![allow(dead_code)]

pub(crate) mod liar;

use cipherlm_ckks::params::check_security;
use cipherlm_ckks::ring::{Limbs, Seed};
use cipherlm_ckks::{
    Ciphertext, Complex64, Evaluator, KeyRequest, KeySet, KeyShape, Params, Plaintext, SecretDistribution,
    SecretKey, presets,
};

pub(crate) struct Setup {
    pub(crate) params: Params,
    pub(crate) secret: SecretKey,
    pub(crate) evaluator: Evaluator<KeySet>,
}

/// `levels` of `bits` bits at degree N, with relinearisation, conjugation and the rotations
/// `steps`.
pub(crate) fn setup(degree: usize, bits: f64, levels: usize, steps: &[i64]) -> Setup {
    let params = presets::insecure::small(degree, bits, levels).unwrap();
    with_params(params, steps)
}

pub(crate) fn with_params(params: Params, steps: &[i64]) -> Setup {
    let secret = SecretKey::from_seed(&params, Seed::from_bytes([7; 32])).unwrap();
    let top = params.max_level();
    let mut request = KeyRequest::new();
    request.relin(top).conjugation(&params, top).rotations(&params, steps.iter().copied(), top);
    let keys = secret.key_set(&request).unwrap();
    let evaluator = Evaluator::new(&params, keys);
    Setup { params, secret, evaluator }
}

impl Setup {
    pub(crate) fn encrypt(&self, values: &[Complex64], level: usize) -> Ciphertext {
        let scale = self.params.default_scale(level);
        let plaintext = Plaintext::encode(&self.params, values, self.params.slots(), scale).unwrap();
        self.secret.encrypt(&plaintext, level).unwrap()
    }

    pub(crate) fn decrypt(&self, ciphertext: &Ciphertext) -> Vec<Complex64> {
        self.secret.decrypt(ciphertext).unwrap().decode().as_slice().to_vec()
    }

    /// Asserts that every slot of `ciphertext` is within 2^-`bits` of `expected`.
    pub(crate) fn assert_bits(&self, ciphertext: &Ciphertext, expected: &[Complex64], bits: f64) {
        let found = self.decrypt(ciphertext);
        assert_eq!(found.len(), expected.len());
        let have = bits_of(&found, expected);
        assert!(have >= bits, "precision {have:.1} bits, expected at least {bits}");
    }
}

/// Bits of the worst slot; none if one is no number.
pub(crate) fn bits_of(found: &[Complex64], expected: &[Complex64]) -> f64 {
    -found.iter().zip(expected).map(|(a, b)| (a - b).norm()).fold(f64::MIN_POSITIVE, larger).log2()
}

/// The larger of two errors, where one that is no number is infinite.
pub(crate) fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::INFINITY } else { a.max(b) }
}

/// `count` values in the unit square, the same for the same seed.
pub(crate) fn values(count: usize, seed: u64) -> Vec<Complex64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / 2f64.powi(52) - 1.0
    };
    (0..count).map(|_| Complex64::new(next(), next())).collect()
}

pub(crate) fn zip(
    a: &[Complex64],
    b: &[Complex64],
    f: impl Fn(Complex64, Complex64) -> Complex64,
) -> Vec<Complex64> {
    a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()
}

pub(crate) fn rotated(a: &[Complex64], steps: i64) -> Vec<Complex64> {
    let n = a.len() as i64;
    (0..n).map(|j| a[(j + steps).rem_euclid(n) as usize]).collect()
}

/// Asserts that a chain and every key shape it can make are below their row of the security table,
/// and that every digit is below the special primes; the bits of security it has.
pub(crate) fn keeps_margin(name: &str, params: &Params) -> f64 {
    assert!(!params.is_insecure());
    let report = params.security();
    assert!(!report.is_warning(), "{name} leaves less than 132 bits");
    for level in 0..=params.max_level() {
        let shape = KeyShape::cheapest(params, level).unwrap();
        let log_qp = shape.log_qp(params);
        assert!(log_qp <= params.log_qp() + 1e-9);
        check_security("key", params.degree(), SecretDistribution::Ternary, log_qp).unwrap();
        let p = params.log2_of(&params.special_limbs(shape.special)).unwrap();
        for digit in shape.digits(params) {
            let bits = params.log2_of(&Limbs::range(digit)).unwrap();
            assert!(bits <= p, "{name}, level {level}: a digit of {bits} bits above P of {p}");
        }
    }
    report.bits
}

/// Writes a correct hash over a changed object, as an attacker would.
pub(crate) fn reseal(bytes: &mut [u8]) {
    let mut hasher = blake3::Hasher::new_derive_key("cipherlm-ckks 1 wire object");
    hasher.update(&bytes[6..72]).update(&bytes[cipherlm_ckks::wire::HEADER_BYTES as usize..]);
    let hash = *hasher.finalize().as_bytes();
    bytes[80..112].copy_from_slice(&hash);
}
