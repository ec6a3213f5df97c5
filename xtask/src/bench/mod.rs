//! `cargo xtask bench`: criterion groups, their results as one JSON list, and the public peers
//! beside them.

mod criterion;
mod peers;

use crate::build::selection;
use crate::flags::Bench;
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use xshell::{Shell, cmd};

/// Every group with a criterion target, in the order of the layers.
pub(crate) const GROUPS: [&str; 10] = [
    "ntt",
    "ring",
    "keyswitch",
    "evaluator",
    "linear",
    "bootstrap",
    "approx",
    "layers",
    "inference",
    "train",
];

/// One benchmark's result, ours or a peer's.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub(crate) struct Row {
    /// `group/operation/degree[/variant]`.
    pub(crate) id: String,
    pub(crate) threads: usize,
    pub(crate) params: String,
    pub(crate) median_ns: f64,
    pub(crate) min_ns: f64,
    pub(crate) max_ns: f64,
    pub(crate) samples: usize,
    /// Null for ours, else name and version.
    pub(crate) peer: Option<String>,
    /// What is not a time: levels left, bits, bytes.
    pub(crate) metrics: BTreeMap<String, serde_json::Value>,
}

/// Runs the groups, prints a table, writes the JSON.
pub(crate) fn run(sh: &Shell, flags: &Bench) -> anyhow::Result<()> {
    let groups: Vec<&str> = match flags.group.as_deref() {
        Some(name) => match GROUPS.iter().find(|g| **g == name) {
            Some(group) => vec![*group],
            None => bail!("no bench group is called `{name}`: choose one of {}", GROUPS.join(" ")),
        },
        None => GROUPS.into_iter().filter(|g| *g != "train").collect(),
    };
    let threads = flags.threads.unwrap_or(1);
    println!("machine: {}; threads: {threads}", crate::machine::describe());
    let mut rows = Vec::new();
    for group in groups {
        let metrics = run_group(sh, flags, group, threads)?;
        rows.extend(criterion::rows(&crate::build::target_dir(sh), group, threads, &metrics)?);
        if flags.peers {
            rows.extend(peers::run(sh, group, threads)?);
        }
    }
    if rows.is_empty() {
        bail!("no benchmark matched");
    }
    print_table(&rows);
    if let Some(file) = &flags.json {
        let text = serde_json::to_string_pretty(&rows)?;
        std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
        println!("wrote {}", file.display());
    }
    Ok(())
}

/// Counts the instructions of a group's bodies, each run once, under valgrind's callgrind.
pub(crate) fn callgrind(sh: &Shell, group: &str) -> anyhow::Result<()> {
    if !GROUPS.contains(&group) {
        bail!("no bench group is called `{group}`: choose one of {}", GROUPS.join(" "));
    }
    if cmd!(sh, "valgrind --version").quiet().ignore_stdout().ignore_stderr().run().is_err() {
        bail!("valgrind is not installed: `apt-get install valgrind`, then the same command again");
    }
    let program = executable(sh, group)?;
    let out = crate::build::target_dir(sh).join(format!("callgrind.{group}.out"));
    let _threads = sh.push_env("RAYON_NUM_THREADS", "1");
    // Valgrind's processor has AVX2 and no AVX-512: the kernel is chosen from what it shows, so
    // these are counts of the AVX2 path.
    let said = cmd!(sh, "valgrind --tool=callgrind --callgrind-out-file={out} {program} --test")
        .quiet()
        .read_stderr()?;
    let count =
        said.lines().rev().find_map(|line| line.split_once("Collected : ")?.1.trim().parse::<u64>().ok());
    let count = count.context("valgrind printed no count of instructions")?;
    println!("{group}: {count} instructions for one run of each body, AVX2 path, one thread");
    println!("by function: callgrind_annotate {}", out.display());
    Ok(())
}

/// Builds the criterion target of a group and says where its program is.
///
/// `cargo bench` would name another profile, and `-p cipherlm-benches` resolve other features:
/// either builds all again.
fn executable(sh: &Shell, group: &str) -> anyhow::Result<PathBuf> {
    let selection: &[&str] = if group == "train" {
        &["--locked", "--release", "-p", "cipherlm-benches", "--features", "train"]
    } else {
        selection()
    };
    let built = cmd!(sh, "cargo build {selection...} --bench {group} --message-format=json").read()?;
    let artifacts = built.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let program = artifacts
        .filter(|a| a["target"]["name"] == group)
        .find_map(|a| a["executable"].as_str().map(PathBuf::from));
    program.context("cargo built no bench executable")
}

/// `METRICS {"id":…, …}` lines that a bench body prints beside its times, by id.
type Metrics = BTreeMap<String, BTreeMap<String, serde_json::Value>>;

fn run_group(sh: &Shell, flags: &Bench, group: &str, threads: usize) -> anyhow::Result<Metrics> {
    criterion::forget(&crate::build::target_dir(sh), group)?;
    let program = executable(sh, group)?;
    let mut args = vec!["--bench".to_string()];
    args.extend(flags.filter.clone());
    for (option, value) in [("--save-baseline", &flags.save), ("--baseline", &flags.compare)] {
        if let Some(value) = value {
            args.extend([option.to_string(), value.clone()]);
        }
    }
    let mut child = Command::new(&program)
        .args(&args)
        .env("RAYON_NUM_THREADS", threads.to_string())
        .env("CRITERION_HOME", crate::build::target_dir(sh).join("criterion"))
        .current_dir(sh.current_dir().join("benches"))
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{} could not be started", program.display()))?;
    let stdout = child.stdout.take().context("no output from the benchmark")?;
    let mut metrics = Metrics::new();
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        match line.trim().strip_prefix("METRICS ") {
            Some(json) => {
                let mut values: BTreeMap<String, serde_json::Value> = serde_json::from_str(json)?;
                if let Some(serde_json::Value::String(id)) = values.remove("id") {
                    metrics.insert(id, values);
                }
            }
            None => println!("{line}"),
        }
    }
    if !child.wait()?.success() {
        bail!("`{} {}` failed", program.display(), args.join(" "));
    }
    Ok(metrics)
}

fn print_table(rows: &[Row]) {
    println!("\n{:<44} {:>7} {:>12} {:>12} {:>9}  peer", "id", "threads", "median", "min", "ratio");
    for row in rows {
        let ours = rows.iter().find(|r| r.peer.is_none() && r.id == row.id);
        // How much of the peer's time we need.
        let ratio = match (&row.peer, ours) {
            (Some(_), Some(ours)) => format!("{:.3}", ours.median_ns / row.median_ns),
            _ => String::new(),
        };
        println!(
            "{:<44} {:>7} {:>12} {:>12} {:>9}  {}",
            row.id,
            row.threads,
            human(row.median_ns),
            human(row.min_ns),
            ratio,
            row.peer.as_deref().unwrap_or("")
        );
        for (name, value) in &row.metrics {
            println!("{:<44}   {name} = {value}", "");
        }
    }
    println!("ratio = our median / the peer's median in this run");
}

pub(crate) fn human(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.1} ns"),
        ns if ns < 1e6 => format!("{:.2} us", ns / 1e3),
        ns if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        ns => format!("{:.3} s", ns / 1e9),
    }
}
