//! Objects of different keys and parameters: every pair is refused by name, before any arithmetic.

use crate::common::liar::{Family, Liar};
use crate::common::{setup, values};
use cipherlm_ckks::{
    Ciphertext, Complex64, Error, Evaluator, GaloisElement, KeyPurpose, KeyRequest, KeySet, KeyShape, NoKeys,
    Params, Plaintext, Scale, SecretKey, Wire, presets,
};

#[test]
fn every_ordered_pair_of_parameters_and_keys() {
    let params: Vec<Params> = [(64, 40.0, 2), (64, 40.0, 3), (64, 41.0, 2), (128, 40.0, 2)]
        .into_iter()
        .map(|(n, bits, levels)| presets::insecure::small(n, bits, levels).unwrap())
        .collect();
    let mut objects: Vec<(SecretKey, Ciphertext, Evaluator<KeySet>)> = Vec::new();
    for p in &params {
        for _ in 0..3 {
            let secret = SecretKey::generate(p).unwrap();
            let plaintext = Plaintext::encode_real(p, &[1.0, 2.0], 16, p.default_scale(2)).unwrap();
            let ciphertext = secret.encrypt(&plaintext, 2).unwrap();
            let mut request = KeyRequest::new();
            request.relin(2).rotations(p, [1], 2);
            let evaluator = Evaluator::new(p, secret.key_set(&request).unwrap());
            objects.push((secret, ciphertext, evaluator));
        }
    }
    let mut pairs = 0;
    for (i, (secret, own, evaluator)) in objects.iter().enumerate() {
        for (j, (_, other, _)) in objects.iter().enumerate().filter(|(j, _)| *j != i) {
            let same_params = i / 3 == j / 3;
            let results = [
                secret.decrypt(other).map(drop),
                evaluator.add(own, other).map(drop),
                evaluator.sub(own, other).map(drop),
                evaluator.mul(own, other).map(drop),
                evaluator.rotate(other, 1).map(drop),
                evaluator.square_relin_rescale(other).map(drop),
                Ciphertext::from_bytes(secret.params(), &other.to_bytes())
                    .and_then(|c| secret.decrypt(&c))
                    .map(drop),
            ];
            for (k, result) in results.into_iter().enumerate() {
                match result {
                    Err(Error::KeyMismatch { .. }) if same_params => {}
                    Err(Error::ParamsMismatch { .. }) if !same_params => {}
                    other => panic!("objects {i} and {j}, operation {k}: {other:?}"),
                }
            }
            pairs += 1;
        }
    }
    assert_eq!(pairs, 12 * 11);
}

#[test]
fn levels_and_scales_that_differ_are_refused() {
    let s = setup(64, 40.0, 2, &[1]);
    let a = values(32, 1);
    let (x, y) = (s.encrypt(&a, 2), s.encrypt(&a, 1));
    let e = &s.evaluator;
    assert!(matches!(e.add(&x, &y), Err(Error::LevelMismatch { left: 2, right: 1, .. })));
    assert!(matches!(e.mul(&y, &x), Err(Error::LevelMismatch { left: 1, right: 2, .. })));
    for factor in [1.0001, 2.0, 1.0 + 1e-15] {
        let z = x.clone().with_scale(x.scale() * Scale::new(factor)).unwrap();
        assert!(matches!(e.add(&x, &z), Err(Error::ScaleMismatch { .. })), "{factor}");
    }
    let plaintext = Plaintext::encode(&s.params, &a, 32, x.scale() * Scale::new(1.0001)).unwrap();
    assert!(matches!(e.add_plain(&x, &plaintext), Err(Error::ScaleMismatch { .. })));
}

#[test]
fn exhausted_levels_are_refused() {
    let s = setup(64, 40.0, 2, &[1]);
    let bottom = s.encrypt(&values(32, 1), 0);
    let e = &s.evaluator;
    assert!(matches!(e.rescale(&bottom), Err(Error::LevelExhausted { have: 0, need: 1, .. })));
    assert!(matches!(e.mul(&bottom, &bottom), Err(Error::LevelExhausted { have: 0, need: 1, .. })));
    assert!(matches!(e.mul_relin_rescale(&bottom, &bottom), Err(Error::LevelExhausted { .. })));
    assert!(matches!(e.drop_to_level(&bottom, 1), Err(Error::LevelExhausted { have: 0, need: 1, .. })));
    assert!(matches!(e.match_scale(&bottom, Scale::from_log2(40)), Err(Error::LevelExhausted { .. })));
    let plaintext = Plaintext::encode_real(&s.params, &[0.5], 1, Scale::from_log2(40)).unwrap();
    assert!(matches!(e.mul_plain(&bottom, &plaintext), Err(Error::LevelExhausted { .. })));
    assert!(matches!(s.secret.encrypt(&plaintext, 3), Err(Error::LevelOutOfRange { level: 3, max: 2, .. })));
}

#[test]
fn keys_that_are_missing_or_wrong_are_named() {
    let s = setup(64, 40.0, 2, &[1]);
    let x = s.encrypt(&values(32, 1), 2);
    for steps in [2i64, -1, 31, i64::MAX] {
        let purpose = KeyPurpose::Galois(GaloisElement::rotation(&s.params, steps));
        assert_eq!(
            s.evaluator.rotate(&x, steps).map(drop),
            Err(Error::MissingKey { purpose, level: 2 }),
            "{steps}"
        );
    }
    // Multiples of the slot count need no key.
    for steps in [0i64, 32, -64] {
        s.assert_bits(&s.evaluator.rotate(&x, steps).unwrap(), &s.decrypt(&x), 40.0);
    }
    let none = Evaluator::new(&s.params, NoKeys);
    assert!(matches!(
        none.mul_relin_rescale(&x, &x),
        Err(Error::MissingKey { purpose: KeyPurpose::Relinearise, .. })
    ));
    // A key cut to level 1 does not serve level 2.
    let mut request = KeyRequest::new();
    request.relin(1);
    let low = Evaluator::new(&s.params, s.secret.key_set(&request).unwrap());
    assert!(matches!(low.mul_relin_rescale(&x, &x), Err(Error::MissingKey { level: 2, .. })));
    for element in [0usize, 2, 128, 129] {
        assert!(matches!(GaloisElement::new(&s.params, element), Err(Error::BadGaloisElement { .. })));
    }
    for (level, special) in [(3, 1), (2, 0), (2, 99)] {
        assert!(s.secret.switching_key(KeyPurpose::Relinearise, KeyShape { level, special }).is_err());
    }
}

#[test]
fn a_key_that_a_source_lies_about_is_refused_by_every_operation() {
    let (params, others) = (presets::insecure::small(64, 40.0, 2), presets::insecure::small(64, 40.0, 3));
    let (params, others) = (params.unwrap(), others.unwrap());
    let family = Family::new(&params, &others);
    let (rotation, conjugation) = (GaloisElement::rotation(&params, 1), GaloisElement::conjugation(&params));
    let mut request = KeyRequest::new();
    request.relin(2).conjugation(&params, 2).rotations(&params, [1], 2);
    let keys = family.secret.key_set(&request).unwrap();
    let plaintext = Plaintext::encode(&params, &values(32, 1), 32, params.default_scale(2)).unwrap();
    let x = family.secret.encrypt(&plaintext, 2).unwrap();
    type Operation = fn(&Evaluator<Liar<&KeySet>>, &Ciphertext, GaloisElement) -> Result<(), Error>;
    let galois: [Operation; 6] = [
        |e, x, g| e.automorphism(x, g).map(drop),
        |e, x, g| e.rotate_hoisted(&e.hoist(x)?, g).map(drop),
        |e, x, g| e.rotate_hoisted_qp(&e.hoist(x)?, g).map(drop),
        |e, x, g| e.rotate_many_ciphertexts(&[x, x], g).map(drop),
        |e, x, _| e.rotate_many(x, &[1, 1]).and(e.conjugate(x)).map(drop),
        |e, x, _| e.inner_sum(x, 1, 2).and(e.conjugate(x)).map(drop),
    ];
    for element in [rotation, conjugation] {
        for operation in galois {
            let purpose = KeyPurpose::Galois(element);
            family.lie(&keys, (purpose, 2), |liar| operation(&Evaluator::new(&params, liar), &x, element));
        }
    }
    let products: [Operation; 4] = [
        |e, x, _| e.relinearise(&e.square(x)?).map(drop),
        |e, x, _| e.mul_relin_rescale(x, x).map(drop),
        |e, x, _| e.mul_sum(&[(x, x), (x, x)]).map(drop),
        |e, x, _| e.mul_sum_rescale(&[(x, x), (x, x)]).map(drop),
    ];
    for operation in products {
        let relinearise = (KeyPurpose::Relinearise, 2);
        family.lie(&keys, relinearise, |liar| operation(&Evaluator::new(&params, liar), &x, rotation));
    }
    let switch =
        family.secret.switching_key(KeyPurpose::Relinearise, KeyShape { level: 2, special: 1 }).unwrap();
    let evaluator = Evaluator::new(&params, NoKeys);
    assert!(matches!(evaluator.switch_key(&x, &switch), Err(Error::WrongKey { .. })));
}

#[test]
fn polynomials_of_another_ring_do_not_become_a_ciphertext() {
    let params = presets::insecure::small(64, 40.0, 2).unwrap();
    let parts = |params: &Params| {
        let secret = SecretKey::generate(params).unwrap();
        let plaintext = Plaintext::encode_real(params, &[1.0], 1, Scale::from_log2(40)).unwrap();
        secret.encrypt(&plaintext, 1).unwrap().into_parts()
    };
    let build =
        |parts| Ciphertext::from_parts(&params, id(&params), parts, 1, Scale::from_log2(40), 32).map(drop);
    for (degree, bits, levels) in [(64, 41.0, 2), (128, 40.0, 2), (64, 40.0, 3), (32, 40.0, 2)] {
        let other = presets::insecure::small(degree, bits, levels).unwrap();
        let refused = build(parts(&other));
        assert!(
            matches!(refused, Err(Error::Ring(cipherlm_ckks::ring::Error::RingMismatch { .. }))),
            "{degree} {bits} {levels}: {refused:?}"
        );
        // One part of another ring is as bad as two.
        let mut mixed = parts(&params);
        mixed[1] = parts(&other).remove(1);
        assert!(build(mixed).is_err());
    }
    // The same ring, made a second time.
    assert_eq!(build(parts(&presets::insecure::small(64, 40.0, 2).unwrap())), Ok(()));
}

fn id(params: &Params) -> cipherlm_ckks::KeyId {
    SecretKey::generate(params).unwrap().id()
}

#[test]
fn bad_values_are_refused_by_the_encoder() {
    let params = presets::insecure::small(64, 40.0, 2).unwrap();
    let scale = Scale::from_log2(40);
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let e = Plaintext::encode(&params, &[Complex64::ONE, Complex64::new(0.0, bad)], 2, scale).map(drop);
        assert_eq!(e, Err(Error::NotFinite { index: 1 }));
    }
    for big in [1e30, 1e308, f64::MAX] {
        assert!(
            matches!(Plaintext::encode_real(&params, &[big], 2, scale), Err(Error::MessageOverflow { .. })),
            "{big}"
        );
    }
    assert!(Plaintext::encode_real(&params, &[1e-310, 0.0], 2, scale).is_ok());
    for slots in [0usize, 3, 64, 1 << 40] {
        assert!(matches!(Plaintext::encode_real(&params, &[], slots, scale), Err(Error::BadSlots { .. })));
    }
    assert!(matches!(
        Plaintext::encode_real(&params, &[0.0; 5], 4, scale),
        Err(Error::TooManyValues { given: 5, slots: 4 })
    ));
    assert_eq!(Plaintext::encode_real(&params, &[], 4, scale).unwrap().decode().len(), 4);
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 0.5, 2f64.powi(121)] {
        assert!(
            matches!(
                Plaintext::encode_real(&params, &[1.0], 2, Scale::new(bad)),
                Err(Error::BadScale { .. })
            ),
            "{bad}"
        );
    }
    // Fits the encoder, not the level.
    let secret = SecretKey::generate(&params).unwrap();
    let large = Plaintext::encode_real(&params, &[1e6], 1, scale).unwrap();
    assert!(matches!(secret.encrypt(&large, 0), Err(Error::MessageOverflow { .. })));
    assert!(secret.encrypt(&large, 1).is_ok());
}
