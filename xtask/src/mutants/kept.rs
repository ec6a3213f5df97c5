//! What came of the mutants that ran before, on disk: an interrupted run goes on.
//!
//! A result holds for the sources it was found with, those of the tests too. When any source has
//! changed since, what was caught is tried again, beginning with the test that caught it; that one
//! is fast. What did not build is believed while its own file stays.

use super::list::Mutant;
use super::trial::Fate;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A line of the file.
#[derive(Serialize, Deserialize)]
struct Line {
    /// The text of the mutated file and the edit.
    key: String,
    /// All sources, the tests among them.
    #[serde(default)]
    sources: String,
    commit: String,
    name: String,
    fate: Fate,
}

/// Results of earlier runs, and where those of this one go.
pub(super) struct Kept {
    known: HashMap<String, Line>,
    sources: HashMap<String, String>,
    /// Of all sources.
    hash: String,
    commit: String,
    file: Mutex<File>,
}

impl Kept {
    /// Reads the file beside the tree; `fresh` empties it.
    pub(super) fn open(path: &Path, tree: &Path, commit: String, fresh: bool) -> anyhow::Result<Self> {
        let text = if fresh { String::new() } else { std::fs::read_to_string(path).unwrap_or_default() };
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        let known = lines.map(|line| (line.key.clone(), line)).collect();
        let file = File::options().create(true).append(true).open(path);
        let file = file.with_context(|| format!("opening {}", path.display()))?;
        if fresh {
            file.set_len(0)?;
        }
        let sources = sources(tree)?;
        let mut names: Vec<&String> = sources.keys().collect();
        names.sort();
        let hash = hash(names.into_iter().flat_map(|name| [name.as_str(), sources[name].as_str()]));
        Ok(Self { known, sources, hash, commit, file: Mutex::new(file) })
    }

    fn key(&self, mutant: &Mutant) -> String {
        let source = self.sources.get(&mutant.file).map_or("", String::as_str);
        hash([source, &mutant.name, &mutant.replacement])
    }

    /// What is known of these sources.
    pub(super) fn fate(&self, mutant: &Mutant) -> Option<Fate> {
        let line = self.known.get(&self.key(mutant))?;
        let holds = line.sources == self.hash || matches!(line.fate, Fate::Broken | Fate::NoSwitch);
        holds.then(|| line.fate.clone())
    }

    /// The test that caught it in an earlier run.
    pub(super) fn catcher(&self, mutant: &Mutant) -> Option<&str> {
        match &self.known.get(&self.key(mutant))?.fate {
            Fate::Caught(test) => Some(test),
            _ => None,
        }
    }

    /// Appends a result. One that cannot be kept is computed again.
    pub(super) fn add(&self, mutant: &Mutant, fate: &Fate) {
        let (key, sources, commit) = (self.key(mutant), self.hash.clone(), self.commit.clone());
        let line = Line { key, sources, commit, name: mutant.name.clone(), fate: fate.clone() };
        if let Ok(text) = serde_json::to_string(&line) {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = file.write_all((text + "\n").as_bytes());
        }
    }
}

/// Of parts with their lengths.
pub(super) fn hash<T: AsRef<[u8]>>(parts: impl IntoIterator<Item = T>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.as_ref().len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

/// Sources of all crates, as they are before anything is woven into them.
fn sources(tree: &Path) -> anyhow::Result<HashMap<String, String>> {
    let mut found = HashMap::new();
    let mut folders: Vec<PathBuf> = vec![tree.join("crates")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(tree).unwrap_or(&path).display().to_string();
                found.insert(name, std::fs::read_to_string(&path)?);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutants::list::{Place, Span};

    fn mutant(name: &str) -> Mutant {
        let place = Place { line: 1, column: 1 };
        Mutant {
            id: 1,
            name: name.into(),
            package: String::new(),
            file: "crates/a/src/b.rs".into(),
            genre: String::new(),
            span: Span { start: place, end: place },
            replacement: String::new(),
        }
    }

    #[test]
    fn a_result_does_not_outlive_its_test() {
        let folder = cipherlm_testing::Scratch::new("kept");
        let (source, test) = (folder.join("crates/a/src/b.rs"), folder.join("crates/a/tests/c.rs"));
        std::fs::create_dir_all(source.parent().unwrap()).unwrap();
        std::fs::create_dir_all(test.parent().unwrap()).unwrap();
        std::fs::write(&source, "fn b() {}").unwrap();
        std::fs::write(&test, "#[test] fn c() { assert!(b()) }").unwrap();
        let open = || Kept::open(&folder.join("fates"), &folder, "commit".into(), false).unwrap();
        let (caught, broken) = (Fate::Caught("c".into()), Fate::Broken);
        let kept = open();
        kept.add(&mutant("one"), &caught);
        kept.add(&mutant("two"), &broken);
        assert_eq!(open().fate(&mutant("one")), Some(caught));
        std::fs::write(&test, "#[test] fn c() {}").unwrap();
        let kept = open();
        assert_eq!((kept.fate(&mutant("one")), kept.catcher(&mutant("one"))), (None, Some("c")));
        assert_eq!(kept.fate(&mutant("two")), Some(broken));
        std::fs::write(&source, "fn b() { }").unwrap();
        assert_eq!((open().fate(&mutant("two")), open().catcher(&mutant("one"))), (None, None));
    }
}
