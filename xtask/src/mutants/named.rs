//! The named mutants: an edit each, and the tests of which one has to fail.

use super::{Counts, scratch};
use crate::build::target_dir;
use crate::flags::Mutants;
use anyhow::Context;
use serde::Deserialize;
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use xshell::Shell;

/// The table.
const TABLE: &str = "xtask/mutants/named.json";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    /// What is wrong with it.
    name: String,
    file: String,
    /// Text that stands in the file exactly once.
    from: String,
    to: String,
    package: String,
    /// Test targets, as arguments of `cargo test`.
    tests: Vec<String>,
    /// Whether the tests build burn: only with `--train`.
    #[serde(default)]
    burn: bool,
}

enum Fate {
    Caught,
    Survived,
    Broken(String),
}

/// Tries all mutants of the table, or those whose name contains the filter.
pub(super) fn run(sh: &Shell, flags: &Mutants) -> anyhow::Result<Counts> {
    let text = std::fs::read_to_string(TABLE).with_context(|| format!("reading {TABLE}"))?;
    let table: Vec<Mutant> = serde_json::from_str(&text).with_context(|| format!("reading {TABLE}"))?;
    let wanted = |m: &&Mutant| {
        flags.filter.as_ref().is_none_or(|f| m.name.contains(f.as_str()) || m.file.contains(f.as_str()))
    };
    let table: Vec<&Mutant> = table.iter().filter(wanted).filter(|m| flags.train || !m.burn).collect();
    if flags.list {
        table.iter().for_each(|m| println!("{}: {}", m.file, m.name));
        return Ok(Counts::default());
    }
    let tree = scratch(sh)?;
    let mut counts = Counts::default();
    for mutant in table {
        let start = Instant::now();
        let fate = attempt(&tree, &target_dir(sh), mutant)?;
        let word = match &fate {
            Fate::Caught => "caught",
            Fate::Survived => "SURVIVES",
            Fate::Broken(_) => "DOES NOT APPLY",
        };
        println!("{word:<15} {:>4.0} s  {}", start.elapsed().as_secs_f64(), mutant.name);
        counts.tried += 1;
        match fate {
            Fate::Caught => counts.caught += 1,
            Fate::Survived => counts.survivors.push(mutant.name.clone()),
            Fate::Broken(why) => counts.broken.push(format!("{}: {why}", mutant.name)),
        }
    }
    Ok(counts)
}

/// Edits, builds, tests, and puts the file back.
fn attempt(tree: &Path, target: &Path, mutant: &Mutant) -> anyhow::Result<Fate> {
    let path = tree.join(&mutant.file);
    let Ok(whole) = std::fs::read_to_string(&path) else {
        return Ok(Fate::Broken(format!("{} is not there: bring {TABLE} up to date", mutant.file)));
    };
    let times = whole.matches(&mutant.from).count();
    if times != 1 {
        return Ok(Fate::Broken(format!(
            "its text stands {times} times in {}: bring {TABLE} up to date",
            mutant.file
        )));
    }
    std::fs::write(&path, whole.replace(&mutant.from, &mutant.to))?;
    let cargo = |more: &[&str]| {
        let mut command = Command::new("cargo");
        command
            .args(["test", "--locked", "--release", "--quiet", "--package", &mutant.package])
            .args(&mutant.tests);
        command.args(more).current_dir(tree).env("CARGO_TARGET_DIR", target).env("CARGO_INCREMENTAL", "1");
        command.output()
    };
    let result = cargo(&["--no-run"]).and_then(|built| Ok((built, cargo(&["--no-fail-fast"])?)));
    std::fs::write(&path, whole)?;
    let (built, tested) = result.context("cargo could not be started")?;
    if !built.status.success() {
        let errors = String::from_utf8_lossy(&built.stderr).into_owned();
        let first =
            errors.lines().find(|line| line.starts_with("error")).unwrap_or("it does not build").to_owned();
        return Ok(Fate::Broken(first));
    }
    Ok(if tested.status.success() { Fate::Survived } else { Fate::Caught })
}
