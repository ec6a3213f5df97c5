//! Keys that do not fit, offered in the middle of a circuit: each step refuses them by name.

#[path = "../../ckks/tests/common/mod.rs"]
mod common;

use std::sync::Arc;

use cipherlm_circuits::bootstrap::{BootstrapKeys, Bootstrapper, Content, Profile};
use cipherlm_circuits::linear::LinearTransform;
use cipherlm_circuits::slots::{self, Machine, Plain};
use cipherlm_ckks::{
    Error, EvaluationKeys, Evaluator, GaloisElement, KeyPurpose, KeyRequest, Plaintext, presets,
};
use common::liar::{Family, Liar};
use common::values;

#[test]
fn a_key_that_a_source_lies_about_is_refused_by_every_step_of_a_transform() {
    let (params, others) = (presets::insecure::small(64, 40.0, 2), presets::insecure::small(64, 40.0, 3));
    let (params, others) = (params.unwrap(), others.unwrap());
    let family = Family::new(&params, &others);
    // All 32 diagonals: baby steps, and giant steps in both directions.
    let diagonals = (0..32).map(|shift| (shift, Plain::from(0.1 + shift as f64)));
    let transform = LinearTransform::from_diagonals(32, diagonals).unwrap();
    let steps: Vec<i64> = transform.rotations().into_iter().map(|steps| steps as i64).collect();
    assert!(steps.iter().any(|&steps| steps as usize >= transform.baby()), "no giant steps");
    let mut request = KeyRequest::new();
    request.rotations(&params, steps.iter().copied(), 2);
    let keys = family.secret.key_set(&request).unwrap();
    let scale = slots::Chain::of(&params).unwrap().scale(2);
    let plaintext = Plaintext::encode(&params, &values(32, 1), 32, scale).unwrap();
    let x = family.secret.encrypt(&plaintext, 2).unwrap();
    for steps in steps {
        let purpose = KeyPurpose::Galois(GaloisElement::rotation(&params, steps));
        family.lie(&keys, (purpose, 2), |liar| {
            let machine = slots::Encrypted::new(&params, family.secret.id(), liar).unwrap();
            let input = machine.input(x.clone()).unwrap();
            machine.linear_transform(&input, &transform).map_err(|e| match e {
                slots::Error::Ciphertext(e) => e,
                other => panic!("{other}"),
            })
        });
    }
}

#[test]
fn a_key_that_a_source_lies_about_is_refused_by_every_step_of_a_bootstrap() {
    let profile = Profile::insecure(8);
    let params = profile.params().unwrap();
    let others = Profile { user_levels: profile.user_levels + 1, ..profile.clone() }.params().unwrap();
    let family = Family::new(&params, &others);
    let bootstrapper = Bootstrapper::new(&params, &profile, 32, Content::Complex).unwrap();
    let keys = BootstrapKeys::generate(&family.secret, &[&bootstrapper], &KeyRequest::new()).unwrap();
    let scale = params.default_scale(bootstrapper.output_level());
    let plaintext = Plaintext::encode(&params, &values(32, 1), 32, scale).unwrap();
    let x = family.secret.encrypt(&plaintext, bootstrapper.input_level()).unwrap();
    let request: Vec<_> = bootstrapper.key_request().iter().collect();
    assert!(request.len() > 10, "{}", request.len());
    for (purpose, level) in request {
        family
            .lie(&keys, (purpose, level), |liar| bootstrapper.bootstrap(&Evaluator::new(&params, liar), &x));
    }
    // The two keys around the raise, one for the other and those of another owner.
    let own =
        [keys.to_sparse(), keys.from_sparse()].map(|key| keys.key(key.purpose(), key.shape().level).unwrap());
    let theirs = BootstrapKeys::wrapping(&family.stranger, &[&bootstrapper]).unwrap().map(Arc::new);
    for (about, offers) in
        [(0, &own[1]), (1, &own[0]), (0, &theirs[0]), (0, &theirs[1]), (1, &theirs[0]), (1, &theirs[1])]
    {
        let liar = Liar {
            keys: &keys,
            about: (own[about].purpose(), own[about].shape().level),
            offers: offers.clone(),
        };
        let refused = bootstrapper.bootstrap(&Evaluator::new(&params, liar), &x).map(|c| c.level());
        assert!(matches!(refused, Err(Error::WrongKey { .. })), "{about}: {refused:?}");
    }
}
