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
        out_json(&facts(&checkpoint));
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

/// What `cipherlm inspect` says of a public checkpoint.
pub(super) fn facts(checkpoint: &Checkpoint) -> Value {
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
        "next": "cipherlm import SOURCE --out DIR",
    })
}

/// The next step on the road from a checkpoint to an encrypted answer.
pub(super) fn next(shape: &Shape, model: Option<&Model>) -> String {
    match shape.attention {
        Attention::Softmax => {
            return "next: convert its softmax attention to PowerSoftmax by training".into();
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
