//! Checkpoints of an encrypted run: finished steps on disk, found again by content.
//!
//! A value's file is named by the plan, the encrypted prompt and the step, so a folder may serve many runs, and a run that was
//! killed goes on with exactly the ciphertexts it had. All steps are deterministic: the result is the same, bit for bit.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cipherlm_ckks::slots::Encrypted;
use cipherlm_ckks::wire::Wire;
use cipherlm_ckks::{Ciphertext, EvaluationKeys};

use crate::client::EncryptedPrompt;
use crate::error::{At, InferError, Result};
use crate::exec::Value;
use crate::run::{Done, Observer, Progress};

/// An observer that keeps what other observers see, and every value that took long to compute.
pub struct Checkpoints<'a, K> {
    dir: PathBuf,
    run: blake3::Hash,
    at_least: Duration,
    inner: &'a mut dyn Observer<Encrypted<K>>,
}

const MAGIC: &[u8; 8] = b"cipherck";

impl<'a, K> Checkpoints<'a, K> {
    /// Keeps values that took at least `at_least` in `dir`, which is made if it is missing.
    ///
    /// # Errors
    /// [`InferError::Io`].
    pub fn new(
        dir: &Path,
        prompt: &EncryptedPrompt,
        at_least: Duration,
        inner: &'a mut dyn Observer<Encrypted<K>>,
    ) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(|source| InferError::Io { path: dir.into(), source })?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(prompt.plan.as_bytes());
        prompt.ciphertexts.iter().for_each(|ciphertext| {
            hasher.update(&ciphertext.to_bytes());
        });
        Ok(Self { dir: dir.into(), run: hasher.finalize(), at_least, inner })
    }

    fn path(&self, step: usize, name: &str) -> PathBuf {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.run.as_bytes()).update(&(step as u64).to_le_bytes()).update(name.as_bytes());
        self.dir.join(format!("{}.step", &hasher.finalize().to_hex()[..40]))
    }
}

impl<K: EvaluationKeys> Observer<Encrypted<K>> for Checkpoints<'_, K> {
    fn before(&mut self, progress: &Progress<'_>) -> bool {
        self.inner.before(progress)
    }

    fn has(&self, step: usize, name: &str) -> bool {
        self.path(step, name).exists()
    }

    fn restore(&mut self, machine: &Encrypted<K>, step: usize, name: &str) -> Result<Option<Value<Encrypted<K>>>> {
        let path = self.path(step, name);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = std::fs::read(&path).map_err(|source| InferError::Io { path: path.clone(), source })?;
        let malformed = |reason: String| InferError::Malformed {
            what: format!("checkpoint {}", path.display()),
            reason: format!("{reason}; delete it to compute the step again"),
        };
        let (hash, body) = bytes.split_at_checked(40).ok_or_else(|| malformed("too short".into()))?;
        if &hash[..8] != MAGIC || hash[8..] != blake3::hash(body).as_bytes()[..] {
            return Err(malformed("its hash does not match its content".into()));
        }
        let mut rest = body;
        let mut value = vec![];
        while !rest.is_empty() {
            let (ciphertext, tail) =
                Ciphertext::from_prefix(machine.params(), rest).map_err(|e| malformed(e.to_string()))?;
            value.push(machine.input(ciphertext).at(name)?);
            rest = tail;
        }
        Ok(Some(value))
    }

    fn after(&mut self, machine: &Encrypted<K>, done: &Done<'_, Encrypted<K>>) -> Result<()> {
        if done.time + done.refresh_time >= self.at_least {
            let body: Vec<u8> = done.value.iter().flat_map(|v| v.ciphertext().to_bytes()).collect();
            let path = self.path(done.step, done.name);
            let file = [MAGIC.as_slice(), blake3::hash(&body).as_bytes(), &body].concat();
            // Written aside and renamed: a file under its final name is whole.
            let aside = path.with_extension("part");
            let io = |source| InferError::Io { path: path.clone(), source };
            std::fs::write(&aside, file).map_err(io)?;
            std::fs::rename(&aside, &path).map_err(io)?;
        }
        self.inner.after(machine, done)
    }
}
