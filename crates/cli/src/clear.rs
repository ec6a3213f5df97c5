//! Commands that work on clear text: `generate`, `eval`, `certify`.

use crate::flags;
use crate::model::{Loaded, load};
use anyhow::bail;
use cipherlm_model::{FitOptions, Margins, Mode, Positions, Runner};
use rand::{RngExt, SeedableRng};
use serde_json::json;
use std::io::{IsTerminal, Write};

/// Continues a prompt.
pub(crate) fn generate(args: &flags::Generate, as_json: bool) -> anyhow::Result<bool> {
    let loaded = load(args.model.as_deref())?;
    let mode = if args.exact { Mode::Exact } else { Mode::Polynomial };
    let mut tokens = loaded.tokens(&args.prompt, args.tokens)?;
    let mut runner = Runner::new(&loaded.model, mode)?;
    let mut sampler = Sampler::new(args.temperature, args.top_k, args.seed)?;
    let mut fresh = tokens.clone();
    let stream = !as_json && std::io::stdout().is_terminal();
    let prompt_length = tokens.len();
    if stream {
        print!("{}", args.prompt);
    }
    for _ in 0..args.tokens {
        let rows = runner.append(&fresh, Positions::Last)?;
        let Some(logits) = rows.last() else { bail!("the model returned no logits") };
        let next = sampler.pick(logits);
        if Some(next) == loaded.tokenizer.end_of_text() {
            break;
        }
        tokens.push(next);
        fresh = vec![next];
        if stream {
            std::io::stdout().write_all(loaded.tokenizer.bytes(next).unwrap_or_default())?;
            std::io::stdout().flush()?;
        }
    }
    let answer = String::from_utf8_lossy(&loaded.tokenizer.decode_bytes(&tokens[prompt_length..])?).into_owned();
    if as_json {
        println!("{}", json!({"machine": "clear", "prompt": args.prompt, "answer": answer, "tokens": tokens}));
    } else if stream {
        println!();
    } else {
        println!("{}{answer}", args.prompt);
    }
    Ok(true)
}

/// Chooses tokens from logits.
pub(crate) struct Sampler {
    temperature: f64,
    top_k: usize,
    rng: rand_chacha::ChaCha20Rng,
}

impl Sampler {
    pub(crate) fn new(temperature: f64, top_k: usize, seed: u64) -> anyhow::Result<Self> {
        if !temperature.is_finite() || temperature < 0.0 || top_k == 0 {
            bail!(
                "temperature {temperature} and top-k {top_k}: need a temperature of at least 0 and a top-k of at least 1"
            );
        }
        Ok(Self { temperature, top_k, rng: rand_chacha::ChaCha20Rng::seed_from_u64(seed) })
    }

    /// The next token.
    pub(crate) fn pick(&mut self, logits: &[f64]) -> u32 {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        if self.temperature == 0.0 {
            return order[0] as u32;
        }
        order.truncate(self.top_k);
        let top = logits[order[0]];
        let weights: Vec<f64> = order.iter().map(|i| ((logits[*i] - top) / self.temperature).exp()).collect();
        let mut at = self.rng.random::<f64>() * weights.iter().sum::<f64>();
        for (index, weight) in order.iter().zip(&weights) {
            at -= weight;
            if at <= 0.0 {
                return *index as u32;
            }
        }
        order[order.len() - 1] as u32
    }
}

/// Perplexity in both modes and how far they agree.
pub(crate) fn eval(args: &flags::Eval, as_json: bool) -> anyhow::Result<bool> {
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
            same += usize::from(argmax(&a[row]) == argmax(&b[row]));
            worst = a[row].iter().zip(&b[row]).map(|(x, y)| (x - y).abs()).fold(worst, f64::max);
            bytes += loaded.tokenizer.bytes(*next).map_or(0, <[u8]>::len);
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

/// Ranges, check, polynomials.
pub(crate) fn certify(args: &flags::Certify, as_json: bool) -> anyhow::Result<bool> {
    let Loaded { model, tokenizer, dir } = load(args.model.as_deref())?;
    let loaded = Loaded { model, tokenizer, dir };
    let length = loaded.model.shape().context;
    let calibration = loaded.windows(&args.calibration, length, args.windows)?;
    let held_out = loaded.windows(&args.held_out, length, args.windows)?;
    let mut model = match args.freeze {
        Some(ratio) => cipherlm_model::freeze_eps(&loaded.model, &calibration, ratio)?,
        None => loaded.model.clone(),
    };
    cipherlm_model::certify(&mut model, &calibration, &held_out, &Margins::default())?;
    cipherlm_model::fit(&mut model, &FitOptions::default())?;
    let violations: u64 = model.spec().sites.iter().map(|site| site.violations).sum();
    if as_json {
        println!("{}", serde_json::to_string(&model.spec().sites)?);
    } else {
        println!(
            "{:<24} {:<12} {:>26} {:>26} {:>7} {:>10}",
            "site", "function", "observed", "certified", "degree", "violations"
        );
        for site in &model.spec().sites {
            println!(
                "{:<24} {:<12} {:>26} {:>26} {:>7} {:>10}",
                site.name,
                format!("{:?}", site.function),
                format!("[{:.4}, {:.4}]", site.observed.min, site.observed.max),
                format!("[{:.4}, {:.4}]", site.range.lo, site.range.hi),
                site.scheme.as_ref().map_or_else(|| "–".into(), |s| s.degree().to_string()),
                site.violations
            );
        }
    }
    if violations > 0 {
        eprintln!(
            "{violations} values of the held-out text leave their ranges: nothing written; widen the calibration text or the margins"
        );
        return Ok(false);
    }
    if let Some(out) = &args.out {
        std::fs::create_dir_all(out)?;
        model.save(out)?;
        loaded.tokenizer.save(&out.join(cipherlm_model::TOKENIZER_FILE))?;
        eprintln!("wrote {}", out.display());
    }
    Ok(true)
}

/// Negative log-likelihood of a token, in nats.
pub(crate) fn loss(logits: &[f64], token: usize) -> f64 {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|x| (x - top).exp()).sum();
    top + sum.ln() - logits[token]
}

/// The most likely token; the first of equals.
pub(crate) fn argmax(logits: &[f64]) -> usize {
    logits.iter().enumerate().fold(0, |best, (i, x)| if *x > logits[best] { i } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_minus_log_softmax() {
        let logits = [1.0, 2.0, 3.0];
        let want = -(3f64.exp() / logits.iter().map(|x: &f64| x.exp()).sum::<f64>()).ln();
        assert!((loss(&logits, 2) - want).abs() < 1e-12);
    }

    #[test]
    fn greedy_and_top_1_sampling_agree() {
        let logits = [0.1, 4.0, -2.0, 3.9];
        let mut greedy = Sampler::new(0.0, 40, 1).unwrap();
        let mut top1 = Sampler::new(1.5, 1, 1).unwrap();
        assert_eq!(greedy.pick(&logits), 1);
        assert_eq!(top1.pick(&logits), 1);
        assert_eq!(argmax(&logits), 1);
    }

    #[test]
    fn sampling_follows_the_weights() {
        let mut sampler = Sampler::new(1.0, 2, 7).unwrap();
        let logits = [0.0, 3f64.ln(), -50.0];
        let ones = (0..4000).filter(|_| sampler.pick(&logits) == 1).count();
        assert!((ones as f64 / 4000.0 - 0.75).abs() < 0.03, "{ones} of 4000");
    }

    #[test]
    fn bad_sampler_settings_are_refused() {
        assert!(Sampler::new(-1.0, 40, 1).is_err());
        assert!(Sampler::new(f64::NAN, 40, 1).is_err());
        assert!(Sampler::new(1.0, 0, 1).is_err());
    }
}
