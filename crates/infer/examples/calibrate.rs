//! Measures what primitives cost here and writes the planner's table:
//! `cargo run --release --example calibrate -- FILE [PROFILE]`. With a profile (`n16-13`, ...) it
//! also runs its bootstraps and shows them beside the predicted ones; that takes a minute and 6 GiB
//! of memory. The machine should be idle otherwise.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cipherlm_circuits::bootstrap::{BootstrapKeys, Bootstrapper, Content, Profile, Stage};
use cipherlm_ckks::{Evaluator, KeyRequest, Plaintext, SecretKey};
use cipherlm_infer::CostModel;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let out = args.first().ok_or("arguments: FILE [PROFILE]")?;
    let params = Profile::n16().params()?;
    let clock = Instant::now();
    let table = CostModel::measure(&params, &processor())?;
    table.save(Path::new(out))?;
    println!("measured in {:.1} s: {out}", clock.elapsed().as_secs_f64());
    match args.get(1).map(|name| (name, Profile::named(name))) {
        Some((_, Some(profile))) => bootstraps(&table, &profile),
        Some((name, None)) => Err(format!("there is no profile `{name}`").into()),
        None => Ok(()),
    }
}

/// Measured beside predicted, to a few levels, complex and real.
fn bootstraps(table: &CostModel, profile: &Profile) -> Result<(), Box<dyn std::error::Error>> {
    let params = profile.params()?;
    let [complex, real] = [Content::Complex, Content::Real]
        .map(|content| Bootstrapper::new(&params, profile, params.slots(), content));
    let (complex, real) = (complex?, real?);
    let secret = SecretKey::generate(&params)?;
    let keys = Arc::new(BootstrapKeys::generate(&secret, &[&complex], &KeyRequest::new())?);
    let evaluator = Evaluator::new(&params, keys);
    let plaintext = Plaintext::encode(
        &params,
        &vec![cipherlm_ckks::Complex64::new(0.5, 0.25); params.slots()],
        params.slots(),
        params.default_scale(complex.output_level()),
    )?;
    let input = secret.encrypt(&plaintext, complex.input_level())?;
    for circuit in [&complex, &real] {
        circuit.prepare()?;
        // The real one at a lower level: two sizes and two contents by two circuits.
        let top = circuit.output_level();
        let real = circuit.content() == Content::Real;
        let level = if real { (top + circuit.input_level()) / 2 } else { top };
        let mut best = [f64::INFINITY; 2];
        for _ in 0..2 {
            let (clock, mut reduction) = (Instant::now(), 0.0);
            let mut progress = |stage| match stage {
                Stage::EvalMod => reduction = -clock.elapsed().as_secs_f64(),
                Stage::Finished => reduction += clock.elapsed().as_secs_f64(),
                _ => {}
            };
            let scale = params.default_scale(level);
            circuit.bootstrap_to(&evaluator, &input, level, scale, &mut progress)?;
            let all = clock.elapsed().as_secs_f64();
            best = [best[0].min(all - reduction), best[1].min(reduction)];
        }
        let predicted = table.bootstrap_parts(&circuit.work(level)?);
        let content = circuit.content();
        println!("{} {content:?} to level {level}, seconds:", profile.name);
        for (part, best, predicted) in
            [("transforms", best[0], predicted[0]), ("reduction", best[1], predicted[1])]
        {
            println!("  {part} {best:.2}, predicted {predicted:.2}, ratio {:.3}", best / predicted);
        }
    }
    Ok(())
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        text.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1).map(str::trim));
    name.unwrap_or("unknown processor").to_owned()
}
