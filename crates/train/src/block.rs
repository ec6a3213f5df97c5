//! Linear layers, normalisation, feed-forward and the residual block.

use burn::module::{Module, Param, ParamId};
use burn::tensor::activation::{gelu, silu};
use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::{Rng, RngExt};

use crate::attention::{Attention, Tables};
use crate::config::{Activation, ModelConfig, Norm as NormKind};
use crate::fused;
use crate::probe::{Probe, Site};

/// Where and how new parameters are made.
pub struct Init<'a> {
    /// Device of the parameters.
    pub device: &'a Device,
    /// Element type.
    pub dtype: DType,
    /// Source of randomness.
    pub rng: &'a mut dyn Rng,
}

/// A linear layer `x W + b` with `W` of shape `[input, output]`.
#[derive(Module, Debug)]
pub struct Dense {
    /// `[input, output]`.
    pub weight: Param<Tensor<2>>,
    /// `[output]`.
    pub bias: Option<Param<Tensor<1>>>,
}

/// LayerNorm or RMSNorm.
#[derive(Module, Debug)]
pub struct Norm {
    /// Scale `[width]`.
    pub gamma: Param<Tensor<1>>,
    /// Offset `[width]`; LayerNorm only.
    pub beta: Option<Param<Tensor<1>>>,
    epsilon: f64,
    #[module(skip)]
    kind: NormKind,
}

/// `down(act(up x))`, or `down(act(gate x) * up x)`.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// Expanding layer.
    pub up: Dense,
    /// Gate of the gated form.
    pub gate: Option<Dense>,
    /// Contracting layer.
    pub down: Dense,
    #[module(skip)]
    activation: Activation,
}

/// One transformer block.
#[derive(Module, Debug)]
pub struct Block {
    /// Normalisation of the attention branch.
    pub attention_norm: Norm,
    /// Attention.
    pub attention: Attention,
    /// Normalisation of the feed-forward branch.
    pub feed_forward_norm: Norm,
    /// Feed-forward.
    pub feed_forward: FeedForward,
    parallel: bool,
    post_norm: bool,
}

impl Init<'_> {
    /// Normal weights of standard deviation `gain / sqrt(input)`, zero bias.
    pub fn dense(&mut self, input: usize, output: usize, bias: bool, gain: f64) -> Dense {
        let weight = self.normal([input, output], gain / (input as f64).sqrt());
        Dense { weight, bias: bias.then(|| self.constant([output], 0.0)) }
    }

    /// Normal values.
    pub fn normal<const D: usize>(&mut self, shape: [usize; D], deviation: f64) -> Param<Tensor<D>> {
        let count: usize = shape.iter().product();
        let data: Vec<f32> = (0..count).map(|_| (gaussian(self.rng) * deviation) as f32).collect();
        self.param(TensorData::new(data, shape), true)
    }

    /// One trained value everywhere.
    pub fn constant<const D: usize>(&mut self, shape: [usize; D], value: f32) -> Param<Tensor<D>> {
        self.param(TensorData::new(vec![value; shape.iter().product()], shape), true)
    }

    /// A table that is calibrated, not trained.
    pub fn table(&mut self, shape: [usize; 2], value: f64) -> Param<Tensor<2>> {
        self.param(TensorData::new(vec![value as f32; shape.iter().product()], shape), false)
    }

    fn param<const D: usize>(&self, data: TensorData, trained: bool) -> Param<Tensor<D>> {
        let tensor = Tensor::from_data(data.convert_dtype(self.dtype), (self.device, self.dtype));
        let tensor = if trained && self.device.is_autodiff() { tensor.require_grad() } else { tensor };
        Param::initialized(ParamId::new(), tensor)
    }
}

impl Dense {
    /// `[rows, input]` to `[rows, output]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.bias {
            Some(bias) if fused::applies(&x) => fused::dense(x, self.weight.val(), bias.val()),
            Some(bias) => x.matmul(self.weight.val()).add(bias.val().unsqueeze()),
            None => x.matmul(self.weight.val()),
        }
    }
}

impl Norm {
    /// Identity scale, no offset.
    pub fn new(config: &ModelConfig, init: &mut Init<'_>) -> Self {
        let with_beta = config.norm == NormKind::Layer;
        Self {
            gamma: init.constant([config.width], 1.0),
            beta: with_beta.then(|| init.constant([config.width], 0.0)),
            epsilon: config.norm_epsilon,
            kind: config.norm,
        }
    }

    /// `[rows, width]` to the same; the variance goes to the probe as `site` of `layer`.
    pub fn forward(&self, x: Tensor<2>, site: Site, layer: usize, probe: &mut Probe) -> Tensor<2> {
        if let Some(beta) = self.beta.as_ref().filter(|_| fused::applies(&x) && !probe.wants(site)) {
            return fused::layer_norm(x, self.gamma.val(), beta.val(), self.epsilon);
        }
        let centred = match self.kind {
            NormKind::Layer => x.clone().sub(x.mean_dim(1)),
            NormKind::Rms => x,
        };
        let variance = centred.clone().mul(centred.clone()).mean_dim(1);
        if probe.active() {
            probe.watch(site, layer, &variance);
        }
        let shifted = variance.add_scalar(self.epsilon);
        let normed = match probe.substitute(site, layer, &shifted) {
            Some(inverse_root) => centred.mul(inverse_root),
            None => centred.div(shifted.sqrt()),
        };
        let y = normed.mul(self.gamma.val().unsqueeze());
        match &self.beta {
            Some(beta) => y.add(beta.val().unsqueeze()),
            None => y,
        }
    }
}

impl FeedForward {
    fn new(config: &ModelConfig, init: &mut Init<'_>) -> Self {
        let (d, f) = (config.width, config.feed_forward);
        Self {
            up: init.dense(d, f, config.bias, 1.0),
            gate: config.gated.then(|| init.dense(d, f, config.bias, 1.0)),
            down: init.dense(f, d, config.bias, 0.5),
            activation: config.activation,
        }
    }

    fn forward(&self, x: Tensor<2>, layer: usize, probe: &mut Probe) -> Tensor<2> {
        let mut activate = |x: Tensor<2>| {
            if probe.active() {
                probe.watch(Site::FeedForward, layer, &x);
            }
            if let Some(y) = probe.substitute(Site::FeedForward, layer, &x) {
                return y;
            }
            match self.activation {
                Activation::Gelu if fused::applies(&x) => fused::gelu(x),
                Activation::Gelu => gelu(x),
                Activation::Silu => silu(x),
            }
        };
        let inner = match &self.gate {
            Some(gate) => activate(gate.forward(x.clone())).mul(self.up.forward(x)),
            None => activate(self.up.forward(x)),
        };
        self.down.forward(inner)
    }
}

impl Block {
    /// Random weights.
    pub fn new(config: &ModelConfig, init: &mut Init<'_>) -> Self {
        Self {
            attention_norm: Norm::new(config, init),
            attention: Attention::new(config, init),
            feed_forward_norm: Norm::new(config, init),
            feed_forward: FeedForward::new(config, init),
            parallel: config.parallel_residual,
            post_norm: config.post_norm,
        }
    }

    /// `[batch * rows, width]` to the same shape.
    pub fn forward(&self, x: Tensor<2>, batch: usize, tables: &Tables, layer: usize, probe: &mut Probe) -> Tensor<2> {
        let (first, second) = (Site::AttentionNorm, Site::FeedForwardNorm);
        let out = if self.post_norm {
            let mixed = self.attention.forward(x.clone(), batch, tables, layer, probe);
            let x = self.attention_norm.forward(x.add(mixed), first, layer, probe);
            let fed = self.feed_forward.forward(x.clone(), layer, probe);
            self.feed_forward_norm.forward(x.add(fed), second, layer, probe)
        } else {
            let normed = self.attention_norm.forward(x.clone(), first, layer, probe);
            let mixed = self.attention.forward(normed, batch, tables, layer, probe);
            let middle = x.clone().add(mixed);
            let read = if self.parallel { x } else { middle.clone() };
            let normed = self.feed_forward_norm.forward(read, second, layer, probe);
            middle.add(self.feed_forward.forward(normed, layer, probe))
        };
        if probe.active() {
            probe.watch(Site::Hidden, layer, &out);
        }
        out
    }
}

/// A standard normal variate (Box and Muller).
fn gaussian(rng: &mut dyn Rng) -> f64 {
    let u: f64 = 1.0 - rng.random::<f64>();
    let v: f64 = rng.random();
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}
