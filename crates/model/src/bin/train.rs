//! Trains, exports and experiments from the command line.
//!
//! ```text
//! train run CONFIG [--resume]         all stages of a run
//! train export CONFIG DIR             certify the newest checkpoint and write the model folder
//! train generate CONFIG PROMPT        a story from the newest checkpoint
//! ```

use std::path::Path;
use std::process::ExitCode;

use cipherlm_model::generate::{Sampling, generate};
use cipherlm_model::recipe::{Prepared, Run, decoder};
use cipherlm_model::trainer::Progress;
use cipherlm_model::{Error, Result};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["run", config] => run(config, false),
        ["run", config, "--resume"] => run(config, true),
        ["export", config, folder] => export(config, Path::new(folder)),
        ["generate", config, prompt] => story(config, prompt),
        _ => {
            eprintln!("usage: train run CONFIG [--resume] | export CONFIG DIR | generate CONFIG PROMPT");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: &str, resume: bool) -> Result<()> {
    let prepared = prepare(config)?;
    let (train, held_out) = (prepared.train.tokens().len(), prepared.held_out.tokens().len());
    println!("{train} training tokens, {held_out} held out, {} parameters", prepared.run.model.parameters());
    prepared.train(resume, show)?;
    Ok(())
}

fn export(config: &str, folder: &Path) -> Result<()> {
    let prepared = prepare(config)?;
    let (config, params) = prepared.newest()?;
    let mut shipped = prepared.export(&config, &params)?;
    let c = shipped.comparison;
    let words = cipherlm_model::eval::word_perplexity(shipped.nats, &prepared.held_out);
    println!("held-out perplexity per token {:.4}, per word {words:.3}", shipped.nats.exp());
    println!("f64 exact {:.5}, polynomial {:.5}, ratio {:.6}", c.exact, c.polynomial, c.polynomial / c.exact);
    println!("same top-1 {:.3} % of {} tokens", 100.0 * c.same_top1, c.tokens);
    for (key, value) in [
        ("perplexity_exact", c.exact),
        ("perplexity_polynomial", c.polynomial),
        ("same_top1", c.same_top1),
        ("perplexity_per_word", words),
    ] {
        shipped.model.set_provenance(key, format!("{value:.6}"));
    }
    for site in &shipped.model.spec().sites {
        let degree = site.scheme.as_ref().map(|s| s.coefficients.len().saturating_sub(1));
        println!(
            "{:28} [{:10.4}, {:10.4}]  checked {:9}  outside {}  degree {degree:?}",
            site.name, site.range.lo, site.range.hi, site.checked, site.violations
        );
    }
    let failed = |e: cipherlm_spec::SpecError| Error::Export(e.to_string());
    shipped.model.save(folder).map_err(failed)?;
    prepared.tokenizer.save(&folder.join(cipherlm_spec::TOKENIZER_FILE)).map_err(failed)
}

fn story(config: &str, prompt: &str) -> Result<()> {
    let prepared = prepare(config)?;
    let (config, params) = prepared.newest()?;
    let model = decoder(&config, &params, &burn::tensor::Device::flex())?;
    let tokens = prepared.tokenizer.encode(prompt);
    for seed in 0..3 {
        let how = Sampling { temperature: 0.7, top_k: 40, seed };
        let new = generate(&model, &tokens, 200, prepared.tokenizer.end_of_text(), how)?;
        let text = prepared.tokenizer.decode(&new).map_err(|e| Error::Export(e.to_string()))?;
        println!("{prompt}{text}\n----");
    }
    Ok(())
}

fn prepare(config: &str) -> Result<Prepared> {
    Run::load(Path::new(config))?.prepare()
}

fn show(p: &Progress) {
    let held_out = p.held_out.map(|h| format!("  held out {h:.4}")).unwrap_or_default();
    println!(
        "{} {}/{}  loss {:.4}  range {:.3}  norm {:.2}  rate {:.1e}  {:.0} tokens/s  {:.0} s left{held_out}",
        p.run,
        p.stats.step,
        p.steps,
        p.stats.loss,
        p.stats.range_loss,
        p.stats.norm,
        p.stats.rate,
        p.tokens_per_second,
        p.seconds_left,
    );
}
