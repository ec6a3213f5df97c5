//! The model's linear maps, with everything that is constant folded into their weights.

use cipherlm_circuits::linear::LinearTransform;
use cipherlm_circuits::slots::Plain;
use cipherlm_model::Placement;

use super::Folded;
use super::extend::extend;
use super::units::{Argument, NormId};
use crate::error::{At, Error, Result};

/// Plaintext products that must be saved: more than the mask, its rescale and the rotation cost.
const LEAST: usize = 64;

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
    /// Pooled row to the scores of an index's documents, then to itself.
    Scores,
    /// No matrix: the rows that a norm gives back, which have a bias.
    Norm(NormId),
}

impl Folded {
    /// The embedded rows as the client encrypts them.
    pub(crate) fn enter_stream(&self, rows: &mut [f64]) {
        enter_stream(rows, self.shape().d_model, self.centred(), self.units.entry);
    }

    /// The transform of a map and its bias, one plaintext per output vector.
    pub(crate) fn transform(&self, map: Map) -> Result<(LinearTransform, Vec<Plain>)> {
        let affine = self.affine(map)?;
        if let (Map::Head | Map::Scores, Some(wide)) = (map, self.wide) {
            return self.wide_transform(&affine, wide);
        }
        let layout = self.geometry.layout()?;
        let extended = self.extends(map).then(|| extend(&affine.weights, self.geometry.features));
        let transform = layout.matmul(extended.as_ref().unwrap_or(&affine.weights)).at("weights")?;
        Ok((transform, layout.every_token(&affine.bias)))
    }

    /// Whether a map reads extended rows. That takes a level, which maps have to spare that are
    /// multiplied by an inverse root.
    pub(crate) fn extends(&self, map: Map) -> bool {
        let g = self.geometry;
        let outputs = match map {
            Map::Qkv(_) => 3 * g.blocks,
            Map::Up(_) => g.ffn_blocks * (1 + usize::from(self.shape().gated)),
            _ => return false,
        };
        let multiplied = self.norm_before(map).is_some_and(|norm| !self.is_frozen(norm));
        // Half of the diagonals are saved by joining already.
        multiplied && g.blocks == 1 && self.tail() * outputs / 2 >= LEAST
    }

    /// The bias of a map alone.
    pub(crate) fn bias(&self, map: Map) -> Result<Vec<Plain>> {
        let bias = match map {
            Map::Norm(norm) => self.norm_bias(norm)?,
            map => self.affine(map)?.bias,
        };
        match (map, self.wide) {
            (Map::Head | Map::Scores, Some(wide)) => Ok(wide.plains(&bias)),
            _ => Ok(self.geometry.layout()?.every_token(&bias)),
        }
    }

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
                let units = self.units.layers[l];
                Ok(self.onto_stream(Affine { weights, bias: raw.bias }, units.value, units.mid))
            }
            Map::Up(l) => {
                let units = self.units.layers[l];
                // A shared inverse root comes in the unit of the first norm; both have one range
                // then.
                let read = |part: &str, argument| {
                    let raw = self.linear(&format!("layers.{l}.ffn.{part}"))?;
                    self.onto_argument(raw, self.norm_before(map), argument)
                };
                let activated = |part| -> Result<Affine> {
                    let mut map = read(part, units.activation)?;
                    self.before_quadratics(l, &mut map)?;
                    Ok(map)
                };
                let parts = match shape.gated {
                    true => vec![activated("gate")?, read("up", Argument::plain(units.gate))?],
                    false => vec![activated("up")?],
                };
                let parts = parts.into_iter().map(|part| self.in_blocks(part)).collect();
                Ok(self.side_by_side(parts, self.geometry.ffn_blocks))
            }
            Map::Down(l) => {
                let mut raw = self.linear(&format!("layers.{l}.ffn.down"))?;
                let units = self.units.layers[l];
                let gate = if shape.gated { units.gate } else { 1.0 };
                self.behind_quadratics(l, &mut raw)?;
                let mut down = self.onto_stream(raw, units.activation.value * gate, units.hidden);
                down.weights = self.over_blocks(down.weights, vec![0.0; shape.d_model]);
                Ok(down)
            }
            Map::Head => {
                let raw = if shape.tied_head {
                    let table = self.values("embed.tokens")?;
                    let column = |i: usize| (0..shape.vocab).map(|t| table[t * shape.d_model + i]).collect();
                    Affine { weights: (0..shape.d_model).map(column).collect(), bias: vec![0.0; shape.vocab] }
                } else {
                    self.linear("head")?
                };
                self.after_norm(raw, self.norm_before(map), self.units.logits)
            }
            Map::Pool => self.onto_argument(self.linear("pool")?, self.norm_before(map), self.units.pool),
            Map::Classifier => {
                let mut raw = self.linear("classifier")?;
                let (from, to) = (self.units.pool.value, self.units.logits);
                raw.weights.iter_mut().flatten().for_each(|w| *w *= from / to);
                raw.bias.iter_mut().for_each(|b| *b /= to);
                Ok(raw)
            }
            Map::Scores => Ok(self.scores()),
            Map::Norm(norm) => Ok(Affine { weights: vec![], bias: self.norm_bias(norm)? }),
        }
    }

    /// The norm whose rows a map reads; `None` for embedded rows that come normalised.
    pub(crate) fn norm_before(&self, map: Map) -> Option<NormId> {
        let (post, layers) = (self.shape().placement == Placement::Post, self.shape().layers);
        match (map, post) {
            (Map::Qkv(l), false) => Some(NormId::First(l)),
            (Map::Qkv(l), true) => l.checked_sub(1).map(NormId::Second),
            (Map::Up(l), false) => Some(NormId::Second(l)),
            (Map::Up(l), true) => Some(NormId::First(l)),
            (Map::Head | Map::Pool, false) => Some(NormId::Final),
            (Map::Head | Map::Pool, true) => layers.checked_sub(1).map(NormId::Second),
            (Map::Out(_) | Map::Down(_) | Map::Classifier | Map::Scores | Map::Norm(_), _) => None,
        }
    }

    /// Bias of the rows that a norm gives back.
    pub(super) fn norm_bias(&self, norm: NormId) -> Result<Vec<f64>> {
        let (_, unit) = self.norm_units(norm);
        let bias = self.model.weights().values(&format!("{}.bias", norm.name())).unwrap_or_default();
        let mut row: Vec<f64> = bias.iter().map(|b| b / unit).collect();
        row.resize(self.shape().d_model, 0.0);
        Ok(row)
    }

    fn scores(&self) -> Affine {
        let (width, factor) = (self.shape().d_model, self.units.logits / self.result_unit());
        let documents = || self.index.iter().flat_map(|index| index.rows());
        let column = |feature: usize| {
            let itself = (0..width).map(|other| f64::from(u8::from(other == feature)));
            documents().map(|row| row[feature]).chain(itself).map(|x| x * factor).collect()
        };
        Affine { weights: (0..width).map(column).collect(), bias: vec![0.0; self.results()] }
    }

    fn qkv(&self, l: usize) -> Result<Affine> {
        let shape = self.shape();
        let units = self.units.layers[l];
        let parts = [("q", 1.0), ("k", 1.0), ("v", 2.0 * units.value)].map(|(part, unit)| {
            let raw = self.linear(&format!("layers.{l}.attn.{part}"))?;
            let raw = self.after_norm(raw, self.norm_before(Map::Qkv(l)), unit)?;
            // Every query head finds the keys and values that it shares in its own columns.
            let shared = if part == "q" { 1 } else { shape.heads / shape.key_heads() };
            let spread = |row: &[f64]| {
                let mut out = vec![0.0; self.geometry.blocks * self.geometry.features];
                for head in 0..shape.heads {
                    for feature in 0..shape.head_dim {
                        out[self.geometry.column(head, feature)] =
                            row[head / shared * shape.head_dim + feature];
                    }
                }
                out
            };
            Ok(Affine { weights: raw.weights.iter().map(|r| spread(r)).collect(), bias: spread(&raw.bias) })
        });
        let parts = parts.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(self.side_by_side(parts, self.geometry.blocks))
    }

    /// Outputs of the feed-forward layer where its blocks have them.
    fn in_blocks(&self, part: Affine) -> Affine {
        let spread = |row| self.over_blocks(row, 0.0);
        Affine { weights: part.weights.into_iter().map(spread).collect(), bias: spread(part.bias) }
    }

    /// What belongs to each feature of the feed-forward layer, in its column.
    pub(super) fn over_blocks<T: Clone>(&self, features: Vec<T>, nothing: T) -> Vec<T> {
        let mut out = vec![nothing; self.geometry.ffn_blocks * self.geometry.features];
        for (feature, own) in features.into_iter().enumerate() {
            out[self.geometry.ffn_column(feature)] = own;
        }
        out
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

    /// Columns of the map before a quadratic activation, in the units of its squares instead of
    /// those of the argument.
    fn before_quadratics(&self, l: usize, map: &mut Affine) -> Result<()> {
        let unit = self.units.layers[l].activation.half;
        for (column, channel) in self.quadratics(l)?.iter().enumerate() {
            let factor = channel.argument * unit;
            map.weights.iter_mut().for_each(|row| row[column] *= factor);
            map.bias[column] *= factor;
        }
        Ok(())
    }

    /// Rows of the map behind a quadratic activation: from the values of its squares, in units of
    /// the activation.
    fn behind_quadratics(&self, l: usize, map: &mut Affine) -> Result<()> {
        let unit = self.units.layers[l].activation.value;
        for (row, channel) in map.weights.iter_mut().zip(self.quadratics(l)?) {
            row.iter_mut().for_each(|w| *w *= channel.value / unit);
        }
        Ok(())
    }

    /// Gains into rows, norm bias through the matrix into the bias, a mean of the rows out, units
    /// of the stream and of the inverse root in, `unit` out.
    fn after_norm(&self, mut map: Affine, norm: Option<NormId>, unit: f64) -> Result<Affine> {
        if let Some(norm) = norm {
            let name = norm.name();
            let gain = self.values(&format!("{name}.gain"))?;
            if let Some(shift) = self.model.weights().values(&format!("{name}.bias")) {
                for (s, row) in shift.iter().zip(&map.weights) {
                    map.bias.iter_mut().zip(row).for_each(|(b, w)| *b += s * w);
                }
            }
            let factor = self.norm_units(norm).0 / (self.deviation_unit(norm)? * unit);
            for (g, row) in gain.iter().zip(&mut map.weights) {
                row.iter_mut().for_each(|w| *w *= g * factor);
            }
            if self.has_mean() {
                centre_columns(&mut map.weights);
            }
        } else {
            map.weights.iter_mut().flatten().for_each(|w| *w *= self.units.entry / unit);
        }
        map.bias.iter_mut().for_each(|b| *b /= unit);
        Ok(map)
    }

    /// As [`Folded::after_norm`], onto the argument of a function.
    fn onto_argument(&self, map: Affine, norm: Option<NormId>, argument: Argument) -> Result<Affine> {
        let mut map = self.after_norm(map, norm, argument.half)?;
        map.bias.iter_mut().for_each(|b| *b -= argument.middle / argument.half);
        Ok(map)
    }

    fn onto_stream(&self, mut map: Affine, from: f64, to: f64) -> Affine {
        map.weights.iter_mut().flatten().for_each(|w| *w *= from / to);
        map.bias.iter_mut().for_each(|b| *b /= to);
        if self.centred() {
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
            Map::Down(_) => shape.ffn,
            _ => weights.len(),
        };
        let rows = weights.iter().filter(|row| row.iter().any(|w| *w != 0.0)).count();
        let columns = (0..width).filter(|&c| weights.iter().any(|row| row[c] != 0.0)).count();
        let outputs = match map {
            Map::Qkv(_) => 3 * shape.attention_width(),
            Map::Up(_) if shape.gated => 2 * shape.ffn,
            Map::Up(_) => shape.ffn,
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

fn missing(name: &str) -> Error {
    cipherlm_model::Error::MissingTensor { name: name.to_owned(), expected: vec![] }.into()
}

/// Takes the mean over the inputs off every column: what a map makes of rows without their mean.
fn centre_columns(weights: &mut [Vec<f64>]) {
    let count = weights.len().max(1) as f64;
    let mut means = vec![0.0; weights.first().map_or(0, Vec::len)];
    weights.iter().for_each(|row| means.iter_mut().zip(row).for_each(|(m, w)| *m += w / count));
    weights.iter_mut().for_each(|row| row.iter_mut().zip(&means).for_each(|(w, m)| *w -= m));
}

/// Embedded rows as they are encrypted: centred where every map into the stream is, in units of the
/// stream.
pub(crate) fn enter_stream(rows: &mut [f64], width: usize, centred: bool, unit: f64) {
    if centred {
        rows.chunks_exact_mut(width).for_each(centre);
    }
    rows.iter_mut().for_each(|x| *x /= unit);
}

fn centre(row: &mut [f64]) {
    let mean = row.iter().sum::<f64>() / row.len().max(1) as f64;
    row.iter_mut().for_each(|x| *x -= mean);
}
