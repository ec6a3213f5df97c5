//! Which primes of the pool a polynomial lives over.

use std::ops::Range;
use std::sync::Arc;

/// A set of indices into a [`Ring`](crate::Ring)'s prime pool, in increasing order; cloning is
/// cheap.
///
/// ```
/// use cipherlm_ring::Limbs;
/// let q = Limbs::range(0..4);
/// let p = Limbs::new([8, 7])?;
/// assert_eq!(q.union(&p).as_slice(), [0, 1, 2, 3, 7, 8]);
/// # Ok::<(), cipherlm_ring::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Limbs(Arc<[u16]>);

impl Limbs {
    /// The set of these indices, which increase.
    pub(crate) fn from_sorted(indices: Vec<u16>) -> Self {
        Self(indices.into())
    }

    /// All indices of a range, cut at `u16::MAX`.
    pub fn range(range: Range<usize>) -> Self {
        let cut = |i: usize| i.min(usize::from(u16::MAX)) as u16;
        Self((cut(range.start)..cut(range.end)).collect())
    }

    /// Number of limbs.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pool indices, increasing.
    pub fn as_slice(&self) -> &[u16] {
        &self.0
    }

    /// The pool indices, increasing.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = usize> + ExactSizeIterator + '_ {
        self.0.iter().map(|&i| usize::from(i))
    }

    /// Position of a pool index within the set.
    pub fn position(&self, index: usize) -> Option<usize> {
        let index = u16::try_from(index).ok()?;
        // Most sets are prefixes of the pool.
        match self.0.get(usize::from(index)) {
            Some(&i) if i == index => Some(usize::from(index)),
            _ => self.0.binary_search(&index).ok(),
        }
    }

    /// Whether a pool index is in the set.
    pub fn contains(&self, index: usize) -> bool {
        self.position(index).is_some()
    }

    /// Whether every limb of `other` is here too.
    pub fn contains_all(&self, other: &Self) -> bool {
        other.iter().all(|i| self.contains(i))
    }

    /// Whether no limb is in both.
    pub fn is_disjoint(&self, other: &Self) -> bool {
        !other.iter().any(|i| self.contains(i))
    }

    /// Limbs in either.
    pub fn union(&self, other: &Self) -> Self {
        let mut list: Vec<u16> = self.0.iter().chain(other.0.iter()).copied().collect();
        list.sort_unstable();
        list.dedup();
        Self(list.into())
    }

    /// Limbs here and not in `other`.
    pub fn difference(&self, other: &Self) -> Self {
        Self(self.0.iter().filter(|&&i| !other.contains(usize::from(i))).copied().collect())
    }

    /// Limbs in both.
    pub(crate) fn intersection(&self, other: &Self) -> Self {
        Self(self.0.iter().filter(|&&i| other.contains(usize::from(i))).copied().collect())
    }

    /// The first `count` limbs (all of them when there are fewer).
    pub fn first(&self, count: usize) -> Self {
        Self(self.0[..count.min(self.len())].into())
    }

    /// The last `count` limbs (all of them when there are fewer).
    pub fn last(&self, count: usize) -> Self {
        Self(self.0[self.len() - count.min(self.len())..].into())
    }
}

impl std::fmt::Debug for Limbs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0.first(), self.0.last()) {
            (Some(&a), Some(&b)) if self.len() > 2 && usize::from(b - a) + 1 == self.len() => {
                write!(f, "[{a}..={b}]")
            }
            _ => f.debug_list().entries(self.0.iter()).finish(),
        }
    }
}
