//! Where an evaluator finds its switching keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::form::KeyForm;
use super::switching::SwitchingKey;
use crate::Error;
use crate::ids::{GaloisElement, KeyId, KeyPurpose};

/// A source of switching keys: in memory ([`KeySet`]), or loaded on demand by an implementation of
/// your own.
///
/// Implementations return any key of the purpose whose level is at least `level`; the lowest such
/// key is fastest.
pub trait EvaluationKeys: Send + Sync {
    /// The key for `purpose` that serves ciphertexts at `level`.
    ///
    /// # Errors
    /// [`Error::MissingKey`] if there is none, or whatever loading it can raise.
    fn key(&self, purpose: KeyPurpose, level: usize) -> Result<Arc<SwitchingKey>, Error>;

    /// Whether [`EvaluationKeys::key`] would find a key, if possible without loading it.
    ///
    /// # Errors
    /// [`Error::MissingKey`].
    fn check(&self, purpose: KeyPurpose, level: usize) -> Result<(), Error> {
        self.key(purpose, level).map(drop)
    }

    /// The relinearisation key for `level`.
    ///
    /// # Errors
    /// As [`EvaluationKeys::key`].
    fn relin(&self, level: usize) -> Result<Arc<SwitchingKey>, Error> {
        self.key(KeyPurpose::Relinearise, level)
    }

    /// The Galois key of `element` for `level`.
    ///
    /// # Errors
    /// As [`EvaluationKeys::key`].
    fn galois(&self, element: GaloisElement, level: usize) -> Result<Arc<SwitchingKey>, Error> {
        self.key(KeyPurpose::Galois(element), level)
    }
}

impl<K: EvaluationKeys + ?Sized> EvaluationKeys for &K {
    fn key(&self, purpose: KeyPurpose, level: usize) -> Result<Arc<SwitchingKey>, Error> {
        (**self).key(purpose, level)
    }

    fn check(&self, purpose: KeyPurpose, level: usize) -> Result<(), Error> {
        (**self).check(purpose, level)
    }
}

impl<K: EvaluationKeys + ?Sized> EvaluationKeys for Arc<K> {
    fn key(&self, purpose: KeyPurpose, level: usize) -> Result<Arc<SwitchingKey>, Error> {
        (**self).key(purpose, level)
    }

    fn check(&self, purpose: KeyPurpose, level: usize) -> Result<(), Error> {
        (**self).check(purpose, level)
    }
}

/// No keys: for circuits of additions and plaintext products only.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoKeys;

impl EvaluationKeys for NoKeys {
    fn key(&self, purpose: KeyPurpose, level: usize) -> Result<Arc<SwitchingKey>, Error> {
        Err(Error::MissingKey { purpose, level })
    }
}

/// Switching keys of one secret, in memory.
#[derive(Clone, Default)]
pub struct KeySet {
    keys: BTreeMap<KeyPurpose, Vec<Arc<SwitchingKey>>>,
}

impl KeySet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key; one of the same purpose and level is replaced.
    ///
    /// # Errors
    /// [`Error::KeyMismatch`] or [`Error::ParamsMismatch`] if the set holds keys of another secret
    /// or parameter set.
    pub fn insert(&mut self, key: impl Into<Arc<SwitchingKey>>) -> Result<(), Error> {
        let key = key.into();
        if let Some(present) = self.keys.values().flatten().next() {
            present.params().check_same("key set", key.params())?;
            if present.key_id() != key.key_id() {
                return Err(Error::KeyMismatch {
                    operation: "key set",
                    left: present.key_id(),
                    right: key.key_id(),
                });
            }
        }
        let list = self.keys.entry(key.purpose()).or_default();
        list.retain(|k| k.shape().level != key.shape().level);
        let at = list.partition_point(|k| k.shape().level < key.shape().level);
        list.insert(at, key);
        Ok(())
    }

    /// The same keys in another form; a key that nobody else holds is freed as soon as it is
    /// converted.
    ///
    /// # Errors
    /// [`Error::Ring`] only.
    pub fn into_form(mut self, form: KeyForm) -> Result<Self, Error> {
        for key in self.keys.values_mut().flatten().filter(|key| key.form() != form) {
            *key = Arc::new(key.to_form(form)?);
        }
        Ok(self)
    }

    /// Bytes that the keys take in memory.
    pub fn resident_bytes(&self) -> u64 {
        self.iter().map(|key| key.resident_bytes()).sum()
    }

    /// All keys.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<SwitchingKey>> {
        self.keys.values().flatten()
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.keys.values().map(Vec::len).sum()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The secret the keys belong to; `None` for an empty set.
    pub fn key_id(&self) -> Option<KeyId> {
        self.iter().next().map(|k| k.key_id())
    }
}

impl EvaluationKeys for KeySet {
    fn key(&self, purpose: KeyPurpose, level: usize) -> Result<Arc<SwitchingKey>, Error> {
        let fits = |list: &Vec<Arc<SwitchingKey>>| list.iter().find(|k| k.shape().level >= level).cloned();
        self.keys.get(&purpose).and_then(fits).ok_or(Error::MissingKey { purpose, level })
    }
}
