//! Runs the public peers on the same machine in the same run. They live outside the workspace: Rust
//! peers in `peers/` with a lock file of their own, OpenFHE's Python wheel in a private virtual
//! environment.

use super::Row;
use anyhow::{Context, bail};
use serde::Deserialize;
use std::path::PathBuf;
use xshell::{Shell, cmd};

/// The wheel that the drivers were written against.
const OPENFHE: &str = "openfhe";

#[derive(Deserialize)]
struct PeerRow {
    id: String,
    #[serde(default)]
    params: String,
    median_ns: f64,
    min_ns: f64,
    max_ns: f64,
    samples: usize,
    peer: String,
    #[serde(default)]
    metrics: std::collections::BTreeMap<String, serde_json::Value>,
}

/// The peers of one group; a group without peers says so.
pub(super) fn run(sh: &Shell, group: &str, threads: usize) -> anyhow::Result<Vec<Row>> {
    let lines = match group {
        "ntt" => {
            let _dir = sh.push_dir("peers/ntt");
            cmd!(sh, "cargo run --quiet --release --locked").read()?
        }
        "evaluator" => openfhe(sh, "ops", threads)?,
        "bootstrap" => openfhe(sh, "boot", threads)?,
        "train" => pytorch(sh, threads)?,
        other => {
            println!("no peer is known for group `{other}`");
            return Ok(Vec::new());
        }
    };
    let mut rows = Vec::new();
    for line in lines.lines().filter(|l| l.starts_with('{')) {
        let row: PeerRow = serde_json::from_str(line).with_context(|| format!("peer printed: {line}"))?;
        rows.push(Row {
            id: row.id,
            threads,
            params: row.params,
            median_ns: row.median_ns,
            min_ns: row.min_ns,
            max_ns: row.max_ns,
            samples: row.samples,
            peer: Some(row.peer),
            metrics: row.metrics,
        });
    }
    Ok(rows)
}

fn openfhe(sh: &Shell, what: &str, threads: usize) -> anyhow::Result<String> {
    let python = environment(sh, "openfhe", &["numpy", OPENFHE])?;
    let _threads = sh.push_env("OMP_NUM_THREADS", threads.to_string());
    Ok(cmd!(sh, "{python} peers/openfhe/bench.py {what}").read()?)
}

fn pytorch(sh: &Shell, threads: usize) -> anyhow::Result<String> {
    let python = environment(sh, "torch", &["numpy", "torch"])?;
    let _threads = sh.push_env("OMP_NUM_THREADS", threads.to_string());
    Ok(cmd!(sh, "{python} peers/torch/bench.py").read()?)
}

/// A private virtual environment under `target/`, made once. The OpenFHE wheel holds a module built
/// for CPython 3.10 or 3.12, so the interpreter is looked for by version and the import is tried.
fn environment(sh: &Shell, name: &str, packages: &[&str]) -> anyhow::Result<PathBuf> {
    let home = std::path::absolute(sh.current_dir().join("target").join("peers").join(name))?;
    let python = home.join("bin/python");
    let ready = home.join("ready");
    if ready.exists() {
        return Ok(python);
    }
    for version in ["python3.10", "python3.12", "python3"] {
        let Some(interpreter) = interpreter(sh, version) else { continue };
        sh.remove_path(&home)?;
        cmd!(sh, "{interpreter} -m venv {home}").run()?;
        cmd!(sh, "{python} -m pip install --quiet {packages...}").run()?;
        let module = packages.last().copied().unwrap_or_default();
        if cmd!(sh, "{python} -c").arg(format!("import {module}")).quiet().ignore_stderr().run().is_ok() {
            sh.write_file(&ready, version)?;
            return Ok(python);
        }
    }
    bail!("{name} needs CPython 3.10 or 3.12 with venv and pip on the PATH, or in ~/.pyenv/versions")
}

/// An interpreter of the wanted version: on the PATH if it starts, else from pyenv's versions.
fn interpreter(sh: &Shell, version: &str) -> Option<PathBuf> {
    if cmd!(sh, "{version} -c pass").quiet().ignore_stdout().ignore_stderr().run().is_ok() {
        return Some(version.into());
    }
    let versions = PathBuf::from(std::env::var_os("HOME")?).join(".pyenv/versions");
    let number = version.strip_prefix("python")?;
    sh.read_dir(versions)
        .ok()?
        .into_iter()
        .find(|dir| {
            dir.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(&format!("{number}.")))
        })
        .map(|dir| dir.join("bin").join(version))
}
