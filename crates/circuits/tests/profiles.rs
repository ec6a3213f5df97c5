//! Profiles of bootstrapping that contradict themselves, their parameters or each other.

#[path = "../../ckks/tests/common/mod.rs"]
mod common;

use cipherlm_circuits::bootstrap::{BootstrapKeys, Bootstrapper, Content, Profile, simulate};
use cipherlm_ckks::{Complex64, Error, Evaluator, KeyRequest, Plaintext, SecretKey};

/// Profiles made by others than us, each with the field that is refused.
fn wrong_profiles() -> Vec<(Profile, &'static str)> {
    let good = Profile::insecure(8);
    let with = |change: &dyn Fn(&mut Profile)| {
        let mut profile = good.clone();
        change(&mut profile);
        profile
    };
    let level = |bits: f64, layers: u32| cipherlm_circuits::bootstrap::DftLevel { bits, layers };
    vec![
        (good.clone().in_insecure_ring(0), "log2 of the ring degree"),
        (good.clone().in_insecure_ring(3), "log2 of the ring degree"),
        (good.clone().in_insecure_ring(u32::MAX), "log2 of the ring degree"),
        (with(&|p| p.log_degree = 64), "log2 of the ring degree"),
        (with(&|p| p.bottom = f64::NAN), "level bits"),
        (with(&|p| p.scale = f64::INFINITY), "level bits"),
        (with(&|p| p.eval_mod[3] = -1.0), "level bits"),
        (with(&|p| p.coeffs_to_slots[0].bits = 1e9), "level bits"),
        (with(&|p| p.user_levels = 0), "user levels"),
        (with(&|p| p.user_levels = usize::MAX / 2), "user levels"),
        (with(&|p| p.eval_mod = vec![49.0; 500]), "levels"),
        (with(&|p| p.special = 0), "special primes"),
        (with(&|p| p.special_bits = 64), "special bits"),
        (with(&|p| p.ratio = 5.0), "message ratio"),
        (with(&|p| p.ratio = f64::NAN), "message ratio"),
        (with(&|p| p.bottom = 26.0), "bottom bits beyond the message ratio"),
        (with(&|p| p.input_scale = 1.0), "input scale"),
        (with(&|p| p.headroom = -1.0), "headroom"),
        (with(&|p| p.error_bits = f64::INFINITY), "error bits"),
        (with(&|p| p.slots_to_coeffs.clear()), "butterfly layers of a transform"),
        (with(&|p| p.coeffs_to_slots = vec![level(45.0, 7), level(45.0, 0)]), "butterfly layers of a stage"),
        (with(&|p| p.coeffs_to_slots = vec![level(45.0, u32::MAX); 2]), "butterfly layers of a stage"),
        (with(&|p| p.slots_to_coeffs = vec![level(45.0, 4); 2]), "butterfly layers of a transform"),
        (with(&|p| p.polynomial_depth = 0), "polynomial depth"),
        (with(&|p| p.polynomial_depth = 1), "polynomial depth"),
        (with(&|p| p.polynomial_depth = 63), "polynomial depth"),
        (with(&|p| p.doublings = 32), "doublings"),
        (with(&|p| p.doublings = u32::MAX), "doublings"),
        (with(&|p| p.doublings = 5), "levels of the modular reduction"),
        (with(&|p| p.eval_mod.push(49.0)), "levels of the modular reduction"),
        // Overflows that the polynomial of this depth does not reach, from far to just beyond.
        (with(&|p| p.ephemeral_weight = usize::MAX), "largest overflow"),
        (with(&|p| p.ephemeral_weight = 192), "precision of the polynomial in bits"),
        (with(&|p| p.ephemeral_weight = 64), "precision of the polynomial in bits"),
        (with(&|p| (p.polynomial_depth, p.doublings) = (4, 5)), "precision of the polynomial in bits"),
        (with(&|p| p.ephemeral_weight = 0), "ephemeral weight"),
        // More precision than any part of the circuit leaves, at full size.
        (Profile { error_bits: 25.0, ..Profile::n16() }, "error bits"),
        (Profile { ratio: 5.5, ..Profile::n16() }, "error bits"),
    ]
}

#[test]
fn a_profile_that_contradicts_itself_is_refused_before_anything_is_built() {
    let params = Profile::insecure(8).params().unwrap();
    for (profile, name) in wrong_profiles() {
        let refused = [
            profile.validate(),
            profile.params().map(drop),
            Bootstrapper::new(&params, &profile, 32, Content::Complex).map(drop),
            simulate::bootstrap(&profile, &[Complex64::ONE], true, 1).map(drop),
        ];
        for refused in refused {
            let named = matches!(refused, Err(Error::InvalidParams { field, .. }) if field == name);
            assert!(named, "{name}: {refused:?}");
        }
    }
    for profile in Profile::family().into_iter().chain([Profile::n15()]) {
        assert_eq!(profile.validate(), Ok(()));
        // An ephemeral secret that is not secure at the bottom is found here, not when its key is
        // made.
        let weak = Profile { ephemeral_weight: 20, ..profile.clone() };
        assert!(matches!(weak.validate(), Err(Error::NoSecurityEstimate { .. })), "{}", profile.name);
        // The ephemeral weight needs as many coefficients.
        for log_degree in 6..=13 {
            assert_eq!(profile.clone().in_insecure_ring(log_degree).validate(), Ok(()), "{log_degree}");
        }
    }
}

#[test]
fn parameters_with_other_special_primes_are_not_those_of_a_profile() {
    let profile = Profile::insecure(8);
    let others = [
        (Profile { special: 3, ..profile.clone() }, "special primes"),
        (Profile { special: 5, ..profile.clone() }, "special primes"),
        (Profile { special_bits: 48, ..profile.clone() }, "special bits"),
        (
            Profile { log_degree: 8, ..Profile::insecure(9).in_insecure_ring(9) },
            "butterfly layers of a transform",
        ),
    ];
    for (other, name) in others {
        let params = other.params();
        let refused = params.and_then(|params| Bootstrapper::new(&params, &profile, 32, Content::Real));
        assert!(
            matches!(refused, Err(Error::InvalidParams { field, .. }) if field == name),
            "{name}: {refused:?}"
        );
    }
}

#[test]
fn bootstrappers_of_different_ephemeral_weights_do_not_share_keys() {
    let heavy = Profile::insecure(7);
    let light = Profile { ephemeral_weight: 30, ..heavy.clone() };
    let params = heavy.params().unwrap();
    let secret = SecretKey::generate(&params).unwrap();
    let [heavy, light] = [heavy, light].map(|p| Bootstrapper::new(&params, &p, 16, Content::Real).unwrap());
    for pair in [[&heavy, &light], [&light, &heavy]] {
        let refused = BootstrapKeys::generate(&secret, &pair, &KeyRequest::new());
        assert!(
            matches!(refused, Err(Error::InvalidParams { field: "ephemeral weight", .. })),
            "{refused:?}"
        );
        assert!(BootstrapKeys::wrapping(&secret, &pair).is_err());
    }
}

#[test]
fn keys_of_another_ephemeral_weight_are_refused() {
    let heavy = Profile::insecure(7);
    let light = Profile { ephemeral_weight: 30, ..heavy.clone() };
    let params = heavy.params().unwrap();
    let secret = SecretKey::generate(&params).unwrap();
    let [heavy, light] = [heavy, light].map(|p| Bootstrapper::new(&params, &p, 16, Content::Real).unwrap());
    let level = heavy.input_level();
    let plain = Plaintext::encode_real(&params, &[0.5; 16], 16, params.default_scale(level)).unwrap();
    let input = secret.encrypt(&plain, level).unwrap();
    for (with, by) in [(&heavy, &light), (&light, &heavy)] {
        let keys = BootstrapKeys::generate(&secret, &[with], &KeyRequest::new()).unwrap();
        let evaluator = Evaluator::new(&params, keys);
        assert!(with.bootstrap(&evaluator, &input).is_ok());
        let refused = by.bootstrap(&evaluator, &input);
        assert!(
            matches!(refused, Err(Error::InvalidParams { field: "ephemeral weight", .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn chains_and_all_their_keys_keep_the_margin() {
    for profile in Profile::family().into_iter().chain([Profile::n15()]) {
        let bits = common::keeps_margin(profile.name, &profile.params().unwrap());
        assert!(bits >= 131.5, "{}: {bits:.1} bits", profile.name);
    }
}
