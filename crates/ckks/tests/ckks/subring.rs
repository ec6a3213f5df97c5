//! Messages that pass between a ring and a subring: precision, refusals, and that no two secrets or
//! keys share randomness.

use crate::common::values;
use cipherlm_ckks::noise::NoiseModel;
use cipherlm_ckks::ring::Seed;
use cipherlm_ckks::{
    Ciphertext, Complex64, Error, EvaluationKeys, Evaluator, KeyPurpose, Params, Plaintext, Scale,
    SecretDistribution, SecretKey, SwitchingKey, Wire, WireError, presets,
};
use std::sync::Arc;

const N: usize = 1 << 11;
const SMALL: usize = 1 << 8;

/// One key between two secrets.
struct One(Arc<SwitchingKey>);

impl EvaluationKeys for One {
    fn key(&self, purpose: KeyPurpose, level: usize) -> Result<Arc<SwitchingKey>, Error> {
        let fits = self.0.purpose() == purpose && self.0.shape().level >= level;
        if fits { Ok(self.0.clone()) } else { Err(Error::MissingKey { purpose, level }) }
    }
}

fn set() -> (Params, SecretKey) {
    let params =
        Params::insecure_for_tests(Params::builder().degree(N).base(46.0).levels(40.0, 3).special(50, 2))
            .unwrap();
    let secret = SecretKey::from_seed(&params, Seed::from_bytes([7; 32])).unwrap();
    (params, secret)
}

fn worst(found: &[Complex64], expected: &[Complex64]) -> f64 {
    found.iter().zip(expected).map(|(a, b)| (a - b).norm()).fold(0.0, f64::max)
}

#[test]
fn a_projection_keeps_the_mean_of_the_slots_within_the_predicted_error() {
    let (params, secret) = set();
    let subring = params.subring(SMALL, 0, 1).unwrap();
    let small = secret.in_subring(&subring).unwrap();
    let evaluator = Evaluator::new(&params, One(secret.projection_key(&subring).unwrap().into()));
    let scale = Scale::from_log2(34);
    let slots = values(N / 2, 1);
    let plaintext = Plaintext::encode(&params, &slots, N / 2, scale).unwrap();
    let projected = evaluator.project(&secret.encrypt(&plaintext, 0).unwrap(), &subring).unwrap();
    assert_eq!((projected.key_id(), projected.level(), projected.slots()), (small.id(), 0, SMALL / 2));
    let run = N / SMALL;
    let mean = |j: usize| (0..run).map(|k| slots[j + k * SMALL / 2]).sum::<Complex64>() / run as f64;
    let expected: Vec<Complex64> = (0..SMALL / 2).map(mean).collect();
    let error = worst(small.decrypt(&projected).unwrap().decode().as_slice(), &expected);
    let model = NoiseModel::new(&params);
    let variance = model.projection(&subring, scale) + model.fresh(scale) / run as f64;
    let (found, deviation) = (-error.log2(), -variance.sqrt().log2());
    assert!((deviation - 2.5..deviation).contains(&found), "{found} bits, a deviation of {deviation}");
    // And back from the wire, in the bits of the small ring.
    let bytes = projected.to_bytes();
    assert_eq!(bytes.len() as u64, Ciphertext::stored_bytes(&subring, 0, false));
    assert!(bytes.len() < 2 * SMALL * 47 / 8 + 200);
    let back = Ciphertext::from_bytes(&subring, &bytes).unwrap();
    assert!(back.parts() == projected.parts());
    assert!(matches!(Ciphertext::from_bytes(&params, &bytes), Err(Error::ParamsMismatch { .. })));
    assert!(secret.decrypt(&projected).is_err(), "the secret of the large ring opens nothing of the small");
}

#[test]
fn an_embedded_prompt_repeats_in_the_large_ring_and_circuits_go_on_with_it() {
    let (params, secret) = set();
    for level in [0, 2, 3] {
        let subring = params.subring(SMALL, level, 0).unwrap();
        let small = secret.in_subring(&subring).unwrap();
        let evaluator = Evaluator::new(&params, One(secret.embedding_key(&subring).unwrap().into()));
        let slots = values(SMALL / 2, 3);
        let scale = Scale::from_log2(36);
        let plaintext = Plaintext::encode(&subring, &slots, SMALL / 2, scale).unwrap();
        let fresh = small.encrypt(&plaintext, level).unwrap();
        assert_eq!(fresh.to_bytes().len() as u64, Ciphertext::stored_bytes(&subring, level, true));
        let embedded = evaluator.embed(&fresh).unwrap();
        assert_eq!((embedded.key_id(), embedded.level()), (secret.id(), level));
        let full = embedded.with_slots(N / 2).unwrap();
        let found = secret.decrypt(&full).unwrap().decode();
        let repeated: Vec<Complex64> = slots.iter().copied().cycle().take(N / 2).collect();
        let bits = -worst(found.as_slice(), &repeated).log2();
        assert!(bits > 22.0, "level {level}: {bits} bits");
        let sum = evaluator.add(&full, &full).unwrap();
        let twice: Vec<Complex64> = repeated.iter().map(|x| 2.0 * x).collect();
        assert!(worst(secret.decrypt(&sum).unwrap().decode().as_slice(), &twice) < 1e-6);
    }
}

#[test]
fn secrets_of_a_root_in_several_rings_and_their_keys_share_nothing() {
    let (params, secret) = set();
    let sets = [(SMALL, 0, 1), (SMALL, 0, 0), (SMALL, 1, 1), (SMALL / 2, 0, 1)];
    let sets = sets.map(|(degree, level, special)| params.subring(degree, level, special).unwrap());
    let mut ids = vec![secret.id()];
    let mut seeds = vec![];
    for subring in &sets {
        let small = secret.in_subring(subring).unwrap();
        assert_eq!(small.id(), secret.in_subring(subring).unwrap().id());
        ids.push(small.id());
        let embedding = secret.embedding_key(subring).unwrap();
        assert_eq!((embedding.key_id(), embedding.purpose()), (secret.id(), KeyPurpose::Switch(small.id())));
        seeds.push(embedding.to_bytes()[112 + 48..112 + 80].to_vec());
        if subring.special_count() > 0 {
            let key = secret.projection_key(subring).unwrap();
            let degree = subring.degree();
            assert_eq!((key.key_id(), key.purpose()), (small.id(), KeyPurpose::Project(secret.id())));
            assert_eq!(key.distribution(), SecretDistribution::Subring { degree });
            assert!(secret.projection_key(subring).unwrap().to_bytes() == key.to_bytes());
            let back = SwitchingKey::from_bytes(&params, &key.to_bytes()).unwrap();
            assert_eq!(back.distribution(), key.distribution());
            seeds.push(key.to_bytes()[112 + 48..112 + 80].to_vec());
        } else {
            assert!(matches!(secret.projection_key(subring), Err(Error::BadKeyShape { .. })));
        }
    }
    let (count, all) = (ids.len(), seeds.len());
    ids.sort_unstable();
    ids.dedup();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!((ids.len(), seeds.len()), (count, all));
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let (params, secret) = set();
    let subring = params.subring(SMALL, 0, 1).unwrap();
    let other = params.subring(SMALL / 2, 0, 1).unwrap();
    let evaluator = Evaluator::new(&params, One(secret.projection_key(&subring).unwrap().into()));
    let of = |level, scale| {
        let plaintext = Plaintext::encode_real(&params, &[0.5], 1, Scale::from_log2(scale)).unwrap();
        secret.encrypt(&plaintext, level).unwrap()
    };
    let refused = |result: Result<Ciphertext, Error>| result.map(drop).unwrap_err();
    assert!(matches!(refused(evaluator.project(&of(0, 30), &other)), Error::WrongKey { .. }));
    assert!(matches!(refused(evaluator.project(&of(1, 30), &subring)), Error::LevelOutOfRange { .. }));
    let stranger = SecretKey::generate(&params).unwrap();
    let plaintext = Plaintext::encode_real(&params, &[0.5], 1, Scale::from_log2(30)).unwrap();
    let foreign = stranger.encrypt(&plaintext, 0).unwrap();
    assert!(matches!(refused(evaluator.project(&foreign, &subring)), Error::MissingKey { .. }));
    // Other primes under the same numbers.
    let unlike = presets::insecure::small(N, 40.0, 1).unwrap().subring(SMALL, 0, 1).unwrap();
    assert!(evaluator.project(&of(0, 30), &unlike).is_err());
    for (degree, level, special) in [(N, 0, 1), (3, 0, 1), (0, 0, 1), (SMALL, 4, 1), (SMALL, 0, 3)] {
        assert!(params.subring(degree, level, special).is_err(), "{degree} {level} {special}");
    }
    // A key that claims a subring that is none, or of another ring.
    let key = secret.projection_key(&subring).unwrap().to_bytes();
    for weight in [1u32 << 31 | 18, u32::MAX] {
        let mut bytes = key.clone();
        bytes[112 + 12..112 + 16].copy_from_slice(&weight.to_le_bytes());
        crate::common::reseal(&mut bytes);
        let error = SwitchingKey::from_bytes(&params, &bytes).map(drop).unwrap_err();
        assert!(matches!(error, Error::Wire(WireError::Field { field: "weight", .. })), "{error}");
    }
}

/// The rings of real size: the modulus of a key to a subring is judged at the subring's degree.
#[test]
fn moduli_are_judged_at_the_degree_of_the_subring() {
    let params = Params::builder().degree(1 << 14).base(46.0).levels(34.0, 5).special(50, 3).build().unwrap();
    let subring = params.subring(1 << 12, 0, 1).unwrap();
    assert!((95.0..97.0).contains(&subring.log_qp()) && !subring.security().is_warning());
    // 130 bits are too many for 2^12 and enough for 2^13.
    assert!(matches!(params.subring(1 << 12, 1, 1), Err(Error::Insecure { degree: 4096, .. })));
    assert!(params.subring(1 << 13, 1, 1).is_ok());
    // A prompt has no special primes, and its modulus counts alone.
    assert!(params.subring(1 << 12, 1, 0).is_ok());
    assert!(matches!(params.subring(1 << 11, 0, 0), Err(Error::NoSecurityEstimate { .. })));
    // A key that somebody made at more than the subring carries is refused on reading.
    let secret = SecretKey::generate(&params).unwrap();
    let mut bytes = secret.projection_key(&params.subring(1 << 13, 1, 1).unwrap()).unwrap().to_bytes();
    bytes[112 + 12..112 + 16].copy_from_slice(&(1u32 << 31 | 12).to_le_bytes());
    crate::common::reseal(&mut bytes);
    assert!(matches!(SwitchingKey::from_bytes(&params, &bytes), Err(Error::Insecure { .. })));
}
