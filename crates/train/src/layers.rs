//! Linear layers, normalisation, and where new parameters come from.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{DType, Device, Tensor, TensorData};
use cipherlm_model::{Norm as NormKind, Shape};
use rand::{Rng, RngExt};

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
    pub gain: Param<Tensor<1>>,
    /// Offset `[width]`; LayerNorm only.
    pub bias: Option<Param<Tensor<1>>>,
    /// Constant inverse root `[1]` of a frozen norm.
    pub root: Option<Param<Tensor<1>>>,
    epsilon: f64,
    #[module(skip)]
    kind: NormKind,
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
    pub fn table<const D: usize>(&mut self, shape: [usize; D], value: f64) -> Param<Tensor<D>> {
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
    /// Identity scale, no offset; `name` is that of the data model.
    pub fn new(name: &str, shape: &Shape, init: &mut Init<'_>) -> Self {
        let with_bias = shape.norm == NormKind::LayerNorm;
        Self {
            gain: init.constant([shape.d_model], 1.0),
            bias: with_bias.then(|| init.constant([shape.d_model], 0.0)),
            root: shape.freezes(name).then(|| init.table([1], 1.0)),
            epsilon: shape.norm_eps,
            kind: shape.norm,
        }
    }

    /// `[rows, width]` to the same; the variance goes to the probe as `site` of `layer`.
    pub fn forward(&self, x: Tensor<2>, site: Site, layer: usize, probe: &mut Probe) -> Tensor<2> {
        let fused = self.root.is_none() && fused::applies(&x) && !probe.wants(site);
        if let Some(bias) = self.bias.as_ref().filter(|_| fused) {
            return fused::layer_norm(x, self.gain.val(), bias.val(), self.epsilon);
        }
        let centred = match self.kind {
            NormKind::LayerNorm => x.clone().sub(x.mean_dim(1)),
            NormKind::RmsNorm => x,
        };
        // A frozen norm needs its variance for the probe alone.
        let variance = (self.root.is_none() || probe.wants(site))
            .then(|| centred.clone().mul(centred.clone()).mean_dim(1));
        if let Some(variance) = variance.as_ref().filter(|_| probe.active()) {
            probe.watch(site, layer, variance);
        }
        let normed = match (&self.root, variance) {
            (Some(root), _) => centred.mul(root.val().unsqueeze()),
            (None, None) => centred,
            (None, Some(variance)) => {
                let shifted = variance.add_scalar(self.epsilon);
                match probe.substitute(site, layer, &shifted, |x| x.sqrt().recip()) {
                    Some(inverse_root) => centred.mul(inverse_root),
                    None => centred.div(shifted.sqrt()),
                }
            }
        };
        let y = normed.mul(self.gain.val().unsqueeze());
        match &self.bias {
            Some(bias) => y.add(bias.val().unsqueeze()),
            None => y,
        }
    }
}

/// Mean of the kept rows of every sentence: `[batch * rows, width]` and `[batch, rows]` to
/// `[batch, width]`.
pub(crate) fn pooled(hidden: Tensor<2>, keep: Tensor<2>) -> Tensor<2> {
    let [batch, rows] = keep.dims();
    let width = hidden.dims()[1];
    let counts = keep.clone().sum_dim(1).clamp_min(1.0);
    let kept = hidden.reshape([batch, rows, width]).mul(keep.unsqueeze_dim(2));
    kept.sum_dim(1).reshape([batch, width]).div(counts)
}

/// A standard normal variate (Box and Muller).
pub(crate) fn gaussian(rng: &mut dyn Rng) -> f64 {
    let u: f64 = 1.0 - rng.random::<f64>();
    let v: f64 = rng.random();
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}
