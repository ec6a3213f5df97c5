//! The reference kernel: one residue at a time, in f64 fused multiply-add arithmetic.
//!
//! The x86-64 baseline has no FMA instruction, so every function is compiled twice: as it is
//! (calling the math library's `fma`) and with the CPU's own instruction enabled. Both are exact,
//! hence equal.

use super::{ExtendTable, Kernel, NttTable};
use crate::modulus::Modulus;

/// The reference kernel for this CPU.
pub(super) fn kernel() -> &'static Kernel {
    #[cfg(target_arch = "x86_64")]
    if super::cpu::fused_multiply_add() {
        return &fma::KERNEL;
    }
    &PORTABLE
}

/// Declares the portable table and its FMA twin from the list of bodies.
macro_rules! kernels {
    ($( $name:ident ( $($arg:ident : $ty:ty),* ) ; )*) => {
        static PORTABLE: Kernel =
            Kernel { name: "scalar", packed_is_faster: false, $( $name: body::$name, )* };

        #[cfg(target_arch = "x86_64")]
        mod fma {
            use super::*;

            pub(super) static KERNEL: Kernel =
                Kernel { name: "scalar", packed_is_faster: false, $( $name, )* };

            $(
                fn $name($($arg: $ty),*) {
                    #[target_feature(enable = "fma")]
                    fn with_fma($($arg: $ty),*) {
                        body::$name($($arg),*);
                    }
                    // SAFETY: `KERNEL` is private to `kernel()`, which hands it out only after
                    // detecting FMA.
                    unsafe { with_fma($($arg),*) }
                }
            )*
        }
    };
}

kernels! {
    ntt_forward(t: &NttTable, a: &mut [f64]);
    ntt_inverse(t: &NttTable, a: &mut [f64], constant: f64);
    add(m: &Modulus, a: &mut [f64], b: &[f64]);
    sub(m: &Modulus, a: &mut [f64], b: &[f64]);
    neg(m: &Modulus, a: &mut [f64]);
    mul(m: &Modulus, a: &mut [f64], b: &[f64]);
    mul_to(m: &Modulus, dst: &mut [f64], a: &[f64], b: &[f64]);
    mul_add(m: &Modulus, acc: &mut [f64], a: &[f64], b: &[f64]);
    mul_scalar(m: &Modulus, a: &mut [f64], w: f64);
    mul_scalar_add(m: &Modulus, acc: &mut [f64], a: &[f64], w: f64);
    rsub_mul_scalar(m: &Modulus, dst: &mut [f64], a: &[f64], w: f64);
    reduce(m: &Modulus, dst: &mut [f64], src: &[f64]);
    permute(dst: &mut [f64], src: &[f64], index: &[u32]);
    extend(t: &ExtendTable, src: &[&[f64]], dst: &mut [&mut [f64]]);
    inner_product2(
        m: &Modulus, acc0: &mut [f64], acc1: &mut [f64],
        digits: &[&[f64]], key0: &[&[f64]], key1: &[&[f64]]
    );
    inner_product_packed(m: &Modulus, acc0: &mut [f64], acc1: &mut [f64], digits: &[&[f64]], keys: &[&[u8]]);
}

mod body {
    use super::{ExtendTable, Modulus, NttTable};
    use crate::kernel::ntt::transpose_blocks;
    use crate::kernel::packed::inner_product_from;

    /// Cooley-Tukey butterflies, natural order in, bit-reversed order with transposed blocks of 16
    /// out.
    #[inline(always)]
    pub(super) fn ntt_forward(t: &NttTable, a: &mut [f64]) {
        let (m, [powers, _]) = (t.modulus, t.reference());
        let (mut half, mut groups) = (a.len() / 2, 1);
        while half != 0 {
            for (block, &w) in a.chunks_exact_mut(2 * half).zip(&powers[groups..2 * groups]) {
                let (low, high) = block.split_at_mut(half);
                for (x, y) in low.iter_mut().zip(high) {
                    let u = m.mul_f64(*y, w);
                    (*x, *y) = (m.add_f64(*x, u), m.sub_f64(*x, u));
                }
            }
            half /= 2;
            groups *= 2;
        }
        transpose_blocks(a);
    }

    /// Gentleman-Sande butterflies, the forward transform's order in, natural order out.
    #[inline(always)]
    pub(super) fn ntt_inverse(t: &NttTable, a: &mut [f64], constant: f64) {
        let (m, [_, powers]) = (t.modulus, t.reference());
        transpose_blocks(a);
        let (mut half, mut groups) = (1, a.len() / 2);
        while groups != 0 {
            for (block, &w) in a.chunks_exact_mut(2 * half).zip(&powers[groups..2 * groups]) {
                let (low, high) = block.split_at_mut(half);
                for (x, y) in low.iter_mut().zip(high) {
                    (*x, *y) = (m.add_f64(*x, *y), m.mul_f64(m.sub_f64(*x, *y), w));
                }
            }
            half *= 2;
            groups /= 2;
        }
        mul_scalar(&m, a, m.mul_f64(t.degree_inv, constant));
    }

    #[inline(always)]
    pub(super) fn add(m: &Modulus, a: &mut [f64], b: &[f64]) {
        for (x, &y) in a.iter_mut().zip(b) {
            *x = m.add_f64(*x, y);
        }
    }

    #[inline(always)]
    pub(super) fn sub(m: &Modulus, a: &mut [f64], b: &[f64]) {
        for (x, &y) in a.iter_mut().zip(b) {
            *x = m.sub_f64(*x, y);
        }
    }

    #[inline(always)]
    pub(super) fn neg(m: &Modulus, a: &mut [f64]) {
        for x in a {
            *x = m.sub_f64(0.0, *x);
        }
    }

    #[inline(always)]
    pub(super) fn mul(m: &Modulus, a: &mut [f64], b: &[f64]) {
        for (x, &y) in a.iter_mut().zip(b) {
            *x = m.mul_f64(*x, y);
        }
    }

    #[inline(always)]
    pub(super) fn mul_to(m: &Modulus, dst: &mut [f64], a: &[f64], b: &[f64]) {
        for (d, (&x, &y)) in dst.iter_mut().zip(a.iter().zip(b)) {
            *d = m.mul_f64(x, y);
        }
    }

    #[inline(always)]
    pub(super) fn mul_add(m: &Modulus, acc: &mut [f64], a: &[f64], b: &[f64]) {
        for (z, (&x, &y)) in acc.iter_mut().zip(a.iter().zip(b)) {
            *z = m.add_f64(*z, m.mul_f64(x, y));
        }
    }

    #[inline(always)]
    pub(super) fn mul_scalar(m: &Modulus, a: &mut [f64], w: f64) {
        for x in a {
            *x = m.mul_f64(*x, w);
        }
    }

    #[inline(always)]
    pub(super) fn mul_scalar_add(m: &Modulus, acc: &mut [f64], a: &[f64], w: f64) {
        for (z, &x) in acc.iter_mut().zip(a) {
            *z = m.add_f64(*z, m.mul_f64(x, w));
        }
    }

    #[inline(always)]
    pub(super) fn rsub_mul_scalar(m: &Modulus, dst: &mut [f64], a: &[f64], w: f64) {
        for (d, &x) in dst.iter_mut().zip(a) {
            *d = m.mul_f64(m.sub_f64(x, *d), w);
        }
    }

    #[inline(always)]
    pub(super) fn reduce(m: &Modulus, dst: &mut [f64], src: &[f64]) {
        for (d, &x) in dst.iter_mut().zip(src) {
            *d = m.reduce_f64(x);
        }
    }

    #[inline(always)]
    pub(super) fn permute(dst: &mut [f64], src: &[f64], index: &[u32]) {
        for (d, &i) in dst.iter_mut().zip(index) {
            *d = src[i as usize];
        }
    }

    /// Coefficients of one scratch block of `extend`.
    const BLOCK: usize = 128;

    #[inline(always)]
    pub(super) fn extend(t: &ExtendTable, src: &[&[f64]], dst: &mut [&mut [f64]]) {
        let count = src.iter().map(|s| s.len()).min().unwrap_or(0);
        let mut scratch = vec![0.0; (src.len() + 1) * BLOCK];
        let (y, v) = scratch.split_at_mut(src.len() * BLOCK);
        for start in (0..count).step_by(BLOCK) {
            let len = BLOCK.min(count - start);
            v.fill(0.0);
            for (i, (m, &inv)) in t.from.iter().zip(&t.inv).enumerate() {
                for k in 0..len {
                    let yi = m.mul_f64(src[i][start + k], inv);
                    y[i * BLOCK + k] = yi;
                    v[k] = yi.mul_add(m.recip(), v[k]);
                }
            }
            for k in 0..len {
                let s = v[k];
                v[k] = s.round_ties_even();
                if ((s - s.floor()) - 0.5).abs() < ExtendTable::EDGE {
                    v[k] = t.exact_v((0..src.len()).map(|i| y[i * BLOCK + k]));
                }
            }
            for (j, (m, out)) in t.to.iter().zip(dst.iter_mut()).enumerate() {
                let row = &t.matrix[j * src.len()..][..src.len()];
                for k in 0..len {
                    // v <= l is far below every prime in use, but a small prime may be smaller than
                    // y.
                    let mut sum = m.mul_f64(m.reduce_f64(v[k]), t.neg_q[j]);
                    for (i, &c) in row.iter().enumerate() {
                        sum = m.add_f64(sum, m.mul_f64(m.reduce_f64(y[i * BLOCK + k]), c));
                    }
                    out[start + k] = sum;
                }
            }
        }
    }

    #[inline(always)]
    pub(super) fn inner_product2(
        m: &Modulus,
        acc0: &mut [f64],
        acc1: &mut [f64],
        digits: &[&[f64]],
        key0: &[&[f64]],
        key1: &[&[f64]],
    ) {
        for (k, (a0, a1)) in acc0.iter_mut().zip(acc1).enumerate() {
            for ((d, b0), b1) in digits.iter().zip(key0).zip(key1) {
                *a0 = m.add_f64(*a0, m.mul_f64(d[k], b0[k]));
                *a1 = m.add_f64(*a1, m.mul_f64(d[k], b1[k]));
            }
        }
    }

    #[inline(always)]
    pub(super) fn inner_product_packed(
        m: &Modulus,
        acc0: &mut [f64],
        acc1: &mut [f64],
        digits: &[&[f64]],
        keys: &[&[u8]],
    ) {
        inner_product_from(m, [acc0, acc1], digits, keys, 0);
    }
}
