//! Values at Chebyshev points, and the coefficients they stand for.

use crate::{Error, Interval, Result};
use std::f64::consts::PI;

/// Highest degree for which coefficients are computed from values (the cost is quadratic).
pub(crate) const MAX_DEGREE: usize = 1 << 12;

/// Coefficients of the polynomial of the given degree that has the values of f at the Chebyshev
/// points of the first kind, cos((2j+1)π / 2(degree + 1)) mapped to the interval.
pub(crate) fn coefficients(f: impl Fn(f64) -> f64, interval: Interval, degree: usize) -> Result<Vec<f64>> {
    if degree > MAX_DEGREE {
        return Err(Error::DegreeTooHigh { degree, limit: MAX_DEGREE, what: "Chebyshev interpolation" });
    }
    let count = degree + 1;
    let values = (0..count)
        .map(|j| {
            let x = interval.from_unit(cos_pi(2 * j + 1, 2 * count));
            Some(f(x)).filter(|y| y.is_finite()).ok_or(Error::NonFiniteSample { x })
        })
        .collect::<Result<Vec<_>>>()?;
    // Every cosine needed is one of these 4·count values, so no angle is ever rounded.
    let cosines: Vec<f64> = (0..4 * count).map(|i| cos_pi(i, 2 * count)).collect();
    let coefficient = |k: usize| {
        let sum: f64 =
            values.iter().enumerate().map(|(j, y)| y * cosines[k * (2 * j + 1) % (4 * count)]).sum();
        sum * if k == 0 { 1.0 } else { 2.0 } / count as f64
    };
    Ok((0..count).map(coefficient).collect())
}

/// Σ c_k T_k(u) by Clenshaw's recurrence.
pub(crate) fn clenshaw(coeffs: &[f64], u: f64) -> f64 {
    let (mut near, mut far) = (0.0, 0.0);
    for &c in coeffs[1..].iter().rev() {
        let next = (2.0 * u).mul_add(near, c - far);
        far = near;
        near = next;
    }
    u.mul_add(near, coeffs[0] - far)
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
