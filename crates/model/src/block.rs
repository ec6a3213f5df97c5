//! Borrowed weights of one block, and the linear map.

use crate::error::{Result, SpecError};
use crate::model::Model;
use crate::shape::{Attention, Eps, Norm};

#[derive(Clone)]
pub(crate) struct Layer<'m> {
    pub(crate) norm1: NormWeights<'m>,
    pub(crate) q: Linear<'m>,
    pub(crate) k: Linear<'m>,
    pub(crate) v: Linear<'m>,
    pub(crate) out: Linear<'m>,
    pub(crate) eps: &'m [f64],
    pub(crate) norm2: NormWeights<'m>,
    pub(crate) gate: Option<Linear<'m>>,
    pub(crate) up: Linear<'m>,
    pub(crate) down: Linear<'m>,
}

impl<'m> Layer<'m> {
    pub(crate) fn new(model: &'m Model, l: usize) -> Result<Self> {
        let shape = model.shape();
        let linear = |part: &str| Linear::new(model, &format!("layers.{l}.{part}"));
        let eps = match shape.attention {
            Attention::PowerSoftmax { eps: Eps::Frozen, .. } => tensor(model, &format!("layers.{l}.attn.eps"))?,
            _ => &[],
        };
        Ok(Self {
            norm1: NormWeights::new(model, &format!("layers.{l}.norm1"))?,
            q: linear("attn.q")?,
            k: linear("attn.k")?,
            v: linear("attn.v")?,
            out: linear("attn.out")?,
            eps,
            norm2: NormWeights::new(model, &format!("layers.{l}.norm2"))?,
            gate: if shape.gated { Some(linear("ffn.gate")?) } else { None },
            up: linear("ffn.up")?,
            down: linear("ffn.down")?,
        })
    }
}

#[derive(Clone)]
pub(crate) struct NormWeights<'m> {
    pub(crate) gain: &'m [f64],
    pub(crate) bias: Option<&'m [f64]>,
    pub(crate) centred: bool,
}

impl<'m> NormWeights<'m> {
    pub(crate) fn new(model: &'m Model, name: &str) -> Result<Self> {
        Ok(Self {
            gain: tensor(model, &format!("{name}.gain"))?,
            bias: model.weights().values(&format!("{name}.bias")),
            centred: model.shape().norm == Norm::LayerNorm,
        })
    }
}

/// `y = x W + b` over rows.
#[derive(Clone)]
pub(crate) struct Linear<'m> {
    weight: &'m [f64],
    bias: Option<&'m [f64]>,
    rows: usize,
    cols: usize,
}

impl<'m> Linear<'m> {
    pub(crate) fn new(model: &'m Model, name: &str) -> Result<Self> {
        let weight_name = format!("{name}.weight");
        let Some(weight) = model.weights().tensor(&weight_name) else {
            return Err(SpecError::MissingTensor { name: weight_name, expected: vec![] });
        };
        let (rows, cols) = (weight.dims[0], weight.dims[1]);
        Ok(Self { weight: &weight.data, bias: model.weights().values(&format!("{name}.bias")), rows, cols })
    }

    /// Applies the map to each row. A row's result does not depend on its neighbours, bit for bit.
    pub(crate) fn apply(&self, x: &[f64]) -> Vec<f64> {
        const BLOCK: usize = 8;
        let count = x.len() / self.rows;
        let mut out = vec![0.0; count * self.cols];
        for (xs, ys) in x.chunks(BLOCK * self.rows).zip(out.chunks_mut(BLOCK * self.cols)) {
            for i in 0..self.rows {
                let w = &self.weight[i * self.cols..(i + 1) * self.cols];
                for (x, y) in xs.chunks_exact(self.rows).zip(ys.chunks_exact_mut(self.cols)) {
                    let factor = x[i];
                    y.iter_mut().zip(w).for_each(|(y, w)| *y += factor * w);
                }
            }
        }
        if let Some(bias) = self.bias {
            out.chunks_exact_mut(self.cols).for_each(|y| y.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
        }
        out
    }
}

pub(crate) fn tensor<'m>(model: &'m Model, name: &str) -> Result<&'m [f64]> {
    let missing = || SpecError::MissingTensor { name: name.to_owned(), expected: vec![] };
    model.weights().values(name).ok_or_else(missing)
}
