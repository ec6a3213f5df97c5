//! The ring context: degree, prime pool, tables and buffers.

use crate::error::{Error, Result};

/// Smallest supported degree.
pub const MIN_DEGREE: usize = 1 << 4;
/// Largest supported degree.
pub const MAX_DEGREE: usize = 1 << 17;

/// `log2` of a supported degree.
pub(crate) fn log_degree(degree: usize) -> Result<u32> {
    if degree.is_power_of_two() && (MIN_DEGREE..=MAX_DEGREE).contains(&degree) {
        Ok(degree.trailing_zeros())
    } else {
        Err(Error::UnsupportedDegree { degree, min: MIN_DEGREE, max: MAX_DEGREE })
    }
}
