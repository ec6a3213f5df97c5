//! Polynomials at the non-linear sites.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::function::Function;
use crate::range::Range;

/// Most coefficients of a polynomial.
const MAX_COEFFICIENTS: usize = 1 << 12;

/// What replaces a function on its certified range.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scheme {
    /// Interval of the Chebyshev basis.
    pub range: Range,
    /// Chebyshev coefficients on `range`, degree ascending.
    pub coefficients: Vec<f64>,
    /// Largest error measured on a fine grid (relative for reciprocal and inverse square root, else
    /// absolute).
    pub error: f64,
}

impl Scheme {
    /// Interpolates at Chebyshev nodes.
    ///
    /// # Errors
    /// [`Error::Fit`] for an empty or non-positive range.
    pub fn interpolate(site: &str, function: Function, range: Range, degree: usize) -> Result<Self> {
        let refuse = |reason: &str| {
            Err(Error::Fit { site: site.into(), lo: range.lo, hi: range.hi, reason: reason.into() })
        };
        if !(range.lo < range.hi && range.lo.is_finite() && range.hi.is_finite()) {
            return refuse("the range is empty or not finite");
        }
        if matches!(function, Function::Reciprocal | Function::InvSqrt) && range.lo <= 0.0 {
            return refuse("the range reaches zero");
        }
        let n = degree + 1;
        let angle = |k: usize| std::f64::consts::PI * (k as f64 + 0.5) / n as f64;
        let (mid, half) = (0.5 * (range.lo + range.hi), 0.5 * (range.hi - range.lo));
        let values: Vec<f64> = (0..n).map(|k| function.eval(mid + half * angle(k).cos())).collect();
        let coefficient = |j: usize| {
            let sum: f64 = values.iter().enumerate().map(|(k, v)| v * (j as f64 * angle(k)).cos()).sum();
            sum * if j == 0 { 1.0 } else { 2.0 } / n as f64
        };
        let mut out = Self { range, coefficients: (0..n).map(coefficient).collect(), error: 0.0 };
        let relative = matches!(function, Function::Reciprocal | Function::InvSqrt);
        let grid = 20 * n;
        out.error = (0..=grid)
            .map(|i| {
                let x = mid + half * (std::f64::consts::PI * i as f64 / grid as f64).cos();
                let exact = function.eval(x);
                (out.eval(x) - exact).abs() / if relative { exact.abs() } else { 1.0 }
            })
            .fold(0.0, f64::max);
        Ok(out)
    }

    /// Checks that the polynomial is one, on the range that is certified.
    pub(crate) fn check(&self, certified: Range) -> std::result::Result<(), String> {
        let Range { lo, hi } = self.range;
        if self.range != certified {
            return Err(format!(
                "its polynomial is for [{lo}, {hi}], its range is [{}, {}]",
                certified.lo, certified.hi
            ));
        }
        let count = self.coefficients.len();
        if count == 0 || count > MAX_COEFFICIENTS || self.coefficients.iter().any(|c| !c.is_finite()) {
            return Err(format!(
                "its polynomial has {count} coefficients, expected 1 to {MAX_COEFFICIENTS}, finite"
            ));
        }
        if !(self.error >= 0.0 && self.error.is_finite()) {
            return Err(format!("the error of its polynomial is {}", self.error));
        }
        Ok(())
    }

    /// Value at `x` (Clenshaw). Outside the range the polynomial is evaluated all the same, as it
    /// would be under encryption.
    pub fn eval(&self, x: f64) -> f64 {
        self.eval_lanes([x])[0]
    }

    /// Replaces each argument by the value there, the same as [`Scheme::eval`]'s.
    pub(crate) fn eval_each(&self, values: &mut [f64]) {
        let (blocks, rest) = values.as_chunks_mut::<16>();
        blocks.iter_mut().for_each(|block| *block = self.eval_lanes(*block));
        rest.iter_mut().for_each(|x| *x = self.eval(*x));
    }

    /// Clenshaw's recurrence is one long chain: several of them at once keep a processor busy.
    fn eval_lanes<const N: usize>(&self, x: [f64; N]) -> [f64; N] {
        let Range { lo, hi } = self.range;
        let t = x.map(|x| (2.0 * x - lo - hi) / (hi - lo));
        let (mut b1, mut b2) = ([0.0; N], [0.0; N]);
        for &c in self.coefficients.iter().skip(1).rev() {
            for i in 0..N {
                (b1[i], b2[i]) = (2.0 * t[i] * b1[i] - b2[i] + c, b1[i]);
            }
        }
        let first = self.coefficients.first().copied().unwrap_or(0.0);
        std::array::from_fn(|i| t[i] * b1[i] - b2[i] + first)
    }

    /// Degree.
    pub fn degree(&self) -> usize {
        self.coefficients.len().saturating_sub(1)
    }
}
