//! The operators that decide the speed of a training step, each as one node of the autodiff graph.
//!
//! Composed from single tensor operations, attention alone writes a dozen `[batch, heads, rows, keys]` tensors per layer,
//! forward and backward. Here each operator has a forward and a hand-derived backward pass over slices that keeps only
//! what the latter needs. Matrix products stay with burn's backend.
//!
//! The kernels work in f32. Other element types, observed activations and the rarer shapes take the composed operators;
//! tests hold both to the same values and gradients.

mod attention;
mod backend;
mod dense;
mod gelu;
mod loss;
mod norm;
mod polynomial;

use std::sync::Arc;

use burn::backend::Dispatch;
use burn::tensor::{DType, Tensor};
use rayon::prelude::*;

pub(crate) use attention::{Layout, Weights};
use backend::{Fused, Primitive};
pub(crate) use polynomial::Series;

/// True if the kernels apply to a tensor of this element type.
pub(crate) fn applies<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32
}

/// `x * Phi(x)`.
pub(crate) fn gelu(x: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::fused_gelu(x.into_dispatch()))
}

/// `x w + b` for `x` of shape `[rows, input]`, `w` `[input, output]`, `b` `[output]`.
pub(crate) fn dense(x: Tensor<2>, w: Tensor<2>, b: Tensor<1>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::fused_dense(x.into_dispatch(), w.into_dispatch(), b.into_dispatch()))
}

/// LayerNorm over the last dimension of `[rows, width]`.
pub(crate) fn layer_norm(x: Tensor<2>, gamma: Tensor<1>, beta: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let [x, gamma, beta] = [x.into_dispatch(), gamma.into_dispatch(), beta.into_dispatch()];
    Tensor::from_dispatch(Dispatch::fused_norm(x, gamma, beta, epsilon as f32))
}

/// Attention over projected queries, keys and values, all `[batch * rows, width]`: splits heads, rotates, weighs, mixes,
/// joins heads. `epsilon` holds one value per head and row where the operator wants frozen ones.
pub(crate) fn attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    layout: Arc<Layout>,
    epsilon: Arc<Vec<f32>>,
) -> Tensor<2> {
    let [q, k, v] = [q, k, v].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::fused_attention(q, k, v, layout, epsilon))
}

/// Mean negative log-likelihood `[1]` of `targets` under `logits` `[rows, vocab]`.
pub(crate) fn cross_entropy(logits: Tensor<2>, targets: Arc<Vec<u32>>) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::fused_cross_entropy(logits.into_dispatch(), targets))
}

/// A Chebyshev series at every element.
pub(crate) fn polynomial<const D: usize>(x: Tensor<D>, series: Arc<Series>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fused_polynomial(x.into_dispatch(), series))
}

/// Elements that one thread takes at a time.
const CHUNK: usize = 1 << 14;

/// Rows whose partial sums are added up by one thread; fixed, so that results do not depend on the number of threads.
const ROWS: usize = 128;

/// The values of a tensor that is contiguous.
fn values(x: &Primitive) -> &[f32] {
    let start = x.layout().start_offset();
    &x.storage::<f32>()[start..start + x.layout().num_elements()]
}

fn contiguous(x: Primitive) -> Primitive {
    if x.is_contiguous() { x } else { x.to_contiguous() }
}

/// Sum of `f(a, b)` over two equal slices, in eight lanes.
fn sum(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (heads, tail) = (a.chunks_exact(8).zip(b.chunks_exact(8)), a.len() / 8 * 8);
    for (a, b) in heads {
        for i in 0..8 {
            lanes[i] += f(a[i], b[i]);
        }
    }
    let rest: f32 = a[tail..].iter().zip(&b[tail..]).map(|(&a, &b)| f(a, b)).sum();
    lanes.iter().sum::<f32>() + rest
}

/// Sums over rows: `f` adds the rows of its chunk (given by its first row) to `width` accumulators.
fn column_sums(rows: usize, width: usize, f: impl Fn(std::ops::Range<usize>, &mut [f32]) + Sync) -> Vec<f32> {
    let starts: Vec<usize> = (0..rows).step_by(ROWS).collect();
    let parts: Vec<Vec<f32>> = starts
        .par_iter()
        .map(|&start| {
            let mut part = vec![0.0; width];
            f(start..(start + ROWS).min(rows), &mut part);
            part
        })
        .collect();
    let mut total = vec![0.0; width];
    for part in parts {
        total.iter_mut().zip(part).for_each(|(t, p)| *t += p);
    }
    total
}

/// `e^x` to about an f32 rounding, for the compiler to vectorise: no calls, no branches.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let t = x * std::f32::consts::LOG2_E + ROUND;
    let k = t - ROUND;
    // ln 2 in two parts, the first exact in few bits.
    let r = (x - k * 0.693_359_4) + k * 2.121_944_4e-4;
    let tail = 1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0));
    let poly = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * tail))));
    poly * f32::from_bits((t.to_bits() << 23).wrapping_add(127 << 23))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_is_accurate_over_its_whole_range() {
        for i in -870..880 {
            let x = i as f32 / 10.0 + 0.037;
            let x = x.clamp(-87.0, 88.0);
            let relative = (f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs();
            assert!(relative < 3e-7, "{x}: {relative:e}");
        }
        assert!(exp(-1e9) < 1e-37 && exp(0.0) == 1.0);
    }

    #[test]
    fn sums_do_not_lose_rows_or_lanes() {
        let a: Vec<f32> = (0..19).map(|i| i as f32).collect();
        assert_eq!(sum(&a, &a, |a, b| a * b), (0..19).map(|i| (i * i) as f32).sum::<f32>());
        let columns = column_sums(300, 2, |rows, out| rows.for_each(|r| out[r % 2] += r as f32));
        assert_eq!(columns, [(0..300).step_by(2).sum::<usize>() as f32, (1..300).step_by(2).sum::<usize>() as f32]);
    }
}
