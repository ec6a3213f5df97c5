//! Maps of rows: weights borrowed from a model, and the arithmetic of one row.

use crate::error::{Error, Result};
use crate::model::Model;
use crate::shape::{Norm, Pool, Rotary, Shape};
use crate::weights::Weights;

#[derive(Clone)]
pub(super) struct NormWeights<'m> {
    pub(super) gain: &'m [f64],
    pub(super) bias: Option<&'m [f64]>,
    pub(super) centred: bool,
    /// The constant inverse root of a frozen norm.
    root: Option<f64>,
}

impl<'m> NormWeights<'m> {
    pub(super) fn new(weights: &'m Weights, norm: Norm, name: &str) -> Result<Self> {
        Ok(Self {
            gain: values(weights, &format!("{name}.gain"))?,
            bias: weights.values(&format!("{name}.bias")),
            centred: norm == Norm::LayerNorm,
            root: weights.values(&format!("{name}.root")).and_then(|root| root.first().copied()),
        })
    }

    /// Rows times the constant inverse root of a frozen norm.
    pub(super) fn apply_frozen(&self, rows: &[f64]) -> Vec<f64> {
        self.scaled(rows, &self.means(rows), |_| self.root.unwrap_or(1.0))
    }

    /// Means of rows, of a norm that takes them off.
    fn means(&self, rows: &[f64]) -> Vec<f64> {
        let d = self.gain.len().max(1);
        let mean = |row: &[f64]| if self.centred { row.iter().sum::<f64>() / d as f64 } else { 0.0 };
        rows.chunks_exact(d).map(mean).collect()
    }

    /// Rows without their means, times a factor of each and the gain, plus the bias.
    fn scaled(&self, rows: &[f64], means: &[f64], factor: impl Fn(usize) -> f64) -> Vec<f64> {
        let d = self.gain.len().max(1);
        let mut out = Vec::with_capacity(rows.len());
        for (at, (row, mean)) in rows.chunks_exact(d).zip(means).enumerate() {
            let (factor, bias) = (factor(at), |i: usize| self.bias.map_or(0.0, |b| b[i]));
            out.extend(row.iter().enumerate().map(|(i, x)| (x - mean) * factor * self.gain[i] + bias(i)));
        }
        out
    }

    /// Normalises rows; `inv_sqrt` replaces the variance of each, `eps` included.
    pub(super) fn apply(
        &self,
        rows: &[f64],
        eps: f64,
        inv_sqrt: impl FnOnce(&mut [f64]) -> Result<()>,
    ) -> Result<Vec<f64>> {
        let (d, means) = (self.gain.len().max(1), self.means(rows));
        let variance = |(row, mean): (&[f64], &f64)| {
            row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / d as f64 + eps
        };
        let mut inverse: Vec<f64> = rows.chunks_exact(d).zip(&means).map(variance).collect();
        inv_sqrt(&mut inverse)?;
        Ok(self.scaled(rows, &means, |row| inverse[row]))
    }
}

/// `a x^2 + b x` by feature.
pub(super) fn quadratic(rows: &[f64], square: &[f64], linear: &[f64]) -> Vec<f64> {
    let channels = square.iter().zip(linear).cycle();
    rows.iter().zip(channels).map(|(x, (a, b))| (a * x + b) * x).collect()
}

/// Rows of the token embedding for tokens that stand from `start` on, plus learned positions if the
/// model has them.
pub(super) fn embed(
    weights: &Weights,
    d: usize,
    positions: bool,
    tokens: &[u32],
    start: usize,
) -> Result<Vec<f64>> {
    let table = values(weights, "embed.tokens")?;
    let mut out: Vec<f64> = tokens.iter().flat_map(|&t| &table[t as usize * d..][..d]).copied().collect();
    if positions {
        let table = values(weights, "embed.positions")?;
        out.iter_mut().zip(&table[start * d..]).for_each(|(x, p)| *x += p);
    }
    Ok(out)
}

/// `y = x W + b` over rows.
#[derive(Clone)]
pub(super) struct Linear<'m> {
    weight: &'m [f64],
    bias: Option<&'m [f64]>,
    rows: usize,
    cols: usize,
}

impl<'m> Linear<'m> {
    pub(super) fn new(model: &'m Model, name: &str) -> Result<Self> {
        let weight_name = format!("{name}.weight");
        let Some(weight) = model.weights().tensor(&weight_name) else {
            return Err(Error::MissingTensor { name: weight_name, expected: vec![] });
        };
        let (rows, cols) = (weight.dims[0], weight.dims[1]);
        Ok(Self { weight: &weight.data, bias: model.weights().values(&format!("{name}.bias")), rows, cols })
    }

    /// Applies the map to each row. A row's result does not depend on its neighbours, bit for bit.
    pub(super) fn apply(&self, x: &[f64]) -> Vec<f64> {
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

pub(super) fn tensor<'m>(model: &'m Model, name: &str) -> Result<&'m [f64]> {
    values(model.weights(), name)
}

fn values<'m>(weights: &'m Weights, name: &str) -> Result<&'m [f64]> {
    let missing = || Error::MissingTensor { name: name.to_owned(), expected: vec![] };
    weights.values(name).ok_or_else(missing)
}

/// Turns the rotary pairs of one row (all heads) by the angles of its position.
pub(super) fn rotate(row: &mut [f64], position: usize, shape: &Shape) {
    let Some(rotary) = shape.rotary else { return };
    let half = rotary.dims / 2;
    for head in row.chunks_exact_mut(shape.head_dim) {
        for j in 0..half {
            let (sin, cos) = rotary.angle(position, j).sin_cos();
            let (a, b) = (head[j], head[j + half]);
            head[j] = a * cos - b * sin;
            head[j + half] = b * cos + a * sin;
        }
    }
}

impl Pool {
    /// One vector of length 1 from rows of `width` values; rows that `valid` does not mark are
    /// padding. A text whose rows are all zero has the zero vector.
    pub fn vector(self, rows: &[f64], width: usize, valid: Option<&[bool]>) -> Vec<f64> {
        let counts = |i: usize| match self {
            Self::Mean => valid.is_none_or(|mask| mask[i]),
            Self::First => i == 0,
        };
        let mut out = vec![0.0; width];
        for (_, row) in rows.chunks_exact(width).enumerate().filter(|(i, _)| counts(*i)) {
            out.iter_mut().zip(row).for_each(|(a, b)| *a += b);
        }
        let norm = dot(&out, &out).sqrt();
        if norm > 0.0 {
            out.iter_mut().for_each(|x| *x /= norm);
        }
        out
    }
}

impl Rotary {
    /// Angle of pair `j` at a position.
    pub fn angle(&self, position: usize, j: usize) -> f64 {
        position as f64 * self.base.powf(-2.0 * j as f64 / self.dims as f64)
    }
}

pub(super) fn power(x: f64, p: u32) -> f64 {
    let square = x * x;
    (1..p / 2).fold(square, |acc, _| acc * square)
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    // Eight partial sums in a fixed order: vectorises, and is the same for every caller.
    let mut lanes = [0.0; 8];
    let (xs, x_rest) = a.as_chunks::<8>();
    let (ys, y_rest) = b.as_chunks::<8>();
    for (x, y) in xs.iter().zip(ys) {
        for i in 0..8 {
            lanes[i] += x[i] * y[i];
        }
    }
    let tail: f64 = x_rest.iter().zip(y_rest).map(|(x, y)| x * y).sum();
    lanes.iter().sum::<f64>() + tail
}
