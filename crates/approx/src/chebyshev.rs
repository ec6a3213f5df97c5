//! Chebyshev interpolation.

use crate::samples::coefficients;
use crate::{Interval, Polynomial, Result};

/// Highest degree accepted by [`interpolate`] (its cost is quadratic).
pub const MAX_DEGREE: usize = crate::samples::MAX_DEGREE;

/// The polynomial of the given degree that interpolates f at the Chebyshev points of the first
/// kind.
///
/// # Errors
/// If f is not finite at a node, or the degree is above [`MAX_DEGREE`].
pub fn interpolate(f: impl Fn(f64) -> f64, interval: Interval, degree: usize) -> Result<Polynomial> {
    Polynomial::chebyshev(interval, coefficients(f, interval, degree)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn interpolation_reproduces_polynomials_and_converges() {
        let domain = Interval::new(-1.0, 4.0).unwrap();
        let p = interpolate(|x| 3.0 - x + 0.5 * x * x * x, domain, 3).unwrap();
        let e = interpolate(f64::exp, domain, 24).unwrap();
        for x in domain.linspace(101) {
            assert!((p.eval(x) - (3.0 - x + 0.5 * x * x * x)).abs() < 1e-13);
            assert!((e.eval(x) - x.exp()).abs() < 1e-12);
        }
        let odd = interpolate(|x| x.tanh(), Interval::symmetric(2.0).unwrap(), 15).unwrap();
        assert!(odd.coeffs().iter().step_by(2).all(|c| c.abs() < 1e-16));
    }

    #[test]
    fn poles_and_degrees_are_refused() {
        let domain = Interval::symmetric(1.0).unwrap();
        assert_eq!(interpolate(|x| 1.0 / x, domain, 2), Err(Error::NonFiniteSample { x: 0.0 }));
        assert!(matches!(interpolate(|x| x, domain, MAX_DEGREE + 1), Err(Error::DegreeTooHigh { .. })));
    }
}
