//! The key-switch inner product: sums of products, reduced once.
//!
//! A running sum `high` that starts at a large constant takes `a b` rounded to a multiple of its
//! last place; the exact remainder `a b - (new high - old high)` goes to a running sum `low`. Two
//! multiply-adds and two additions a product, half of each kind, against seven operations with a
//! reduction each.

use super::{Field, Lanes, prefetch};
use crate::modulus::Modulus;

/// Products per reduction: at most `2^102` together, so that `high` stays in `[2^102, 2^103]` with
/// last place `2^50`.
pub(super) const CHUNK: usize = 4;
/// Distance of prefetching; keys come from main memory. Into the second-level cache: lines asked
/// for in the first one this early push each other out, and cost more than they save.
const AHEAD: usize = 512;
pub(super) const BASE: f64 = (1u128 << 102) as f64;

/// # Safety
/// The CPU must support the instructions of `V`.
#[inline(always)]
pub(in crate::kernel) unsafe fn inner_product2<V: Lanes>(
    m: &Modulus,
    acc0: &mut [f64],
    acc1: &mut [f64],
    digits: &[&[f64]],
    key0: &[&[f64]],
    key1: &[&[f64]],
) {
    let terms = digits.len().min(key0.len()).min(key1.len());
    if terms == 0 {
        return;
    }
    let (digits, key0, key1) = (&digits[..terms], &key0[..terms], &key1[..terms]);
    let operands = digits.iter().chain(key0).chain(key1);
    let n = operands.map(|x| x.len()).chain([acc0.len(), acc1.len()]).min().unwrap_or(0);
    let whole = n - n % V::LANES;
    for start in (0..if whole == 0 { 0 } else { terms }).step_by(CHUNK) {
        let chunk = Chunk {
            digits: &digits[start..],
            key0: &key0[start..],
            key1: &key1[start..],
            acc: [acc0.as_mut_ptr(), acc1.as_mut_ptr()],
            n: whole,
        };
        // SAFETY: every slice has `whole` elements.
        unsafe {
            match terms - start {
                1 => chunk.run::<V, 1>(m),
                2 => chunk.run::<V, 2>(m),
                3 => chunk.run::<V, 3>(m),
                _ => chunk.run::<V, CHUNK>(m),
            }
        }
    }
    for j in whole..n {
        for ((d, k0), k1) in digits.iter().zip(key0).zip(key1) {
            acc0[j] = m.add_f64(acc0[j], m.mul_f64(d[j], k0[j]));
            acc1[j] = m.add_f64(acc1[j], m.mul_f64(d[j], k1[j]));
        }
    }
}

/// Operands of one pass over up to [`CHUNK`] digits.
struct Chunk<'a> {
    digits: &'a [&'a [f64]],
    key0: &'a [&'a [f64]],
    key1: &'a [&'a [f64]],
    acc: [*mut f64; 2],
    n: usize,
}

impl Chunk<'_> {
    /// # Safety
    /// `D <= CHUNK` operands, each of `n` elements; the CPU supports `V`.
    #[inline(always)]
    unsafe fn run<V: Lanes, const D: usize>(&self, m: &Modulus) {
        let digits: [*const f64; D] = std::array::from_fn(|d| self.digits[d].as_ptr());
        let key0: [*const f64; D] = std::array::from_fn(|d| self.key0[d].as_ptr());
        let key1: [*const f64; D] = std::array::from_fn(|d| self.key1[d].as_ptr());
        // SAFETY: as promised by the caller.
        unsafe {
            let f = Field::<V>::new(m);
            let base = V::splat(BASE);
            // Pipelined: the division of one position overlaps the sums of the next.
            let mut old = self.sums::<V, D>(base, digits, key0, key1, 0);
            for j in (V::LANES..self.n).step_by(V::LANES) {
                if j % 8 == 0 {
                    for d in 0..D {
                        prefetch(key0[d].wrapping_add(j + AHEAD));
                        prefetch(key1[d].wrapping_add(j + AHEAD));
                    }
                }
                let new = self.sums::<V, D>(base, digits, key0, key1, j);
                fold(f, old[0], old[1]).store(self.acc[0].add(j - V::LANES));
                fold(f, old[2], old[3]).store(self.acc[1].add(j - V::LANES));
                old = new;
            }
            let last = self.n - V::LANES;
            fold(f, old[0], old[1]).store(self.acc[0].add(last));
            fold(f, old[2], old[3]).store(self.acc[1].add(last));
        }
    }

    /// Both halves' sums at one position, as high and low parts.
    ///
    /// # Safety
    /// As [`Self::run`], for the position.
    #[inline(always)]
    unsafe fn sums<V: Lanes, const D: usize>(
        &self,
        base: V,
        digits: [*const f64; D],
        key0: [*const f64; D],
        key1: [*const f64; D],
        j: usize,
    ) -> [V; 4] {
        // SAFETY: as promised by the caller.
        unsafe {
            let (mut high0, mut high1) = (base, base);
            let (mut low0, mut low1) = (V::load(self.acc[0].add(j)), V::load(self.acc[1].add(j)));
            for d in 0..D {
                let x = V::load(digits[d].add(j));
                (high0, low0) = accumulate(high0, low0, x, V::load(key0[d].add(j)));
                (high1, low1) = accumulate(high1, low1, x, V::load(key1[d].add(j)));
            }
            [high0.sub(base), low0, high1.sub(base), low1]
        }
    }
}

/// Adds `x y` to `high + low`.
#[inline(always)]
pub(super) fn accumulate<V: Lanes>(high: V, low: V, x: V, y: V) -> (V, V) {
    let next = x.mul_add(y, high);
    (next, x.mul_add(y, high.sub(next)).add(low))
}

/// `high + low` to canonical, for `high <= 4 q^2` (the rest of the division is at most 2) and
/// `low <= 4`.
#[inline(always)]
pub(super) fn fold<V: Lanes>(f: Field<V>, high: V, low: V) -> V {
    f.canonical(f.centre(high).add(low))
}
