//! The wire format.

/// Header: magic, version, type, parameter hash, key id, body length, body hash.
pub(crate) const HEADER_BYTES: u64 = 4 + 2 + 2 + 32 + 32 + 8 + 32;

/// Bytes of a limb of packed residues: 50 bits each.
pub(crate) fn limb_bytes(degree: usize) -> u64 {
    (degree as u64 * 50).div_ceil(8)
}

/// Bytes of a switching key in a file.
pub(crate) fn switching_key_bytes(digits: usize, limbs: usize, degree: usize) -> u64 {
    HEADER_BYTES + 64 + 32 + digits as u64 * limbs as u64 * limb_bytes(degree)
}
