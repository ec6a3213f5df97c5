//! Switching keys in a directory, loaded when a circuit asks for them.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cipherlm_files::{Access, Existing};
use rayon::prelude::*;

use super::key::switching_key_label;
use super::{Header, Wire};
use crate::keys::{EvaluationKeys, KeyForm, KeySet, SwitchingKey};
use crate::{Error, KeyId, KeyPurpose, KeyShape, Params};

/// A directory with one file per switching key, and the most recently used keys in memory up to a
/// budget.
///
/// Loading checks hash, range and security of a key and makes its uniform half again from the seed,
/// which takes longer than switching with it: give the store a budget that holds the keys of a
/// circuit's inner loops.
///
/// ```
/// use cipherlm_ckks::{KeyForm, KeyRequest, KeyStore, SecretKey, presets};
/// let params = presets::insecure::small(64, 40.0, 2)?;
/// let keys = SecretKey::generate(&params)?.key_set(KeyRequest::new().relin(2))?;
/// # let folder = std::env::temp_dir().join(format!("cipherlm-ckks-doc-{}", std::process::id()));
/// KeyStore::write(&folder, &keys)?;
/// // The smallest form in memory: half a key, the other half from its seed.
/// let small = KeyStore::open(&params, &folder, 1 << 20)?.with_form(KeyForm::Seeded);
/// assert!(small.total_bytes() < keys.into_form(KeyForm::Expanded)?.resident_bytes());
/// # std::fs::remove_dir_all(&folder).expect("it was written");
/// # Ok::<(), cipherlm_ckks::Error>(())
/// ```
pub struct KeyStore {
    params: Params,
    /// Levels in increasing order.
    files: BTreeMap<KeyPurpose, Vec<Listed>>,
    key_id: Option<KeyId>,
    total: u64,
    budget: u64,
    form: KeyForm,
    cache: Mutex<Cache>,
}

/// What the header of a file said when the store was opened.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Listed {
    shape: KeyShape,
    path: PathBuf,
    key_id: KeyId,
}

/// Keys in memory, least recently used first.
#[derive(Default)]
struct Cache {
    keys: VecDeque<(KeyPurpose, u64, Arc<SwitchingKey>)>,
    bytes: u64,
}

impl Cache {
    fn position(&self, purpose: KeyPurpose, shape: KeyShape) -> Option<usize> {
        self.keys.iter().position(|(p, _, key)| *p == purpose && key.shape() == shape)
    }

    /// Puts a key at the end of the list, and drops from its front what the budget does not hold.
    fn remember(&mut self, purpose: KeyPurpose, key: &Arc<SwitchingKey>, budget: u64) {
        let entry = match self.position(purpose, key.shape()).and_then(|at| self.keys.remove(at)) {
            Some((_, bytes, _)) => (purpose, bytes, key.clone()),
            None => {
                let bytes = key.resident_bytes();
                self.bytes += bytes;
                (purpose, bytes, key.clone())
            }
        };
        self.keys.push_back(entry);
        while self.keys.len() > 1 && self.bytes > budget {
            if let Some((_, bytes, _)) = self.keys.pop_front() {
                self.bytes -= bytes;
            }
        }
    }
}

impl KeyStore {
    /// Writes the keys of a set to a directory, which must be missing or empty: keys of an earlier
    /// set would be listed with these. The directory appears whole, under its name, or not at all.
    ///
    /// # Errors
    /// [`Error::Storage`], of kind `AlreadyExists` for a directory with something in it.
    pub fn write(directory: &Path, keys: &KeySet) -> Result<(), Error> {
        cipherlm_files::check_folder(directory, Existing::Refuse).map_err(refused)?;
        let mut name = directory.file_name().unwrap_or_default().to_owned();
        // Told apart from those of other processes and threads; what one of this number left when
        // it was killed is in the way.
        static WRITTEN: AtomicUsize = AtomicUsize::new(0);
        name.push(format!(".{}-{}.part", std::process::id(), WRITTEN.fetch_add(1, Ordering::Relaxed)));
        let aside = directory.with_file_name(name);
        let _ = fs::remove_dir_all(&aside);
        let written = Self::write_into(&aside, keys)
            .and_then(|()| cipherlm_files::rename(&aside, directory).map_err(refused));
        if written.is_err() {
            let _ = fs::remove_dir_all(&aside);
        }
        written
    }

    fn write_into(directory: &Path, keys: &KeySet) -> Result<(), Error> {
        cipherlm_files::create_folder(directory).map_err(refused)?;
        keys.iter().enumerate().try_for_each(|(number, key)| {
            let path = directory.join(format!("{number:04}.key"));
            cipherlm_files::write(&path, &key.to_bytes(), Existing::Refuse, Access::Everyone).map_err(refused)
        })
    }

    /// Lists the `.key` files of a directory by their headers; no key is loaded yet. At most about
    /// `budget` bytes of keys will be in memory, but always the last one used.
    ///
    /// # Errors
    /// [`Error::Storage`]; [`Error::Wire`] or [`Error::ParamsMismatch`] for a file that is no
    /// switching key of `params`; [`Error::KeyMismatch`] for relinearisation or Galois keys of
    /// different secrets.
    pub fn open(params: &Params, directory: &Path, budget: u64) -> Result<Self, Error> {
        let mut files: BTreeMap<KeyPurpose, Vec<Listed>> = BTreeMap::new();
        let (mut owner, mut total) = (None, 0);
        for entry in fs::read_dir(directory).map_err(storage(directory))? {
            let path = entry.map_err(storage(directory))?.path();
            if path.extension().is_none_or(|e| e != "key") {
                continue;
            }
            let start = cipherlm_files::head(&path, 4096).map_err(refused)?.bytes;
            let (purpose, shape) = switching_key_label(params, &start)?;
            let key_id = Header::read(&start)?.key_id;
            // Keys between two secrets carry the id of either.
            if purpose.source().is_none() {
                let (left, right) = (*owner.get_or_insert(key_id), key_id);
                if left != right {
                    return Err(Error::KeyMismatch { operation: "key store", left, right });
                }
            }
            total += shape.resident_bytes(params);
            files.entry(purpose).or_default().push(Listed { shape, path, key_id });
        }
        files.values_mut().for_each(|list| list.sort());
        let (params, form) = (params.clone(), KeyForm::fastest(params));
        Ok(Self { params, files, key_id: owner, total, budget, form, cache: Mutex::default() })
    }

    /// Holds loaded keys in the given form, in which more of them fit the budget.
    #[must_use]
    pub fn with_form(self, form: KeyForm) -> Self {
        let shapes =
            self.files.values().flatten().map(|file| file.shape.resident_bytes_in(&self.params, form));
        Self { total: shapes.sum(), form, cache: Mutex::default(), ..self }
    }

    /// The secret that the keys belong to; `None` without any relinearisation or Galois key.
    pub fn key_id(&self) -> Option<KeyId> {
        self.key_id
    }

    /// Bytes that all keys would take in memory.
    pub fn total_bytes(&self) -> u64 {
        self.total
    }

    /// Loads and checks all keys now, if the budget holds them; without this, each is loaded when
    /// it is first asked for. `progress` is told the number of keys loaded so far.
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
            .flat_map(|(&purpose, list)| list.iter().map(move |file| (purpose, file.shape.level)))
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
        self.cache().bytes
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a key, which must be the one that was listed: files can be exchanged after the store
    /// was opened.
    fn load(&self, purpose: KeyPurpose, file: &Listed) -> Result<SwitchingKey, Error> {
        let bytes =
            cipherlm_files::read(&file.path, file.shape.stored_bytes(&self.params)).map_err(refused)?;
        let key = SwitchingKey::from_bytes_in(&self.params, &bytes, self.form)?;
        if key.purpose() != purpose {
            return Err(Error::WrongKey { operation: "key store", have: key.purpose(), need: purpose });
        }
        if key.key_id() != file.key_id {
            return Err(Error::KeyMismatch {
                operation: "key store",
                left: file.key_id,
                right: key.key_id(),
            });
        }
        if key.shape() != file.shape {
            let KeyShape { level, special } = key.shape();
            let reason = "its file held another shape when the store was opened: open it again";
            return Err(Error::BadKeyShape { level, special, reason });
        }
        Ok(key)
    }
}

impl EvaluationKeys for KeyStore {
    fn check(&self, purpose: KeyPurpose, level: usize) -> Result<(), Error> {
        let there =
            self.files.get(&purpose).is_some_and(|list| list.iter().any(|file| file.shape.level >= level));
        if there { Ok(()) } else { Err(Error::MissingKey { purpose, level }) }
    }

    fn key(&self, purpose: KeyPurpose, level: usize) -> Result<Arc<SwitchingKey>, Error> {
        let missing = Error::MissingKey { purpose, level };
        let list = self.files.get(&purpose).ok_or(missing.clone())?;
        let file = list.iter().find(|file| file.shape.level >= level).ok_or(missing)?;
        let present = {
            let cache = self.cache();
            cache
                .position(purpose, file.shape)
                .and_then(|at| cache.keys.get(at))
                .map(|(_, _, key)| key.clone())
        };
        // Loaded outside of the lock: two threads may both load a key, and the last to remember it
        // wins.
        let key = present.map_or_else(|| self.load(purpose, file).map(Arc::new), Ok)?;
        self.cache().remember(purpose, &key, self.budget);
        Ok(key)
    }
}

fn storage(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::Storage { path, kind: error.kind() }
}

fn refused(error: cipherlm_files::Error) -> Error {
    Error::Storage { path: error.path().to_owned(), kind: error.kind() }
}
