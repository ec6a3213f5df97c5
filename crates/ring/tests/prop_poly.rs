//! Polynomial operations against big integers.

mod common;

use cipherlm_ring::{Coeff, DoubleDouble, Eval, Limbs, Poly, Secret, Wiped};
use common::{all_centred, cases, centred, from_integers, mixed_ring, product, random};
use num_bigint::BigInt;
use num_traits::ToPrimitive;
use proptest::prelude::*;

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn ring_operations_match_integers(log_n in 4u32..=8, seed: u64, factor: i128) {
        let ring = mixed_ring(log_n);
        let limbs = Limbs::new([0, 2, 3, 6]).unwrap();
        let q = product(&ring, &limbs);
        let a = random::<Coeff>(&ring, &limbs, seed);
        // The right side lives over more limbs.
        let b = random::<Coeff>(&ring, &ring.limbs(), seed ^ 1);
        let (x, y) = (a.to_bigint(), b.keep(&limbs).unwrap().to_bigint());
        let expect = |f: &dyn Fn(&BigInt, &BigInt) -> BigInt| -> Vec<BigInt> {
            x.iter().zip(&y).map(|(x, y)| centred(&f(x, y), &q)).collect()
        };
        let run = |f: &dyn Fn(&mut Poly<Coeff>)| { let mut c = a.clone(); f(&mut c); c.to_bigint() };
        prop_assert_eq!(run(&|c| c.add_assign(&b).unwrap()), expect(&|x, y| x + y));
        prop_assert_eq!(run(&|c| c.sub_assign(&b).unwrap()), expect(&|x, y| x - y));
        prop_assert_eq!(run(&|c| c.neg_assign()), expect(&|x, _| -x));
        prop_assert_eq!(run(&|c| c.scale_integer_assign(factor)), expect(&|x, _| x * factor));
        let residue = |i| ring.modulus(i).unwrap().reduce_i128(factor);
        let constants: Vec<u64> = limbs.iter().map(residue).collect();
        prop_assert_eq!(run(&|c| c.scale_assign(&constants).unwrap()), expect(&|x, _| x * factor));
        let scaled = run(&|c| c.add_scaled_assign(&b, &limbs, &constants).unwrap());
        prop_assert_eq!(scaled, expect(&|x, y| x + y * factor));
        let on = Limbs::new([2, 6]).unwrap();
        let mut partial = a.clone();
        partial.add_scaled_assign(&b, &on, &[1, 1]).unwrap();
        let partial = partial.keep(&on).unwrap().to_bigint();
        let small = product(&ring, &on);
        let expected: Vec<_> = x.iter().zip(&y).map(|(x, y)| centred(&(x + y), &small)).collect();
        prop_assert_eq!(partial, expected);
    }

    #[test]
    fn products_accumulate(log_n in 4u32..=10, seed: u64) {
        let ring = mixed_ring(log_n);
        let limbs = Limbs::range(1..5);
        let [a, b, c] = [0, 1, 2].map(|i| random::<Eval>(&ring, &ring.limbs(), seed ^ i));
        let mut acc = c.keep(&limbs).unwrap();
        acc.mul_add_assign(&a, &b).unwrap();
        let mut expected = a.keep(&limbs).unwrap();
        expected.mul_assign(&b).unwrap();
        prop_assert!(Poly::mul(&a.keep(&limbs).unwrap(), &b).unwrap() == expected);
        expected.add_assign(&c).unwrap();
        prop_assert!(acc == expected);
        for (limb, residues) in acc.iter() {
            let m = ring.modulus(limb).unwrap();
            let [a, b, c] = [&a, &b, &c].map(|p| p.limb(limb).unwrap()[3] as u64);
            prop_assert_eq!(residues[3], m.add(c, m.mul(a, b)) as f64);
        }
    }

    #[test]
    fn automorphisms_agree_in_both_domains_and_compose(log_n in 4u32..=9, seed: u64, g: usize, h: usize) {
        let ring = mixed_ring(log_n);
        let n = ring.degree();
        let [g, h] = [g, h].map(|x| (x % n) * 2 + 1);
        let [by_g, by_h, by_gh] = [g, h, g * h % (2 * n)].map(|e| ring.automorphism(e).unwrap());
        let a = random::<Coeff>(&ring, &Limbs::range(0..3), seed);
        let values = a.clone().into_eval();
        let moved = a.automorphism(&by_g).unwrap();
        // By the definition: X^i goes to X^(i g).
        let (x, q) = (a.to_bigint(), product(&ring, a.limbs()));
        let mut expected = vec![BigInt::ZERO; n];
        for (i, x) in x.iter().enumerate() {
            let to = i * g % (2 * n);
            expected[to % n] = if to < n { x.clone() } else { -x };
        }
        prop_assert_eq!(moved.to_bigint(), all_centred(&expected, &q));
        prop_assert!(values.automorphism(&by_g).unwrap() == moved.clone().into_eval());
        prop_assert!(moved.automorphism(&by_h).unwrap() == a.automorphism(&by_gh).unwrap());
    }

    #[test]
    fn integers_round_trip(seed: u64, shift in 0u32..110, count in 1usize..6) {
        let ring = mixed_ring(5);
        let limbs = Limbs::range(0..count);
        let q = product(&ring, &limbs);
        let bits = (q.bits() - 2).min(110);
        let integers: Vec<i128> = (0..32u64)
            .map(|i| {
                let odd = 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835 + u128::from(i);
                let word = u128::from(seed.rotate_left(i as u32)).wrapping_mul(odd);
                let magnitude = (word >> (128 - bits) >> (shift % bits as u32)) as i128;
                if i % 2 == 0 { magnitude } else { -magnitude }
            })
            .collect();
        let big: Vec<BigInt> = integers.iter().map(|&x| BigInt::from(x)).collect();
        let poly = from_integers(&ring, &limbs, &big);
        prop_assert_eq!(poly.to_bigint(), big);
        for ((high, low), x) in poly.to_double_double().into_iter().zip(&integers) {
            // Exact below 2^100, 2^-100 relative above.
            let error = (x - high as i128 - low as i128).unsigned_abs();
            let bound = if x.unsigned_abs() >> 100 == 0 { 0 } else { 1 << 11 };
            prop_assert!(error <= bound, "{} as {} + {}", x, high, low);
        }
        if integers.iter().all(|x| x.unsigned_abs() >> 53 == 0) {
            let floats: Vec<f64> = integers.iter().map(|&x| x as f64).collect();
            let small: Vec<i64> = integers.iter().map(|&x| x as i64).collect();
            prop_assert!(Poly::from_f64(&ring, &limbs, &floats).unwrap() == poly);
            prop_assert!(Poly::from_i64(&ring, &limbs, &small).unwrap() == poly);
            prop_assert_eq!(poly.to_f64(), floats);
        }
    }

    #[test]
    fn floats_of_wide_polynomials_are_close(seed: u64, count in 3usize..=8) {
        let ring = mixed_ring(4);
        let poly = random::<Coeff>(&ring, &Limbs::range(0..count), seed);
        for ((high, low), x) in poly.to_double_double().into_iter().zip(poly.to_bigint()) {
            let scale = 2f64.powi(x.bits() as i32 - 53);
            prop_assert!((x.to_f64().unwrap() - high).abs() <= scale, "{} against {}", x, high);
            // The low part carries another 50 bits: compare after removing the high part exactly.
            let rest = &x - big_from_f64(high);
            prop_assert!((rest.to_f64().unwrap() - low).abs() <= scale * 2f64.powi(-48));
        }
    }
}

/// A large integer-valued float as a big integer.
fn big_from_f64(x: f64) -> BigInt {
    let exponent = (x.abs().log2() as i32 - 60).max(0);
    BigInt::from((x / 2f64.powi(exponent)) as i128) << exponent as u32
}

#[test]
fn reals_round_to_nearest() {
    let ring = mixed_ring(4);
    let mut reals = [0.0; 16];
    reals[..6].copy_from_slice(&[0.49, 0.51, -0.51, -7.5, 1e15 + 0.25, -3.0]);
    let poly = Poly::from_f64(&ring, &Limbs::range(0..2), &reals).unwrap();
    assert_eq!(poly.to_f64()[..6], [0.0, 1.0, -1.0, -8.0, 1e15, -3.0]);
}

#[test]
fn integers_of_a_secret_come_in_memory_that_is_wiped() {
    let ring = mixed_ring(5);
    let poly = random::<Coeff>(&ring, &Limbs::range(0..3), 7);
    let secret = Secret::new(poly.clone());
    let floats: Wiped<f64> = secret.to_f64();
    let pairs: Wiped<DoubleDouble> = secret.to_double_double();
    assert_eq!(*floats, poly.to_f64());
    assert_eq!(*pairs, poly.to_double_double());
    assert!(floats.iter().zip(pairs.iter()).all(|(x, (high, _))| x == high && *x != 0.0));
}
