//! Objects of different keys and parameters: every pair is refused by name, before any arithmetic.

mod common;

use cipherlm_ckks::{
    Ciphertext, Complex64, Error, Evaluator, GaloisElement, KeyPurpose, KeyRequest, KeySet, KeyShape, NoKeys, Params,
    Plaintext, Scale, SecretKey, Wire, presets,
};
use common::{setup, values};

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
                Ciphertext::from_bytes(secret.params(), &other.to_bytes()).and_then(|c| secret.decrypt(&c)).map(drop),
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
        assert_eq!(s.evaluator.rotate(&x, steps).map(drop), Err(Error::MissingKey { purpose, level: 2 }), "{steps}");
    }
    // Multiples of the slot count need no key.
    for steps in [0i64, 32, -64] {
        s.assert_bits(&s.evaluator.rotate(&x, steps).unwrap(), &s.decrypt(&x), 40.0);
    }
    let none = Evaluator::new(&s.params, NoKeys);
    assert!(matches!(none.mul_relin_rescale(&x, &x), Err(Error::MissingKey { purpose: KeyPurpose::Relinearise, .. })));
    // A key cut to level 1 does not serve level 2.
    let mut request = KeyRequest::new();
    request.relin(1);
    let low = Evaluator::new(&s.params, s.secret.key_set(&request).unwrap());
    assert!(matches!(low.mul_relin_rescale(&x, &x), Err(Error::MissingKey { level: 2, .. })));
    // A source that returns a key for something else is caught.
    struct Liar(KeySet);
    impl cipherlm_ckks::EvaluationKeys for Liar {
        fn key(&self, _: KeyPurpose, level: usize) -> Result<std::sync::Arc<cipherlm_ckks::SwitchingKey>, Error> {
            self.0.key(KeyPurpose::Relinearise, level)
        }
    }
    let mut request = KeyRequest::new();
    request.relin(2);
    let liar = Evaluator::new(&s.params, Liar(s.secret.key_set(&request).unwrap()));
    assert!(matches!(liar.rotate(&x, 1), Err(Error::WrongKey { have: KeyPurpose::Relinearise, .. })));
    for element in [0usize, 2, 128, 129] {
        assert!(matches!(GaloisElement::new(&s.params, element), Err(Error::BadGaloisElement { .. })));
    }
    for (level, special) in [(3, 1), (2, 0), (2, 99)] {
        assert!(s.secret.switching_key(KeyPurpose::Relinearise, KeyShape { level, special }).is_err());
    }
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
            matches!(Plaintext::encode_real(&params, &[1.0], 2, Scale::new(bad)), Err(Error::BadScale { .. })),
            "{bad}"
        );
    }
    // Fits the encoder, not the level.
    let secret = SecretKey::generate(&params).unwrap();
    let large = Plaintext::encode_real(&params, &[1e6], 1, scale).unwrap();
    assert!(matches!(secret.encrypt(&large, 0), Err(Error::MessageOverflow { .. })));
    assert!(secret.encrypt(&large, 1).is_ok());
}
