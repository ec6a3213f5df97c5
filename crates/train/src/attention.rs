//! Multi-head attention with softmax, pointwise or PowerSoftmax weights, and rotary positions.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::activation::{gelu, softmax};
use burn::tensor::{DType, Device, Tensor, TensorData};

use cipherlm_model::{Eps, Shape};

use crate::arch::{Arch, Form, Operator, Power};
use crate::fused::{self, Layout};
use crate::layers::{Dense, Init};
use crate::power_softmax::parts;
use crate::probe::{Probe, Site, scalar};

/// Least part of a row that epsilon has to have for its mean to be read from the rest.
const LEAST_REST: f64 = 1e-4;

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
    /// Tables for `batch` sequences of `rows` positions. `keep`, of shape `[batch, rows]`, is 1 for
    /// real tokens and 0 for padding.
    pub fn new(
        arch: &Arch,
        batch: usize,
        rows: usize,
        keep: Option<Tensor<2>>,
        device: &Device,
        dtype: DType,
    ) -> Self {
        let layout = layout(arch, batch, rows, keep.as_ref(), dtype);
        let causal = arch.causal();
        let seen = |row: usize, key: usize| if !causal || key <= row { 1.0f32 } else { 0.0 };
        let mask: Vec<f32> = (0..rows * rows).map(|at| seen(at / rows, at % rows)).collect();
        let mut mask: Tensor<4> = constant(mask, [1, 1, rows, rows], device, dtype);
        if let Some(keep) = keep {
            let [batch, _] = keep.dims();
            mask = mask.mul(keep.reshape([batch, 1, 1, rows]));
        }
        let counts = mask.clone().sum_dim(3).clamp_min(1.0);
        let softmax = arch.operator() == Operator::Softmax;
        let bias = softmax.then(|| mask.clone().sub_scalar(1.0).mul_scalar(1e9));
        Self { mask, counts, bias, rotary: rotary(&arch.shape, rows, device, dtype), layout }
    }
}

/// One attention layer. Weights are `[width, heads * head_dim]` and back, input dimension first.
#[derive(Module, Debug)]
pub struct Attention {
    /// Query projection.
    pub q: Dense,
    /// Key projection.
    pub k: Dense,
    /// Value projection.
    pub v: Dense,
    /// Output projection.
    pub out: Dense,
    /// Frozen epsilons per head and row, in units of the row mean `[heads, context]`; present where
    /// the operator reads them.
    pub eps: Option<Param<Tensor<2>>>,
    heads: usize,
    head: usize,
    #[module(skip)]
    operator: Operator,
}

impl Attention {
    /// Random weights.
    pub fn new(arch: &Arch, init: &mut Init<'_>) -> Self {
        let shape = &arch.shape;
        let (d, width) = (shape.d_model, shape.attention_width());
        Self {
            q: init.dense(d, width, shape.bias, 1.0),
            k: init.dense(d, width, shape.bias, 1.0),
            v: init.dense(d, width, shape.bias, 1.0),
            out: init.dense(width, d, shape.bias, 0.5),
            eps: arch.frozen().then(|| init.table([shape.heads, shape.context], 1e-6)),
            heads: shape.heads,
            head: shape.head_dim,
            operator: arch.operator(),
        }
    }

    /// Maps `[batch * rows, width]` to the same shape.
    pub fn forward(
        &self,
        x: Tensor<2>,
        batch: usize,
        tables: &Tables,
        layer: usize,
        probe: &mut Probe,
    ) -> Tensor<2> {
        let kernel = tables.layout.as_ref().filter(|_| !self.composed(probe)).and_then(|layout| {
            let projected = [&self.q, &self.k, &self.v].map(|dense| dense.forward(x.clone()));
            self.weigh(projected, layout, layer, probe)
        });
        let joined = kernel.unwrap_or_else(|| {
            let tokens = x.dims()[0];
            let v = self.split(self.v.forward(x.clone()), batch);
            let scores = self.scores(x.clone(), batch, tables);
            let mixed = self.mix(scores, v, tables, layer, probe);
            mixed.swap_dims(1, 2).reshape([tokens, self.heads * self.head])
        });
        let out = self.out.forward(joined);
        probe.keep_attention(&x, &out);
        out
    }

    /// Whether the probe asks for what the training kernel does not tell. Of rows it tells how many
    /// epsilons their mean is, in the mean form and for epsilons that the scores do not change.
    fn composed(&self, probe: &Probe) -> bool {
        let rows = [Site::RowMean, Site::RowRatio].iter().any(|&site| probe.wants(site));
        let told = match self.operator {
            Operator::Power(Power { eps: Eps::Frozen, .. }) => matches!(probe.row_limits(), Some([None, _])),
            Operator::Power(Power { eps: Eps::Absolute { .. }, form: Form::Mean, .. }) => {
                probe.row_limits().is_some()
            }
            _ => false,
        };
        probe.wants(Site::Scores) || (rows && !told)
    }

    /// The kernel, and what the probe limits of row means. For the latter every head gets a feature
    /// more that is zero in queries and keys and one in the values: where the row mean is `r`
    /// epsilons, its output is `r / (1 + r)`. `None`, and nothing reported, where a mean is so
    /// large that this says little of it in f32: then the composed operators tell it.
    fn weigh(
        &self,
        [q, k, v]: [Tensor<2>; 3],
        layout: &Arc<Layout>,
        layer: usize,
        probe: &mut Probe,
    ) -> Option<Tensor<2>> {
        let limits = probe.row_limits().unwrap_or_default();
        let power = match self.operator {
            Operator::Power(power) if limits != [None, None] => power,
            _ => return Some(fused::attention(q, k, v, layout.clone(), self.frozen())),
        };
        let ([tokens, _], heads, head) = (q.dims(), self.heads, self.head);
        let ones = Tensor::<3>::ones([tokens, heads, 1], (&q.device(), q.dtype()));
        let wider = |x: Tensor<2>, last: f64| {
            let last = ones.clone().mul_scalar(last);
            Tensor::cat(vec![x.reshape([tokens, heads, head]), last], 2).reshape([tokens, heads * (head + 1)])
        };
        // The kernel divides scores by the root of its heads' width.
        let q = wider(q.mul_scalar(((head + 1) as f64 / head as f64).sqrt()), 0.0);
        let layout = Arc::new(Layout { head: head + 1, ..layout.as_ref().clone() });
        let out = fused::attention(q, wider(k, 0.0), wider(v, 1.0), layout, self.frozen());
        let out = out.reshape([tokens, heads, head + 1]);
        let part = probe.of_texts(out.clone().slice([0..tokens, 0..heads, head..head + 1]));
        let nearest = scalar(part.clone().max());
        if nearest.is_nan() || nearest > 1.0 - LEAST_REST {
            return None;
        }
        let ratio = part.clone().div(part.neg().add_scalar(1.0));
        match power.eps {
            Eps::Frozen => probe.report(Site::RowRatio, layer, &ratio),
            Eps::Absolute { value } => probe.report(Site::RowMean, layer, &ratio.mul_scalar(value)),
            Eps::Relative { .. } => {}
        }
        Some(out.slice([0..tokens, 0..heads, 0..head]).reshape([tokens, heads * head]))
    }

    /// `[batch * rows, heads * head]` to `[batch, heads, rows, head]`.
    fn split(&self, x: Tensor<2>, batch: usize) -> Tensor<4> {
        let rows = x.dims()[0] / batch;
        x.reshape([batch, rows, self.heads, self.head]).swap_dims(1, 2)
    }

    /// Scores `[batch, heads, rows, keys]`, before any shift.
    fn scores(&self, x: Tensor<2>, batch: usize, tables: &Tables) -> Tensor<4> {
        let scale = 1.0 / (self.head as f64).sqrt();
        let q = rotate(self.split(self.q.forward(x.clone()), batch), tables).mul_scalar(scale);
        let k = rotate(self.split(self.k.forward(x), batch), tables);
        q.matmul(k.swap_dims(2, 3))
    }

    /// The table of frozen epsilons on the host, empty where the operator has none.
    fn frozen(&self) -> Arc<Vec<f32>> {
        Arc::new(self.eps.as_ref().map(|e| e.val().into_data().iter::<f32>().collect()).unwrap_or_default())
    }

    fn mix(
        &self,
        scores: Tensor<4>,
        v: Tensor<4>,
        tables: &Tables,
        layer: usize,
        probe: &mut Probe,
    ) -> Tensor<4> {
        match &self.operator {
            Operator::Softmax => {
                probe_scores(probe, layer, &scores, 0.0);
                let scores = match &tables.bias {
                    Some(bias) => scores.add(bias.clone()),
                    None => scores,
                };
                softmax(scores, 3).matmul(v)
            }
            Operator::Pointwise { exponent } => {
                probe_scores(probe, layer, &scores, 0.0);
                let weights = gelu(scores).mul(tables.mask.clone());
                weights.matmul(v).div(tables.counts.clone().powf_scalar(*exponent))
            }
            Operator::Power(power) => self.mix_power(power, scores, v, tables, layer, probe),
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
        probe_scores(probe, layer, &scores, power.c);
        let table = self.eps.as_ref().filter(|_| power.eps == Eps::Frozen).map(|e| e.val());
        let frozen = table.map(|e| e.slice([0..self.heads, 0..rows]).reshape([1, self.heads, rows, 1]));
        let unit = frozen.clone();
        let parts = parts(power, scores, tables.mask.clone(), tables.counts.clone(), frozen.clone());
        probe.watch(Site::RowMean, layer, &parts.row_mean);
        if let Some(frozen) = frozen.filter(|_| probe.active()) {
            probe.watch(Site::RowRatio, layer, &parts.row_mean.clone().div(frozen));
        }
        // One reciprocal per row, after the product with the values. Its polynomial is in units of
        // the row's epsilon.
        let mixed = parts.numerator.matmul(v);
        let unit = match unit {
            Some(frozen) => tables.counts.clone().mul(frozen),
            None => tables.counts.clone(),
        };
        let ratio = parts.denominator.clone().div(unit.clone());
        match probe.substitute(Site::RowRatio, layer, &ratio, Tensor::recip) {
            Some(reciprocal) => mixed.mul(reciprocal.div(unit)),
            None => mixed.div(parts.denominator),
        }
    }

    /// Attention weights `[batch, heads, rows, keys]` of this layer, for figures.
    pub fn weights(&self, x: Tensor<2>, batch: usize, tables: &Tables) -> Tensor<4> {
        let rows = x.dims()[0] / batch;
        let eye = Tensor::<2>::eye(rows, &x.device())
            .cast(x.dtype())
            .reshape([1, 1, rows, rows])
            .expand([batch, self.heads, rows, rows]);
        self.mix(self.scores(x, batch, tables), eye, tables, 0, &mut Probe::off())
    }
}

fn probe_scores(probe: &mut Probe, layer: usize, scores: &Tensor<4>, shift: f64) {
    if probe.active() {
        probe.watch(Site::Scores, layer, &scores.clone().add_scalar(shift));
    }
}

/// Rotates the leading dimensions of each head by its position (halves convention: dimension i
/// pairs with i + r/2).
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
    arch: &Arch,
    batch: usize,
    rows: usize,
    keep: Option<&Tensor<2>>,
    dtype: DType,
) -> Option<Arc<Layout>> {
    let operator = arch.operator();
    if dtype != DType::F32 || matches!(operator, Operator::Pointwise { .. }) {
        return None;
    }
    let shape = &arch.shape;
    Some(Arc::new(Layout {
        batch,
        rows,
        heads: shape.heads,
        head: shape.head_dim,
        operator,
        causal: arch.causal(),
        keep: keep.map(|keep| keep.clone().into_data().iter::<f32>().collect()),
        rotary: angles(shape, rows).map(|a| (a.cos() as f32, a.sin() as f32)).collect(),
        half: shape.rotary.map_or(0, |r| r.dims / 2),
    }))
}

/// Angles `[rows, rotated pairs]`.
fn angles(shape: &Shape, rows: usize) -> impl Iterator<Item = f64> {
    let pairs = |r: cipherlm_model::Rotary| {
        (0..rows).flat_map(move |row| (0..r.dims / 2).map(move |j| r.angle(row, j)))
    };
    shape.rotary.map(pairs).into_iter().flatten()
}

/// Cosines and sines `[1, 1, rows, rotated pairs]`.
fn rotary(shape: &Shape, rows: usize, device: &Device, dtype: DType) -> Option<(Tensor<4>, Tensor<4>)> {
    let half = shape.rotary?.dims / 2;
    let table = |f: fn(f64) -> f64| {
        let data: Vec<f64> = angles(shape, rows).map(f).collect();
        Tensor::from_data(TensorData::new(data, [1, 1, rows, half]).convert_dtype(dtype), (device, dtype))
    };
    Some((table(f64::cos), table(f64::sin)))
}

fn constant<const D: usize>(data: Vec<f32>, shape: [usize; D], device: &Device, dtype: DType) -> Tensor<D> {
    Tensor::from_data(TensorData::new(data, shape).convert_dtype(dtype), (device, dtype))
}
