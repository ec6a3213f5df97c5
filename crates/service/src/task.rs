//! Tasks: what a worker has to know of a job, and the folder in which it finds the rest.

use std::path::{Path, PathBuf};

use cipherlm_files::{Access, Existing};
use cipherlm_protocol::{Digest, Event};
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Largest record of an answer.
const KEPT_BYTES: u64 = 4096;

/// A job, as a worker is told of it. Names alone: nothing of a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Task {
    pub(crate) tenant: String,
    pub(crate) job: Digest,
    pub(crate) key: Digest,
    pub(crate) plan: String,
}

/// What stands beside an answer: under which plan and version it was made, and what it is.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    plan: String,
    version: String,
    bytes: u64,
    blake3: Digest,
}

/// Whether a tenant's name is a plain one, of which a path may be made.
pub(crate) fn is_tenant(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=32).contains(&name.len()) && name.chars().all(fits)
}

/// The folder that a server and its workers share.
#[derive(Debug, Clone)]
pub(crate) struct Depot {
    root: PathBuf,
}

impl Depot {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// Folder of all keys: a folder for each tenant, in it one for each secret.
    pub(crate) fn all_keys(&self) -> PathBuf {
        self.root.join("keys")
    }

    /// Folder of all jobs.
    pub(crate) fn all_jobs(&self) -> PathBuf {
        self.root.join("jobs")
    }

    pub(crate) fn keys(&self, tenant: &str, key: Digest) -> PathBuf {
        self.all_keys().join(tenant).join(key.to_string())
    }

    pub(crate) fn job(&self, tenant: &str, job: Digest) -> PathBuf {
        self.all_jobs().join(tenant).join(job.to_string())
    }

    pub(crate) fn prompt(&self, task: &Task) -> PathBuf {
        self.job(&task.tenant, task.job).join("prompt")
    }

    pub(crate) fn answer(&self, task: &Task) -> PathBuf {
        self.job(&task.tenant, task.job).join("answer")
    }

    /// Folder of a job's checkpoints.
    pub(crate) fn steps(&self, task: &Task) -> PathBuf {
        self.job(&task.tenant, task.job).join("steps")
    }

    /// How many steps of a job are on disk.
    pub(crate) fn kept_steps(&self, task: &Task) -> usize {
        let entries = std::fs::read_dir(self.steps(task)).into_iter().flatten().flatten();
        entries.filter(|entry| entry.path().extension().is_some_and(|e| e == "step")).count()
    }

    fn kept_file(&self, task: &Task) -> PathBuf {
        self.job(&task.tenant, task.job).join("answer.json")
    }

    /// Puts an answer on disk, before anybody hears of it. Runs are deterministic: two workers that
    /// both keep one write the same bytes.
    pub(crate) fn keep(&self, task: &Task, answer: &[u8]) -> Result<Event> {
        let (bytes, blake3) = (answer.len() as u64, Digest::of(answer));
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let kept = Kept { plan: task.plan.clone(), version, bytes, blake3 };
        let kept = serde_json::to_vec(&kept).unwrap_or_default();
        cipherlm_files::write(&self.answer(task), answer, Existing::Replace, Access::Owner)?;
        cipherlm_files::write(&self.kept_file(task), &kept, Existing::Replace, Access::Owner)?;
        Ok(Event::Done { bytes, blake3 })
    }

    /// The answer that an earlier try left, if it is whole and of this plan and version.
    pub(crate) fn kept(&self, task: &Task) -> Option<Event> {
        let record = cipherlm_files::read(&self.kept_file(task), KEPT_BYTES).ok()?;
        let Kept { plan, version, bytes, blake3 } = serde_json::from_slice(&record).ok()?;
        if plan != task.plan || version != env!("CARGO_PKG_VERSION") {
            return None;
        }
        let answer = cipherlm_files::read(&self.answer(task), bytes).ok()?;
        (Digest::of(&answer) == blake3).then_some(Event::Done { bytes, blake3 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_found_again_unless_it_is_damaged_or_of_another_plan() {
        let root = std::env::temp_dir().join(format!("cipherlm-depot-{}", std::process::id()));
        let depot = Depot::new(&root);
        let (job, key) = (Digest::of(b"job"), Digest::of(b"key"));
        let task = Task { tenant: "owner".into(), job, key, plan: "p".into() };
        cipherlm_files::create_folder(&depot.job("owner", job)).unwrap();
        assert_eq!(depot.kept(&task), None);
        let done = depot.keep(&task, b"answer").unwrap();
        assert_eq!(depot.kept(&task), Some(done));
        assert_eq!(depot.kept(&Task { plan: "q".into(), ..task.clone() }), None);
        std::fs::write(depot.answer(&task), b"answes").unwrap();
        assert_eq!(depot.kept(&task), None);
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_tenant_is_no_path() {
        assert!(is_tenant("lab-7"));
        for bad in ["", "..", "a/b", "A", &"a".repeat(33)] {
            assert!(!is_tenant(bad), "{bad}");
        }
    }
}
