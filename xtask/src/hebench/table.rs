//! Ours beside the published reference.

use super::read;
use anyhow::Context;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::path::Path;

/// Rows of the table: what, and its places in the harness's JSON.
const ROWS: [(&str, &str, &str); 10] = [
    ("key generation", "Timing", "Key Generation"),
    ("encryption of the database", "Timing", "Dataset encoding and encryption"),
    ("encryption of the query", "Timing", "Query encryption"),
    ("encrypted computation", "Timing", "Encrypted computation"),
    ("decryption and decoding", "Timing", "Result decryption and postprocessing"),
    ("all stages, data generation too", "Timing", "Total"),
    ("keys", "Bandwidth", "Public and evaluation keys"),
    ("encrypted database", "Bandwidth", "Encrypted database"),
    ("encrypted query", "Bandwidth", "Encrypted query"),
    ("encrypted results", "Bandwidth", "Encrypted results"),
];

/// Means of the measurements that come with the harness; null where it has none.
pub(super) fn reference(harness: &Path, variant: &str) -> anyhow::Result<Value> {
    let folder = harness.join("measurements").join(variant);
    let mut runs = Vec::new();
    let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(Value::Null) };
    for entry in entries {
        runs.push(read(&entry?.path())?);
    }
    if runs.is_empty() {
        return Ok(Value::Null);
    }
    let mut means = Map::new();
    for (_, group, name) in ROWS {
        if let Some(mean) = mean(&runs, group, name)? {
            means.insert(name.into(), json!(mean));
        }
    }
    means.insert("runs".into(), json!(runs.len()));
    Ok(Value::Object(means))
}

/// Mean of one entry of the harness's results, in seconds or bytes.
fn mean(runs: &[Value], group: &str, name: &str) -> anyhow::Result<Option<f64>> {
    let mut values = Vec::new();
    for run in runs {
        let Some(text) = run[group][name].as_str() else { continue };
        values.push(number(text).with_context(|| format!("{name}: {text:?} is no number"))?);
    }
    Ok((!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64))
}

/// A number with the harness's unit: `s`, or bytes by powers of 1024.
fn number(text: &str) -> Option<f64> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let factor = match unit {
        "s" | "B" => 1.0,
        "K" => 1024.0,
        "M" => 1024f64.powi(2),
        "G" => 1024f64.powi(3),
        "T" => 1024f64.powi(4),
        _ => return None,
    };
    Some(digits.parse::<f64>().ok()? * factor)
}

/// The table of a report.
pub(crate) fn markdown(report: &Value) -> anyhow::Result<String> {
    let runs = report["runs"].as_array().context("a report without runs")?;
    let measured: Vec<Value> = runs.iter().map(|run| run["harness"].clone()).collect();
    let text = |name: &str| report[name].as_str().unwrap_or("?");
    let mut out = String::new();
    let passed = runs.iter().filter(|run| run["pass"] == true).count();
    writeln!(out, "{} {}: {passed} of {} runs pass", text("workload"), text("variant"), runs.len())?;
    writeln!(out, "\nours: {}, commit {}", text("machine"), text("commit"))?;
    let published = &report["reference"]["runs"];
    match published.as_u64() {
        Some(n) => writeln!(out, "reference: {}, mean of {n} published runs", text("reference_machine"))?,
        None => writeln!(out, "reference: none is published for this size")?,
    }
    writeln!(out, "\n| what | ours | reference | ours / reference |\n|---|---|---|---|")?;
    for (label, group, name) in ROWS {
        let seconds = group == "Timing";
        let Some(ours) = mean(&measured, group, name)? else { continue };
        let show = |value: f64| if seconds { format!("{value:.2} s") } else { bytes(value) };
        let (theirs, ratio) = match report["reference"][name].as_f64() {
            Some(theirs) => (show(theirs), format!("{:.3}", ours / theirs)),
            None => ("-".into(), "-".into()),
        };
        writeln!(out, "| {label} | {} | {theirs} | {ratio} |", show(ours))?;
    }
    writeln!(out, "\n| ours alone | least | mean | most |\n|---|---|---|---|")?;
    let server = |path: &'static str| move |run: &Value| number_at(run, path);
    for (label, path, unit) in [
        ("encrypted computation, seconds", "/stages/server_encrypted_compute/seconds", 1.0),
        ("encrypted computation, core seconds", "/stages/server_encrypted_compute/core_seconds", 1.0),
        ("encrypted computation, peak memory, GiB", "/stages/server_encrypted_compute/peak_bytes", GIB),
        ("matches", "/query/matches", 1.0),
        ("nearest score to the threshold", "/query/nearest_score_to_threshold", 1.0),
    ] {
        let values: Vec<f64> = runs.iter().filter_map(server(path)).map(|value| value / unit).collect();
        if values.is_empty() {
            continue;
        }
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let (least, most) = values.iter().fold((f64::INFINITY, 0.0f64), |(a, b), v| (a.min(*v), b.max(*v)));
        writeln!(out, "| {label} | {least:.2} | {mean:.2} | {most:.2} |")?;
    }
    Ok(out)
}

const GIB: f64 = 1073741824.0;

fn number_at(run: &Value, path: &str) -> Option<f64> {
    run.pointer(path)?.as_f64()
}

fn bytes(value: f64) -> String {
    match value {
        v if v >= GIB => format!("{:.2} GiB", v / GIB),
        v if v >= 1048576.0 => format!("{:.1} MiB", v / 1048576.0),
        v => format!("{:.0} KiB", v / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_harness_are_read_with_their_units() {
        assert_eq!(number("76.5s"), Some(76.5));
        assert_eq!(number("2.5K"), Some(2560.0));
        assert_eq!((number("x"), number(""), number("3µ")), (None, None, None));
    }

    #[test]
    fn ours_stands_beside_the_reference() {
        let harness = json!({"Timing": {"Key Generation": "2s"}, "Bandwidth": {"Encrypted query": "1.0M"}});
        let report = json!({
            "workload": "w", "variant": "small", "machine": "m", "commit": "c", "reference_machine": "r",
            "reference": {"Key Generation": 4.0, "runs": 3},
            "runs": [{"pass": true, "harness": harness}],
        });
        let table = markdown(&report).unwrap();
        assert!(table.contains("| key generation | 2.00 s | 4.00 s | 0.500 |"), "{table}");
        assert!(table.contains("| encrypted query | 1.0 MiB | - | - |"), "{table}");
        assert!(table.contains("1 of 1 runs pass"), "{table}");
    }
}
