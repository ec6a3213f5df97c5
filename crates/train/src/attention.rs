//! Multi-head attention with softmax, pointwise or PowerSoftmax weights, and rotary positions.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::activation::{gelu, softmax};
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::block::Dense;
use crate::config::{Attention as Kind, Epsilon, ModelConfig, Power};
use crate::fused::{self, Layout, Weights};
use crate::power_softmax::parts;
use crate::probe::{Probe, Site};

/// Constants of one forward pass, shared by all layers: mask, key counts, rotary tables.
#[derive(Debug, Clone)]
pub struct Tables {
    mask: Tensor<4>,
    counts: Tensor<4>,
    /// Additive mask, for softmax only: 0 where a key is seen, a large negative number where not.
    bias: Option<Tensor<4>>,
    rotary: Option<(Tensor<4>, Tensor<4>)>,
    /// The same for the training kernel, where it applies.
    layout: Option<Arc<Layout>>,
}

impl Tables {
    /// Tables for `batch` sequences of `rows` positions. `keep`, of shape `[batch, rows]`, is 1 for real tokens and 0
    /// for padding.
    pub fn new(
        config: &ModelConfig,
        batch: usize,
        rows: usize,
        keep: Option<Tensor<2>>,
        device: &Device,
        dtype: DType,
    ) -> Self {
        let layout = layout(config, batch, rows, keep.as_ref(), dtype);
        let seen = |row: usize, key: usize| if config.bidirectional || key <= row { 1.0f32 } else { 0.0 };
        let mask: Vec<f32> = (0..rows * rows).map(|at| seen(at / rows, at % rows)).collect();
        let mut mask: Tensor<4> = constant(mask, [1, 1, rows, rows], device, dtype);
        if let Some(keep) = keep {
            let [batch, _] = keep.dims();
            mask = mask.mul(keep.reshape([batch, 1, 1, rows]));
        }
        let counts = mask.clone().sum_dim(3).clamp_min(1.0);
        let softmax = matches!(config.attention, Kind::Softmax);
        let bias = softmax.then(|| mask.clone().sub_scalar(1.0).mul_scalar(1e9));
        Self { mask, counts, bias, rotary: rotary(config, rows, device, dtype), layout }
    }
}

/// One attention layer. Weights are `[width, width]`, input dimension first.
#[derive(Module, Debug)]
pub struct Attention {
    /// Query projection.
    pub query: Dense,
    /// Key projection.
    pub key: Dense,
    /// Value projection.
    pub value: Dense,
    /// Output projection.
    pub output: Dense,
    /// Frozen epsilons per head and row, in units of the row mean `[heads, context]`; present with PowerSoftmax.
    pub epsilon: Option<Param<Tensor<2>>>,
    heads: usize,
    #[module(skip)]
    kind: Kind,
}

impl Attention {
    /// Random weights.
    pub fn new(config: &ModelConfig, init: &mut crate::block::Init<'_>) -> Self {
        let d = config.width;
        let epsilon = match config.attention {
            Kind::Power(power) => {
                let value = match power.epsilon {
                    Epsilon::Absolute(value) => value,
                    _ => 1e-6,
                };
                Some(init.table([config.heads, config.context], value))
            }
            _ => None,
        };
        Self {
            query: init.dense(d, d, config.bias, 1.0),
            key: init.dense(d, d, config.bias, 1.0),
            value: init.dense(d, d, config.bias, 1.0),
            output: init.dense(d, d, config.bias, 0.5),
            epsilon,
            heads: config.heads,
            kind: config.attention,
        }
    }

    /// Replaces the operator, keeping all weights; adds an epsilon table where the new operator needs one.
    pub fn set_kind(&mut self, config: &ModelConfig, init: &mut crate::block::Init<'_>) {
        self.kind = config.attention;
        self.epsilon = match config.attention {
            Kind::Power(_) => {
                Some(self.epsilon.take().unwrap_or_else(|| init.table([config.heads, config.context], 1e-6)))
            }
            _ => None,
        };
    }

    /// Maps `[batch * rows, width]` to the same shape.
    pub fn forward(&self, x: Tensor<2>, batch: usize, tables: &Tables, layer: usize, probe: &mut Probe) -> Tensor<2> {
        let [tokens, width] = x.dims();
        let (rows, head) = (tokens / batch, width / self.heads);
        let observed = [Site::Scores, Site::RowMean, Site::RowRatio].iter().any(|&site| probe.wants(site));
        if let Some(layout) = tables.layout.as_ref().filter(|_| !observed) {
            let [q, k] = [&self.query, &self.key].map(|dense| dense.forward(x.clone()));
            let v = self.value.forward(x);
            return self.output.forward(fused::attention(q, k, v, layout.clone(), self.frozen()));
        }
        let split = |x: Tensor<2>| x.reshape([batch, rows, self.heads, head]).swap_dims(1, 2);
        let scale = 1.0 / (head as f64).sqrt();
        let q = rotate(split(self.query.forward(x.clone())), tables).mul_scalar(scale);
        let k = rotate(split(self.key.forward(x.clone())), tables);
        let v = split(self.value.forward(x));
        let scores = q.matmul(k.swap_dims(2, 3));
        let mixed = self.mix(scores, v, tables, layer, probe);
        self.output.forward(mixed.swap_dims(1, 2).reshape([tokens, width]))
    }

    /// The table of frozen epsilons on the host, empty where the operator has none.
    fn frozen(&self) -> Arc<Vec<f32>> {
        let frozen = matches!(self.kind, Kind::Power(power) if power.epsilon == Epsilon::Frozen);
        let table = self.epsilon.as_ref().filter(|_| frozen);
        Arc::new(table.map(|e| e.val().into_data().iter::<f32>().collect()).unwrap_or_default())
    }

    fn mix(&self, scores: Tensor<4>, v: Tensor<4>, tables: &Tables, layer: usize, probe: &mut Probe) -> Tensor<4> {
        match &self.kind {
            Kind::Softmax => {
                probe_scores(probe, layer, &scores, 0.0);
                let scores = match &tables.bias {
                    Some(bias) => scores.add(bias.clone()),
                    None => scores,
                };
                softmax(scores, 3).matmul(v)
            }
            Kind::Pointwise => {
                probe_scores(probe, layer, &scores, 0.0);
                let weights = gelu(scores).mul(tables.mask.clone());
                weights.matmul(v).div(tables.counts.clone().sqrt())
            }
            Kind::Power(power) => self.mix_power(power, scores, v, tables, layer, probe),
        }
    }

    fn mix_power(
        &self,
        power: &Power,
        scores: Tensor<4>,
        v: Tensor<4>,
        tables: &Tables,
        layer: usize,
        probe: &mut Probe,
    ) -> Tensor<4> {
        let [_, _, rows, _] = scores.dims();
        probe_scores(probe, layer, &scores, power.shift);
        let table = self.epsilon.as_ref().filter(|_| power.epsilon == Epsilon::Frozen).map(|e| e.val());
        let context = self.epsilon.as_ref().map_or(rows, |e| e.dims()[1]);
        let frozen = table.map(|e| e.slice([0..self.heads, 0..rows]).reshape([1, self.heads, rows, 1]));
        let unit = frozen.clone();
        let parts = parts(power, scores, tables.mask.clone(), tables.counts.clone(), frozen.clone());
        if probe.active() {
            probe.watch(Site::RowMean, layer, &parts.row_mean);
            probe.watch_rows(layer, context, &parts.row_mean);
            if let Some(frozen) = frozen {
                probe.watch(Site::RowRatio, layer, &parts.row_mean.clone().div(frozen));
            }
        }
        // One reciprocal per row, after the product with the values. Its polynomial is in units of the row's epsilon.
        let mixed = parts.numerator.matmul(v);
        let unit = match unit {
            Some(frozen) => tables.counts.clone().mul(frozen),
            None => tables.counts.clone(),
        };
        match probe.substitute(Site::RowRatio, layer, &parts.denominator.clone().div(unit.clone())) {
            Some(reciprocal) => mixed.mul(reciprocal.div(unit)),
            None => mixed.div(parts.denominator),
        }
    }

    /// Attention weights `[batch, heads, rows, keys]` of this layer, for figures.
    pub fn weights(&self, x: Tensor<2>, batch: usize, tables: &Tables) -> Tensor<4> {
        let [tokens, width] = x.dims();
        let (rows, head) = (tokens / batch, width / self.heads);
        let split = |x: Tensor<2>| x.reshape([batch, rows, self.heads, head]).swap_dims(1, 2);
        let eye = Tensor::<2>::eye(rows, &x.device())
            .cast(x.dtype())
            .reshape([1, 1, rows, rows])
            .expand([batch, self.heads, rows, rows]);
        let q = rotate(split(self.query.forward(x.clone())), tables).mul_scalar(1.0 / (head as f64).sqrt());
        let k = rotate(split(self.key.forward(x)), tables);
        self.mix(q.matmul(k.swap_dims(2, 3)), eye, tables, 0, &mut Probe::off())
    }
}

fn probe_scores(probe: &mut Probe, layer: usize, scores: &Tensor<4>, shift: f64) {
    if probe.active() {
        probe.watch(Site::Scores, layer, &scores.clone().add_scalar(shift));
    }
}

/// Rotates the leading dimensions of each head by its position (halves convention: dimension i pairs with i + r/2).
fn rotate(x: Tensor<4>, tables: &Tables) -> Tensor<4> {
    let Some((cos, sin)) = &tables.rotary else { return x };
    let [b, h, t, d] = x.dims();
    let half = cos.dims()[3];
    let first = x.clone().slice([0..b, 0..h, 0..t, 0..half]);
    let second = x.clone().slice([0..b, 0..h, 0..t, half..2 * half]);
    let a = first.clone().mul(cos.clone()).sub(second.clone().mul(sin.clone()));
    let c = second.mul(cos.clone()).add(first.mul(sin.clone()));
    if 2 * half == d {
        Tensor::cat(vec![a, c], 3)
    } else {
        Tensor::cat(vec![a, c, x.slice([0..b, 0..h, 0..t, 2 * half..d])], 3)
    }
}

/// What the training kernel needs of a forward pass; `None` where it does not apply.
fn layout(
    config: &ModelConfig,
    batch: usize,
    rows: usize,
    keep: Option<&Tensor<2>>,
    dtype: DType,
) -> Option<Arc<Layout>> {
    let weights = match config.attention {
        Kind::Softmax => Weights::Softmax,
        Kind::Power(power) => Weights::Power(power),
        Kind::Pointwise => return None,
    };
    (dtype == DType::F32).then(|| {
        Arc::new(Layout {
            batch,
            rows,
            heads: config.heads,
            head: config.head_width(),
            weights,
            causal: !config.bidirectional,
            keep: keep.map(|keep| keep.clone().into_data().iter::<f32>().collect()),
            rotary: angles(config, rows).map(|a| (a.cos() as f32, a.sin() as f32)).collect(),
            half: config.rotary / 2,
        })
    })
}

/// Angles `[rows, rotary / 2]` of the rotated pairs.
fn angles(config: &ModelConfig, rows: usize) -> impl Iterator<Item = f64> {
    let (half, base) = (config.rotary / 2, config.rotary_base);
    (0..rows * half).map(move |at| (at / half) as f64 * base.powf(-((at % half) as f64) / half as f64))
}

/// Cosines and sines `[1, 1, rows, rotary / 2]`.
fn rotary(config: &ModelConfig, rows: usize, device: &Device, dtype: DType) -> Option<(Tensor<4>, Tensor<4>)> {
    let half = config.rotary / 2;
    if half == 0 {
        return None;
    }
    let table = |f: fn(f64) -> f64| {
        let data: Vec<f64> = angles(config, rows).map(f).collect();
        Tensor::from_data(TensorData::new(data, [1, 1, rows, half]).convert_dtype(dtype), (device, dtype))
    };
    Some((table(f64::cos), table(f64::sin)))
}

fn constant<const D: usize>(data: Vec<f32>, shape: [usize; D], device: &Device, dtype: DType) -> Tensor<D> {
    Tensor::from_data(TensorData::new(data, shape).convert_dtype(dtype), (device, dtype))
}
