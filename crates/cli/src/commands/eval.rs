//! `cipherlm eval`: perplexity of a text with exact functions and with polynomials.

use crate::flags;
use crate::model::load;
use crate::sampler::{argmax, loss};
use cipherlm_model::{Mode, Positions, Runner};
use serde_json::json;

/// Perplexity in both modes and how far they agree.
pub(crate) fn run(args: &flags::Eval, as_json: bool) -> anyhow::Result<bool> {
    let loaded = load(args.model.as_deref())?;
    let length = args.window.unwrap_or(loaded.model.shape().context);
    let windows = loaded.windows(&args.text, length, args.windows)?;
    let mut exact = Runner::new(&loaded.model, Mode::Exact)?;
    let mut polynomial = Runner::new(&loaded.model, Mode::Polynomial)?;
    let (mut nats, mut same, mut count, mut worst, mut bytes) = ([0.0f64; 2], 0usize, 0usize, 0.0f64, 0usize);
    for window in &windows {
        let a = exact.forward(window, Positions::All)?;
        let b = polynomial.forward(window, Positions::All)?;
        for (row, next) in window[1..].iter().enumerate() {
            nats[0] += loss(&a[row], *next as usize);
            nats[1] += loss(&b[row], *next as usize);
            same += usize::from(argmax(loaded.known(&a[row])) == argmax(loaded.known(&b[row])));
            worst = a[row].iter().zip(&b[row]).map(|(x, y)| (x - y).abs()).fold(worst, f64::max);
            bytes += loaded.tokenizer.bytes(*next).map_or(0, |b| b.len());
            count += 1;
        }
    }
    let perplexity = nats.map(|n| (n / count as f64).exp());
    let violations: u64 = polynomial.stats().map(|(_, _, stats)| stats.violations).sum();
    let agree = same as f64 / count as f64;
    if as_json {
        println!(
            "{}",
            json!({"machine": "clear", "model": loaded.model.spec().name, "tokens": count, "perplexity_exact": perplexity[0],
                "perplexity_polynomial": perplexity[1], "ratio": perplexity[1] / perplexity[0], "top1_agree": agree,
                "max_abs_error": worst, "violations": violations, "nats_per_byte_exact": nats[0] / bytes as f64})
        );
    } else {
        println!("{} on {}: {count} predicted tokens, clear text", loaded.model.spec().name, args.text.display());
        println!("perplexity, exact functions      {:>10.4}", perplexity[0]);
        println!(
            "perplexity, polynomials          {:>10.4}  ratio {:.5}",
            perplexity[1],
            perplexity[1] / perplexity[0]
        );
        println!("same most likely token           {:>9.3} %", 100.0 * agree);
        println!("largest difference of a logit    {worst:>10.2e}");
        println!("values outside certified ranges  {violations:>10}");
    }
    Ok(violations == 0)
}
