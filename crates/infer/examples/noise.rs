//! Many prompts on the noise machine: what encryption would do to the answers, without encrypting
//! anything.
//! `cargo run --release --example noise -- MODEL TEXT [PROMPTS] [LENGTH] [PROFILE]`,
//! where `PROFILE` is n16 or n16-fast; one line per run of ten, then totals.

use std::path::Path;
use std::sync::Arc;

use cipherlm_circuits::bootstrap::Profile;
use cipherlm_infer::{Circuits, Closeness, Options, Plan};
use cipherlm_model::{Mode, Model, Positions, Runner, TOKENIZER_FILE, Tokenizer};
use rayon::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |i: usize| {
        args.get(i).map(String::as_str).ok_or("arguments: MODEL TEXT [PROMPTS] [LENGTH] [PROFILE]")
    };
    let dir = Path::new(arg(0)?);
    let model = Arc::new(Model::load(dir)?);
    let tokenizer = Tokenizer::load(&dir.join(TOKENIZER_FILE))?;
    let count = arg(2).map_or(Ok(100), str::parse)?;
    let length = arg(3).map_or(Ok(32), str::parse)?;
    let profile = Profile::named(arg(4).unwrap_or("n16")).ok_or("no such profile")?;
    let tokens = tokenizer.encode(&std::fs::read_to_string(arg(1)?)?)?;
    let prompts: Vec<&[u32]> = tokens.chunks_exact(length).take(count).collect();
    let circuits = Circuits::new(&profile)?;
    let options = Options { tokens: length, ..Options::default() };
    let plan = Plan::compile(Arc::clone(&model), circuits.target()?, &options)?;
    let keys = circuits.key_request(&plan);
    let one = |(index, prompt): (usize, &&[u32])| -> Result<(Closeness, bool), String> {
        let machine =
            plan.noise_machine(circuits.params(), keys.clone(), index as u64).map_err(|e| e.to_string())?;
        let forecast = plan.forecast(&machine, prompt).map_err(|e| e.to_string())?;
        let last = prompt.len() - 1;
        let noisy = forecast.noisy_logits(&plan, last).map_err(|e| e.to_string())?;
        let reference = |mode| -> Result<Vec<f64>, String> {
            let rows =
                Runner::new(&model, mode).and_then(|mut runner| runner.forward(prompt, Positions::Last));
            rows.map_err(|e| e.to_string())?.pop().ok_or_else(|| "no logits".into())
        };
        let exact = Closeness::of(&reference(Mode::Exact)?, &noisy).same_top;
        Ok((Closeness::of(&reference(Mode::Polynomial)?, &noisy), exact))
    };
    let mut all = vec![];
    for (start, part) in prompts.chunks(10).enumerate() {
        let indexed: Vec<_> = part.iter().enumerate().map(|(i, p)| (10 * start + i, p)).collect();
        all.extend(indexed.into_par_iter().map(one).collect::<Result<Vec<_>, String>>()?);
        eprintln!("{} of {} prompts", all.len(), prompts.len());
    }
    let same = all.iter().filter(|(c, _)| c.same_top).count();
    let exact = all.iter().filter(|(_, exact)| *exact).count();
    let worst = |value: fn(&Closeness) -> f64| all.iter().map(|(c, _)| value(c)).fold(0.0, f64::max);
    println!(
        "noise machine, {}, profile {}, {} prompts of {length} tokens: same token as the polynomial model \
         {same}, as the exact model {exact}; \
         mean square error of the logits {:.2e} on average, {:.2e} at most; largest error {:.2e}; \
         divergence at most {:.2e} nats",
        model.spec().name,
        profile.name,
        all.len(),
        all.iter().map(|(c, _)| c.mse).sum::<f64>() / all.len().max(1) as f64,
        worst(|c| c.mse),
        worst(|c| c.max),
        worst(|c| c.kl),
    );
    Ok(())
}
