//! `cipherlm inspect`: what a file or folder is, and whether it is whole.

use crate::flags;
use crate::party::NOTE;
use anyhow::{Context, bail};
use cipherlm_ckks::wire::{HEADER_BYTES, Header, MAGIC};
use cipherlm_infer::KeyFolder;
use cipherlm_model::Model;
use serde_json::{Value, json};
use std::path::Path;

/// Prints what stands at the path. False for one of ours that is damaged or incomplete.
pub(crate) fn run(args: &flags::Inspect, as_json: bool) -> anyhow::Result<bool> {
    let facts = if args.path.is_dir() { folder(&args.path)? } else { file(&args.path)? };
    if as_json {
        println!("{facts}");
    } else if let Value::Object(map) = &facts {
        for (name, value) in map.iter().filter(|(_, value)| !value.is_null()) {
            match value {
                Value::String(text) => println!("{name:<20} {text}"),
                other => println!("{name:<20} {other}"),
            }
        }
    }
    Ok(facts["whole"] != false)
}

fn folder(path: &Path) -> anyhow::Result<Value> {
    if let Some((keys, complete)) = KeyFolder::find(path)? {
        let client = path.join("secret.key").exists();
        let mut facts = serde_json::to_value(&keys)?;
        let what = if client { "client's key folder: keep it" } else { "evaluation keys: for the server" };
        facts["what"] = what.into();
        facts["whole"] = complete.into();
        return Ok(facts);
    }
    if count(path, "step") > 0 {
        return Ok(json!({"what": "checkpoints of encrypted runs", "steps": count(path, "step")}));
    }
    let model = Model::load(path)
        .with_context(|| format!("{} is a folder, but not one with a model, keys or checkpoints", path.display()))?;
    let shape = model.shape();
    let spec = model.spec();
    let violations: u64 = spec.sites.iter().map(|s| s.violations).sum();
    let checked: u64 = spec.sites.iter().map(|s| s.checked).sum();
    Ok(json!({
        "what": "model folder",
        "name": spec.name,
        "layers": shape.layers,
        "width": shape.d_model,
        "heads": shape.heads,
        "vocab": shape.vocab,
        "context": shape.context,
        "attention": format!("{:?}", shape.attention),
        "parameters": shape.parameters(),
        "weights_blake3": spec.weights_blake3,
        "certified_sites": spec.sites.len(),
        "polynomials": spec.sites.iter().filter(|s| s.scheme.is_some()).count(),
        "values_checked": checked,
        "violations": violations,
        "provenance": spec.provenance,
    }))
}

fn count(folder: &Path, extension: &str) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|e| e.path().extension().is_some_and(|found| found == extension)).count()
}

fn file(path: &Path) -> anyhow::Result<Value> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let (what, skip) = match bytes.get(..8) {
        Some(b"cipherpr") => ("encrypted prompt", 8 + 32),
        Some(b"cipherlo") => ("encrypted answer", 8 + 32),
        Some(b"cipherck") => ("checkpoint of a step", 8 + 32),
        Some(start) if start.starts_with(&MAGIC) => ("", 0),
        // safetensors: the length of a JSON header, then the header.
        Some(_) if bytes.get(8) == Some(&b'{') => {
            return Ok(
                json!({"what": "tensors (safetensors): weights or a training checkpoint", "bytes": bytes.len()}),
            );
        }
        _ => return text(path, &bytes),
    };
    let plan = bytes.get(8..40).filter(|_| what.starts_with("encrypted")).map(String::from_utf8_lossy);
    let mut facts = objects(what, bytes.get(skip..).unwrap_or_default());
    facts["bytes"] = bytes.len().into();
    facts["plan"] = plan.map(|p| p.trim_end().to_owned()).into();
    Ok(facts)
}

/// The objects in a row that a binary file holds.
fn objects(what: &str, mut rest: &[u8]) -> Value {
    let (mut count, mut whole, mut first) = (0, !rest.is_empty(), None);
    while whole && !rest.is_empty() {
        let header = Header::read(rest).ok();
        let length = header.and_then(|h| usize::try_from(h.body_length).ok());
        let body = length.and_then(|length| rest.get(HEADER_BYTES as usize..)?.split_at_checked(length));
        match (header, body) {
            (Some(header), Some((body, tail))) if header.matches(body) => {
                (count, rest, first) = (count + 1, tail, first.or(Some(header)));
            }
            _ => (whole, first) = (false, first.or(header)),
        }
    }
    let kind = match first.map(|h| h.kind) {
        Some(1) => "ciphertext",
        Some(2) => "public key",
        Some(3) => "evaluation key",
        Some(4) => "SECRET key: keep it",
        _ => "object of an unknown kind",
    };
    json!({
        "what": if what.is_empty() { kind } else { what },
        "objects": count,
        "whole": whole,
        "key_id": first.map(|h| h.key_id.to_string()),
        "params": first.map(|h| h.params.to_string()),
    })
}

/// Our JSON files, by what they say of themselves or by their fields.
fn text(path: &Path, bytes: &[u8]) -> anyhow::Result<Value> {
    let none = || format!("{} is none of our files", path.display());
    if bytes.starts_with(b"<!doctype html>") && String::from_utf8_lossy(bytes).contains("cipherlm report") {
        return Ok(json!({"what": "report page: open it in a browser", "bytes": bytes.len()}));
    }
    let value: Value = serde_json::from_slice(bytes).with_context(none)?;
    let has = |fields: &[&str]| fields.iter().all(|field| value.get(field).is_some());
    let pick = |fields: &[&str]| -> serde_json::Map<String, Value> {
        fields.iter().filter_map(|f| Some(((*f).to_owned(), value.get(f)?.clone()))).collect()
    };
    let format = value.get("format").and_then(Value::as_str).unwrap_or_default();
    let (what, facts) = if format == NOTE {
        // Its tokens are the prompt: not shown.
        ("client's note of a prompt: keep it", pick(&["plan", "key_id"]))
    } else if format == super::plan::PLAN {
        (
            "plan",
            pick(&[
                "id",
                "model",
                "length",
                "profile",
                "security_bits",
                "seconds_predicted",
                "bootstraps",
                "key_bytes",
            ]),
        )
    } else if format.starts_with("cipherlm evaluation keys") {
        (
            "description of a key folder",
            pick(&["model", "tokens", "profile", "security_bits", "plan", "key_id", "keys"]),
        )
    } else if has(&["by_operator", "seconds_total", "pass"]) {
        let fields = ["model", "length", "prompt", "answer", "machine", "seconds_total", "bootstraps", "mse", "pass"];
        ("result of a demo or profile", pick(&fields))
    } else if has(&["report", "seconds_load_keys"]) {
        ("report of a server's run", pick(&["machine", "answer", "seconds_load_keys", "peak_rss_bytes"]))
    } else if has(&["data", "model", "stages"]) {
        ("training run", pick(&["name"]))
    } else if has(&["shape", "sites"]) {
        ("description of a model: inspect its folder", pick(&["name"]))
    } else if format == "cipherlm-tokenizer" {
        ("tokenizer", pick(&["version"]))
    } else if value
        .as_array()
        .is_some_and(|rows| rows.iter().all(|r| r.get("median_ns").is_some() && r.get("id").is_some()))
    {
        let mut facts = serde_json::Map::new();
        facts.insert("rows".into(), value.as_array().map_or(0, Vec::len).into());
        ("benchmark results", facts)
    } else {
        bail!(none());
    };
    let mut facts = facts;
    facts.insert("what".into(), what.into());
    facts.insert("bytes".into(), bytes.len().into());
    Ok(Value::Object(facts))
}
