//! What an operation can produce survives the wire: every result of the evaluator, at the extremes
//! of levels and scales, comes back as it was written.

use crate::common::{Setup, setup, values};
use cipherlm_ckks::ring::Poly;
use cipherlm_ckks::{
    Ciphertext, Complex64, GaloisElement, KeyPurpose, KeyShape, Plaintext, Scale, SecretKey, Wire,
};

const N: usize = 64;

fn check(s: &Setup, name: &str, ciphertext: &Ciphertext) {
    let bytes = ciphertext.to_bytes();
    let back = Ciphertext::from_bytes(&s.params, &bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(back.parts() == ciphertext.parts(), "{name}: other polynomials");
    assert_eq!(
        (back.level(), back.slots(), back.scale(), back.key_id()),
        (ciphertext.level(), ciphertext.slots(), ciphertext.scale(), ciphertext.key_id()),
        "{name}"
    );
    assert!(back.to_bytes() == bytes, "{name}: written in another way");
}

/// Results of every operation that takes ciphertexts to ciphertexts, from operands that are fresh
/// and so keep a seed.
fn results(s: &Setup, level: usize) -> Vec<(&'static str, Ciphertext)> {
    let (e, top) = (&s.evaluator, s.params.max_level());
    let (x, y) = (s.encrypt(&values(N / 2, 1), level), s.encrypt(&values(N / 2, 2), level));
    let plaintext = Plaintext::encode(&s.params, &values(N / 2, 3), N / 2, x.scale()).unwrap();
    let short = Plaintext::encode_real(&s.params, &[0.5, -0.5], 2, x.scale()).unwrap();
    let assigned = |work: &dyn Fn(&mut Ciphertext)| {
        let mut result = x.clone();
        work(&mut result);
        result
    };
    let mut list = vec![
        ("fresh", x.clone()),
        ("public", s.secret.public_key().unwrap().encrypt(&plaintext, level).unwrap()),
        ("add", e.add(&x, &y).unwrap()),
        ("add_assign", assigned(&|r| e.add_assign(r, &y).unwrap())),
        ("sub", e.sub(&x, &y).unwrap()),
        ("sub_assign", assigned(&|r| e.sub_assign(r, &y).unwrap())),
        ("a difference with itself", e.sub(&x, &x).unwrap()),
        ("neg", e.neg(&x).unwrap()),
        ("add_plain", e.add_plain(&x, &plaintext).unwrap()),
        ("sub_plain", e.sub_plain(&x, &short).unwrap()),
        ("add_const", e.add_const(&x, Complex64::new(0.5, -0.25)).unwrap()),
        ("a constant on nothing", e.add_const(&e.sub(&x, &x).unwrap(), Complex64::ONE).unwrap()),
        ("mul_integer", e.mul_integer(&x, 3).unwrap()),
        ("mul_integer by 0", e.mul_integer(&x, 0).unwrap()),
        ("mul_integer by i64::MIN", e.mul_integer(&x, i64::MIN).unwrap()),
        ("mul_i", e.mul_i(&x).unwrap()),
        ("conjugate", e.conjugate(&x).unwrap()),
        ("rotate", e.rotate(&x, 1).unwrap()),
        ("rotate by nothing", e.rotate(&x, 0).unwrap()),
        ("rotate_many", e.rotate_many(&x, &[1]).unwrap().remove(0)),
        ("drop_to_level", e.drop_to_level(&x, 0).unwrap()),
        ("the smallest scale", x.clone().with_scale(Scale::ONE).unwrap()),
        ("the largest scale", x.clone().with_scale(Scale::from_log2(120)).unwrap()),
        ("one slot", x.clone().with_slots(1).unwrap()),
    ];
    let other = SecretKey::generate(&s.params).unwrap();
    let key = other.switching_key_from(&s.secret, KeyShape::cheapest(&s.params, top).unwrap()).unwrap();
    list.push(("switch_key", e.switch_key(&x, &key).unwrap()));
    if level > 0 {
        let lifted = plaintext.lift(s.params.limbs(level)).unwrap();
        let product = e.mul(&x, &y).unwrap();
        let (mut sum, mut plain_sum) = (product.clone(), e.mul_plain(&x, &plaintext).unwrap());
        e.mul_add(&mut sum, &x, &y).unwrap();
        e.mul_lifted_add(&mut plain_sum, &y, &lifted).unwrap();
        list.extend([
            ("mul", product.clone()),
            ("mul_add", sum),
            ("a product in the lowest level", e.drop_to_level(&product, 0).unwrap()),
            ("square", e.square(&x).unwrap()),
            (
                "a product plus a fresh one",
                e.add(&product, &x.clone().with_scale(product.scale()).unwrap()).unwrap(),
            ),
            ("relinearise", e.relinearise(&product).unwrap()),
            ("relinearise_rescale", e.relinearise_rescale(&product).unwrap()),
            ("mul_relin_rescale", e.mul_relin_rescale(&x, &y).unwrap()),
            ("mul_sum", e.mul_sum(&[(&x, &y), (&y, &y)]).unwrap()),
            ("mul_plain", e.mul_plain(&x, &plaintext).unwrap()),
            ("mul_plain, short", e.mul_plain(&x, &short).unwrap()),
            ("mul_lifted", e.mul_lifted(&x, &lifted).unwrap()),
            ("mul_lifted_add", plain_sum),
            ("mul_const", e.mul_const(&x, Complex64::new(0.3, 0.0), Scale::from_log2(30)).unwrap()),
            ("mul_const, complex", e.mul_const(&x, Complex64::new(0.3, 0.1), Scale::from_log2(30)).unwrap()),
            ("rescale", e.rescale(&e.mul_plain(&x, &plaintext).unwrap()).unwrap()),
            ("match_scale", e.match_scale(&x, s.params.default_scale(level - 1)).unwrap()),
        ]);
    }
    list
}

#[test]
fn every_result_comes_back_as_it_was() {
    let s = setup(N, 40.0, 3, &[1]);
    for level in 0..=s.params.max_level() {
        for (name, ciphertext) in results(&s, level) {
            check(&s, &format!("{name}, level {level}"), &ciphertext);
        }
    }
}

/// A result keeps the seed of a fresh second half only while it has that half.
#[test]
fn a_seed_is_written_only_for_the_half_that_it_makes() {
    let s = setup(N, 40.0, 3, &[1]);
    let fresh = s.encrypt(&values(N / 2, 1), 3);
    for (name, ciphertext) in results(&s, 3) {
        let seeded = ciphertext.to_bytes()[112 + 5] == 1;
        let fits = ciphertext.parts().len() == 2 && seeded;
        assert!(!seeded || fits, "{name}");
    }
    // The second half of the sum is not that of either operand.
    let mut sum = fresh.clone();
    s.evaluator.add_assign(&mut sum, &s.encrypt(&values(N / 2, 2), 3)).unwrap();
    assert_eq!(sum.to_bytes()[112 + 5], 0);
    assert_eq!(s.evaluator.mul_integer(&fresh, 2).unwrap().to_bytes()[112 + 5], 0);
    assert_eq!(s.evaluator.add_const(&fresh, Complex64::ONE).unwrap().to_bytes()[112 + 5], 1);
}

#[test]
fn ciphertexts_put_together_by_hand_survive_too() {
    let s = setup(N, 40.0, 2, &[1]);
    for level in 0..=2 {
        let zero = Poly::zero(s.params.ring(), s.params.limbs(level)).unwrap();
        for parts in [2, 3] {
            for log in [0, 60, 120] {
                for slots in [1, N / 2] {
                    let (parts, scale) = (vec![zero.clone(); parts], Scale::from_log2(log));
                    let open =
                        Ciphertext::from_parts(&s.params, s.secret.id(), parts, level, scale, slots).unwrap();
                    check(&s, &format!("level {level}, scale 2^{log}, {slots} slots"), &open);
                }
            }
        }
    }
}

#[test]
fn every_shape_and_purpose_of_key_survives() {
    let s = setup(N, 40.0, 3, &[1]);
    let other =
        SecretKey::sparse_from_seed(&s.params, 16, cipherlm_ckks::ring::Seed::from_bytes([1; 32])).unwrap();
    for level in 0..=3 {
        for special in 1..=s.params.special_count() {
            let shape = KeyShape { level, special };
            if shape.check(&s.params).is_err() {
                continue;
            }
            let mut keys = vec![s.secret.switching_key_from(&other, shape).unwrap()];
            keys.push(other.switching_key_from(&s.secret, shape).unwrap());
            for purpose in
                [KeyPurpose::Relinearise, KeyPurpose::Galois(GaloisElement::conjugation(&s.params))]
            {
                keys.push(s.secret.switching_key(purpose, shape).unwrap());
            }
            for key in keys {
                let bytes = key.to_bytes();
                let back = cipherlm_ckks::SwitchingKey::from_bytes(&s.params, &bytes).unwrap();
                assert_eq!(
                    (back.purpose(), back.shape(), back.key_id()),
                    (key.purpose(), shape, key.key_id())
                );
                assert!(back.to_bytes() == bytes);
            }
        }
    }
}
