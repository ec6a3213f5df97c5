//! One encrypted forward pass, timed, with the predicted and the measured error of every step:
//! `cargo run --release --example forward -- MODEL [tokens] [n16|n16-fast|insecure] [dry]`. MODEL
//! is a model folder or a preset shape with random weights.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cipherlm_circuits::bootstrap::Profile;
use cipherlm_circuits::slots::Primitives;
use cipherlm_infer::{Audit, Circuits, Client, Closeness, Options, Plan, Progress, Server};
use cipherlm_model::{FitOptions, Kind, Mode, Model, Positions, Runner, Shape, fit, random};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |i: usize| args.get(i).map_or("", String::as_str);
    let model = match Shape::preset(arg(0)) {
        Some(shape) => random::certified(arg(0), &shape, 1)?,
        None => Model::load(Path::new(arg(0)))?,
    };
    // Errors below the noise of a deep circuit would only cost depth.
    let mut model = model;
    fit(
        &mut model,
        &FitOptions { reciprocal: 1e-3, inv_sqrt: 5e-4, activation: 3e-3, ..FitOptions::default() },
    )?;
    let model = Arc::new(model);
    let tokens = arg(1).parse().unwrap_or(32);
    let profile = match arg(2) {
        "insecure" => Profile { user_levels: 13, ..Profile::insecure(13) },
        name => Profile::named(name).unwrap_or_else(Profile::n16),
    };
    let clock = Instant::now();
    let circuits = Circuits::new(&profile)?;
    println!("circuits {:.1} s", clock.elapsed().as_secs_f64());
    let options = Options { tokens, ..Options::default() };
    let clock = Instant::now();
    let plan = Plan::compile(Arc::clone(&model), circuits.target()?, &options)?;
    println!("plan {:.1} s\n{}", clock.elapsed().as_secs_f64(), plan.explain());
    let (stored, resident) = circuits.key_bytes(&plan)?;
    println!(
        "keys: {:.2} GiB stored, {:.2} GiB resident",
        stored as f64 / 2f64.powi(30),
        resident as f64 / 2f64.powi(30)
    );
    if arg(3) == "dry" {
        return Ok(());
    }
    let clock = Instant::now();
    let client = Client::generate(circuits.params())?;
    let keys = circuits.keys(client.secret(), &plan)?;
    println!("key generation {:.1} s", clock.elapsed().as_secs_f64());
    let server = Server::open(&circuits, client.key_id(), &keys)?;
    let prompt_tokens = &random::windows(model.shape(), tokens, 1, 5)[0];
    let clock = Instant::now();
    let prompt = client.encrypt(&plan, prompt_tokens)?;
    println!("encrypt {:.2} s", clock.elapsed().as_secs_f64());
    let forecast = plan.forecast_steps(&client, &circuits.key_request(&plan), &[prompt_tokens])?;
    let clock = Instant::now();
    let mut last = (0.0, String::new());
    let mut progress = |p: &Progress<'_>| {
        let now = p.elapsed.as_secs_f64();
        println!("{:>8.2} s  {}", now - last.0, last.1);
        last = (now, p.name.to_owned());
        true
    };
    let mut audit = Audit::new(&client, &forecast, &mut progress);
    let logits = server.run(&plan, prompt, &mut audit)?;
    let total = clock.elapsed().as_secs_f64();
    println!("forward pass {total:.1} s with an audit of every step, {:?} refreshes", plan.refreshes());
    println!(
        "{:<34} {:>21} {:>21} {:>14}",
        "step, errors as bits", "predicted rms, worst", "measured rms, worst", "margins"
    );
    for row in audit.finish() {
        let (predicted, measured) = (row.predicted.bits(), row.measured.bits());
        let (rms, worst) = row.margin();
        println!(
            "{:<34} {:>14.2} {:>6.2} {:>14.2} {:>6.2} {rms:>7.2} {worst:>6.2}",
            row.name, predicted.0, predicted.1, measured.0, measured.1
        );
    }
    let mut kinds: BTreeMap<String, (u64, f64)> = BTreeMap::new();
    for row in server.machine().log().rows() {
        let entry = kinds.entry(format!("{:?}", row.kind)).or_default();
        entry.0 += row.total.count;
        entry.1 += row.total.time.as_secs_f64();
    }
    kinds.iter().for_each(|(kind, (count, time))| println!("{kind:<18} {count:>7} {time:>8.2} s"));
    let reference = reference(&model, prompt_tokens)?;
    let mut same = 0;
    let (mut mse, mut max, mut kl) = (0.0, 0f64, 0f64);
    let first = if plan.answers_last() { reference.len() - 1 } else { 0 };
    for (position, row) in reference.iter().enumerate().skip(first) {
        let close = Closeness::of(row, &client.decrypt(&plan, &logits, position)?);
        same += usize::from(close.same_top);
        (mse, max, kl) = (mse + close.mse / reference.len() as f64, max.max(close.max), kl.max(close.kl));
    }
    println!(
        "same top token at {same} of {} positions, mse {mse:.2e}, largest error {max:.2e}, divergence \
         {kl:.2e} nats",
        reference.len()
    );
    Ok(())
}

/// What the polynomial model answers at every position, or of the whole text.
fn reference(model: &Model, tokens: &[u32]) -> Result<Vec<Vec<f64>>, cipherlm_model::Error> {
    let mut runner = Runner::new(model, Mode::Polynomial)?;
    Ok(match model.shape().kind {
        Kind::Decoder => runner.forward(tokens, Positions::All)?,
        Kind::Encoder { .. } => vec![runner.classify(tokens, None)?],
        Kind::Embedder { .. } => {
            let hidden = runner.hidden(tokens, None)?;
            hidden.chunks(model.shape().d_model).map(<[f64]>::to_vec).collect()
        }
    })
}
