//! The profiles at full size.

use crate::bench::Bench;
use cipherlm_circuits::bootstrap::simulate::{self, Family, Precision};
use cipherlm_circuits::bootstrap::{Content, Profile};
use cipherlm_circuits::slots::{Noise, Primitives, RefreshKind, RefreshProfile};
use cipherlm_ckks::noise::NoiseModel;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

#[test]
#[ignore = "full size: 6 GiB and a minute"]
fn full_13_levels_keep_their_bits() {
    full_size(&Profile::named("n16-13").unwrap());
}

#[test]
#[ignore = "full size: 6 GiB and a minute"]
fn full_14_levels_keep_their_bits() {
    full_size(&Profile::named("n16-14").unwrap());
}

#[test]
#[ignore = "full size: 6 GiB and a minute"]
fn full_15_levels_keep_their_bits() {
    full_size(&Profile::named("n16-15").unwrap());
}

#[test]
#[ignore = "full size: 6 GiB and a minute"]
fn full_16_levels_keep_their_bits() {
    full_size(&Profile::named("n16-16").unwrap());
}

#[test]
#[ignore = "full size: 6 GiB and a minute"]
fn full_17_levels_keep_their_bits() {
    full_size(&Profile::named("n16-17").unwrap());
}

#[test]
#[ignore = "full size: 6 GiB and a minute"]
fn full_18_levels_keep_their_bits() {
    full_size(&Profile::named("n16-18").unwrap());
}

#[test]
#[ignore = "full size: 2 GiB and half a minute"]
fn full_the_small_profile_keeps_its_bits() {
    full_size(&Profile::n15());
}

/// Every family of inputs within a bit of what the simulation of the profile promises.
fn full_size(profile: &Profile) {
    let bench = Bench::new(profile, 1 << (profile.log_degree - 1), Content::Complex);
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let top = bench.bootstrapper.output_level();
    let refreshed =
        RefreshProfile { input_level: 1, ..bench.bootstrapper.refresh_profile(RefreshKind::Full) };
    let noise = Noise::new(NoiseModel::new(&bench.params), 1).unwrap().with_refresh(refreshed);
    for family in Family::ALL {
        let values = family.values(bench.params.slots(), &mut rng);
        let found = bench.refreshed(&values);
        let p = Precision::between(&values, &found);
        let simulated = simulate::bootstrap(profile, &values, false, 1).unwrap();
        let forecast = Precision::between(&values, &simulated).worst;
        assert!((forecast - p.worst).abs() < 1.0, "{} {family:?}: {p:?}, forecast {forecast}", profile.name);
        // The noise machine knows: never less than what happened, and within two bits of it.
        let predicted =
            noise.refresh(&noise.input(values.clone(), top).unwrap(), RefreshKind::Full, None).unwrap();
        let squares = values.iter().zip(&found).map(|(a, b)| (a - b).norm_sqr());
        let rms = (squares.sum::<f64>() / values.len() as f64).sqrt();
        let over =
            [predicted.prediction().rms.log2() - rms.log2(), predicted.prediction().worst.log2() + p.worst];
        println!(
            "{} {family:?}: worst {:.2} bits, simulated {forecast:.2}, mean {:.2}, noise above by {over:.2?}",
            profile.name, p.worst, p.mean
        );
        assert!(over.iter().all(|bits| (0.0..=2.0).contains(bits)), "{} {family:?}: {over:?}", profile.name);
    }
}
