//! Values at the limits of floats, of the encoder and of the modulus: right, or refused by name;
//! never a wrong number.

use crate::common::{larger, values};
use cipherlm_ckks::ring::Seed;
use cipherlm_ckks::{
    Ciphertext, Complex64, Error, Evaluator, NoKeys, Params, Plaintext, Scale, SecretKey, presets,
};

fn encrypted(secret: &SecretKey, value: f64, log_scale: i32, level: usize) -> Result<Ciphertext, Error> {
    let plaintext = Plaintext::encode_real(secret.params(), &[value], 1, Scale::from_log2(log_scale))?;
    secret.encrypt(&plaintext, level)
}

#[test]
fn large_values_decrypt_as_far_as_the_modulus_reaches() {
    for (params, level) in
        [(presets::levels3_scale40().unwrap(), 3), (presets::levels5_scale45().unwrap(), 5)]
    {
        let secret = SecretKey::from_seed(&params, Seed::from_bytes([1; 32])).unwrap();
        let (mut right, mut refused) = (0, 0);
        for log_scale in [30, 40, 45] {
            for exponent in 0..36 {
                for value in [1.7, -3.1, 9.9].map(|x: f64| x * 10f64.powi(exponent)) {
                    match encrypted(&secret, value, log_scale, level).and_then(|c| secret.decrypt(&c)) {
                        Ok(decrypted) => {
                            let found = decrypted.decode().real()[0];
                            assert!(
                                (found / value - 1.0).abs() < 1e-6,
                                "{value:e} at 2^{log_scale}: {found:e}"
                            );
                            right += 1;
                        }
                        Err(Error::MessageOverflow { .. }) => {
                            let bits = value.abs().log2() + f64::from(log_scale);
                            assert!(
                                bits > (params.log_q(level) - 2.0).min(119.0),
                                "{value:e} at 2^{log_scale}"
                            );
                            refused += 1;
                        }
                        Err(other) => panic!("{value:e} at 2^{log_scale}: {other}"),
                    }
                }
            }
        }
        assert!(right > 150 && refused > 30, "{right} {refused}");
    }
}

/// A vector grows by a factor that is raised step by step. What decrypts is right, at every level.
#[test]
fn a_message_that_outgrows_its_modulus_is_an_error_and_not_a_remainder() {
    let params = presets::insecure::small(1 << 12, 40.0, 2).unwrap();
    let secret = SecretKey::from_seed(&params, Seed::from_bytes([2; 32])).unwrap();
    let evaluator = Evaluator::new(&params, NoKeys);
    let message = values(params.slots(), 1);
    for level in 0..=2 {
        let scale = Scale::from_log2(params.log_q(level) as i32 - 12);
        let plaintext = Plaintext::encode(&params, &message, params.slots(), scale).unwrap();
        let x = secret.encrypt(&plaintext, level).unwrap();
        let (mut right, mut refused) = (0, 0);
        // Coefficients are about a hundredth of the largest slot.
        let start = (params.log_q(level) - scale.log2()).exp2() / 8.0;
        for step in 0..240 {
            let factor = (start * 1.06f64.powi(step)) as i64;
            let grown = evaluator.mul_integer(&x, factor.max(1)).unwrap();
            match secret.decrypt(&grown) {
                Ok(decrypted) => {
                    let decoded = decrypted.decode();
                    let error = |(a, b): (&Complex64, &Complex64)| (a / factor as f64 - b).norm();
                    let worst = decoded.as_slice().iter().zip(&message).map(error).fold(0.0, larger);
                    assert!(worst < 1e-4, "level {level}, factor {factor}: off by {worst}");
                    assert_eq!(refused, 0, "level {level}: refused and then accepted at factor {factor}");
                    right += 1;
                }
                Err(Error::MessageOverflow { operation: "decrypt", .. }) => refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert!(right > 20 && refused > 20, "level {level}: {right} right, {refused} refused");
    }
}

#[test]
fn slots_beyond_all_numbers_are_refused_whatever_the_coefficients() {
    let params = presets::insecure::small(1 << 10, 40.0, 30).unwrap();
    let secret = SecretKey::from_seed(&params, Seed::from_bytes([6; 32])).unwrap();
    let evaluator = Evaluator::new(&params, NoKeys);
    // One in all slots at scale 2^30 is a coefficient of 30 bits; here it gets 988 more.
    let mut c = encrypted(&secret, 1.0, 30, 30).unwrap();
    for bits in [[60; 16].as_slice(), &[28]].concat() {
        c = evaluator.mul_integer(&c, 1 << bits).unwrap();
    }
    let found = secret.decrypt(&c).unwrap().decode().real()[0].log2();
    assert!((found - 988.0).abs() < 1e-6, "{found}");
    // A slot may be the sum of 2^10 coefficients, and is not a number at this scale.
    let refused = secret.decrypt(&c.with_scale(Scale::from_log2(2)).unwrap()).map(drop).unwrap_err();
    assert!(matches!(refused, Error::MessageOverflow { operation: "decrypt", .. }), "{refused}");
}

#[test]
fn what_was_encrypted_under_another_key_is_refused_and_not_decrypted_to_noise() {
    let params = presets::insecure::small(1 << 10, 40.0, 2).unwrap();
    let [ours, other] =
        [3, 4].map(|seed| SecretKey::from_seed(&params, Seed::from_bytes([seed; 32])).unwrap());
    for level in 0..=2 {
        let c = encrypted(&other, 0.5, 40, level).unwrap();
        assert!(matches!(ours.decrypt(&c), Err(Error::KeyMismatch { .. })));
        // With a forged id the secret meets a ciphertext that is random to it.
        let (scale, slots) = (c.scale(), params.slots());
        let forged = Ciphertext::from_parts(&params, ours.id(), c.into_parts(), level, scale, slots).unwrap();
        let refused = ours.decrypt(&forged).map(drop).unwrap_err();
        assert!(
            matches!(refused, Error::MessageOverflow { operation: "decrypt", .. }),
            "level {level}: {refused}"
        );
    }
}

#[test]
fn a_message_that_leaves_no_room_is_refused_at_encryption_too() {
    let params = presets::insecure::small(1 << 10, 40.0, 1).unwrap();
    let secret = SecretKey::from_seed(&params, Seed::from_bytes([5; 32])).unwrap();
    let public = secret.public_key().unwrap();
    for level in [0, 1] {
        // Of half the modulus, in eighths.
        let half = (params.log_q(level) - 1.0 - 30.0).exp2();
        for (eighths, fits) in [(6.9, true), (7.1, false), (7.9, false), (8.1, false)] {
            let plaintext =
                Plaintext::encode_real(&params, &[half * eighths / 8.0], 1, Scale::from_log2(30)).unwrap();
            for result in [secret.encrypt(&plaintext, level), public.encrypt(&plaintext, level)] {
                match result {
                    Ok(c) if fits => {
                        let found = secret.decrypt(&c).unwrap().decode().real()[0];
                        assert!((found / half * 8.0 - eighths).abs() < 1e-6, "{found} for {eighths} eighths");
                    }
                    Err(Error::MessageOverflow { operation: "encrypt", .. }) if !fits => {}
                    other => panic!("{eighths} eighths at level {level}: {:?}", other.map(drop)),
                }
            }
        }
    }
}

#[test]
fn values_whose_sums_leave_the_floats_are_refused() {
    let params = presets::levels3_scale40().unwrap();
    let overflow = |result: Result<Plaintext, Error>, what: &str| {
        assert!(
            matches!(result, Err(Error::MessageOverflow { operation: "encode", .. })),
            "{what}: {:?}",
            result.map(drop)
        );
    };
    for huge in [1.7e308, f64::MAX, 1e300] {
        for count in [1usize, 2, 4, 1024, 4096] {
            let mut state = count as u64 | 1;
            let mut sign = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                if state & 1 == 0 { 1.0 } else { -1.0 }
            };
            let list: Vec<f64> = (0..count).map(|_| huge * sign()).collect();
            for log_scale in [0, 40, 120] {
                let scale = Scale::from_log2(log_scale);
                overflow(Plaintext::encode_real(&params, &list, count, scale), "real");
                let complex: Vec<Complex64> = list.iter().map(|&x| Complex64::new(x, -x)).collect();
                overflow(Plaintext::encode(&params, &complex, count, scale), "complex");
            }
        }
        overflow(
            Plaintext::encode_coefficients(&params, &[huge, -huge], Scale::from_log2(120)),
            "coefficients",
        );
    }
    let none: Result<Plaintext, Error> =
        Plaintext::encode_coefficients(&params, &[f64::NAN, 0.0], Scale::ONE);
    assert!(matches!(none, Err(Error::NotFinite { index: 0 })));
}

/// The bound on slots: a scale of one and a modulus beyond the range of floats.
#[test]
fn slots_beyond_the_floats_are_refused() {
    let builder = Params::builder().degree(1 << 10).base(50.0).levels(50.0, 24).special(50, 1);
    let params = Params::insecure_for_tests(builder).unwrap();
    let secret = SecretKey::from_seed(&params, Seed::from_bytes([6; 32])).unwrap();
    let evaluator = Evaluator::new(&params, NoKeys);
    let mut x = encrypted(&secret, 0.9, 40, 24).unwrap();
    let (mut right, mut log2) = (0, 40);
    loop {
        match secret.decrypt(&x) {
            Ok(decrypted) => {
                let found = decrypted.decode().real()[0];
                assert!(
                    found.is_finite() && (found / 0.9 * 2f64.powi(40 - log2) - 1.0).abs() < 1e-6,
                    "{found:e}"
                );
                right += 1;
            }
            Err(Error::MessageOverflow { operation: "decrypt", .. }) => break,
            Err(other) => panic!("{other}"),
        }
        x = evaluator.mul_integer(&x, 1 << 40).unwrap();
        log2 += 40;
    }
    assert!((20..26).contains(&right), "{right} steps of 40 bits");
}
