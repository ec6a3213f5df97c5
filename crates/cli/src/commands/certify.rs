//! `cipherlm certify`: ranges from one text, checked on another, and the polynomials that fit them.

use crate::console::{err, out_json, say, warn};
use crate::model::{Loaded, Windows};
use crate::options::{ModelOption, count, margin, tolerance};
use crate::outputs::Outputs;
use anyhow::{Context, bail};
use cipherlm_files::{Existing, create_folder, shown};
use cipherlm_model::{FitOptions, Margins, Model, OutOfRange, TOKENIZER_FILE, out_of_range};
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Windows of each text below which ranges say little.
const FEW: usize = 64;
/// Confidence of the bounds on rates.
const CONFIDENCE: f64 = 0.95;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    model: ModelOption,
    /// Text that the ranges are found on.
    #[arg(long, value_name = "FILE")]
    calibration: PathBuf,
    /// Text that they are checked on, another one.
    #[arg(long, value_name = "FILE")]
    held_out: PathBuf,
    /// Windows of the calibration text, spread evenly over all of it.
    #[arg(long, default_value = "1024", value_parser = count(1..=1 << 32))]
    windows: usize,
    /// Windows of the held-out text (default: 800, or --windows if that is fewer).
    #[arg(long, value_parser = count(1..=1 << 32))]
    held_out_windows: Option<usize>,
    /// Text of another kind, to count how often it leaves the ranges. May be repeated.
    #[arg(long, value_name = "FILE")]
    other: Vec<PathBuf>,
    /// Windows of each --other text at most.
    #[arg(long, default_value = "256", value_parser = count(1..=1 << 32))]
    other_windows: usize,
    /// Freeze the denominator's constant per layer, head and row at (largest mean) / RATIO first.
    #[arg(long, value_name = "RATIO", value_parser = margin)]
    freeze: Option<f64>,
    #[command(flatten)]
    margins: MarginOptions,
    #[command(flatten)]
    fit: FitFlags,
    /// Where to write the certified model (default: do not write).
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write into --out although something is there.
    #[arg(long)]
    force: bool,
}

/// Factors by which ranges are wider than what the calibration text shows.
#[derive(Args)]
struct MarginOptions {
    /// Widen the upper end of attention denominators by this factor.
    #[arg(long, default_value = "3", value_name = "FACTOR", value_parser = margin)]
    margin_denominator: f64,
    /// Widen both ends of variances by this factor.
    #[arg(long, default_value = "1.3", value_name = "FACTOR", value_parser = margin)]
    margin_variance: f64,
    /// Widen inputs of activations by this factor.
    #[arg(long, default_value = "1.15", value_name = "FACTOR", value_parser = margin)]
    margin_activation: f64,
    /// Widen all other magnitudes by this factor.
    #[arg(long, default_value = "1.5", value_name = "FACTOR", value_parser = margin)]
    margin_magnitude: f64,
}

/// What polynomials have to reach. A looser target may take a lower degree, and so fewer levels.
#[derive(Args)]
struct FitFlags {
    /// Relative error of reciprocals.
    #[arg(long, default_value = "1e-4", value_name = "ERROR", value_parser = tolerance)]
    error_reciprocal: f64,
    /// Relative error of inverse square roots.
    #[arg(long, default_value = "1e-4", value_name = "ERROR", value_parser = tolerance)]
    error_inv_sqrt: f64,
    /// Absolute error of activations.
    #[arg(long, default_value = "1e-3", value_name = "ERROR", value_parser = tolerance)]
    error_activation: f64,
    /// Largest degree.
    #[arg(long, default_value = "255", value_name = "DEGREE", value_parser = count(3..=4095))]
    max_degree: usize,
}

/// Ranges, check, polynomials.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    if let Some(out) = &options.out {
        let existing = if options.force { Existing::Replace } else { Existing::Refuse };
        Outputs::default().folder("--out", out, existing)?;
    }
    ensure_two_texts(&options.calibration, &options.held_out)?;
    let loaded = options.model.load()?;
    let length = loaded.room();
    let held_out_windows = options.held_out_windows.unwrap_or(options.windows.min(800));
    let calibration =
        loaded.spread_windows(&options.calibration, length, options.windows).context("--calibration")?;
    let held_out =
        loaded.spread_windows(&options.held_out, length, held_out_windows).context("--held-out")?;
    let shared = shared(&calibration, &held_out);
    if shared == held_out_windows {
        bail!("--held-out: {} stands in the calibration text: use another text", shown(&options.held_out));
    }
    if shared > 0 {
        warn(&format!(
            "{shared} of {held_out_windows} held-out windows stand in the calibration text as well"
        ));
    }
    let other: Vec<Windows> = options
        .other
        .iter()
        .map(|file| loaded.windows_at_most(file, length, options.other_windows).context("--other"))
        .collect::<Result<_, _>>()?;
    let model = certified(options, &loaded, &calibration, &held_out)?;
    let others: Vec<OutOfRange> =
        other.iter().map(|text| out_of_range(&model, &text.windows)).collect::<Result<_, _>>()?;
    let violations: u64 = model.spec().sites.iter().map(|site| site.violations).sum();
    if as_json {
        let read = |text: &Windows| {
            let (windows, tokens) = (text.windows.len(), text.tokens);
            json!({"windows": windows, "window": length, "tokens_in_text": tokens})
        };
        out_json(&json!({
            "model": model.spec().name,
            "calibration": read(&calibration),
            "held_out": read(&held_out),
            "violations": violations,
            "other": options.other.iter().zip(&others).map(rates).collect::<Vec<_>>(),
            "sites": model.spec().sites,
        }));
    } else {
        print(&model, length, [("calibration", &calibration), ("held out", &held_out)]);
        print_others(&options.other, &others);
    }
    if violations > 0 {
        if !as_json {
            err(&format!(
                "{violations} values of the held-out text leave their ranges: nothing written; use more \
                 calibration text, or widen the --margin-… of the sites above"
            ));
        }
        return Ok(false);
    }
    if let Some(out) = &options.out {
        create_folder(out).context("--out")?;
        model.save(out).context("--out")?;
        loaded.tokenizer.save(&out.join(TOKENIZER_FILE)).context("--out")?;
        if !as_json {
            err(&format!("wrote {}", shown(out)));
        }
    }
    Ok(true)
}

/// Ranges that are found and checked on one text say nothing about another.
fn ensure_two_texts(calibration: &Path, held_out: &Path) -> anyhow::Result<()> {
    let real = |option: &'static str, path: &Path| {
        std::fs::canonicalize(path).with_context(|| format!("{option} {}", shown(path)))
    };
    if real("--calibration", calibration)? == real("--held-out", held_out)? {
        bail!(
            "--calibration and --held-out are one file, {}: what is checked on the text that it was made \
             from proves nothing",
            shown(calibration)
        );
    }
    Ok(())
}

/// Number of held-out windows that are calibration windows too.
fn shared(calibration: &Windows, held_out: &Windows) -> usize {
    let known: std::collections::BTreeSet<&[u32]> = calibration.windows.iter().map(Vec::as_slice).collect();
    held_out.windows.iter().filter(|window| known.contains(window.as_slice())).count()
}

fn certified(
    options: &Options,
    loaded: &Loaded,
    calibration: &Windows,
    held_out: &Windows,
) -> anyhow::Result<Model> {
    let (m, f) = (&options.margins, &options.fit);
    let margins = Margins {
        denominator: m.margin_denominator,
        variance: m.margin_variance,
        activation: m.margin_activation,
        magnitude: m.margin_magnitude,
    };
    let fit = FitOptions {
        reciprocal: f.error_reciprocal,
        inv_sqrt: f.error_inv_sqrt,
        activation: f.error_activation,
        max_degree: f.max_degree,
    };
    let mut model = match options.freeze {
        Some(ratio) => cipherlm_model::freeze_eps(
            &loaded.model,
            &calibration.windows,
            cipherlm_model::Freezing::at(ratio),
        )?,
        None => loaded.model.clone(),
    };
    cipherlm_model::certify(&mut model, &calibration.windows, &held_out.windows, &margins)?;
    cipherlm_model::fit(&mut model, &fit)?;
    Ok(model)
}

/// Rates of one text, with the upper end of a one-sided 95 % confidence interval.
fn rates((file, seen): (&PathBuf, &OutOfRange)) -> Value {
    json!({
        "text": shown(file),
        "windows": seen.windows,
        "windows_outside": seen.windows_outside,
        "rate": seen.windows_outside as f64 / seen.windows as f64,
        "rate_at_most": seen.bound(CONFIDENCE),
        "values": seen.values,
        "values_outside": seen.values_outside,
        "worst_site": seen.worst,
    })
}

fn print_others(files: &[PathBuf], others: &[OutOfRange]) {
    for (at, (file, seen)) in files.iter().zip(others).enumerate() {
        if at == 0 {
            say!(
                "\n{:<28} {:>22} {:>14} {:>20}",
                "other text",
                "windows outside",
                "95 % bound",
                "values outside"
            );
        }
        let rate = 100.0 * seen.windows_outside as f64 / seen.windows as f64;
        let values =
            format!("{} ({:.1e})", seen.values_outside, seen.values_outside as f64 / seen.values as f64);
        say!(
            "{:<28} {:>22} {:>14} {:>20}  {}",
            file.file_name().unwrap_or_default().to_string_lossy(),
            format!("{} of {} ({rate:.2} %)", seen.windows_outside, seen.windows),
            format!("{:.2} %", 100.0 * seen.bound(CONFIDENCE)),
            values,
            seen.worst.as_deref().map_or_else(String::new, |site| format!("most at {site}"))
        );
    }
}

fn print(model: &Model, length: usize, texts: [(&str, &Windows); 2]) {
    for (name, text) in texts {
        let (windows, tokens) = (text.windows.len(), text.tokens);
        let share = 100.0 * (windows * length) as f64 / tokens as f64;
        say!(
            "{name:<12} {windows} windows of {length} tokens, spread over {tokens} tokens ({share:.1} % of \
             the text)"
        );
        if windows < FEW {
            say!("{:<12} few: rare values are not seen; use at least {FEW} windows", "");
        }
    }
    say!(
        "\n{:<24} {:<12} {:>26} {:>26} {:>7} {:>10}",
        "site",
        "function",
        "observed",
        "certified",
        "degree",
        "violations"
    );
    for site in &model.spec().sites {
        say!(
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
