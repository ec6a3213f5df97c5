//! `cipherlm train`: a run file through all its stages, with progress and resume.

use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
#[cfg_attr(not(feature = "train"), allow(dead_code, reason = "this build parses the options and cannot train"))]
pub(crate) struct Options {
    /// The run file.
    config: PathBuf,
    /// Go on from the last checkpoints of the run.
    #[arg(long)]
    resume: bool,
    /// Folder for checkpoints and logs, instead of the one in the run file.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Where to write the certified model.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write into --out although something is there.
    #[arg(long)]
    force: bool,
}

/// Without the feature there is nothing to train with; the message says how to get it.
#[cfg(not(feature = "train"))]
pub(crate) fn run(_options: &Options, _as_json: bool) -> anyhow::Result<bool> {
    anyhow::bail!("this build cannot train: use `cargo xtask train CONFIG`, or build with `--features train`")
}

/// Trains, then exports the model if a folder is given.
#[cfg(feature = "train")]
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    use crate::console::{err, out_json, say};
    use anyhow::Context;
    use cipherlm_files::{Existing, create_folder};
    use cipherlm_train::recipe::Run;

    if let Some(out) = &options.out {
        let existing = if options.force { Existing::Replace } else { Existing::Refuse };
        crate::outputs::Outputs::default().folder("--out", out, existing)?;
    }
    let mut prepared = Run::load(&options.config)?.prepare()?;
    if let Some(dir) = &options.dir {
        prepared.run.folder.clone_from(dir);
    }
    err(&format!(
        "{}: {} parameters, {} training tokens, {} held out",
        prepared.run.name,
        prepared.run.model.parameters(),
        prepared.train.tokens().len(),
        prepared.held_out.tokens().len()
    ));
    let bar = crate::console::bar(!as_json);
    let (config, params) = prepared.train(options.resume, |p| {
        bar.set_length(p.steps as u64);
        bar.set_position(p.stats.step as u64);
        bar.set_message(format!("{} loss {:.4}, {:.0} tokens/s", p.run, p.stats.loss, p.tokens_per_second));
        if bar.is_hidden() && !as_json {
            err(&format!(
                "{} {}/{} loss {:.4} {:.0} tokens/s, {:.0} s left",
                p.run, p.stats.step, p.steps, p.stats.loss, p.tokens_per_second, p.seconds_left
            ));
        }
    })?;
    bar.finish_and_clear();
    let shipped = prepared.export(&config, &params)?;
    let c = shipped.comparison;
    let nats = shipped.nats.exp();
    if as_json {
        out_json(&serde_json::json!({
            "machine": "clear",
            "model": prepared.run.name,
            "perplexity_held_out": nats,
            "perplexity_exact": c.exact,
            "perplexity_polynomial": c.polynomial,
            "top1_agree": c.same_top1,
            "tokens": c.tokens,
        }));
    } else {
        say!("held-out perplexity a token: {nats:.4}");
        let (ratio, same) = (c.polynomial / c.exact, 100.0 * c.same_top1);
        say!("polynomial over exact: {ratio:.6}; same most likely token {same:.3} %");
    }
    if let Some(out) = &options.out {
        create_folder(out).context("--out")?;
        shipped.model.save(out)?;
        prepared.tokenizer.save(&out.join(cipherlm_model::TOKENIZER_FILE))?;
    }
    Ok(true)
}
