//! Attacks on shared approximate decryptions (Li and Micciancio, eprint 2020/1533): solving for the
//! key works on raw values, which is why they cannot be serialised; counting and averaging shows
//! what `decode_public` and `decode_flooded` let through.

use crate::common::{bits_of, values};
use cipherlm_ckks::noise::{NoiseModel, Prediction, SlotVariance};
use cipherlm_ckks::ring::{Eval, Poly};
use cipherlm_ckks::{
    Ciphertext, Complex64, Decrypted, Error, Evaluator, NoKeys, Params, Plaintext, Scale, SecretKey,
    SharingContract, presets,
};

const N: usize = 256;
const KEYS: usize = 100;

/// Solves `c0 + c1 s = m` for `s` modulo the base prime, with `m` re-encoded from the released
/// slots. Returns how many coefficients of the solution are in {-1, 0, 1}: all of them for the
/// right key.
fn small_coefficients(params: &Params, ciphertext: &Ciphertext, released: &[Complex64]) -> usize {
    let limbs = params.limbs(0);
    let zero = || Poly::<Eval>::zero(params.ring(), limbs).unwrap();
    let parts = vec![zero(), zero()];
    let open =
        Ciphertext::from_parts(params, ciphertext.key_id(), parts, 0, ciphertext.scale(), params.slots())
            .unwrap();
    let message = Plaintext::encode(params, released, params.slots(), ciphertext.scale()).unwrap();
    let encoded = Evaluator::new(params, NoKeys).add_plain(&open, &message).unwrap();
    let mut s = encoded.parts()[0].clone();
    s.sub_assign(&ciphertext.parts()[0].keep(limbs).unwrap()).unwrap();
    let modulus = *params.ring().modulus(0).unwrap();
    let c1 = ciphertext.parts()[1].limb(0).unwrap().to_vec();
    for (x, a) in s.limb_mut(0).unwrap().iter_mut().zip(c1) {
        *x = modulus.mul(*x as u64, modulus.inv(a as u64).unwrap()) as f64;
    }
    s.into_coeff().to_f64().iter().filter(|x| x.abs() <= 1.0).count()
}

/// What is known of the error of a fresh encryption at level 0.
fn predicted(params: &Params, slots: usize) -> Prediction {
    let variance = NoiseModel::new(params).fresh(params.default_scale(0));
    Prediction::of(&vec![SlotVariance::plain(variance); slots], &vec![variance; slots])
}

/// One fresh ciphertext a key, and what its owner knows of its error.
struct Release {
    ciphertext: Ciphertext,
    decrypted: Decrypted,
    prediction: Prediction,
    secret: SecretKey,
}

fn release(params: &Params, message: &[Complex64]) -> Release {
    let secret = SecretKey::generate(params).unwrap();
    let plaintext = Plaintext::encode(params, message, params.slots(), params.default_scale(0)).unwrap();
    let ciphertext = secret.encrypt(&plaintext, 0).unwrap();
    let decrypted = secret.decrypt(&ciphertext).unwrap();
    let prediction = predicted(params, params.slots());
    Release { ciphertext, decrypted, prediction, secret }
}

fn components(values: &[Complex64]) -> impl Iterator<Item = f64> + '_ {
    values.iter().flat_map(|v| [v.re, v.im])
}

/// Components whose rounding differs from that of the message: there the noise decided.
fn flips(released: &[Complex64], message: &[Complex64], bits: f64) -> usize {
    let unit = bits.exp2();
    components(released).zip(components(message)).filter(|(r, m)| r * unit != (m * unit).round()).count()
}

#[test]
fn raw_values_give_the_key_away_and_rounded_ones_do_not() {
    let params = presets::insecure::small(N, 40.0, 1).unwrap();
    let message = values(N / 2, 3);
    let (mut raw, mut public) = (0, 0);
    for _ in 0..KEYS {
        let r = release(&params, &message);
        raw += small_coefficients(&params, &r.ciphertext, r.decrypted.decode().as_slice());
        let shared = r.decrypted.decode_public(20.0, 2f64.powi(-28)).unwrap();
        assert!(bits_of(&shared, &message) >= 19.0);
        public += small_coefficients(&params, &r.ciphertext, &shared);
    }
    assert_eq!(raw, KEYS * N, "the control must recover every coefficient");
    // Any rounding ruins this attack, so this alone says little: the attackers below count what
    // rounding lets through.
    assert_eq!(public, 0);
}

/// The attacker knows the message and counts components that are not rounded as it would round
/// them.
#[test]
fn rounding_shows_the_noise_in_boundary_components_alone_and_as_often_as_stated() {
    let params = presets::insecure::small(N, 40.0, 1).unwrap();
    let message = values(N / 2, 3);
    let (mut near, mut far, mut beyond, mut total) = (0, 0, 0, 0);
    for _ in 0..KEYS {
        let r = release(&params, &message);
        let bound = r.prediction.worst;
        let least = (-bound.log2() - 4.0).floor();
        near += flips(&r.decrypted.decode_public(least, r.prediction).unwrap(), &message, least);
        let bits = r.decrypted.public_bits(r.prediction).unwrap();
        far += flips(&r.decrypted.decode_public(bits, r.prediction).unwrap(), &message, bits);
        // No component away from a boundary is decided by noise.
        let unit = least.exp2();
        let shown = r.decrypted.decode_public(least, r.prediction).unwrap();
        let safe = |m: f64| ((m * unit).fract().abs() - 0.5).abs() > bound * unit;
        let wrong = |(r, m): &(f64, f64)| safe(*m) && r * unit != (m * unit).round();
        beyond += components(&shown).zip(components(&message)).filter(wrong).count();
        total += N;
    }
    assert_eq!(beyond, 0);
    // At 4 bits an eighth of all components are at a boundary, and a part of these flips: the limit
    // that the text names.
    assert!(near > 0 && near < total / 8, "{near} of {total} components flipped");
    // At 16 bits one in 2^15 is at a boundary: less than one of these 25,600.
    assert!(far <= 6, "{far} of {total} components flipped");
}

#[test]
fn chosen_messages_at_boundaries_are_what_rounding_cannot_hide() {
    let params = presets::insecure::small(N, 40.0, 1).unwrap();
    let bits = 10.0;
    let message = vec![Complex64::new(0.5, 0.5) * 2f64.powf(-bits); N / 2];
    let flipped: usize = (0..KEYS)
        .map(|_| {
            flips(
                &release(&params, &message).decrypted.decode_public(bits, 2f64.powi(-14)).unwrap(),
                &message,
                bits,
            )
        })
        .sum();
    let half = KEYS * N / 2;
    assert!(flipped.abs_diff(half) < half / 10, "the noise decides {flipped} of {} components", 2 * half);
}

#[test]
fn more_bits_than_the_bound_leaves_and_bounds_below_the_noise_are_refused() {
    let params = presets::insecure::small(N, 40.0, 1).unwrap();
    let r = release(&params, &values(N / 2, 3));
    let d = &r.decrypted;
    assert!(d.decode_public(16.0, 2f64.powi(-20)).is_ok());
    assert!(matches!(d.decode_public(16.1, 2f64.powi(-20)), Err(Error::Sharing { .. })));
    for bits in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -2000.0, 2000.0] {
        assert!(matches!(d.decode_public(bits, 2f64.powi(-20)), Err(Error::Sharing { .. })), "{bits}");
    }
    let sharing = r.secret.sharing_in_this_process(SharingContract::new(30, 1).unwrap()).unwrap();
    for bound in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-300, 2f64.powi(-40), r.prediction.rms / 2.0] {
        assert!(matches!(d.decode_public(1.0, bound), Err(Error::ErrorBound { .. })), "{bound}");
        assert!(matches!(d.public_bits(bound), Err(Error::ErrorBound { .. })), "{bound}");
        assert!(matches!(d.decode_flooded(1.0, bound, &sharing), Err(Error::ErrorBound { .. })), "{bound}");
    }
    // What is refused is not counted, and what the noise machine predicts is never refused.
    assert_eq!(sharing.left().unwrap(), 1);
    for slots in [1, 4, N / 2] {
        let plaintext = Plaintext::encode_real(&params, &[0.5], slots, params.default_scale(0)).unwrap();
        let decrypted = r.secret.decrypt(&r.secret.encrypt(&plaintext, 0).unwrap()).unwrap();
        assert!(decrypted.decode_public(4.0, predicted(&params, slots)).is_ok(), "{slots}");
    }
}

/// The best attacker against Gaussian noise knows the message and every possible error, and looks
/// for one of the largest: all slots at their bound. Over all releases its advantage is that of
/// telling a normal deviate from one shifted by `sqrt(releases) |error| / sigma`, which must be
/// below `2^(-security / 2)`. The noise is measured, not computed.
#[test]
fn flooding_hides_the_largest_error_vector_from_the_averages_of_all_releases() {
    for (degree, slots, security, releases) in
        [(256usize, 128usize, 30, 64u32), (1024, 512, 30, 4), (1024, 16, 40, 16)]
    {
        let params = presets::insecure::small(degree, 49.0, 2).unwrap();
        let secret = SecretKey::generate(&params).unwrap();
        let plaintext =
            Plaintext::encode(&params, &vec![Complex64::ZERO; slots], slots, Scale::from_log2(60)).unwrap();
        let decrypted = secret.decrypt(&secret.encrypt(&plaintext, 2).unwrap()).unwrap();
        let bound = 2f64.powi(-48);
        let sharing =
            secret.sharing_in_this_process(SharingContract::new(security, releases).unwrap()).unwrap();
        // As fine as it goes: between one and two deviations of the noise.
        let Err(Error::Sharing { allowed, .. }) = decrypted.decode_flooded(400.0, bound, &sharing) else {
            panic!()
        };
        let bits = allowed.floor();
        let (mut sums, mut squares, mut all) = (vec![Complex64::ZERO; slots], 0.0, Vec::new());
        for _ in 0..releases {
            let flooded = decrypted.decode_flooded(bits, bound, &sharing).unwrap();
            squares += flooded.iter().map(|v| v.norm_sqr()).sum::<f64>();
            sums.iter_mut().zip(&flooded).for_each(|(sum, v)| *sum += v);
            assert!(!all.contains(&flooded), "one noise twice");
            all.push(flooded);
        }
        let count = (2 * slots) as f64 * f64::from(releases);
        let sigma = (squares / count).sqrt();
        let largest = (slots as f64).sqrt() * bound;
        let advantage = f64::from(releases).sqrt() * largest / sigma;
        let limit = (-f64::from(security) / 2.0).exp2();
        assert!(advantage <= limit, "{slots} slots: 2^{:.1} for 2^{:.1}", advantage.log2(), limit.log2());
        assert!(advantage >= limit / 16.0, "{slots} slots: noise far beyond need, 2^{:.1}", advantage.log2());
        // Averaging releases takes the noise down by the root of their number and not further.
        let averaged = sums.iter().map(|v| v.norm_sqr()).sum::<f64>().sqrt() / f64::from(releases);
        let expected = sigma * (2.0 * slots as f64 / f64::from(releases)).sqrt();
        assert!((0.4..1.6).contains(&(averaged / expected)), "{averaged:e} for {expected:e}");
        assert!(matches!(decrypted.decode_flooded(bits, bound, &sharing), Err(Error::SharingSpent { .. })));
    }
}
