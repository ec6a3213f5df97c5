//! Arithmetic on vectors of words, and exchanges of lanes.

use std::arch::x86_64::*;

use super::table::{BLOCK, LEAF};
use crate::modulus::Modulus;

/// Eight words.
pub(super) type Words = __m512i;

/// How residues lie in memory: as canonical floats, or as words between two passes.
pub(super) const FLOATS: bool = true;
pub(super) const WORDS: bool = false;

/// Constants of a modulus in all lanes.
#[derive(Clone, Copy)]
pub(super) struct Field {
    q: Words,
    /// `2^52 - q`.
    neg_q: Words,
    q2: Words,
    q32: Words,
    /// The floor of `2^52 / q`.
    barrett: Words,
    float: __m512d,
    recip: __m512d,
    half_recip: __m512d,
}

impl Field {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn new(m: &Modulus) -> Self {
        let q = m.value() as i64;
        Self {
            q: _mm512_set1_epi64(q),
            neg_q: _mm512_set1_epi64((1 << 52) - q),
            q2: _mm512_set1_epi64(2 * q),
            q32: _mm512_set1_epi64(32 * q),
            barrett: _mm512_set1_epi64((1 << 52) / q),
            float: _mm512_set1_pd(m.float()),
            recip: _mm512_set1_pd(m.recip()),
            half_recip: _mm512_set1_pd(0.5 * m.recip()),
        }
    }

    /// `(x, y)` to `(x + y w, x - y w)` in lockstep, given factors and quotients `v`, the floors of
    /// `2^52 w / q`. Both are below `x + 2`: with `k` the high half of `y v`, `0 <= y w - k q < 2q`
    /// for any `y < 2^52`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn forward(
        self,
        x: [Words; 4],
        y: [Words; 4],
        w: [Words; 4],
        v: [Words; 4],
    ) -> [[Words; 4]; 2] {
        let zero = [_mm512_setzero_si512(); 4];
        let (mut k, mut sum, mut difference) = (zero, zero, zero);
        for i in 0..4 {
            k[i] = _mm512_madd52hi_epu64(zero[i], y[i], v[i]);
        }
        for i in 0..4 {
            sum[i] = _mm512_madd52lo_epu64(x[i], y[i], w[i]);
        }
        for i in 0..4 {
            difference[i] = _mm512_add_epi64(_mm512_add_epi64(x[i], x[i]), self.q2);
        }
        for i in 0..4 {
            sum[i] = _mm512_madd52lo_epu64(sum[i], k[i], self.neg_q);
        }
        for i in 0..4 {
            difference[i] = _mm512_sub_epi64(difference[i], sum[i]);
        }
        [sum, difference]
    }

    /// `(x, y)` to `(x + y, (x - y) w)` in lockstep, for values up to 32; the products are below 2.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn inverse(
        self,
        x: [Words; 4],
        y: [Words; 4],
        w: [Words; 4],
        v: [Words; 4],
    ) -> [[Words; 4]; 2] {
        let zero = [_mm512_setzero_si512(); 4];
        let (mut sum, mut difference, mut k, mut product) = (zero, zero, zero, zero);
        for i in 0..4 {
            difference[i] = _mm512_sub_epi64(_mm512_add_epi64(x[i], self.q32), y[i]);
        }
        for i in 0..4 {
            k[i] = _mm512_madd52hi_epu64(zero[i], difference[i], v[i]);
        }
        for i in 0..4 {
            product[i] = _mm512_madd52lo_epu64(zero[i], difference[i], w[i]);
        }
        for i in 0..4 {
            sum[i] = _mm512_add_epi64(x[i], y[i]);
        }
        for i in 0..4 {
            product[i] = _mm512_madd52lo_epu64(product[i], k[i], self.neg_q);
        }
        [sum, product]
    }

    /// `x w` below 2, given the quotient.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn product(self, x: Words, w: Words, v: Words) -> Words {
        let zero = _mm512_setzero_si512();
        let k = _mm512_madd52hi_epu64(zero, x, v);
        _mm512_madd52lo_epu64(_mm512_madd52lo_epu64(zero, x, w), k, self.neg_q)
    }

    /// To below 2 (Barrett).
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn reduce(self, x: Words) -> Words {
        let k = _mm512_madd52hi_epu64(_mm512_setzero_si512(), x, self.barrett);
        _mm512_madd52lo_epu64(x, k, self.neg_q)
    }

    /// The factors that have these quotients: `2^52 w = v q + r` with `0 < r < q`, so `w` is one
    /// above the high half of `v q`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn factors<const K: usize>(self, v: [Words; K]) -> [Words; K] {
        let mut w = [_mm512_set1_epi64(1); K];
        for k in 0..K {
            w[k] = _mm512_madd52hi_epu64(w[k], v[k], self.q);
        }
        w
    }

    /// Canonical floats of values up to 35.
    ///
    /// `(v + 1/2) / q` is at least `1 / 2q > 2^-46.6` off an integer, and its float less than
    /// `35 * 2^-53 + 2^-48 < 2^-46.9` off.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq")]
    pub(super) fn to_floats(self, v: Words) -> __m512d {
        let v = _mm512_cvtepu64_pd(_mm512_and_si512(v, _mm512_set1_epi64((1 << 52) - 1)));
        let k = _mm512_fmadd_pd(v, self.recip, self.half_recip);
        let k = _mm512_roundscale_pd::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(k);
        _mm512_fnmadd_pd(k, self.float, v)
    }

    /// # Safety
    /// Eight elements are writable at `p`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq")]
    pub(super) unsafe fn store<const FORM: bool>(self, p: *mut f64, v: Words) {
        // SAFETY: the caller's promise.
        unsafe {
            if FORM == FLOATS {
                _mm512_storeu_pd(p, self.to_floats(v));
            } else {
                _mm512_storeu_si512(p.cast(), v);
            }
        }
    }
}

/// # Safety
/// Eight elements are readable at `p`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn load<const FORM: bool>(p: *const f64) -> Words {
    const TWO_52: f64 = (1u64 << 52) as f64;
    // SAFETY: the caller's promise.
    unsafe {
        if FORM == FLOATS {
            // The low 52 bits of the float 2^52 + x are x.
            _mm512_castpd_si512(_mm512_add_pd(_mm512_loadu_pd(p), _mm512_set1_pd(TWO_52)))
        } else {
            _mm512_loadu_si512(p.cast())
        }
    }
}

/// # Safety
/// `K` vectors are readable from `p` on, `pitch` elements apart.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn load_rows<const FORM: bool, const K: usize>(p: *const f64, pitch: usize) -> [Words; K] {
    let mut x = [_mm512_setzero_si512(); K];
    for (k, x) in x.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *x = unsafe { load::<FORM>(p.add(k * pitch)) };
    }
    x
}

/// # Safety
/// `K` words are readable at `p`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn splat<const K: usize>(p: *const u64) -> [Words; K] {
    let mut w = [_mm512_setzero_si512(); K];
    for (k, w) in w.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *w = _mm512_set1_epi64(unsafe { *p.add(k) } as i64);
    }
    w
}

/// Factors of the levels between whole vectors, for the blocks of a leaf.
#[repr(align(64))]
pub(super) struct Factors([u64; 8 * LEAF / BLOCK]);

impl Factors {
    /// From the first line of each of `count` blocks' quotients.
    ///
    /// # Safety
    /// The quotients are readable at `tw`, on a cache line boundary.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) unsafe fn new(f: Field, tw: *const u64, count: usize) -> Self {
        let mut factors = Self([0; 8 * LEAF / BLOCK]);
        for (block, line) in factors.0.chunks_exact_mut(8).enumerate().take(count) {
            // SAFETY: the caller's promise, and a line of eight words.
            unsafe {
                let [w] = f.factors([_mm512_load_si512(tw.add(BLOCK * block).cast())]);
                _mm512_storeu_si512(line.as_mut_ptr().cast(), w);
            }
        }
        factors
    }

    /// The line of a block.
    #[inline(always)]
    pub(super) fn line(&self, block: usize) -> *const u64 {
        self.0[8 * block..][..8].as_ptr()
    }
}

/// An exchange of a bit of the lane number, counted from the left, with the bit that chooses
/// between two vectors.
#[derive(Clone, Copy)]
pub(super) enum Exchange {
    /// `a b c, v` to `v b c, a`.
    First,
    /// `a b c, v` to `v a c, b`.
    Second,
    /// `a b c, v` to `a b v, c`.
    Third,
}

/// The same exchange of four pairs of vectors.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn exchange(kind: Exchange, [mut y, mut z]: [[Words; 4]; 2]) -> [[Words; 4]; 2] {
    for k in 0..4 {
        (y[k], z[k]) = match kind {
            Exchange::First => {
                (_mm512_shuffle_i64x2::<0x44>(y[k], z[k]), _mm512_shuffle_i64x2::<0xEE>(y[k], z[k]))
            }
            Exchange::Second => {
                (_mm512_shuffle_i64x2::<0x88>(y[k], z[k]), _mm512_shuffle_i64x2::<0xDD>(y[k], z[k]))
            }
            Exchange::Third => (_mm512_unpacklo_epi64(y[k], z[k]), _mm512_unpackhi_epi64(y[k], z[k])),
        };
    }
    [y, z]
}

/// Lanes `a b c` to `c b a`, in four pairs of vectors.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn reverse_lanes([mut y, mut z]: [[Words; 4]; 2]) -> [[Words; 4]; 2] {
    let reverse = _mm512_setr_epi64(0, 4, 2, 6, 1, 5, 3, 7);
    for k in 0..4 {
        (y[k], z[k]) = (_mm512_permutexvar_epi64(reverse, y[k]), _mm512_permutexvar_epi64(reverse, z[k]));
    }
    [y, z]
}
