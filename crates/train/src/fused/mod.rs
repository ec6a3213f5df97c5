//! The operators that decide the speed of a training step, each as one node of the autodiff graph.
//!
//! Composed from single tensor operations, attention alone writes a dozen `[batch, heads, rows,
//! keys]` tensors per layer, forward and backward. Here each operator has a forward and a
//! hand-derived backward pass over slices that keeps only what the latter needs. Matrix products
//! stay with burn's backend.
//!
//! The kernels work in f32. Other element types, observed activations and the rarer shapes take the
//! composed operators; tests hold both to the same values and gradients.

mod activation;
mod attention;
mod backend;
mod dense;
mod loss;
mod norm;
mod polynomial;
mod primitive;

use std::sync::Arc;

use burn::backend::Dispatch;
use burn::tensor::{DType, Tensor};

pub(crate) use activation::Curve;
pub(crate) use attention::Layout;
use backend::Fused;
pub(crate) use polynomial::Series;

/// True if the kernels apply to a tensor of this element type.
pub(crate) fn applies<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32
}

/// An activation at every element.
pub(crate) fn curve(x: Tensor<2>, curve: Curve) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::fused_curve(x.into_dispatch(), curve))
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

/// Attention over projected queries, keys and values, all `[batch * rows, width]`: splits heads,
/// rotates, weighs, mixes, joins heads. `epsilon` holds one value per head and row where the
/// operator wants frozen ones.
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

/// Mean divergence `[1]` of a student's logits from its teacher's, both `[rows, vocab]` and over
/// `temperature`, times its square. No gradient goes to the teacher.
pub(crate) fn divergence(teacher: Tensor<2>, student: Tensor<2>, temperature: f64) -> Tensor<1> {
    let [teacher, student] = [teacher, student].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::fused_divergence(teacher, student, temperature as f32))
}

/// A Chebyshev series at every element.
pub(crate) fn polynomial<const D: usize>(x: Tensor<D>, series: Arc<Series>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fused_polynomial(x.into_dispatch(), series))
}
