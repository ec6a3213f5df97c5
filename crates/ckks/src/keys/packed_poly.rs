//! Residues in the bits of their prime: eight in as many bytes as it has bits, little-endian.

use std::ops::Range;

use cipherlm_ring::{Eval, Limbs, Poly};

use crate::Params;

/// Residues that fill whole bytes together, whatever the width of one.
pub(crate) const GROUP: usize = 8;

/// Bytes of a polynomial over `limbs`, which are limbs of the set.
pub(crate) fn packed_bytes(params: &Params, limbs: &Limbs) -> u64 {
    limbs.iter().map(|limb| limb_bytes(params, limb)).sum()
}

/// Bytes of one limb.
pub(crate) fn limb_bytes(params: &Params, limb: usize) -> u64 {
    (params.degree() / GROUP) as u64 * u64::from(params.prime_bits(limb))
}

/// A polynomial packed limb after limb, as in a file.
#[derive(Clone)]
pub(crate) struct PackedPoly {
    bytes: Vec<u8>,
    /// Of each limb.
    fields: Vec<Field>,
    degree: usize,
}

impl PackedPoly {
    pub(crate) fn pack(params: &Params, poly: &Poly<Eval>) -> Self {
        let mut bytes = Vec::with_capacity(packed_bytes(params, poly.limbs()) as usize);
        pack(params, poly, &mut bytes);
        Self::from_bytes(params, poly.limbs(), bytes)
    }

    /// Limbs packed one after the other, [`packed_bytes`] in all.
    pub(crate) fn from_bytes(params: &Params, limbs: &Limbs, bytes: Vec<u8>) -> Self {
        let fields = limbs.iter().map(|limb| Field::new(params.prime_bits(limb))).collect();
        Self { bytes, fields, degree: params.degree() }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Residues `range` of the limb at `position`; both ends must be multiples of eight.
    pub(crate) fn unpack(&self, position: usize, range: &Range<usize>, to: &mut [f64]) {
        let before: usize = self.fields[..position].iter().map(|field| field.bits).sum();
        let (start, field) = (self.degree / GROUP * before, &self.fields[position]);
        let at = |index: usize| start + index / GROUP * field.bits;
        field.unpack(&self.bytes[at(range.start)..at(range.end)], to);
    }
}

/// Appends all limbs of a polynomial.
pub(crate) fn pack(params: &Params, poly: &Poly<Eval>, out: &mut Vec<u8>) {
    for (index, limb) in poly.iter() {
        Field::new(params.prime_bits(index)).pack(limb, out);
    }
}

/// The width of a residue, and where the eight of a group are read: each from eight bytes that lie
/// within the group.
#[derive(Clone)]
pub(crate) struct Field {
    bits: usize,
    /// First byte and shift of each residue.
    places: [(usize, u32); GROUP],
}

impl Field {
    /// `bits` is from 8 to 50, as primes of a parameter set have 20 or more.
    pub(crate) fn new(bits: u32) -> Self {
        let bits = bits as usize;
        let place = |index: usize| {
            let byte = (index * bits / 8).min(bits.saturating_sub(8));
            (byte, (index * bits - 8 * byte) as u32)
        };
        Self { bits, places: std::array::from_fn(place) }
    }

    /// Bytes of a group.
    pub(crate) fn group_bytes(&self) -> usize {
        self.bits
    }

    fn pack(&self, residues: &[f64], out: &mut Vec<u8>) {
        for group in residues.as_chunks::<GROUP>().0 {
            let (mut pending, mut filled) = (0u128, 0);
            for &residue in group {
                pending |= u128::from(residue as u64) << filled;
                filled += self.bits;
                let whole = filled / 8;
                out.extend_from_slice(&pending.to_le_bytes()[..whole]);
                pending >>= 8 * whole;
                filled %= 8;
            }
        }
    }

    /// Eight residues from each group.
    pub(crate) fn unpack(&self, packed: &[u8], out: &mut [f64]) {
        // An integer below 2^52 in the low bits of this float is added to it.
        const MAGIC: u64 = 0x4330_0000_0000_0000;
        let mask = (1u64 << self.bits) - 1;
        let groups = packed.chunks_exact(self.bits);
        for (eight, packed) in out.as_chunks_mut::<GROUP>().0.iter_mut().zip(groups) {
            for (out, &(byte, shift)) in eight.iter_mut().zip(&self.places) {
                let mut word = [0; 8];
                word.copy_from_slice(&packed[byte..byte + 8]);
                let value = u64::from_le_bytes(word) >> shift & mask;
                *out = f64::from_bits(value | MAGIC) - f64::from_bits(MAGIC);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_comes_back_and_fills_its_bits_without_gaps() {
        for bits in 20..=50u32 {
            let field = Field::new(bits);
            let value = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits);
            let ends = [(1u64 << bits) - 1, 0];
            let residues: Vec<u64> = (1..=30).map(value).chain(ends).collect();
            let floats: Vec<f64> = residues.iter().map(|&x| x as f64).collect();
            let mut packed = Vec::new();
            field.pack(&floats, &mut packed);
            assert_eq!(packed.len(), 4 * bits as usize);
            for (index, &residue) in residues.iter().enumerate() {
                let bit = |b: usize| u64::from(packed[b / 8] >> (b % 8) & 1);
                let start = index * bits as usize;
                let found = (0..bits as usize).map(|b| bit(start + b) << b).sum::<u64>();
                assert_eq!(found, residue, "{bits} bits, residue {index}");
            }
            let mut back = vec![0.0; floats.len()];
            field.unpack(&packed, &mut back);
            assert_eq!(back, floats, "{bits} bits");
        }
    }
}
