//! Aligned buffers that go back to their ring's pool when dropped.

use std::sync::{Arc, Mutex, PoisonError};

use crate::kernel::prefer_huge_pages;

/// Residues between the starts of neighbouring limbs, beyond the degree: power-of-two strides alias
/// in the caches.
pub(crate) const PADDING: usize = 72;
/// f64 in a cache line.
const LINE: usize = 8;
/// What a pool keeps at most.
const DEFAULT_LIMIT_BYTES: usize = 1 << 30;

/// Free buffers, kept for reuse: fresh memory costs page faults in the middle of hot paths.
#[derive(Debug)]
pub(crate) struct Pool {
    free: Mutex<Free>,
}

#[derive(Debug)]
struct Free {
    stores: Vec<Vec<f64>>,
    bytes: usize,
    limit: usize,
}

impl Pool {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { free: Mutex::new(Free { stores: Vec::new(), bytes: 0, limit: DEFAULT_LIMIT_BYTES }) })
    }

    /// Sets the most bytes kept, freeing what is above.
    #[cfg(test)]
    pub(crate) fn set_limit(&self, limit: usize) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.limit = limit;
        while free.bytes > limit {
            let Some(store) = free.stores.pop() else { break };
            free.bytes -= bytes(&store);
        }
    }

    /// Frees all that waits for reuse.
    pub(crate) fn clear(&self) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        (free.stores, free.bytes) = (Vec::new(), 0);
    }

    /// Bytes waiting for reuse.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }

    /// A buffer of `len` values, 64-byte aligned, its contents unspecified.
    pub(crate) fn take(self: &Arc<Self>, len: usize) -> Buffer {
        let need = len + LINE;
        let reused = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            // Levels shrink on the way through a circuit: larger buffers serve smaller needs.
            let fits = |s: &Vec<f64>| s.len() >= need && s.len() / 4 <= need;
            let best = (0..free.stores.len())
                .filter(|&i| fits(&free.stores[i]))
                .min_by_key(|&i| free.stores[i].len());
            best.map(|i| {
                let store = free.stores.swap_remove(i);
                free.bytes -= bytes(&store);
                store
            })
        };
        let store = reused.unwrap_or_else(|| fresh(need));
        let misaligned = store.as_ptr() as usize / size_of::<f64>() % LINE;
        Buffer { start: (LINE - misaligned) % LINE, len, store, pool: Arc::clone(self) }
    }

    fn give(&self, store: Vec<f64>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if store.is_empty() || bytes(&store) > free.limit {
            return;
        }
        free.bytes += bytes(&store);
        free.stores.push(store);
        // What has waited longest makes room: the sizes in use change with the level.
        while free.bytes > free.limit {
            let oldest = free.stores.remove(0);
            free.bytes -= bytes(&oldest);
        }
    }
}

/// Zeroed memory comes lazily from the system: there is time to say what pages we want before the
/// first touch.
fn fresh(len: usize) -> Vec<f64> {
    let mut store = vec![0.0; len];
    prefer_huge_pages(&mut store);
    store
}

/// As [`fresh`], for bytes.
pub(crate) fn fresh_bytes(len: usize) -> Vec<u8> {
    let mut store = vec![0; len];
    prefer_huge_pages(&mut store);
    store
}

fn bytes(store: &[f64]) -> usize {
    size_of_val(store)
}

/// A slice of f64 on a cache-line boundary.
#[derive(Debug)]
pub(crate) struct Buffer {
    store: Vec<f64>,
    start: usize,
    len: usize,
    pool: Arc<Pool>,
}

impl Buffer {
    pub(crate) fn as_slice(&self) -> &[f64] {
        &self.store[self.start..self.start + self.len]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f64] {
        &mut self.store[self.start..self.start + self.len]
    }

    /// Moves the contents out, leaving an empty buffer.
    pub(crate) fn take(&mut self) -> Self {
        let empty = Self { store: Vec::new(), start: 0, len: 0, pool: Arc::clone(&self.pool) };
        std::mem::replace(self, empty)
    }

    /// Everything allocated, whether in use or not.
    pub(crate) fn store_mut(&mut self) -> &mut [f64] {
        &mut self.store
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut copy = self.pool.take(self.len);
        copy.as_mut_slice().copy_from_slice(self.as_slice());
        copy
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.store));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_reused_and_bounded() {
        let pool = Pool::new();
        for len in [1, 7, 64, 1000] {
            let buffer = pool.take(len);
            assert_eq!(buffer.as_slice().len(), len);
            assert_eq!(buffer.as_slice().as_ptr() as usize % 64, 0);
            assert_eq!(buffer.clone().as_slice().as_ptr() as usize % 64, 0);
        }
        let kept = pool.bytes();
        assert!(kept > 0);
        drop(pool.take(1000));
        assert_eq!(pool.bytes(), kept);
        pool.clear();
        assert_eq!(pool.bytes(), 0);
        drop(pool.take(1000));
        assert!(pool.bytes() > 0);
        pool.set_limit(0);
        assert_eq!(pool.bytes(), 0);
        drop(pool.take(1000));
        assert_eq!(pool.bytes(), 0);
    }
}
