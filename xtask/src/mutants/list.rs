//! The list of mutants, as cargo-mutants makes it.

use anyhow::Context;
use serde::Deserialize;
use std::collections::HashMap;
use std::path::Path;
use xshell::{Shell, cmd};

/// A place in a file: lines and columns from 1, columns in characters.
#[derive(Deserialize, Clone, Copy)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

#[derive(Deserialize, Clone, Copy)]
pub(super) struct Span {
    pub(super) start: Place,
    pub(super) end: Place,
}

/// An edit of cargo-mutants.
#[derive(Deserialize, Clone)]
pub(super) struct Mutant {
    /// Its number here; the tests are told to turn on this one.
    #[serde(skip)]
    pub(super) id: u32,
    pub(super) name: String,
    pub(super) package: String,
    pub(super) file: String,
    pub(super) genre: String,
    pub(super) span: Span,
    pub(super) replacement: String,
}

/// The mutants of these files, numbered from 1, named without lines and told apart by a count.
pub(super) fn mutants(sh: &Shell, tree: &Path, files: &[&str]) -> anyhow::Result<Vec<Mutant>> {
    let _tree = sh.push_dir(tree);
    let files = files.iter().flat_map(|file| ["--file", file]);
    let text = cmd!(sh, "cargo mutants --list --json --workspace {files...}").quiet().read()?;
    let mut list: Vec<Mutant> = serde_json::from_str(&text).context("reading the list of cargo-mutants")?;
    let mut times: HashMap<String, usize> = HashMap::new();
    for (mutant, id) in list.iter_mut().zip(1..) {
        mutant.id = id;
        mutant.name = without_place(&mutant.name);
        let count = times.entry(mutant.name.clone()).or_default();
        *count += 1;
        if *count > 1 {
            mutant.name += &format!(" #{count}");
        }
    }
    Ok(list)
}

/// `src/a.rs:12:3: replace x` becomes `src/a.rs: replace x`: numbers of lines change with every
/// edit above them.
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
