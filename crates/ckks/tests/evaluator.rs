//! Every operation of the evaluator once, at a small ring, with its precision in bits.

mod common;

use cipherlm_ckks::{Complex64, GaloisElement, Plaintext};
use common::{rotated, setup, values, zip};

const N: usize = 1 << 10;

#[test]
fn encrypt_and_decrypt() {
    let s = setup(N, 40.0, 3, &[]);
    let a = values(N / 2, 1);
    for level in 0..=3 {
        s.assert_bits(&s.encrypt(&a, level), &a, 29.0);
    }
    let plaintext = Plaintext::encode(&s.params, &a, N / 2, s.params.default_scale(3)).unwrap();
    let public = s.secret.public_key().unwrap();
    s.assert_bits(&public.encrypt(&plaintext, 3).unwrap(), &a, 24.0);
}

#[test]
fn sums() {
    let s = setup(N, 40.0, 3, &[]);
    let (a, b) = (values(N / 2, 1), values(N / 2, 2));
    let (x, y) = (s.encrypt(&a, 2), s.encrypt(&b, 2));
    s.assert_bits(&s.evaluator.add(&x, &y).unwrap(), &zip(&a, &b, |a, b| a + b), 28.0);
    s.assert_bits(&s.evaluator.sub(&x, &y).unwrap(), &zip(&a, &b, |a, b| a - b), 28.0);
    s.assert_bits(&s.evaluator.neg(&x).unwrap(), &zip(&a, &b, |a, _| -a), 29.0);
    let c = Complex64::new(0.25, -1.5);
    s.assert_bits(&s.evaluator.add_const(&x, c).unwrap(), &zip(&a, &b, |a, _| a + c), 29.0);
}

#[test]
fn products_relinearise_and_rescale() {
    let s = setup(N, 40.0, 3, &[]);
    let (a, b) = (values(N / 2, 1), values(N / 2, 2));
    let (x, y) = (s.encrypt(&a, 3), s.encrypt(&b, 3));
    let product = zip(&a, &b, |a, b| a * b);
    s.assert_bits(&s.evaluator.mul(&x, &y).unwrap(), &product, 26.0);
    s.assert_bits(&s.evaluator.relinearise(&s.evaluator.mul(&x, &y).unwrap()).unwrap(), &product, 26.0);
    let fused = s.evaluator.mul_relin_rescale(&x, &y).unwrap();
    s.assert_bits(&fused, &product, 26.0);
    assert_eq!(fused.level(), 2);
    assert!(fused.scale().matches(s.params.default_scale(2)));
    let apart = s.evaluator.rescale(&s.evaluator.relinearise(&s.evaluator.mul(&x, &y).unwrap()).unwrap()).unwrap();
    s.assert_bits(&apart, &product, 26.0);
    s.assert_bits(&s.evaluator.square_relin_rescale(&x).unwrap(), &zip(&a, &a, |a, b| a * b), 26.0);
    let sum = s.evaluator.mul_sum_rescale(&[(&x, &y), (&x, &x), (&y, &y)]).unwrap();
    s.assert_bits(&sum, &zip(&a, &b, |a, b| a * b + a * a + b * b), 25.0);
    // Down to level 0.
    let square = s.evaluator.square_relin_rescale(&fused).unwrap();
    let fourth = s.evaluator.square_relin_rescale(&square).unwrap();
    s.assert_bits(&fourth, &product.iter().map(|p| p * p * p * p).collect::<Vec<_>>(), 22.0);
    assert_eq!(fourth.level(), 0);
}

#[test]
fn plaintext_products_of_every_period() {
    let s = setup(N, 40.0, 3, &[]);
    let a = values(N / 2, 1);
    let x = s.encrypt(&a, 3);
    for log in 0..=9 {
        let period = 1usize << log;
        let b = values(period, 5);
        let scale = s.params.rescale_factor(3);
        let plaintext = Plaintext::encode(&s.params, &b, period, scale).unwrap();
        let expected: Vec<Complex64> = a.iter().enumerate().map(|(j, a)| a * b[j % period]).collect();
        let product = s.evaluator.rescale(&s.evaluator.mul_plain(&x, &plaintext).unwrap()).unwrap();
        assert!(product.scale().matches(x.scale()));
        s.assert_bits(&product, &expected, 26.0);
        // Accumulated twice.
        let lifted = plaintext.lift(s.params.limbs(3)).unwrap();
        let mut acc = s.evaluator.mul_lifted(&x, &lifted).unwrap();
        s.evaluator.mul_lifted_add(&mut acc, &x, &lifted).unwrap();
        s.assert_bits(&acc, &expected.iter().map(|v| v * 2.0).collect::<Vec<_>>(), 26.0);
        // Added at the scale of the ciphertext.
        let addend = Plaintext::encode(&s.params, &b, period, x.scale()).unwrap();
        let sum: Vec<Complex64> = a.iter().enumerate().map(|(j, a)| a + b[j % period]).collect();
        s.assert_bits(&s.evaluator.add_plain(&x, &addend).unwrap(), &sum, 28.0);
    }
}

#[test]
fn constants() {
    let s = setup(N, 40.0, 3, &[]);
    let a = values(N / 2, 1);
    let x = s.encrypt(&a, 3);
    for c in [Complex64::new(0.3, 0.0), Complex64::new(-1.7, 0.4), Complex64::new(0.0, 1.0)] {
        let product = s.evaluator.mul_const(&x, c, s.params.rescale_factor(3)).unwrap();
        s.assert_bits(&s.evaluator.rescale(&product).unwrap(), &zip(&a, &a, |a, _| a * c), 27.0);
    }
    s.assert_bits(&s.evaluator.mul_i(&x).unwrap(), &zip(&a, &a, |a, _| a * Complex64::I), 29.0);
    s.assert_bits(&s.evaluator.mul_integer(&x, -3).unwrap(), &zip(&a, &a, |a, _| a * -3.0), 27.0);
    let target = s.params.default_scale(2);
    let matched = s.evaluator.match_scale(&x, target).unwrap();
    assert_eq!(matched.scale(), target);
    s.assert_bits(&matched, &a, 27.0);
}

#[test]
fn rotations_single_hoisted_and_together() {
    let steps = [1, 2, 4, 8, -3, 100];
    let s = setup(N, 40.0, 3, &steps);
    let (a, b) = (values(N / 2, 1), values(N / 2, 2));
    let (x, y) = (s.encrypt(&a, 3), s.encrypt(&b, 3));
    for level in [3, 1, 0] {
        let x = s.evaluator.drop_to_level(&x, level).unwrap();
        for (step, hoisted) in steps.iter().zip(s.evaluator.rotate_many(&x, &steps).unwrap()) {
            s.assert_bits(&s.evaluator.rotate(&x, *step).unwrap(), &rotated(&a, *step), 26.0);
            s.assert_bits(&hoisted, &rotated(&a, *step), 26.0);
        }
        s.assert_bits(&s.evaluator.conjugate(&x).unwrap(), &zip(&a, &a, |a, _| a.conj()), 26.0);
    }
    let element = GaloisElement::rotation(&s.params, 100);
    let both = s.evaluator.rotate_many_ciphertexts(&[&x, &y, &x, &y, &x], element).unwrap();
    assert_eq!(both.len(), 5);
    s.assert_bits(&both[1], &rotated(&b, 100), 26.0);
    s.assert_bits(&both[4], &rotated(&a, 100), 26.0);
    let sums = s.evaluator.inner_sum(&x, 1, 8).unwrap();
    let expected: Vec<Complex64> = (0..N / 2).map(|j| (0..8).map(|k| a[(j + k) % (N / 2)]).sum()).collect();
    s.assert_bits(&sums, &expected, 24.0);
}

#[test]
fn double_hoisted_sums() {
    let s = setup(N, 40.0, 3, &[1, 2]);
    let a = values(N / 2, 1);
    let x = s.encrypt(&a, 3);
    let hoisted = s.evaluator.hoist(&x).unwrap();
    let mut total = None;
    let mut expected = vec![Complex64::ZERO; N / 2];
    for (k, step) in [0i64, 1, 2].into_iter().enumerate() {
        let element = GaloisElement::rotation(&s.params, step);
        let rotated_x = s.evaluator.rotate_hoisted_qp(&hoisted, element).unwrap();
        let weights = values(if k == 0 { 16 } else { N / 2 }, 10 + k as u64);
        let plaintext = Plaintext::encode(&s.params, &weights, weights.len(), s.params.rescale_factor(3)).unwrap();
        let lifted = plaintext.lift(&s.params.extended_limbs(3, rotated_x.special())).unwrap();
        for (j, (e, r)) in expected.iter_mut().zip(rotated(&a, step)).enumerate() {
            *e += r * weights[j % weights.len()];
        }
        match &mut total {
            None => total = Some(s.evaluator.mul_plain_qp(&rotated_x, &lifted).unwrap()),
            Some(total) => s.evaluator.mul_plain_qp_accumulate(total, &rotated_x, &lifted).unwrap(),
        }
    }
    let total = total.unwrap();
    s.assert_bits(&s.evaluator.mod_down(&total).unwrap(), &expected, 25.0);
    let fused = s.evaluator.mod_down_rescale(&total).unwrap();
    assert_eq!(fused.level(), 2);
    s.assert_bits(&fused, &expected, 25.0);
}
