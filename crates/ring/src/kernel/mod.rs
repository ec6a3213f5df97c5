//! Slice-level kernels, chosen once per [`Ring`](crate::Ring) for the running CPU.
//!
//! Contract of every function in [`Kernel`]: operand slices of one call have equal length (the
//! shortest decides); residues are integers held exactly in `f64`, canonical in `[0, q)` on entry
//! and on exit. Canonical form makes all kernels agree bit for bit whatever order they compute in.
//! Whoever calls a kernel directly vouches for that: slices that do not fit a table, or indices
//! beyond their source, panic. This is the only module with `unsafe` code.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
#[macro_use]
mod table;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod cpu;
mod extend;
#[cfg(target_arch = "x86_64")]
mod ifma;
mod integer;
mod memory;
mod ntt;
mod operations;
mod packed;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod simd;
#[cfg(test)]
mod tests;

pub use extend::ExtendTable;
pub(crate) use memory::prefer_huge_pages;
pub use memory::return_free_memory;
pub use ntt::{NttTable, eval_exponent};
pub use operations::{Extend, InnerProduct2, InnerProductPacked, Kernel};
pub(crate) use packed::{GROUP, SLACK, group_bytes, pack_pair, unpack_pair};

use crate::error::{Error, Result};

impl Kernel {
    /// The fastest kernel this CPU can run.
    pub fn best() -> &'static Self {
        Self::available().last().copied().unwrap_or(&integer::KERNEL)
    }

    /// The kernel that the environment variable `CIPHERLM_KERNEL` names, else [`Kernel::best`]. It
    /// serves those who measure: results do not depend on it.
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

    /// The reference kernel: plain loops over [`Modulus::mul_f64`](crate::Modulus::mul_f64).
    pub fn scalar() -> &'static Self {
        scalar::kernel()
    }

    /// All kernels this CPU can run, slowest first.
    pub fn available() -> Vec<&'static Self> {
        let mut kernels = vec![&integer::KERNEL, scalar::kernel()];
        if !cpu::fused_multiply_add() {
            // The scalar kernel then calls the math library for every product.
            kernels.reverse();
        }
        #[cfg(target_arch = "x86_64")]
        kernels.extend([avx2::kernel(), avx512::kernel(), ifma::kernel()].into_iter().flatten());
        kernels
    }
}
