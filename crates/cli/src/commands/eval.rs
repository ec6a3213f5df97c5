//! `cipherlm eval`: perplexity of a text with exact functions and with polynomials.

use crate::console::{out_json, say};
use crate::model::{Loaded, load};
use crate::options::{ModelOption, count};
use crate::sampler::{argmax, loss};
use cipherlm_files::shown;
use cipherlm_model::{Mode, Positions, Runner};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    model: ModelOption,
    /// Text to measure on.
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Tokens a window (default: the model's context).
    #[arg(long, value_parser = count(2..=1 << 20))]
    window: Option<usize>,
    /// Stop after this many windows from the start of the text.
    #[arg(long, default_value = "64", value_parser = count(1..=1 << 32))]
    windows: usize,
}

/// What the windows showed.
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

/// Perplexity in both modes and how far they agree.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    let loaded = load(options.model.get())?;
    loaded.ensure_continues("eval")?;
    let length = options.window.unwrap_or(loaded.model.shape().context);
    let text = loaded.first_windows(&options.text, length, options.windows)?;
    let totals = measure(&loaded, &text.windows)?;
    let perplexity = totals.nats.map(|nats| (nats / totals.count as f64).exp());
    let (name, ratio) = (loaded.name(), perplexity[1] / perplexity[0]);
    let agree = totals.same as f64 / totals.count as f64;
    if as_json {
        out_json(&json!({
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
        }));
    } else {
        let (windows, file) = (text.windows.len(), shown(&options.text));
        say!(
            "{name} on the first {windows} windows of {file}: {} predicted tokens, clear text",
            totals.count
        );
        say!("perplexity, exact functions      {:>10.4}", perplexity[0]);
        say!("perplexity, polynomials          {:>10.4}  ratio {ratio:.5}", perplexity[1]);
        say!("same most likely token           {:>9.3} %", 100.0 * agree);
        say!("largest difference of a logit    {:>10.2e}", totals.worst);
        say!("values outside certified ranges  {:>10}", totals.violations);
    }
    Ok(totals.violations == 0)
}

fn measure(loaded: &Loaded, windows: &[Vec<u32>]) -> anyhow::Result<Totals> {
    let mut exact = Runner::new(&loaded.model, Mode::Exact)?;
    let mut polynomial = Runner::new(&loaded.model, Mode::Polynomial)?;
    let mut totals = Totals::default();
    for window in windows {
        let (a, b) = (exact.forward(window, Positions::All)?, polynomial.forward(window, Positions::All)?);
        for ((next, a), b) in window[1..].iter().zip(&a).zip(&b) {
            totals.nats[0] += loss(a, *next as usize);
            totals.nats[1] += loss(b, *next as usize);
            totals.same += usize::from(argmax(a) == argmax(b));
            // NaN must not pass for a small difference.
            let worse = |worst: f64, e: f64| if e > worst || e.is_nan() { e } else { worst };
            totals.worst = a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(totals.worst, worse);
            totals.bytes += loaded.tokenizer.bytes(*next).map_or(0, |bytes| bytes.len());
            totals.count += 1;
        }
    }
    totals.violations = polynomial.stats().map(|(_, _, stats)| stats.violations).sum();
    Ok(totals)
}
