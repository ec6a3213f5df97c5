//! A Chebyshev series at every element, with its derivative for the backward pass.

use std::sync::Arc;

use rayon::prelude::*;

use super::primitive::{CHUNK, Primitive, contiguous, tensor, values};

/// A series on an interval, and its derivative's.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    lo: f64,
    hi: f64,
    value: Vec<f64>,
    slope: Vec<f64>,
}

impl Series {
    /// From the interval and the coefficients, degree ascending.
    pub(crate) fn new(lo: f64, hi: f64, value: &[f64]) -> Self {
        // d/dt of a series: b[k-1] = b[k+1] + 2 k a[k], halved at 0.
        let mut slope = vec![0.0; value.len() + 1];
        for k in (1..value.len()).rev() {
            slope[k - 1] = slope.get(k + 1).copied().unwrap_or(0.0) + 2.0 * k as f64 * value[k];
        }
        slope[0] *= 0.5;
        slope.iter_mut().for_each(|b| *b *= 2.0 / (hi - lo));
        Self { lo, hi, value: value.to_vec(), slope }
    }

    fn eval(&self, series: &[f64], x: f32) -> f64 {
        let t = (2.0 * f64::from(x) - self.lo - self.hi) / (self.hi - self.lo);
        let (mut b1, mut b2) = (0.0, 0.0);
        for &c in series.iter().skip(1).rev() {
            (b1, b2) = (2.0 * t * b1 - b2 + c, b1);
        }
        t * b1 - b2 + series.first().copied().unwrap_or(0.0)
    }
}

pub(super) fn forward(x: &Primitive, series: &Series) -> Primitive {
    let shape = x.layout().shape().clone();
    let x = contiguous(x.clone());
    let out = values(&x)
        .par_iter()
        .with_min_len(CHUNK / 16)
        .map(|&x| series.eval(&series.value, x) as f32)
        .collect();
    tensor(out, shape)
}

/// Gradient of the input from that of the output.
pub(super) fn backward(x: &Primitive, series: &Arc<Series>, grad: Primitive) -> Primitive {
    let shape = grad.layout().shape().clone();
    let (x, grad) = (contiguous(x.clone()), contiguous(grad));
    let pairs = values(&grad).par_iter().zip(values(&x)).with_min_len(CHUNK / 16);
    tensor(pairs.map(|(&g, &x)| g * series.eval(&series.slope, x) as f32).collect(), shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slope_is_the_derivative() {
        // x^3 on [-2, 4]: t = (x - 1) / 3.
        let nodes = |k: usize| (std::f64::consts::PI * (k as f64 + 0.5) / 4.0).cos();
        let coefficient = |j: usize| {
            let sum: f64 =
                (0..4).map(|k| (1.0 + 3.0 * nodes(k)).powi(3) * (j as f64 * nodes(k).acos()).cos()).sum();
            sum * if j == 0 { 0.25 } else { 0.5 }
        };
        let series = Series::new(-2.0, 4.0, &(0..4).map(coefficient).collect::<Vec<_>>());
        for x in [-2.0f32, -0.5, 0.0, 1.7, 4.0, 5.0] {
            let exact = f64::from(x);
            assert!((series.eval(&series.value, x) - exact.powi(3)).abs() < 1e-9);
            assert!((series.eval(&series.slope, x) - 3.0 * exact * exact).abs() < 1e-9);
        }
    }
}
