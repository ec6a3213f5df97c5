//! The model card: everything a reader of a shipped model should know, written from the run's own
//! files.

use std::fmt::Write;
use std::path::Path;

use burn::tensor::Device;
use cipherlm_model::Kind;

use crate::checkpoint::{Weighed, write};
use crate::curves::{Chart, Series};
use crate::error::Result;
use crate::eval::word_perplexity;
use crate::export::{Comparison, Perplexities};
use crate::generate::{Sampling, generate};
use crate::journal::{Progress, steps};
use crate::prepared::{Prepared, Shipped};
use crate::settings::TrainConfig;
use crate::transformer::Transformer;

/// Writes a complete model folder: the certified model, its tokenizer, the run, `README.md` and
/// `curves.svg`. Of a run with a difference it holds no weights: [`Prepared::write_difference`] has
/// put the difference there.
pub fn write_folder(prepared: &Prepared, shipped: &Shipped, trained: &Weighed, folder: &Path) -> Result<()> {
    match prepared.run.difference {
        Some(_) => shipped.model.save_description(folder)?,
        None => shipped.model.save(folder)?,
    }
    let run = serde_json::to_string_pretty(&prepared.run)? + "\n";
    write(&folder.join("run.json"), run.as_bytes())?;
    prepared.tokenizer.save(&folder.join(cipherlm_model::TOKENIZER_FILE))?;
    let log = read_log(prepared)?;
    write(&folder.join("curves.svg"), curves(&log).svg().as_bytes())?;
    write(&folder.join("README.md"), card(prepared, shipped, trained, &log)?.as_bytes())
}

fn card(prepared: &Prepared, shipped: &Shipped, trained: &Weighed, log: &[Progress]) -> Result<String> {
    let run = &prepared.run;
    let shape = &trained.0.shape;
    let mut out = format!("# {}\n\n", run.name);
    for (key, value) in &run.about {
        let _ = writeln!(out, "- **{key}**: {value}");
    }
    let _ = writeln!(
        out,
        "- **shape**: {} layers, width {}, {} heads of {}, feed-forward {}, context {}, vocabulary {}, {} \
         parameters\n- **attention**: `{}`\n",
        shape.layers,
        shape.d_model,
        shape.heads,
        shape.head_dim,
        shape.ffn,
        shape.context,
        shape.vocab,
        shape.parameters(),
        serde_json::to_string(&shape.attention).unwrap_or_default(),
    );
    if let Some(text) = &run.public_prefix {
        let (text, count) = (serde_json::to_string(text)?, trained.0.prefix.len());
        let _ = writeln!(
            out,
            "Every text stands behind the public prefix {text}, {count} tokens that the server computes in \
             the clear. All figures are of text behind it.\n"
        );
    }
    training(&mut out, prepared, log);
    figures(&mut out, prepared, shipped);
    ranges(&mut out, shipped);
    if shape.kind != Kind::Decoder {
        return Ok(out);
    }
    let _ =
        writeln!(out, "\n## What it writes\n\nTemperature 0.6, the 40 most likely tokens, seeds 0 to 2.\n");
    for story in samples(prepared, trained)? {
        let _ = writeln!(out, "> {}\n", story.trim().replace('\n', "\n> "));
    }
    Ok(out)
}

fn training(out: &mut String, prepared: &Prepared, log: &[Progress]) {
    out.push_str("## Training\n\nMade from `run.json` beside this file.\n\n");
    out.push_str(
        "| stage | seed | steps | tokens or sentences | peak rate | held-out loss at its end \
         |\n|---|---|---|---|---|---|\n",
    );
    let arch = &prepared.arch;
    let seen = |t: &TrainConfig| match arch.shape.kind {
        Kind::Decoder => t.tokens_per_step(arch),
        _ => t.batch * t.accumulation,
    };
    for stage in &prepared.run.stages {
        let t = &stage.train;
        let last = log.iter().filter(|p| p.run == stage.name).filter_map(|p| p.held_out).next_back();
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {:.0e} | {} |",
            stage.name,
            t.seed,
            t.steps,
            t.steps * seen(t),
            t.schedule.peak,
            last.map_or("-".into(), |h| format!("{h:.4}"))
        );
    }
}

fn figures(out: &mut String, prepared: &Prepared, shipped: &Shipped) {
    out.push_str("\n![curves](curves.svg)\n\n");
    match &shipped.comparison {
        Comparison::Continuation(c) => perplexities(out, prepared, shipped.held_out, c),
        Comparison::Vectors(c) => {
            let windows = prepared.run.export.held_out_windows;
            let _ = writeln!(
                out,
                "## Distance of sentence vectors\n\nOne minus the cosine, held-out sentences.\n\n\
                 | | sentences | mean | largest |\n|---|---|---|---|\n\
                 | exact from the model that it starts from, f32 | {windows} | {:.5} | |\n\
                 | polynomial from exact, f64 | {} | {:.2e} | {:.2e} |\n",
                shipped.held_out, c.sentences, c.mean, c.largest
            );
        }
    }
}

fn perplexities(out: &mut String, prepared: &Prepared, nats: f64, c: &Perplexities) {
    out.push_str("## Perplexity on held-out text\n\n| | per token | per word |\n|---|---|---|\n");
    let windows = prepared.run.export.held_out_windows;
    let word = |p: f64| word_perplexity(p.ln(), &prepared.held_out);
    let exact = nats.exp();
    let _ = writeln!(out, "| exact, f32, {windows} windows | {exact:.4} | {:.2} |", word(exact));
    let _ = writeln!(out, "| exact, f64, {} tokens | {:.4} | {:.2} |", c.tokens, c.exact, word(c.exact));
    let _ =
        writeln!(out, "| polynomial, f64, the same | {:.4} | {:.2} |\n", c.polynomial, word(c.polynomial));
    let _ = writeln!(
        out,
        "Polynomial over exact: {:.6}; the same most likely token at {:.3} % of positions.\n",
        c.polynomial / c.exact,
        100.0 * c.same_top1
    );
}

fn ranges(out: &mut String, shipped: &Shipped) {
    out.push_str(
        "## Certified ranges\n\nFrom training text, widened by the margin, then checked on held-out \
         text.\n\n",
    );
    out.push_str(
        "| site | range | margin | degree | values checked | outside |\n|---|---|---|---|---|---|\n",
    );
    for site in &shipped.model.spec().sites {
        let degree = site.scheme.as_ref().map_or("-".into(), |s| (s.coefficients.len() - 1).to_string());
        let _ = writeln!(
            out,
            "| {} | {:.4} … {:.4} | {} | {degree} | {} | {} |",
            site.name, site.range.lo, site.range.hi, site.margin, site.checked, site.violations
        );
    }
}

/// Three continuations of the opening that the run names.
fn samples(prepared: &Prepared, (arch, params): &Weighed) -> Result<Vec<String>> {
    let model = Transformer::with_params(arch, params, &Device::flex())?;
    let prompt = prepared.run.prompt.as_str();
    let tokens = prepared.tokenizer.encode(prompt)?;
    (0..3)
        .map(|seed| {
            let how = Sampling { temperature: 0.6, top_k: 40, vocab: prepared.tokenizer.vocab(), seed };
            let new = generate(&model, &tokens, 160, prepared.tokenizer.ends(), how)?;
            Ok(format!("**{prompt}**{}", prepared.tokenizer.decode_continuation(&tokens, &new)?))
        })
        .collect()
}

/// Loss over steps, all stages behind each other.
fn curves(log: &[Progress]) -> Chart {
    let (mut before, mut offset, mut stage) = (0, 0, "");
    let mut series = ["training", "held out"].map(|name| Series { name: name.into(), points: Vec::new() });
    for p in log.iter().filter(|p| !p.run.contains('/')) {
        if p.run != stage {
            (offset, stage) = (before, &p.run);
        }
        before = offset + p.stats.step;
        series[0].points.push((before as f64, p.stats.loss));
        series[1].points.extend(p.held_out.map(|h| (before as f64, h)));
    }
    let y = "nats a token, or distance".into();
    Chart { title: "Loss".into(), x: "step".into(), y, log: true, series: series.to_vec() }
}

/// All steps in the logs of the run's stages.
fn read_log(prepared: &Prepared) -> Result<Vec<Progress>> {
    let mut out = Vec::new();
    for stage in &prepared.run.stages {
        out.extend(steps(&prepared.run.stage_folder(stage).join("log.jsonl"))?);
    }
    Ok(out)
}
