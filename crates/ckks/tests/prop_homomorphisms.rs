//! Random circuits of one operation against the same operation on slots, with a stated precision in
//! bits each.
//!
//! Bits are stated for a scale of 2^40 at N = 2^8 and values in the unit square; noise grows with
//! the square root of the degree, so two bits less are to be expected per factor of sixteen.

mod common;

use std::sync::LazyLock;

use cipherlm_ckks::{Complex64, Plaintext};
use common::{Setup, rotated, setup, values, zip};
use proptest::prelude::*;

const N: usize = 256;
const SLOTS: usize = N / 2;
const LEVELS: usize = 4;
const STEPS: [i64; 7] = [1, 2, 4, 8, 16, 32, -5];

static S: LazyLock<Setup> = LazyLock::new(|| setup(N, 40.0, LEVELS, &STEPS));

/// Fresh encryption: error 3.2 a coefficient, `3.2 sqrt(N)` a slot, and its tail.
const FRESH: f64 = 32.0;
/// After a rescale, a key switch or both.
const SWITCHED: f64 = 29.0;

fn close(found: &cipherlm_ckks::Ciphertext, expected: &[Complex64], bits: f64) -> Result<(), TestCaseError> {
    let have = common::bits_of(&S.decrypt(found), expected);
    prop_assert!(have >= bits, "{have:.1} bits, stated {bits}");
    Ok(())
}

proptest! {
    #[test]
    fn encryption_is_the_identity(seed in any::<u64>(), level in 0..=LEVELS) {
        let a = values(SLOTS, seed);
        close(&S.encrypt(&a, level), &a, FRESH)?;
    }

    #[test]
    fn public_encryption_is_the_identity(seed in any::<u64>(), level in 0..=LEVELS) {
        let a = values(SLOTS, seed);
        let plaintext = Plaintext::encode(&S.params, &a, SLOTS, S.params.default_scale(level)).unwrap();
        close(&S.secret.public_key().unwrap().encrypt(&plaintext, level).unwrap(), &a, 27.0)?;
    }

    #[test]
    fn short_vectors_repeat(seed in any::<u64>(), log in 0u32..7) {
        let a = values(1 << log, seed);
        let plaintext = Plaintext::encode(&S.params, &a, a.len(), S.params.default_scale(2)).unwrap();
        let x = S.secret.encrypt(&plaintext, 2).unwrap();
        close(&x, &a, FRESH)?;
        let all: Vec<Complex64> = a.iter().cycle().take(SLOTS).copied().collect();
        close(&x.with_slots(SLOTS).unwrap(), &all, FRESH)?;
    }

    #[test]
    fn sums_and_differences(seeds in any::<[u64; 2]>(), level in 0..=LEVELS) {
        let [a, b] = seeds.map(|s| values(SLOTS, s));
        let (x, y) = (S.encrypt(&a, level), S.encrypt(&b, level));
        close(&S.evaluator.add(&x, &y).unwrap(), &zip(&a, &b, |a, b| a + b), FRESH - 0.5)?;
        close(&S.evaluator.sub(&x, &y).unwrap(), &zip(&a, &b, |a, b| a - b), FRESH - 0.5)?;
        // (a + b) - b is a, bit for bit.
        let back = S.evaluator.sub(&S.evaluator.add(&x, &y).unwrap(), &y).unwrap();
        prop_assert!(back.parts() == x.parts());
    }

    #[test]
    fn products(seeds in any::<[u64; 2]>(), level in 1..=LEVELS) {
        let [a, b] = seeds.map(|s| values(SLOTS, s));
        let (x, y) = (S.encrypt(&a, level), S.encrypt(&b, level));
        let product = S.evaluator.mul_relin_rescale(&x, &y).unwrap();
        prop_assert_eq!(product.level(), level - 1);
        prop_assert!(product.scale().matches(S.params.default_scale(level - 1)));
        close(&product, &zip(&a, &b, |a, b| a * b), SWITCHED)?;
        // Rescaling apart has one rounding more and the same value.
        let apart = S.evaluator.relinearise(&S.evaluator.mul(&x, &y).unwrap()).unwrap();
        close(&S.evaluator.rescale(&apart).unwrap(), &zip(&a, &b, |a, b| a * b), SWITCHED - 0.5)?;
    }

    #[test]
    fn squares_are_products(seed in any::<u64>(), level in 1..=LEVELS) {
        let a = values(SLOTS, seed);
        let x = S.encrypt(&a, level);
        let (square, product) = (S.evaluator.square(&x).unwrap(), S.evaluator.mul(&x, &x).unwrap());
        prop_assert!(square.parts() == product.parts());
    }

    #[test]
    fn sums_of_products_relinearised_once(seeds in any::<[u64; 6]>(), level in 1..=LEVELS) {
        let vectors = seeds.map(|s| values(SLOTS, s));
        let cts = vectors.each_ref().map(|v| S.encrypt(v, level));
        let pairs = [(&cts[0], &cts[1]), (&cts[2], &cts[3]), (&cts[4], &cts[5])];
        let expected: Vec<Complex64> =
            (0..SLOTS).map(|j| (0..3).map(|k| vectors[2 * k][j] * vectors[2 * k + 1][j]).sum()).collect();
        close(&S.evaluator.mul_sum_rescale(&pairs).unwrap(), &expected, SWITCHED - 0.5)?;
        let sum = S.evaluator.mul_sum(&pairs).unwrap();
        close(&S.evaluator.rescale(&sum).unwrap(), &expected, SWITCHED - 1.0)?;
    }

    #[test]
    fn plaintext_products_are_exact_in_scale(
        seeds in any::<[u64; 2]>(),
        level in 1..=LEVELS,
        log in 0u32..8,
    ) {
        let (a, b) = (values(SLOTS, seeds[0]), values(1 << log, seeds[1]));
        let x = S.encrypt(&a, level);
        let plaintext = Plaintext::encode(&S.params, &b, b.len(), S.params.rescale_factor(level)).unwrap();
        let product = S.evaluator.rescale(&S.evaluator.mul_plain(&x, &plaintext).unwrap()).unwrap();
        prop_assert!(product.scale().matches(x.scale()));
        let expected: Vec<Complex64> = a.iter().zip(b.iter().cycle()).map(|(a, b)| a * b).collect();
        close(&product, &expected, SWITCHED)?;
    }

    #[test]
    fn constants_match_plaintexts(
        seed in any::<u64>(),
        re in -8.0..8.0f64,
        im in -8.0..8.0f64,
        level in 1..=LEVELS,
    ) {
        let a = values(SLOTS, seed);
        let x = S.encrypt(&a, level);
        for c in [Complex64::new(re, 0.0), Complex64::new(re, im)] {
            let product = S.evaluator.mul_const(&x, c, S.params.rescale_factor(level)).unwrap();
            close(&S.evaluator.rescale(&product).unwrap(), &zip(&a, &a, |a, _| a * c), SWITCHED - 3.5)?;
            close(&S.evaluator.add_const(&x, c).unwrap(), &zip(&a, &a, |a, _| a + c), FRESH)?;
        }
    }

    #[test]
    fn rotations_compose(seed in any::<u64>(), level in 0..=LEVELS, i in 0usize..7, j in 0usize..7) {
        let a = values(SLOTS, seed);
        let x = S.encrypt(&a, level);
        let once = S.evaluator.rotate(&x, STEPS[i]).unwrap();
        close(&once, &rotated(&a, STEPS[i]), SWITCHED)?;
        let twice = S.evaluator.rotate(&once, STEPS[j]).unwrap();
        close(&twice, &rotated(&a, STEPS[i] + STEPS[j]), SWITCHED - 1.0)?;
        // Hoisting changes the order of work, not a bit of the result.
        let hoisted = S.evaluator.rotate_many(&x, &[STEPS[i]]).unwrap();
        prop_assert!(hoisted[0].parts() == once.parts());
    }

    #[test]
    fn conjugation_twice_is_the_identity(seed in any::<u64>(), level in 0..=LEVELS) {
        let a = values(SLOTS, seed);
        let once = S.evaluator.conjugate(&S.encrypt(&a, level)).unwrap();
        close(&once, &zip(&a, &a, |a, _| a.conj()), SWITCHED)?;
        close(&S.evaluator.conjugate(&once).unwrap(), &a, SWITCHED - 1.0)?;
    }

    #[test]
    fn scales_are_matched_exactly(seed in any::<u64>(), level in 1..=LEVELS, shift in -0.9..0.9f64) {
        let a = values(SLOTS, seed);
        let x = S.encrypt(&a, level);
        let target = cipherlm_ckks::Scale::new((40.0 + shift).exp2());
        let matched = S.evaluator.match_scale(&x, target).unwrap();
        prop_assert_eq!(matched.scale(), target);
        close(&matched, &a, SWITCHED - 1.0)?;
    }

    #[test]
    fn dropping_levels_changes_nothing(seed in any::<u64>(), level in 0..=LEVELS, to in 0..=LEVELS) {
        let a = values(SLOTS, seed);
        let x = S.encrypt(&a, level.max(to));
        let y = S.evaluator.drop_to_level(&x, level.min(to)).unwrap();
        prop_assert!(y.scale() == x.scale());
        close(&y, &a, FRESH)?;
    }

    #[test]
    fn many_ciphertexts_under_one_key(seeds in any::<[u64; 5]>(), level in 0..=LEVELS, i in 0usize..7) {
        let vectors = seeds.map(|s| values(SLOTS, s));
        let cts = vectors.each_ref().map(|v| S.encrypt(v, level));
        let element = cipherlm_ckks::GaloisElement::rotation(&S.params, STEPS[i]);
        let together = S.evaluator.rotate_many_ciphertexts(&cts.each_ref(), element).unwrap();
        for (both, alone) in together.iter().zip(&cts) {
            prop_assert!(both.parts() == S.evaluator.rotate(alone, STEPS[i]).unwrap().parts());
        }
    }
}
