//! Bytes of keys, in files and in memory.

use std::fmt;

use cipherlm_ring::PackedPair;

use super::form::KeyForm;
use super::packed_poly::packed_bytes;
use crate::Params;
use crate::params::KeyShape;
use crate::wire::HEADER_BYTES;

/// Of a switching key in a file: purpose, digits, reserved, level, special primes, weight of the
/// secret, argument of the purpose, seed.
pub(crate) const FIXED: u64 = 1 + 1 + 2 + 4 + 4 + 4 + 32 + 32;

/// Bytes of a switching key in a file, after the header.
pub(crate) fn body_bytes(params: &Params, shape: KeyShape) -> u64 {
    let limbs = params.extended_limbs(shape.level, shape.special);
    FIXED + shape.digits(params).len() as u64 * packed_bytes(params, &limbs)
}

impl KeyShape {
    /// Bytes of the key in a file: one packed polynomial per digit and a seed.
    pub fn stored_bytes(self, params: &Params) -> u64 {
        HEADER_BYTES + body_bytes(params, self)
    }

    /// Bytes of the key in memory, in the fastest form for this CPU ([`KeyForm::fastest`]).
    pub fn resident_bytes(self, params: &Params) -> u64 {
        self.resident_bytes_in(params, KeyForm::fastest(params))
    }

    /// Bytes of the key in memory: two polynomials per digit in the given form.
    pub fn resident_bytes_in(self, params: &Params, form: KeyForm) -> u64 {
        let (digits, limbs) =
            (self.digits(params).len() as u64, params.extended_limbs(self.level, self.special));
        digits
            * match form {
                KeyForm::Expanded => (2 * limbs.len() * params.ring().stride() * 8) as u64,
                // No error: these are limbs of the ring.
                KeyForm::Packed => {
                    PackedPair::bytes_over(params.ring(), &limbs).map_or(0, |bytes| bytes as u64)
                }
                KeyForm::Seeded => packed_bytes(params, &limbs),
            }
    }
}

/// Bytes that a set of keys will take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryBill {
    /// Number of keys.
    pub keys: usize,
    /// Bytes in files: seeded and packed.
    pub stored_bytes: u64,
    /// Bytes in memory.
    pub resident_bytes: u64,
}

impl fmt::Display for MemoryBill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "{} keys: {:.1} MiB stored, {:.1} MiB resident",
            self.keys,
            mib(self.stored_bytes),
            mib(self.resident_bytes)
        )
    }
}
