//! Every operation of the evaluator once, at a small ring, with its precision in bits.

use crate::common::{Setup, bits_of, rotated, setup, values, with_params, zip};
use cipherlm_ckks::{
    Ciphertext, Complex64, Error, Evaluator, GaloisElement, KeyRequest, Plaintext, Scale, SecretKey, Wire,
    hazmat, presets,
};

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
    let apart =
        s.evaluator.rescale(&s.evaluator.relinearise(&s.evaluator.mul(&x, &y).unwrap()).unwrap()).unwrap();
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
    let steps = [0i64, 1, 2];
    let elements = steps.map(|step| GaloisElement::rotation(&s.params, step));
    let columns = hazmat::columns(&s.evaluator, "test", &[(&hoisted, elements.as_slice())]).unwrap();
    let special = columns.specials()[1].unwrap();
    let mut row = Vec::new();
    let mut expected = vec![Complex64::ZERO; N / 2];
    for (k, step) in steps.into_iter().enumerate() {
        let weights = values(if k == 0 { 16 } else { N / 2 }, 10 + k as u64);
        let plaintext =
            Plaintext::encode(&s.params, &weights, weights.len(), s.params.rescale_factor(3)).unwrap();
        row.push(Some(plaintext.lift(&s.params.extended_limbs(3, special)).unwrap()));
        for (j, (e, r)) in expected.iter_mut().zip(rotated(&a, step)).enumerate() {
            *e += r * weights[j % weights.len()];
        }
    }
    let (sums, _) = hazmat::rotated_rows(&s.evaluator, &columns, special, &[row]).unwrap();
    let [total] = sums.as_slice() else { panic!("{} sums", sums.len()) };
    s.assert_bits(&s.evaluator.mod_down(total).unwrap(), &expected, 25.0);
    let fused = s.evaluator.mod_down_rescale(total).unwrap();
    assert_eq!(fused.level(), 2);
    s.assert_bits(&fused, &expected, 25.0);
}

/// `values` in as many slots, at `level`.
fn sparse(s: &Setup, values: &[Complex64], level: usize) -> Ciphertext {
    let plaintext =
        Plaintext::encode(&s.params, values, values.len(), s.params.default_scale(level)).unwrap();
    s.secret.encrypt(&plaintext, level).unwrap()
}

#[test]
fn a_constant_of_which_nothing_would_be_left_is_refused_with_the_scale_it_needs() {
    let s = setup(64, 40.0, 3, &[]);
    let a = values(32, 1);
    let x = s.encrypt(&a, 3);
    let e = &s.evaluator;
    let tiny = [
        (Complex64::new(1e-13, 0.0), 40),
        (Complex64::new(-1e-20, 0.0), 45),
        (Complex64::new(3e-13, -4e-13), 40),
        (Complex64::new(0.0, 0.4), 1),
        (Complex64::new(f64::MIN_POSITIVE, 0.0), 40),
    ];
    for (value, scale) in tiny {
        match e.mul_const(&x, value, Scale::from_log2(scale)) {
            Err(Error::BadScale { operation: "mul_const", log2, min, .. }) => {
                assert_eq!(log2, f64::from(scale));
                assert!((min + value.norm().log2()).abs() < 1e-9, "{value}: {min}");
            }
            other => panic!("{value} at 2^{scale}: {other:?}"),
        }
    }
    // At the scale that the message names, half of the constant is left or more; at 20 bits more,
    // all that it should be.
    let value = Complex64::new(1e-13, 0.0);
    for (above, error) in [(1, 0.5), (21, 1e-6)] {
        let scale = Scale::from_log2((-value.re.log2()).floor() as i32 + above);
        let product = s.decrypt(&e.mul_const(&x, value, scale).unwrap());
        // What the noise of the encryption adds is of the size of 2^-35.
        let noise = (-35f64).exp2() * value.re;
        let worst = product.iter().zip(&a).map(|(p, a)| (p - a * value).norm() - noise).fold(0.0, f64::max);
        assert!(worst <= error * 2f64.sqrt() * value.re, "{worst:e}");
    }
    // Zero is a constant like others.
    s.assert_bits(
        &e.mul_const(&x, Complex64::ZERO, Scale::from_log2(40)).unwrap(),
        &[Complex64::ZERO; 32],
        60.0,
    );
}

#[test]
fn one_rescale_too_many_is_refused_at_every_level() {
    // At levels of 40 bits the primes lie on both sides of 2^40, so what is left of the scale is
    // now above 1, now below.
    for (degree, bits, levels) in [(64, 40.0, 6), (1 << 10, 45.0, 4), (1 << 12, 33.0, 5)] {
        let s = setup(degree, bits, levels, &[]);
        let least = (degree as f64 / 18f64.sqrt()).log2();
        for level in 1..=levels {
            let x = sparse(&s, &[Complex64::ONE, Complex64::new(0.5, 0.0)], level);
            let near = [
                Scale::from_log2(bits as i32),
                s.params.rescale_factor(level),
                s.params.default_scale(level),
            ];
            for scale in near {
                let x = x.clone().with_scale(scale).unwrap();
                match s.evaluator.rescale(&x) {
                    Err(Error::BadScale { operation: "rescale", min, log2, .. }) => {
                        assert!((min - least).abs() < 0.1 && log2.abs() < 1.0, "level {level}: {min} {log2}");
                    }
                    other => panic!("degree {degree} level {level}: {other:?}"),
                }
            }
            // The rescale after a product is the right one, and the next is one too many again.
            let y = x.clone().with_scale(s.params.default_scale(level)).unwrap();
            let product = s.evaluator.mul_const(&y, Complex64::ONE, s.params.rescale_factor(level)).unwrap();
            let product = s.evaluator.rescale(&product).unwrap();
            if level > 1 {
                assert!(
                    matches!(s.evaluator.rescale(&product), Err(Error::BadScale { .. })),
                    "level {level}"
                );
            }
        }
    }
}

#[test]
fn rotations_count_modulo_the_slots_of_a_sparse_ciphertext() {
    for key in [1i64, -3] {
        let s = setup(64, 40.0, 2, &[key]);
        let a = values(4, 1);
        let x = sparse(&s, &a, 2);
        for steps in [1i64, -3, 5, -7, 4 * 8 + 1, i64::MIN + 1, 4, 0, -4, 8, i64::MIN] {
            let expected = rotated(&a, steps.rem_euclid(4));
            s.assert_bits(&s.evaluator.rotate(&x, steps).unwrap(), &expected, 28.0);
            for hoisted in s.evaluator.rotate_many(&x, &[steps, steps]).unwrap() {
                s.assert_bits(&hoisted, &expected, 28.0);
            }
        }
        // One slot: every rotation is the identity.
        let one = sparse(&s, &a[..1], 2);
        s.assert_bits(&s.evaluator.rotate(&one, 7).unwrap(), &a[..1], 28.0);
        for (steps, named) in
            [(2i64, "rotation by 2 "), (-1, "rotation by -1 "), (i64::MAX, "rotation by -1 ")]
        {
            let error = s.evaluator.rotate(&x, steps).unwrap_err();
            assert!(
                matches!(error, Error::MissingKey { level: 2, .. }) && error.to_string().contains(named),
                "{error}"
            );
        }
        // All slots of the ring in use: nothing but the step itself will do.
        let full = s.encrypt(&values(32, 1), 2);
        let wrong = if key == 1 { -3 } else { 1 };
        assert!(matches!(s.evaluator.rotate(&full, wrong), Err(Error::MissingKey { .. })));
        assert!(s.evaluator.rotate(&full, i64::MIN).unwrap().parts() == full.parts());
    }
    let s = setup(64, 40.0, 1, &[]);
    let none = Evaluator::new(&s.params, s.secret.key_set(&KeyRequest::new()).unwrap());
    let error = none.conjugate(&s.encrypt(&values(32, 1), 1)).unwrap_err();
    assert!(error.to_string().contains("no conjugation "), "{error}");
}

#[test]
fn the_smallest_sets_work_with_one_slot_and_two() {
    let smallest = (1..).map(|log| presets::insecure::small(1 << log, 40.0, 0)).find_map(Result::ok).unwrap();
    assert_eq!((smallest.degree(), smallest.max_level()), (16, 0));
    let secret = SecretKey::generate(&smallest).unwrap();
    let mut request = KeyRequest::new();
    request.conjugation(&smallest, 0).rotations(&smallest, [1], 0);
    let s = Setup {
        evaluator: Evaluator::new(&smallest, secret.key_set(&request).unwrap()),
        params: smallest,
        secret,
    };
    let scale = s.params.default_scale(0);
    let (one, two) =
        (vec![Complex64::new(0.25, -0.5)], vec![Complex64::new(1.0, 2.0), Complex64::new(-3.0, 0.125)]);
    let (x, y) = (sparse(&s, &one, 0), sparse(&s, &two, 0));
    // The noise of an encryption is some units of the scale in each of 16 coefficients.
    let bits = scale.log2() - 7.0;
    for (a, b) in [(&x, &y), (&y, &x)] {
        let sum = s.evaluator.add(a, b).unwrap();
        assert_eq!(sum.slots(), 2);
        s.assert_bits(&sum, &[one[0] + two[0], one[0] + two[1]], bits - 1.0);
    }
    s.assert_bits(&s.evaluator.sub(&x, &y).unwrap(), &[one[0] - two[0], one[0] - two[1]], bits - 1.0);
    s.assert_bits(&s.evaluator.conjugate(&x).unwrap(), &[one[0].conj()], bits - 2.0);
    s.assert_bits(&s.evaluator.conjugate(&y).unwrap(), &[two[0].conj(), two[1].conj()], bits - 2.0);
    s.assert_bits(&s.evaluator.rotate(&y, 1).unwrap(), &[two[1], two[0]], bits - 2.0);
    for fresh in [&x, &y] {
        let read = Ciphertext::from_bytes(&s.params, &fresh.to_bytes()).unwrap();
        assert_eq!((read.slots(), read.level()), (fresh.slots(), 0));
        assert!(read.parts() == fresh.parts());
        let found = s.decrypt(&read);
        assert!(bits_of(&found, if fresh.slots() == 1 { &one } else { &two }) > bits);
    }
    // One level more, and products.
    let s = with_params(presets::insecure::small(16, 40.0, 1).unwrap(), &[]);
    let (x, y) = (sparse(&s, &one, 1), sparse(&s, &two, 1));
    let product = s.evaluator.mul_relin_rescale(&x, &y).unwrap();
    s.assert_bits(&product, &[one[0] * two[0], one[0] * two[1]], 30.0);
}
