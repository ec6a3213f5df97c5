//! Residues in 50 bits each: four in 25 bytes, little-endian.

use std::ops::Range;

use cipherlm_ring::{Eval, Poly};

/// Bytes of a limb of `degree` residues.
pub(crate) fn limb_bytes(degree: usize) -> u64 {
    degree as u64 / 4 * 25
}

/// A polynomial packed limb after limb, as in a file.
#[derive(Clone)]
pub(crate) struct PackedPoly {
    bytes: Vec<u8>,
    limb_bytes: usize,
}

impl PackedPoly {
    pub(crate) fn pack(poly: &Poly<Eval>) -> Self {
        let limb_bytes = limb_bytes(poly.ring().degree()) as usize;
        let mut bytes = Vec::with_capacity(limb_bytes * poly.limbs().len());
        pack(poly, &mut bytes);
        Self { bytes, limb_bytes }
    }

    /// Limbs of `degree` residues each, packed one after the other.
    pub(crate) fn from_bytes(bytes: Vec<u8>, degree: usize) -> Self {
        Self { bytes, limb_bytes: limb_bytes(degree) as usize }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Residues `range` of the limb at `position`; both ends must be multiples of four.
    pub(crate) fn unpack(&self, position: usize, range: &Range<usize>, to: &mut [f64]) {
        let start = position * self.limb_bytes;
        unpack_block(&self.bytes[start + range.start / 4 * 25..start + range.end / 4 * 25], to);
    }
}

/// Appends all limbs of a polynomial.
pub(crate) fn pack(poly: &Poly<Eval>, out: &mut Vec<u8>) {
    for (_, limb) in poly.iter() {
        for four in limb.as_chunks::<4>().0 {
            let [a, b, c, d] = four.map(|x| x as u128);
            let (low, high) = (a | b << 50, c | d << 50);
            out.extend_from_slice(&(low | high << 100).to_le_bytes());
            out.extend_from_slice(&(high >> 28).to_le_bytes()[..9]);
        }
    }
}

/// Four residues from each 25 bytes.
pub(crate) fn unpack_block(packed: &[u8], out: &mut [f64]) {
    const MASK: u64 = (1 << 50) - 1;
    // An integer below 2^52 in the low bits of this float is added to it.
    const MAGIC: u64 = 0x4330_0000_0000_0000;
    for (four, packed) in out.as_chunks_mut::<4>().0.iter_mut().zip(packed.as_chunks::<25>().0) {
        let word = |byte: usize, shift: u32| {
            let mut word = [0; 8];
            word.copy_from_slice(&packed[byte..byte + 8]);
            u64::from_le_bytes(word) >> shift & MASK
        };
        for (out, value) in four.iter_mut().zip([word(0, 0), word(6, 2), word(12, 4), word(17, 14)]) {
            *out = f64::from_bits(value | MAGIC) - f64::from_bits(MAGIC);
        }
    }
}
