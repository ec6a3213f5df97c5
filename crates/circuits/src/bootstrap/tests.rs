use cipherlm_ring::{Coeff, Eval, Poly};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::simulate::{Family, Precision};
use super::*;
use cipherlm_ckks::{Ciphertext, Complex64, Evaluator, KeyRequest, Params, Plaintext, Scale, SecretKey};

/// Integer coefficients of a small secret: those of the encryption `(0, 1)`.
fn coefficients(params: &Params, secret: &SecretKey) -> Vec<i64> {
    let limbs = params.limbs(0);
    let zero = Poly::<Eval>::zero(params.ring(), limbs).unwrap();
    let mut one = zero.clone();
    one.iter_mut().for_each(|(_, limb)| limb.fill(1.0));
    let open =
        |parts| Ciphertext::from_parts(params, secret.id(), parts, 0, Scale::ONE, params.slots()).unwrap();
    let slots = secret.decrypt(&open(vec![zero.clone(), one])).unwrap().decode();
    let plaintext = Plaintext::encode(params, slots.as_slice(), params.slots(), Scale::ONE).unwrap();
    let evaluator = Evaluator::new(params, cipherlm_ckks::NoKeys);
    let encoded = evaluator.add_plain(&open(vec![zero.clone(), zero]), &plaintext).unwrap();
    let coefficients = encoded.parts()[0].clone().into_coeff().to_f64();
    assert!(coefficients.iter().all(|x| [-1.0, 0.0, 1.0].contains(x)));
    coefficients.iter().map(|&x| x as i64).collect()
}

/// A ciphertext under `secret` at the bottom whose coefficient `target` overflows as far as
/// possible, in direction `sign`, and which decrypts to `message` there and elsewhere.
fn saturated(
    params: &Params,
    secret: &SecretKey,
    message: &[f64],
    target: usize,
    sign: i64,
    scale: f64,
    seed: u64,
) -> Ciphertext {
    let (n, q) = (params.degree(), params.prime(0).unwrap() as i64);
    let s = coefficients(params, secret);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut c1: Vec<i64> = (0..n).map(|_| (rng.next_u64() % q as u64) as i64 - q / 2).collect();
    for (j, &s) in s.iter().enumerate().filter(|(_, s)| **s != 0) {
        // X^i·X^j contributes to X^target for i + j = target, with a sign beyond the degree.
        let (i, wrap) = if target >= j { (target - j, 1) } else { (target + n - j, -1) };
        c1[i] = sign * wrap * s * ((q - 1) / 2);
    }
    let limbs = params.limbs(0);
    let poly = |c: &[i64]| Poly::<Coeff>::from_i64(params.ring(), limbs, c).unwrap().into_eval();
    let c1 = poly(&c1);
    let message: Vec<i64> = message.iter().map(|m| (m * scale).round() as i64).collect();
    let mut c0 = poly(&message);
    let mut product = c1.clone();
    product.mul_assign(&poly(&s)).unwrap();
    c0.sub_assign(&product).unwrap();
    Ciphertext::from_parts(params, secret.id(), vec![c0, c1], 0, Scale::new(scale), params.slots()).unwrap()
}

/// The overflow `(t - t mod q)/q` of coefficient `target`.
fn overflow(params: &Params, secret: &SecretKey, ciphertext: &Ciphertext, target: usize) -> f64 {
    let (n, q) = (params.degree(), params.prime(0).unwrap() as f64);
    let centred = |part: &Poly<Eval>| part.clone().into_coeff().to_f64();
    let (c0, c1, s) =
        (centred(&ciphertext.parts()[0]), centred(&ciphertext.parts()[1]), coefficients(params, secret));
    let mut t = c0[target];
    for (j, &s) in s.iter().enumerate().filter(|(_, s)| **s != 0) {
        t += s as f64 * if target >= j { c1[target - j] } else { -c1[target + n - j] };
    }
    (t / q).round()
}

#[test]
fn the_largest_possible_overflow_is_harmless() {
    for base in Profile::family().into_iter().map(|profile| profile.in_insecure_ring(8)) {
        let params = base.params().unwrap();
        let (secret, ephemeral) = (
            SecretKey::generate(&params).unwrap(),
            SecretKey::generate_sparse(&params, base.ephemeral_weight).unwrap(),
        );
        let bootstrapper = Bootstrapper::new(&params, &base, params.slots(), Content::Complex).unwrap();
        let keys = BootstrapKeys::with_ephemeral(
            &secret,
            &ephemeral,
            &[&bootstrapper],
            &KeyRequest::new(),
            cipherlm_ckks::KeyForm::fastest(&params),
        )
        .unwrap();
        let evaluator = Evaluator::new(&params, keys);
        let scale = params.prime(0).unwrap() as f64 / base.ratio.exp2();
        let (n, slots) = (params.degree(), params.slots());
        let level = bootstrapper.output_level();
        let goal = super::types::Goal { level, scale: params.default_scale(level) };
        let mut worst = f64::INFINITY;
        for target in (0..n).step_by(5) {
            for sign in [-1, 1] {
                let message: Vec<f64> =
                    (0..n).map(|j| if (j + target) % 3 == 0 { sign as f64 } else { -0.7 }).collect();
                let input = saturated(&params, &ephemeral, &message, target, sign, scale, target as u64);
                let found = overflow(&params, &ephemeral, &input, target);
                assert_eq!(found, (sign * (base.ephemeral_weight as i64 / 2)) as f64, "not saturated");
                let output = bootstrapper.finish(&evaluator, input, goal, &mut |_| {}).unwrap();
                // Coefficients are in slots, in bit-reversed order.
                let bits = slots.ilog2();
                let expected: Vec<_> = (0..slots)
                    .map(|j| j.reverse_bits() >> (usize::BITS - bits))
                    .map(|j| Complex64::new(message[j], message[j + slots]))
                    .collect();
                worst = worst.min(
                    Precision::between(&expected, secret.decrypt(&output).unwrap().decode().as_slice()).worst,
                );
            }
        }
        // A small ring rounds less than a large one: what the scale leaves is left.
        let bar = base.scale - 20.0;
        assert!(
            worst > bar,
            "2^{}, weight {}: worst slot {worst:.1} bits",
            base.scale,
            base.ephemeral_weight
        );
    }
}

#[test]
fn the_key_to_the_sparse_secret_lives_at_the_bottom_only() {
    for profile in Profile::family().into_iter().chain([Profile::n15()]) {
        let secret = cipherlm_ckks::SecretDistribution::Sparse { weight: profile.ephemeral_weight };
        let limit = cipherlm_ckks::params::security_limit(1 << profile.log_degree, secret).unwrap();
        assert!(
            profile.bottom + f64::from(profile.special_bits) <= f64::from(limit.soft),
            "{}",
            profile.name
        );
        let dense = cipherlm_ckks::params::security_limit(
            1 << profile.log_degree,
            cipherlm_ckks::SecretDistribution::Ternary,
        )
        .unwrap();
        assert!(profile.log_qp() <= f64::from(dense.soft), "{}: {}", profile.name, profile.log_qp());
    }
    let profile = Profile::insecure(8);
    let params = profile.params().unwrap();
    let secret = SecretKey::generate(&params).unwrap();
    let bootstrapper = Bootstrapper::new(&params, &profile, 16, Content::Real).unwrap();
    let keys = BootstrapKeys::generate(&secret, &[&bootstrapper], &KeyRequest::new()).unwrap();
    let limbs: Vec<usize> = keys.to_sparse().limbs().iter().collect();
    assert_eq!(limbs, [0, params.limb_count(params.max_level())]);
}

#[test]
fn simulation_meets_the_bars_for_every_family_and_profile() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for profile in Profile::family().into_iter().chain([Profile::n15()]) {
        let bar = profile.error_bits - 2.5;
        for family in Family::ALL {
            let values = family.values(1 << (profile.log_degree - 1), &mut rng);
            for saturated in [false, true] {
                let p = Precision::between(
                    &values,
                    &simulate::bootstrap(&profile, &values, saturated, 1).unwrap(),
                );
                assert!(p.worst > bar, "{} {family:?} saturated {saturated}: {p:?}", profile.name);
            }
        }
    }
}
