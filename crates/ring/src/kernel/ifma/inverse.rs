//! Inverse transform: the forward one mirrored, with Gentleman-Sande butterflies.
//!
//! Between passes values are at most 8. Three levels of sums make that 64, which is reduced; what
//! is a product on the way is below 2, and at most two levels of sums make that 8.

use std::arch::x86_64::*;

use super::field::{
    Exchange, FLOATS, Factors, Field, WORDS, Words, exchange, load_rows, reverse_lanes, splat,
};
use super::forward::{even, odd};
use super::table::{BLOCK, leaf, passes};
use crate::kernel::NttTable;
use crate::modulus::Modulus;

/// # Safety
/// The CPU has AVX-512 F, DQ and IFMA; `a` has `n = t.degree()` elements; modulus and degree fit.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma,fma")]
pub(super) unsafe fn transform(t: &NttTable, a: *mut f64, n: usize, constant: f64) {
    let (f, tw) = (Field::new(&t.modulus), &t.words()[1]);
    let scale = t.modulus.mul_f64(t.degree_inv, constant);
    let leaf = leaf(t.log_n);
    for start in (0..n).step_by(leaf) {
        let end = start + leaf;
        // SAFETY: blocks tile the elements, and the table has the factors of each.
        unsafe { tail(f, a.add(start), leaf / BLOCK, tw.tail(start / BLOCK)) };
        for (size, levels) in passes(t.log_n).rev().filter(|(size, _)| end.is_multiple_of(*size)) {
            // All blocks of the leaf, or the one that ends with it.
            for from in (end - leaf.max(size)..end).step_by(size) {
                // SAFETY: as above.
                unsafe {
                    let (block, w) = (a.add(from), tw.pass(n / size, from / size, levels));
                    match (levels, size == n) {
                        (2, false) => radix4::<false>(f, block, size / 4, Four::new(w)),
                        (2, true) => radix4::<true>(f, block, size / 4, Four::scaled(&t.modulus, w, scale)),
                        (_, false) => radix8::<false>(f, block, size / 8, Eight::new(w)),
                        (_, true) => radix8::<true>(f, block, size / 8, Eight::scaled(&t.modulus, w, scale)),
                    }
                }
            }
        }
    }
}

/// A factor and its quotient.
type Factor = (u64, u64);

/// Factors of the butterflies over four rows, and one for the sum of all.
struct Four {
    near: [Factor; 2],
    far: [Factor; 2],
    sum: Factor,
}

/// As [`Four`], over eight rows; the last three far butterflies share theirs.
struct Eight {
    near: [Factor; 4],
    middle: [Factor; 4],
    far: [Factor; 2],
    sum: Factor,
}

impl Four {
    #[inline(always)]
    unsafe fn new(tw: *const u64) -> Self {
        // SAFETY: the caller promises three factors and quotients at `tw`.
        let [w1, w2, w3] = [0, 1, 2].map(|k| unsafe { (*tw.add(k), *tw.add(k + 3)) });
        Self { near: [w2, w3], far: [w1; 2], sum: w1 }
    }

    /// All outputs times `scale`: the differences where they arise from unscaled values, the sum of
    /// all at the end.
    #[inline(always)]
    unsafe fn scaled(m: &Modulus, tw: *const u64, scale: f64) -> Self {
        // SAFETY: the caller's promise.
        let Self { near, far: [far, _], sum: _ } = unsafe { Self::new(tw) };
        Self {
            near: near.map(|w| scaled(m, w.0, scale)),
            far: [scaled(m, far.0, scale), far],
            sum: scaled(m, 1, scale),
        }
    }
}

impl Eight {
    #[inline(always)]
    unsafe fn new(tw: *const u64) -> Self {
        // SAFETY: the caller promises seven factors and quotients at `tw`.
        let [w0, w1, w2, w3, w4, w5, w6] =
            [0, 1, 2, 3, 4, 5, 6].map(|k| unsafe { (*tw.add(k), *tw.add(k + 7)) });
        Self { near: [w3, w4, w5, w6], middle: [w1, w1, w2, w2], far: [w0; 2], sum: w0 }
    }

    /// As [`Four::scaled`].
    #[inline(always)]
    unsafe fn scaled(m: &Modulus, tw: *const u64, scale: f64) -> Self {
        // SAFETY: the caller's promise.
        let Self { near, middle: [low, _, high, _], far: [far, _], sum: _ } = unsafe { Self::new(tw) };
        let [low_scaled, high_scaled, far_scaled, sum] =
            [low.0, high.0, far.0, 1].map(|w| scaled(m, w, scale));
        Self {
            near: near.map(|w| scaled(m, w.0, scale)),
            middle: [low_scaled, low, high_scaled, high],
            far: [far_scaled, far],
            sum,
        }
    }
}

/// `w scale` and its quotient, in float arithmetic: integer division takes as long as a row of
/// butterflies.
#[inline(always)]
fn scaled(m: &Modulus, w: u64, scale: f64) -> Factor {
    let w = m.mul_f64(w as f64, scale);
    let shifted = w * (1u64 << 52) as f64;
    // Off by one at most, and then the remainder, which is exact, tells.
    let quotient = (shifted * m.recip()).floor();
    let rest = (-quotient).mul_add(m.float(), shifted);
    let off = if rest < 0.0 { -1.0 } else { f64::from(rest >= m.float()) };
    (w as u64, (quotient + off) as u64)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn vectors<const K: usize>(factors: [Factor; K]) -> [[Words; K]; 2] {
    let zero = [_mm512_setzero_si512(); K];
    let (mut w, mut v) = (zero, zero);
    for k in 0..K {
        (w[k], v[k]) = (_mm512_set1_epi64(factors[k].0 as i64), _mm512_set1_epi64(factors[k].1 as i64));
    }
    [w, v]
}

/// Two levels over four rows of `pitch` elements, 16 columns at a time.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
unsafe fn radix4<const LAST: bool>(f: Field, a: *mut f64, pitch: usize, factors: Four) {
    let [[w2, w3], [v2, v3]] = vectors(factors.near);
    let [[w0, w1], [v0, v1]] = vectors(factors.far);
    let [[s], [vs]] = vectors([factors.sum]);
    for j in (0..pitch).step_by(16) {
        // SAFETY: the caller promises `4 pitch` elements at `a`.
        unsafe {
            let [x0, x1, x2, x3] = load_rows::<WORDS, 4>(a.add(j), pitch);
            let [y0, y1, y2, y3] = load_rows::<WORDS, 4>(a.add(j + 8), pitch);
            let [[x0, y0, x2, y2], [x1, y1, x3, y3]] =
                f.inverse([x0, y0, x2, y2], [x1, y1, x3, y3], [w2, w2, w3, w3], [v2, v2, v3, v3]);
            let [[x0, y0, x1, y1], [x2, y2, x3, y3]] =
                f.inverse([x0, y0, x1, y1], [x2, y2, x3, y3], [w0, w0, w1, w1], [v0, v0, v1, v1]);
            let (x0, y0) = if LAST {
                (f.product(x0, s, vs), f.product(y0, s, vs))
            } else {
                (f.reduce(x0), f.reduce(y0))
            };
            for (k, (x, y)) in [(x0, y0), (x1, y1), (x2, y2), (x3, y3)].into_iter().enumerate() {
                f.store::<LAST>(a.add(j + k * pitch), x);
                f.store::<LAST>(a.add(j + k * pitch + 8), y);
            }
        }
    }
}

/// Three levels over eight rows of `pitch` elements.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
unsafe fn radix8<const LAST: bool>(f: Field, a: *mut f64, pitch: usize, factors: Eight) {
    let ([wn, vn], [wm, vm]) = (vectors(factors.near), vectors(factors.middle));
    let [[w0, w1], [v0, v1]] = vectors(factors.far);
    let [[s], [vs]] = vectors([factors.sum]);
    for j in (0..pitch).step_by(8) {
        // SAFETY: the caller promises `8 pitch` elements at `a`.
        unsafe {
            let x = load_rows::<WORDS, 8>(a.add(j), pitch);
            let x = first_level(f, x, wn, vn);
            let x = second_level(f, x, wm, vm);
            let mut x = third_level(f, x, [w0, w1, w1, w1], [v0, v1, v1, v1]);
            x[0] = if LAST { f.product(x[0], s, vs) } else { f.reduce(x[0]) };
            for (k, x) in x.into_iter().enumerate() {
                f.store::<LAST>(a.add(j + k * pitch), x);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn first_level(f: Field, x: [Words; 8], w: [Words; 4], v: [Words; 4]) -> [Words; 8] {
    let [x0, x1, x2, x3, x4, x5, x6, x7] = x;
    let [[x0, x2, x4, x6], [x1, x3, x5, x7]] = f.inverse([x0, x2, x4, x6], [x1, x3, x5, x7], w, v);
    [x0, x1, x2, x3, x4, x5, x6, x7]
}

#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn second_level(f: Field, x: [Words; 8], w: [Words; 4], v: [Words; 4]) -> [Words; 8] {
    let [x0, x1, x2, x3, x4, x5, x6, x7] = x;
    let [[x0, x1, x4, x5], [x2, x3, x6, x7]] = f.inverse([x0, x1, x4, x5], [x2, x3, x6, x7], w, v);
    [x0, x1, x2, x3, x4, x5, x6, x7]
}

#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn third_level(f: Field, x: [Words; 8], w: [Words; 4], v: [Words; 4]) -> [Words; 8] {
    let [x0, x1, x2, x3, x4, x5, x6, x7] = x;
    let [[x0, x1, x2, x3], [x4, x5, x6, x7]] = f.inverse([x0, x1, x2, x3], [x4, x5, x6, x7], w, v);
    [x0, x1, x2, x3, x4, x5, x6, x7]
}

/// The first six levels of `count` blocks, three within pairs of vectors and three between whole
/// vectors, the latter run between the former of the next block. From canonical to at most 8.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
unsafe fn tail(f: Field, a: *mut f64, count: usize, tw: *const u64) {
    // SAFETY: the caller promises `count` blocks of elements at `a` and of quotients at `tw`.
    unsafe {
        let factors = Factors::new(f, tw, count);
        let mut x = step::<true, false>(f, [_mm512_setzero_si512(); 8], a, tw, factors.line(0));
        for block in 1..count {
            let from = BLOCK * block;
            x = step::<true, true>(f, x, a.add(from), tw.add(from), factors.line(block - 1));
        }
        let from = BLOCK * count;
        step::<false, true>(f, x, a.wrapping_add(from), tw.wrapping_add(from), factors.line(count - 1));
    }
}

/// The first three levels of the block at `a`, if there is a `NEXT`, and the other three of the
/// block before from `x` on, if there is a `LAST`, with its factors. Lanes are those of the forward
/// transform in reverse.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
unsafe fn step<const NEXT: bool, const LAST: bool>(
    f: Field,
    x: [Words; 8],
    a: *mut f64,
    tw: *const u64,
    w: *const u64,
) -> [Words; 8] {
    // SAFETY: the caller promises the blocks of elements and quotients that the flags ask for, and
    // a line of factors.
    unsafe {
        let (mut pairs, mut x) = ([[_mm512_setzero_si512(); 4]; 2], x);
        let v = tw.wrapping_sub(BLOCK);
        if NEXT {
            let [x0, y0, x1, y1, x2, y2, x3, y3] = load_rows::<FLOATS, 8>(a, 8);
            let [x, y] = exchange(Exchange::Third, reverse_lanes([[x0, x1, x2, x3], [y0, y1, y2, y3]]));
            let quotients = load_rows::<WORDS, 4>(tw.add(32).cast(), 8);
            pairs = f.inverse(x, y, f.factors(quotients), quotients);
        }
        if LAST {
            x = first_level(f, x, splat(w.add(4)), splat(v.add(4)));
        }
        if NEXT {
            let [x, y] = exchange(Exchange::Third, pairs);
            let quotients = [even(tw.add(16)), odd(tw.add(16)), even(tw.add(24)), odd(tw.add(24))];
            pairs = f.inverse(x, y, f.factors(quotients), quotients);
        }
        if LAST {
            let ([w1, w2], [v1, v2]) = (splat(w.add(2)), splat(v.add(2)));
            x = second_level(f, x, [w1, w1, w2, w2], [v1, v1, v2, v2]);
        }
        if NEXT {
            // Lanes c1 r1 c0, which hold `w0 w0 w1 w1` twice.
            let [x, y] = exchange(Exchange::First, pairs);
            let quotients =
                [twice_even(tw.add(8)), twice_odd(tw.add(8)), twice_even(tw.add(12)), twice_odd(tw.add(12))];
            pairs = f.inverse(x, y, f.factors(quotients), quotients);
        }
        if LAST {
            let ([w], [v]) = (splat(w.add(1)), splat(v.add(1)));
            x = third_level(f, x, [w; 4], [v; 4]);
            x[0] = f.reduce(x[0]);
            for (k, x) in x.into_iter().enumerate() {
                f.store::<WORDS>(a.wrapping_sub(BLOCK).add(8 * k), x);
            }
        }
        let [[x0, x1, x2, x3], [y0, y1, y2, y3]] = exchange(Exchange::Second, pairs);
        [x0, y0, x1, y1, x2, y2, x3, y3]
    }
}

/// Twice the words at `p` and `p + 2`, and that again.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
unsafe fn twice_even(p: *const u64) -> Words {
    // SAFETY: the caller promises four words at `p`.
    _mm512_castpd_si512(_mm512_movedup_pd(_mm512_broadcast_f64x4(unsafe { _mm256_loadu_pd(p.cast()) })))
}

/// Twice the words at `p + 1` and `p + 3`, and that again.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
unsafe fn twice_odd(p: *const u64) -> Words {
    // SAFETY: the caller promises four words at `p`.
    _mm512_castpd_si512(_mm512_permute_pd::<0xFF>(_mm512_broadcast_f64x4(unsafe {
        _mm256_loadu_pd(p.cast())
    })))
}
