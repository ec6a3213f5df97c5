//! What can go wrong while a function becomes a polynomial.

use thiserror::Error;

/// Errors of this crate. Each names the values on both sides of what failed.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum Error {
    /// An interval whose ends coincide or are reversed.
    #[error("empty or reversed interval [{lo}, {hi}]: the lower end must be below the upper end")]
    EmptyInterval {
        /// Lower end as given.
        lo: f64,
        /// Upper end as given.
        hi: f64,
    },
    /// An interval that doubles cannot map onto [-1, 1].
    #[error(
        "[{lo}, {hi}] is too narrow: the slope of its map onto [-1, 1] overflows a double; widen it or \
         rescale"
    )]
    TooNarrow {
        /// Lower end as given.
        lo: f64,
        /// Upper end as given.
        hi: f64,
    },
    /// A domain without intervals.
    #[error("a domain needs at least one interval")]
    EmptyDomain,
    /// A domain with fewer doubles than a fit needs points.
    #[error(
        "a fit of degree {degree} needs {needed} different points, and [{lo}, {hi}] has not so many doubles \
         there: widen the domain or lower the degree"
    )]
    TooFewPoints {
        /// Lower end of the domain.
        lo: f64,
        /// Upper end of the domain.
        hi: f64,
        /// Degree asked for.
        degree: usize,
        /// Points of alternation of that degree.
        needed: usize,
    },
    /// A number that is infinite or not a number.
    #[error("{what} is not finite: {value}")]
    NotFinite {
        /// What the number stands for.
        what: &'static str,
        /// The number.
        value: f64,
    },
    /// A sample of the function to fit that is infinite or not a number.
    #[error("the function is not finite at x = {x}: choose a domain where it is defined")]
    NonFiniteSample {
        /// Where the function was sampled.
        x: f64,
    },
    /// A relative error asked for where the function vanishes.
    #[error(
        "the function is 0 at x = {x}, where a relative error is undefined: fit the absolute error, or \
         leave that point out of the domain"
    )]
    ZeroOfFunction {
        /// Where the function vanishes, or changes its sign next to it.
        x: f64,
    },
    /// The function has a pole or a branch point inside the domain.
    #[error(
        "{function} has a singularity at {at}, inside the domain [{lo}, {hi}]: move the domain away from it"
    )]
    Pole {
        /// The function.
        function: String,
        /// The singular point.
        at: f64,
        /// Lower end of the domain.
        lo: f64,
        /// Upper end of the domain.
        hi: f64,
    },
    /// A degree above what this routine can deliver correctly.
    #[error("degree {degree} is above the limit of {limit} for {what}")]
    DegreeTooHigh {
        /// Degree asked for.
        degree: usize,
        /// Largest degree allowed.
        limit: usize,
        /// The routine.
        what: &'static str,
    },
    /// The error of the best polynomial of this degree is below what the working precision can
    /// resolve.
    #[error(
        "degree {degree} is too high for {bits} bits: the levelled error 2^{log2_error:.1} cannot be resolved"
    )]
    PrecisionExhausted {
        /// Degree asked for.
        degree: usize,
        /// Working precision, in bits.
        bits: usize,
        /// log2 of the levelled error reached.
        log2_error: f64,
    },
    /// A polynomial without coefficients.
    #[error("a polynomial needs at least one coefficient")]
    NoCoefficients,
    /// Two polynomials that must share an interval do not.
    #[error("polynomials on different intervals: [{a_lo}, {a_hi}] and [{b_lo}, {b_hi}]")]
    IntervalMismatch {
        /// Lower end of the first.
        a_lo: f64,
        /// Upper end of the first.
        a_hi: f64,
        /// Lower end of the second.
        b_lo: f64,
        /// Upper end of the second.
        b_hi: f64,
    },
    /// Intervals of a domain that touch or are out of order.
    #[error(
        "intervals of a domain must be disjoint and ascending: one ends at {end}, the next begins at {begin}"
    )]
    Overlap {
        /// Upper end of the earlier interval.
        end: f64,
        /// Lower end of the later interval.
        begin: f64,
    },
    /// The exchange algorithm stopped short of a levelled error.
    #[error(
        "Remez stopped after {iterations} exchanges at degree {degree}: levelled error {levelled:e}, \
         largest error {largest:e}"
    )]
    NotConverged {
        /// Degree asked for.
        degree: usize,
        /// Exchanges done.
        iterations: usize,
        /// Levelled error on the last reference.
        levelled: f64,
        /// Largest weighted error seen on the domain.
        largest: f64,
        /// The last reference points.
        reference: Vec<f64>,
    },
    /// A function that is built from others instead of being approximated.
    #[error("{function} is not approximated directly: {instead}")]
    NotDirect {
        /// The function.
        function: String,
        /// What to do.
        instead: &'static str,
    },
    /// A parameter outside its range.
    #[error("{what} is {value}, expected {expected}")]
    Parameter {
        /// The parameter.
        what: &'static str,
        /// Value given.
        value: f64,
        /// What is allowed.
        expected: &'static str,
    },
    /// A bound that could not be proved within the allowed number of pieces.
    #[error(
        "no proof of the bound {bound:e} after {pieces} pieces: near x = {at} only {proved:e} can be shown"
    )]
    NotProved {
        /// Bound to be proved.
        bound: f64,
        /// Pieces examined.
        pieces: usize,
        /// Where the proof failed.
        at: f64,
        /// What could be shown there.
        proved: f64,
    },
    /// A certificate that belongs to something else.
    #[error("the certificate speaks of {certified}, not of {given}")]
    WrongCertificate {
        /// What the certificate covers.
        certified: String,
        /// What it was checked against.
        given: String,
    },
    /// No candidate reaches the target error.
    #[error(
        "no scheme for {function} reaches {target:e}; the best of {candidates} candidates reaches {best:e}"
    )]
    NoScheme {
        /// The function.
        function: String,
        /// Error asked for.
        target: f64,
        /// Candidates examined.
        candidates: usize,
        /// Smallest error among them.
        best: f64,
    },
}

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
