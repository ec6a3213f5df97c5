//! Chebyshev interpolation and weighted least squares.

use crate::{Error, Interval, Polynomial, Result};
use std::f64::consts::PI;

/// Highest degree accepted by the routines of this module (their cost is quadratic).
pub const MAX_DEGREE: usize = 1 << 12;

/// The `count` Chebyshev points of the first kind, cos((2j+1)π / 2·count), mapped to the interval, descending.
pub fn nodes(interval: Interval, count: usize) -> Vec<f64> {
    (0..count).map(|j| interval.from_unit(cos_pi(2 * j + 1, 2 * count))).collect()
}

/// The polynomial of the given degree that interpolates f at the Chebyshev points of the first kind.
///
/// # Errors
/// If f is not finite at a node, or the degree is above [`MAX_DEGREE`].
pub fn interpolate(f: impl Fn(f64) -> f64, interval: Interval, degree: usize) -> Result<Polynomial> {
    if degree > MAX_DEGREE {
        return Err(Error::DegreeTooHigh { degree, limit: MAX_DEGREE, what: "Chebyshev interpolation" });
    }
    let count = degree + 1;
    let values = nodes(interval, count)
        .into_iter()
        .map(|x| Some(f(x)).filter(|y| y.is_finite()).ok_or(Error::NonFiniteSample { x }))
        .collect::<Result<Vec<_>>>()?;
    // Every cosine needed is one of these 4·count values, so no angle is ever rounded.
    let cosines: Vec<f64> = (0..4 * count).map(|i| cos_pi(i, 2 * count)).collect();
    let coeffs = (0..count)
        .map(|k| {
            let sum: f64 = values.iter().enumerate().map(|(j, y)| y * cosines[k * (2 * j + 1) % (4 * count)]).sum();
            sum * if k == 0 { 1.0 } else { 2.0 } / count as f64
        })
        .collect();
    Polynomial::chebyshev(interval, coeffs)
}

/// One sample for [`least_squares`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Argument.
    pub x: f64,
    /// Value of the function.
    pub y: f64,
    /// Non-negative weight of the squared residual.
    pub weight: f64,
}

/// The polynomial of the given degree with the least weighted sum of squared residuals, by Householder reflections in
/// the Chebyshev basis of the interval.
///
/// # Errors
/// If a sample is not finite or has a negative weight, lies outside the interval, or if the samples do not determine
/// the coefficients.
pub fn least_squares(samples: &[Sample], interval: Interval, degree: usize) -> Result<Polynomial> {
    if degree > MAX_DEGREE {
        return Err(Error::DegreeTooHigh { degree, limit: MAX_DEGREE, what: "least squares" });
    }
    let n = degree + 1;
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(samples.len());
    for s in samples {
        if !(s.x.is_finite() && s.y.is_finite()) {
            return Err(Error::NonFiniteSample { x: s.x });
        }
        if !interval.contains(s.x) {
            return Err(Error::Parameter { what: "sample argument", value: s.x, expected: "inside the interval" });
        }
        if !(s.weight >= 0.0 && s.weight.is_finite()) {
            return Err(Error::Parameter { what: "sample weight", value: s.weight, expected: "finite, not negative" });
        }
        if s.weight > 0.0 {
            let w = s.weight.sqrt();
            let mut row: Vec<f64> = chebyshev_values(interval.to_unit(s.x), n).into_iter().map(|t| w * t).collect();
            row.push(w * s.y);
            rows.push(row);
        }
    }
    let undetermined = Error::Underdetermined { samples: rows.len(), coefficients: n };
    if rows.len() < n {
        return Err(undetermined);
    }
    let coeffs = triangularise(&mut rows, n).ok_or(undetermined)?;
    Polynomial::chebyshev(interval, coeffs)
}

/// Solves the least-squares system whose last column is the right-hand side; `None` if it is singular.
fn triangularise(rows: &mut [Vec<f64>], n: usize) -> Option<Vec<f64>> {
    let norm = |rows: &[Vec<f64>], col: usize| rows.iter().map(|r| r[col] * r[col]).sum::<f64>().sqrt();
    let before: Vec<f64> = (0..n).map(|col| norm(rows, col)).collect();
    for col in 0..n {
        let norm = norm(&rows[col..], col);
        if norm <= 1e-12 * before[col] {
            return None;
        }
        let alpha = if rows[col][col] > 0.0 { -norm } else { norm };
        let mut v: Vec<f64> = rows[col..].iter().map(|r| r[col]).collect();
        v[0] -= alpha;
        let vv: f64 = v.iter().map(|x| x * x).sum();
        for j in col..=n {
            let dot: f64 = v.iter().zip(&rows[col..]).map(|(a, r)| a * r[j]).sum();
            let f = 2.0 * dot / vv;
            for (a, r) in v.iter().zip(&mut rows[col..]) {
                r[j] -= f * a;
            }
        }
    }
    let mut x = vec![0.0; n];
    for i in (0..n).rev() {
        let tail: f64 = (i + 1..n).map(|j| rows[i][j] * x[j]).sum();
        x[i] = (rows[i][n] - tail) / rows[i][i];
    }
    Some(x)
}

/// T_0(u) … T_{count-1}(u).
fn chebyshev_values(u: f64, count: usize) -> Vec<f64> {
    let mut out = Vec::with_capacity(count);
    for k in 0..count {
        out.push(match k {
            0 => 1.0,
            1 => u,
            _ => 2.0 * u * out[k - 1] - out[k - 2],
        });
    }
    out
}

/// cos(π·num/den), exact at multiples of π/2 and symmetric to the last bit.
pub(crate) fn cos_pi(num: usize, den: usize) -> f64 {
    let num = num % (2 * den);
    let num = if num > den { 2 * den - num } else { num };
    match (2 * num).cmp(&den) {
        std::cmp::Ordering::Equal => 0.0,
        std::cmp::Ordering::Less => (PI * num as f64 / den as f64).cos(),
        std::cmp::Ordering::Greater => -(PI * (den - num) as f64 / den as f64).cos(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn least_squares_recovers_and_reports() {
        let domain = Interval::new(0.0, 2.0).unwrap();
        let sample = |x: f64| Sample { x, y: 1.0 - 2.0 * x + x * x, weight: 1.0 + x };
        let samples: Vec<_> = domain.linspace(50).map(sample).collect();
        let p = least_squares(&samples, domain, 4).unwrap();
        for x in domain.linspace(20) {
            assert!((p.eval(x) - (1.0 - x) * (1.0 - x)).abs() < 1e-12);
        }
        assert_eq!(
            least_squares(&samples[..3], domain, 4),
            Err(Error::Underdetermined { samples: 3, coefficients: 5 })
        );
        let same = vec![sample(1.0); 10];
        assert!(matches!(least_squares(&same, domain, 2), Err(Error::Underdetermined { .. })));
    }
}
