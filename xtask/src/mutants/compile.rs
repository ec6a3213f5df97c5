//! One build of a tree that carries all mutants: what does not compile is taken out until it does.

use super::Scratch;
use super::list::Mutant;
use super::weave::{switch, weave};
use anyhow::{Context, bail};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Rounds of building; each takes out what the compiler names.
const ROUNDS: usize = 25;

/// A test program of a package.
pub(super) struct Program {
    pub(super) package: String,
    pub(super) path: PathBuf,
}

/// What the tree holds in the end.
pub(super) struct Built {
    pub(super) programs: Vec<Program>,
    /// Mutants that do not compile.
    pub(super) unviable: HashSet<u32>,
    /// Mutants that would compile, but not behind a switch: in constants, or in a chain of `let`.
    pub(super) left_out: HashSet<u32>,
}

/// The places of the mutants of each file.
type Places = BTreeMap<PathBuf, Vec<(u32, Range<usize>, Range<usize>)>>;

/// Weaves, builds, takes out what fails, again until all of it builds.
pub(super) fn compile(
    scratch: &Scratch,
    target: &Path,
    packages: &[&str],
    mutants: &[Mutant],
) -> anyhow::Result<Built> {
    let mut unviable = HashSet::new();
    let mut left_out = HashSet::new();
    let tree = scratch.tree.as_path();
    let sources = sources(scratch, mutants)?;
    let roots = roots(scratch, mutants)?;
    let woven = sources.keys().chain(roots.keys()).filter_map(|path| path.strip_prefix(tree).ok());
    scratch.lay_out(&woven.map(Path::to_owned).collect())?;
    for round in 1..=ROUNDS {
        let mut places = Places::new();
        for (path, source) in &sources {
            let wanted = |m: &&Mutant| {
                tree.join(&m.file) == *path && !unviable.contains(&m.id) && !left_out.contains(&m.id)
            };
            let here: Vec<&Mutant> = mutants.iter().filter(wanted).collect();
            let woven = weave(source, &here).with_context(|| path.display().to_string())?;
            left_out.extend(woven.left_out);
            places.insert(path.clone(), woven.places);
            write_if_new(path, &woven.text)?;
        }
        for (path, source) in &roots {
            let text =
                if sources.contains_key(path) { std::fs::read_to_string(path)? } else { source.clone() };
            write_if_new(path, &(text.replace(&switch(count(mutants)), "") + &switch(count(mutants))))?;
        }
        let (mut programs, mut errors) = build(tree, target, packages, false)?;
        if errors.is_empty() {
            (programs, errors) = build(tree, target, packages, true)?;
        }
        if errors.is_empty() {
            return Ok(Built { programs, unviable, left_out });
        }
        let mut new = HashSet::new();
        for error in &errors {
            let found = blamed(error, tree, &places);
            if found.is_empty() {
                let text = error["message"]["rendered"].as_str().unwrap_or_default();
                bail!("the woven tree does not build, and no mutant stands there:\n{text}");
            }
            let constant = error["message"]["code"]["code"] == "E0015";
            (if constant { &mut left_out } else { &mut new }).extend(found);
        }
        println!("build {round}: {} errors, {} mutants taken out", errors.len(), new.len());
        unviable.extend(new);
    }
    bail!("the woven tree does not build after {ROUNDS} rounds")
}

/// Room in the table of what was reached.
fn count(mutants: &[Mutant]) -> usize {
    mutants.iter().map(|m| m.id as usize + 1).max().unwrap_or(1)
}

/// Sources as they are committed, by the place in the tree where they go.
fn read(scratch: &Scratch, files: HashSet<PathBuf>) -> anyhow::Result<BTreeMap<PathBuf, String>> {
    let text = |file: &Path| {
        let path = scratch.whole.join(file);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    files.into_iter().map(|file| Ok((scratch.tree.join(&file), text(&file)?))).collect()
}

fn sources(scratch: &Scratch, mutants: &[Mutant]) -> anyhow::Result<BTreeMap<PathBuf, String>> {
    read(scratch, mutants.iter().map(|m| PathBuf::from(&m.file)).collect())
}

/// The library roots of the crates under test, where the switch goes.
fn roots(scratch: &Scratch, mutants: &[Mutant]) -> anyhow::Result<BTreeMap<PathBuf, String>> {
    let root = |m: &Mutant| m.file.split_once("/src/").map(|(at, _)| PathBuf::from(at).join("src/lib.rs"));
    read(scratch, mutants.iter().filter_map(root).collect())
}

/// Keeps the time of a file that stays as it is, so that cargo does not build it again.
fn write_if_new(path: &Path, text: &str) -> anyhow::Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// Test programs, and the errors of the compiler: checked first, which finds most in a tenth of the
/// time.
fn build(
    tree: &Path,
    target: &Path,
    packages: &[&str],
    programs: bool,
) -> anyhow::Result<(Vec<Program>, Vec<Value>)> {
    let mut command = Command::new("cargo");
    if programs {
        command.args(["test", "--no-run", "--lib", "--tests", "--no-fail-fast"]);
    } else {
        command.args(["check", "--lib", "--keep-going"]);
    }
    command.args(["--locked", "--release", "--message-format=json"]);
    command.args(packages.iter().flat_map(|name| ["--package", name]));
    // A function with a hundred switches takes minutes at the third level; the hot loops are in
    // `ring`.
    let level = |name: &&str| ["--config".into(), format!("profile.release.package.{name}.opt-level=1")];
    command.args(packages.iter().flat_map(level));
    command.current_dir(tree).env("CARGO_TARGET_DIR", target).env("CARGO_INCREMENTAL", "1");
    let output = command.output().context("cargo could not be started")?;
    let (mut programs, mut errors) = (Vec::new(), Vec::new());
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
        if message["message"]["level"] == "error" && message["message"]["spans"][0].is_object() {
            errors.push(message);
        } else if let Some(path) = message["executable"].as_str()
            && message["profile"]["test"] == true
        {
            let manifest = message["manifest_path"].as_str().unwrap_or_default();
            let folder = Path::new(manifest).parent().and_then(Path::file_name);
            let package = folder.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            programs.push(Program { package, path: path.into() });
        }
    }
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success() || !errors.is_empty(), "the tree does not build: {said}");
    Ok((programs, errors))
}

/// The mutants whose text the error points into; else all of the innermost place that holds it.
fn blamed(error: &Value, tree: &Path, places: &Places) -> Vec<u32> {
    let spans = error["message"]["spans"].as_array().cloned().unwrap_or_default();
    let mut spans: Vec<(bool, PathBuf, usize)> = spans
        .iter()
        .map(|span| {
            let file = tree.join(span["file_name"].as_str().unwrap_or_default());
            (span["is_primary"] == true, file, span["byte_start"].as_u64().unwrap_or(0) as usize)
        })
        .collect();
    spans.sort_by_key(|(primary, ..)| !primary);
    for (_, file, at) in &spans {
        let here = places.get(file).into_iter().flatten();
        if let Some((id, ..)) = here.clone().find(|(_, own, _)| own.contains(at)) {
            return vec![*id];
        }
    }
    for (_, file, at) in &spans {
        let here = places.get(file).into_iter().flatten().filter(|(.., whole)| whole.contains(at));
        if let Some(whole) = here.clone().map(|(.., whole)| whole).min_by_key(|whole| whole.len()) {
            return here.filter(|(.., w)| w == whole).map(|(id, ..)| *id).collect();
        }
    }
    Vec::new()
}
