//! Reads what criterion left in `target/criterion`.

use super::{Metrics, Row};
use anyhow::Context;
use serde::Deserialize;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
struct Benchmark {
    full_id: String,
}

#[derive(Deserialize)]
struct Sample {
    iters: Vec<f64>,
    times: Vec<f64>,
}

/// The newest results of the group's benchmarks.
pub(super) fn rows(
    target: &Path,
    group: &str,
    threads: usize,
    metrics: &Metrics,
) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for dir in results(&target.join("criterion"))? {
        let benchmark: Benchmark = read(&dir.join("benchmark.json"))?;
        if !benchmark.full_id.starts_with(&format!("{group}/")) {
            continue;
        }
        let sample: Sample = read(&dir.join("sample.json"))?;
        let mut times: Vec<f64> = sample.times.iter().zip(&sample.iters).map(|(t, n)| t / n).collect();
        times.sort_by(f64::total_cmp);
        let mut metrics = metrics.get(&benchmark.full_id).cloned().unwrap_or_default();
        let params = match metrics.remove("params") {
            Some(serde_json::Value::String(text)) => text,
            _ => String::new(),
        };
        rows.push(Row {
            id: benchmark.full_id,
            threads,
            params,
            median_ns: median(&times),
            min_ns: times.first().copied().unwrap_or(f64::NAN),
            max_ns: times.last().copied().unwrap_or(f64::NAN),
            samples: times.len(),
            peer: None,
            metrics,
        });
    }
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(rows)
}

/// Drops earlier results of the group, so that a row always belongs to this run.
pub(super) fn forget(target: &Path, group: &str) -> anyhow::Result<()> {
    for dir in results(&target.join("criterion"))? {
        let benchmark: Benchmark = read(&dir.join("benchmark.json"))?;
        if benchmark.full_id.starts_with(&format!("{group}/")) {
            std::fs::remove_dir_all(&dir)?;
        }
    }
    Ok(())
}

/// The middle of sorted times.
pub(super) fn median(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => 0.5 * (sorted[n / 2 - 1] + sorted[n / 2]),
    }
}

/// Every `new` folder below `dir` that holds a result.
fn results(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(found) };
    for entry in entries {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        if path.ends_with("new") && path.join("benchmark.json").exists() && path.join("sample.json").exists()
        {
            found.push(path);
        } else {
            found.extend(results(&path)?);
        }
    }
    Ok(found)
}

fn read<T: serde::de::DeserializeOwned>(file: &Path) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("parsing {}", file.display()))
}
