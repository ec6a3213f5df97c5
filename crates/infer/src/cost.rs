//! What primitives cost, by level.

use cipherlm_ckks::slots::{OpKind, RefreshKind};
use serde::{Deserialize, Serialize};

/// Seconds of each primitive as a function of the level, from a few measured kernels (ring degree 2^16 unless scaled).
///
/// A key switch of `l` limbs with `k` special primes in digits of `k` limbs does `b (l + k) + 2 (k + l)` transforms,
/// `N (b k l + 2 k l)` multiply-adds of basis extension and `2 b (l + k)` limb products with the key, `b = ceil(l / k)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostModel {
    /// Seconds of one transform of one limb.
    pub transform: f64,
    /// Seconds of one multiply-add of basis extension over a whole limb.
    pub extend: f64,
    /// Seconds of one product of a limb with a key or plaintext limb.
    pub product: f64,
    /// Seconds to embed one full plaintext, before its transforms.
    pub embed: f64,
    /// Special primes.
    pub special: usize,
    /// Primes at level 0.
    pub below: usize,
    /// Seconds of a full refresh.
    pub refresh_full: f64,
    /// Seconds of a real one.
    pub refresh_real: f64,
    /// Seconds of a sparse one of few slots; in between, the time grows with the logarithm of the period.
    pub refresh_sparse: f64,
    /// Working threads, and how much faster than one they are.
    pub speedup: f64,
}

impl Default for CostModel {
    fn default() -> Self {
        Self {
            transform: 0.22e-3,
            extend: 27.5e-6,
            product: 75e-6,
            embed: 2.0e-3,
            special: 7,
            below: 1,
            refresh_full: 4.5,
            refresh_real: 3.4,
            refresh_sparse: 1.8,
            speedup: 1.7,
        }
    }
}

impl CostModel {
    /// Seconds of one primitive at a level, on all threads.
    pub fn seconds(&self, kind: OpKind, level: usize) -> f64 {
        let (l, k) = ((level + self.below) as f64, self.special as f64);
        let digits = (l / k).ceil();
        let mod_up = digits * (l + k) * self.transform + digits * k * l * self.extend;
        let inner = 2.0 * digits * (l + k) * self.product;
        let mod_down = 2.0 * (k + l) * self.transform + 2.0 * k * l * self.extend;
        let one = match kind {
            OpKind::Encode => self.embed + l * self.transform,
            OpKind::Add | OpKind::AddPlain => l * 0.5 * self.product,
            OpKind::MulPlain => self.embed + l * self.transform + 2.0 * l * self.product,
            OpKind::MulConst => 2.0 * l * self.product,
            OpKind::Mul => 4.0 * l * self.product,
            OpKind::Rescale => 2.0 * l * self.transform,
            OpKind::Relin | OpKind::Rotate | OpKind::Conjugate => mod_up + inner + mod_down,
            OpKind::ModUp => mod_up,
            OpKind::KeyProduct => inner,
            OpKind::MulPlainExtended => 2.0 * (l + k) * self.product,
            OpKind::ModDown => mod_down,
            _ => 0.0,
        };
        one / self.speedup
    }

    /// Seconds of one refresh of one (possibly complex) vector of `slots` slots.
    pub fn refresh(&self, kind: RefreshKind, slots: usize) -> f64 {
        let share = |period: usize| (period.max(2) as f64).log2() / (slots.max(2) as f64).log2();
        let between = |top: f64, period: usize| self.refresh_sparse + (top - self.refresh_sparse) * share(period);
        let one = match kind {
            RefreshKind::Real => self.refresh_real,
            RefreshKind::Sparse(period) => between(self.refresh_full, period),
            RefreshKind::SparseReal(period) => between(self.refresh_real, period),
            _ => self.refresh_full,
        };
        one / self.speedup
    }
}
