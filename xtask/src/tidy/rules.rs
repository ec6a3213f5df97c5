//! Rules that the tree does not keep everywhere yet, each with a list of its exceptions that may
//! only get shorter.

use super::circles;
use super::source::{Source, functions};
use anyhow::Context;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Lines of a file, lines of a function, columns of code, columns of comments and Markdown.
const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;
const CODE_COLUMNS: usize = 110;
const PROSE_COLUMNS: usize = 100;

/// Exceptions of a rule: what, and how many of it.
type Found = BTreeMap<String, usize>;

/// Checks all rules against their lists; with `shrink`, lists lose what is mended. Returns the
/// exceptions left by rule.
pub(super) fn check(
    files: &[PathBuf],
    documents: &[PathBuf],
    shrink: bool,
    found: &mut Vec<String>,
) -> anyhow::Result<Vec<(&'static str, usize)>> {
    let sources: Vec<Source> =
        files.iter().filter(|f| in_src(f)).map(|f| Source::read(f)).collect::<Result<_, _>>()?;
    let tools: Vec<Source> =
        files.iter().filter(|f| f.starts_with("xtask")).map(|f| Source::read(f)).collect::<Result<_, _>>()?;
    let circle_list = circles::find(&sources).into_iter().map(|edge| (edge, 1)).collect();
    let rules: [(&'static str, Found); 7] = [
        ("circles", circle_list),
        ("test-only", test_only(&sources, &tools)),
        ("file-lines", long_files(&sources)),
        ("function-lines", long_functions(&sources)),
        ("columns", columns(files, documents)?),
        ("writes", writes(&sources)),
        ("prints", prints(&sources)),
    ];
    let mut left = Vec::new();
    for (name, exceptions) in rules {
        left.push((name, exceptions.values().sum()));
        compare(name, &exceptions, shrink, found)?;
    }
    Ok(left)
}

/// Lines of Rust outside tests and examples.
pub(super) fn count(files: &[PathBuf]) -> anyhow::Result<usize> {
    let outside = |file: &&PathBuf| !file.iter().any(|part| part == "tests" || part == "examples");
    files.iter().filter(outside).map(|file| Ok(Source::read(file)?.lines)).sum()
}

fn in_src(file: &Path) -> bool {
    file.starts_with("crates") && file.iter().any(|part| part == "src")
}

fn list_of(name: &str) -> PathBuf {
    Path::new("xtask/tidy").join(format!("{name}.txt"))
}

/// More than the list says is a violation; less is one too, until the list is made shorter.
fn compare(name: &str, now: &Found, shrink: bool, found: &mut Vec<String>) -> anyhow::Result<()> {
    let path = list_of(name);
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut known = Found::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (count, what) = line.split_once(' ').with_context(|| format!("{}: {line}", path.display()))?;
        known.insert(what.into(), count.parse().with_context(|| format!("{}: {line}", path.display()))?);
    }
    for (what, count) in now {
        let allowed = known.get(what).copied().unwrap_or(0);
        if *count > allowed {
            found.push(format!("{name}: {what}: {count}, at most {allowed}"));
        }
    }
    let mut kept = Found::new();
    for (what, allowed) in &known {
        let count = now.get(what).copied().unwrap_or(0);
        if count < *allowed && !shrink {
            found.push(format!(
                "{name}: {what}: {count} left of {allowed}: `cargo xtask tidy --shrink` shortens the list"
            ));
        }
        if count > 0 {
            kept.insert(what.clone(), count.min(*allowed));
        }
    }
    if shrink && kept != known {
        let lines: Vec<String> = kept.iter().map(|(what, count)| format!("{count} {what}\n")).collect();
        std::fs::write(&path, lines.concat())?;
    }
    Ok(())
}

fn long_files(sources: &[Source]) -> Found {
    let lines = |s: &Source| s.text.lines().count();
    let long = sources.iter().filter(|s| lines(s) > FILE_LINES);
    long.map(|s| (s.path.display().to_string(), lines(s))).collect()
}

fn long_functions(sources: &[Source]) -> Found {
    let mut found = Found::new();
    for source in sources {
        for (name, first, last) in functions(source) {
            if last - first + 1 > FUNCTION_LINES {
                found.insert(format!("{}::{name}", source.path.display()), last - first + 1);
            }
        }
    }
    found
}

fn columns(files: &[PathBuf], documents: &[PathBuf]) -> anyhow::Result<Found> {
    let mut found = Found::new();
    for file in files.iter().chain(documents) {
        let text = std::fs::read_to_string(file)?;
        let rust = file.extension().is_some_and(|e| e == "rs");
        let mut block = false;
        let mut wide = 0;
        for line in text.lines() {
            let bare = line.trim_start();
            if !rust && bare.starts_with("```") {
                block = !block;
            }
            let comment = rust && bare.starts_with("//");
            let prose = bare.trim_start_matches(['/', '!', ' ']);
            // A table row or an address cannot be broken.
            let whole = prose.starts_with('|') || prose.contains("](") || prose.contains("://");
            let limit = if rust && !comment { CODE_COLUMNS } else { PROSE_COLUMNS };
            if line.chars().count() > limit && !((comment || !rust) && whole) && !block {
                wide += 1;
            }
        }
        if wide > 0 {
            found.insert(file.display().to_string(), wide);
        }
    }
    Ok(found)
}

/// Files are written by crate `files` alone, and those of tests by `testing`.
fn writes(sources: &[Source]) -> Found {
    let calls: [&[&str]; 4] = [
        &["fs", "::", "write", "("],
        &["fs", "::", "rename", "("],
        &["File", "::", "create", "("],
        &["OpenOptions", "::", "new", "("],
    ];
    let own = ["crates/files", "crates/testing"];
    per_file(sources.iter().filter(|s| !own.iter().any(|at| s.path.starts_with(at))), &calls)
}

/// A closed stream must not end the program: `crates/cli` has its own way to print.
fn prints(sources: &[Source]) -> Found {
    let calls: [&[&str]; 4] = [&["println", "!"], &["eprintln", "!"], &["print", "!"], &["eprint", "!"]];
    per_file(sources.iter().filter(|s| s.path.starts_with("crates/cli")), &calls)
}

fn per_file<'a>(sources: impl Iterator<Item = &'a Source>, calls: &[&[&str]]) -> Found {
    let count =
        |s: &Source| (0..s.words.len()).filter(|at| calls.iter().any(|call| s.follows(*at, call))).count();
    sources.map(|s| (s.path.display().to_string(), count(s))).filter(|(_, n)| *n > 0).collect()
}

/// Public items of libraries whose name no code but tests, benches and examples says.
fn test_only(sources: &[Source], tools: &[Source]) -> Found {
    const KINDS: [&str; 7] = ["fn", "struct", "enum", "trait", "const", "type", "static"];
    let mut said: BTreeMap<&str, usize> = BTreeMap::new();
    let mut items: Vec<(&Source, &str)> = Vec::new();
    for source in sources {
        let mut import = false;
        for (at, word) in source.words.iter().enumerate() {
            import = (import || word.text == "use") && word.text != ";";
            if !import {
                *said.entry(&word.text).or_default() += 1;
            }
            let kind = at.checked_sub(1).map_or("", |b| source.words[b].text.as_str());
            let before = at.checked_sub(2).map_or("", |b| source.words[b].text.as_str());
            let public = before == "pub" || (before == "const" && at >= 3 && source.is(at - 3, "pub"));
            if public && KINDS.contains(&kind) && word.text.starts_with(|c: char| c.is_alphabetic()) {
                items.push((source, &word.text));
            }
        }
    }
    for word in tools.iter().flat_map(|tool| &tool.words) {
        *said.entry(&word.text).or_default() += 1;
    }
    let mut found = Found::new();
    // What tests share is public for them.
    for (source, name) in items.into_iter().filter(|(source, _)| !source.path.starts_with("crates/testing")) {
        if said.get(name) == Some(&1) && name != "main" {
            found.insert(format!("{}::{name}", source.path.display()), 1);
        }
    }
    found
}
