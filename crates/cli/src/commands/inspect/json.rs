//! Our texts, by what they say of themselves or by their fields.

use crate::commands::plan::PLAN;
use anyhow::{Context, bail};
use cipherlm_files::shown;
use cipherlm_infer::Note;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Largest text of ours.
const BYTES: u64 = 256 << 20;

/// What a text is.
pub(super) fn facts(path: &Path) -> anyhow::Result<Value> {
    let none = || format!("{} is none of our files", shown(path));
    let text = cipherlm_files::read_text(path, BYTES).with_context(none)?;
    if text.starts_with("<!doctype html>") && text.contains("cipherlm report") {
        return Ok(json!({"what": "report page: open it in a browser", "bytes": text.len()}));
    }
    let value: Value = serde_json::from_str(&text).with_context(none)?;
    let Some((what, mut facts)) = known(&value) else { bail!(none()) };
    facts.insert("what".into(), what.into());
    facts.insert("bytes".into(), text.len().into());
    Ok(Value::Object(facts))
}

fn known(value: &Value) -> Option<(&'static str, Map<String, Value>)> {
    let has = |fields: &[&str]| fields.iter().all(|field| value.get(field).is_some());
    let pick = |fields: &[&str]| -> Map<String, Value> {
        fields.iter().filter_map(|f| Some(((*f).to_owned(), value.get(f)?.clone()))).collect()
    };
    let format = value.get("format").and_then(Value::as_str).unwrap_or_default();
    let bench =
        |rows: &Vec<Value>| rows.iter().all(|r| r.get("median_ns").is_some() && r.get("id").is_some());
    if format == Note::FORMAT {
        // Its tokens are the prompt: not shown.
        return Some(("client's note of a prompt: keep it", pick(&["plan", "key_id"])));
    }
    if format == PLAN {
        let fields = [
            "id",
            "model",
            "length",
            "profile",
            "security_bits",
            "seconds_predicted",
            "bootstraps",
            "key_bytes",
        ];
        return Some(("plan", pick(&fields)));
    }
    if format.starts_with("cipherlm evaluation keys") {
        let fields = ["model", "tokens", "profile", "security_bits", "plan", "key_id", "keys"];
        return Some(("description of a key folder", pick(&fields)));
    }
    if has(&["by_operator", "seconds_total", "pass"]) {
        let fields = [
            "model",
            "function",
            "length",
            "prompt",
            "answer",
            "machine",
            "seconds_total",
            "bootstraps",
            "mse",
            "pass",
        ];
        return Some(("result of a demo or profile", pick(&fields)));
    }
    if has(&["report", "seconds_load_keys"]) {
        let fields = ["machine", "answer", "seconds_load_keys", "peak_rss_bytes"];
        return Some(("report of a server's run", pick(&fields)));
    }
    if has(&["data", "model", "stages"]) {
        return Some(("training run", pick(&["name"])));
    }
    if has(&["shape", "sites"]) {
        return Some(("description of a model: inspect its folder", pick(&["name"])));
    }
    if format == "cipherlm-tokenizer" {
        return Some(("tokenizer", pick(&["version"])));
    }
    let rows = value.as_array().filter(|rows| bench(rows))?;
    Some(("benchmark results", [("rows".to_owned(), rows.len().into())].into_iter().collect()))
}
