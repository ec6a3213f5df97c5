//! The inner product with packed keys: as in [`inner`](super::inner), the keys unpacked on the way.
//!
//! One stream of bytes a digit, read once: what counts is how many bytes come from memory.

use super::inner::{BASE, CHUNK, accumulate, fold};
use super::{Field, Lanes, prefetch_bytes};
use crate::kernel::packed::{GROUP, SLACK, common_length, group_bytes, inner_product_from};
use crate::modulus::Modulus;

/// Bytes ahead of the keys in use that are asked for in the second-level cache.
const AHEAD: usize = 2048;

/// # Safety
/// The CPU must support the instructions of `V`.
#[inline(always)]
pub(in crate::kernel) unsafe fn inner_product_packed<V: Lanes>(
    m: &Modulus,
    acc0: &mut [f64],
    acc1: &mut [f64],
    digits: &[&[f64]],
    keys: &[&[u8]],
) {
    let terms = digits.len().min(keys.len());
    let (digits, keys) = (&digits[..terms], &keys[..terms]);
    let groups = whole_groups(m, [acc0, acc1], digits, keys);
    let acc = [acc0.as_mut_ptr(), acc1.as_mut_ptr()];
    for start in (0..if groups == 0 { 0 } else { terms }).step_by(CHUNK) {
        let chunk = Chunk { digits: &digits[start..], keys: &keys[start..], acc, groups };
        // SAFETY: all operands have this many groups, and keys the slack after them.
        unsafe {
            match (terms - start, start != 0) {
                (1, false) => chunk.run::<V, 1, false>(m),
                (2, false) => chunk.run::<V, 2, false>(m),
                (3, false) => chunk.run::<V, 3, false>(m),
                (_, false) => chunk.run::<V, CHUNK, false>(m),
                (1, true) => chunk.run::<V, 1, true>(m),
                (2, true) => chunk.run::<V, 2, true>(m),
                (3, true) => chunk.run::<V, 3, true>(m),
                (_, true) => chunk.run::<V, CHUNK, true>(m),
            }
        }
    }
    inner_product_from(m, [acc0, acc1], digits, keys, groups);
}

/// Whole groups after which every key has [`SLACK`] more bytes.
pub(in crate::kernel) fn whole_groups(
    m: &Modulus,
    accs: [&[f64]; 2],
    digits: &[&[f64]],
    keys: &[&[u8]],
) -> usize {
    let slack = keys.iter().map(|key| key.len().saturating_sub(SLACK) / group_bytes(m)).min().unwrap_or(0);
    slack.min(common_length(m, accs, digits, keys) / GROUP)
}

/// Operands of one pass over up to [`CHUNK`] digits.
struct Chunk<'a> {
    digits: &'a [&'a [f64]],
    keys: &'a [&'a [u8]],
    acc: [*mut f64; 2],
    groups: usize,
}

impl Chunk<'_> {
    /// # Safety
    /// `D` operands of `groups > 0` groups each, keys with [`SLACK`] bytes more; the CPU supports
    /// `V`.
    #[inline(always)]
    unsafe fn run<V: Lanes, const D: usize, const ADD: bool>(&self, m: &Modulus) {
        let digits: [*const f64; D] = std::array::from_fn(|d| self.digits[d].as_ptr());
        let keys: [*const u8; D] = std::array::from_fn(|d| self.keys[d].as_ptr());
        let half = m.bits() as usize;
        // SAFETY: as promised by the caller.
        unsafe {
            let (f, base, fields) = (Field::<V>::new(m), V::splat(BASE), V::fields(m.bits()));
            for group in 0..self.groups {
                let at = group * 2 * half;
                for key in keys {
                    prefetch_bytes(key.wrapping_add(at + AHEAD));
                    prefetch_bytes(key.wrapping_add(at + AHEAD + half));
                }
                for part in 0..GROUP / V::LANES {
                    let j = group * GROUP + part * V::LANES;
                    let (mut high0, mut high1) = (base, base);
                    let (acc0, acc1) = (self.acc[0].add(j), self.acc[1].add(j));
                    let (mut low0, mut low1) =
                        if ADD { (V::load(acc0), V::load(acc1)) } else { (V::splat(0.0), V::splat(0.0)) };
                    for d in 0..D {
                        let (x, key) = (V::load(digits[d].add(j)), keys[d].add(at));
                        (high0, low0) = accumulate(high0, low0, x, V::unpack(key, part, &fields));
                        (high1, low1) = accumulate(high1, low1, x, V::unpack(key.add(half), part, &fields));
                    }
                    fold(f, high0.sub(base), low0).store(acc0);
                    fold(f, high1.sub(base), low1).store(acc1);
                }
            }
        }
    }
}
