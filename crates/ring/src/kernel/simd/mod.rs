//! Vector kernels, written once over [`Lanes`] and compiled per instruction set.
//!
//! Residues stay below `2^53` in magnitude between reductions, so every float below is an exact
//! integer; the bounds in the comments are in units of the modulus.

pub(super) mod extend;
pub(super) mod inner;
pub(super) mod lanes;
pub(super) mod ntt_forward;
pub(super) mod ntt_inverse;
pub(super) mod packed;
pub(super) mod pointwise;

pub(super) use lanes::Lanes;

use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T1, _mm_prefetch};

use crate::modulus::Modulus;

/// A modulus broadcast to all lanes.
#[derive(Clone, Copy)]
struct Field<V> {
    q: V,
    recip: V,
}

impl<V: Lanes> Field<V> {
    /// # Safety
    /// The CPU must support the instructions of `V`.
    #[inline(always)]
    unsafe fn new(m: &Modulus) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self { q: V::splat(m.float()), recip: V::splat(m.recip()) } }
    }

    /// `v w` up to a multiple of `q`, for `|v| <= B`, `|w| <= 1/2`: at most `1/2 + 3B/16`.
    #[inline(always)]
    fn mul(self, v: V, w: V) -> V {
        let high = v.mul(w);
        let quotient = high.mul(self.recip).round();
        let low = v.mul_sub(w, high);
        quotient.neg_mul_add(self.q, high).add(low)
    }

    /// As [`Self::mul`] for several independent products in lockstep, given `w_over_q = w / q`: at
    /// most `1/2 + B/8`.
    #[inline(always)]
    fn mul_known<const K: usize>(self, v: [V; K], w: [V; K], w_over_q: [V; K]) -> [V; K] {
        let quotient: [V; K] = std::array::from_fn(|k| v[k].mul(w_over_q[k]));
        let high: [V; K] = std::array::from_fn(|k| v[k].mul(w[k]));
        let quotient: [V; K] = std::array::from_fn(|k| quotient[k].round());
        let low: [V; K] = std::array::from_fn(|k| v[k].mul_sub(w[k], high[k]));
        let rest: [V; K] = std::array::from_fn(|k| quotient[k].neg_mul_add(self.q, high[k]));
        std::array::from_fn(|k| rest[k].add(low[k]))
    }

    /// As [`Self::mul`] for several independent products in lockstep.
    #[inline(always)]
    fn mul_many<const K: usize>(self, v: [V; K], w: [V; K]) -> [V; K] {
        let high: [V; K] = std::array::from_fn(|k| v[k].mul(w[k]));
        let quotient: [V; K] = std::array::from_fn(|k| high[k].mul(self.recip));
        let low: [V; K] = std::array::from_fn(|k| v[k].mul_sub(w[k], high[k]));
        let quotient: [V; K] = std::array::from_fn(|k| quotient[k].round());
        let rest: [V; K] = std::array::from_fn(|k| quotient[k].neg_mul_add(self.q, high[k]));
        std::array::from_fn(|k| rest[k].add(low[k]))
    }

    /// The representative in `[-1/2, 1/2]`.
    #[inline(always)]
    fn centre(self, v: V) -> V {
        v.mul(self.recip).round().neg_mul_add(self.q, v)
    }

    /// `|v| < 1` to canonical.
    #[inline(always)]
    fn lift(self, v: V) -> V {
        v.or_if_negative(v.add(self.q))
    }

    /// `0 <= v < 2` to canonical.
    #[inline(always)]
    fn wrap(self, v: V) -> V {
        v.sub(self.q).or_if_negative(v)
    }

    /// Any `|v| < 2^53` to canonical.
    #[inline(always)]
    fn canonical(self, v: V) -> V {
        self.lift(self.centre(v))
    }
}

/// Asks for the cache line at `p`, which may be any address, in the second-level cache.
#[inline(always)]
fn prefetch(p: *const f64) {
    // SAFETY: a hint that never faults; SSE is part of x86-64.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
}

/// As [`prefetch`] for bytes.
#[inline(always)]
fn prefetch_bytes(p: *const u8) {
    prefetch(p.cast());
}

/// Asks for the cache line at `p`, which may be any address, to be written soon.
#[inline(always)]
fn prefetch_write(p: *const f64) {
    // SAFETY: a hint that never faults, and does nothing on CPUs that do not know it.
    unsafe { _mm_prefetch::<_MM_HINT_ET0>(p.cast()) }
}
