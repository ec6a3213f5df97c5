//! `cipherlm embed`: vectors of sentences.

use crate::console::{out_json, say};
use crate::model::load;
use crate::options::{ModelOption, count};
use crate::outputs::Outputs;
use crate::sentence::{LENGTH, ensure_embeds, vectors};
use crate::system::machine;
use anyhow::{Context, bail};
use cipherlm_files::{Access, shown};
use cipherlm_model::Mode;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Longest text that is read, in bytes.
const TEXT_BYTES: u64 = 1 << 30;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    model: ModelOption,
    /// Sentences, one a line.
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Tokens that a sentence is cut to.
    #[arg(long, default_value_t = LENGTH, value_parser = count(3..=1 << 20))]
    length: usize,
    /// The certified polynomials instead of the exact functions: what runs under encryption.
    #[arg(long)]
    polynomial: bool,
    /// Also write the result as JSON here (`--json FILE` does the same); replaces what is there.
    #[arg(long, value_name = "FILE")]
    json_file: Option<PathBuf>,
}

/// One vector a line.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    let mut outputs = Outputs::default();
    outputs.input("--text", &options.text)?;
    let report = outputs.report("--json-file", options.json_file.as_deref())?;
    let loaded = load(options.model.get())?;
    ensure_embeds(&loaded, "embed")?;
    let text = cipherlm_files::read_text(&options.text, TEXT_BYTES).context("--text")?;
    let lines: Vec<&str> = text.lines().collect();
    if lines.is_empty() {
        bail!("{} holds no sentence", shown(&options.text));
    }
    let mode = if options.polynomial { Mode::Polynomial } else { Mode::Exact };
    let clock = Instant::now();
    let vectors = vectors(&loaded, mode, &lines, options.length)?;
    let seconds = clock.elapsed().as_secs_f64();
    let value = json!({
        "model": loaded.model.spec().name,
        "vectors": vectors,
        "seconds": seconds,
        "machine": machine(),
        "run": "clear",
        "functions": if options.polynomial { "polynomial" } else { "exact" },
    });
    if as_json {
        out_json(&value);
    } else {
        let width = loaded.model.shape().d_model;
        say!("{} vectors of {width} values in {seconds:.2} s, clear text ({})", vectors.len(), machine());
        if report.is_none() {
            for (line, vector) in lines.iter().zip(&vectors) {
                let first: Vec<String> = vector.iter().take(4).map(|x| format!("{x:>8.4}")).collect();
                say!("{} …  {line}", first.join(" "));
            }
        }
    }
    if let Some(report) = report {
        report.write(format!("{value}\n").as_bytes(), Access::Everyone)?;
    }
    Ok(true)
}
