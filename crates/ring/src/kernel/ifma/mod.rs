//! Transforms on 52-bit integers (AVX-512 IFMA) for primes below [`table::LIMIT`], and inner
//! products with packed keys for all.
//!
//! Between loading and storing, a residue is any congruent integer below `2^52` in the low 52 bits
//! of a lane; bits above are noise. Sums are exact modulo `2^52` and multiply-adds read 52 bits of
//! their factors, so noise does no harm. A product with a known factor takes three multiply-adds
//! and lies in `[0, 2q)` whatever the other factor below `2^52` (Shoup), and primes are so small
//! that the forward transform reduces nothing and the inverse one row in four or eight. Bounds in
//! comments are in units of the modulus.
//!
//! Larger primes keep the float form: they leave room for values up to 4 only, and the reductions
//! cost what the products save.

mod field;
mod forward;
mod inner;
mod inverse;
pub(super) mod table;

use super::{Kernel, NttTable, cpu};
use table::fits;

/// The AVX-512 kernel with these inner products, and transforms where they fit, if the CPU has the
/// instructions.
pub(super) fn kernel() -> Option<&'static Kernel> {
    static KERNEL: Kernel = Kernel {
        name: "avx512ifma",
        packed_is_faster: true,
        ntt_forward,
        ntt_inverse,
        inner_product_packed: inner::inner_product_packed,
        ..super::avx512::KERNEL
    };
    cpu::avx512ifma().then_some(&KERNEL)
}

fn ntt_forward(t: &NttTable, a: &mut [f64]) {
    if !fits(&t.modulus, t.log_n) {
        return (super::avx512::KERNEL.ntt_forward)(t, a);
    }
    assert_eq!(a.len(), t.degree(), "NTT length");
    // SAFETY: `kernel` hands this out only after detecting the features; length, modulus and degree
    // as just checked.
    unsafe { forward::transform(t, a.as_mut_ptr(), a.len()) }
}

fn ntt_inverse(t: &NttTable, a: &mut [f64], constant: f64) {
    if !fits(&t.modulus, t.log_n) {
        return (super::avx512::KERNEL.ntt_inverse)(t, a, constant);
    }
    assert_eq!(a.len(), t.degree(), "NTT length");
    // SAFETY: as in `ntt_forward`.
    unsafe { inverse::transform(t, a.as_mut_ptr(), a.len(), constant) }
}
