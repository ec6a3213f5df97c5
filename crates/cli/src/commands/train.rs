//! `cipherlm train`: a run file through all its stages, with progress and resume.

use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
#[cfg_attr(
    not(feature = "train"),
    allow(dead_code, reason = "this build parses the options and cannot train")
)]
pub(crate) struct Options {
    /// The run file.
    pub(super) config: PathBuf,
    /// Go on from the last checkpoints of the run.
    #[arg(long)]
    pub(super) resume: bool,
    /// Folder for checkpoints and logs, instead of the one in the run file.
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// Where to write the certified model.
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
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
    use crate::console::err;

    let prepared = begin(options)?;
    err(&format!(
        "{}: {} parameters, {} training tokens, {} held out",
        prepared.run.name,
        prepared.arch.shape.parameters(),
        prepared.train.tokens().len(),
        prepared.held_out.tokens().len()
    ));
    finish(options, &prepared, as_json)
}

/// All stages, the difference from where they start if the run asks for one, certification, and
/// the folder of --out.
#[cfg(feature = "train")]
pub(super) fn finish(
    options: &Options,
    prepared: &cipherlm_train::prepared::Prepared,
    as_json: bool,
) -> anyhow::Result<bool> {
    use crate::console::err;
    let bar = crate::progress::bar(!as_json);
    let trained = prepared.train(options.resume, |event| show(&bar, event, as_json))?;
    bar.finish_and_clear();
    let folder = options.out.as_deref().unwrap_or(&prepared.run.folder);
    let (trained, written) = prepared.write_difference(trained, folder)?;
    if let Some(written) = written {
        let (tensors, bytes, lost) = (written.tensors, written.bytes, written.lost);
        err(&format!("difference: {tensors} tensors, {bytes} bytes, {lost:.4} of the change lost"));
    }
    let (before, after) = prepared.compared(&trained)?;
    let what = if prepared.arch.causal() { "held-out nats a token" } else { "distance from the start" };
    err(&format!("{what}: {before:.4} before, {after:.4} after"));
    let shipped = prepared.export(&trained)?;
    report(&prepared.run.name, &shipped, as_json);
    if let Some(out) = &options.out {
        cipherlm_train::card::write_folder(prepared, &shipped, &trained, out)?;
    }
    Ok(true)
}

/// Checks everything that can be checked before the first step, and reads the text.
#[cfg(feature = "train")]
pub(super) fn begin(options: &Options) -> anyhow::Result<cipherlm_train::prepared::Prepared> {
    use cipherlm_files::Existing;

    if let Some(out) = &options.out {
        let existing = if options.force { Existing::Replace } else { Existing::Refuse };
        crate::outputs::Outputs::default().folder("--out", out, existing)?;
    }
    let mut run = cipherlm_train::recipe::Run::load(&options.config)?;
    if let Some(dir) = &options.dir {
        run.folder.clone_from(dir);
    }
    Ok(cipherlm_train::prepared::Prepared::new(run, options.resume)?)
}

/// A step or a note of a run, on the bar or on standard error.
#[cfg(feature = "train")]
fn show(bar: &indicatif::ProgressBar, event: &cipherlm_train::journal::Event, as_json: bool) {
    use crate::console::err;
    use cipherlm_train::journal::Event;
    match event {
        Event::Step(p) => {
            let (run, step, loss) = (&p.run, p.stats.step, p.stats.loss);
            let speed = format!("{:.0} tokens/s, {:.0} s left", p.tokens_per_second, p.seconds_left);
            bar.set_length(p.steps as u64);
            bar.set_position(step as u64);
            bar.set_message(format!("{run} loss {loss:.4}, {speed}"));
            if bar.is_hidden() && !as_json {
                err(&format!("{run} {step}/{} loss {loss:.4} {speed}", p.steps));
            }
        }
        Event::Note(note) => bar.suspend(|| err(&format!("{} step {}: {}", note.run, note.step, note.note))),
    }
}

/// Figures of an exported model.
#[cfg(feature = "train")]
fn report(name: &str, shipped: &cipherlm_train::prepared::Shipped, as_json: bool) {
    use crate::console::{out_json, say};
    use cipherlm_train::export::Comparison;
    let held_out = shipped.held_out;
    match (&shipped.comparison, as_json) {
        (Comparison::Continuation(c), true) => out_json(&serde_json::json!({
            "machine": "clear",
            "model": name,
            "perplexity_held_out": held_out.exp(),
            "perplexity_exact": c.exact,
            "perplexity_polynomial": c.polynomial,
            "top1_agree": c.same_top1,
            "tokens": c.tokens,
        })),
        (Comparison::Vectors(c), true) => out_json(&serde_json::json!({
            "machine": "clear",
            "model": name,
            "distance_from_start": held_out,
            "distance_polynomial": c.mean,
            "distance_polynomial_largest": c.largest,
            "sentences": c.sentences,
        })),
        (Comparison::Continuation(c), false) => {
            say!("held-out perplexity a token: {:.4}", held_out.exp());
            let (ratio, same) = (c.polynomial / c.exact, 100.0 * c.same_top1);
            say!("polynomial over exact: {ratio:.6}; same most likely token {same:.3} %");
        }
        (Comparison::Vectors(c), false) => {
            say!(
                "held-out sentences: {held_out:.5} from the model at the start, mean of one minus the cosine"
            );
            let (mean, largest) = (c.mean, c.largest);
            say!("polynomial from exact: {mean:.2e} mean, {largest:.2e} largest of {}", c.sentences);
        }
    }
}
