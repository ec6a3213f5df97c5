//! What came of the mutants that ran before, on disk: an interrupted run goes on, and a later one
//! tries again only what survived or changed.

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
    commit: String,
    name: String,
    fate: Fate,
}

/// Results of earlier runs, and where those of this one go.
pub(super) struct Kept {
    known: HashMap<String, Line>,
    sources: HashMap<String, String>,
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
        Ok(Self { known, sources, commit, file: Mutex::new(file) })
    }

    fn key(&self, mutant: &Mutant) -> String {
        let mut hasher = Sha256::new();
        let source = self.sources.get(&mutant.file).map_or("", String::as_str);
        for part in [source, &mutant.name, &mutant.replacement] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect()
    }

    /// What is known: everything of this commit, and what was caught or did not build in a file
    /// that is the same since.
    pub(super) fn fate(&self, mutant: &Mutant) -> Option<Fate> {
        let line = self.known.get(&self.key(mutant))?;
        let holds = line.commit == self.commit || !matches!(line.fate, Fate::Survived | Fate::Unreached);
        holds.then(|| line.fate.clone())
    }

    /// Appends a result. One that cannot be kept is computed again.
    pub(super) fn add(&self, mutant: &Mutant, fate: &Fate) {
        let (key, commit) = (self.key(mutant), self.commit.clone());
        let line = Line { key, commit, name: mutant.name.clone(), fate: fate.clone() };
        if let Ok(text) = serde_json::to_string(&line) {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = file.write_all((text + "\n").as_bytes());
        }
    }
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
