//! Basis extension as a matrix product with exact lazily reduced sums.

use super::super::extend::{ExtendTable, centred};
use super::inner::{accumulate, fold};
use super::{Field, Lanes, prefetch_write};

/// Coefficients per block; its digits stay in the first-level cache for up to 28 source primes.
const BLOCK: usize = 128;
/// Vectors per broadcast constant.
const WIDTH: usize = 4;
/// Products per reduction. Factors are centred, so eight are at most `2^101` together and `high`
/// stays in `[2^102, 2^103]`, where the last place is `2^50`.
const CHUNK: usize = 8;
const BASE: f64 = 1.5 * (1u128 << 102) as f64;

/// # Safety
/// The CPU must support the instructions of `V`.
#[inline(always)]
pub(in crate::kernel) unsafe fn extend<V: Lanes>(t: &ExtendTable, src: &[&[f64]], dst: &mut [&mut [f64]]) {
    assert_eq!((src.len(), dst.len()), (t.from.len(), t.to.len()), "slices per prime of a basis extension");
    let count = src.iter().map(|s| s.len()).chain(dst.iter().map(|d| d.len())).min().unwrap_or(0);
    let mut scratch = vec![0.0; (src.len() + 2) * BLOCK];
    let (digits, rest) = scratch.split_at_mut(src.len() * BLOCK);
    let (quotients, output) = rest.split_at_mut(BLOCK);
    for start in (0..count).step_by(BLOCK) {
        let len = BLOCK.min(count - start);
        for (y, x) in digits.chunks_exact_mut(BLOCK).zip(src) {
            y[..len].copy_from_slice(&x[start..start + len]);
            y[len..].fill(0.0);
        }
        // SAFETY: `BLOCK` elements per source prime in `digits`, `BLOCK` in `quotients`, and in
        // each output.
        unsafe {
            digits_of::<V>(t, digits, quotients);
            for j in 0..dst.len() {
                if let Some(next) = dst.get(j + 1) {
                    for k in (0..BLOCK).step_by(8) {
                        prefetch_write(next.as_ptr().wrapping_add(start + k));
                    }
                }
                let d = &mut dst[j][start..start + len];
                if len == BLOCK {
                    row::<V>(t, j, digits, quotients, d.as_mut_ptr());
                } else {
                    row::<V>(t, j, digits, quotients, output.as_mut_ptr());
                    d.copy_from_slice(&output[..len]);
                }
            }
        }
    }
}

/// Residues to centred `y_i = x_i (Q/q_i)^-1`, and `round(sum_i y_i / q_i)`.
#[inline(always)]
unsafe fn digits_of<V: Lanes>(t: &ExtendTable, digits: &mut [f64], quotients: &mut [f64]) {
    // SAFETY: `BLOCK` elements, a multiple of the lanes, per source prime and in `quotients`.
    unsafe {
        let y = digits.as_mut_ptr();
        quotients.fill(0.0);
        for (i, (m, &inv)) in t.from.iter().zip(&t.inv).enumerate() {
            let f = Field::<V>::new(m);
            let inv = V::splat(centred(m, inv));
            for k in (0..BLOCK).step_by(V::LANES) {
                let (at, sum) = (y.add(i * BLOCK + k), quotients.as_mut_ptr().add(k));
                let yi = f.centre(f.mul(V::load(at), inv));
                yi.store(at);
                yi.mul_add(f.recip, V::load(sum)).store(sum);
            }
        }
        let limit = V::splat((0.5 - ExtendTable::EDGE) * (0.5 - ExtendTable::EDGE));
        for k in (0..BLOCK).step_by(V::LANES) {
            let at = quotients.as_mut_ptr().add(k);
            let sum = V::load(at);
            let v = sum.round();
            let off = sum.sub(v);
            v.store(at);
            if limit.sub(off.mul(off)).any_negative() {
                for lane in k..k + V::LANES {
                    quotients[lane] = t.exact_centred_v((0..t.from.len()).map(|i| digits[i * BLOCK + lane]));
                }
            }
        }
    }
}

/// One output prime: `sum_i y_i (Q/q_i) - v Q`.
#[inline(always)]
unsafe fn row<V: Lanes>(t: &ExtendTable, j: usize, digits: &[f64], quotients: &[f64], dst: *mut f64) {
    let terms = t.from.len();
    let constants = &t.matrix_centred[j * terms..][..terms];
    // SAFETY: `BLOCK` elements, a multiple of `WIDTH` vectors, per source prime, in `quotients` and
    // at `dst`.
    unsafe {
        let f = Field::<V>::new(&t.to[j]);
        let neg_q = V::splat(t.neg_q_centred[j]);
        let base = V::splat(BASE);
        for k in (0..BLOCK).step_by(WIDTH * V::LANES) {
            let v: [V; WIDTH] = std::array::from_fn(|u| V::load(quotients.as_ptr().add(k + u * V::LANES)));
            let mut low: [V; WIDTH] = if terms <= CHUNK {
                // |v| <= 4: the product is at most 2 and needs no reduction.
                v.map(|v| v.mul(neg_q))
            } else {
                f.mul_many(v, [neg_q; WIDTH])
            };
            let mut y = digits.as_ptr().add(k);
            let mut chunks = constants.chunks(CHUNK).peekable();
            while let Some(chunk) = chunks.next() {
                let mut high = [base; WIDTH];
                for &c in chunk {
                    let c = V::splat(c);
                    for u in 0..WIDTH {
                        (high[u], low[u]) = accumulate(high[u], low[u], V::load(y.add(u * V::LANES)), c);
                    }
                    y = y.add(BLOCK);
                }
                // The remainders of eight products are at most 4, the rest of the division at most
                // 1.3.
                for u in 0..WIDTH {
                    let high = high[u].sub(base);
                    low[u] = if chunks.peek().is_some() {
                        f.centre(f.centre(high).add(low[u]))
                    } else {
                        fold(f, high, low[u])
                    };
                }
            }
            for (u, low) in low.into_iter().enumerate() {
                low.store(dst.add(k + u * V::LANES));
            }
        }
    }
}
