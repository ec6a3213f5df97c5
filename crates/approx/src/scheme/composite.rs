//! Compositions of minimax polynomials for the sign, and domain extension.

use super::Circuit;
use crate::remez::{Remez, Weight};
use crate::{Error, EvalPlan, Function, Interval, Parity, Polynomial, Result};

/// Largest number of folds of a domain extension; each takes two levels.
const MAX_FOLDS: f64 = 40.0;

/// One polynomial of a composite sign.
#[derive(Debug, Clone, PartialEq)]
pub struct SignStage {
    /// The odd polynomial, on [−hi, hi], of values around ±1.
    pub polynomial: Polynomial,
    /// Positive half of the arguments it was fitted to.
    pub domain: Interval,
    /// Levelled error: its values lie in ±[1 − error, 1 + error].
    pub error: f64,
}

/// Minimax composition for the sign on [−1, −gap] ∪ [gap, 1]: each polynomial is the best odd one
/// on what the one before it leaves (Lee, Lee, No and Kim, "Minimax approximation of sign function
/// by composite polynomial for homomorphic comparison", eprint 2020/834).
///
/// # Errors
/// If the gap is not in (0, 1), no degree is given, or one is even.
pub fn minimax_sign(gap: f64, degrees: &[usize]) -> Result<Vec<SignStage>> {
    if !(gap > 0.0 && gap < 1.0) {
        return Err(Error::Parameter { what: "gap of a sign", value: gap, expected: "in (0, 1)" });
    }
    if degrees.is_empty() {
        return Err(Error::NoCoefficients);
    }
    let mut stages: Vec<SignStage> = Vec::with_capacity(degrees.len());
    let mut domain = Interval::new(gap, 1.0)?;
    for &degree in degrees {
        let stage = sign_stage(domain, degree)?;
        domain = stage.image()?;
        stages.push(stage);
    }
    Ok(stages)
}

/// The best odd polynomial of one degree for the sign on ±domain.
pub(crate) fn sign_stage(domain: Interval, degree: usize) -> Result<SignStage> {
    if degree.is_multiple_of(2) {
        let value = degree as f64;
        return Err(Error::Parameter { what: "degree of an odd polynomial", value, expected: "odd" });
    }
    let remez = Remez::new(&[domain], degree)?.parity(Parity::Odd).weight(Weight::Absolute).tolerance(1e-6);
    let fit = remez.fit(&Function::Sign)?;
    Ok(SignStage { polynomial: fit.polynomial, domain, error: fit.largest })
}

impl SignStage {
    /// Where the absolute values of its results lie: a little wider than the error found, since
    /// coefficients are rounded and later stages see rounded arguments.
    pub(crate) fn image(&self) -> Result<Interval> {
        let slack = self.error * 1e-6 + 1e-15;
        Interval::new((1.0 - self.error - slack).max(0.5 * self.domain.lo()), 1.0 + self.error + slack)
    }
}

/// The stages as one circuit: a stage returns its value divided by the range of the next one, so
/// that only the first argument needs a map. The last polynomial is replaced by scale·p + shift.
pub(crate) fn sign_circuit(stages: &[SignStage], radius: f64, scale: f64, shift: f64) -> Result<Circuit> {
    let mut plans = Vec::with_capacity(stages.len());
    for (i, stage) in stages.iter().enumerate() {
        let (factor, add) = match stages.get(i + 1) {
            Some(next) => (1.0 / next.polynomial.interval().hi(), 0.0),
            None => (scale, shift),
        };
        let mut coeffs: Vec<f64> = stage.polynomial.coeffs().iter().map(|c| c * factor).collect();
        coeffs[0] += add;
        let interval = if i == 0 { Interval::symmetric(radius)? } else { Interval::UNIT };
        plans.push(EvalPlan::new(&Polynomial::chebyshev(interval, coeffs)?)?);
    }
    Ok(Circuit::Composite { plans })
}

/// Odd cubics that fold [−radius, radius] onto [−inner, inner], largest first, and their
/// composition's inverse on the part where it increases.
///
/// B(x) = x − 4x³/27ρ² has slope 1 at 0, its maximum ρ at 3ρ/2, and stays within [−ρ, ρ] up to
/// 3√3/2·ρ (Cheon, Kim and Park, "Efficient homomorphic evaluation on large intervals", eprint
/// 2022/280). What is flat beyond the fold stays flat.
#[derive(Debug, Clone)]
pub(super) struct Extension {
    /// Radii from the outermost to the inner one: each step folds one onto the next.
    radii: Vec<f64>,
}

impl Extension {
    /// Steps of ratio at most 2, where the end of the range folds back to 22/27 of the next radius.
    pub(super) fn new(radius: f64, inner: f64) -> Result<Self> {
        if !(inner > 0.0 && radius > inner && radius.is_finite()) {
            let expected = "positive and below the outer radius";
            return Err(Error::Parameter {
                what: "inner radius of a domain extension",
                value: inner,
                expected,
            });
        }
        let steps = (radius / inner).log2().ceil().max(1.0);
        if steps > MAX_FOLDS {
            let expected = "at least a 2^40th of the outer one";
            return Err(Error::Parameter {
                what: "inner radius of a domain extension",
                value: inner,
                expected,
            });
        }
        let ratio = (radius / inner).powf(1.0 / steps);
        Ok(Self { radii: (0..=steps as i32).map(|k| radius / ratio.powi(k)).collect() })
    }

    /// The folding polynomials; arguments and values are in units of the radius at hand.
    pub(super) fn plans(&self) -> Result<Vec<EvalPlan>> {
        let mut plans = Vec::new();
        for (i, pair) in self.radii.windows(2).enumerate() {
            // In u = x/R and v = y/ρ: v = L·u − 4L³u³/27, with u³ = (T_3 + 3·T_1)/4.
            let ratio = pair[0] / pair[1];
            let cubic = 4.0 * ratio.powi(3) / 27.0;
            let coeffs = vec![0.0, ratio - 0.75 * cubic, 0.0, -0.25 * cubic];
            let interval = if i == 0 { Interval::symmetric(pair[0])? } else { Interval::UNIT };
            plans.push(EvalPlan::new(&Polynomial::chebyshev(interval, coeffs)?)?);
        }
        Ok(plans)
    }

    /// The x in [0, 3ρ/2 …] that is folded to y in [0, inner], by bisection on the increasing
    /// branch.
    pub(super) fn unfold(&self, y: f64) -> f64 {
        let mut x = y.abs();
        for pair in self.radii.windows(2).rev() {
            let rho = pair[1];
            let fold = |x: f64| x - 4.0 * x * x * x / (27.0 * rho * rho);
            let (mut lo, mut hi) = (0.0, 1.5 * rho);
            for _ in 0..80 {
                let mid = 0.5 * (lo + hi);
                if fold(mid) < x { lo = mid } else { hi = mid }
            }
            x = (0.5 * (lo + hi)).min(pair[0]);
        }
        x.copysign(y)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn degrees_of_the_published_composite() {
        // Degrees {7, 15, 15, 27}, listed for 12 bits. Every stage is the best of its degree on
        // what the one before leaves, and such a composition is the best of its degrees: 2^-10.28
        // at a gap of exactly 2^-12, 12 bits from 2^-11.7 on.
        let stages = minimax_sign((-12f64).exp2(), &[7, 15, 15, 27]).unwrap();
        assert!((stages[3].error.log2() + 10.28).abs() < 0.01, "2^{}", stages[3].error.log2());
        let depth: u32 = stages.iter().map(|s| EvalPlan::new(&s.polynomial).unwrap().depth_mapped()).sum();
        assert_eq!(depth, 16);
        let stages = minimax_sign((-11.7f64).exp2(), &[7, 15, 15, 27]).unwrap();
        assert!(stages[3].error.log2() <= -12.0, "2^{}", stages[3].error.log2());
    }

    #[test]
    fn unfolding_inverts_the_folds() {
        let extension = Extension::new(60.0, 8.0).unwrap();
        let plans = extension.plans().unwrap();
        for i in -20..=20 {
            let y = 0.39 * f64::from(i);
            let x = extension.unfold(y);
            let folded = plans.iter().fold(x, |v, plan| {
                let Ok(v) = plan.eval(&mut crate::F64, &v, None);
                v
            });
            assert!((folded * 8.0 - y).abs() < 1e-9, "{y}: {x} {}", folded * 8.0);
        }
    }

    #[test]
    fn malformed_composites_are_refused() {
        assert!(matches!(minimax_sign(0.1, &[7, 8]), Err(Error::Parameter { .. })));
        assert!(matches!(minimax_sign(2.0, &[7]), Err(Error::Parameter { .. })));
        assert!(minimax_sign(0.1, &[]).is_err());
        assert!(Extension::new(4.0, 8.0).is_err());
        for (radius, inner) in
            [(1e308, 1e-300), (1e30, 1.0), (f64::NAN, 1.0), (2.0, f64::NAN), (f64::INFINITY, 1.0)]
        {
            assert!(
                matches!(Extension::new(radius, inner), Err(Error::Parameter { .. })),
                "{radius} {inner}"
            );
        }
    }
}
