//! `cipherlm inspect`: what a file or folder is.

use crate::flags;
use anyhow::{Context, bail};
use cipherlm_spec::Model;
use serde_json::{Value, json};
use std::path::Path;

/// Prints what stands at the path.
pub(crate) fn run(args: &flags::Inspect, as_json: bool) -> anyhow::Result<bool> {
    let facts = if args.path.is_dir() { folder(&args.path)? } else { file(&args.path)? };
    if as_json {
        println!("{facts}");
    } else if let Value::Object(map) = &facts {
        for (name, value) in map {
            match value {
                Value::String(text) => println!("{name:<20} {text}"),
                other => println!("{name:<20} {other}"),
            }
        }
    }
    Ok(true)
}

fn folder(path: &Path) -> anyhow::Result<Value> {
    let model =
        Model::load(path).with_context(|| format!("{} is a folder, but not one with a model", path.display()))?;
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

fn file(path: &Path) -> anyhow::Result<Value> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    if let Ok(value) = serde_json::from_slice::<Value>(&bytes) {
        let what = value.get("format").and_then(Value::as_str).unwrap_or("a JSON file that is not one of ours");
        return Ok(json!({"what": what, "bytes": bytes.len()}));
    }
    bail!("{} is none of our files", path.display())
}
