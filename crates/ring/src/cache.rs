//! Values that are derived from a ring once and shared from then on.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;

/// One map for each type of key and value; who derives a type also names its keys.
#[derive(Default)]
pub(crate) struct Cache {
    maps: Mutex<HashMap<TypeId, Box<dyn Any + Send>>>,
}

type Map<K, V> = HashMap<K, Arc<V>>;

impl Cache {
    /// The value of a key, built on first use.
    ///
    /// It is built outside the lock, as building may run in parallel or need other values: two
    /// threads may both build, and the first to store wins.
    pub(crate) fn get<K, V>(&self, key: K, build: impl FnOnce() -> Result<V>) -> Result<Arc<V>>
    where
        K: Eq + Hash + Send + 'static,
        V: Send + Sync + 'static,
    {
        if let Some(found) = self.with(|map: &mut Map<K, V>| map.get(&key).map(Arc::clone)) {
            return Ok(found);
        }
        let built = Arc::new(build()?);
        let stored =
            self.with(|map: &mut Map<K, V>| Some(Arc::clone(map.entry(key).or_insert(Arc::clone(&built)))));
        Ok(stored.unwrap_or(built))
    }

    fn with<K, V>(&self, f: impl FnOnce(&mut Map<K, V>) -> Option<Arc<V>>) -> Option<Arc<V>>
    where
        K: Send + 'static,
        V: Send + Sync + 'static,
    {
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let map = maps.entry(TypeId::of::<Map<K, V>>()).or_insert_with(|| Box::new(Map::<K, V>::new()));
        map.downcast_mut().and_then(f)
    }
}
