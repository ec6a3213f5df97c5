//! Perplexity of a text.

use super::Judge;
use super::score::{Score, mean};
use crate::exit::usage;
use crate::sampler::loss;
use cipherlm_model::Positions;
use std::path::Path;

/// Windows of a text, each after the prefix. The first token of a window is not scored.
pub(super) fn perplexity(
    judge: &Judge<'_>,
    file: &Path,
    window: Option<usize>,
    limit: Option<usize>,
) -> anyhow::Result<Score> {
    let loaded = judge.loaded;
    loaded.ensure_continues("eval --task perplexity")?;
    super::data::text(file)?;
    let (context, before) = (loaded.room(), judge.prefix.len());
    let length = window.unwrap_or(context).min(context).saturating_sub(before);
    if length < 2 {
        return Err(usage(format!("--prefix takes {before} of {context} tokens: no window is left")));
    }
    let windows = loaded.first_windows(file, length, limit.unwrap_or(usize::MAX >> 32))?.windows;
    let choices = loaded.choices();
    let nats: Vec<f64> = judge.each(&windows, |runner, window| {
        runner.reset();
        if before > 0 {
            runner.append(&judge.prefix, Positions::Last)?;
        }
        let logits = runner.append(&window[..window.len() - 1], Positions::All)?;
        let tokens = window[1..].iter().zip(&logits);
        Ok(tokens.map(|(next, row)| loss(&row[..choices], *next as usize)).sum::<f64>() / (length - 1) as f64)
    })?;
    let (nats, stderr) = mean(&nats);
    let score = nats.exp();
    Ok(Score {
        items: windows.len(),
        metric: "perplexity",
        score,
        stderr: score * stderr,
        more: vec![("nats_per_token", nats), ("tokens", (windows.len() * (length - 1)) as f64)],
    })
}
