//! Feed-forward and the residual block.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::{gelu, silu};
use cipherlm_model::{Activation, Placement, Residual, Shape};

use crate::arch::Arch;
use crate::attention::{Attention, Tables};
use crate::fused::{self, Curve};
use crate::layers::{Dense, Init, Norm};
use crate::probe::{Probe, Site};

/// A quadratic for each channel: `(square x + linear) x`.
#[derive(Module, Debug)]
pub struct Quadratic {
    /// `[ffn]`.
    pub square: Param<Tensor<1>>,
    /// `[ffn]`.
    pub linear: Param<Tensor<1>>,
}

/// `down(act(up x))`, or `down(act(gate x) * up x)`.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// Gate of the gated form.
    pub gate: Option<Dense>,
    /// Expanding layer.
    pub up: Dense,
    /// Where the activation is one.
    pub activation: Option<Quadratic>,
    /// Contracting layer.
    pub down: Dense,
    #[module(skip)]
    function: Activation,
}

/// One transformer block.
#[derive(Module, Debug)]
pub struct Block {
    /// Normalisation of the attention branch.
    pub norm1: Norm,
    /// Attention.
    pub attn: Attention,
    /// Normalisation of the feed-forward branch.
    pub norm2: Norm,
    /// Feed-forward.
    pub ffn: FeedForward,
    #[module(skip)]
    placement: Placement,
    #[module(skip)]
    residual: Residual,
}

impl FeedForward {
    fn new(shape: &Shape, init: &mut Init<'_>) -> Self {
        let (d, f) = (shape.d_model, shape.ffn);
        let up = init.dense(d, f, shape.bias, 1.0);
        let gate = shape.gated.then(|| init.dense(d, f, shape.bias, 1.0));
        let down = init.dense(f, d, shape.bias, 0.5);
        // Close to GELU around zero.
        let activation = (shape.activation == Activation::Quadratic)
            .then(|| Quadratic { square: init.constant([f], 0.25), linear: init.constant([f], 0.5) });
        Self { gate, up, activation, down, function: shape.activation }
    }

    fn forward(&self, x: Tensor<2>, layer: usize, probe: &mut Probe) -> Tensor<2> {
        let inner = match &self.gate {
            Some(gate) => {
                let gated = self.activate(gate.forward(x.clone()), layer, probe);
                let up = self.up.forward(x);
                probe.watch(Site::Product, layer, &up);
                let product = gated.mul(up);
                probe.watch(Site::Product, layer, &product);
                product
            }
            None => self.activate(self.up.forward(x), layer, probe),
        };
        self.down.forward(inner)
    }

    fn activate(&self, x: Tensor<2>, layer: usize, probe: &mut Probe) -> Tensor<2> {
        probe.watch(Site::FeedForward, layer, &x);
        if let Some(Quadratic { square, linear }) = &self.activation {
            let factor = x.clone().mul(square.val().unsqueeze()).add(linear.val().unsqueeze());
            return factor.mul(x);
        }
        if let Some(y) = probe.substitute(Site::FeedForward, layer, &x, |x| exact(self.function, x)) {
            return y;
        }
        match self.function {
            Activation::Gelu if fused::applies(&x) => fused::curve(x, Curve::Gelu),
            Activation::Silu if fused::applies(&x) => fused::curve(x, Curve::Silu),
            function => exact(function, x),
        }
    }
}

/// The activation itself.
fn exact<const D: usize>(function: Activation, x: Tensor<D>) -> Tensor<D> {
    match function {
        Activation::Gelu => gelu(x),
        Activation::Silu => silu(x),
        // Its channels' factors are parameters: taken before.
        Activation::Quadratic => x,
    }
}

impl Block {
    /// Random weights of the block with this number.
    pub fn new(arch: &Arch, layer: usize, init: &mut Init<'_>) -> Self {
        let shape = &arch.shape;
        Self {
            norm1: Norm::new(&format!("layers.{layer}.norm1"), shape, init),
            attn: Attention::new(arch, init),
            norm2: Norm::new(&format!("layers.{layer}.norm2"), shape, init),
            ffn: FeedForward::new(shape, init),
            placement: shape.placement,
            residual: shape.residual,
        }
    }

    /// `[batch * rows, width]` to the same shape.
    pub fn forward(
        &self,
        x: Tensor<2>,
        batch: usize,
        tables: &Tables,
        layer: usize,
        probe: &mut Probe,
    ) -> Tensor<2> {
        let out = match self.placement {
            Placement::Post => {
                let mixed = self.attn.forward(x.clone(), batch, tables, layer, probe);
                let x = self.norm1.forward(x.add(mixed), Site::AttentionNorm, layer, probe);
                let fed = self.ffn.forward(x.clone(), layer, probe);
                self.norm2.forward(x.add(fed), Site::FeedForwardNorm, layer, probe)
            }
            Placement::Pre => {
                let normed = self.attention_input(x.clone(), layer, probe);
                let mixed = self.attn.forward(normed, batch, tables, layer, probe);
                let middle = x.clone().add(mixed);
                let read = if self.residual == Residual::Parallel { x } else { middle.clone() };
                let normed = self.norm2.forward(read, Site::FeedForwardNorm, layer, probe);
                middle.add(self.ffn.forward(normed, layer, probe))
            }
        };
        probe.watch(Site::Hidden, layer, &out);
        probe.keep_hidden(&out);
        out
    }

    /// What the attention reads of the block's input.
    pub fn attention_input(&self, x: Tensor<2>, layer: usize, probe: &mut Probe) -> Tensor<2> {
        match self.placement {
            Placement::Post => x,
            Placement::Pre => self.norm1.forward(x, Site::AttentionNorm, layer, probe),
        }
    }
}
