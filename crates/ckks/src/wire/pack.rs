//! Packed residues from a file, checked.

use cipherlm_ring::{Eval, Limbs, Poly};

use super::Reader;
use crate::keys::packed_poly::{Field, GROUP, PackedPoly, limb_bytes, packed_bytes};
use crate::{Error, Params, WireError};

/// Takes a polynomial over `limbs` from a file as it is, once its residues have been checked;
/// `first` numbers the limbs in errors.
pub(super) fn read_packed(
    params: &Params,
    limbs: &Limbs,
    first: usize,
    reader: &mut Reader<'_>,
) -> Result<PackedPoly, Error> {
    let bytes = reader.take(packed_bytes(params, limbs))?;
    let (mut rest, mut block) = (bytes, [0.0; 1024]);
    for (position, index) in limbs.iter().enumerate() {
        let (limb, after) = rest.split_at(limb_bytes(params, index) as usize);
        rest = after;
        let field = Field::new(params.prime_bits(index));
        for packed in limb.chunks(block.len() / GROUP * field.group_bytes()) {
            let block = &mut block[..packed.len() / field.group_bytes() * GROUP];
            field.unpack(packed, block);
            check(block, params.prime(index)?, first + position)?;
        }
    }
    Ok(PackedPoly::from_bytes(params, limbs, bytes.to_vec()))
}

/// Reads a polynomial over `limbs`, refusing residues that are not below their prime. `first`
/// numbers the limbs in errors.
pub(super) fn unpack(
    params: &Params,
    limbs: &Limbs,
    first: usize,
    reader: &mut Reader<'_>,
) -> Result<Poly<Eval>, Error> {
    // The bytes are there before memory for them is taken.
    let need = packed_bytes(params, limbs);
    if reader.left() < need {
        return Err(WireError::Truncated { have: reader.left(), need }.into());
    }
    let mut poly = Poly::scratch(params.ring(), limbs)?;
    for (position, (index, limb)) in poly.iter_mut().enumerate() {
        Field::new(params.prime_bits(index)).unpack(reader.take(limb_bytes(params, index))?, limb);
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
