//! `cargo xtask hebench`: workloads of HomomorphicEncryption.org's FHE benchmarking suite, run by
//! the suite's own harness, of which nothing is changed or copied: a folder of ours under `target`
//! links to it and holds our submission, the programs of `peers/fhe-benchmarking`.

mod table;

use crate::flags::Hebench;
use anyhow::{Context, bail};
use serde_json::{Map, Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use xshell::{Shell, cmd};

const PACKAGE: &str = "peers/fhe-benchmarking";

/// A workload that we have stages for.
struct Workload {
    name: &'static str,
    /// Stages that are programs of ours; the harness passes over the others.
    stages: &'static [&'static str],
    /// A program of ours that says, from the data in the clear, how hard a query was.
    judge: Option<&'static str>,
    sizes: &'static [&'static str],
    /// Machine of the published measurements, as their notes name it.
    reference: &'static str,
}

const WORKLOADS: [Workload; 1] = [Workload {
    name: "fetch-by-similarity",
    stages: &[
        "client_key_generation",
        "client_encode_encrypt_db",
        "client_encode_encrypt_query",
        "server_encrypted_compute",
        "client_decrypt_decode",
        "client_postprocess",
    ],
    judge: Some("nearest"),
    sizes: &["toy", "small", "medium", "large"],
    reference: "EC2 i7ie (24xl; metal-24xl for payloads), 96 virtual CPUs",
}];

/// Runs the harness once a seed, and reports ours beside the published reference.
pub(crate) fn run(sh: &Shell, flags: &Hebench) -> anyhow::Result<()> {
    let Some(workload) = WORKLOADS.iter().find(|w| w.name == flags.workload) else {
        let known: Vec<&str> = WORKLOADS.iter().map(|w| w.name).collect();
        bail!("no stages of ours for {:?}: there are {}", flags.workload, known.join(", "));
    };
    let asked = flags.size.as_deref().unwrap_or("toy");
    let size = workload.sizes.iter().position(|size| *size == asked);
    let size = size.or_else(|| asked.parse().ok().filter(|size| *size < workload.sizes.len()));
    let size = size.with_context(|| format!("no size {asked:?}: there are {}", workload.sizes.join(", ")))?;
    let harness = std::path::absolute(&flags.harness)?;
    if !harness.join("harness/run_submission.py").is_file() {
        let name = workload.name;
        bail!("{} is no checkout of fhe-benchmarking/{name}: it has no harness/", harness.display());
    }
    let stages = build(sh, workload)?;
    let root = wire(sh, workload, &harness)?;
    let variant = if flags.count_only { "count_" } else { "" }.to_owned() + workload.sizes[size];
    let reference = table::reference(&harness, &variant)?;
    let mut runs = Vec::new();
    let first = flags.seed.unwrap_or(1);
    for seed in first..first + flags.seeds.unwrap_or(1) {
        runs.push(one_run(workload, &root, &stages, (size, &variant), seed, flags.count_only)?);
        let report = report(sh, workload, &variant, &reference, &runs);
        if let Some(file) = &flags.json {
            std::fs::write(std::path::absolute(file)?, serde_json::to_string_pretty(&report)? + "\n")?;
        }
    }
    let report = report(sh, workload, &variant, &reference, &runs);
    println!("\n{}", table::markdown(&report)?);
    let failed = runs.iter().filter(|run| run["pass"] != true).count();
    if failed > 0 {
        bail!("{failed} of {} runs did not pass", runs.len());
    }
    Ok(())
}

/// Everything of all runs.
fn report(sh: &Shell, workload: &Workload, variant: &str, reference: &Value, runs: &[Value]) -> Value {
    let commit = cmd!(sh, "git rev-parse --short HEAD").quiet().ignore_stderr().read().unwrap_or_default();
    json!({
        "workload": workload.name,
        "variant": variant,
        "machine": crate::machine::describe(),
        "commit": commit,
        "reference_machine": workload.reference,
        "reference": reference,
        "runs": runs,
    })
}

/// Builds the stages of a workload, one program.
fn build(sh: &Shell, workload: &Workload) -> anyhow::Result<PathBuf> {
    let (name, manifest) = (workload.name, format!("{PACKAGE}/Cargo.toml"));
    let target = crate::build::target_dir(sh).join("peers/fhe-benchmarking");
    cmd!(
        sh,
        "cargo build --quiet --release --locked --manifest-path {manifest} --target-dir {target} --bin {name}"
    )
    .run()?;
    Ok(std::path::absolute(target.join("release").join(name))?)
}

/// The folder that the harness runs in.
fn wire(sh: &Shell, workload: &Workload, harness: &Path) -> anyhow::Result<PathBuf> {
    let root = std::path::absolute(crate::build::target_dir(sh).join("hebench").join(workload.name))?;
    sh.create_dir(root.join("submission/build"))?;
    let scripts = std::path::absolute(sh.current_dir().join(PACKAGE).join("scripts"))?;
    for (name, to) in [("harness", harness.join("harness")), ("scripts", scripts)] {
        let link = root.join(name);
        sh.remove_path(&link)?;
        symlink(&to, &link).with_context(|| format!("linking {} to {}", link.display(), to.display()))?;
    }
    Ok(root)
}

#[cfg(unix)]
fn symlink(to: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(to, link)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::Error::other("the harness needs a system with bash and symbolic links"))
}

/// One whole run of the harness: data, keys, encryption, computation, verification.
fn one_run(
    workload: &Workload,
    root: &Path,
    stages: &Path,
    (size, variant): (usize, &str),
    seed: u64,
    count_only: bool,
) -> anyhow::Result<Value> {
    let folder = workload.sizes[size];
    let mut names: Vec<&str> = workload.stages.to_vec();
    names.extend(workload.judge);
    let mut command = Command::new("python3");
    command.args(["harness/run_submission.py", &size.to_string(), "--seed", &seed.to_string()]);
    command.args(count_only.then_some("--count_only"));
    command.env("CIPHERLM_STAGES", stages).env("CIPHERLM_STAGE_NAMES", names.join(" "));
    command.env("PYTHONUNBUFFERED", "1").env("PYTHONDONTWRITEBYTECODE", "1");
    let mut child = command.current_dir(root).stdout(Stdio::piped()).spawn().context("starting python3")?;
    let output = child.stdout.take().context("the harness has no output")?;
    let mut verdict = String::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        if line.contains("[harness] PASS") || line.contains("[harness] FAIL") {
            verdict = plain(line.split("[harness]").nth(1).unwrap_or_default());
        }
    }
    let status = child.wait()?;
    // Too many matches pass whatever the answer: then it is ours to compare.
    let pass = status.success() && verdict.starts_with("PASS");
    let exact = count_only || same(&root.join("io").join(folder), &root.join("datasets").join(folder));
    let mut run = Map::new();
    run.insert("seed".into(), json!(seed));
    run.insert("pass".into(), json!(pass && exact));
    run.insert("verdict".into(), json!(verdict));
    let measured = root.join("measurements").join(variant).join("results-1.json");
    if status.success() {
        run.insert("harness".into(), read(&measured)?);
    }
    run.insert("stages".into(), stage_reports(&root.join("io").join(folder).join("cipherlm"))?);
    run.insert("bytes".into(), sizes(&root.join("io").join(folder)));
    if let Some(judge) = workload.judge {
        let program = root.join("submission/build").join(judge);
        let judged = Command::new(program).arg(size.to_string()).current_dir(root).output()?;
        run.insert("query".into(), serde_json::from_slice(&judged.stdout).unwrap_or(Value::Null));
    }
    Ok(Value::Object(run))
}

/// Whether the payloads found are those expected, all of them.
fn same(io: &Path, data: &Path) -> bool {
    let read = |path: PathBuf| std::fs::read(path).ok();
    let found = read(io.join("results.bin"));
    found.is_some() && found == read(data.join("expected.bin"))
}

/// A line without the codes that colour it.
fn plain(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let mut text = parts.next().unwrap_or_default().to_owned();
    parts.for_each(|part| text.push_str(part.split_once('m').map_or("", |(_, rest)| rest)));
    text.trim().to_owned()
}

fn read(path: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))
}

/// What our stages said of themselves, by stage.
fn stage_reports(folder: &Path) -> anyhow::Result<Value> {
    let mut all = Map::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(Value::Object(all)) };
    for entry in entries {
        let report = read(&entry?.path())?;
        all.insert(report["stage"].as_str().unwrap_or("?").to_owned(), report);
    }
    Ok(Value::Object(all))
}

/// Bytes of everything that travels.
fn sizes(io: &Path) -> Value {
    let query = length(&io.join("ciphertexts_upload/query.bin"));
    json!({
        "keys": length(&io.join("keys")),
        "database": length(&io.join("ciphertexts_upload")) - query,
        "query": query,
        "results": length(&io.join("ciphertexts_download")),
    })
}

/// Bytes of all files at or under a path.
fn length(path: &Path) -> u64 {
    let Ok(facts) = std::fs::metadata(path) else { return 0 };
    if facts.is_file() {
        return facts.len();
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| length(&entry.path())).sum()
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn colours_are_taken_from_verdicts() {
        assert_eq!(plain(" \u{1b}[32mPASS (All 3)\u{1b}[0m"), "PASS (All 3)");
    }
}
