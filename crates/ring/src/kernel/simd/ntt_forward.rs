//! Forward NTT: radix-4 Cooley-Tukey, depth first, so that all but the first passes run in cache.
//!
//! Passes are software pipelined: the second level of one butterfly runs in lockstep with the first
//! level of the next, which doubles the independent work in the CPU's window.

use super::super::ntt::{NttTable, Twiddles};
use super::{Field, Lanes};

/// Elements that are taken through all their passes at a time; 8 KiB.
const LEAF: usize = 1 << 10;

/// Coefficients to evaluations.
///
/// # Safety
/// The CPU must support the instructions of `V`.
#[inline(always)]
pub(in crate::kernel) unsafe fn ntt_forward<V: Lanes>(t: &NttTable, a: &mut [f64]) {
    assert_eq!(a.len(), t.degree(), "NTT length");
    // SAFETY: the table is for this length, as just checked, and holds `Twiddles` for it.
    unsafe {
        if a.len() < 8 * V::LANES {
            transform::<V::Quad>(t, a.as_mut_ptr(), a.len());
        } else {
            transform::<V>(t, a.as_mut_ptr(), a.len());
        }
    }
}

/// # Safety
/// `a` has `n = t.degree() >= 8 V::LANES` elements, or 16 of them and four lanes`` elements; the
/// CPU supports `V`.
#[inline(always)]
unsafe fn transform<V: Lanes>(t: &NttTable, a: *mut f64, n: usize) {
    // SAFETY: all offsets below stay inside the `n` elements: blocks of `size` tile them.
    unsafe {
        let f = Field::<V>::new(&t.modulus);
        let tw = &t.floats()[0];
        // An odd number of levels starts with one of radix 2.
        let top = if t.log_n % 2 == 1 { n / 2 } else { n };
        if top != n {
            radix2(f, a, top, tw.pass(1));
        }
        let leaf = top.min(LEAF);
        for start in (0..n).step_by(leaf) {
            let mut size = top;
            while size > leaf {
                if start % size == 0 {
                    pass(f, tw, a.add(start), n, size, start / size);
                }
                size /= 4;
            }
            while size >= 64 {
                for from in (start..start + leaf).step_by(size) {
                    pass(f, tw, a.add(from), n, size, from / size);
                }
                size /= 4;
            }
            let (count, tw) = (leaf / 16, tw.tail(start / 16));
            tail_far(f, a.add(start), tw, count);
            tail_near(f, a.add(start), tw, count);
        }
    }
}

/// First level of a transform of `2 half` elements.
#[inline(always)]
unsafe fn radix2<V: Lanes>(f: Field<V>, a: *mut f64, half: usize, tw: *const f64) {
    // SAFETY: `2 half` elements at `a`, two twiddles at `tw`.
    unsafe {
        let (w, w_over_q) = (V::splat(*tw), V::splat(*tw.add(1)));
        for j in (0..half).step_by(V::LANES) {
            let (x, y) = (V::load(a.add(j)), V::load(a.add(half + j)));
            let [u] = f.mul_known([y], [w], [w_over_q]);
            x.add(u).store(a.add(j));
            x.sub(u).store(a.add(half + j));
        }
    }
}

/// Two levels of block `index` of `size >= 64` elements at `a`.
///
#[inline(always)]
unsafe fn pass<V: Lanes>(f: Field<V>, tw: &Twiddles, a: *mut f64, n: usize, size: usize, index: usize) {
    // SAFETY: `size` elements at `a`; the pass over blocks of this size has `n / size` of them.
    unsafe {
        let w = tw.pass(n / size).add(6 * index);
        if reduces(n, size) {
            radix4::<V, true>(f, a, size / 4, w);
        } else {
            radix4::<V, false>(f, a, size / 4, w);
        }
    }
}

/// Whether the two levels over blocks of `size` reduce the first element of their butterflies.
///
/// Without that a bound `B` grows to `1.27 B + 1.07` (from canonical: 2.4, 4.1, 6.2; after a level
/// of radix 2: 1.7, 3.2, 5.1), with it becomes `1.57 + 0.27 B`, with `1.13 B + 0.5 < 8` in between.
/// Sizes 64, 1024 … reduce, but not within the first two passes; the last pass always does, to at
/// most 3.3. Bounds before reductions stay below 6.3.
#[inline(always)]
fn reduces(n: usize, size: usize) -> bool {
    size.trailing_zeros() / 2 % 2 == 1 && (n / size > 4 || size == 64)
}

/// First level of a butterfly (`x` to `y`) of pipelined passes, given the products `x2 w1`,
/// `x3 w1`.
#[inline(always)]
fn first_level<V: Lanes, const REDUCE: bool>(f: Field<V>, x: [V; 4], a: V, b: V) -> [V; 4] {
    let x0 = if REDUCE { f.centre(x[0]) } else { x[0] };
    [x0.add(a), x[1].add(b), x0.sub(a), x[1].sub(b)]
}

/// Second level, given the products `y1 w2`, `y3 w3`.
#[inline(always)]
fn second_level<V: Lanes>(y: [V; 4], c: V, d: V) -> [V; 4] {
    [y[0].add(c), y[0].sub(c), y[2].add(d), y[2].sub(d)]
}

#[inline(always)]
unsafe fn load_rows<V: Lanes>(a: *const f64, pitch: usize) -> [V; 4] {
    // SAFETY: the caller's promise of four rows.
    unsafe { [V::load(a), V::load(a.add(pitch)), V::load(a.add(2 * pitch)), V::load(a.add(3 * pitch))] }
}

#[inline(always)]
unsafe fn store_rows<V: Lanes>(z: [V; 4], a: *mut f64, pitch: usize) {
    // SAFETY: the caller's promise of four rows.
    unsafe {
        z[0].store(a);
        z[1].store(a.add(pitch));
        z[2].store(a.add(2 * pitch));
        z[3].store(a.add(3 * pitch));
    }
}

/// Two levels over four rows of `quarter` elements that share their twiddles.
#[inline(always)]
unsafe fn radix4<V: Lanes, const REDUCE: bool>(f: Field<V>, a: *mut f64, quarter: usize, tw: *const f64) {
    // SAFETY: `4 quarter` elements at `a`, six twiddles at `tw`.
    unsafe {
        let [w1, w2, w3] = [0, 1, 2].map(|k| V::splat(*tw.add(k)));
        let [v1, v2, v3] = [3, 4, 5].map(|k| V::splat(*tw.add(k)));
        let x = load_rows::<V>(a, quarter);
        let [p, r] = f.mul_known([x[2], x[3]], [w1; 2], [v1; 2]);
        let mut y = first_level::<V, REDUCE>(f, x, p, r);
        for j in (V::LANES..quarter).step_by(V::LANES) {
            let x = load_rows::<V>(a.add(j), quarter);
            let [p, r, c, d] = f.mul_known([x[2], x[3], y[1], y[3]], [w1, w1, w2, w3], [v1, v1, v2, v3]);
            store_rows(second_level(y, c, d), a.add(j - V::LANES), quarter);
            y = first_level::<V, REDUCE>(f, x, p, r);
        }
        let [c, d] = f.mul_known([y[1], y[3]], [w2, w3], [v2, v3]);
        store_rows(second_level(y, c, d), a.add(quarter - V::LANES), quarter);
    }
}

#[inline(always)]
unsafe fn load_block<V: Lanes>(a: *const f64) -> [V; 4] {
    // SAFETY: the caller's promise of `V::LANES / 4` blocks of 16.
    unsafe { [V::load4(a, 16), V::load4(a.add(4), 16), V::load4(a.add(8), 16), V::load4(a.add(12), 16)] }
}

#[inline(always)]
unsafe fn store_block<V: Lanes>(z: [V; 4], a: *mut f64) {
    // SAFETY: the caller's promise of `V::LANES / 4` blocks of 16.
    unsafe {
        z[0].store4(a, 16);
        z[1].store4(a.add(4), 16);
        z[2].store4(a.add(8), 16);
        z[3].store4(a.add(12), 16);
    }
}

/// The levels of distance 8 and 4 in `count` blocks of 16. From 3.3, values grow to 5.8.
#[inline(always)]
unsafe fn tail_far<V: Lanes>(f: Field<V>, a: *mut f64, tw: *const f64, count: usize) {
    // SAFETY: `16 count` elements at `a` and twiddles at `tw`; `count` is a multiple of
    // `V::LANES / 4`.
    unsafe {
        let x = load_block::<V>(a);
        let [p, r] = f.mul_many([x[2], x[3]], [V::splat4(tw, 16); 2]);
        let mut y = first_level::<V, false>(f, x, p, r);
        for at in (4 * V::LANES..16 * count).step_by(4 * V::LANES) {
            let old = at - 4 * V::LANES;
            let x = load_block::<V>(a.add(at));
            let w1 = V::splat4(tw.add(at), 16);
            let (w2, w3) = (V::splat4(tw.add(old + 1), 16), V::splat4(tw.add(old + 2), 16));
            let [p, r, c, d] = f.mul_many([x[2], x[3], y[1], y[3]], [w1, w1, w2, w3]);
            store_block(second_level(y, c, d), a.add(old));
            y = first_level::<V, false>(f, x, p, r);
        }
        let old = 16 * count - 4 * V::LANES;
        let [c, d] =
            f.mul_many([y[1], y[3]], [V::splat4(tw.add(old + 1), 16), V::splat4(tw.add(old + 2), 16)]);
        store_block(second_level(y, c, d), a.add(old));
    }
}

/// The levels of distance 2 and 1 in `count` blocks of 16, transposed so that lanes are
/// independent. From 5.8, values grow to 3.9 thanks to a reduction (7.4 in between), and leave
/// canonical.
#[inline(always)]
unsafe fn tail_near<V: Lanes>(f: Field<V>, a: *mut f64, tw: *const f64, count: usize) {
    // SAFETY: `16 count` elements at `a` and twiddles at `tw`; `count` is a multiple of
    // `V::LANES / 4`.
    unsafe {
        let x = V::transpose4(load_block::<V>(a));
        let [p, r] = f.mul_many([x[2], x[3]], [V::load4(tw.add(4), 16); 2]);
        let mut y = first_level::<V, true>(f, x, p, r);
        for at in (4 * V::LANES..16 * count).step_by(4 * V::LANES) {
            let old = at - 4 * V::LANES;
            let x = V::transpose4(load_block::<V>(a.add(at)));
            let w1 = V::load4(tw.add(at + 4), 16);
            let (w2, w3) = (V::load4(tw.add(old + 8), 16), V::load4(tw.add(old + 12), 16));
            let [p, r, c, d] = f.mul_many([x[2], x[3], y[1], y[3]], [w1, w1, w2, w3]);
            let [z0, z1, z2, z3] = second_level(y, c, d);
            store_block([f.canonical(z0), f.canonical(z1), f.canonical(z2), f.canonical(z3)], a.add(old));
            y = first_level::<V, true>(f, x, p, r);
        }
        let old = 16 * count - 4 * V::LANES;
        let [c, d] =
            f.mul_many([y[1], y[3]], [V::load4(tw.add(old + 8), 16), V::load4(tw.add(old + 12), 16)]);
        let [z0, z1, z2, z3] = second_level(y, c, d);
        store_block([f.canonical(z0), f.canonical(z1), f.canonical(z2), f.canonical(z3)], a.add(old));
    }
}
