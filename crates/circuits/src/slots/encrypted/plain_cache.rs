//! Encoded plaintexts kept for their next use, up to a budget.

use crate::slots::{Plain, Result, Scale};
use cipherlm_ckks::Plaintext;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Which plaintext: its identity, its rotation, and the bits of its scale.
type Key = (u64, usize, u64, u64);

/// A bounded store of compact plaintexts (integer coefficients of one period, no residues).
pub(super) struct PlainCache {
    budget: usize,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    map: HashMap<Key, Arc<Plaintext>>,
    bytes: usize,
}

impl PlainCache {
    pub(super) fn new(budget: usize) -> Self {
        Self { budget, entries: Mutex::default() }
    }

    /// The stored plaintext, or the one that `encode` makes. When the budget is used up, newcomers
    /// are not kept: a circuit that runs in the same order again would otherwise evict each entry
    /// just before its use.
    pub(super) fn find(
        &self,
        plain: &Plain,
        steps: i64,
        scale: Scale,
        encode: impl FnOnce() -> Result<Plaintext>,
    ) -> Result<Arc<Plaintext>> {
        if self.budget == 0 {
            return encode().map(Arc::new);
        }
        let (high, low) = scale.to_parts();
        let rotation = steps.rem_euclid(plain.period().max(1) as i64) as usize;
        let key = (plain.id(), rotation, high.to_bits(), low.to_bits());
        let lock = || self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().map.get(&key) {
            return Ok(found.clone());
        }
        let plaintext = Arc::new(encode()?);
        let mut entries = lock();
        if entries.bytes + plaintext.bytes() <= self.budget && !entries.map.contains_key(&key) {
            entries.bytes += plaintext.bytes();
            entries.map.insert(key, plaintext.clone());
        }
        Ok(plaintext)
    }
}
