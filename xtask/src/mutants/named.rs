//! The named mutants: an edit each, and the tests of which one has to fail.

use super::weave::NAMED;
use super::{Counts, Scratch, list, wanted};
use crate::build::target_dir;
use crate::flags::Mutants;
use anyhow::Context;
use serde::Deserialize;
use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use xshell::Shell;

/// The table of edits.
const TABLE: &str = "xtask/mutants/named.json";

/// Their numbers begin here, above those of cargo-mutants.
const FIRST: u32 = 100_000;

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

impl Mutant {
    /// As an edit behind a switch; `None` if the text does not stand in the file exactly once.
    fn switched(&self, tree: &Path, id: u32) -> Option<list::Mutant> {
        let source = std::fs::read_to_string(tree.join(&self.file)).ok()?;
        if source.matches(&self.from).count() != 1 {
            return None;
        }
        let at = source.find(&self.from)?;
        // Only what differs: the text around it may reach into the next function.
        let same = |(a, b): (char, char)| if a == b { a.len_utf8() } else { 0 };
        let front = prefix(self.from.chars().zip(self.to.chars()).map(same));
        let (from, to) = (&self.from[front..], &self.to[front..]);
        let back = prefix(from.chars().rev().zip(to.chars().rev()).map(same));
        let (start, end) = (at + front, at + self.from.len() - back);
        Some(list::Mutant {
            id,
            name: format!("{}: {}", self.file, self.name),
            package: self.package.clone(),
            file: self.file.clone(),
            genre: NAMED.into(),
            span: list::Span { start: place(&source, start), end: place(&source, end) },
            replacement: to[..to.len() - back].to_owned(),
        })
    }
}

/// Bytes of the leading run that is equal.
fn prefix(equal: impl Iterator<Item = usize>) -> usize {
    equal.take_while(|bytes| *bytes > 0).sum()
}

fn place(source: &str, at: usize) -> list::Place {
    let line = source[..at].matches('\n').count() + 1;
    let start = source[..at].rfind('\n').map_or(0, |at| at + 1);
    list::Place { line, column: source[start..at].chars().count() + 1 }
}

fn table() -> anyhow::Result<Vec<Mutant>> {
    let text = std::fs::read_to_string(TABLE).with_context(|| format!("reading {TABLE}"))?;
    serde_json::from_str(&text).with_context(|| format!("reading {TABLE}"))
}

/// The named mutants of library crates, to be switched like the others; the rest needs builds of
/// its own.
pub(super) fn switched(tree: &Path) -> anyhow::Result<Vec<list::Mutant>> {
    let table = table()?;
    let library = table.iter().filter(|m| !m.burn && m.package.starts_with("cipherlm-"));
    Ok(library.zip(FIRST..).filter_map(|(mutant, id)| mutant.switched(tree, id)).collect())
}

/// Tries one by one those of the table that no switch holds.
pub(super) fn alone(
    sh: &Shell,
    flags: &Mutants,
    scratch: &Scratch,
    done: &HashSet<String>,
    counts: &mut Counts,
) -> anyhow::Result<()> {
    let table = table()?;
    scratch.lay_out(&HashSet::new())?;
    let rest = table.iter().filter(|m| !done.contains(&format!("{}: {}", m.file, m.name)));
    let mut whole = HashSet::new();
    for mutant in rest.filter(|m| flags.train || !m.burn).filter(|m| wanted(flags, &m.name, &m.file)) {
        if whole.insert((&mutant.package, &mutant.tests)) {
            let said = tests(&scratch.tree, &target_dir(sh), mutant, &["--no-fail-fast"])?;
            let text = String::from_utf8_lossy(&said.stdout).into_owned();
            anyhow::ensure!(
                said.status.success(),
                "tests of {} fail without an edit:\n{text}",
                mutant.package
            );
        }
        let start = Instant::now();
        let fate = attempt(&scratch.tree, &target_dir(sh), mutant)?;
        let word = match &fate {
            Fate::Caught => "caught",
            Fate::Survived => "SURVIVES",
            Fate::Broken(_) => "DOES NOT APPLY",
        };
        println!("{word:<15} {:>4.0} s  {}", start.elapsed().as_secs_f64(), mutant.name);
        (counts.tried, counts.possible) = (counts.tried + 1, counts.possible + 1);
        match fate {
            Fate::Caught => counts.caught += 1,
            Fate::Survived => counts.survivors.push(mutant.name.clone()),
            Fate::Broken(why) => counts.broken.push(format!("{}: {why}", mutant.name)),
        }
    }
    Ok(())
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
    let result = tests(tree, target, mutant, &["--no-run"])
        .and_then(|built| Ok((built, tests(tree, target, mutant, &["--no-fail-fast"])?)));
    std::fs::write(&path, whole)?;
    let (built, tested) = result?;
    if !built.status.success() {
        let errors = String::from_utf8_lossy(&built.stderr).into_owned();
        let first =
            errors.lines().find(|line| line.starts_with("error")).unwrap_or("it does not build").to_owned();
        return Ok(Fate::Broken(first));
    }
    if tested.status.success() {
        return Ok(Fate::Survived);
    }
    let said = String::from_utf8_lossy(&tested.stdout).into_owned();
    anyhow::ensure!(said.contains("running "), "{}: no test ran:\n{said}", mutant.name);
    Ok(Fate::Caught)
}

/// Builds or runs the tests of a mutant.
fn tests(tree: &Path, target: &Path, mutant: &Mutant, more: &[&str]) -> anyhow::Result<std::process::Output> {
    let mut command = Command::new("cargo");
    command.args(["test", "--locked", "--release", "--quiet", "--package", &mutant.package]);
    command.args(&mutant.tests).args(more).current_dir(tree);
    command.env("CARGO_TARGET_DIR", target).env("CARGO_INCREMENTAL", "1");
    command.output().context("cargo could not be started")
}
