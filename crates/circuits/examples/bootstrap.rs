//! Refreshes a ciphertext at 128-bit parameters and says what it took:
//! `cargo run --release --example bootstrap -- [PROFILE] [SLOTS] [complex|real] [RUNS] [LEVELS]`;
//! `PROFILE` is n16-13, n16-14, …, n15 or insecure, and `LEVELS` how many are left.

use std::time::Instant;

use cipherlm_circuits::bootstrap::simulate::{Family, Precision};
use cipherlm_circuits::bootstrap::{BootstrapKeys, Bootstrapper, Content, Profile};
use cipherlm_ckks::{Error, Evaluator, KeyRequest, Plaintext, SecretKey};
use rand::SeedableRng;

fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |i: usize| args.get(i).map_or("", String::as_str);
    let profile = Profile::named(arg(0)).unwrap_or_else(|| Profile::insecure(12));
    let params = profile.params()?;
    let slots = arg(1).parse().unwrap_or(params.slots());
    let content = if arg(2) == "real" { Content::Real } else { Content::Complex };
    let runs = arg(3).parse().unwrap_or(1);
    let left = arg(4).parse().unwrap_or(profile.user_levels).min(profile.user_levels);

    let clock = Instant::now();
    let bootstrapper = Bootstrapper::new(&params, &profile, slots, content)?;
    let declared = bootstrapper.declare()?;
    println!(
        "{}: N = 2^{}, log QP {:.1}, {:.0}-bit security, {slots} {content:?} slots; level {} -> {}, {} \
         levels of 2^{} for the user",
        profile.name,
        params.log_degree(),
        params.log_qp(),
        params.security().bits,
        declared.input_level,
        declared.output_level,
        profile.user_levels,
        profile.scale,
    );
    println!(
        "{}; plaintexts {:.0} MiB, prepared in {:.1} s",
        declared.memory,
        declared.plaintext_bytes[1] as f64 / f64::from(1 << 20),
        clock.elapsed().as_secs_f64()
    );

    let clock = Instant::now();
    let secret = SecretKey::generate(&params)?;
    let keys = BootstrapKeys::generate(&secret, &[&bootstrapper], &KeyRequest::new())?;
    println!("keys made in {:.1} s", clock.elapsed().as_secs_f64());
    let evaluator = Evaluator::new(&params, keys);
    let clock = Instant::now();
    bootstrapper.prepare()?;
    println!("plaintexts lifted in {:.1} s", clock.elapsed().as_secs_f64());
    let level = profile.input_level() + left;
    let scale = params.default_scale(level);

    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    for (run, family) in Family::ALL.into_iter().cycle().take(runs).enumerate() {
        let mut values = family.values(slots, &mut rng);
        if content == Content::Real {
            values.iter_mut().for_each(|v| v.im = 0.0);
        }
        let plaintext =
            Plaintext::encode(&params, &values, slots, params.default_scale(declared.output_level))?;
        let input = secret.encrypt(&plaintext, declared.input_level)?;
        let before = secret.decrypt(&input)?.decode();
        let clock = Instant::now();
        let mut stages = Vec::new();
        let mut progress = |stage| stages.push((stage, clock.elapsed().as_secs_f64()));
        let refreshed = bootstrapper.bootstrap_to(&evaluator, &input, level, scale, &mut progress)?;
        let seconds = clock.elapsed().as_secs_f64();
        let precision =
            Precision::between(before.as_slice(), secret.decrypt(&refreshed)?.decode().as_slice());
        let split: Vec<String> =
            stages.windows(2).map(|w| format!("{:?} {:.2}", w[0].0, w[1].1 - w[0].1)).collect();
        println!(
            "run {run}: {seconds:.2} s to {left} levels ({}); {family:?}: worst slot {:.1} bits, mean {:.1}",
            split.join(", "),
            precision.worst,
            precision.mean
        );
    }
    Ok(())
}
