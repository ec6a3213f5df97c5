//! `cipherlm import`: a public checkpoint as a model folder.

use crate::console::{out_json, say};
use anyhow::{Context, bail};
use cipherlm_files::{printable, shown};
use cipherlm_model::import::Checkpoint;
use cipherlm_model::{Attention, Eps, MODEL_FILE, Model, Shape, Tokenizer};
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(crate) struct Options {
    /// A folder with `config.json` and safetensors, or a GGUF or llama2.c file.
    source: PathBuf,
    /// Folder to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Tokenizer of a source that has none: `tokenizer.json`, `vocab.txt` or llama2.c's `.bin`.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
}

/// Reads the source's headers, then writes the folder.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    if options.out.join(MODEL_FILE).exists() {
        bail!("{} holds a model already: choose another folder", shown(&options.out));
    }
    let mut checkpoint = Checkpoint::open(&options.source)?;
    if let Some(path) = &options.tokenizer {
        checkpoint = checkpoint.with_tokenizer(tokenizer(path)?)?;
    }
    if checkpoint.tokenizer().is_none() {
        bail!("{} has no tokenizer: pass one with --tokenizer", shown(&options.source));
    }
    checkpoint.save(&options.out)?;
    if as_json {
        let mut facts = summary(&checkpoint);
        facts["next"] = next(checkpoint.shape(), None).into();
        out_json(&facts);
        return Ok(true);
    }
    let shape = checkpoint.shape();
    say!(
        "{}: {} layers x {}, {} heads over {} key heads, {} parameters, vocabulary {}, context {}",
        checkpoint.family(),
        shape.layers,
        shape.d_model,
        shape.heads,
        shape.key_heads(),
        shape.parameters(),
        shape.vocab,
        shape.context
    );
    for name in checkpoint.left_out() {
        say!("left out: {}", printable(name));
    }
    say!("model in {}; {}", shown(&options.out), next(shape, None));
    Ok(true)
}

fn tokenizer(path: &Path) -> anyhow::Result<Tokenizer> {
    let at = || format!("loading {}", shown(path));
    let ends = |end: &str| path.extension().is_some_and(|e| e == end);
    if ends("bin") {
        let bytes = cipherlm_files::read(path, 1 << 28)?;
        return Tokenizer::from_llama2c(&bytes).with_context(at);
    }
    if ends("txt") {
        return Tokenizer::from_word_pieces(&cipherlm_files::read_text(path, 1 << 28)?, true)
            .with_context(at);
    }
    Tokenizer::load(path).with_context(at)
}

/// What `cipherlm inspect` says of a folder that may be a public checkpoint; `None` of any other.
pub(super) fn checkpoint_folder(path: &Path) -> Option<Value> {
    if path.join("config.json").exists() {
        return Some(facts(path));
    }
    let entries = std::fs::read_dir(path).ok()?.flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = entries
        .filter(|file| {
            file.extension().is_some_and(|e| ["gguf", "safetensors", "bin"].iter().any(|k| e == *k))
        })
        .collect();
    found.sort();
    let file = found.first()?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    if file.extension().is_some_and(|e| e == "safetensors") || name == "pytorch_model.bin" {
        return Some(json!({
            "what": "folder with weights",
            "whole": false,
            "missing": "config.json, which describes them",
            "next": "add config.json and tokenizer.json of the same model, then cipherlm import",
        }));
    }
    Some(json!({
        "what": "folder with checkpoint files",
        "files": found.iter().map(|f| shown(f)).collect::<Vec<_>>(),
        "next": format!("cipherlm inspect {}", shown(file)),
    }))
}

/// What `cipherlm inspect` says of a public checkpoint.
pub(super) fn facts(path: &Path) -> Value {
    let checkpoint = match Checkpoint::open(path) {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            return json!({
                "what": "public checkpoint that cannot be imported",
                "whole": false,
                "reason": error.to_string(),
            });
        }
    };
    let mut facts = summary(&checkpoint);
    facts["road"] = road(checkpoint.shape(), None);
    facts["missing"] = match checkpoint.tokenizer() {
        Some(_) => Value::Null,
        None => "a tokenizer: pass one with --tokenizer".into(),
    };
    facts["next"] = format!("cipherlm import {} --out DIR", shown(path)).into();
    facts
}

fn summary(checkpoint: &Checkpoint) -> Value {
    let shape = checkpoint.shape();
    json!({
        "what": format!("public checkpoint ({})", checkpoint.family()),
        "layers": shape.layers,
        "width": shape.d_model,
        "heads": shape.heads,
        "key_heads": shape.key_heads(),
        "vocab": shape.vocab,
        "context": shape.context,
        "parameters": shape.parameters(),
        "tokenizer": checkpoint.tokenizer().map(Tokenizer::vocab),
        "left_out": checkpoint.left_out(),
    })
}

/// The steps from a checkpoint to an encrypted answer, and which are done.
pub(super) fn road(shape: &Shape, model: Option<&Model>) -> Value {
    let power = matches!(shape.attention, Attention::PowerSoftmax { .. });
    let certified = power && model.is_some_and(|m| cipherlm_model::ensure_certified(m).is_ok());
    let steps = [("import", model.is_some()), ("convert", power), ("certify", certified)];
    let done = |(name, done): (&str, bool)| format!("{name} {}", if done { "done" } else { "open" });
    steps.map(done).join(", ").into()
}

/// The next step on the road from a checkpoint to an encrypted answer.
pub(super) fn next(shape: &Shape, model: Option<&Model>) -> String {
    match shape.attention {
        Attention::Softmax => {
            return "next: cipherlm convert, which trains PowerSoftmax in the place of its softmax".into();
        }
        Attention::Pointwise { .. } => {
            return "next: train with PowerSoftmax; this attention has no plan".into();
        }
        Attention::PowerSoftmax { eps: Eps::Frozen, .. } => {}
        Attention::PowerSoftmax { .. } => {
            return "next: cipherlm certify, with --freeze for its constants".into();
        }
    }
    if let Some(refusal) = model.and_then(|m| cipherlm_model::ensure_certified(m).err()) {
        return format!("next: cipherlm certify ({refusal})");
    }
    "certified; next: cipherlm plan".into()
}
