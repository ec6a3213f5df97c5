//! The inner product with packed keys: sums of low and of high halves of products, reduced once.

use std::arch::x86_64::*;

use crate::kernel::packed::{GROUP, inner_product_from};
use crate::kernel::simd::packed::whole_groups;
use crate::modulus::Modulus;

/// Products per reduction, so that their sum stays below `4 q^2`.
const CHUNK: usize = 4;
/// Bytes ahead of the keys in use that are asked for in the second-level cache.
const AHEAD: usize = 2048;
/// Integers below `2^52` in the low bits of this float are added to it.
const LOW: f64 = (1u64 << 52) as f64;
/// The same times `2^52`.
const HIGH: f64 = LOW * LOW;
/// The low 52 bits.
const MASK: i64 = (1 << 52) - 1;

pub(super) fn inner_product_packed(
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
        // SAFETY: all operands have this many groups, and keys the slack after them; `kernel` hands
        // this out only after detecting the features.
        unsafe {
            match (terms - start, start != 0) {
                (1, false) => chunk.run::<1, false>(m),
                (2, false) => chunk.run::<2, false>(m),
                (3, false) => chunk.run::<3, false>(m),
                (_, false) => chunk.run::<CHUNK, false>(m),
                (1, true) => chunk.run::<1, true>(m),
                (2, true) => chunk.run::<2, true>(m),
                (3, true) => chunk.run::<3, true>(m),
                (_, true) => chunk.run::<CHUNK, true>(m),
            }
        }
    }
    inner_product_from(m, [acc0, acc1], digits, keys, groups);
}

/// Operands of one pass over up to [`CHUNK`] digits.
struct Chunk<'a> {
    digits: &'a [&'a [f64]],
    keys: &'a [&'a [u8]],
    acc: [*mut f64; 2],
    groups: usize,
}

/// Low and high 52 bits of the products, summed apart; the high ones in the low bits of the float
/// [`HIGH`].
#[derive(Clone, Copy)]
struct Sum {
    low: __m512i,
    high: __m512i,
}

impl Chunk<'_> {
    /// # Safety
    /// `D` operands of `groups > 0` groups each, keys with [`SLACK`](crate::kernel::packed::SLACK)
    /// bytes more; the CPU has the features.
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vbmi,avx512ifma,avx2,fma")]
    unsafe fn run<const D: usize, const ADD: bool>(&self, m: &Modulus) {
        let fields = Fields::new(m.bits());
        let reduce = Reduce::new(m);
        // SAFETY: as promised by the caller.
        unsafe {
            // Pipelined: the reduction of one group overlaps the sums of the next.
            let mut old = self.sums::<D, ADD>(&fields, 0);
            for group in 1..self.groups {
                let new = self.sums::<D, ADD>(&fields, group);
                reduce.store(old, self.acc, group - 1);
                old = new;
            }
            reduce.store(old, self.acc, self.groups - 1);
        }
    }

    /// # Safety
    /// As [`Self::run`], for the group.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vbmi,avx512ifma,avx2,fma")]
    unsafe fn sums<const D: usize, const ADD: bool>(&self, fields: &Fields, group: usize) -> [Sum; 2] {
        let (j, at) = (group * GROUP, group * 2 * fields.bytes);
        let zero = Sum { low: _mm512_setzero_si512(), high: _mm512_castpd_si512(_mm512_set1_pd(HIGH)) };
        // SAFETY: as promised by the caller; prefetching never faults.
        unsafe {
            let mut sums = [zero; 2];
            if ADD {
                let mask = _mm512_set1_epi64(MASK);
                sums[0].low = _mm512_and_si512(integer(_mm512_loadu_pd(self.acc[0].add(j))), mask);
                sums[1].low = _mm512_and_si512(integer(_mm512_loadu_pd(self.acc[1].add(j))), mask);
            }
            for d in 0..D {
                let key = self.keys.get_unchecked(d).as_ptr().add(at);
                _mm_prefetch::<_MM_HINT_T1>(key.wrapping_add(AHEAD).cast());
                _mm_prefetch::<_MM_HINT_T1>(key.wrapping_add(AHEAD + fields.bytes).cast());
                let x = integer(_mm512_loadu_pd(self.digits.get_unchecked(d).as_ptr().add(j)));
                for (half, sum) in sums.iter_mut().enumerate() {
                    let y = fields.unpack(_mm512_loadu_si512(key.add(half * fields.bytes).cast()));
                    sum.low = _mm512_madd52lo_epu64(sum.low, x, y);
                    sum.high = _mm512_madd52hi_epu64(sum.high, x, y);
                }
            }
            sums
        }
    }
}

/// Residues to integers in the low 52 bits, which is all that multiplications look at.
#[inline]
#[target_feature(enable = "avx512f")]
fn integer(x: __m512d) -> __m512i {
    _mm512_castpd_si512(_mm512_add_pd(x, _mm512_set1_pd(LOW)))
}

/// Where the fields of eight packed residues lie.
struct Fields {
    bytes: usize,
    places: __m512i,
    shift: __m512i,
    mask: __m512i,
}

impl Fields {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(bits: u32) -> Self {
        let bytes = bits as usize;
        let places: [u8; 64] = std::array::from_fn(|i| (i / 8 * bytes / 8 + i % 8) as u8);
        let shift: [u64; 8] = std::array::from_fn(|i| (i * bytes % 8) as u64);
        // SAFETY: both arrays are as long as a vector.
        let (places, shift) = unsafe {
            (_mm512_loadu_si512(places.as_ptr().cast()), _mm512_loadu_si512(shift.as_ptr().cast()))
        };
        Self { bytes, places, shift, mask: _mm512_set1_epi64((1 << bits) - 1) }
    }

    /// Eight residues from the first bytes of `packed`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vbmi")]
    fn unpack(&self, packed: __m512i) -> __m512i {
        let words = _mm512_permutexvar_epi8(self.places, packed);
        _mm512_and_si512(_mm512_srlv_epi64(words, self.shift), self.mask)
    }
}

/// Reduction of sums to canonical residues.
struct Reduce {
    q: __m512d,
    recip: __m512d,
}

impl Reduce {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(m: &Modulus) -> Self {
        Self { q: _mm512_set1_pd(m.float()), recip: _mm512_set1_pd(m.recip()) }
    }

    /// # Safety
    /// The group can be written at both pointers.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,fma")]
    unsafe fn store(&self, sums: [Sum; 2], acc: [*mut f64; 2], group: usize) {
        for (sum, acc) in sums.into_iter().zip(acc) {
            // SAFETY: the caller's promise.
            unsafe { _mm512_storeu_pd(acc.add(group * GROUP), self.canonical(sum)) }
        }
    }

    /// `2^52 high + low` modulo `q`, for at most [`CHUNK`] products of residues and a residue.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,fma")]
    fn canonical(&self, sum: Sum) -> __m512d {
        // Each part exactly to a float: at most 4 q^2, and below 2^52.
        let (low, high) = (_mm512_set1_pd(LOW), _mm512_set1_pd(HIGH));
        let carried = _mm512_add_epi64(sum.high, _mm512_srli_epi64::<52>(sum.low));
        let rest = _mm512_and_si512(sum.low, _mm512_set1_epi64(MASK));
        let rest = _mm512_or_si512(rest, _mm512_castpd_si512(low));
        let high = _mm512_sub_pd(_mm512_castsi512_pd(carried), high);
        let low = _mm512_sub_pd(_mm512_castsi512_pd(rest), low);
        let rest = self.centre(_mm512_add_pd(self.centre(high), low));
        // As unsigned integers, floats with a sign are above those without.
        let lifted = _mm512_add_pd(rest, self.q);
        _mm512_castsi512_pd(_mm512_min_epu64(_mm512_castpd_si512(rest), _mm512_castpd_si512(lifted)))
    }

    /// The representative next to zero; at most a few units from it for the largest sums.
    #[inline]
    #[target_feature(enable = "avx512f,fma")]
    fn centre(&self, v: __m512d) -> __m512d {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        let quotient = _mm512_roundscale_pd::<NEAREST>(_mm512_mul_pd(v, self.recip));
        _mm512_fnmadd_pd(quotient, self.q, v)
    }
}
