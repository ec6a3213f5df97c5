//! Switching keys in a directory, loaded when a circuit asks for them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use super::{EvaluationKeys, KeyForm, KeyId, KeyPurpose, KeySet, SwitchingKey};
use crate::wire::{Header, Wire, switching_key_label};
use crate::{Error, KeyShape, Params};

/// A directory with one file per switching key, and the most recently used keys in memory up to a budget.
///
/// Loading checks hash, range and security of a key and makes its uniform half again from the seed, which takes longer than
/// switching with it: give the store a budget that holds the keys of a circuit's inner loops.
pub struct KeyStore {
    params: Params,
    /// Levels in increasing order.
    files: BTreeMap<KeyPurpose, Vec<(KeyShape, PathBuf)>>,
    key_id: Option<KeyId>,
    total: u64,
    budget: u64,
    form: KeyForm,
    /// Least recently used first.
    loaded: Mutex<Vec<(KeyPurpose, Arc<SwitchingKey>)>>,
}

impl KeyStore {
    /// Writes the keys of a set to a directory, which is created if need be.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub fn write(directory: &Path, keys: &KeySet) -> Result<(), Error> {
        fs::create_dir_all(directory).map_err(storage(directory))?;
        for (number, key) in keys.iter().enumerate() {
            let path = directory.join(format!("{number:04}.key"));
            let mut file = File::create(&path).map_err(storage(&path))?;
            file.write_all(&key.to_bytes()).map_err(storage(&path))?;
        }
        Ok(())
    }

    /// Lists the `.key` files of a directory by their headers; no key is loaded yet. At most about `budget` bytes of keys
    /// will be in memory, but always the last one used.
    ///
    /// # Errors
    /// [`Error::Storage`]; [`Error::Wire`] or [`Error::ParamsMismatch`] for a file that is no switching key of `params`;
    /// [`Error::KeyMismatch`] for relinearisation or Galois keys of different secrets.
    pub fn open(params: &Params, directory: &Path, budget: u64) -> Result<Self, Error> {
        let mut files: BTreeMap<KeyPurpose, Vec<(KeyShape, PathBuf)>> = BTreeMap::new();
        let (mut key_id, mut total) = (None, 0);
        for entry in fs::read_dir(directory).map_err(storage(directory))? {
            let path = entry.map_err(storage(directory))?.path();
            if path.extension().is_none_or(|e| e != "key") {
                continue;
            }
            let mut start = Vec::new();
            let file = File::open(&path).map_err(storage(&path))?;
            file.take(4096).read_to_end(&mut start).map_err(storage(&path))?;
            let (purpose, shape) = switching_key_label(params, &start)?;
            // Keys between two secrets carry the id of either.
            if !matches!(purpose, KeyPurpose::Switch(_)) {
                let (left, right) = (*key_id.get_or_insert(Header::read(&start)?.key_id), Header::read(&start)?.key_id);
                if left != right {
                    return Err(Error::KeyMismatch { operation: "key store", left, right });
                }
            }
            total += shape.resident_bytes(params);
            files.entry(purpose).or_default().push((shape, path));
        }
        files.values_mut().for_each(|list| list.sort());
        Ok(Self {
            params: params.clone(),
            files,
            key_id,
            total,
            budget,
            form: KeyForm::fastest(params),
            loaded: Mutex::default(),
        })
    }

    /// Holds loaded keys in the given form, in which more of them fit the budget.
    #[must_use]
    pub fn with_form(self, form: KeyForm) -> Self {
        let shapes = self.files.values().flatten().map(|(shape, _)| shape.resident_bytes_in(&self.params, form));
        Self { total: shapes.sum(), form, loaded: Mutex::default(), ..self }
    }

    /// The secret that the keys belong to; `None` without any relinearisation or Galois key.
    pub fn key_id(&self) -> Option<KeyId> {
        self.key_id
    }

    /// Bytes that all keys would take in memory.
    pub fn total_bytes(&self) -> u64 {
        self.total
    }

    /// Loads and checks all keys now, if the budget holds them; without this, each is loaded when it is first asked for.
    /// `progress` is told the number of keys loaded so far.
    ///
    /// # Errors
    /// As loading: [`Error::Storage`], [`Error::Wire`].
    pub fn preload(&self, progress: impl Fn(usize) + Sync) -> Result<(), Error> {
        if self.total > self.budget {
            return Ok(());
        }
        let all: Vec<(KeyPurpose, usize)> = self
            .files
            .iter()
            .flat_map(|(&purpose, list)| list.iter().map(move |(shape, _)| (purpose, shape.level)))
            .collect();
        let loaded = AtomicUsize::new(0);
        all.into_par_iter().try_for_each(|(purpose, level)| {
            self.key(purpose, level)?;
            progress(loaded.fetch_add(1, Ordering::Relaxed) + 1);
            Ok(())
        })
    }

    /// Number of keys in the directory.
    pub fn len(&self) -> usize {
        self.files.values().map(Vec::len).sum()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Bytes of the keys now in memory.
    pub fn resident_bytes(&self) -> u64 {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.iter().map(|(_, key)| key.resident_bytes()).sum()
    }

    /// Puts a key at the end of the list and drops from its front what the budget does not hold.
    fn remember(&self, purpose: KeyPurpose, key: &Arc<SwitchingKey>) {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.retain(|(_, have)| !(have.purpose() == key.purpose() && have.shape() == key.shape()));
        loaded.push((purpose, key.clone()));
        let bytes = |list: &[(KeyPurpose, Arc<SwitchingKey>)]| -> u64 {
            list.iter().map(|(_, key)| key.resident_bytes()).sum()
        };
        while loaded.len() > 1 && bytes(&loaded) > self.budget {
            loaded.remove(0);
        }
    }
}

impl EvaluationKeys for KeyStore {
    fn check(&self, purpose: KeyPurpose, level: usize) -> Result<(), Error> {
        let there = self.files.get(&purpose).is_some_and(|list| list.iter().any(|(have, _)| have.level >= level));
        if there { Ok(()) } else { Err(Error::MissingKey { purpose, level }) }
    }

    fn key(&self, purpose: KeyPurpose, level: usize) -> Result<Arc<SwitchingKey>, Error> {
        let missing = Error::MissingKey { purpose, level };
        let list = self.files.get(&purpose).ok_or(missing.clone())?;
        let (found, path) = list.iter().find(|(have, _)| have.level >= level).ok_or(missing)?;
        let present = {
            let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
            loaded.iter().find(|(p, key)| *p == purpose && key.shape() == *found).map(|(_, key)| key.clone())
        };
        // Loaded outside of the lock: two threads may both load a key, and the last to remember it wins.
        let key = match present {
            Some(key) => key,
            None => {
                let bytes = fs::read(path).map_err(storage(path))?;
                Arc::new(SwitchingKey::from_bytes_in(&self.params, &bytes, self.form)?)
            }
        };
        self.remember(purpose, &key);
        Ok(key)
    }
}

fn storage(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::Storage { path, kind: error.kind() }
}
