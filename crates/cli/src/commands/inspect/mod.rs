//! `cipherlm inspect`: what a file or folder is, and whether it is whole.

mod json;
mod objects;
mod tensors;

use crate::console::{out_json, say};
use crate::library::Library;
use anyhow::bail;
use cipherlm_ckks::wire::MAGIC;
use cipherlm_files::{printable, shown};
use cipherlm_infer::{KeyFolder, SECRET_FILE, SERVER_FOLDER};
use cipherlm_model::{TOKENIZER_FILE, Tokenizer, difference};
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(crate) struct Options {
    /// A folder with a model, keys or a public checkpoint, or a key, ciphertext, plan or checkpoint
    /// file.
    path: PathBuf,
}

/// Bytes that tell what a file is.
const HEAD: u64 = 1024;

/// Prints what stands at the path. False for one of ours that is damaged or incomplete.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    let facts = if options.path.is_dir() { folder(&options.path)? } else { file(&options.path)? };
    if as_json {
        out_json(&facts);
    } else if let Value::Object(map) = &facts {
        for (name, value) in map.iter().filter(|(_, value)| !value.is_null()) {
            // On one line, or a name could pass for a fact.
            match value {
                Value::String(text) => say!("{name:<20} {}", printable(text)),
                other => say!("{name:<20} {}", printable(&other.to_string())),
            }
        }
    }
    Ok(facts["whole"] != false)
}

fn folder(path: &Path) -> anyhow::Result<Value> {
    if let Some((keys, complete)) = KeyFolder::find(path)? {
        return key_folder(path, &keys, complete);
    }
    let steps = with_extension(path, "step");
    if !steps.is_empty() {
        let whole = |file: &&PathBuf| {
            objects::facts(file, "", CHECKPOINT_HEAD).is_ok_and(|facts| facts["whole"] == true)
        };
        let damaged = steps.len() - steps.iter().filter(whole).count();
        let what = "checkpoints of encrypted runs";
        return Ok(json!({"what": what, "steps": steps.len(), "damaged": damaged, "whole": damaged == 0}));
    }
    if Library::is_at(path) {
        return Ok(index_folder(path));
    }
    if !["model.json", "weights.safetensors", "difference.safetensors"]
        .iter()
        .any(|name| path.join(name).exists())
    {
        return match super::import::checkpoint_folder(path) {
            Some(facts) => Ok(facts),
            None => bail!("{} is a folder, but not one with a model, keys or checkpoints", shown(path)),
        };
    }
    Ok(model_folder(path).unwrap_or_else(
        |error| json!({"what": "model folder", "whole": false, "reason": format!("{error:#}")}),
    ))
}

/// A client's folder, or a server's. Content of keys is checked when a run loads them; here, that
/// each is there and has its length.
fn key_folder(path: &Path, keys: &KeyFolder, complete: bool) -> anyhow::Result<Value> {
    let client = path.join(SECRET_FILE).exists();
    let files = with_extension(&if client { path.join(SERVER_FOLDER) } else { path.to_owned() }, "key");
    let short = files.iter().filter(|file| !objects::has_its_length(file)).count();
    let mut facts = serde_json::to_value(keys)?;
    let what = if client { "client's key folder: keep it" } else { "evaluation keys: for the server" };
    facts["what"] = what.into();
    facts["files"] = files.len().into();
    facts["damaged"] = short.into();
    // The folder `server` may have been moved away from the client's.
    let moved = client && files.is_empty();
    facts["whole"] = (complete && short == 0 && (moved || files.len() == keys.keys)).into();
    Ok(facts)
}

fn model_folder(path: &Path) -> anyhow::Result<Value> {
    let difference = difference::about(path)?;
    let model = match (difference::load(path), &difference) {
        (Err(error @ cipherlm_model::Error::NoBase { .. }), Some(about)) => {
            return Ok(without_base(about, &error));
        }
        (model, _) => model?,
    };
    let tokenizer = Tokenizer::load(&path.join(TOKENIZER_FILE))?;
    let shape = model.shape();
    let spec = model.spec();
    let violations: u64 = spec.sites.iter().map(|s| s.violations).sum();
    let checked: u64 = spec.sites.iter().map(|s| s.checked).sum();
    Ok(json!({
        "what": if difference.is_some() { DIFFERENCE } else { "model folder" },
        "whole": true,
        "name": spec.name,
        "base": difference.as_ref().map(|about| &about.base),
        "difference_bytes": difference.as_ref().map(|about| about.bytes),
        "layers": shape.layers,
        "width": shape.d_model,
        "heads": shape.heads,
        "vocab": shape.vocab,
        "tokens_of_tokenizer": tokenizer.vocab(),
        "context": shape.context,
        "function": shape.function(),
        "activation": format!("{:?}", shape.activation),
        "frozen_norms": shape.frozen_norms,
        "attention": format!("{:?}", shape.attention),
        "parameters": shape.parameters(),
        "weights_blake3": spec.weights_blake3,
        "certified_sites": spec.sites.len(),
        "polynomials": spec.sites.iter().filter(|s| s.scheme.is_some()).count(),
        "values_checked": checked,
        "violations": violations,
        "provenance": spec.provenance,
        "road": super::import::road(shape, Some(&model)),
        "next": super::import::next(shape, Some(&model)).trim_start_matches("next: "),
    }))
}

const DIFFERENCE: &str = "model folder: a difference from base weights";

/// A difference whose base is elsewhere: it is whole, and nothing runs without the other.
fn without_base(about: &difference::About, error: &cipherlm_model::Error) -> Value {
    json!({
        "what": DIFFERENCE,
        "whole": true,
        "base": about.base,
        "base_blake3": about.base_blake3,
        "difference_bytes": about.bytes,
        "tensors": about.tensors,
        "missing": error.to_string(),
        "next": about.fetch,
    })
}

/// Documents of a search.
fn index_folder(path: &Path) -> Value {
    let what = "index of documents: for the server";
    match Library::load(path) {
        Ok(library) => json!({
            "what": what,
            "whole": true,
            "documents": library.documents.len(),
            "model": library.model,
            "functions": if library.polynomial { "polynomial" } else { "exact" },
            "length": library.length,
            "next": format!("cipherlm search --index {} --query TEXT", shown(path)),
        }),
        Err(error) => json!({"what": what, "whole": false, "reason": format!("{error:#}")}),
    }
}

fn with_extension(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

/// Magic number, identity of a plan and four numbers, before the objects of an answer.
const ANSWER_HEAD: u64 = 8 + 32 + 4 * 4;
/// The same with the identity of a secret, before those of a prompt.
const PROMPT_HEAD: u64 = ANSWER_HEAD + 32;
/// Magic number, version, name, sizes and hash, before the objects of a checkpoint.
const CHECKPOINT_HEAD: u64 = 8 + 4 + 32 + 4 + 4 + 32;

fn file(path: &Path) -> anyhow::Result<Value> {
    let head = cipherlm_files::head(path, HEAD)?;
    let (what, skip) = match head.bytes.get(..8) {
        Some(b"cipherp2") => ("encrypted prompt", PROMPT_HEAD),
        Some(b"cipherl2") => ("encrypted answer", ANSWER_HEAD),
        Some(b"cipherp3") => ("encrypted prompts of one pass", PROMPT_HEAD + lengths(&head.bytes, 72)),
        Some(b"cipherl3") => ("encrypted answers of one pass", ANSWER_HEAD + lengths(&head.bytes, 40)),
        Some(b"cipherck") => ("checkpoint of a step", CHECKPOINT_HEAD),
        Some(start) if start.starts_with(&MAGIC) => ("", 0),
        Some(start) if start.starts_with(b"GGUF") => {
            return Ok(super::import::facts(path));
        }
        _ => {
            return match tensors::pointer(&head.bytes) {
                Some(facts) => Ok(facts),
                None if tensors::looks_like(&head.bytes) => tensors::facts(path),
                None => text(path, &head.bytes),
            };
        }
    };
    let plan = head.bytes.get(8..40).filter(|_| what.starts_with("encrypted")).map(String::from_utf8_lossy);
    let mut facts = objects::facts(path, what, skip)?;
    facts["bytes"] = head.length.into();
    facts["plan"] = plan.map(|p| p.trim_end().to_owned()).into();
    Ok(facts)
}

/// Bytes that the lengths of several prompts take beyond those of one: how many there are stands
/// before them, at `at`.
fn lengths(head: &[u8], at: usize) -> u64 {
    let count = head.get(at..).and_then(<[u8]>::first_chunk);
    4 * u64::from(count.map_or(0, |bytes| u32::from_le_bytes(*bytes)))
}

/// Only what begins like one of our texts is read.
fn text(path: &Path, head: &[u8]) -> anyhow::Result<Value> {
    let start = head.strip_prefix(&[0xef, 0xbb, 0xbf]).unwrap_or(head).trim_ascii_start();
    if !matches!(start.first(), Some(b'{' | b'[' | b'<')) {
        bail!("{} is none of our files", shown(path));
    }
    json::facts(path)
}
