//! The kernels as an extension of burn's backends: plain on the CPU backend, recorded under
//! autodiff.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, backend_extension};

use super::activation::Curve;
use super::attention::Layout;
use super::polynomial::Series;
use super::primitive::Primitive;
use super::{activation, attention, dense, loss, norm, polynomial};

/// The operators; see the functions of the same names one module up.
#[backend_extension(Flex, Autodiff)]
pub(super) trait Fused: Backend {
    fn fused_curve(x: FloatTensor<Self>, curve: Curve) -> FloatTensor<Self>;
    fn fused_dense(x: FloatTensor<Self>, w: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;
    fn fused_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;
    fn fused_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        layout: Arc<Layout>,
        epsilon: Arc<Vec<f32>>,
    ) -> FloatTensor<Self>;
    fn fused_cross_entropy(logits: FloatTensor<Self>, targets: Arc<Vec<u32>>) -> FloatTensor<Self>;
    fn fused_divergence(
        teacher: FloatTensor<Self>,
        student: FloatTensor<Self>,
        temperature: f32,
    ) -> FloatTensor<Self>;
    fn fused_polynomial(x: FloatTensor<Self>, series: Arc<Series>) -> FloatTensor<Self>;
}

impl Fused for Flex {
    fn fused_curve(x: Primitive, curve: Curve) -> Primitive {
        activation::forward(&x, curve)
    }
    fn fused_dense(x: Primitive, w: Primitive, b: Primitive) -> Primitive {
        dense::forward(&x, &w, &b)
    }
    fn fused_norm(x: Primitive, gamma: Primitive, beta: Primitive, epsilon: f32) -> Primitive {
        norm::forward(x, gamma, beta, epsilon).0
    }
    fn fused_attention(
        q: Primitive,
        k: Primitive,
        v: Primitive,
        layout: Arc<Layout>,
        epsilon: Arc<Vec<f32>>,
    ) -> Primitive {
        attention::forward(q, k, v, &layout, &epsilon).0
    }
    fn fused_cross_entropy(logits: Primitive, targets: Arc<Vec<u32>>) -> Primitive {
        loss::forward(logits, &targets).0
    }
    fn fused_divergence(teacher: Primitive, student: Primitive, temperature: f32) -> Primitive {
        loss::divergence(teacher, student, temperature).0
    }
    fn fused_polynomial(x: Primitive, series: Arc<Series>) -> Primitive {
        polynomial::forward(&x, &series)
    }
}

impl<C: CheckpointStrategy> Fused for Autodiff<Flex, C> {
    fn fused_curve(x: FloatTensor<Self>, curve: Curve) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let out = activation::forward(&x, curve);
        match Activation.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, curve), out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn fused_dense(x: FloatTensor<Self>, w: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        let [(x, nx), (w, nw), (b, nb)] = [x, w, b].map(|t| t.into_parts());
        let out = dense::forward(&x, &w, &b);
        match Dense.prepare::<C>([nx, nw, nb]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, w), out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn fused_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        let [(x, nx), (gamma, ng), (beta, nb)] = [x, gamma, beta].map(|t| t.into_parts());
        let (out, saved) = norm::forward(x, gamma, beta, epsilon);
        match Norm.prepare::<C>([nx, ng, nb]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(saved, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn fused_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        layout: Arc<Layout>,
        epsilon: Arc<Vec<f32>>,
    ) -> FloatTensor<Self> {
        let [(q, nq), (k, nk), (v, nv)] = [q, k, v].map(|t| t.into_parts());
        let (out, saved) = attention::forward(q, k, v, &layout, &epsilon);
        match Attention.prepare::<C>([nq, nk, nv]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(saved, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn fused_cross_entropy(logits: FloatTensor<Self>, targets: Arc<Vec<u32>>) -> FloatTensor<Self> {
        let (logits, node) = logits.into_parts();
        let (out, gradient) = loss::forward(logits, &targets);
        match Loss.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(gradient, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn fused_divergence(
        teacher: FloatTensor<Self>,
        student: FloatTensor<Self>,
        temperature: f32,
    ) -> FloatTensor<Self> {
        let (teacher, _) = teacher.into_parts();
        let (student, node) = student.into_parts();
        let (out, gradient) = loss::divergence(teacher, student, temperature);
        match Loss.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(gradient, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn fused_polynomial(x: FloatTensor<Self>, series: Arc<Series>) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let out = polynomial::forward(&x, &series);
        match Polynomial.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, series), out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }
}

#[derive(Debug)]
struct Activation;
#[derive(Debug)]
struct Dense;
#[derive(Debug)]
struct Norm;
#[derive(Debug)]
struct Attention;
#[derive(Debug)]
struct Loss;
#[derive(Debug)]
struct Polynomial;

/// Hands each tracked parent its gradient.
macro_rules! register {
    ($grads:ident, $ops:ident, $values:expr) => {
        for (parent, value) in $ops.parents.into_iter().zip($values) {
            if let Some(parent) = parent {
                $grads.register::<Flex>(parent.id, value);
            }
        }
    };
}

impl Backward<Flex, 1> for Activation {
    type State = (Primitive, Curve);
    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        register!(grads, ops, [activation::backward(&ops.state.0, ops.state.1, grad)]);
    }
}

impl Backward<Flex, 3> for Dense {
    type State = (Primitive, Primitive);
    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let values = dense::backward(&ops.state.0, &ops.state.1, grad, wanted);
        for (parent, value) in ops.parents.into_iter().zip(values) {
            if let Some((parent, value)) = parent.zip(value) {
                grads.register::<Flex>(parent.id, value);
            }
        }
    }
}

impl Backward<Flex, 3> for Norm {
    type State = norm::Saved;
    fn backward(self, ops: Ops<norm::Saved, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        register!(grads, ops, norm::backward(&ops.state, grad));
    }
}

impl Backward<Flex, 3> for Attention {
    type State = attention::Saved;
    fn backward(self, ops: Ops<attention::Saved, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        register!(grads, ops, attention::backward(ops.state, grad));
    }
}

impl Backward<Flex, 1> for Loss {
    type State = Primitive;
    fn backward(self, ops: Ops<Primitive, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        register!(grads, ops, [loss::backward(ops.state, &grad)]);
    }
}

impl Backward<Flex, 1> for Polynomial {
    type State = (Primitive, Arc<Series>);
    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        register!(grads, ops, [polynomial::backward(&ops.state.0, &ops.state.1, grad)]);
    }
}
