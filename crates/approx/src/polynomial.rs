//! Polynomials that carry their basis and interval.

use crate::samples::{clenshaw, coefficients};
use crate::{Error, Interval, Result};
use serde::{Deserialize, Serialize};

/// The basis in which coefficients are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// Powers x^k of the argument itself.
    Monomial,
    /// Chebyshev polynomials T_k(u), u being the argument mapped affinely onto [-1, 1].
    Chebyshev,
}

/// Symmetry of a polynomial around the midpoint of its interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Parity {
    /// Neither even nor odd.
    None,
    /// Only even terms.
    Even,
    /// Only odd terms.
    Odd,
}

/// A real polynomial with its basis and the interval on which it is meant to be used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub struct Polynomial {
    basis: Basis,
    interval: Interval,
    coeffs: Vec<f64>,
}

impl Polynomial {
    /// A polynomial from its coefficients, constant term first. Trailing zeros are dropped.
    ///
    /// # Errors
    /// If there is no coefficient or one is not finite.
    pub fn new(basis: Basis, interval: Interval, mut coeffs: Vec<f64>) -> Result<Self> {
        if coeffs.is_empty() {
            return Err(Error::NoCoefficients);
        }
        if let Some(&value) = coeffs.iter().find(|c| !c.is_finite()) {
            return Err(Error::NotFinite { what: "coefficient", value });
        }
        while coeffs.len() > 1 && coeffs.last() == Some(&0.0) {
            coeffs.pop();
        }
        Ok(Self { basis, interval, coeffs })
    }

    /// Shorthand for a polynomial in the Chebyshev basis.
    ///
    /// # Errors
    /// As [`Polynomial::new`].
    pub fn chebyshev(interval: Interval, coeffs: Vec<f64>) -> Result<Self> {
        Self::new(Basis::Chebyshev, interval, coeffs)
    }

    /// Shorthand for a polynomial in powers of its argument.
    ///
    /// # Errors
    /// As [`Polynomial::new`].
    pub fn monomial(interval: Interval, coeffs: Vec<f64>) -> Result<Self> {
        Self::new(Basis::Monomial, interval, coeffs)
    }

    /// The basis of the coefficients.
    pub fn basis(&self) -> Basis {
        self.basis
    }

    /// The interval of use.
    pub fn interval(&self) -> Interval {
        self.interval
    }

    /// Coefficients, constant term first.
    pub fn coeffs(&self) -> &[f64] {
        &self.coeffs
    }

    /// Degree; 0 for constants.
    pub fn degree(&self) -> usize {
        self.coeffs.len() - 1
    }

    /// Value at x, by Clenshaw's recurrence (Chebyshev) or Horner's rule (monomial).
    pub fn eval(&self, x: f64) -> f64 {
        match self.basis {
            Basis::Chebyshev => clenshaw(&self.coeffs, self.interval.to_unit(x)),
            Basis::Monomial => self.coeffs.iter().rev().fold(0.0, |acc, &c| acc.mul_add(x, c)),
        }
    }

    /// Symmetry, read off the exact zeros among the coefficients. Monomials are symmetric around 0,
    /// Chebyshev polynomials around the midpoint of the interval.
    pub fn parity(&self) -> Parity {
        let zero_from = |start: usize| self.coeffs.iter().skip(start).step_by(2).all(|&c| c == 0.0);
        if zero_from(1) {
            Parity::Even
        } else if zero_from(0) {
            Parity::Odd
        } else {
            Parity::None
        }
    }

    /// The same polynomial with the coefficients of the other parity set to zero.
    #[must_use]
    pub fn with_parity(mut self, parity: Parity) -> Self {
        let start = match parity {
            Parity::None => return self,
            Parity::Even => 1,
            Parity::Odd => 0,
        };
        self.coeffs.iter_mut().skip(start).step_by(2).for_each(|c| *c = 0.0);
        while self.coeffs.len() > 1 && self.coeffs.last() == Some(&0.0) {
            self.coeffs.pop();
        }
        self
    }

    /// The same polynomial in the other basis, on the same interval.
    ///
    /// Towards monomials the condition number grows like (1 + √2)^degree on [-1, 1] and worse away
    /// from 0: meant for low degrees. Towards Chebyshev polynomials it is as accurate as the values
    /// of the polynomial.
    ///
    /// # Errors
    /// If a coefficient overflows.
    pub fn to_basis(&self, basis: Basis) -> Result<Self> {
        match (self.basis, basis) {
            (a, b) if a == b => Ok(self.clone()),
            (_, Basis::Chebyshev) => {
                Self::chebyshev(self.interval, coefficients(|x| self.eval(x), self.interval, self.degree())?)
            }
            _ => self.chebyshev_to_monomial(),
        }
    }

    /// self ∘ inner on the interval of `inner`, in the Chebyshev basis. The degree is the product
    /// of the degrees.
    ///
    /// # Errors
    /// If a value on the way is not finite.
    pub fn compose(&self, inner: &Self) -> Result<Self> {
        let degree = self.degree().saturating_mul(inner.degree());
        Self::chebyshev(inner.interval, coefficients(|x| self.eval(inner.eval(x)), inner.interval, degree)?)
    }

    /// The polynomial times a constant.
    ///
    /// # Errors
    /// If a coefficient is no longer finite.
    pub fn scaled(&self, factor: f64) -> Result<Self> {
        Self::new(self.basis, self.interval, self.coeffs.iter().map(|c| c * factor).collect())
    }

    /// Chebyshev coefficients read on another interval: the polynomial q(x) = p(map of x), the map
    /// being the affine one from `interval` onto the present interval. Only for the Chebyshev
    /// basis; monomials are returned unchanged.
    #[must_use]
    pub fn on_interval(mut self, interval: Interval) -> Self {
        if self.basis == Basis::Chebyshev {
            self.interval = interval;
        }
        self
    }

    fn chebyshev_to_monomial(&self) -> Result<Self> {
        let (scale, shift) = self.interval.unit_map();
        // Clenshaw on polynomials: b_k = c_k + 2u b_{k+1} - b_{k+2} with u = scale·x + shift.
        let times_u = |p: &[f64], weight: f64| {
            let mut out = vec![0.0; p.len() + 1];
            for (i, &c) in p.iter().enumerate() {
                out[i] += weight * shift * c;
                out[i + 1] += weight * scale * c;
            }
            out
        };
        let (mut near, mut far) = (vec![0.0], vec![0.0]);
        for k in (0..self.coeffs.len()).rev() {
            let mut next = times_u(&near, if k == 0 { 1.0 } else { 2.0 });
            for (o, &c) in next.iter_mut().zip(&far) {
                *o -= c;
            }
            next[0] += self.coeffs[k];
            far = std::mem::replace(&mut near, next);
        }
        near.truncate(self.coeffs.len());
        Self::new(Basis::Monomial, self.interval, near)
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Raw {
    basis: Basis,
    interval: Interval,
    coeffs: Vec<f64>,
}

impl TryFrom<Raw> for Polynomial {
    type Error = Error;

    fn try_from(raw: Raw) -> Result<Self> {
        Self::new(raw.basis, raw.interval, raw.coeffs)
    }
}

impl From<Polynomial> for Raw {
    fn from(p: Polynomial) -> Self {
        Self { basis: p.basis, interval: p.interval, coeffs: p.coeffs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain() -> Interval {
        Interval::new(-0.5, 3.0).unwrap()
    }

    #[test]
    fn bases_agree() {
        let p = Polynomial::monomial(domain(), vec![1.0, -2.0, 0.5, 0.25, -0.125]).unwrap();
        let t = p.to_basis(Basis::Chebyshev).unwrap();
        let back = t.to_basis(Basis::Monomial).unwrap();
        for x in domain().linspace(31) {
            assert!((p.eval(x) - t.eval(x)).abs() < 1e-13);
        }
        for (a, b) in p.coeffs().iter().zip(back.coeffs()) {
            assert!((a - b).abs() < 1e-12, "{a} {b}");
        }
    }

    #[test]
    fn composition() {
        let p = Polynomial::monomial(domain(), vec![1.0, -2.0, 0.5, 0.25]).unwrap();
        let q = Polynomial::monomial(domain(), vec![0.5, 0.0, -0.25]).unwrap();
        let pq = p.compose(&q).unwrap();
        assert_eq!(pq.degree(), 6);
        for x in domain().linspace(17) {
            assert!((pq.eval(x) - p.eval(q.eval(x))).abs() < 1e-12);
        }
    }

    #[test]
    fn malformed_input_is_refused() {
        assert_eq!(Polynomial::monomial(domain(), vec![]), Err(Error::NoCoefficients));
        assert!(matches!(
            Polynomial::chebyshev(domain(), vec![0.0, f64::INFINITY]),
            Err(Error::NotFinite { .. })
        ));
        assert!(
            serde_json::from_str::<Polynomial>(r#"{"basis":"monomial","interval":[0,1],"coeffs":[]}"#)
                .is_err()
        );
    }

    #[test]
    fn parity_is_seen_and_enforced() {
        let p = Polynomial::chebyshev(Interval::UNIT, vec![0.0, 1.0, 0.0, 2.0]).unwrap();
        assert_eq!(p.parity(), Parity::Odd);
        let noisy = Polynomial::chebyshev(Interval::UNIT, vec![1.0, 1e-17, 0.5, 1e-18]).unwrap();
        assert_eq!(noisy.parity(), Parity::None);
        assert_eq!(noisy.with_parity(Parity::Even).coeffs(), [1.0, 0.0, 0.5]);
    }
}
