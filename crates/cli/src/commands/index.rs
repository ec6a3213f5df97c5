//! `cipherlm index`: documents made ready for a search, on the server.

use crate::console::{out_json, say};
use crate::library::Library;
use crate::options::{ModelOption, count};
use crate::outputs::Outputs;
use crate::sentence::{LENGTH, ensure_embeds};
use crate::system::machine;
use anyhow::{Context, bail};
use cipherlm_files::{Existing, shown};
use cipherlm_model::{Mode, ensure_certified};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Longest text that is read, in bytes.
const TEXT_BYTES: u64 = 1 << 30;

#[derive(Args)]
pub(crate) struct Options {
    /// Documents, one a line: `id TAB text`, or texts alone.
    documents: PathBuf,
    #[command(flatten)]
    model: ModelOption,
    /// Folder to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Tokens that a document is cut to.
    #[arg(long, default_value_t = LENGTH, value_parser = count(3..=1 << 20))]
    length: usize,
    /// Exact functions, although the model has polynomials: for searches in the clear.
    #[arg(long)]
    exact: bool,
    /// Write into --out although something is there.
    #[arg(long)]
    force: bool,
}

/// Vectors of all documents. A certified model makes them by its polynomials, as an encrypted query
/// is made.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    let mut outputs = Outputs::default();
    outputs.input("the documents", &options.documents)?;
    let existing = if options.force { Existing::Replace } else { Existing::Refuse };
    outputs.folder("--out", &options.out, existing)?;
    let loaded = options.model.load()?;
    ensure_embeds(&loaded, "index")?;
    let text = cipherlm_files::read_text(&options.documents, TEXT_BYTES)?;
    if text.lines().next().is_none() {
        bail!("{} holds no document", shown(&options.documents));
    }
    let polynomial = !options.exact && ensure_certified(&loaded.model).is_ok();
    let mode = if polynomial { Mode::Polynomial } else { Mode::Exact };
    let clock = Instant::now();
    let library = Library::build(&loaded, mode, &text, options.length)?;
    library.save(&options.out).context("--out")?;
    let seconds = clock.elapsed().as_secs_f64();
    let (count, functions) = (library.documents.len(), if polynomial { "polynomial" } else { "exact" });
    if as_json {
        out_json(&json!({
            "model": library.model,
            "documents": count,
            "functions": functions,
            "length": options.length,
            "seconds": seconds,
            "machine": machine(),
        }));
    } else {
        say!("{count} documents by {functions} functions in {seconds:.1} s ({})", machine());
        say!(
            "index in {}; next: cipherlm search --index {} --query TEXT",
            shown(&options.out),
            shown(&options.out)
        );
    }
    Ok(true)
}
