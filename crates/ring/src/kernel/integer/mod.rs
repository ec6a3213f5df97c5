//! Integers instead of floats: for CPUs without fused multiply-add (`wasm32` among them), where
//! each product of the scalar kernel calls the math library, and as a second opinion on all other
//! kernels, with which it shares no arithmetic.
//!
//! Products with a known factor are Shoup's, others Barrett's. Transforms keep values below
//! `4 q < 2^52` (Harvey, "Faster arithmetic for number-theoretic transforms"), as words in the bits
//! of the floats they replace.

mod extend;
mod field;
pub(super) mod table;

use super::ntt::transpose_blocks;
use super::packed::{GROUP, common_length, group_bytes, unpack_group};
use super::{Kernel, NttTable};
use crate::modulus::Modulus;
use field::{Factor, Field};

pub(super) static KERNEL: Kernel = Kernel {
    name: "integer",
    packed_is_faster: false,
    ntt_forward,
    ntt_inverse,
    add: |m, a, b| zip(a, b, |x, y| m.add_f64(x, y)),
    sub: |m, a, b| zip(a, b, |x, y| m.sub_f64(x, y)),
    neg: |m, a| a.iter_mut().for_each(|x| *x = m.sub_f64(0.0, *x)),
    mul,
    mul_to,
    mul_add,
    mul_scalar,
    mul_scalar_add,
    rsub_mul_scalar,
    reduce,
    permute,
    extend: extend::extend,
    inner_product2,
    inner_product_packed,
};

fn zip(a: &mut [f64], b: &[f64], f: impl Fn(f64, f64) -> f64) {
    for (x, &y) in a.iter_mut().zip(b) {
        *x = f(*x, y);
    }
}

/// A canonical factor of every product of a call.
fn factor(f: Field, w: f64) -> Factor {
    Factor::new(Field::word(w), f.q)
}

/// Takes a slice through levels of butterflies on words: each level's number of blocks and its
/// factors, one a block.
fn butterflies<'a>(
    a: &mut [f64],
    levels: impl Iterator<Item = &'a [Factor]>,
    butterfly: impl Fn(u64, u64, Factor) -> (u64, u64),
) {
    for factors in levels {
        let size = a.len() / factors.len();
        for (block, &factor) in a.chunks_exact_mut(size).zip(factors) {
            let (low, high) = block.split_at_mut(size / 2);
            for (x, y) in low.iter_mut().zip(high) {
                let (u, v) = butterfly(x.to_bits(), y.to_bits(), factor);
                (*x, *y) = (f64::from_bits(u), f64::from_bits(v));
            }
        }
    }
}

fn ntt_forward(t: &NttTable, a: &mut [f64]) {
    assert_eq!(a.len(), t.degree(), "NTT length");
    let (f, table) = (Field::new(&t.modulus), &t.integers()[0]);
    let q2 = 2 * f.q;
    a.iter_mut().for_each(|x| *x = f64::from_bits(Field::word(*x)));
    // From below 4 to below 4.
    butterflies(a, (0..t.log_n).map(|level| table.level(1 << level)), |x, y, w| {
        let x = if x >= q2 { x - q2 } else { x };
        let y = f.mul_lazy(y, w);
        (x + y, x + q2 - y)
    });
    for x in a.iter_mut() {
        let word = x.to_bits();
        *x = f.wrap(if word >= q2 { word - q2 } else { word }) as f64;
    }
    transpose_blocks(a);
}

fn ntt_inverse(t: &NttTable, a: &mut [f64], constant: f64) {
    assert_eq!(a.len(), t.degree(), "NTT length");
    let (f, table) = (Field::new(&t.modulus), &t.integers()[1]);
    let q2 = 2 * f.q;
    transpose_blocks(a);
    a.iter_mut().for_each(|x| *x = f64::from_bits(Field::word(*x)));
    // From below 2 to below 2.
    butterflies(a, (0..t.log_n).rev().map(|level| table.level(1 << level)), |x, y, w| {
        let sum = x + y;
        (if sum >= q2 { sum - q2 } else { sum }, f.mul_lazy(x + q2 - y, w))
    });
    let scale = Factor::new(f.mul(Field::word(t.degree_inv), Field::word(constant)), f.q);
    a.iter_mut().for_each(|x| *x = f.wrap(f.mul_lazy(x.to_bits(), scale)) as f64);
}

fn mul(m: &Modulus, a: &mut [f64], b: &[f64]) {
    let f = Field::new(m);
    zip(a, b, |x, y| f.mul(Field::word(x), Field::word(y)) as f64);
}

fn mul_to(m: &Modulus, dst: &mut [f64], a: &[f64], b: &[f64]) {
    let f = Field::new(m);
    for (d, (&x, &y)) in dst.iter_mut().zip(a.iter().zip(b)) {
        *d = f.mul(Field::word(x), Field::word(y)) as f64;
    }
}

fn mul_add(m: &Modulus, acc: &mut [f64], a: &[f64], b: &[f64]) {
    let f = Field::new(m);
    for (z, (&x, &y)) in acc.iter_mut().zip(a.iter().zip(b)) {
        *z = f.add(Field::word(*z), f.mul(Field::word(x), Field::word(y))) as f64;
    }
}

fn mul_scalar(m: &Modulus, a: &mut [f64], w: f64) {
    let f = Field::new(m);
    let w = factor(f, w);
    a.iter_mut().for_each(|x| *x = f.wrap(f.mul_lazy(Field::word(*x), w)) as f64);
}

fn mul_scalar_add(m: &Modulus, acc: &mut [f64], a: &[f64], w: f64) {
    let f = Field::new(m);
    let w = factor(f, w);
    zip(acc, a, |z, x| f.add(Field::word(z), f.wrap(f.mul_lazy(Field::word(x), w))) as f64);
}

fn rsub_mul_scalar(m: &Modulus, dst: &mut [f64], a: &[f64], w: f64) {
    let f = Field::new(m);
    let w = factor(f, w);
    zip(dst, a, |d, x| f.wrap(f.mul_lazy(Field::word(x) + f.q - Field::word(d), w)) as f64);
}

fn reduce(m: &Modulus, dst: &mut [f64], src: &[f64]) {
    let f = Field::new(m);
    zip(dst, src, |_, x| f.reduce_float(x) as f64);
}

fn permute(dst: &mut [f64], src: &[f64], index: &[u32]) {
    for (d, &i) in dst.iter_mut().zip(index) {
        *d = src[i as usize];
    }
}

/// `sum + x y`.
#[inline(always)]
fn accumulate(sum: u128, x: f64, y: f64) -> u128 {
    sum + u128::from(Field::word(x)) * u128::from(Field::word(y))
}

fn inner_product2(
    m: &Modulus,
    acc0: &mut [f64],
    acc1: &mut [f64],
    digits: &[&[f64]],
    key0: &[&[f64]],
    key1: &[&[f64]],
) {
    let f = Field::new(m);
    for (k, (a0, a1)) in acc0.iter_mut().zip(acc1).enumerate() {
        let (mut sum0, mut sum1) = (u128::from(Field::word(*a0)), u128::from(Field::word(*a1)));
        for ((d, b0), b1) in digits.iter().zip(key0).zip(key1) {
            sum0 = accumulate(sum0, d[k], b0[k]);
            sum1 = accumulate(sum1, d[k], b1[k]);
        }
        (*a0, *a1) = (f.reduce(sum0) as f64, f.reduce(sum1) as f64);
    }
}

fn inner_product_packed(m: &Modulus, acc0: &mut [f64], acc1: &mut [f64], digits: &[&[f64]], keys: &[&[u8]]) {
    let (f, half) = (Field::new(m), m.bits() as usize);
    let n = common_length(m, [acc0, acc1], digits, keys);
    for start in (0..n).step_by(GROUP) {
        let mut sums = [[0u128; GROUP]; 2];
        let length = GROUP.min(n - start);
        for (digit, key) in digits.iter().zip(keys) {
            let group = &key[start / GROUP * group_bytes(m)..][..2 * half];
            let pair = [unpack_group(&group[..half], half), unpack_group(&group[half..], half)];
            for (i, &x) in digit[start..start + length].iter().enumerate() {
                sums[0][i] = accumulate(sums[0][i], x, pair[0][i]);
                sums[1][i] = accumulate(sums[1][i], x, pair[1][i]);
            }
        }
        for (acc, sums) in [&mut *acc0, &mut *acc1].into_iter().zip(&sums) {
            for (out, &sum) in acc[start..start + length].iter_mut().zip(sums) {
                *out = f.reduce(sum) as f64;
            }
        }
    }
}
