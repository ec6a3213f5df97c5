//! What the crate accepts: degrees, sizes of moduli, indices of limbs.

use crate::error::{Error, Result};
use crate::limbs::Limbs;

/// Smallest supported degree.
pub const MIN_DEGREE: usize = 1 << 4;
/// Largest supported degree.
pub const MAX_DEGREE: usize = 1 << 17;
/// Every modulus is below `2^MAX_MODULUS_BITS`, so that products are exact in f64 fused arithmetic.
pub const MAX_MODULUS_BITS: u32 = 50;
/// Largest number of primes in a pool.
pub(crate) const MAX_PRIMES: usize = u16::MAX as usize;

/// `log2` of a supported degree.
pub(crate) fn log_degree(degree: usize) -> Result<u32> {
    if degree.is_power_of_two() && (MIN_DEGREE..=MAX_DEGREE).contains(&degree) {
        Ok(degree.trailing_zeros())
    } else {
        Err(Error::UnsupportedDegree { degree, min: MIN_DEGREE, max: MAX_DEGREE })
    }
}

impl Limbs {
    /// The set of these indices; refuses repetitions and indices above `u16::MAX`.
    pub fn new(indices: impl IntoIterator<Item = usize>) -> Result<Self> {
        let mut list = Vec::new();
        for index in indices {
            list.push(u16::try_from(index).map_err(|_| Error::LimbOutOfRange { index, count: MAX_PRIMES })?);
        }
        list.sort_unstable();
        match list.windows(2).find(|w| w[0] == w[1]) {
            Some(w) => Err(Error::Duplicate { value: u64::from(w[0]) }),
            None => Ok(Self::from_sorted(list)),
        }
    }
}
