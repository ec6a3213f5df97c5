//! `cipherlm train`: a run file through all its stages, with progress and resume.

use crate::flags;

/// Without the feature there is nothing to train with; the message says how to get it.
#[cfg(not(feature = "train"))]
pub(crate) fn run(_args: &flags::Train, _as_json: bool) -> anyhow::Result<bool> {
    anyhow::bail!("this build cannot train: use `cargo xtask train CONFIG`, or build with `--features train`")
}

/// Trains, then exports the model if a folder is given.
#[cfg(feature = "train")]
pub(crate) fn run(args: &flags::Train, as_json: bool) -> anyhow::Result<bool> {
    use anyhow::Context;
    use cipherlm_train::recipe::Run;

    let mut prepared = Run::load(&args.config)?.prepare()?;
    if let Some(dir) = &args.dir {
        prepared.run.folder.clone_from(dir);
    }
    eprintln!(
        "{}: {} parameters, {} training tokens, {} held out",
        prepared.run.name,
        prepared.run.model.parameters(),
        prepared.train.tokens().len(),
        prepared.held_out.tokens().len()
    );
    let bar = crate::console::bar(!as_json);
    let (config, params) = prepared.train(args.resume, |p| {
        bar.set_length(p.steps as u64);
        bar.set_position(p.stats.step as u64);
        bar.set_message(format!("{} loss {:.4}, {:.0} tokens/s", p.run, p.stats.loss, p.tokens_per_second));
        if bar.is_hidden() && !as_json {
            eprintln!(
                "{} {}/{} loss {:.4} {:.0} tokens/s, {:.0} s left",
                p.run, p.stats.step, p.steps, p.stats.loss, p.tokens_per_second, p.seconds_left
            );
        }
    })?;
    bar.finish_and_clear();
    let shipped = prepared.export(&config, &params)?;
    let c = shipped.comparison;
    if let Some(out) = &args.out {
        std::fs::create_dir_all(out).with_context(|| format!("creating {}", out.display()))?;
        shipped.model.save(out)?;
        prepared.tokenizer.save(&out.join(cipherlm_model::TOKENIZER_FILE))?;
    }
    if as_json {
        println!(
            "{}",
            serde_json::json!({"machine": "clear", "model": prepared.run.name, "perplexity_held_out": shipped.nats.exp(),
                "perplexity_exact": c.exact, "perplexity_polynomial": c.polynomial, "top1_agree": c.same_top1, "tokens": c.tokens})
        );
    } else {
        println!("held-out perplexity a token: {:.4}", shipped.nats.exp());
        println!(
            "polynomial over exact: {:.6}; same most likely token {:.3} %",
            c.polynomial / c.exact,
            100.0 * c.same_top1
        );
    }
    Ok(true)
}
