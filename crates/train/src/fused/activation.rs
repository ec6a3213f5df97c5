//! GELU, `x * Phi(x)`, and SiLU, `x / (1 + e^-x)`.

use rayon::prelude::*;

use super::primitive::{CHUNK, Primitive, contiguous, exp, tensor, values};

/// An activation with a kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Curve {
    /// `x * Phi(x)`.
    Gelu,
    /// `x / (1 + e^-x)`.
    Silu,
}

pub(super) fn forward(x: &Primitive, curve: Curve) -> Primitive {
    match curve {
        Curve::Gelu => values_of(x, |x| x * normal(x).0),
        Curve::Silu => values_of(x, |x| x * sigmoid(x)),
    }
}

/// Gradient of the input from that of the output.
pub(super) fn backward(x: &Primitive, curve: Curve, grad: Primitive) -> Primitive {
    match curve {
        Curve::Gelu => slopes_of(x, grad, |x| {
            let (cdf, pdf) = normal(x);
            cdf + x * pdf
        }),
        Curve::Silu => slopes_of(x, grad, |x| {
            let s = sigmoid(x);
            s + x * s * (1.0 - s)
        }),
    }
}

#[inline(always)]
fn values_of(x: &Primitive, value: impl Fn(f32) -> f32 + Sync) -> Primitive {
    let shape = x.layout().shape().clone();
    let x = contiguous(x.clone());
    let mut out = vec![0.0f32; shape.num_elements()];
    out.par_chunks_mut(CHUNK).zip(values(&x).par_chunks(CHUNK)).for_each(|(out, x)| {
        for (y, &x) in out.iter_mut().zip(x) {
            *y = value(x);
        }
    });
    tensor(out, shape)
}

#[inline(always)]
fn slopes_of(x: &Primitive, grad: Primitive, slope: impl Fn(f32) -> f32 + Sync) -> Primitive {
    let x = contiguous(x.clone());
    let mut grad = contiguous(grad);
    let start = grad.layout().start_offset();
    let count = grad.layout().num_elements();
    let g = &mut grad.storage_mut::<f32>()[start..start + count];
    g.par_chunks_mut(CHUNK).zip(values(&x).par_chunks(CHUNK)).for_each(|(g, x)| {
        for (g, &x) in g.iter_mut().zip(x) {
            *g *= slope(x);
        }
    });
    grad
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Distribution function and density of the standard normal, absolute error below 2e-7: Abramowitz
/// and Stegun, "Handbook of Mathematical Functions", 7.1.26.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    const INVERSE_ROOT_TAU: f32 = 0.398_942_3;
    let e = exp(-0.5 * x * x);
    let t = 1.0 / (1.0 + 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2 * x.abs());
    let poly =
        t * (0.254_829_6 + t * (-0.284_496_74 + t * (1.421_413_7 + t * (-1.453_152_1 + t * 1.061_405_4))));
    let tail = 0.5 * e * poly;
    (if x < 0.0 { tail } else { 1.0 - tail }, e * INVERSE_ROOT_TAU)
}
