//! Bootstrapping on small insecure rings, on every family of inputs; the full-size profiles under
//! `--ignored`.

mod bench;
mod refusals;
mod sizes;

use std::sync::Arc;

use bench::Bench;
use cipherlm_circuits::bootstrap::simulate::{Family, Precision};
use cipherlm_circuits::bootstrap::{BootstrapKeys, BootstrapRefresher, Bootstrapper, Content, Profile};
use cipherlm_circuits::slots::{RefreshKind, Refresher};
use cipherlm_ckks::{Ciphertext, Complex64, Error, Evaluator, KeyRequest, Plaintext, Scale, SecretKey};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

fn profile_floor(bench: &Bench) -> usize {
    bench.bootstrapper.profile().input_level()
}

#[test]
fn every_family_keeps_its_bits_on_a_small_ring() {
    let bench = Bench::new(&Profile::insecure(10), 512, Content::Complex);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for family in Family::ALL {
        let p = bench.precision(&family.values(512, &mut rng));
        println!("{family:?}: {:.1} / {:.1}", p.worst, p.mean);
        assert!(p.worst > 20.0, "{family:?}: {p:?}");
    }
}

#[test]
fn every_accepted_combination_keeps_its_bits() {
    let fast = Profile::named("n16-fast").unwrap().in_insecure_ring(8);
    for profile in [Profile::insecure(8), fast] {
        for log in 3..=7 {
            for content in [Content::Complex, Content::Real] {
                let slots = 1 << log;
                let bench = Bench::new(&profile, slots, content);
                for family in Family::ALL {
                    let mut values = family.values(slots, &mut ChaCha8Rng::seed_from_u64(log));
                    if content == Content::Real {
                        values.iter_mut().for_each(|v| v.im = 0.0);
                    }
                    let p = bench.precision(&values);
                    assert!(
                        p.worst > 20.0,
                        "weight {} {slots} {content:?} {family:?}: {p:?}",
                        profile.ephemeral_weight
                    );
                }
            }
        }
    }
}

#[test]
fn inputs_of_higher_levels_and_fewer_slots_are_taken() {
    let bench = Bench::new(&Profile::insecure(8), 128, Content::Complex);
    let top = bench.bootstrapper.output_level();
    let scale = bench.params.default_scale(top);
    for slots in [1, 2, 8, 128] {
        let values = Family::Uniform.values(slots, &mut ChaCha8Rng::seed_from_u64(5));
        let plaintext = Plaintext::encode(&bench.params, &values, slots, scale).unwrap();
        for level in bench.bootstrapper.input_level()..=top {
            let input = bench.secret.encrypt(&plaintext, level).unwrap();
            let output = bench.bootstrapper.bootstrap(&bench.evaluator, &input).unwrap();
            assert_eq!((output.level(), output.slots()), (top, slots));
            let p = Precision::between(&values, bench.secret.decrypt(&output).unwrap().decode().as_slice());
            assert!(p.worst > 20.0, "{p:?}");
        }
    }
}

#[test]
fn lower_results_keep_their_bits() {
    // Ten user levels, so that whole digits of the keys could be left out.
    let profile = Profile { user_levels: 10, ..Profile::insecure(8) };
    for content in [Content::Complex, Content::Real] {
        let bench = Bench::new(&profile, 64, content);
        let mut values = Family::Uniform.values(64, &mut ChaCha8Rng::seed_from_u64(5));
        if content == Content::Real {
            values.iter_mut().for_each(|v| v.im = 0.0);
        }
        let input = bench.encrypt(&values);
        for level in 0..=bench.bootstrapper.output_level() {
            let scale = bench.params.default_scale(bench.bootstrapper.output_level()) * Scale::new(1.1);
            let output =
                bench.bootstrapper.bootstrap_to(&bench.evaluator, &input, level, scale, &mut |_| {}).unwrap();
            assert_eq!((output.level(), output.slots()), (level, 64));
            assert!(output.scale().matches(scale));
            // What is left is an ordinary ciphertext: it can be computed with.
            let doubled = bench.evaluator.add(&output, &output).unwrap();
            let p = Precision::between(&values, bench.secret.decrypt(&output).unwrap().decode().as_slice());
            assert!(p.worst > 20.0, "level {level} {content:?}: {p:?}");
            let twice: Vec<_> = values.iter().map(|v| v * 2.0).collect();
            let p = Precision::between(&twice, bench.secret.decrypt(&doubled).unwrap().decode().as_slice());
            assert!(p.worst > 19.0, "level {level} {content:?}: {p:?}");
        }
        let above = bench.bootstrapper.output_level() + 1;
        let scale = bench.params.default_scale(above - 1);
        let refused = bench.bootstrapper.bootstrap_to(&bench.evaluator, &input, above, scale, &mut |_| {});
        assert!(matches!(refused, Err(Error::LevelOutOfRange { level, .. }) if level == above));
    }
}

#[test]
fn two_real_vectors_share_a_bootstrap() {
    let bench = Bench::new(&Profile::insecure(9), 256, Content::Complex);
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let real = |v: Vec<Complex64>| v.into_iter().map(|v| Complex64::new(v.re, 0.0)).collect::<Vec<_>>();
    let (a, b) = (real(Family::Uniform.values(256, &mut rng)), real(Family::Blocks.values(256, &mut rng)));
    let (x, y) = (bench.encrypt(&a), bench.encrypt(&b));
    let (level, scale) =
        (profile_floor(&bench), bench.params.default_scale(bench.bootstrapper.output_level()));
    let high = bench.bootstrapper.bootstrap_pair(&bench.evaluator, &x, &y).unwrap();
    let low = bench.bootstrapper.bootstrap_pair_to(&bench.evaluator, &x, &y, level, scale).unwrap();
    for (level, (x, y)) in [(bench.bootstrapper.output_level(), high), (level, low)] {
        for (expected, found) in [(&a, x), (&b, y)] {
            assert_eq!(found.level(), level);
            let p = Precision::between(expected, bench.secret.decrypt(&found).unwrap().decode().as_slice());
            assert!(p.worst > 20.0, "{p:?}");
        }
    }
    // A circuit for real vectors has no place for the second.
    let real = Bench::new(&Profile::insecure(8), 64, Content::Real);
    let x = real.encrypt(&[Complex64::ONE]);
    assert!(matches!(
        real.bootstrapper.bootstrap_pair(&real.evaluator, &x, &x),
        Err(Error::OperandCount { left: 1, right: 2, .. })
    ));
}

#[test]
fn the_encrypted_machine_refreshes_by_it() {
    let profile = Profile::insecure(8);
    let params = profile.params().unwrap();
    let secret = SecretKey::generate(&params).unwrap();
    let circuits = [(128, Content::Complex), (16, Content::Real)];
    let circuits: Vec<_> = circuits
        .iter()
        .map(|&(n, c)| Arc::new(Bootstrapper::new(&params, &profile, n, c).unwrap()))
        .collect();
    let borrowed: Vec<&Bootstrapper> = circuits.iter().map(Arc::as_ref).collect();
    let keys = Arc::new(BootstrapKeys::generate(&secret, &borrowed, &KeyRequest::new()).unwrap());
    let refresher = BootstrapRefresher::new(Evaluator::new(&params, keys), circuits).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(10);
    let scale = params.default_scale(profile.output_level()) * Scale::new(1.01);
    for (kind, period) in [
        (RefreshKind::Full, 128),
        (RefreshKind::Real, 128),
        (RefreshKind::Sparse(32), 32),
        (RefreshKind::SparseReal(16), 16),
        (RefreshKind::SparseReal(4), 4),
    ] {
        let mut values = Family::Uniform.values(period, &mut rng);
        if matches!(kind, RefreshKind::Real | RefreshKind::SparseReal(_)) {
            values.iter_mut().for_each(|v| v.im = 0.0);
        }
        let known = refresher.profile(kind).unwrap();
        let plaintext =
            Plaintext::encode(&params, &values, period, params.default_scale(profile.output_level()))
                .unwrap();
        let input = secret.encrypt(&plaintext, refresher.floor()).unwrap().with_slots(128).unwrap();
        let output = refresher.refresh(&input, kind, known.output_level - 1, scale).unwrap();
        assert!(output.scale().matches(scale) && output.level() == known.output_level - 1);
        let found = secret.decrypt(&output).unwrap().decode();
        let expected: Vec<_> = values.iter().copied().cycle().take(128).collect();
        let p = Precision::between(&expected, found.as_slice());
        assert!(p.worst > 20.0, "{kind:?}: {p:?}");
    }
}

#[test]
fn a_second_bootstrap_adds_sixteen_bits() {
    let bench = Bench::new(&Profile::insecure(9), 256, Content::Complex);
    let scale = bench.params.default_scale(bench.bootstrapper.output_level()) * Scale::from_log2(16);
    for family in Family::ALL {
        let values = family.values(256, &mut ChaCha8Rng::seed_from_u64(7));
        let plaintext = Plaintext::encode(&bench.params, &values, 256, scale).unwrap();
        let input = bench.secret.encrypt(&plaintext, bench.bootstrapper.input_level() + 1).unwrap();
        let output = bench.bootstrapper.bootstrap_twice(&bench.evaluator, &input, 16).unwrap();
        let p = Precision::between(&values, bench.secret.decrypt(&output).unwrap().decode().as_slice());
        assert!(p.worst > 36.0, "{family:?}: {p:?}");
    }
}

#[test]
fn two_thousand_bootstraps_do_not_fail() {
    soak(2000);
}

#[test]
#[ignore = "100000 bootstraps take seven minutes"]
fn slow_a_hundred_thousand_bootstraps_do_not_fail() {
    soak(100_000);
}

/// Fresh messages, all families in turn; the worst slot of every one counts.
fn soak(count: usize) {
    let bench = Bench::new(&Profile::insecure(7), 64, Content::Complex);
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    for (i, family) in (0..count).zip(Family::ALL.into_iter().cycle()) {
        let p = bench.precision(&family.values(64, &mut rng));
        assert!(p.worst > 20.0, "bootstrap {i} {family:?}: {p:?}");
    }
}

#[test]
fn full_amplitude_ten_in_a_row_and_beyond() {
    let bench = Bench::new(&Profile::insecure(12), 64, Content::Complex);
    let again = |input: &Ciphertext| bench.bootstrapper.bootstrap(&bench.evaluator, input).unwrap();
    let found = |c: &Ciphertext| bench.secret.decrypt(c).unwrap().decode().as_slice().to_vec();
    let rms = |a: &[Complex64], b: &[Complex64]| {
        (a.iter().zip(b).map(|(a, b)| (a - b).norm_sqr()).sum::<f64>() / a.len() as f64).sqrt()
    };
    // The corners of the range.
    let corners: Vec<_> =
        (0..64).map(|j| Complex64::new(1.0, 1.0) * if j % 2 == 0 { 1.0 } else { -1.0 }).collect();
    let p = bench.precision(&corners);
    assert!(p.worst > 20.0, "{p:?}");
    // Ten in a row, four times: one chain of 64 slots tells its growth to a tenth only. Random
    // errors add up to three times one of them. At full amplitude there is the fifth power of the
    // sine as well, which shrinks a slot a little each time: ten times at most.
    let halves: Vec<_> =
        Family::Uniform.values(64, &mut ChaCha8Rng::seed_from_u64(11)).iter().map(|v| v / 2.0).collect();
    for (values, factor) in [(&halves, 4.0), (&corners, 10.5)] {
        let mut squares = [0.0; 2];
        for _ in 0..4 {
            let first = again(&bench.encrypt(values));
            let last = (1..10).fold(first.clone(), |c, _| again(&c));
            for (sum, end) in squares.iter_mut().zip([first, last]) {
                *sum += rms(values, &found(&end)).powi(2) / 4.0;
            }
        }
        let [one, ten] = squares.map(f64::sqrt);
        println!("one 2^{:.1}, ten 2^{:.1}", one.log2(), ten.log2());
        assert!(
            ten <= factor * one && ten < (-20f64).exp2(),
            "one 2^{:.1}, ten 2^{:.1}",
            one.log2(),
            ten.log2()
        );
    }
    // One slot out of range: it loses bits by the fifth power, or everything; the others keep
    // theirs.
    let ratio = bench.bootstrapper.profile().ratio.exp2();
    let limit = bench.bootstrapper.profile().reduction_errors().unwrap()[0];
    for outlier in [1.5, 4.0, 0.7 * ratio, -3.3 * ratio] {
        let mut values = vec![Complex64::new(0.1, -0.1); 64];
        values[5] = Complex64::new(outlier, 0.1);
        let refreshed = bench.refreshed(&values);
        let (own, expected) = (refreshed[5], values[5]);
        values.remove(5);
        let others: Vec<_> =
            refreshed.iter().copied().enumerate().filter(|(j, _)| *j != 5).map(|(_, v)| v).collect();
        let p = Precision::between(&values, &others);
        println!(
            "outlier {outlier:.1}: error 2^{:.1}, others {:.1} bits",
            (own - expected).norm().log2(),
            p.worst
        );
        assert!(p.worst > 20.0, "outlier {outlier}: {p:?}");
        let lost = (own - expected).norm();
        if outlier.abs() > ratio / 2.0 {
            assert!(lost > 1.0, "another value: {own}");
        } else {
            let fifth = limit * outlier.abs().powi(5);
            assert!(lost < 1.5 * fifth + (-20f64).exp2(), "{outlier}: {lost:e} {fifth:e}");
        }
    }
}

#[test]
fn plaintexts_of_every_period_multiply_alike() {
    let params = cipherlm_ckks::presets::insecure::small(1 << 10, 40.0, 2).unwrap();
    let secret = SecretKey::generate(&params).unwrap();
    let evaluator = Evaluator::new(&params, cipherlm_ckks::NoKeys);
    let values: Vec<_> = (0..512).map(|j| Complex64::new((j as f64).sin(), (j as f64).cos())).collect();
    let scale = params.default_scale(2);
    let input = secret.encrypt(&Plaintext::encode(&params, &values, 512, scale).unwrap(), 2).unwrap();
    for log in 0..=9 {
        let period: Vec<_> = (0..1 << log).map(|j| Complex64::new(1.0 / (1 + j) as f64, 0.3)).collect();
        let plaintext = Plaintext::encode(&params, &period, period.len(), scale).unwrap();
        let product = evaluator.rescale(&evaluator.mul_plain(&input, &plaintext).unwrap()).unwrap();
        let expected: Vec<_> = values.iter().enumerate().map(|(j, v)| v * period[j % period.len()]).collect();
        let p = Precision::between(&expected, secret.decrypt(&product).unwrap().decode().as_slice());
        assert!(p.worst > 20.0, "period {}: {p:?}", period.len());
    }
}
