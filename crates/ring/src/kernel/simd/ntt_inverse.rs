//! Inverse NTT: the forward passes mirrored, with Gentleman-Sande butterflies.

use super::super::extend::centred;
use super::super::ntt::{NttTable, Twiddles};
use super::{Field, Lanes};
use crate::modulus::Modulus;

/// Elements that are taken through all their passes at a time; 8 KiB.
const LEAF: usize = 1 << 10;

/// Evaluations to coefficients times `constant`.
///
/// # Safety
/// The CPU must support the instructions of `V`.
#[inline(always)]
pub(in crate::kernel) unsafe fn ntt_inverse<V: Lanes>(t: &NttTable, a: &mut [f64], constant: f64) {
    assert_eq!(a.len(), t.degree(), "NTT length");
    // SAFETY: the table is for this length, as just checked, and holds `Twiddles` for it.
    unsafe {
        if a.len() < 8 * V::LANES {
            transform::<V::Quad>(t, a.as_mut_ptr(), a.len(), constant);
        } else {
            transform::<V>(t, a.as_mut_ptr(), a.len(), constant);
        }
    }
}

/// # Safety
/// `a` has `n = t.degree()` elements, at least 8 vectors (4 if of four lanes); the CPU supports
/// `V`.
#[inline(always)]
unsafe fn transform<V: Lanes>(t: &NttTable, a: *mut f64, n: usize, constant: f64) {
    // SAFETY: all offsets below stay inside the `n` elements: blocks of `size` tile them.
    unsafe {
        let f = Field::<V>::new(&t.modulus);
        let tw = &t.floats()[1];
        let scale = t.modulus.mul_f64(t.degree_inv, constant);
        let top = if t.log_n % 2 == 1 { n / 2 } else { n };
        let leaf = top.min(LEAF);
        for start in (0..n).step_by(leaf) {
            let (count, near) = (leaf / 16, tw.tail(start / 16));
            tail_near(f, a.add(start), near, count);
            tail_far(f, a.add(start), near, count);
            let mut size = 64;
            while size <= leaf && size < n {
                for from in (start..start + leaf).step_by(size) {
                    radix4::<V, false>(f, a.add(from), size / 4, Factors::new(tw, n / size, from / size));
                }
                size *= 4;
            }
            while size <= top && size < n {
                let end = start + leaf;
                if end % size == 0 {
                    let from = end - size;
                    radix4::<V, false>(f, a.add(from), size / 4, Factors::new(tw, n / size, from / size));
                }
                size *= 4;
            }
        }
        if n == 16 {
            for j in (0..n).step_by(V::LANES) {
                let x = f.mul(V::load(a.add(j)), V::splat(scale));
                f.canonical(x).store(a.add(j));
            }
        } else if top == n {
            radix4::<V, true>(f, a, n / 4, Factors::new(tw, 1, 0).scaled(&t.modulus, scale));
        } else {
            let w = scaled(&t.modulus, *tw.pass(1), scale);
            radix2_last(
                f,
                a,
                top,
                [centred(&t.modulus, scale), w].map(|w| (V::splat(w), V::splat(w / t.modulus.float()))),
            );
        }
    }
}

/// Twiddles of one radix-4 butterfly, each with its quotient by `q`.
#[derive(Clone, Copy)]
struct Factors {
    /// `1` (or the scale), the first level's two and the second level's.
    w: [f64; 5],
    over_q: [f64; 5],
}

impl Factors {
    #[inline(always)]
    unsafe fn new(tw: &Twiddles, blocks: usize, index: usize) -> Self {
        // SAFETY: `index < blocks`, and `blocks` belongs to a radix-4 pass.
        unsafe {
            let p = tw.pass(blocks).add(6 * index);
            let [w1, w2, w3, v1, v2, v3] = [0, 1, 2, 3, 4, 5].map(|k| *p.add(k));
            Self { w: [1.0, w2, w3, w1, w1], over_q: [0.0, v2, v3, v1, v1] }
        }
    }

    /// All four outputs times `scale`: the differences through the first level, the sums at the
    /// end.
    #[inline(always)]
    fn scaled(self, m: &Modulus, scale: f64) -> Self {
        let [_, w2, w3, w1, _] = self.w;
        let w = [centred(m, scale), scaled(m, w2, scale), scaled(m, w3, scale), w1, scaled(m, w1, scale)];
        Self { w, over_q: w.map(|w| w / m.float()) }
    }
}

/// Centred `w scale` for centred `w`.
#[inline(always)]
fn scaled(m: &Modulus, w: f64, scale: f64) -> f64 {
    centred(m, m.mul_f64(if w < 0.0 { w + m.float() } else { w }, scale))
}

/// Last level: `(x + y) s` and `(x - y) w s`, canonical.
#[inline(always)]
unsafe fn radix2_last<V: Lanes>(f: Field<V>, a: *mut f64, half: usize, [(s, v0), (w, v1)]: [(V, V); 2]) {
    // SAFETY: `2 half` elements at `a`.
    unsafe {
        for j in (0..half).step_by(V::LANES) {
            let (x, y) = (V::load(a.add(j)), V::load(a.add(half + j)));
            let [x, y] = f.mul_known([x.add(y), x.sub(y)], [s, w], [v0, v1]);
            f.canonical(x).store(a.add(j));
            f.canonical(y).store(a.add(half + j));
        }
    }
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
///
/// With the sum reduced, outputs are at most 2 if all inputs are: the first element reduces to 1/2,
/// the second is a sum of products `<= 1/2 + 4/8`, the others are products of at most 8. `LAST`
/// scales the first by a product instead and makes all canonical.
#[inline(always)]
unsafe fn radix4<V: Lanes, const LAST: bool>(f: Field<V>, a: *mut f64, quarter: usize, factors: Factors) {
    // SAFETY: `4 quarter` elements at `a`, and the CPU supports `V`.
    unsafe {
        let [w2, w3, w1] = [1, 2, 3].map(|k| V::splat(factors.w[k]));
        let [v2, v3, v1] = [1, 2, 3].map(|k| V::splat(factors.over_q[k]));
        // Fewer registers where the scale is 1.
        let [(s, vs), (t1, u1)] = if LAST {
            [0, 4].map(|k| (V::splat(factors.w[k]), V::splat(factors.over_q[k])))
        } else {
            [(w1, v1); 2]
        };
        let x = load_rows::<V>(a, quarter);
        let [c, d] = f.mul_known([x[0].sub(x[1]), x[2].sub(x[3])], [w2, w3], [v2, v3]);
        let mut y = [x[0].add(x[1]), c, x[2].add(x[3]), d];
        for j in (V::LANES..quarter).step_by(V::LANES) {
            let x = load_rows::<V>(a.add(j), quarter);
            let [c, d, x2, x3] = f.mul_known(
                [x[0].sub(x[1]), x[2].sub(x[3]), y[0].sub(y[2]), y[1].sub(y[3])],
                [w2, w3, t1, w1],
                [v2, v3, u1, v1],
            );
            store_rows(sums::<V, LAST>(f, y, x2, x3, s, vs), a.add(j - V::LANES), quarter);
            y = [x[0].add(x[1]), c, x[2].add(x[3]), d];
        }
        let [x2, x3] = f.mul_known([y[0].sub(y[2]), y[1].sub(y[3])], [t1, w1], [u1, v1]);
        store_rows(sums::<V, LAST>(f, y, x2, x3, s, vs), a.add(quarter - V::LANES), quarter);
    }
}

/// The four results of a butterfly from `y` and the second level's products.
#[inline(always)]
fn sums<V: Lanes, const LAST: bool>(f: Field<V>, y: [V; 4], x2: V, x3: V, s: V, s_over_q: V) -> [V; 4] {
    let (x0, x1) = (y[0].add(y[2]), y[1].add(y[3]));
    if LAST {
        let [x0] = f.mul_known([x0], [s], [s_over_q]);
        [f.canonical(x0), f.canonical(x1), f.canonical(x2), f.canonical(x3)]
    } else {
        [f.centre(x0), x1, x2, x3]
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

/// The levels of distance 1 and 2 in `count` blocks of 16. From canonical to at most 1.4.
#[inline(always)]
unsafe fn tail_near<V: Lanes>(f: Field<V>, a: *mut f64, tw: *const f64, count: usize) {
    // SAFETY: `16 count` elements at `a` and twiddles at `tw`; `count` is a multiple of
    // `V::LANES / 4`.
    unsafe {
        let x = load_block::<V>(a);
        let [c, d] =
            f.mul_many([x[0].sub(x[1]), x[2].sub(x[3])], [V::load4(tw.add(8), 16), V::load4(tw.add(12), 16)]);
        let mut y = [x[0].add(x[1]), c, x[2].add(x[3]), d];
        for at in (4 * V::LANES..16 * count).step_by(4 * V::LANES) {
            let old = at - 4 * V::LANES;
            let x = load_block::<V>(a.add(at));
            let (w2, w3) = (V::load4(tw.add(at + 8), 16), V::load4(tw.add(at + 12), 16));
            let w1 = V::load4(tw.add(old + 4), 16);
            let [c, d, x2, x3] = f
                .mul_many([x[0].sub(x[1]), x[2].sub(x[3]), y[0].sub(y[2]), y[1].sub(y[3])], [w2, w3, w1, w1]);
            store_block(V::transpose4([f.centre(y[0].add(y[2])), y[1].add(y[3]), x2, x3]), a.add(old));
            y = [x[0].add(x[1]), c, x[2].add(x[3]), d];
        }
        let old = 16 * count - 4 * V::LANES;
        let [x2, x3] = f.mul_many([y[0].sub(y[2]), y[1].sub(y[3])], [V::load4(tw.add(old + 4), 16); 2]);
        store_block(V::transpose4([f.centre(y[0].add(y[2])), y[1].add(y[3]), x2, x3]), a.add(old));
    }
}

/// The levels of distance 4 and 8 in `count` blocks of 16. From 1.4 to at most 1.6, both sums
/// reduced.
#[inline(always)]
unsafe fn tail_far<V: Lanes>(f: Field<V>, a: *mut f64, tw: *const f64, count: usize) {
    // SAFETY: `16 count` elements at `a` and twiddles at `tw`; `count` is a multiple of
    // `V::LANES / 4`.
    unsafe {
        let x = load_block::<V>(a);
        let (w2, w3) = (V::splat4(tw.add(1), 16), V::splat4(tw.add(2), 16));
        let [c, d] = f.mul_many([x[0].sub(x[1]), x[2].sub(x[3])], [w2, w3]);
        let mut y = [x[0].add(x[1]), c, x[2].add(x[3]), d];
        for at in (4 * V::LANES..16 * count).step_by(4 * V::LANES) {
            let old = at - 4 * V::LANES;
            let x = load_block::<V>(a.add(at));
            let (w2, w3) = (V::splat4(tw.add(at + 1), 16), V::splat4(tw.add(at + 2), 16));
            let w1 = V::splat4(tw.add(old), 16);
            let [c, d, x2, x3] = f
                .mul_many([x[0].sub(x[1]), x[2].sub(x[3]), y[0].sub(y[2]), y[1].sub(y[3])], [w2, w3, w1, w1]);
            store_block([f.centre(y[0].add(y[2])), f.centre(y[1].add(y[3])), x2, x3], a.add(old));
            y = [x[0].add(x[1]), c, x[2].add(x[3]), d];
        }
        let old = 16 * count - 4 * V::LANES;
        let [x2, x3] = f.mul_many([y[0].sub(y[2]), y[1].sub(y[3])], [V::splat4(tw.add(old), 16); 2]);
        store_block([f.centre(y[0].add(y[2])), f.centre(y[1].add(y[3])), x2, x3], a.add(old));
    }
}
