//! What a circuit did: operations by kind, level and label, and the keys that they need.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A primitive operation, the unit of cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum OpKind {
    /// Encode a plaintext (transform and lift).
    Encode,
    /// Add or subtract two vectors, or negate one.
    Add,
    /// Add a plaintext.
    AddPlain,
    /// Multiply by a full plaintext.
    MulPlain,
    /// Multiply by a constant, or by the imaginary unit.
    MulConst,
    /// Tensor product of two vectors, before relinearisation.
    Mul,
    /// Key switch that brings a product back to two components.
    Relin,
    /// Division by the modulus of the level.
    Rescale,
    /// A whole rotation (decompose, key product, divide by the special modulus).
    Rotate,
    /// A whole conjugation.
    Conjugate,
    /// Digit decomposition and lift, shared by the hoisted rotations that follow.
    ModUp,
    /// Key product of a hoisted rotation, left over the extended modulus.
    KeyProduct,
    /// Plaintext product over the extended modulus.
    MulPlainExtended,
    /// Division of an extended value by the special modulus.
    ModDown,
    /// Bootstrap.
    Refresh,
}

/// A key that a circuit needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum KeyUse {
    /// The relinearisation key.
    Relin,
    /// The conjugation key.
    Conjugate,
    /// The key of the left rotation by this many slots (reduced to `1 .. slots`).
    Rotate(usize),
}

impl KeyUse {
    /// The rotation that the key is for, if it is for one.
    pub fn rotation(self) -> Option<usize> {
        if let Self::Rotate(steps) = self { Some(steps) } else { None }
    }
}

/// Count and time of one kind of operation at one level under one label.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OpTotal {
    /// How many were done.
    pub count: u64,
    /// Time spent in them, zero on machines that do not measure.
    pub time: Duration,
}

/// One row of a log.
#[derive(Clone, Debug, PartialEq)]
pub struct OpRow {
    /// The label that was current, or an empty string.
    pub label: Arc<str>,
    /// The primitive.
    pub kind: OpKind,
    /// Level of the operand.
    pub level: usize,
    /// Count and time.
    pub total: OpTotal,
}

/// A thread-safe record of operations, shared by a machine and whoever reads it.
#[derive(Debug, Default)]
pub struct OpLog {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    labels: Vec<Arc<str>>,
    totals: BTreeMap<(Arc<str>, OpKind, usize), OpTotal>,
    keys: BTreeMap<KeyUse, BTreeSet<usize>>,
}

impl Inner {
    fn current(&self) -> Arc<str> {
        self.labels.last().cloned().unwrap_or_else(|| Arc::from(""))
    }
}

impl OpLog {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `count` operations of `kind` at `level`.
    pub fn record(&self, kind: OpKind, level: usize, count: usize) {
        self.record_timed(kind, level, count, Duration::ZERO);
    }

    /// Adds `count` operations of `kind` at `level` that took `time` in all.
    pub fn record_timed(&self, kind: OpKind, level: usize, count: usize, time: Duration) {
        if count == 0 {
            return;
        }
        let mut inner = self.lock();
        let label = inner.current();
        let total = inner.totals.entry((label, kind, level)).or_default();
        total.count += count as u64;
        total.time += time;
    }

    /// Adds time to operations of `kind` without counting one more.
    pub fn add_time(&self, kind: OpKind, level: usize, time: Duration) {
        let mut inner = self.lock();
        let label = inner.current();
        inner.totals.entry((label, kind, level)).or_default().time += time;
    }

    /// Notes that a key is needed at `level`.
    pub fn record_key(&self, key: KeyUse, level: usize) {
        self.lock().keys.entry(key).or_default().insert(level);
    }

    /// Charges everything recorded until the guard is dropped to `label`. Labels nest; the
    /// innermost counts. One circuit at a time should set labels: the current label is the log's,
    /// not the thread's.
    pub fn label(&self, label: &str) -> LabelGuard<'_> {
        self.lock().labels.push(Arc::from(label));
        LabelGuard { log: self }
    }

    /// All rows, ordered by label, kind and level.
    pub fn rows(&self) -> Vec<OpRow> {
        let inner = self.lock();
        let row = |((label, kind, level), total): (&(Arc<str>, OpKind, usize), &OpTotal)| OpRow {
            label: label.clone(),
            kind: *kind,
            level: *level,
            total: *total,
        };
        inner.totals.iter().map(row).collect()
    }

    /// Count and time of one kind over all levels and labels.
    pub fn total(&self, kind: OpKind) -> OpTotal {
        let inner = self.lock();
        let rows = inner.totals.iter().filter(|((_, k, _), _)| *k == kind);
        rows.fold(OpTotal::default(), |sum, (_, total)| OpTotal {
            count: sum.count + total.count,
            time: sum.time + total.time,
        })
    }

    /// The keys used so far, each with the levels at which it was used; the last of them is the
    /// level to cut the key to.
    pub fn keys(&self) -> BTreeMap<KeyUse, BTreeSet<usize>> {
        self.lock().keys.clone()
    }

    /// Takes all rows and keys out, leaving the log empty (labels stay).
    pub fn clear(&self) {
        let mut inner = self.lock();
        inner.totals.clear();
        inner.keys.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a label of an [`OpLog`] when dropped.
#[derive(Debug)]
#[must_use = "the label ends when the guard is dropped"]
pub struct LabelGuard<'a> {
    log: &'a OpLog,
}

impl Drop for LabelGuard<'_> {
    fn drop(&mut self) {
        self.log.lock().labels.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_charged_to_the_innermost_label() {
        let log = OpLog::new();
        log.record(OpKind::Add, 3, 2);
        {
            let _outer = log.label("attention");
            log.record(OpKind::Mul, 3, 1);
            {
                let _inner = log.label("softmax");
                log.record_timed(OpKind::Mul, 2, 4, Duration::from_millis(5));
            }
            log.record(OpKind::Mul, 3, 1);
        }
        let rows: Vec<_> =
            log.rows().iter().map(|r| (r.label.to_string(), r.kind, r.level, r.total.count)).collect();
        assert_eq!(
            rows,
            [
                (String::new(), OpKind::Add, 3, 2),
                ("attention".into(), OpKind::Mul, 3, 2),
                ("softmax".into(), OpKind::Mul, 2, 4)
            ]
        );
        assert_eq!(log.total(OpKind::Mul), OpTotal { count: 6, time: Duration::from_millis(5) });
    }

    #[test]
    fn keys_remember_their_levels() {
        let log = OpLog::new();
        log.record_key(KeyUse::Rotate(4), 7);
        log.record_key(KeyUse::Rotate(4), 2);
        assert_eq!(log.keys()[&KeyUse::Rotate(4)].last(), Some(&7));
        log.clear();
        assert!(log.keys().is_empty() && log.rows().is_empty());
    }
}
