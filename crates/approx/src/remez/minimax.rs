//! What a minimax problem asks for and what its solution is.

use crate::Polynomial;
use crate::float::Float;

/// Weight of the error at x.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Weight {
    /// |f − p|.
    #[default]
    Absolute,
    /// |f − p| / |f|; f must not vanish on the domain.
    Relative,
}

/// A best approximation.
#[derive(Debug, Clone)]
pub struct Minimax {
    /// The polynomial in the Chebyshev basis of the hull of the domain (symmetric around 0 if it
    /// has a parity), coefficients rounded to double precision.
    pub polynomial: Polynomial,
    /// Weighted error levelled on the reference: a lower bound of the best possible error. Zero
    /// when it underflows, and for a function that is a polynomial of this degree itself.
    pub levelled: f64,
    /// log2 of the levelled error, or of what the highest working precision resolves if the error
    /// lies below.
    pub log2_levelled: f64,
    /// Largest weighted error seen on the domain, before rounding the coefficients.
    pub largest: f64,
    /// Points of alternation, ascending.
    pub reference: Vec<f64>,
    /// Exchanges done.
    pub iterations: usize,
    /// Working precision in bits.
    pub bits: usize,
    /// Coefficients before rounding.
    pub exact: Vec<Float>,
}
