//! Transforms on 52-bit integers (AVX-512 IFMA) for primes below [`LIMIT`], and inner products with packed keys for all.
//!
//! Between loading and storing, a residue is any congruent integer below `2^52` in the low 52 bits of a lane; bits above are noise.
//! Sums are exact modulo `2^52` and multiply-adds read 52 bits of their factors, so noise does no harm. A product with a
//! known factor takes three multiply-adds and lies in `[0, 2q)` whatever the other factor below `2^52` (Shoup), and primes are so
//! small that the forward transform reduces nothing and the inverse one row in four or eight. Bounds in comments are in units of the modulus.
//!
//! Larger primes keep the float form: they leave room for values up to 4 only, and the reductions cost what the products save.

use super::{Kernel, NttTable};
use crate::modulus::Modulus;

mod field;
mod forward;
mod inner;
mod inverse;
mod table;

pub(super) use table::WordTwiddles;

/// `3 * 2^44`: values up to 64 stay below `2^52`, and [`field::Field::to_floats`] is exact.
pub(super) const LIMIT: u64 = 3 << 44;

/// The smallest degree that has a pass before the blocks.
const MIN_LOG_DEGREE: u32 = 8;

/// Elements of the blocks whose six levels run in registers.
const BLOCK: usize = 64;

/// Elements that are taken through all their passes at a time, at most; 8 KiB.
const LEAF: usize = 1 << 10;

/// Whether this CPU transforms for this modulus and degree on words.
pub(super) fn in_use(modulus: &Modulus, log_n: u32) -> bool {
    kernel().is_some() && fits(modulus, log_n)
}

fn fits(modulus: &Modulus, log_n: u32) -> bool {
    modulus.value() < LIMIT && log_n >= MIN_LOG_DEGREE
}

/// The AVX-512 kernel with these inner products, and transforms where they fit, if the CPU has the instructions: those that
/// multiply (IFMA) and those that unpack (VBMI).
pub(super) fn kernel() -> Option<&'static Kernel> {
    static KERNEL: Kernel = Kernel {
        name: "avx512ifma",
        packed_is_faster: true,
        ntt_forward,
        ntt_inverse,
        inner_product_packed: inner::inner_product_packed,
        ..super::avx512::KERNEL
    };
    let found = super::avx512::kernel().is_some()
        && is_x86_feature_detected!("avx512ifma")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vbmi");
    found.then_some(&KERNEL)
}

fn ntt_forward(t: &NttTable, a: &mut [f64]) {
    if !fits(&t.modulus, t.log_n) {
        return (super::avx512::KERNEL.ntt_forward)(t, a);
    }
    assert_eq!(a.len(), t.degree(), "NTT length");
    // SAFETY: `kernel` hands this out only after detecting the features; length, modulus and degree as just checked.
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

/// The levels above the blocks: sizes of blocks and levels of each pass, largest first. Three levels a pass, and two in the last one or
/// two where the number is no multiple of three.
fn passes(log_n: u32) -> impl DoubleEndedIterator<Item = (usize, u32)> {
    let levels = log_n - BLOCK.trailing_zeros();
    let twos = (3 - levels % 3) % 3;
    let threes = (levels - 2 * twos) / 3;
    let pass = move |k| if k < threes { (3 * k, 3) } else { (2 * k + threes, 2) };
    (0..threes + twos).map(pass).map(move |(above, levels)| (1 << (log_n - above), levels))
}

/// The size of the largest pass within [`LEAF`], or of a block.
fn leaf(log_n: u32) -> usize {
    passes(log_n).map(|(size, _)| size).find(|&size| size <= LEAF).unwrap_or(BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_cover_the_levels_above_the_blocks() {
        for log_n in MIN_LOG_DEGREE..=17 {
            let mut size = 1 << log_n;
            for (at, levels) in passes(log_n) {
                assert!(at == size && (2..=3).contains(&levels), "N = 2^{log_n}");
                size >>= levels;
            }
            assert_eq!(size, BLOCK, "N = 2^{log_n}");
        }
    }
}
