//! Perplexity of a text with exact functions and with polynomials, and how far they agree.

use crate::model::Loaded;
use crate::sampler::{argmax, loss};
use cipherlm_files::shown;
use cipherlm_model::{Mode, Positions, Prepared};
use rayon::prelude::*;
use serde_json::{Value, json};
use std::path::Path;

/// What a window showed.
#[derive(Default)]
struct Totals {
    /// Exact, polynomial.
    nats: [f64; 2],
    same: usize,
    count: usize,
    bytes: usize,
    /// Largest difference of a logit.
    worst: f64,
    violations: u64,
}

/// Perplexity in both modes and how far they agree: as JSON, in lines, and whether every value
/// stayed in its range.
pub(super) fn run(
    loaded: &Loaded,
    file: &Path,
    window: Option<usize>,
    windows: usize,
) -> anyhow::Result<(Value, Vec<String>, bool)> {
    loaded.ensure_continues("eval")?;
    let length = window.unwrap_or(loaded.room());
    let text = loaded.first_windows(file, length, windows)?;
    let totals = measure(loaded, &text.windows)?;
    let perplexity = totals.nats.map(|nats| (nats / totals.count as f64).exp());
    let (name, ratio) = (loaded.name(), perplexity[1] / perplexity[0]);
    let agree = totals.same as f64 / totals.count as f64;
    let value = json!({
        "machine": "clear",
        "model": name,
        "tokens": totals.count,
        "perplexity_exact": perplexity[0],
        "perplexity_polynomial": perplexity[1],
        "ratio": ratio,
        "top1_agree": agree,
        "max_abs_error": totals.worst,
        "violations": totals.violations,
        "nats_per_byte_exact": totals.nats[0] / totals.bytes as f64,
    });
    let (windows, file) = (text.windows.len(), shown(file));
    let lines = vec![
        format!(
            "{name} on the first {windows} windows of {file}: {} predicted tokens, clear text",
            totals.count
        ),
        format!("perplexity, exact functions      {:>10.4}", perplexity[0]),
        format!("perplexity, polynomials          {:>10.4}  ratio {ratio:.5}", perplexity[1]),
        format!("same most likely token           {:>9.3} %", 100.0 * agree),
        format!("largest difference of a logit    {:>10.2e}", totals.worst),
        format!("values outside certified ranges  {:>10}", totals.violations),
    ];
    Ok((value, lines, totals.violations == 0))
}

fn measure(loaded: &Loaded, windows: &[Vec<u32>]) -> anyhow::Result<Totals> {
    let prepared = Prepared::new(&loaded.model)?;
    // Refusals before any work.
    prepared.runner(Mode::Polynomial)?;
    let one = |window: &Vec<u32>| -> anyhow::Result<Totals> {
        let (mut exact, mut polynomial) = (prepared.runner(Mode::Exact)?, prepared.runner(Mode::Polynomial)?);
        let (a, b) = (exact.forward(window, Positions::All)?, polynomial.forward(window, Positions::All)?);
        let mut totals = Totals::default();
        for ((next, a), b) in window[1..].iter().zip(&a).zip(&b) {
            totals.nats[0] += loss(a, *next as usize);
            totals.nats[1] += loss(b, *next as usize);
            totals.same += usize::from(argmax(a) == argmax(b));
            totals.worst = a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(totals.worst, worse);
            totals.bytes += loaded.tokenizer.bytes(*next).map_or(0, |bytes| bytes.len());
            totals.count += 1;
        }
        totals.violations = polynomial.stats().map(|(_, _, stats)| stats.violations).sum();
        Ok(totals)
    };
    let parts: Vec<Totals> = windows.par_iter().map(one).collect::<Result<_, _>>()?;
    Ok(parts.into_iter().fold(Totals::default(), |a, b| Totals {
        nats: [a.nats[0] + b.nats[0], a.nats[1] + b.nats[1]],
        same: a.same + b.same,
        count: a.count + b.count,
        bytes: a.bytes + b.bytes,
        worst: worse(a.worst, b.worst),
        violations: a.violations + b.violations,
    }))
}

/// The larger error: NaN must not pass for a small one.
fn worse(worst: f64, e: f64) -> f64 {
    if e > worst || e.is_nan() { e } else { worst }
}
