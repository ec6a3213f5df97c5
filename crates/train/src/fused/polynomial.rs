//! A Chebyshev series at every element, with its derivative for the backward pass.

use std::sync::Arc;

use rayon::prelude::*;

use super::primitive::{CHUNK, Primitive, contiguous, tensor, values};

/// Elements that one evaluation takes.
const LANES: usize = 8;

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

    /// Values of a series at eight places at once: each alone waits for its own last step.
    fn eval(&self, series: &[f64], x: [f32; LANES]) -> [f64; LANES] {
        let (scale, shift) = (2.0 / (self.hi - self.lo), (self.lo + self.hi) / (self.hi - self.lo));
        let t = x.map(|x| f64::from(x) * scale - shift);
        let (mut b1, mut b2) = ([0.0; LANES], [0.0; LANES]);
        for &c in series.iter().skip(1).rev() {
            for i in 0..LANES {
                (b1[i], b2[i]) = (2.0 * t[i] * b1[i] - b2[i] + c, b1[i]);
            }
        }
        let first = series.first().copied().unwrap_or(0.0);
        std::array::from_fn(|i| t[i] * b1[i] - b2[i] + first)
    }
}

pub(super) fn forward(x: &Primitive, series: &Series) -> Primitive {
    let shape = x.layout().shape().clone();
    let x = contiguous(x.clone());
    tensor(mapped(values(&x), |x| series.eval(&series.value, x)), shape)
}

/// Gradient of the input from that of the output.
pub(super) fn backward(x: &Primitive, series: &Arc<Series>, grad: Primitive) -> Primitive {
    let shape = grad.layout().shape().clone();
    let (x, grad) = (contiguous(x.clone()), contiguous(grad));
    let mut slopes = mapped(values(&x), |x| series.eval(&series.slope, x));
    slopes.iter_mut().zip(values(&grad)).for_each(|(slope, g)| *slope *= g);
    tensor(slopes, shape)
}

fn mapped(x: &[f32], f: impl Fn([f32; LANES]) -> [f64; LANES] + Sync) -> Vec<f32> {
    let mut out = vec![0.0f32; x.len()];
    out.par_chunks_mut(LANES).zip(x.par_chunks(LANES)).with_min_len(CHUNK / 128).for_each(|(out, x)| {
        let lanes = std::array::from_fn(|i| x.get(i).copied().unwrap_or(x[0]));
        out.iter_mut().zip(f(lanes)).for_each(|(o, y)| *o = y as f32);
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_keep_their_order_and_no_rest_is_lost() {
        let x: Vec<f32> = (0..19).map(|i| i as f32).collect();
        assert_eq!(
            mapped(&x, |x| x.map(|x| f64::from(x) + 1.0)),
            (1..20).map(|i| i as f32).collect::<Vec<_>>()
        );
    }

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
            assert!((series.eval(&series.value, [x; LANES])[7] - exact.powi(3)).abs() < 1e-9);
            assert!((series.eval(&series.slope, [x; LANES])[0] - 3.0 * exact * exact).abs() < 1e-9);
        }
    }
}
