//! `cargo xtask mutants`: does a test fail when the code is wrong?
//!
//! cargo-mutants edits the modules where a fault is invisible in results: keys, encryption, wire,
//! parameters, the noise model, the plan's identity, checkpoints, placement, the reference pass.
//! Survivors are compared with `xtask/mutants/survivors.txt`, which gives a reason for each.
//! `--named` applies the edits of `xtask/mutants/named.json` instead, each a fault that somebody
//! made or feared. Everything happens in a work tree of its own under `target/mutants`, which
//! shares the build folder.

mod named;

use crate::flags::Mutants;
use anyhow::{Context, bail};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use xshell::{Shell, cmd};

/// Files that are mutated together, and the tests that have to notice.
struct Group {
    files: &'static [&'static str],
    package: &'static str,
    tests: &'static [&'static str],
}

const GROUPS: [Group; 4] = [
    Group {
        files: &[
            "crates/ckks/src/keys/*.rs",
            "crates/ckks/src/encrypt.rs",
            "crates/ckks/src/wire/*.rs",
            "crates/ckks/src/params/*.rs",
        ],
        package: "cipherlm-ckks",
        tests: &["--lib", "--tests"],
    },
    Group {
        files: &["crates/circuits/src/slots/noise/*.rs"],
        package: "cipherlm-circuits",
        tests: &["--lib", "--tests"],
    },
    Group {
        files: &[
            "crates/infer/src/plan.rs",
            "crates/infer/src/checkpoint.rs",
            "crates/infer/src/placement.rs",
        ],
        package: "cipherlm-infer",
        tests: &["--lib", "--tests"],
    },
    Group {
        files: &["crates/model/src/forward.rs"],
        package: "cipherlm-model",
        tests: &["--lib", "--tests"],
    },
];

/// Survivors that are known, each with its reason: `reason | file: mutation`.
const KNOWN: &str = "xtask/mutants/survivors.txt";

/// Counts for the closing line and the JSON file.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) tried: usize,
    pub(super) caught: usize,
    pub(super) survivors: Vec<String>,
    /// Edits that do not apply or do not compile.
    pub(super) broken: Vec<String>,
}

/// Runs the mutants; an error for a survivor without a reason, or a reason without its survivor.
pub(crate) fn run(sh: &Shell, flags: &Mutants) -> anyhow::Result<()> {
    let counts = if flags.named { named::run(sh, flags)? } else { generated(sh, flags)? };
    if flags.list {
        return Ok(());
    }
    let Counts { tried, caught, survivors, broken } = &counts;
    println!(
        "{tried} mutants, {caught} caught, {} survivors, {} that do not build",
        survivors.len(),
        broken.len()
    );
    if let Some(file) = &flags.json {
        let all = json!({"tried": tried, "caught": caught, "survivors": survivors.len(), "wrong_answers": 0, "panics": 0,
            "surviving": survivors, "broken": broken});
        std::fs::write(file, serde_json::to_string_pretty(&all)?)
            .with_context(|| format!("{}", file.display()))?;
    }
    if flags.named {
        survivors.iter().for_each(|name| println!("survives: {name}"));
        broken.iter().for_each(|name| println!("does not apply: {name}"));
        anyhow::ensure!(survivors.is_empty() && broken.is_empty(), "the named mutants are not all caught");
        return Ok(());
    }
    compare(survivors, flags.shard.is_none())
}

/// Against the committed list; stale entries show only when all mutants ran.
fn compare(survivors: &[String], all: bool) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(KNOWN).with_context(|| format!("reading {KNOWN}"))?;
    let mut known = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (reason, mutant) =
            line.split_once(" | ").with_context(|| format!("{KNOWN}: no reason in `{line}`"))?;
        known.insert(mutant, reason);
    }
    let here: BTreeSet<&str> = survivors.iter().map(String::as_str).collect();
    let new: Vec<&&str> = here.iter().filter(|mutant| !known.contains_key(**mutant)).collect();
    let stale: Vec<&&str> = known.keys().filter(|mutant| all && !here.contains(**mutant)).collect();
    new.iter().for_each(|mutant| println!("survives without a reason: {mutant}"));
    stale.iter().for_each(|mutant| println!("no longer survives, take it from the list: {mutant}"));
    if !new.is_empty() || !stale.is_empty() {
        bail!("{} survivors without a reason, {} stale entries in {KNOWN}", new.len(), stale.len());
    }
    Ok(())
}

/// A work tree of the last commit, to be edited at will.
pub(super) fn scratch(sh: &Shell) -> anyhow::Result<PathBuf> {
    let tree = crate::build::target_dir(sh).join("mutants/tree");
    if tree.join("Cargo.toml").exists() {
        let head = cmd!(sh, "git rev-parse HEAD").quiet().read()?;
        cmd!(sh, "git -C {tree} checkout --quiet --force --detach {head}").quiet().run()?;
    } else {
        cmd!(sh, "git worktree prune").quiet().run()?;
        cmd!(sh, "git worktree add --quiet --force --detach {tree} HEAD").quiet().run()?;
    }
    Ok(tree)
}

fn generated(sh: &Shell, flags: &Mutants) -> anyhow::Result<Counts> {
    if cmd!(sh, "cargo mutants --version").quiet().ignore_stdout().ignore_stderr().run().is_err() {
        bail!("cargo-mutants is not installed: `cargo install cargo-mutants --locked`");
    }
    let tree = scratch(sh)?;
    let out = crate::build::target_dir(sh).join("mutants");
    let mut counts = Counts::default();
    for group in &GROUPS {
        let Group { files, package, tests } = *group;
        let files = files.iter().flat_map(|file| ["--file", file]);
        let mut args: Vec<String> = vec!["--in-place".into(), "--package".into(), package.into()];
        args.extend(files.map(str::to_owned));
        if let Some(shard) = &flags.shard {
            args.extend(["--shard".into(), shard.clone()]);
        }
        let _tree = sh.push_dir(&tree);
        let _target = sh.push_env("CARGO_TARGET_DIR", crate::build::target_dir(sh));
        let _incremental = sh.push_env("CARGO_INCREMENTAL", "1");
        if flags.list {
            cmd!(sh, "cargo mutants --list {args...}").run()?;
            continue;
        }
        let folder = out.join(package);
        let rest =
            ["--profile", "release", "--no-shuffle", "--baseline", "skip", "--timeout", "120", "--iterate"];
        cmd!(sh, "cargo mutants {args...} {rest...} --output {folder} -- {tests...}")
            .ignore_status()
            .run()?;
        collect(&folder.join("mutants.out"), &mut counts)?;
    }
    Ok(counts)
}

/// Adds what cargo-mutants found, without the numbers of lines, which change with every edit above
/// them.
fn collect(folder: &Path, counts: &mut Counts) -> anyhow::Result<()> {
    let list = |name: &str| -> anyhow::Result<Vec<String>> {
        let path = folder.join(name);
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(text.lines().map(without_place).collect())
    };
    let (caught, missed) = (list("caught.txt")?.len() + list("timeout.txt")?.len(), list("missed.txt")?);
    counts.tried += caught + missed.len();
    counts.caught += caught;
    counts.survivors.extend(missed);
    counts.broken.extend(list("unviable.txt")?);
    Ok(())
}

/// `src/a.rs:12:3: replace x` becomes `src/a.rs: replace x`.
fn without_place(line: &str) -> String {
    let Some((path, rest)) = line.split_once(':') else { return line.into() };
    let what = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ':');
    format!("{path}:{what}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_mutant_is_named_without_its_line() {
        let name = super::without_place("crates/a/src/b.rs:90:9: replace C::d -> usize with 0");
        assert_eq!(name, "crates/a/src/b.rs: replace C::d -> usize with 0");
    }
}
