//! Slice-level kernels, chosen once per [`Ring`](crate::Ring) for the running CPU.
//!
//! Contract of every function in [`Kernel`]: operand slices of one call have equal length (the shortest decides);
//! residues are integers held exactly in `f64`, canonical in `[0, q)` on entry and on exit. Canonical form makes all
//! kernels agree bit for bit whatever order they compute in. Whoever calls a kernel directly vouches for that: slices that do
//! not fit a table, or indices beyond their source, panic. This is the only module with `unsafe` code.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
#[macro_use]
mod table;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod extend;
mod memory;
mod ntt;
mod packed;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod simd;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod words;

pub use extend::ExtendTable;
pub(crate) use memory::prefer_huge_pages;
pub use ntt::{NttTable, eval_exponent};
pub(crate) use packed::{GROUP, SLACK, group_bytes, pack_pair, unpack_pair};

use crate::modulus::Modulus;
use crate::{Error, Result};

/// A table of slice operations; all tables give identical results.
///
/// `m` is the modulus of all slices of a call.
#[derive(Clone, Copy)]
#[allow(clippy::type_complexity)] // The list of function types is the definition.
pub struct Kernel {
    /// `"scalar"`, `"avx2"`, `"avx512"` or `"avx512ifma"`.
    pub name: &'static str,
    /// Whether the inner product is faster with packed keys: it is where unpacking hides behind reading from memory.
    pub packed_is_faster: bool,
    /// Forward negacyclic NTT in place: coefficients to evaluations, in the order of [`eval_exponent`].
    pub ntt_forward: fn(&NttTable, &mut [f64]),
    /// Inverse NTT in place, scaled by a constant residue: `(table, values, constant)`; pass 1 for the plain inverse.
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
    /// `acc[i] += src[index[i]] * b[i]`: `(m, acc, src, index, b)`.
    pub permute_mul_add: PermuteMulAdd,
    /// Centred basis extension of a block of coefficients: `(table, sources, destinations)`, one slice per prime.
    pub extend: Extend,
    /// `acc0 += sum_d digit_d * key0_d`, `acc1 += sum_d digit_d * key1_d`, the digits read through `index` if given.
    pub inner_product2: InnerProduct2,
    /// `acc0 = sum_d digit_d * key0_d`, `acc1 = sum_d digit_d * key1_d`, where key `d` holds both factors packed, as
    /// [`PackedPair::limb`](crate::PackedPair::limb) has them. Bytes after the groups in use make the last ones faster.
    pub inner_product_packed: InnerProductPacked,
}

/// `(m, acc, src, index, b)`; see [`Kernel::permute_mul_add`].
pub type PermuteMulAdd = fn(&Modulus, &mut [f64], &[f64], &[u32], &[f64]);

/// `(table, sources, destinations)`; see [`Kernel::extend`].
pub type Extend = fn(&ExtendTable, &[&[f64]], &mut [&mut [f64]]);

/// `(m, acc0, acc1, digits, key0, key1, index)`; see [`Kernel::inner_product2`].
pub type InnerProduct2 = fn(&Modulus, &mut [f64], &mut [f64], &[&[f64]], &[&[f64]], &[&[f64]], Option<&[u32]>);

/// `(m, acc0, acc1, digits, keys)`; see [`Kernel::inner_product_packed`].
pub type InnerProductPacked = fn(&Modulus, &mut [f64], &mut [f64], &[&[f64]], &[&[u8]]);

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kernel({})", self.name)
    }
}

impl Kernel {
    /// The fastest kernel this CPU can run.
    pub fn best() -> &'static Self {
        Self::available().last().copied().unwrap_or(&scalar::PORTABLE)
    }

    /// The kernel that the environment variable `CIPHERLM_KERNEL` names, else [`Kernel::best`]. It serves those who measure:
    /// results do not depend on it.
    ///
    /// # Errors
    /// [`Error::UnknownKernel`] if this CPU cannot run it.
    pub fn chosen() -> Result<&'static Self> {
        match std::env::var_os("CIPHERLM_KERNEL") {
            None => Ok(Self::best()),
            Some(name) => Self::named(&name.to_string_lossy()),
        }
    }

    /// The kernel of a name.
    ///
    /// # Errors
    /// [`Error::UnknownKernel`] if this CPU cannot run it.
    pub fn named(name: &str) -> Result<&'static Self> {
        let available = Self::available();
        let found = available.iter().find(|kernel| kernel.name == name).copied();
        found.ok_or_else(|| Error::UnknownKernel {
            name: name.escape_default().to_string(),
            available: available.iter().map(|kernel| kernel.name).collect(),
        })
    }

    /// The reference kernel: plain loops over [`Modulus::mul_f64`].
    pub fn scalar() -> &'static Self {
        scalar::kernel()
    }

    /// All kernels this CPU can run, slowest first; the first is [`Kernel::scalar`].
    pub fn available() -> Vec<&'static Self> {
        let mut kernels = vec![scalar::kernel()];
        #[cfg(target_arch = "x86_64")]
        kernels.extend([avx2::kernel(), avx512::kernel(), words::kernel()].into_iter().flatten());
        kernels
    }
}
