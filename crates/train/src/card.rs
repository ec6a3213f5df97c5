//! The model card: everything a reader of a shipped model should know, written from the run's own files.

use std::fmt::Write;
use std::path::Path;

use burn::tensor::Device;

use crate::config::ModelConfig;
use crate::curves::{Chart, Series};
use crate::error::{Error, Result};
use crate::eval::word_perplexity;
use crate::export::refuse;
use crate::generate::{Sampling, generate};
use crate::params::HostParam;
use crate::recipe::{Prepared, Shipped, decoder};
use crate::trainer::Progress;

/// Writes a complete model folder: the certified model, its tokenizer, `README.md` and `curves.svg`.
pub fn write_folder(
    prepared: &Prepared,
    shipped: &Shipped,
    config: &ModelConfig,
    params: &[HostParam],
    folder: &Path,
) -> Result<()> {
    shipped.model.save(folder).map_err(refuse)?;
    prepared.tokenizer.save(&folder.join(cipherlm_model::TOKENIZER_FILE)).map_err(refuse)?;
    let log = read_log(prepared)?;
    write(&folder.join("curves.svg"), &curves(&log).svg())?;
    write(&folder.join("README.md"), &card(prepared, shipped, config, params, &log)?)
}

fn card(
    prepared: &Prepared,
    shipped: &Shipped,
    config: &ModelConfig,
    params: &[HostParam],
    log: &[Progress],
) -> Result<String> {
    let run = &prepared.run;
    let c = shipped.comparison;
    let mut out = format!("# {}\n\n", run.name);
    for (key, value) in &run.about {
        let _ = writeln!(out, "- **{key}**: {value}");
    }
    let _ = writeln!(
        out,
        "- **shape**: {} layers, width {}, {} heads of {}, feed-forward {}, context {}, vocabulary {}, {} parameters\n\
         - **attention**: `{}`\n",
        config.layers,
        config.width,
        config.heads,
        config.head_width(),
        config.feed_forward,
        config.context,
        config.vocab,
        config.parameters(),
        serde_json::to_string(&config.attention).unwrap_or_default(),
    );
    out.push_str("## Training\n\nMade by `train run` and `train export` from `run.json` beside this file.\n\n");
    out.push_str(
        "| stage | seed | steps | tokens | peak rate | held-out nats a token at its end |\n|---|---|---|---|---|---|\n",
    );
    for stage in &run.stages {
        let t = &stage.train;
        let last = log.iter().filter(|p| p.run == stage.name).filter_map(|p| p.held_out).next_back();
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {:.0e} | {} |",
            stage.name,
            t.seed,
            t.steps,
            t.steps * t.tokens_per_step(config),
            t.schedule.peak,
            last.map_or("-".into(), |h| format!("{h:.4}"))
        );
    }
    out.push_str(
        "\n![curves](curves.svg)\n\n## Perplexity on held-out text\n\n| | per token | per word |\n|---|---|---|\n",
    );
    let word = |p: f64| word_perplexity(p.ln(), &prepared.held_out);
    let exact = shipped.nats.exp();
    let _ = writeln!(out, "| exact, f32, {} windows | {exact:.4} | {:.2} |", run.export.held_out_windows, word(exact));
    let _ = writeln!(out, "| exact, f64, {} tokens | {:.4} | {:.2} |", c.tokens, c.exact, word(c.exact));
    let _ = writeln!(out, "| polynomial, f64, the same | {:.4} | {:.2} |\n", c.polynomial, word(c.polynomial));
    let _ = writeln!(
        out,
        "Polynomial over exact: {:.6}; the same most likely token at {:.3} % of positions.\n",
        c.polynomial / c.exact,
        100.0 * c.same_top1
    );
    out.push_str(
        "## Certified ranges\n\nFrom training text, widened by the margin, then checked on held-out text.\n\n",
    );
    out.push_str("| site | range | margin | degree | values checked | outside |\n|---|---|---|---|---|---|\n");
    for site in &shipped.model.spec().sites {
        let degree = site.scheme.as_ref().map_or("-".into(), |s| (s.coefficients.len() - 1).to_string());
        let _ = writeln!(
            out,
            "| {} | {:.4} … {:.4} | {} | {degree} | {} | {} |",
            site.name, site.range.lo, site.range.hi, site.margin, site.checked, site.violations
        );
    }
    let _ = writeln!(out, "\n## What it writes\n\nTemperature 0.6, the 40 most likely tokens, seeds 0 to 2.\n");
    for story in samples(prepared, config, params)? {
        let _ = writeln!(out, "> {}\n", story.trim().replace('\n', "\n> "));
    }
    Ok(out)
}

/// Three continuations of the opening that the run names.
fn samples(prepared: &Prepared, config: &ModelConfig, params: &[HostParam]) -> Result<Vec<String>> {
    let model = decoder(config, params, &Device::flex())?;
    let prompt = prepared.run.prompt.as_str();
    let tokens = prepared.tokenizer.encode(prompt).map_err(refuse)?;
    (0..3)
        .map(|seed| {
            let how = Sampling { temperature: 0.6, top_k: 40, seed };
            let new = generate(&model, &tokens, 160, prepared.tokenizer.ends(), how)?;
            Ok(format!("**{prompt}**{}", prepared.tokenizer.decode_continuation(&tokens, &new).map_err(refuse)?))
        })
        .collect()
}

/// Loss over steps, all stages behind each other.
fn curves(log: &[Progress]) -> Chart {
    let (mut before, mut offset, mut stage) = (0, 0, "");
    let mut series = ["training", "held out"].map(|name| Series { name: name.into(), points: Vec::new() });
    for p in log {
        if p.run != stage {
            (offset, stage) = (before, &p.run);
        }
        before = offset + p.stats.step;
        series[0].points.push((before as f64, p.stats.loss));
        series[1].points.extend(p.held_out.map(|h| (before as f64, h)));
    }
    let y = "nats a token".into();
    Chart { title: "Cross-entropy".into(), x: "step".into(), y, log: true, series: series.to_vec() }
}

/// All log lines of the run, in order; of a step logged twice (before and after a resume) the later line.
fn read_log(prepared: &Prepared) -> Result<Vec<Progress>> {
    let mut out: Vec<Progress> = Vec::new();
    for stage in &prepared.run.stages {
        let path = prepared.run.folder.join(&stage.name).join("log.jsonl");
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for line in text.lines() {
            let progress: Progress = serde_json::from_str(line).map_err(|e| Error::Corrupt {
                path: path.clone(),
                reason: e.to_string(),
                hint: "delete the line",
            })?;
            while out.last().is_some_and(|p| p.run == progress.run && p.stats.step >= progress.stats.step) {
                out.pop();
            }
            out.push(progress);
        }
    }
    Ok(out)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(Error::io(path))
}
