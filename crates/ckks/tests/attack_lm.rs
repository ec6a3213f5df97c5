//! The key-recovery attack on shared approximate decryptions (Li and Micciancio, eprint 2020/1533): it works on raw
//! values, which is why they cannot be serialised, and fails on what `decode_public` and `decode_flooded` release.

mod common;

use cipherlm_ckks::ring::{Eval, Poly};
use cipherlm_ckks::{Ciphertext, Complex64, Error, Evaluator, NoKeys, Params, Plaintext, SecretKey, presets};
use common::{bits_of, values};

const N: usize = 256;
const KEYS: usize = 100;

/// Solves `c0 + c1 s = m` for `s` modulo the base prime, with `m` re-encoded from the released slots.
/// Returns how many coefficients of the solution are in {-1, 0, 1}: all of them for the right key.
fn small_coefficients(params: &Params, ciphertext: &Ciphertext, released: &[Complex64]) -> usize {
    let limbs = params.limbs(0);
    let zero = || Poly::<Eval>::zero(params.ring(), limbs).unwrap();
    let parts = vec![zero(), zero()];
    let open =
        Ciphertext::from_parts(params, ciphertext.key_id(), parts, 0, ciphertext.scale(), params.slots()).unwrap();
    let message = Plaintext::encode(params, released, params.slots(), ciphertext.scale()).unwrap();
    let encoded = Evaluator::new(params, NoKeys).add_plain(&open, &message).unwrap();
    let mut s = encoded.parts()[0].clone();
    s.sub_assign(&ciphertext.parts()[0].keep(limbs).unwrap()).unwrap();
    let modulus = *params.ring().modulus(0).unwrap();
    let c1 = ciphertext.parts()[1].limb(0).unwrap().to_vec();
    for (x, a) in s.limb_mut(0).unwrap().iter_mut().zip(c1) {
        *x = modulus.mul(*x as u64, modulus.inv(a as u64).unwrap()) as f64;
    }
    s.into_coeff().to_f64().iter().filter(|x| x.abs() <= 1.0).count()
}

#[test]
fn raw_values_give_the_key_away_and_public_ones_do_not() {
    let params = presets::insecure::small(N, 40.0, 1).unwrap();
    let message = values(N / 2, 3);
    let (mut raw, mut public) = (0, 0);
    for _ in 0..KEYS {
        let secret = SecretKey::generate(&params).unwrap();
        let plaintext = Plaintext::encode(&params, &message, N / 2, params.default_scale(0)).unwrap();
        let ciphertext = secret.encrypt(&plaintext, 0).unwrap();
        let decrypted = secret.decrypt(&ciphertext).unwrap();
        raw += small_coefficients(&params, &ciphertext, decrypted.decode().as_slice());
        let shared = decrypted.decode_public(20.0, 2f64.powi(-28)).unwrap();
        assert!(bits_of(&shared, &message) >= 19.0);
        public += small_coefficients(&params, &ciphertext, &shared);
    }
    assert_eq!(raw, KEYS * N, "the control must recover every coefficient");
    assert_eq!(public, 0);
}

#[test]
fn more_bits_than_the_bound_leaves_are_refused() {
    let params = presets::insecure::small(N, 40.0, 1).unwrap();
    let secret = SecretKey::generate(&params).unwrap();
    let plaintext = Plaintext::encode_real(&params, &[0.5], 1, params.default_scale(0)).unwrap();
    let decrypted = secret.decrypt(&secret.encrypt(&plaintext, 0).unwrap()).unwrap();
    assert!(decrypted.decode_public(24.0, 2f64.powi(-28)).is_ok());
    assert!(matches!(decrypted.decode_public(24.1, 2f64.powi(-28)), Err(Error::Sharing { .. })));
    for bound in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(decrypted.decode_public(1.0, bound), Err(Error::Sharing { .. })), "{bound}");
    }
}

#[test]
fn flooding_has_the_stated_size_and_ends_after_its_queries() {
    let params = presets::insecure::small(N, 40.0, 1).unwrap();
    let secret = SecretKey::generate(&params).unwrap();
    let message = values(N / 2, 3);
    let plaintext = Plaintext::encode(&params, &message, N / 2, params.default_scale(0)).unwrap();
    let decrypted = secret.decrypt(&secret.encrypt(&plaintext, 0).unwrap()).unwrap();
    let (bound, queries) = (2f64.powi(-30), 16);
    let sigma = (12.0 * f64::from(queries)).sqrt() * 2f64.powi(15) * bound;
    let exact = decrypted.decode();
    let mut squares = 0.0;
    for _ in 0..queries {
        let flooded = decrypted.decode_flooded(10.0, bound, 30, queries).unwrap();
        squares += flooded.iter().zip(exact.as_slice()).map(|(a, b)| (a - b).norm_sqr()).sum::<f64>();
    }
    let measured = (squares / f64::from(queries) / N as f64).sqrt();
    // 4096 normal deviates: 5 standard errors are 5.5 %; rounding to 2^-10 adds (2^-10)^2 / 12.
    let expected = (sigma * sigma + 2f64.powi(-20) / 12.0).sqrt();
    assert!((0.94..1.06).contains(&(measured / expected)), "{measured:e} for {expected:e}");
    let over = decrypted.decode_flooded(10.0, bound, 30, queries).map(drop);
    assert!(matches!(over, Err(Error::Sharing { .. })));
    assert!(matches!(decrypted.decode_flooded(10.0, bound, 29, 99), Err(Error::Sharing { .. })));
}
