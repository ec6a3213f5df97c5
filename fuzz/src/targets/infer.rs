//! Files of a run: a checkpoint, a folder of keys, its description.

use std::path::PathBuf;
use std::time::Duration;

use cipherlm_circuits::slots::Encrypted;
use cipherlm_ckks::{EvaluationKeys, KeyPurpose, KeyStore, NoKeys, Wire};
use cipherlm_infer::{Checkpoints, Done, KeyFolder, Observer, Operator, Progress, Wanted};

use super::wire::{World, key_id, reseal};
use super::{Target, Verdict, binary_ceiling, json_ceiling, scratch_folder};
use crate::engine::Probe;
use crate::mutate::{bytes, join, json, split};
use crate::rng::Rng;

type Machine = Encrypted<NoKeys>;

/// A finished step on disk.
pub(crate) struct Checkpoint {
    machine: Machine,
    folder: PathBuf,
    file: PathBuf,
    seed: Vec<u8>,
}

const WANTED: Wanted<'static> = Wanted { step: 3, name: "layers.0.attn.q", vectors: 2, level: 1 };
/// Bytes before the hash of a step, and before its ciphertexts.
const FIELDS: usize = 52;
const HEADER: usize = FIELDS + 32;

impl Checkpoint {
    pub(super) fn new() -> anyhow::Result<Self> {
        let world = World::new()?;
        let machine = Machine::new(&world.params, key_id(&world), NoKeys)?;
        let folder = scratch_folder("checkpoint")?;
        let value = [world.encrypt(1)?, world.evaluator.neg(&world.encrypt(1)?)?]
            .into_iter()
            .map(|c| machine.input(c))
            .collect::<Result<Vec<_>, _>>()?;
        let mut inner = |_: &Progress<'_>| true;
        let mut kept = Checkpoints::new(&folder, Duration::ZERO, &mut inner)?;
        let done = Done {
            step: WANTED.step,
            name: WANTED.name,
            class: Operator::PlainMatmul,
            layer: None,
            value: &value,
            time: Duration::from_secs(1),
            refresh_time: Duration::ZERO,
            refreshes: 0,
        };
        kept.after(&machine, &done)?;
        let mut files = std::fs::read_dir(&folder)?.flatten().map(|entry| entry.path());
        let file = files.find(|path| path.extension().is_some_and(|e| e == "step"));
        let file = file.ok_or_else(|| anyhow::anyhow!("no step was written"))?;
        let seed = std::fs::read(&file)?;
        Ok(Self { machine, folder, file, seed })
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Target for Checkpoint {
    fn seeds(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        Ok(vec![self.seed.clone()])
    }

    fn reseal(&self, input: &mut Vec<u8>) {
        reseal(input, HEADER);
        if input.len() >= HEADER {
            let hash = blake3::hash(&[&input[..FIELDS], &input[HEADER..]].concat());
            input[FIELDS..HEADER].copy_from_slice(hash.as_bytes());
        }
    }

    fn run(&self, input: &[u8], probe: &mut Probe) -> Verdict {
        if let Err(error) = std::fs::write(&self.file, input) {
            return Verdict::Refused(format!("the test could not write: {error}"));
        }
        let mut inner = |_: &Progress<'_>| true;
        let found = Checkpoints::new(&self.folder, Duration::ZERO, &mut inner)
            .and_then(|mut kept| probe.parse(|| kept.restore(&self.machine, &WANTED)));
        match found {
            Err(error) => Verdict::Refused(error.to_string()),
            Ok(None) => Verdict::Refused("to be computed again".into()),
            Ok(Some(value)) => {
                let again: Vec<u8> = value.iter().flat_map(|v| v.ciphertext().to_bytes()).collect();
                let same =
                    input.get(input.len().saturating_sub(again.len())..) == Some(&again) && !value.is_empty();
                if same { Verdict::Accepted } else { Verdict::Wrong("restored, it is another value".into()) }
            }
        }
    }

    fn ceiling(&self, length: usize) -> usize {
        // The file itself is read into memory.
        binary_ceiling(length) + length
    }
}

/// `keys.json`, the description of a folder of keys.
pub(crate) struct Description {
    folder: PathBuf,
}

impl Description {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self { folder: scratch_folder("description")? })
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn description(world: &World) -> serde_json::Value {
    serde_json::json!({
        "format": "cipherlm evaluation keys 1", "model": "tiny", "tokens": 8, "profile": "insecure",
        "log_degree": 4,
        "security_bits": 1.5, "plan": "0123456789abcdef".repeat(2), "params": world.params.hash().to_string(),
        "key_id": world.secret.id().to_string(), "keys": 4, "stored_bytes": 4000, "resident_bytes": 16000,
    })
}

impl Target for Description {
    fn seeds(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        Ok(vec![serde_json::to_vec(&description(&World::new()?))?])
    }

    fn mutate(&self, input: &mut Vec<u8>, pool: &[Vec<u8>], rng: &mut Rng) {
        json(input, pool, rng);
    }

    fn run(&self, input: &[u8], probe: &mut Probe) -> Verdict {
        if let Err(error) = std::fs::write(self.folder.join("keys.json"), input) {
            return Verdict::Refused(format!("the test could not write: {error}"));
        }
        let found = match probe.parse(|| KeyFolder::find(&self.folder)) {
            Err(error) => return Verdict::Refused(error.to_string()),
            Ok(None) => return Verdict::Wrong("the file that is there was not found".into()),
            Ok(Some((found, complete))) if complete => found,
            Ok(Some(_)) => return Verdict::Wrong("a complete folder was called incomplete".into()),
        };
        let text = serde_json::to_vec(&found).and_then(|text| serde_json::from_slice::<KeyFolder>(&text));
        match text {
            Ok(again) if again == found => Verdict::Accepted,
            Ok(_) => Verdict::Wrong("saved and loaded, it is another description".into()),
            Err(error) => Verdict::Wrong(format!("accepted; saved, it is refused: {error}")),
        }
    }

    fn ceiling(&self, length: usize) -> usize {
        json_ceiling(length)
    }
}

/// Key files of a folder, opened by their headers and then loaded.
pub(crate) struct Folder {
    world: World,
    folder: PathBuf,
}

/// Files of a folder.
const KEYS: usize = 4;

impl Folder {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self { world: World::new()?, folder: scratch_folder("folder")? })
    }

    fn wanted(&self) -> Vec<(KeyPurpose, usize)> {
        self.world.evaluator.keys().iter().map(|key| (key.purpose(), key.shape().level)).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Target for Folder {
    fn seeds(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        let keys: Vec<Vec<u8>> = self.world.evaluator.keys().iter().map(|key| key.to_bytes()).collect();
        Ok(vec![join(&keys)])
    }

    fn mutate(&self, input: &mut Vec<u8>, pool: &[Vec<u8>], rng: &mut Rng) {
        let mut parts = split(input, KEYS);
        let (one, two) = (rng.below(KEYS), rng.below(KEYS));
        match rng.below(8) {
            0 => parts.swap(one, two),
            1 => {
                let other = rng.pick(pool).map(|other| split(other, KEYS)).unwrap_or_default();
                if let Some(part) = other.get(two) {
                    parts[one].clone_from(part);
                }
            }
            2 => parts[one].clear(),
            _ => bytes(&mut parts[one], pool, rng),
        }
        *input = join(&parts);
    }

    fn reseal(&self, input: &mut Vec<u8>) {
        let mut parts = split(input, KEYS);
        parts.iter_mut().for_each(|part| reseal(part, 0));
        *input = join(&parts);
    }

    fn run(&self, input: &[u8], probe: &mut Probe) -> Verdict {
        let parts = split(input, KEYS);
        for (number, part) in parts.iter().enumerate() {
            let path = self.folder.join(format!("{number:04}.key"));
            // An empty part is a file that is not there.
            let done = if part.is_empty() {
                drop(std::fs::remove_file(&path));
                Ok(())
            } else {
                std::fs::write(&path, part)
            };
            if let Err(error) = done {
                return Verdict::Refused(format!("the test could not write: {error}"));
            }
        }
        let store = match probe.parse(|| KeyStore::open(&self.world.params, &self.folder, u64::MAX)) {
            Ok(store) => store,
            Err(error) => return Verdict::Refused(error.to_string()),
        };
        let mut refused = None;
        for (purpose, level) in self.wanted() {
            match probe.parse(|| store.key(purpose, level)) {
                Ok(key) if key.purpose() != purpose || key.shape().level < level => {
                    return Verdict::Wrong(format!(
                        "asked for {purpose:?} at level {level}, got {:?}",
                        key.purpose()
                    ));
                }
                Ok(key) if Some(key.key_id()) != store.key_id() => {
                    return Verdict::Wrong(format!(
                        "a key of {} in a store of {:?}",
                        key.key_id(),
                        store.key_id()
                    ));
                }
                Ok(key) if !parts.contains(&key.to_bytes()) => {
                    return Verdict::Wrong("the key that was loaded is in no file".into());
                }
                Ok(_) => {}
                Err(error) => refused = Some(error.to_string()),
            }
        }
        refused.map_or(Verdict::Accepted, Verdict::Refused)
    }

    fn ceiling(&self, length: usize) -> usize {
        // The files themselves are read into memory, and messages hold their paths.
        binary_ceiling(length) + length + (32 << 10)
    }
}
