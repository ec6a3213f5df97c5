//! Checkpoints of an encrypted run: finished steps on disk, found again by content.
//!
//! A value's file is named by everything that the value depends on: the plan, the ciphertexts that
//! the run began with, the cache of its session, the step, and the version of this library. A
//! folder may so serve many runs, several at once too: all steps are deterministic, and two
//! processes that write one file write the same bytes. A file that is damaged, or another than its
//! name says, counts as missing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cipherlm_circuits::slots::{Encrypted, EncryptedVector, Primitives};
use cipherlm_ckks::wire::Wire;
use cipherlm_ckks::{Ciphertext, EvaluationKeys};
use cipherlm_files::{Access, Existing};

use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;
use crate::run::{Done, Observer, Progress, Start, Wanted};
use crate::vector::Value;

const MAGIC: &[u8; 8] = b"cipherck";
/// Version of the files.
const VERSION: u32 = 2;
/// Bytes before the ciphertexts of a checkpoint: magic, version, name, number of vectors, level,
/// hash.
const HEADER: usize = 8 + 4 + 32 + 4 + 4 + 32;

/// An observer that keeps what other observers see, and every value that took long to compute.
pub struct Checkpoints<'a, K> {
    dir: PathBuf,
    run: blake3::Hash,
    at_least: Duration,
    inner: &'a mut dyn Observer<Encrypted<K>>,
    /// Files that turned out to be damaged.
    damaged: BTreeSet<PathBuf>,
    unwritten: Option<Error>,
}

impl<'a, K> Checkpoints<'a, K> {
    /// Keeps values that took at least `at_least` in `dir`, which is made if it is missing.
    ///
    /// # Errors
    /// [`Error::Files`] when the folder cannot be made or written to.
    pub fn new(dir: &Path, at_least: Duration, inner: &'a mut dyn Observer<Encrypted<K>>) -> Result<Self> {
        cipherlm_files::create_folder(dir)?;
        cipherlm_files::check_folder(dir, Existing::Replace)?;
        let (damaged, unwritten) = (BTreeSet::new(), None);
        Ok(Self { dir: dir.into(), run: blake3::hash(b"not entered"), at_least, inner, damaged, unwritten })
    }

    /// The first value that could not be written, if any: the run went on without its checkpoint.
    pub fn unwritten(&self) -> Option<&Error> {
        self.unwritten.as_ref()
    }

    fn name(&self, step: usize, name: &str) -> blake3::Hash {
        let mut all = Fingerprint::new("cipherlm checkpoint");
        all.field("run", self.run.as_bytes());
        all.number("step", step as u64);
        all.text("name", name);
        all.finish()
    }

    fn path(&self, name: &blake3::Hash) -> PathBuf {
        self.dir.join(format!("{}.step", &name.to_hex()[..40]))
    }
}

/// Header fields before the hash.
fn prefix(name: &blake3::Hash, vectors: usize, level: usize) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend(name.as_bytes());
    out.extend((vectors as u32).to_le_bytes());
    out.extend((level as u32).to_le_bytes());
    out
}

fn seal(prefix: &[u8], body: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(prefix).update(body);
    hasher.finalize()
}

/// The vectors in a file, if it is the one that is wanted, and whole.
fn read<K: EvaluationKeys>(
    machine: &Encrypted<K>,
    bytes: &[u8],
    name: &blake3::Hash,
    wanted: &Wanted<'_>,
) -> std::result::Result<Vec<EncryptedVector>, String> {
    let (header, body) = bytes.split_at_checked(HEADER).ok_or("it is too short")?;
    let (fields, hash) = header.split_at(HEADER - 32);
    if fields != prefix(name, wanted.vectors, wanted.level) {
        return Err("it is for another step, run or version".into());
    }
    if hash != seal(fields, body).as_bytes() {
        return Err("its hash does not match its content".into());
    }
    let (mut rest, mut value) = (body, vec![]);
    while !rest.is_empty() {
        let (ciphertext, tail) =
            Ciphertext::from_prefix(machine.params(), rest).map_err(|e| e.to_string())?;
        value.push(machine.input(ciphertext).map_err(|e| e.to_string())?);
        rest = tail;
    }
    if value.len() != wanted.vectors || value.iter().any(|v| machine.level(v) != wanted.level) {
        return Err(format!("it does not hold {} vectors at level {}", wanted.vectors, wanted.level));
    }
    Ok(value)
}

impl<K: EvaluationKeys> Observer<Encrypted<K>> for Checkpoints<'_, K> {
    fn enter(&mut self, start: &Start<'_, Encrypted<K>>) -> Result<()> {
        let mut all = Fingerprint::new("cipherlm run");
        all.text("version", env!("CARGO_PKG_VERSION"));
        all.text("plan", start.plan);
        start.lengths.iter().for_each(|&length| all.number("length", length as u64));
        for vector in start.input {
            all.field("input", &vector.ciphertext().to_bytes());
        }
        if let Some(session) = start.session {
            all.number("position", session.position as u64);
            all.number("prompt", session.prompt as u64);
            for (number, block) in session.cache.iter().flatten().enumerate() {
                for vector in block.iter().flatten() {
                    all.number("block", number as u64);
                    all.field("cached", &vector.ciphertext().to_bytes());
                }
            }
        }
        self.run = all.finish();
        self.inner.enter(start)
    }

    fn before(&mut self, progress: &Progress<'_>) -> bool {
        self.inner.before(progress)
    }

    fn has(&self, step: usize, name: &str) -> bool {
        let path = self.path(&self.name(step, name));
        path.is_file() && !self.damaged.contains(&path)
    }

    fn restore(
        &mut self,
        machine: &Encrypted<K>,
        wanted: &Wanted<'_>,
    ) -> Result<Option<Value<Encrypted<K>>>> {
        if !self.has(wanted.step, wanted.name) {
            return Ok(None);
        }
        let name = self.name(wanted.step, wanted.name);
        let path = self.path(&name);
        let params = machine.params();
        let vector = 4096 + 16 * (params.limb_count(wanted.level) * params.degree()) as u64;
        let most = HEADER as u64 + wanted.vectors as u64 * vector;
        let found = cipherlm_files::read(&path, most).map_err(|e| e.to_string());
        match found.and_then(|bytes| read(machine, &bytes, &name, wanted)) {
            Ok(value) => Ok(Some(value)),
            Err(reason) => {
                tracing::warn!(file = %path.display(), reason, "checkpoint refused: the step is computed \
                    again");
                self.damaged.insert(path);
                Ok(None)
            }
        }
    }

    fn after(&mut self, machine: &Encrypted<K>, done: &Done<'_, Encrypted<K>>) -> Result<()> {
        if done.time + done.refresh_time >= self.at_least {
            let body: Vec<u8> = done.value.iter().flat_map(|v| v.ciphertext().to_bytes()).collect();
            let name = self.name(done.step, done.name);
            let level = done.value.first().map_or(0, |v| machine.level(v));
            let fields = prefix(&name, done.value.len(), level);
            let path = self.path(&name);
            let hash = seal(&fields, &body);
            let parts = [fields.as_slice(), hash.as_bytes(), &body];
            let written = cipherlm_files::write_with(&path, Existing::Replace, Access::Everyone, |out| {
                parts.iter().try_for_each(|part| out.write_all(part))
            });
            match written {
                Ok(()) => {
                    self.damaged.remove(&path);
                }
                // A full disk costs the checkpoint, not the run.
                Err(error) => {
                    tracing::warn!(%error, "checkpoint not written");
                    self.unwritten.get_or_insert(error.into());
                }
            }
        }
        self.inner.after(machine, done)
    }

    fn leave(&mut self, machine: &Encrypted<K>) {
        self.inner.leave(machine);
    }
}
