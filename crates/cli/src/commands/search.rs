//! `cipherlm search`: the documents that answer a question best.

use crate::console::{out_json, say};
use crate::library::Library;
use crate::model::load;
use crate::options::count;
use crate::outputs::Outputs;
use crate::sentence::{dot, ensure_embeds, vectors};
use crate::system::machine;
use anyhow::{Context, bail};
use cipherlm_files::Access;
use cipherlm_model::Mode;
use clap::Args;
use serde_json::json;
use std::io::stdin;
use std::path::PathBuf;
use std::time::Instant;

/// Longest question, in bytes.
const QUERY_BYTES: u64 = 1 << 20;

#[derive(Args)]
pub(crate) struct Options {
    /// The folder that `cipherlm index` made.
    #[arg(long, value_name = "DIR")]
    index: PathBuf,
    /// The question; `-` reads it from standard input.
    #[arg(long, value_name = "TEXT")]
    query: String,
    /// Folder of the model that made the index, if it has moved.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// How many documents to show.
    #[arg(long, default_value = "10", value_parser = count(1..=1 << 20))]
    top: usize,
    /// Also write the result as JSON here (`--json FILE` does the same); replaces what is there.
    #[arg(long, value_name = "FILE")]
    json_file: Option<PathBuf>,
}

/// The best documents by the dot product of vectors.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    let mut outputs = Outputs::default();
    let report = outputs.report("--json-file", options.json_file.as_deref())?;
    let library = Library::load(&options.index).context("--index")?;
    let loaded = load(Some(options.model.as_deref().unwrap_or(&library.folder)))?;
    ensure_embeds(&loaded, "search")?;
    library.check(&loaded)?;
    let query = match options.query.as_str() {
        "-" => {
            cipherlm_files::read_text_from(stdin().lock(), "standard input", QUERY_BYTES)?.trim().to_owned()
        }
        text => text.to_owned(),
    };
    if query.is_empty() {
        bail!("the question is empty: pass some text");
    }
    let mode = if library.polynomial { Mode::Polynomial } else { Mode::Exact };
    let clock = Instant::now();
    let vector = vectors(&loaded, mode, &[&query], library.length)?.concat();
    let scores: Vec<f64> = library.vectors().map(|document| dot(&vector, document)).collect();
    let best = library.best(&scores, options.top);
    let seconds = clock.elapsed().as_secs_f64();
    let result = |(place, (at, score)): (usize, &(usize, f64))| {
        let document = &library.documents[*at];
        json!({"place": place + 1, "id": document.id, "score": score, "text": document.text})
    };
    let value = json!({
        "model": library.model,
        "documents": library.documents.len(),
        "run": "clear",
        "results": best.iter().enumerate().map(result).collect::<Vec<_>>(),
        "seconds": seconds,
        "machine": machine(),
    });
    if as_json {
        out_json(&value);
    } else {
        let functions = if library.polynomial { "polynomial" } else { "exact" };
        say!("{} documents, {functions} functions, clear text, {seconds:.2} s", library.documents.len());
        for (at, score) in &best {
            let document = &library.documents[*at];
            say!("{score:>8.4}  {:<10} {}", document.id, document.text);
        }
    }
    if let Some(report) = report {
        report.write(format!("{value}\n").as_bytes(), Access::Everyone)?;
    }
    Ok(true)
}
