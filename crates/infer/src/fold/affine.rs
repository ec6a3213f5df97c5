//! The model's linear maps, with everything that is constant folded into their weights.

use cipherlm_model::{Norm, Range};

use super::{Argument, Folded};
use crate::error::{InferError, Result};

/// A plain matrix with the bias that follows it.
pub(crate) struct Affine {
    /// `[in][out]`.
    pub(crate) weights: Vec<Vec<f64>>,
    /// One value per output column.
    pub(crate) bias: Vec<f64>,
}

/// Names one linear map of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Map {
    /// Hidden state to queries, keys and values, side by side in whole blocks.
    Qkv(usize),
    /// Heads back to the hidden state.
    Out(usize),
    /// Hidden state to the feed-forward layer (gate first, if there is one).
    Up(usize),
    /// Feed-forward layer to the hidden state.
    Down(usize),
    /// Hidden state to the vocabulary.
    Head,
    /// Hidden state to the argument of an encoder's pooling.
    Pool,
    /// Pooled state to the classes.
    Classifier,
}

impl Folded {
    /// Weights and bias of a map, in units of slots.
    pub(crate) fn affine(&self, map: Map) -> Result<Affine> {
        let shape = self.shape();
        match map {
            Map::Qkv(l) => self.qkv(l),
            Map::Out(l) => {
                let raw = self.linear(&format!("layers.{l}.attn.out"))?;
                let mut weights = vec![vec![]; self.geometry.blocks * self.geometry.features];
                for head in 0..shape.heads {
                    for f in 0..shape.head_dim {
                        weights[self.geometry.column(head, f)] =
                            raw.weights[head * shape.head_dim + f].clone();
                    }
                }
                weights.iter_mut().for_each(|row| row.resize(shape.d_model, 0.0));
                let from = self.units.layers[l].value;
                Ok(self.onto_stream(Affine { weights, bias: raw.bias }, from))
            }
            Map::Up(l) => {
                let units = self.units.layers[l];
                // A shared inverse root comes in the unit of the first norm; both have one range
                // then.
                let read = |part: &str, argument| {
                    let raw = self.linear(&format!("layers.{l}.ffn.{part}"))?;
                    self.onto_argument(raw, &norm_name(l, 2), units.norm2, argument)
                };
                if !shape.gated {
                    return read("up", units.activation);
                }
                let parts = vec![read("gate", units.activation)?, read("up", Argument::PLAIN)?];
                Ok(self.side_by_side(parts, self.geometry.ffn_blocks))
            }
            Map::Down(l) => {
                let raw = self.linear(&format!("layers.{l}.ffn.down"))?;
                Ok(self.onto_stream(raw, self.units.layers[l].activation.value))
            }
            Map::Head => {
                let raw = if shape.tied_head {
                    let table = self.values("embed.tokens")?;
                    let column = |i: usize| (0..shape.vocab).map(|t| table[t * shape.d_model + i]).collect();
                    Affine { weights: (0..shape.d_model).map(column).collect(), bias: vec![0.0; shape.vocab] }
                } else {
                    self.linear("head")?
                };
                self.after_norm(raw, "final_norm", self.units.final_norm, self.units.logits)
            }
            Map::Pool => {
                self.onto_argument(self.linear("pool")?, "final_norm", self.units.final_norm, self.units.pool)
            }
            Map::Classifier => {
                let mut raw = self.linear("classifier")?;
                let (from, to) = (self.units.pool.value, self.units.logits);
                raw.weights.iter_mut().flatten().for_each(|w| *w *= from / to);
                raw.bias.iter_mut().for_each(|b| *b /= to);
                Ok(raw)
            }
        }
    }

    fn qkv(&self, l: usize) -> Result<Affine> {
        let shape = self.shape();
        let units = self.units.layers[l];
        let parts = [("q", 1.0), ("k", 1.0), ("v", 2.0 * units.value)].map(|(part, unit)| {
            let raw = self.linear(&format!("layers.{l}.attn.{part}"))?;
            let raw = self.after_norm(raw, &norm_name(l, 1), units.norm1, unit)?;
            let spread = |row: &[f64]| {
                let mut out = vec![0.0; self.geometry.blocks * self.geometry.features];
                for (i, &value) in row.iter().enumerate() {
                    out[self.geometry.column(i / shape.head_dim, i % shape.head_dim)] = value;
                }
                out
            };
            Ok(Affine { weights: raw.weights.iter().map(|r| spread(r)).collect(), bias: spread(&raw.bias) })
        });
        let parts = parts.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(self.side_by_side(parts, self.geometry.blocks))
    }

    /// Joins outputs, each padded to whole blocks.
    fn side_by_side(&self, parts: Vec<Affine>, blocks: usize) -> Affine {
        let width = blocks * self.geometry.features;
        let rows = parts.first().map_or(0, |p| p.weights.len());
        let mut out = Affine { weights: vec![vec![]; rows], bias: vec![] };
        for part in parts {
            for (row, mut values) in out.weights.iter_mut().zip(part.weights) {
                values.resize(width, 0.0);
                row.extend(values);
            }
            let mut bias = part.bias;
            bias.resize(width, 0.0);
            out.bias.extend(bias);
        }
        out
    }

    /// Gains into rows, norm bias through the matrix into the bias, units of the stream and of the
    /// inverse root in, `unit` out.
    fn after_norm(&self, mut map: Affine, norm: &str, range: Range, unit: f64) -> Result<Affine> {
        let gain = self.values(&format!("{norm}.gain"))?;
        if let Some(shift) = self.model.weights().values(&format!("{norm}.bias")) {
            for (s, row) in shift.iter().zip(&map.weights) {
                map.bias.iter_mut().zip(row).for_each(|(b, w)| *b += s * w);
            }
        }
        let factor = self.units.hidden / (range.lo.sqrt() * unit);
        for (g, row) in gain.iter().zip(&mut map.weights) {
            row.iter_mut().for_each(|w| *w *= g * factor);
        }
        map.bias.iter_mut().for_each(|b| *b /= unit);
        Ok(map)
    }

    /// As [`Folded::after_norm`], onto the argument of a function.
    fn onto_argument(&self, map: Affine, norm: &str, range: Range, argument: Argument) -> Result<Affine> {
        let mut map = self.after_norm(map, norm, range, argument.half)?;
        map.bias.iter_mut().for_each(|b| *b -= argument.middle / argument.half);
        Ok(map)
    }

    fn onto_stream(&self, mut map: Affine, from: f64) -> Affine {
        let to = self.units.hidden;
        map.weights.iter_mut().flatten().for_each(|w| *w *= from / to);
        map.bias.iter_mut().for_each(|b| *b /= to);
        if self.shape().norm == Norm::LayerNorm {
            map.weights.iter_mut().for_each(|row| centre(row));
            centre(&mut map.bias);
        }
        map
    }

    /// Whether a map has rows or columns of zeros, hence fewer diagonals than others of its size.
    pub(crate) fn has_zeros(&self, map: Map) -> Result<bool> {
        let Affine { weights, .. } = self.affine(map)?;
        let shape = self.shape();
        let width = weights.first().map_or(0, Vec::len);
        let inputs = match map {
            Map::Out(_) => shape.attention_width(),
            _ => weights.len(),
        };
        let rows = weights.iter().filter(|row| row.iter().any(|w| *w != 0.0)).count();
        let columns = (0..width).filter(|&c| weights.iter().any(|row| row[c] != 0.0)).count();
        let outputs = match map {
            Map::Qkv(_) => 3 * shape.attention_width(),
            Map::Up(_) if shape.gated => 2 * shape.ffn,
            _ => width,
        };
        Ok(rows < inputs || columns < outputs)
    }

    fn linear(&self, name: &str) -> Result<Affine> {
        let weight = self.model.weights().tensor(&format!("{name}.weight"));
        let weight = weight.ok_or_else(|| missing(&format!("{name}.weight")))?;
        let weights: Vec<Vec<f64>> = weight.data.chunks_exact(weight.dims[1]).map(<[f64]>::to_vec).collect();
        let bias = self.model.weights().values(&format!("{name}.bias"));
        Ok(Affine { bias: bias.map_or_else(|| vec![0.0; weight.dims[1]], <[f64]>::to_vec), weights })
    }

    pub(super) fn values(&self, name: &str) -> Result<&[f64]> {
        self.model.weights().values(name).ok_or_else(|| missing(name))
    }
}

fn norm_name(layer: usize, index: usize) -> String {
    format!("layers.{layer}.norm{index}")
}

fn missing(name: &str) -> InferError {
    cipherlm_model::SpecError::MissingTensor { name: name.to_owned(), expected: vec![] }.into()
}

pub(super) fn centre(row: &mut [f64]) {
    let mean = row.iter().sum::<f64>() / row.len().max(1) as f64;
    row.iter_mut().for_each(|x| *x -= mean);
}
