//! Evaluation keys in a folder, made one by one: what a client hands to a server.
//!
//! The folder holds one file per key and a description. While it is incomplete the description has
//! another name, so that a server never starts with half of the keys, and a client that was
//! interrupted goes on where it stopped: keys follow from the secret, so those that are there
//! already are the ones that would be made again.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use cipherlm_ckks::wire::Wire;
use cipherlm_ckks::{
    EvaluationKeys, KeyId, KeyPurpose, KeyRequest, KeyShape, KeyStore, MemoryBill, Params, SecretKey,
    SwitchingKey,
};
use cipherlm_files::{Access, Existing, Lock};
use cipherlm_protocol::Digest;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::refresh::Circuits;
use crate::small::SmallRings;

/// First line of a description.
const FORMAT: &str = "cipherlm evaluation keys 1";
/// The description of a complete folder.
const MANIFEST: &str = "keys.json";
/// That of a folder in the making.
const UNFINISHED: &str = "keys.unfinished.json";
/// The two keys of the ephemeral secret, which only fit each other.
const WRAPPING: [&str; 2] = ["ephemeral-to.key", "ephemeral-from.key"];
/// The keys of small messages: from the ring of prompts, and to that of answers.
const PROMPT: &str = "prompt.key";
const ANSWER: &str = "answer.key";

/// The keys that a plan asks for, known without its model.
#[derive(Debug, Clone)]
pub struct KeyOrder {
    /// Name of the model.
    pub model: String,
    /// Prompt length of the plan.
    pub tokens: usize,
    /// Prompts of a pass.
    pub prompts: usize,
    /// Identity of the plan.
    pub plan: String,
    /// Its keys and those of its refreshes, without the two of the ephemeral secret.
    pub request: KeyRequest,
    /// The rings of its small messages, if they have their own: one more key each.
    pub small: SmallRings,
    /// Whether its prompts come in at the lowest level.
    pub refresh_input: bool,
}

impl KeyOrder {
    /// What a compiled plan asks for.
    ///
    /// # Errors
    /// As [`Circuits::answer_ring`].
    pub fn of(circuits: &Circuits, plan: &Plan) -> Result<Self> {
        let request = circuits.key_request(plan);
        let small = circuits.small_rings(plan)?;
        let model = plan.model().spec().name.clone();
        let (tokens, prompts, refresh_input) = (plan.tokens(), plan.prompts(), plan.refreshes_input());
        Ok(Self { model, tokens, prompts, plan: plan.id(), request, small, refresh_input })
    }

    /// Keys in all.
    pub fn count(&self) -> usize {
        let SmallRings { prompt, answer } = &self.small;
        self.request.len() + WRAPPING.len() + prompt.iter().chain(answer).count()
    }

    /// Bytes of the keys but for the two of the ephemeral secret.
    ///
    /// # Errors
    /// Keys that the parameters cannot hold.
    pub fn bill(&self, params: &Params) -> Result<MemoryBill> {
        self.small.add_to(self.request.bill(params).map_err(at("keys"))?, params)
    }

    /// Opens keys in a folder, whatever the names of their files; at most about `budget` bytes of
    /// them will be in memory. Returns the secret they belong to.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a folder that lacks a key or holds others,
    /// [`Error::Slots`] for files that are no keys of these parameters.
    pub fn open(&self, directory: &Path, params: &Params, budget: u64) -> Result<(KeyStore, KeyId)> {
        let incomplete = |reason: String| Error::Malformed { what: directory.display().to_string(), reason };
        let store = KeyStore::open(params, directory, budget).map_err(at("evaluation keys"))?;
        let expected = self.count();
        let next = "copy the folder again, or run `cipherlm keygen --resume` where it was made";
        if let Some((purpose, level)) =
            self.request.iter().find(|&(purpose, level)| store.check(purpose, level).is_err())
        {
            return Err(incomplete(format!("it holds no {purpose} key for level {level}: {next}")));
        }
        if store.len() != expected {
            let there = store.len();
            return Err(incomplete(format!("the plan needs {expected} keys, {there} are there: {next}")));
        }
        let key_id = store.key_id().ok_or_else(|| incomplete("it holds no key of a circuit".into()))?;
        if self.small.answer.is_some() && store.check(KeyPurpose::Project(key_id), 0).is_err() {
            return Err(incomplete(format!("it holds no key to the ring of small answers: {next}")));
        }
        Ok((store, key_id))
    }
}

/// What a folder of evaluation keys was made for. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyFolder {
    /// Format and version of the folder.
    pub format: String,
    /// Name of the model.
    pub model: String,
    /// Prompt length of the plan.
    pub tokens: usize,
    /// Prompts of a pass.
    #[serde(default = "one")]
    pub prompts: usize,
    /// Whether its prompts come in at the lowest level.
    #[serde(default)]
    pub refresh_input: bool,
    /// Name of the bootstrapping profile.
    pub profile: String,
    /// log2 of the ring degree.
    pub log_degree: u32,
    /// Estimated security of the parameters, in bits.
    pub security_bits: f64,
    /// Identity of the plan.
    pub plan: String,
    /// Hash of the parameters.
    pub params: String,
    /// Identity of the secret key.
    pub key_id: String,
    /// Number of keys.
    pub keys: usize,
    /// Bytes of the key files.
    pub stored_bytes: u64,
    /// Bytes of the keys in memory, ready for use.
    pub resident_bytes: u64,
}

impl KeyFolder {
    /// What the keys of a secret for a plan will be, before any of them exists.
    ///
    /// # Errors
    /// Keys that the parameters cannot hold.
    pub fn describe(key_id: KeyId, params: &Params, order: &KeyOrder, profile: &str) -> Result<Self> {
        let bill = order.bill(params)?;
        Ok(Self {
            format: FORMAT.into(),
            model: order.model.clone(),
            tokens: order.tokens,
            prompts: order.prompts,
            refresh_input: order.refresh_input,
            profile: profile.to_owned(),
            log_degree: params.log_degree(),
            security_bits: params.security().bits,
            plan: order.plan.clone(),
            params: hex(*params.hash().as_bytes()),
            key_id: hex(*key_id.as_bytes()),
            keys: order.count(),
            stored_bytes: bill.stored_bytes,
            resident_bytes: bill.resident_bytes,
        })
    }

    /// The description in a folder, complete or in the making; `None` for a folder without one.
    ///
    /// # Errors
    /// [`Error::Files`] and [`Error::Malformed`] for a description that is there and
    /// cannot be read.
    pub fn find(directory: &Path) -> Result<Option<(Self, bool)>> {
        for (name, complete) in [(MANIFEST, true), (UNFINISHED, false)] {
            let path = directory.join(name);
            if !path.exists() {
                continue;
            }
            let text = cipherlm_files::read_text(&path, 1 << 20)?;
            let found: Self = serde_json::from_str(&text)
                .map_err(|e| Error::Malformed { what: path.display().to_string(), reason: e.to_string() })?;
            if found.format != FORMAT {
                return Err(Error::Mismatch {
                    what: "format of the key folder",
                    expected: FORMAT.into(),
                    found: found.format,
                });
            }
            return Ok(Some((found, complete)));
        }
        Ok(None)
    }

    /// Leaves the description in a folder: the client's own copy, beside its secret.
    ///
    /// # Errors
    /// [`Error::Files`].
    pub fn save(&self, directory: &Path) -> Result<()> {
        self.save_as(directory, MANIFEST)
    }

    fn save_as(&self, directory: &Path, name: &str) -> Result<()> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| Error::Malformed { what: name.into(), reason: e.to_string() })?;
        write(&directory.join(name), text.as_bytes())
    }

    /// Makes the keys of `secret` that are not in the folder, or not whole: every file is read and
    /// checked, whatever the description says. A key that is made again has the bytes that it had.
    /// `progress` is told the bytes there so far; where it returns `false`, no other is begun.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for a folder with keys of another secret, plan or parameter set,
    /// which is left as it is; [`Error::Files`]; [`Error::KeysStopped`] on request.
    pub fn write(
        &self,
        directory: &Path,
        secret: &SecretKey,
        circuits: &Circuits,
        order: &KeyOrder,
        progress: impl Fn(u64) -> bool + Sync,
    ) -> Result<()> {
        cipherlm_files::create_folder(directory)?;
        let lock = Lock::exclusive(directory)?;
        lock.sweep()?;
        if let Some((found, _)) = Self::find(directory)? {
            same("secret key of the key folder", &self.key_id, &found.key_id)?;
            same("parameters of the key folder", &self.params, &found.params)?;
            same("plan of the key folder", &self.plan, &found.plan)?;
        }
        // While a key is missing no server may start with the folder.
        self.save_as(directory, UNFINISHED)?;
        remove(&directory.join(MANIFEST))?;
        let params = circuits.params();
        let done = AtomicU64::new(0);
        let add = |bytes: u64| {
            let bytes = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
            if progress(bytes) { Ok(()) } else { Err(Error::KeysStopped { bytes }) }
        };
        let wanted: Vec<(KeyPurpose, usize)> = order.request.iter().collect();
        let count = wanted.len();
        wanted.into_par_iter().enumerate().try_for_each(|(number, (purpose, level))| {
            let shape = KeyShape::cheapest(params, level).map_err(at("keys"))?;
            let path = directory.join(format!("{number:04}.key"));
            let fits = |key: &SwitchingKey| {
                key.purpose() == purpose && key.shape() == shape && key.key_id() == secret.id()
            };
            if !whole(&path, params, shape.stored_bytes(params)).is_some_and(|key| fits(&key)) {
                let key = secret.switching_key(purpose, shape).map_err(at("keys"))?;
                write(&path, &key.to_bytes())?;
            }
            add(shape.stored_bytes(params))
        })?;
        remove_others(directory, count)?;
        for (name, key) in [PROMPT, ANSWER].into_iter().zip(order.small.keys(secret)?) {
            write_if_other(&directory.join(name), key.as_ref())?;
        }
        let paths = WRAPPING.map(|name| directory.join(name));
        if !wraps(&paths, params, secret.id()) {
            // A lone one belongs to an ephemeral secret that is gone.
            for (path, key) in paths.iter().zip(circuits.wrapping_keys(secret)?) {
                write(path, &key.to_bytes())?;
            }
        }
        Ok(cipherlm_files::rename(&directory.join(UNFINISHED), &directory.join(MANIFEST))?)
    }

    /// Opens the keys for a plan; at most about `budget` bytes of them will be in memory. Returns
    /// the secret they belong to.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for keys of another plan or parameter set,
    /// [`Error::Malformed`] for a folder that lacks a key of the plan, whatever its
    /// description says.
    pub fn open(
        directory: &Path,
        circuits: &Circuits,
        order: &KeyOrder,
        budget: u64,
    ) -> Result<(KeyStore, KeyId)> {
        let params = circuits.params();
        let what = || directory.display().to_string();
        let incomplete = |reason: &str| Error::Malformed { what: what(), reason: reason.into() };
        let Some((found, complete)) = Self::find(directory)? else {
            return Err(incomplete(
                "it holds no keys.json: give the folder that `cipherlm keygen` made for the server",
            ));
        };
        if !complete {
            return Err(incomplete(
                "its keys are not all there: run the same `cipherlm keygen` again to complete them",
            ));
        }
        same("parameters of the evaluation keys", &hex(*params.hash().as_bytes()), &found.params)?;
        same("plan of the evaluation keys", &order.plan, &found.plan)?;
        let (store, key_id) = order.open(directory, params, budget)?;
        if found.keys != store.len() {
            let (described, there) = (found.keys, store.len());
            return Err(incomplete(&format!("{described} keys are described, {there} are there")));
        }
        same("secret key of the evaluation keys", &found.key_id, &hex(*key_id.as_bytes()))?;
        Ok((store, key_id))
    }
}

/// What folders mean that say nothing of prompts.
fn one() -> usize {
    1
}

/// Writes a key that is not there already, byte for byte; without a key there is no file.
fn write_if_other(path: &Path, key: Option<&SwitchingKey>) -> Result<()> {
    let Some(key) = key.map(SwitchingKey::to_bytes) else { return remove(path) };
    let there = cipherlm_files::read(path, key.len() as u64).is_ok_and(|found| found == key);
    if there { Ok(()) } else { write(path, &key) }
}

/// The key in a file of that length, if the file is there and nothing in it is damaged.
fn whole(path: &Path, params: &Params, length: u64) -> Option<SwitchingKey> {
    let bytes = cipherlm_files::read(path, length).ok()?;
    SwitchingKey::from_bytes(params, &bytes).ok()
}

/// Whether the two wrapping keys are there, whole, and go to one ephemeral secret and back.
fn wraps(paths: &[PathBuf; 2], params: &Params, secret: KeyId) -> bool {
    let read = |path: &PathBuf| whole(path, params, std::fs::metadata(path).ok()?.len());
    let (Some(to), Some(from)) = (read(&paths[0]), read(&paths[1])) else { return false };
    from.key_id() == secret
        && to.purpose() == KeyPurpose::Switch(secret)
        && from.purpose() == KeyPurpose::Switch(to.key_id())
}

/// Removes keys that another version numbered beyond those of this one: a server would count them.
fn remove_others(directory: &Path, count: usize) -> Result<()> {
    let mut number = count;
    loop {
        let path = directory.join(format!("{number:04}.key"));
        if !path.exists() {
            return Ok(());
        }
        remove(&path)?;
        number += 1;
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::Malformed {
            what: path.display().to_string(),
            reason: format!("cannot be removed: {error}"),
        }),
        _ => Ok(()),
    }
}

fn same(what: &'static str, expected: &str, found: &str) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::Mismatch { what, expected: expected.to_owned(), found: found.to_owned() })
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    Ok(cipherlm_files::write(path, bytes, Existing::Replace, Access::Everyone)?)
}

fn hex(bytes: [u8; 32]) -> String {
    Digest::from(bytes).to_string()
}

fn at(node: &'static str) -> impl Fn(cipherlm_ckks::Error) -> Error {
    move |error| Error::Slots { node: node.to_owned(), source: error.into() }
}
