//! Bytes from outside: whatever they are, they are refused by type or they are the object that was
//! written.

mod common;

use cipherlm_ckks::wire::{HEADER_BYTES, Header};
use cipherlm_ckks::{
    Ciphertext, Complex64, Error, Evaluator, GaloisElement, KeyForm, KeyPurpose, KeyRequest, KeySet,
    KeyShape, KeyStore, Params, PublicKey, SecretKey, SwitchingKey, Wire, WireError, presets,
};
use common::{Setup, reseal, setup, values};
use proptest::prelude::*;

const N: usize = 1 << 6;

fn small() -> Setup {
    setup(N, 40.0, 2, &[1])
}

/// The objects of every type, as bytes.
fn objects(s: &Setup) -> Vec<Vec<u8>> {
    let a = values(N / 2, 1);
    let fresh = s.encrypt(&a, 2);
    let product = s.evaluator.mul(&fresh, &fresh).unwrap();
    let keys = s.evaluator.keys();
    let mut list = vec![fresh.to_bytes(), product.to_bytes(), s.secret.public_key().unwrap().to_bytes()];
    list.extend(keys.iter().map(|k| k.to_bytes()));
    list.push(keys.to_bytes());
    list
}

/// Reads bytes as every type; the results that are errors.
fn read_all(params: &Params, bytes: &[u8]) -> Vec<Result<(), Error>> {
    vec![
        Ciphertext::from_bytes(params, bytes).map(drop),
        PublicKey::from_bytes(params, bytes).map(drop),
        SwitchingKey::from_bytes(params, bytes).map(drop),
        KeySet::from_bytes(params, bytes).map(drop),
        SecretKey::from_secret_bytes(params, bytes).map(drop),
        Header::read(bytes).map(drop),
    ]
}

#[test]
fn everything_comes_back() {
    let s = small();
    let a = values(N / 2, 1);
    let fresh = s.encrypt(&a, 2);
    let back = Ciphertext::from_bytes(&s.params, &fresh.to_bytes()).unwrap();
    assert!(back.parts() == fresh.parts() && back.scale() == fresh.scale() && back.level() == 2);
    let product = s.evaluator.mul(&back, &fresh).unwrap();
    let back = Ciphertext::from_bytes(&s.params, &product.to_bytes()).unwrap();
    assert!(back.parts() == product.parts());
    let keys = KeySet::from_bytes(&s.params, &s.evaluator.keys().to_bytes()).unwrap();
    assert_eq!(keys.len(), s.evaluator.keys().len());
    let again = cipherlm_ckks::Evaluator::new(&s.params, keys);
    let expected: Vec<Complex64> = a.iter().map(|v| v * v).collect();
    s.assert_bits(&again.relinearise_rescale(&back).unwrap(), &expected, 26.0);
    s.assert_bits(&again.rotate(&fresh, 1).unwrap(), &common::rotated(&a, 1), 26.0);
    let secret = SecretKey::from_secret_bytes(&s.params, &s.secret.to_secret_bytes()).unwrap();
    assert_eq!(secret.id(), s.secret.id());
    let public = PublicKey::from_bytes(&s.params, &s.secret.public_key().unwrap().to_bytes()).unwrap();
    assert_eq!(public.key_id(), s.secret.id());
}

#[test]
fn a_key_set_cut_between_two_keys_is_refused() {
    let s = small();
    let keys = s.evaluator.keys();
    let last = keys.iter().last().unwrap().to_bytes().len();
    let mut bytes = keys.to_bytes();
    let whole = bytes.len();
    bytes.extend_from_within(whole - last..);
    let longer = KeySet::from_bytes(&s.params, &bytes).err().unwrap();
    assert!(
        matches!(longer, Error::Wire(WireError::TrailingBytes { extra }) if extra == last as u64),
        "{longer}"
    );
    bytes.truncate(whole - last);
    let shorter = KeySet::from_bytes(&s.params, &bytes).err().unwrap();
    assert!(matches!(shorter, Error::Wire(WireError::Truncated { have: 0, .. })), "{shorter}");
}

#[test]
fn a_key_that_stands_twice_in_a_set_is_refused() {
    let s = small();
    let keys = s.evaluator.keys();
    for key in keys.iter() {
        let mut bytes = keys.to_bytes();
        bytes.extend(key.to_bytes());
        bytes[..8].copy_from_slice(&(keys.len() as u64 + 1).to_le_bytes());
        let twice = KeySet::from_bytes(&s.params, &bytes).err().unwrap();
        assert!(matches!(twice, Error::Wire(WireError::Field { value: 2, .. })), "{twice}");
    }
}

#[test]
fn keys_stream_from_a_directory_within_a_budget() {
    let s = setup(N, 40.0, 2, &[1, 2, 3, 4]);
    let folder = cipherlm_testing::Scratch::new("budget");
    let directory = folder.join("keys");
    KeyStore::write(&directory, s.evaluator.keys()).unwrap();
    let one =
        s.evaluator.keys().iter().next().unwrap().shape().resident_bytes_in(&s.params, KeyForm::Expanded);
    let store = KeyStore::open(&s.params, &directory, 2 * one).unwrap().with_form(KeyForm::Expanded);
    assert_eq!((store.len(), store.resident_bytes()), (s.evaluator.keys().len(), 0));
    let x = s.encrypt(&values(N / 2, 1), 2);
    let streamed = cipherlm_ckks::Evaluator::new(&s.params, store);
    for steps in [1, 2, 3, 4, 1] {
        let [a, b] = [streamed.rotate(&x, steps).unwrap(), s.evaluator.rotate(&x, steps).unwrap()];
        assert!(a.parts() == b.parts());
        assert!(streamed.keys().resident_bytes() <= 2 * one);
    }
    assert!(matches!(streamed.rotate(&x, 5), Err(Error::MissingKey { .. })));
    // Compact forms let more keys into the same budget.
    let store = KeyStore::open(&s.params, &directory, 2 * one).unwrap().with_form(KeyForm::Seeded);
    assert!(store.total_bytes() <= 2 * one);
    store.preload(|_| {}).unwrap();
    assert_eq!(store.resident_bytes(), store.total_bytes());
    let streamed = cipherlm_ckks::Evaluator::new(&s.params, store);
    assert!(streamed.rotate(&x, 3).unwrap().parts() == s.evaluator.rotate(&x, 3).unwrap().parts());
    let other = presets::insecure::small(N, 40.0, 3).unwrap();
    assert!(matches!(KeyStore::open(&other, &directory, 0).map(drop), Err(Error::ParamsMismatch { .. })));
    std::fs::remove_dir_all(&directory).unwrap();
    assert!(matches!(KeyStore::open(&s.params, &directory, 0).map(drop), Err(Error::Storage { .. })));
}

#[test]
fn every_form_of_a_key_switches_alike() {
    // A degree beyond a block of unpacking, and ciphertexts below the level of the keys.
    for (degree, level) in [(N, 2), (1 << 13, 2), (1 << 13, 1)] {
        let s = setup(degree, 40.0, 2, &[1, 3]);
        let a = values(degree / 2, 1);
        let (x, y) = (s.encrypt(&a, level), s.encrypt(&values(degree / 2, 2), level));
        let element = GaloisElement::rotation(&s.params, 3);
        let expected = s.evaluator.mul_relin_rescale(&x, &y).unwrap();
        let rotated = s.evaluator.rotate_many_ciphertexts(&[&x, &y, &x], element).unwrap();
        let mut sizes = Vec::new();
        for form in [KeyForm::Expanded, KeyForm::Packed, KeyForm::Seeded] {
            let keys = s.evaluator.keys().clone().into_form(form).unwrap();
            sizes.push(keys.resident_bytes());
            let bytes = keys.to_bytes();
            assert!(bytes == s.evaluator.keys().to_bytes());
            for form in [KeyForm::Expanded, KeyForm::Packed, form] {
                let keys = KeySet::from_bytes_in(&s.params, &bytes, form).unwrap();
                assert!(keys.iter().all(|key| key.form() == form));
                let e = Evaluator::new(&s.params, keys);
                assert!(e.mul_relin_rescale(&x, &y).unwrap().parts() == expected.parts());
                let again = e.rotate_many_ciphertexts(&[&x, &y, &x], element).unwrap();
                assert!(again.iter().zip(&rotated).all(|(a, b)| a.parts() == b.parts()));
            }
        }
        let stored: u64 = s.evaluator.keys().iter().map(|key| key.shape().stored_bytes(&s.params)).sum();
        // Primes of 40 and 50 bits instead of 64, in files too; vectors read 64 bytes more.
        let slack = sizes[1] - 2 * sizes[2];
        assert!(slack.is_multiple_of(64) && slack < sizes[2] / 2, "{sizes:?}");
        assert!(sizes[0] > 64 * sizes[1] / 50 && sizes[2] <= stored, "{sizes:?}");
        let fastest = KeyForm::fastest(&s.params);
        assert!(s.evaluator.keys().iter().all(|key| key.form() == fastest));
        // Made in a form, not converted to it.
        let mut request = KeyRequest::new();
        request.relin(2);
        let made = s.secret.key_set_in(&request, KeyForm::Seeded).unwrap();
        let e = Evaluator::new(&s.params, made);
        assert!(e.mul_relin_rescale(&x, &y).unwrap().parts() == expected.parts());
    }
}

#[test]
fn seeds_halve_fresh_ciphertexts_and_keys_fit_their_bill() {
    let s = small();
    let fresh = s.encrypt(&values(N / 2, 1), 2);
    let negated = s.evaluator.neg(&s.evaluator.neg(&fresh).unwrap()).unwrap();
    assert!(negated.parts() == fresh.parts());
    let width = |limb| (u64::BITS - (s.params.prime(limb).unwrap() - 1).leading_zeros()) as usize;
    let half = (0..3).map(|limb| N / 8 * width(limb)).sum::<usize>();
    assert!(half < 3 * N * 43 / 8 + N, "40 bits a residue and not 50: {half}");
    assert_eq!(negated.to_bytes().len() - fresh.to_bytes().len(), half - 32);
    for (ciphertext, fresh) in [(&fresh, true), (&negated, false)] {
        assert_eq!(ciphertext.to_bytes().len() as u64, Ciphertext::stored_bytes(&s.params, 2, fresh));
    }
    for key in s.evaluator.keys().iter() {
        assert_eq!(key.to_bytes().len() as u64, key.shape().stored_bytes(&s.params));
    }
}

#[test]
fn a_switching_key_of_the_large_preset_is_below_45_megabytes() {
    let params = presets::levels24_scale45().unwrap();
    let shape = KeyShape::cheapest(&params, 24).unwrap();
    assert_eq!(shape.digits(&params).len(), 3);
    assert!(shape.stored_bytes(&params) <= 45_000_000, "{}", shape.stored_bytes(&params));
}

#[test]
fn every_truncation_flip_and_extension_is_refused() {
    let s = small();
    for bytes in objects(&s) {
        for length in (0..bytes.len()).step_by(7).chain(bytes.len() - 1..bytes.len()) {
            assert!(read_all(&s.params, &bytes[..length])[..3].iter().all(Result::is_err), "length {length}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(read_all(&s.params, &longer)[..3].iter().all(Result::is_err));
        for position in (0..bytes.len()).step_by(3) {
            let mut flipped = bytes.clone();
            flipped[position] ^= 1 << (position % 8);
            assert!(read_all(&s.params, &flipped)[..3].iter().all(Result::is_err), "byte {position}");
        }
    }
}

#[test]
fn a_header_knows_its_body() {
    let mut all = objects(&small());
    // A key set is a list of objects.
    all.pop();
    for bytes in all {
        let (head, body) = bytes.split_at(HEADER_BYTES as usize);
        let header = Header::read(head).unwrap();
        assert!(header.matches(body) && header == Header::read(&bytes).unwrap());
        let mut other = body.to_vec();
        other[0] ^= 1;
        assert!(!header.matches(&other));
        assert!(!header.matches(&body[1..]) && !header.matches(&[body, &[0]].concat()));
        let short = Header::read(&head[1..]).unwrap_err();
        assert!(matches!(short, Error::Wire(WireError::Truncated { have: 111, need: 112 })), "{short}");
    }
}

#[test]
fn a_truncation_says_how_much_is_missing() {
    let s = small();
    let bytes = s.encrypt(&values(N / 2, 1), 2).to_bytes();
    let whole = bytes.len() as u64;
    let short = |length: u64| match Ciphertext::from_bytes(&s.params, &bytes[..length as usize]) {
        Err(Error::Wire(WireError::Truncated { have, need })) => (have, need),
        other => panic!("{:?}", other.map(drop)),
    };
    assert_eq!(short(whole - 1), (whole - 1, whole));
    assert_eq!(short(HEADER_BYTES + 1).0, 1);
    let key = s.evaluator.keys().iter().next().unwrap().to_bytes();
    let cut = SwitchingKey::from_bytes(&s.params, &key[..key.len() - 3]).map(drop).unwrap_err();
    let (have, need) = (key.len() as u64 - 3, key.len() as u64);
    assert!(matches!(cut, Error::Wire(WireError::Truncated { have: h, need: n }) if (h, n) == (have, need)));
}

/// The last residue of an object, above its prime: of the last limb of its last polynomial.
#[test]
fn a_residue_out_of_range_is_numbered_through_all_polynomials() {
    let s = small();
    let spoiled = |mut bytes: Vec<u8>| {
        let end = bytes.len();
        bytes[end - 7..].fill(0xff);
        reseal(&mut bytes);
        bytes
    };
    let limb = |refused: Error| match refused {
        Error::Wire(WireError::Residue { limb, .. }) => limb,
        other => panic!("{other}"),
    };
    let fresh = s.encrypt(&values(N / 2, 1), 2);
    let product = s.evaluator.mul(&fresh, &fresh).unwrap();
    let limbs = s.params.limb_count(2);
    let read = |bytes: &[u8]| Ciphertext::from_bytes(&s.params, bytes).map(drop).unwrap_err();
    assert_eq!(limb(read(&spoiled(fresh.to_bytes()))), limbs - 1);
    assert_eq!(limb(read(&spoiled(product.to_bytes()))), 3 * limbs - 1);
    let key = s.evaluator.keys().iter().next().unwrap().clone();
    let (shape, bytes) = (key.shape(), spoiled(key.to_bytes()));
    let all = shape.digits(&s.params).len() * s.params.extended_limbs(shape.level, shape.special).len();
    for form in [KeyForm::Expanded, KeyForm::Packed, KeyForm::Seeded] {
        let refused = SwitchingKey::from_bytes_in(&s.params, &bytes, form).map(drop).unwrap_err();
        assert_eq!(limb(refused), all - 1, "{form:?}");
    }
}

#[test]
fn hostile_fields_are_named() {
    let s = small();
    let good = s.encrypt(&values(N / 2, 1), 2).to_bytes();
    let h = HEADER_BYTES as usize;
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        reseal(&mut bytes);
        Ciphertext::from_bytes(&s.params, &bytes).map(drop).unwrap_err()
    };
    let wire = |e: Error| match e {
        Error::Wire(w) => w,
        other => panic!("{other}"),
    };
    assert!(matches!(wire(with(&|b| b[0] = b'X')), WireError::Magic));
    for version in [0u16, 1, 2, 3, 5, u16::MAX] {
        let e = wire(with(&|b| b[4..6].copy_from_slice(&version.to_le_bytes())));
        assert!(matches!(e, WireError::Version { found, .. } if found == version));
    }
    assert!(matches!(wire(with(&|b| b[6] = 9)), WireError::Type { found: 9, expected: 1 }));
    assert!(matches!(with(&|b| b[8] ^= 1), Error::ParamsMismatch { .. }));
    for length in [0u64, 1 << 63, u64::MAX] {
        let e = wire(with(&|b| b[72..80].copy_from_slice(&length.to_le_bytes())));
        assert!(matches!(e, WireError::BodyLength { found, .. } if found == length));
    }
    for level in [3u32, u32::MAX] {
        let e = wire(with(&|b| b[h..h + 4].copy_from_slice(&level.to_le_bytes())));
        assert!(matches!(e, WireError::Field { field: "level", .. }));
    }
    for parts in [0u8, 1, 4, 17] {
        assert!(matches!(wire(with(&|b| b[h + 4] = parts)), WireError::Field { field: "parts", .. }));
    }
    for scale in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-310, 2f64.powi(2000 / 2), 0.5] {
        let e = wire(with(&|b| b[h + 12..h + 20].copy_from_slice(&scale.to_bits().to_le_bytes())));
        assert!(matches!(e, WireError::Field { field: "scale", .. }), "{scale}");
    }
    for (parts, seeded) in [(2u8, 2u8), (2, 255), (3, 1)] {
        let e = wire(with(&|b| b[h + 4..h + 6].copy_from_slice(&[parts, seeded])));
        assert!(matches!(e, WireError::Field { field: "seeded", .. }), "{parts} {seeded}: {e}");
    }
    for slots in [0u32, 3, N as u32, u32::MAX] {
        let e = wire(with(&|b| b[h + 8..h + 12].copy_from_slice(&slots.to_le_bytes())));
        assert!(matches!(e, WireError::Field { field: "slots", .. }));
    }
    // The first residue becomes 2^50 - 1, above every prime; then the prime, which is no residue
    // either.
    let e = wire(with(&|b| b[h + 60..h + 67].fill(0xff)));
    assert!(matches!(e, WireError::Residue { limb: 0, .. }), "{e}");
    let prime = s.params.prime(0).unwrap();
    let first = |bytes: &mut [u8], value: u64| {
        let start = &mut bytes[h + 60..h + 67];
        let (mut word, mask) = ([0; 8], (1 << 50) - 1);
        word[..7].copy_from_slice(start);
        let word = (u64::from_le_bytes(word) & !mask | value).to_le_bytes();
        start.copy_from_slice(&word[..7]);
    };
    let e = wire(with(&|b| first(b, prime)));
    assert!(
        matches!(e, WireError::Residue { limb: 0, value, prime: p } if value == prime && p == prime),
        "{e}"
    );
    let mut largest = good.clone();
    first(&mut largest, prime - 1);
    reseal(&mut largest);
    assert!(Ciphertext::from_bytes(&s.params, &largest).unwrap().to_bytes() == largest);
}

#[test]
fn an_argument_that_a_purpose_does_not_have_is_refused() {
    let s = small();
    let keys = s.evaluator.keys();
    let purposes = [KeyPurpose::Relinearise, KeyPurpose::Galois(GaloisElement::rotation(&s.params, 1))];
    for (purpose, at) in purposes.into_iter().zip([0, 8]) {
        let key = keys.iter().find(|key| key.purpose() == purpose).unwrap();
        for byte in [at, 31] {
            let mut bytes = key.to_bytes();
            // Behind purpose, digits, reserved, level, special primes and weight.
            bytes[HEADER_BYTES as usize + 16 + byte] = 1;
            reseal(&mut bytes);
            let refused = SwitchingKey::from_bytes(&s.params, &bytes).map(drop).unwrap_err();
            assert!(matches!(refused, Error::Wire(WireError::Field { field: "purpose", .. })), "{refused}");
        }
    }
}

#[test]
fn secrets_of_an_older_version_are_refused_with_the_next_step() {
    let s = small();
    let mut bytes = s.secret.to_secret_bytes().to_vec();
    for version in [1u16, 2, 3] {
        bytes[4..6].copy_from_slice(&version.to_le_bytes());
        let refused = SecretKey::from_secret_bytes(&s.params, &bytes).map(drop).unwrap_err();
        assert!(
            matches!(refused, Error::Wire(WireError::Version { found, .. }) if found == version),
            "{refused}"
        );
        assert!(refused.to_string().contains("make a new secret, and new keys"), "{refused}");
    }
}

#[test]
fn a_sparse_key_at_a_large_modulus_is_refused_when_made_and_when_read() {
    // The only test that needs a secure ring: the gate is off below it.
    let params = presets::levels5_scale45().unwrap();
    let dense = SecretKey::generate(&params).unwrap();
    let sparse = SecretKey::generate_sparse(&params, 64).unwrap();
    let wide = KeyShape { level: 3, special: 3 };
    let narrow = KeyShape { level: 0, special: 2 };
    let refused = sparse.switching_key_from(&dense, wide).map(drop);
    assert!(matches!(refused, Err(Error::Insecure { .. })), "{refused:?}");
    let key = sparse.switching_key_from(&dense, narrow).unwrap();
    let bytes = key.to_bytes();
    let back = SwitchingKey::from_bytes(&params, &bytes).unwrap();
    assert_eq!(back.purpose(), KeyPurpose::Switch(dense.id()));
    assert_eq!(back.limbs().len(), 3);
    // The same object, claiming a higher level and the length that goes with it.
    let mut forged = bytes.clone();
    forged[116] = 5;
    forged[120] = 3;
    reseal(&mut forged);
    let refused = SwitchingKey::from_bytes(&params, &forged).map(drop);
    assert!(matches!(refused, Err(Error::Insecure { .. })), "{refused:?}");
}

/// Bytes of the body of a ciphertext at a level, of so many polynomials without a seed.
fn body_bytes((level, polynomials): (usize, usize)) -> usize {
    let params = presets::insecure::small(N, 40.0, 2).unwrap();
    let two = (Ciphertext::stored_bytes(&params, level, false) - HEADER_BYTES) as usize - 28;
    28 + polynomials * two / 2
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let params = presets::insecure::small(N, 40.0, 2).unwrap();
        prop_assert!(read_all(&params, &bytes).iter().all(Result::is_err));
    }

    /// Bytes behind a header that is right in all but what is drawn, with fields that are often
    /// possible: what the parser accepts is exactly what it writes.
    #[test]
    fn what_is_accepted_is_canonical(
        kind in 0u16..6,
        fields in proptest::collection::vec(
            prop_oneof![Just(0u8), Just(1), Just(2), Just(3), any::<u8>()],
            80,
        ),
        length in prop_oneof![0usize..200, (0usize..3, 1usize..4).prop_map(body_bytes)],
        residue in any::<u8>(),
        scale in 0i32..130,
    ) {
        let s = small();
        let mut body: Vec<u8> = fields.into_iter().chain(std::iter::repeat(residue)).take(length).collect();
        if kind == 1 && body.len() >= 28 {
            let slots = 1u32 << (body[8] % 7);
            body[8..12].copy_from_slice(&slots.to_le_bytes());
            body[12..20].copy_from_slice(&2f64.powi(scale).to_bits().to_le_bytes());
            body[20..28].fill(0);
        }
        let mut bytes = s.encrypt(&values(N / 2, 1), 2).to_bytes()[..HEADER_BYTES as usize].to_vec();
        bytes[6..8].copy_from_slice(&kind.to_le_bytes());
        bytes[72..80].copy_from_slice(&(body.len() as u64).to_le_bytes());
        bytes.extend(body);
        reseal(&mut bytes);
        if let Ok(ciphertext) = Ciphertext::from_bytes(&s.params, &bytes) {
            prop_assert!(ciphertext.to_bytes() == bytes);
            prop_assert!(s.evaluator.neg(&ciphertext).is_ok());
            drop(s.secret.decrypt(&ciphertext).map(|d| d.decode()));
        }
        if let Ok(key) = SwitchingKey::from_bytes(&s.params, &bytes) {
            prop_assert!(key.to_bytes() == bytes);
        }
        if let Ok(key) = PublicKey::from_bytes(&s.params, &bytes) {
            prop_assert!(key.to_bytes() == bytes);
        }
        prop_assert!(KeySet::from_bytes(&s.params, &bytes).is_err());
        prop_assert!(SecretKey::from_secret_bytes(&s.params, &bytes).is_err());
    }

    #[test]
    fn changed_objects_with_a_correct_hash_never_panic(
        which in 0usize..12,
        changes in proptest::collection::vec((0usize..400, any::<u8>()), 1..8),
    ) {
        let s = small();
        let list = objects(&s);
        let mut bytes = list[which % list.len()].clone();
        for (position, value) in changes {
            let at = position.min(bytes.len() - 1);
            bytes[at] = value;
        }
        reseal(&mut bytes);
        // What is accepted can be worked with, and what is not is refused by type.
        if let Ok(ciphertext) = Ciphertext::from_bytes(&s.params, &bytes) {
            prop_assert!(s.evaluator.neg(&ciphertext).is_ok());
            drop(s.secret.decrypt(&ciphertext).map(|d| d.decode()));
        }
        drop(read_all(&s.params, &bytes));
    }
}
