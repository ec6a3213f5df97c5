//! Residues in 50 bits each: four in 25 bytes, little-endian.

use cipherlm_ring::{Eval, Limbs, Poly};

use super::Reader;
use crate::{Error, Params, WireError};

/// Bytes of a limb of `degree` residues.
pub(crate) fn limb_bytes(degree: usize) -> u64 {
    degree as u64 / 4 * 25
}

/// Appends all limbs of a polynomial.
pub(super) fn pack(poly: &Poly<Eval>, out: &mut Vec<u8>) {
    for (_, limb) in poly.iter() {
        for four in limb.as_chunks::<4>().0 {
            let [a, b, c, d] = four.map(|x| x as u128);
            let (low, high) = (a | b << 50, c | d << 50);
            out.extend_from_slice(&(low | high << 100).to_le_bytes());
            out.extend_from_slice(&(high >> 28).to_le_bytes()[..9]);
        }
    }
}

/// Reads a polynomial over `limbs`, refusing residues that are not below their prime. `first` numbers the limbs in errors.
pub(super) fn unpack(
    params: &Params,
    limbs: &Limbs,
    first: usize,
    reader: &mut Reader<'_>,
) -> Result<Poly<Eval>, Error> {
    const MASK: u128 = (1 << 50) - 1;
    let bytes = limb_bytes(params.degree());
    // The bytes are there before memory for them is taken.
    let need = bytes * limbs.len() as u64;
    if reader.left() < need {
        return Err(WireError::Truncated { have: reader.left(), need }.into());
    }
    let mut poly = Poly::scratch(params.ring(), limbs)?;
    for (position, (index, limb)) in poly.iter_mut().enumerate() {
        let prime = params.prime(index);
        let source = reader.take(bytes)?.as_chunks::<25>().0;
        for (four, packed) in limb.as_chunks_mut::<4>().0.iter_mut().zip(source) {
            let mut wide = [[0u8; 16]; 2];
            wide[0].copy_from_slice(&packed[..16]);
            wide[1][..9].copy_from_slice(&packed[16..]);
            let [x, y] = wide.map(u128::from_le_bytes);
            let high = x >> 100 | y << 28;
            for (out, word) in four.iter_mut().zip([x, x >> 50, high, high >> 50]) {
                let value = (word & MASK) as u64;
                if value >= prime {
                    return Err(WireError::Residue { limb: first + position, value, prime }.into());
                }
                *out = value as f64;
            }
        }
    }
    Ok(poly)
}
