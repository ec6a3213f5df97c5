//! Packed residues from a file, checked.

use cipherlm_ring::{Eval, Limbs, Poly};

use super::Reader;
use crate::keys::packed_poly::{PackedPoly, limb_bytes, unpack_block};
use crate::{Error, Params, WireError};

/// Takes a polynomial over `limbs` from a file as it is, once its residues have been checked;
/// `first` numbers the limbs in errors.
pub(super) fn read_packed(
    params: &Params,
    limbs: &Limbs,
    first: usize,
    reader: &mut Reader<'_>,
) -> Result<PackedPoly, Error> {
    let limb_bytes = limb_bytes(params.degree());
    let bytes = reader.take(limb_bytes * limbs.len() as u64)?;
    let mut block = [0.0; 1024];
    for (position, (index, packed)) in limbs.iter().zip(bytes.chunks_exact(limb_bytes as usize)).enumerate() {
        for packed in packed.chunks(block.len() / 4 * 25) {
            let block = &mut block[..packed.len() / 25 * 4];
            unpack_block(packed, block);
            check(block, params.prime(index)?, first + position)?;
        }
    }
    Ok(PackedPoly::from_bytes(bytes.to_vec(), params.degree()))
}

/// Reads a polynomial over `limbs`, refusing residues that are not below their prime. `first`
/// numbers the limbs in errors.
pub(super) fn unpack(
    params: &Params,
    limbs: &Limbs,
    first: usize,
    reader: &mut Reader<'_>,
) -> Result<Poly<Eval>, Error> {
    let bytes = limb_bytes(params.degree());
    // The bytes are there before memory for them is taken.
    let need = bytes * limbs.len() as u64;
    if reader.left() < need {
        return Err(WireError::Truncated { have: reader.left(), need }.into());
    }
    let mut poly = Poly::scratch(params.ring(), limbs)?;
    for (position, (index, limb)) in poly.iter_mut().enumerate() {
        unpack_block(reader.take(bytes)?, limb);
        check(limb, params.prime(index)?, first + position)?;
    }
    Ok(poly)
}

fn check(residues: &[f64], prime: u64, limb: usize) -> Result<(), Error> {
    // One comparison of the largest: this loop runs over all bytes of all keys.
    let largest = residues.iter().fold(0.0, |a: f64, &b| if b > a { b } else { a });
    if largest < prime as f64 {
        return Ok(());
    }
    Err(WireError::Residue { limb, value: largest as u64, prime }.into())
}
