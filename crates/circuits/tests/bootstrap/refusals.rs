//! What cannot be refreshed, or not by these circuits, is refused.

use std::sync::Arc;

use crate::bench::Bench;
use cipherlm_circuits::bootstrap::{BootstrapKeys, BootstrapRefresher, Bootstrapper, Content, Profile};
use cipherlm_circuits::slots::{self, Encrypted};
use cipherlm_ckks::{
    Ciphertext, Complex64, Error, EvaluationKeys, Evaluator, KeyPurpose, KeyRequest, Plaintext, Scale,
    SecretKey, SwitchingKey,
};

/// Keys but for one.
struct Without<'a> {
    keys: &'a BootstrapKeys,
    purpose: KeyPurpose,
    level: usize,
}

impl EvaluationKeys for Without<'_> {
    fn key(&self, purpose: KeyPurpose, level: usize) -> Result<Arc<SwitchingKey>, Error> {
        if (purpose, level) == (self.purpose, self.level) {
            return Err(Error::MissingKey { purpose, level });
        }
        self.keys.key(purpose, level)
    }
}

#[test]
fn what_cannot_be_refreshed_is_refused_before_any_work() {
    let profile = Profile::insecure(8);
    let bench = Bench::new(&profile, 32, Content::Complex);
    let scale = bench.params.default_scale(bench.bootstrapper.output_level());
    let (level, values) = (bench.bootstrapper.input_level(), vec![Complex64::ONE; 8]);
    let input = |slots: usize, level: usize, scale: Scale| {
        bench
            .secret
            .encrypt(&Plaintext::encode(&bench.params, &values, slots, scale).unwrap(), level)
            .unwrap()
    };
    let refused = |input: &Ciphertext| {
        let mut stages = 0;
        let error =
            bench.bootstrapper.bootstrap_with(&bench.evaluator, input, &mut |_| stages += 1).err().unwrap();
        assert_eq!(stages, 0, "work was done before {error}");
        error
    };
    assert!(matches!(refused(&input(8, level - 1, scale)), Error::LevelExhausted { have: 1, need: 2, .. }));
    assert!(matches!(refused(&input(64, level, scale)), Error::BadSlots { slots: 64, max: 32, .. }));
    let large = scale * Scale::from_log2(2);
    assert!(matches!(refused(&input(8, level, large)), Error::BadScale { .. }));
    let none = Evaluator::new(&bench.params, cipherlm_ckks::NoKeys);
    let mut stages = 0;
    let missing = bench.bootstrapper.bootstrap_with(&none, &input(8, level, scale), &mut |_| stages += 1);
    assert!(matches!(missing, Err(Error::MissingKey { .. })) && stages == 0);
    // Any one key of the circuit that is missing is missed before work, not in the middle of it.
    let request = bench.bootstrapper.key_request();
    for (purpose, level) in request.iter() {
        let keys = Without { keys: bench.evaluator.keys(), purpose, level };
        let mut stages = 0;
        let missing = bench.bootstrapper.bootstrap_with(
            &Evaluator::new(&bench.params, keys),
            &input(8, bench.bootstrapper.input_level(), scale),
            &mut |_| stages += 1,
        );
        assert!(matches!(missing, Err(Error::MissingKey { .. })) && stages == 0, "{purpose:?} at {level}");
    }

    // So are the two around the raise.
    let (keys, raised) = (bench.evaluator.keys(), bench.bootstrapper.raised_level());
    for (key, level) in [(keys.to_sparse(), 0), (keys.from_sparse(), raised)] {
        let keys = Without { keys, purpose: key.purpose(), level };
        let (evaluator, mut stages) = (Evaluator::new(&bench.params, keys), 0);
        let missing =
            bench.bootstrapper.bootstrap_with(&evaluator, &input(8, 2, scale), &mut |_| stages += 1);
        assert!(
            matches!(missing, Err(Error::MissingKey { .. })) && stages == 0,
            "{missing:?} after {stages} stages"
        );
    }

    let new = |profile: &Profile, slots| {
        Bootstrapper::new(&bench.params, profile, slots, Content::Real).err().unwrap()
    };
    for slots in [0, 1, 2, 4, 12] {
        let error = new(&profile, slots);
        assert!(matches!(error, Error::BadSlots { min: 8, max: 128, .. }), "{error}");
        assert!(error.to_string().contains("at least 8"), "{error}");
    }
    assert!(matches!(new(&profile, 256), Error::BadSlots { .. }));
    assert!(matches!(new(&Profile::n16(), 32), Error::InvalidParams { .. }));
    assert!(matches!(new(&Profile { user_levels: 9, ..profile.clone() }, 32), Error::LevelExhausted { .. }));
}

#[test]
fn a_refresher_of_other_parameters_is_refused_when_it_is_given() {
    let profile = Profile::insecure(7);
    let others = Profile { user_levels: 3, ..profile.clone() };
    let make = |profile: &Profile| {
        let params = profile.params().unwrap();
        let secret = SecretKey::generate(&params).unwrap();
        let circuit = Arc::new(Bootstrapper::new(&params, profile, 16, Content::Real).unwrap());
        let keys = Arc::new(BootstrapKeys::generate(&secret, &[&circuit], &KeyRequest::new()).unwrap());
        let refresher =
            BootstrapRefresher::new(Evaluator::new(&params, keys.clone()), vec![circuit]).unwrap();
        (Encrypted::new(&params, secret.id(), keys).unwrap(), Arc::new(refresher))
    };
    let ((ours, own), (theirs, other)) = (make(&profile), make(&others));
    for (machine, refresher) in [(ours, other), (theirs, own)] {
        let refused = machine.with_refresher(refresher);
        assert!(
            matches!(refused, Err(slots::Error::Ciphertext(Error::ParamsMismatch { .. }))),
            "{refused:?}"
        );
    }
    let (ours, own) = make(&profile);
    assert!(ours.with_refresher(own).is_ok());
}
