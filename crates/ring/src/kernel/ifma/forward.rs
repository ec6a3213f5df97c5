//! Forward transform: Cooley-Tukey butterflies, depth first, so that all but the first passes run
//! in cache.
//!
//! Nothing is reduced: from canonical, values grow by 2 a level, to 35 after 17 levels.

use std::arch::x86_64::*;

use super::field::{
    Exchange, FLOATS, Factors, Field, WORDS, Words, exchange, load_rows, reverse_lanes, splat,
};
use super::table::{BLOCK, leaf, passes};
use crate::kernel::NttTable;

/// # Safety
/// The CPU has AVX-512 F, DQ and IFMA; `a` has `n = t.degree()` elements; modulus and degree fit.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) unsafe fn transform(t: &NttTable, a: *mut f64, n: usize) {
    let (f, tw) = (Field::new(&t.modulus), &t.words()[0]);
    let leaf = leaf(t.log_n);
    for start in (0..n).step_by(leaf) {
        for (size, levels) in passes(t.log_n).filter(|(size, _)| start.is_multiple_of(*size)) {
            // One block, or all those of the leaf.
            for from in (start..start + leaf).step_by(size) {
                // SAFETY: blocks tile the elements, and the table has the factors of each.
                unsafe {
                    let (block, w) = (a.add(from), tw.pass(n / size, from / size, levels));
                    match (levels, size == n) {
                        (2, true) => radix4::<FLOATS>(f, block, size / 4, w),
                        (2, false) => radix4::<WORDS>(f, block, size / 4, w),
                        (_, true) => radix8::<FLOATS>(f, block, size / 8, w),
                        (_, false) => radix8::<WORDS>(f, block, size / 8, w),
                    }
                }
            }
        }
        // SAFETY: as above.
        unsafe { tail(f, a.add(start), leaf / BLOCK, tw.tail(start / BLOCK)) };
    }
}

/// Two levels over four rows of `pitch` elements, 16 columns at a time.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
unsafe fn radix4<const FROM: bool>(f: Field, a: *mut f64, pitch: usize, tw: *const u64) {
    // SAFETY: the caller promises `4 pitch` elements at `a` and six words at `tw`.
    unsafe {
        let ([w1, w2, w3], [v1, v2, v3]) = (splat(tw), splat(tw.add(3)));
        for j in (0..pitch).step_by(16) {
            let [x0, x1, x2, x3] = load_rows::<FROM, 4>(a.add(j), pitch);
            let [y0, y1, y2, y3] = load_rows::<FROM, 4>(a.add(j + 8), pitch);
            let [[x0, y0, x1, y1], [x2, y2, x3, y3]] =
                f.forward([x0, y0, x1, y1], [x2, y2, x3, y3], [w1; 4], [v1; 4]);
            let [[x0, y0, x2, y2], [x1, y1, x3, y3]] =
                f.forward([x0, y0, x2, y2], [x1, y1, x3, y3], [w2, w2, w3, w3], [v2, v2, v3, v3]);
            for (k, (x, y)) in [(x0, y0), (x1, y1), (x2, y2), (x3, y3)].into_iter().enumerate() {
                f.store::<WORDS>(a.add(j + k * pitch), x);
                f.store::<WORDS>(a.add(j + k * pitch + 8), y);
            }
        }
    }
}

/// Three levels over eight rows of `pitch` elements.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
unsafe fn radix8<const FROM: bool>(f: Field, a: *mut f64, pitch: usize, tw: *const u64) {
    // SAFETY: the caller promises `8 pitch` elements at `a` and 14 words at `tw`.
    unsafe {
        let ([w0, w1, w2, w3, w4, w5, w6], [v0, v1, v2, v3, v4, v5, v6]) = (splat(tw), splat(tw.add(7)));
        for j in (0..pitch).step_by(8) {
            let x = load_rows::<FROM, 8>(a.add(j), pitch);
            let x = first_level(f, x, [w0], [v0]);
            let x = second_level(f, x, [w1, w2], [v1, v2]);
            let x = third_level(f, x, [w3, w4, w5, w6], [v3, v4, v5, v6]);
            for (k, x) in x.into_iter().enumerate() {
                f.store::<WORDS>(a.add(j + k * pitch), x);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn first_level(f: Field, x: [Words; 8], [w]: [Words; 1], [v]: [Words; 1]) -> [Words; 8] {
    let [x0, x1, x2, x3, x4, x5, x6, x7] = x;
    let [[x0, x1, x2, x3], [x4, x5, x6, x7]] = f.forward([x0, x1, x2, x3], [x4, x5, x6, x7], [w; 4], [v; 4]);
    [x0, x1, x2, x3, x4, x5, x6, x7]
}

#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn second_level(f: Field, x: [Words; 8], [w1, w2]: [Words; 2], [v1, v2]: [Words; 2]) -> [Words; 8] {
    let [x0, x1, x2, x3, x4, x5, x6, x7] = x;
    let [[x0, x1, x4, x5], [x2, x3, x6, x7]] =
        f.forward([x0, x1, x4, x5], [x2, x3, x6, x7], [w1, w1, w2, w2], [v1, v1, v2, v2]);
    [x0, x1, x2, x3, x4, x5, x6, x7]
}

#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn third_level(f: Field, x: [Words; 8], w: [Words; 4], v: [Words; 4]) -> [Words; 8] {
    let [x0, x1, x2, x3, x4, x5, x6, x7] = x;
    let [[x0, x2, x4, x6], [x1, x3, x5, x7]] = f.forward([x0, x2, x4, x6], [x1, x3, x5, x7], w, v);
    [x0, x1, x2, x3, x4, x5, x6, x7]
}

/// The last six levels of `count` blocks, three between whole vectors and three within pairs of
/// vectors. Software pipelined: the first three of a block run between the last three of the one
/// before, so that the CPU's window holds independent work.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
unsafe fn tail(f: Field, a: *mut f64, count: usize, tw: *const u64) {
    // SAFETY: the caller promises `count` blocks of elements at `a` and of quotients at `tw`.
    unsafe {
        let factors = Factors::new(f, tw, count);
        let w = factors.line(0);
        let x = load_rows::<WORDS, 8>(a, 8);
        let x = first_level(f, x, splat(w.add(1)), splat(tw.add(1)));
        let x = second_level(f, x, splat(w.add(2)), splat(tw.add(2)));
        let mut x = third_level(f, x, splat(w.add(4)), splat(tw.add(4)));
        for block in 1..count {
            let from = BLOCK * (block - 1);
            x = step::<true>(f, x, a.add(from), tw.add(from), factors.line(block));
        }
        let from = BLOCK * (count - 1);
        step::<false>(f, x, a.add(from), tw.add(from), w);
    }
}

/// The last three levels of the block at `a` from `x`, to canonical floats, and, if there is
/// `MORE`, the three before of the next block.
///
/// A pair of vectors holds 16 neighbours, numbered `r1 r0 c1 c0` in binary: `r1` chooses the
/// vector, lanes are `r0 c1 c0`. Each exchange makes the bit of the level's distance choose the
/// vector; the results belong in lanes `c0 r1 r0` with `c1` to choose.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
unsafe fn step<const MORE: bool>(
    f: Field,
    x: [Words; 8],
    a: *mut f64,
    tw: *const u64,
    next_factors: *const u64,
) -> [Words; 8] {
    // SAFETY: the caller promises a block of elements at `a` and of quotients at `tw`, or two, and
    // a line of factors.
    unsafe {
        let mut next = x;
        let v = tw.add(BLOCK);
        if MORE {
            next = load_rows::<WORDS, 8>(a.add(BLOCK), 8);
            next = first_level(f, next, splat(next_factors.add(1)), splat(v.add(1)));
        }
        let [x0, y0, x1, y1, x2, y2, x3, y3] = x;
        // Lanes r1 c1 c0.
        let [x, y] = exchange(Exchange::First, [[x0, x1, x2, x3], [y0, y1, y2, y3]]);
        let quotients = [halves(tw.add(8)), halves(tw.add(9)), halves(tw.add(12)), halves(tw.add(13))];
        let pairs = f.forward(x, y, f.factors(quotients), quotients);
        if MORE {
            next = second_level(f, next, splat(next_factors.add(2)), splat(v.add(2)));
        }
        // Lanes r0 r1 c0.
        let [x, y] = exchange(Exchange::Second, pairs);
        let quotients = [even(tw.add(16)), odd(tw.add(16)), even(tw.add(24)), odd(tw.add(24))];
        let pairs = f.forward(x, y, f.factors(quotients), quotients);
        if MORE {
            next = third_level(f, next, splat(next_factors.add(4)), splat(v.add(4)));
        }
        // Lanes r0 r1 c1.
        let [x, y] = exchange(Exchange::Third, pairs);
        let quotients = load_rows::<WORDS, 4>(tw.add(32).cast(), 8);
        let pairs = f.forward(x, y, f.factors(quotients), quotients);
        let [x, y] = reverse_lanes(exchange(Exchange::Third, pairs));
        for k in 0..4 {
            f.store::<FLOATS>(a.add(16 * k), x[k]);
            f.store::<FLOATS>(a.add(16 * k + 8), y[k]);
        }
        next
    }
}

/// Four times the word at `p`, four times the second after it.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn halves(p: *const u64) -> Words {
    // SAFETY: the caller promises three words at `p`.
    let (low, high) = unsafe { (_mm512_set1_pd(*p.cast()), _mm_load_sd(p.add(2).cast())) };
    _mm512_castpd_si512(_mm512_mask_broadcastsd_pd(low, 0xf0, high))
}

/// Twice each of the words at `p`, `p + 2`, `p + 4`, `p + 6`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn even(p: *const u64) -> Words {
    // SAFETY: the caller promises eight words at `p`.
    _mm512_castpd_si512(_mm512_movedup_pd(unsafe { _mm512_loadu_pd(p.cast()) }))
}

/// Twice each of the words at `p + 1`, `p + 3`, `p + 5`, `p + 7`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn odd(p: *const u64) -> Words {
    // SAFETY: the caller promises eight words at `p`.
    _mm512_castpd_si512(_mm512_permute_pd::<0xFF>(unsafe { _mm512_loadu_pd(p.cast()) }))
}
