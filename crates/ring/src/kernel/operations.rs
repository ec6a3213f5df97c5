//! The operations that every kernel has.

use super::extend::ExtendTable;
use super::ntt::NttTable;
use crate::modulus::Modulus;

/// A table of slice operations; all tables give identical results.
///
/// `m` is the modulus of all slices of a call.
#[derive(Clone, Copy)]
#[allow(clippy::type_complexity)] // The list of function types is the definition.
pub struct Kernel {
    /// `"integer"`, `"scalar"`, `"avx2"`, `"avx512"` or `"avx512ifma"`.
    pub name: &'static str,
    /// Whether the inner product is faster with packed keys: it is where unpacking hides behind
    /// reading from memory.
    pub packed_is_faster: bool,
    /// Forward negacyclic NTT in place: coefficients to evaluations, in the order of
    /// [`eval_exponent`](crate::eval_exponent).
    pub ntt_forward: fn(&NttTable, &mut [f64]),
    /// Inverse NTT in place, scaled by a constant residue: `(table, values, constant)`; pass 1 for
    /// the plain inverse.
    pub ntt_inverse: fn(&NttTable, &mut [f64], f64),
    /// `a += b`.
    pub add: fn(&Modulus, &mut [f64], &[f64]),
    /// `a -= b`.
    pub sub: fn(&Modulus, &mut [f64], &[f64]),
    /// `a = -a`.
    pub neg: fn(&Modulus, &mut [f64]),
    /// `a *= b`.
    pub mul: fn(&Modulus, &mut [f64], &[f64]),
    /// `dst = a * b`.
    pub mul_to: fn(&Modulus, &mut [f64], &[f64], &[f64]),
    /// `acc += a * b`.
    pub mul_add: fn(&Modulus, &mut [f64], &[f64], &[f64]),
    /// `a *= w`, `w` a canonical residue.
    pub mul_scalar: fn(&Modulus, &mut [f64], f64),
    /// `acc += a * w`, `w` a canonical residue.
    pub mul_scalar_add: fn(&Modulus, &mut [f64], &[f64], f64),
    /// `dst = (a - dst) * w`, `w` a canonical residue: the last step of dividing by dropped primes.
    pub rsub_mul_scalar: fn(&Modulus, &mut [f64], &[f64], f64),
    /// Integer-valued `src` with `|x| < 2^52 q` to canonical residues: `dst = src mod q`.
    pub reduce: fn(&Modulus, &mut [f64], &[f64]),
    /// `dst[i] = src[index[i]]`.
    pub permute: fn(&mut [f64], &[f64], &[u32]),
    /// Centred basis extension of a block of coefficients: `(table, sources, destinations)`, one
    /// slice per prime.
    pub extend: Extend,
    /// `acc0 += sum_d digit_d * key0_d`, `acc1 += sum_d digit_d * key1_d`.
    pub inner_product2: InnerProduct2,
    /// `acc0 = sum_d digit_d * key0_d`, `acc1 = sum_d digit_d * key1_d`, where key `d` holds both
    /// factors packed, as [`PackedPair::limb`](crate::PackedPair::limb) has them. Bytes after the
    /// groups in use make the last ones faster.
    pub inner_product_packed: InnerProductPacked,
}

/// `(table, sources, destinations)`; see [`Kernel::extend`].
pub type Extend = fn(&ExtendTable, &[&[f64]], &mut [&mut [f64]]);

/// `(m, acc0, acc1, digits, key0, key1)`; see [`Kernel::inner_product2`].
pub type InnerProduct2 = fn(&Modulus, &mut [f64], &mut [f64], &[&[f64]], &[&[f64]], &[&[f64]]);

/// `(m, acc0, acc1, digits, keys)`; see [`Kernel::inner_product_packed`].
pub type InnerProductPacked = fn(&Modulus, &mut [f64], &mut [f64], &[&[f64]], &[&[u8]]);

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kernel({})", self.name)
    }
}
