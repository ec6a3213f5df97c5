//! The comparison of a score with the threshold.

use cipherlm_approx::{Certificate, Circuit, EvalPlan, Float, Function, Interval, Measure, Remez};
use cipherlm_approx::{Parity, Polynomial};
use peer_fhe_benchmarking::Result;

/// Scores above it match.
pub const THRESHOLD: f64 = 0.8;
/// Scores nearer to the threshold than this may come out as anything between no match and a match.
pub const GAP: f64 = 0.03;
/// Degrees of the two polynomials: a general one over the scores, an odd one that flattens what the
/// first leaves around -1 and 1.
const DEGREES: (usize, usize) = (63, 7);
/// Levels from a score to its indicator.
pub const DEPTH: usize = ((DEGREES.0 + 1).ilog2() + (DEGREES.1 + 1).ilog2()) as usize;

/// 0 below the threshold and 1 above it, as a composition of two minimax polynomials.
///
/// The threshold is near the end of [-1, 1], where polynomials resolve a step three times finer
/// than in its middle; so the first polynomial is not an odd one of the difference, as in
/// comparisons of anything with anything, but the best one on these two intervals.
pub struct Threshold {
    /// The circuit on differences of score and threshold; the score itself is its mapped argument.
    circuit: Circuit,
}

impl Threshold {
    /// Fits the polynomials.
    ///
    /// # Errors
    /// Those of the fit.
    pub fn new() -> Result<Self> {
        let domain = [Interval::new(-1.0, THRESHOLD - GAP)?, Interval::new(THRESHOLD + GAP, 1.0)?];
        // As precise as its argument.
        let sign = |x: &Float| x - x + Float::from(if *x < middle() { -1 } else { 1 });
        let first = Remez::new(&domain, DEGREES.0)?.tolerance(1e-6).fit_with(&sign)?;
        let rest = Interval::new(1.0 - first.largest * (1.0 + 1e-5), 1.0 + first.largest * (1.0 + 1e-5))?;
        let second =
            Remez::new(&[rest], DEGREES.1)?.parity(Parity::Odd).tolerance(1e-6).fit(&Function::Sign)?;
        let scaled = first.polynomial.scaled(1.0 / rest.hi())?;
        let mut coefficients: Vec<f64> = second.polynomial.coeffs().iter().map(|c| 0.5 * c).collect();
        coefficients[0] += 0.5;
        let plans = vec![
            EvalPlan::new(&scaled.on_interval(Interval::new(-1.0 - THRESHOLD, 1.0 - THRESHOLD)?))?,
            EvalPlan::new(&Polynomial::chebyshev(Interval::UNIT, coefficients)?)?,
        ];
        Ok(Self { circuit: Circuit::Composite { plans } })
    }

    /// What takes a score as its mapped argument.
    pub fn circuit(&self) -> &Circuit {
        &self.circuit
    }

    /// A proof of the error outside of the gap.
    ///
    /// # Errors
    /// Those of the proof.
    pub fn certificate(&self) -> Result<Certificate> {
        let domain = [Interval::new(-1.0 - THRESHOLD, -GAP)?, Interval::new(GAP, 1.0 - THRESHOLD)?];
        Ok(Certificate::prove(&self.circuit, Function::Step, &domain, Measure::Absolute)?)
    }
}

fn middle() -> Float {
    Float::try_from(THRESHOLD).unwrap_or(Float::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_is_proved_to_two_to_the_minus_24_outside_of_the_gap() {
        let threshold = Threshold::new().unwrap();
        let depth = threshold.circuit.cost().depth - threshold.circuit.map_depth();
        assert_eq!((depth as usize, DEPTH), (9, 9));
        let certificate = threshold.certificate().unwrap();
        assert!(certificate.bound < 2f64.powi(-24), "{certificate}");
        // Inside, it rises between the two: a score in the gap is no error larger than one.
        for i in 0..=60 {
            let y = threshold.circuit.eval_f64((f64::from(i) - 30.0) / 1000.0);
            assert!((-1e-6..=1.000001).contains(&y), "{i}: {y}");
        }
    }
}
