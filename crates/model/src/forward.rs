//! The reference forward pass in f64: exact or polynomial, whole or incremental.
//!
//! Every row is computed by the same operations in the same order whether it comes alone or among others, so appending tokens one by
//! one gives bit for bit the values of one whole pass.

use std::collections::{BTreeMap, HashMap};

use crate::block::{Layer, Linear, NormWeights};
use crate::error::{Result, SpecError};
use crate::function::Function;
use crate::model::Model;
use crate::scheme::Scheme;
use crate::shape::{Attention, Eps, Kind, Placement, Residual};
use crate::site::Observed;

/// Which functions stand at the non-linear sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The functions themselves.
    Exact,
    /// Their certified polynomials: what runs under encryption, without the noise.
    Polynomial,
}

/// Positions whose logits are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Positions {
    /// All appended positions.
    All,
    /// Only the last one.
    Last,
}

/// What one site saw.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SiteStats {
    /// Extremes and count.
    pub observed: Observed,
    /// Values outside the certified range (0 while the site has none).
    pub violations: u64,
}

/// A running forward pass: holds the key/value cache, what the sites saw and, on request, intermediate values.
pub struct Runner<'m> {
    model: &'m Model,
    mode: Mode,
    layers: Vec<Layer<'m>>,
    names: Vec<String>,
    functions: Vec<Function>,
    schemes: Vec<Option<&'m Scheme>>,
    index: HashMap<String, usize>,
    stats: Vec<SiteStats>,
    cache: Vec<Cache>,
    position: usize,
    taps: Option<BTreeMap<String, Vec<f64>>>,
    row_mean_max: Option<Vec<f64>>,
}

#[derive(Default)]
struct Cache {
    keys: Vec<f64>,
    values: Vec<f64>,
}

impl<'m> Runner<'m> {
    /// Starts a pass over an empty sequence.
    ///
    /// # Errors
    /// [`SpecError::NoScheme`] in polynomial mode while a site has no polynomial; [`SpecError::Unsupported`] for softmax attention there.
    pub fn new(model: &'m Model, mode: Mode) -> Result<Self> {
        let shape = model.shape();
        let sites = shape.sites();
        if mode == Mode::Polynomial {
            match shape.attention {
                Attention::Softmax => {
                    return Err(SpecError::Unsupported { operation: "polynomial mode", model: "softmax attention" });
                }
                Attention::PowerSoftmax { eps: Eps::Relative { .. }, .. } => {
                    return Err(SpecError::Unsupported { operation: "polynomial mode", model: "a relative eps" });
                }
                _ => {}
            }
            for (name, _) in sites.iter().filter(|(_, f)| f.is_nonlinear()) {
                if model.scheme(name).is_none() {
                    return Err(SpecError::NoScheme { site: name.clone() });
                }
            }
        }
        let layers = (0..shape.layers).map(|l| Layer::new(model, l)).collect::<Result<Vec<_>>>()?;
        let (names, functions): (Vec<_>, Vec<_>) = sites.into_iter().unzip();
        let schemes = names.iter().map(|n| model.scheme(n)).collect();
        let index = names.iter().enumerate().map(|(i, n)| (n.clone(), i)).collect();
        let cache = (0..shape.layers).map(|_| Cache::default()).collect();
        let stats = vec![SiteStats::default(); names.len()];
        Ok(Self {
            model,
            mode,
            layers,
            names,
            functions,
            schemes,
            index,
            stats,
            cache,
            position: 0,
            taps: None,
            row_mean_max: None,
        })
    }

    /// Keeps intermediate values, readable with [`Runner::taps`].
    #[must_use]
    pub fn with_taps(mut self) -> Self {
        self.taps = Some(BTreeMap::new());
        self
    }

    pub(crate) fn with_row_means(mut self) -> Self {
        let shape = self.model.shape();
        self.row_mean_max = Some(vec![0.0; shape.layers * shape.heads * shape.context]);
        self
    }

    /// Largest row mean seen for each `[layer][head][row]`.
    pub(crate) fn row_means(&self) -> Option<&[f64]> {
        self.row_mean_max.as_deref()
    }

    /// Forgets the sequence, keeps the site statistics.
    pub fn reset(&mut self) {
        self.cache.iter_mut().for_each(|c| *c = Cache::default());
        self.position = 0;
        if let Some(taps) = &mut self.taps {
            taps.clear();
        }
    }

    /// Number of positions in the cache.
    pub fn position(&self) -> usize {
        self.position
    }

    /// What each site has seen so far, in the order of [`crate::Shape::sites`].
    pub fn stats(&self) -> impl Iterator<Item = (&str, Function, &SiteStats)> {
        self.names.iter().zip(&self.functions).zip(&self.stats).map(|((n, f), s)| (n.as_str(), *f, s))
    }

    /// Intermediate values of the appended positions since the last reset, rows of features: `embed`, `layers.{l}.` followed by
    /// `norm1`, `attn.q`, `attn.k` (after rotary), `attn.v`, `attn.mix`, `mid`, `norm2`, `ffn.up` (after the activation), `hidden`, and
    /// `final_norm`, `logits`. Empty without [`Runner::with_taps`].
    pub fn taps(&self) -> impl Iterator<Item = (&str, &[f64])> {
        self.taps.iter().flatten().map(|(n, v)| (n.as_str(), v.as_slice()))
    }

    /// One tap by name.
    pub fn tap(&self, name: &str) -> Option<&[f64]> {
        self.taps.as_ref()?.get(name).map(Vec::as_slice)
    }

    /// Rows that enter the first block: token embedding, plus position, normalised where the shape says so. This is what a client
    /// computes and encrypts. `start` is the position of the first token.
    ///
    /// # Errors
    /// As [`Model::check_tokens`].
    pub fn embed(&mut self, tokens: &[u32], start: usize) -> Result<Vec<f64>> {
        self.model.check_tokens(tokens, start)?;
        let d = self.model.shape().d_model;
        let table = self.tensor("embed.tokens")?;
        let mut rows: Vec<f64> =
            tokens.iter().flat_map(|&t| &table[t as usize * d..(t as usize + 1) * d]).copied().collect();
        if self.model.shape().positions {
            let positions = self.tensor("embed.positions")?;
            rows.iter_mut().zip(&positions[start * d..]).for_each(|(x, p)| *x += p);
        }
        if self.model.shape().embed_norm {
            let norm = NormWeights::new(self.model, "embed.norm")?;
            rows = self.norm(&norm, "embed.norm", &rows)?;
        }
        self.observe("embed", &rows);
        self.tap_rows("embed", &rows);
        Ok(rows)
    }

    /// Appends tokens to the sequence and returns logits, one row of `vocab` values per wanted position.
    ///
    /// # Errors
    /// Bad tokens, too long a context, or an encoder model (use [`Runner::classify`]).
    pub fn append(&mut self, tokens: &[u32], positions: Positions) -> Result<Vec<Vec<f64>>> {
        if self.model.shape().kind != Kind::Decoder {
            return Err(SpecError::Unsupported { operation: "next-token prediction", model: "an encoder" });
        }
        let rows = self.embed(tokens, self.position)?;
        let hidden = self.blocks(rows, None)?;
        let d = self.model.shape().d_model;
        let from = if positions == Positions::Last { tokens.len() - 1 } else { 0 };
        self.head(&hidden[from * d..])
    }

    /// Logits of a whole sequence, from an empty cache.
    ///
    /// # Errors
    /// As [`Runner::append`].
    pub fn forward(&mut self, tokens: &[u32], positions: Positions) -> Result<Vec<Vec<f64>>> {
        self.reset();
        self.append(tokens, positions)
    }

    /// Class logits of a sequence; `valid` marks the tokens that are not padding.
    ///
    /// # Errors
    /// Bad tokens, a mask of another length or without any valid token, or a decoder model.
    pub fn classify(&mut self, tokens: &[u32], valid: Option<&[bool]>) -> Result<Vec<f64>> {
        let Kind::Encoder { .. } = self.model.shape().kind else {
            return Err(SpecError::Unsupported { operation: "classification", model: "a model without classes" });
        };
        let hidden = self.whole(tokens, valid)?;
        let mut first = hidden[..self.model.shape().d_model].to_vec();
        if self.model.shape().placement == Placement::Pre {
            let norm = NormWeights::new(self.model, "final_norm")?;
            first = self.norm(&norm, "final_norm", &first)?;
        }
        let pooled = Linear::new(self.model, "pool")?.apply(&first);
        let pooled = self.map("pool.activation", pooled)?;
        let logits = Linear::new(self.model, "classifier")?.apply(&pooled);
        self.observe("logits", &logits);
        Ok(logits)
    }

    /// The last hidden state of a sequence, after the final norm: `d_model` values a token. `valid` marks the tokens
    /// that are not padding.
    ///
    /// # Errors
    /// Bad tokens, or a mask as [`Runner::classify`] refuses it.
    pub fn hidden(&mut self, tokens: &[u32], valid: Option<&[bool]>) -> Result<Vec<f64>> {
        let mut hidden = self.whole(tokens, valid)?;
        if self.model.shape().placement == Placement::Pre {
            let norm = NormWeights::new(self.model, "final_norm")?;
            hidden = self.norm(&norm, "final_norm", &hidden)?;
        }
        if let Kind::Embedder { .. } = self.model.shape().kind {
            self.observe("output", &hidden);
        }
        Ok(hidden)
    }

    /// The vector of a text, of length 1: its hidden states pooled as the shape says, padding left out.
    ///
    /// # Errors
    /// As [`Runner::hidden`]; another kind of model.
    pub fn sentence(&mut self, tokens: &[u32], valid: Option<&[bool]>) -> Result<Vec<f64>> {
        let Kind::Embedder { pool } = self.model.shape().kind else {
            let model = "a model that answers in tokens or classes";
            return Err(SpecError::Unsupported { operation: "a sentence vector", model });
        };
        let hidden = self.hidden(tokens, valid)?;
        Ok(pool.vector(&hidden, self.model.shape().d_model, valid))
    }

    fn whole(&mut self, tokens: &[u32], valid: Option<&[bool]>) -> Result<Vec<f64>> {
        if let Some(mask) = valid
            && (mask.len() != tokens.len() || !mask.contains(&true))
        {
            let reason = format!("{} entries for {} tokens, at least one true", mask.len(), tokens.len());
            return Err(SpecError::malformed("padding mask", reason));
        }
        self.reset();
        let rows = self.embed(tokens, 0)?;
        self.blocks(rows, valid)
    }

    fn blocks(&mut self, mut hidden: Vec<f64>, valid: Option<&[bool]>) -> Result<Vec<f64>> {
        let shape = self.model.shape();
        let rows = hidden.len() / shape.d_model;
        for l in 0..shape.layers {
            let layer = self.layers[l].clone();
            let at = |part: &str| format!("layers.{l}.{part}");
            if shape.placement == Placement::Post {
                let mixed = self.attention(l, &layer, &hidden, valid)?;
                add(&mut hidden, &mixed);
                self.observe(&at("mid"), &hidden);
                hidden = self.norm(&layer.norm1, &at("norm1"), &hidden)?;
                self.tap_rows(&at("mid"), &hidden);
                let out = self.feed_forward(l, &layer, &hidden)?;
                add(&mut hidden, &out);
                self.observe(&at("hidden"), &hidden);
                hidden = self.norm(&layer.norm2, &at("norm2"), &hidden)?;
            } else {
                let normed = self.norm(&layer.norm1, &at("norm1"), &hidden)?;
                let mixed = self.attention(l, &layer, &normed, valid)?;
                if shape.residual == Residual::Parallel {
                    let normed = self.norm(&layer.norm2, &at("norm2"), &hidden)?;
                    let out = self.feed_forward(l, &layer, &normed)?;
                    add(&mut hidden, &mixed);
                    self.observe(&at("mid"), &hidden);
                    self.tap_rows(&at("mid"), &hidden);
                    add(&mut hidden, &out);
                } else {
                    add(&mut hidden, &mixed);
                    self.observe(&at("mid"), &hidden);
                    self.tap_rows(&at("mid"), &hidden);
                    let normed = self.norm(&layer.norm2, &at("norm2"), &hidden)?;
                    let out = self.feed_forward(l, &layer, &normed)?;
                    add(&mut hidden, &out);
                }
                self.observe(&at("hidden"), &hidden);
            }
            self.tap_rows(&at("hidden"), &hidden);
        }
        self.position += rows;
        Ok(hidden)
    }

    fn head(&mut self, hidden: &[f64]) -> Result<Vec<Vec<f64>>> {
        let shape = self.model.shape();
        let normed = match shape.placement {
            Placement::Pre => {
                let norm = NormWeights::new(self.model, "final_norm")?;
                self.norm(&norm, "final_norm", hidden)?
            }
            Placement::Post => hidden.to_vec(),
        };
        let logits: Vec<Vec<f64>> = if shape.tied_head {
            let table = self.tensor("embed.tokens")?;
            let row = |x: &[f64]| table.chunks_exact(shape.d_model).map(|w| dot(x, w)).collect();
            normed.chunks_exact(shape.d_model).map(row).collect()
        } else {
            let flat = Linear::new(self.model, "head")?.apply(&normed);
            flat.chunks_exact(shape.vocab).map(<[f64]>::to_vec).collect()
        };
        for row in &logits {
            self.observe("logits", row);
            self.tap_rows("logits", row);
        }
        Ok(logits)
    }

    fn attention(&mut self, l: usize, layer: &Layer<'m>, normed: &[f64], valid: Option<&[bool]>) -> Result<Vec<f64>> {
        let shape = self.model.shape();
        let at = |part: &str| format!("layers.{l}.{part}");
        let (width, key_width, dh) = (shape.attention_width(), shape.key_width(), shape.head_dim);
        let shared = shape.heads / shape.key_heads();
        let mut q = layer.q.apply(normed);
        let mut k = layer.k.apply(normed);
        let v = layer.v.apply(normed);
        let rows = q.len() / width;
        for row in 0..rows {
            for (x, width) in [(&mut q, width), (&mut k, key_width)] {
                rotate(x[row * width..(row + 1) * width].as_mut(), self.position + row, shape);
            }
        }
        for (name, x) in [("attn.q", &q), ("attn.k", &k), ("attn.v", &v)] {
            self.observe(&at(name), x);
            self.tap_rows(&at(name), x);
        }
        let mut cache = std::mem::take(&mut self.cache[l]);
        cache.keys.extend_from_slice(&k);
        cache.values.extend_from_slice(&v);
        let score_site = self.site(&at("attn.score"));
        let total = cache.keys.len() / key_width;
        let mut mix = vec![0.0; rows * width];
        let mut scores = vec![];
        for row in 0..rows {
            let position = self.position + row;
            let limit = if shape.kind == Kind::Decoder { position + 1 } else { total };
            let admitted = |j: &usize| valid.is_none_or(|mask| mask[*j]);
            let keys: Vec<usize> = (0..limit).filter(admitted).collect();
            for head in 0..shape.heads {
                let (from, to) = (head * dh, (head + 1) * dh);
                let query = &q[row * width + from..row * width + to];
                scores.clear();
                let scale = 1.0 / (dh as f64).sqrt();
                // Query heads in a row read one key head.
                let at_key = head / shared * dh;
                let key = |j: usize| &cache.keys[j * key_width + at_key..][..dh];
                scores.extend(keys.iter().map(|&j| dot(query, key(j)) * scale));
                let value = |j: usize| &cache.values[j * key_width + at_key..][..dh];
                let out = &mut mix[row * width + from..row * width + to];
                match shape.attention {
                    Attention::Softmax => {
                        scores.iter().for_each(|&s| self.record(score_site, s));
                        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                        scores.iter_mut().for_each(|s| *s = (*s - max).exp());
                        let sum: f64 = scores.iter().sum();
                        weighted(out, &keys, &scores, value);
                        out.iter_mut().for_each(|x| *x /= sum);
                    }
                    Attention::Pointwise { mean } => {
                        for s in &mut scores {
                            *s = self.apply_site(score_site, *s)?;
                        }
                        weighted(out, &keys, &scores, value);
                        if mean {
                            out.iter_mut().for_each(|x| *x /= keys.len() as f64);
                        }
                    }
                    Attention::PowerSoftmax { p, c, eps } => {
                        scores.iter_mut().for_each(|s| *s += c);
                        scores.iter().for_each(|&s| self.record(score_site, s));
                        let largest = scores.iter().fold(0.0f64, |m, s| m.max(s.abs()));
                        scores.iter_mut().for_each(|s| *s = power(*s, p));
                        let n = keys.len() as f64;
                        let mean = scores.iter().sum::<f64>() / n;
                        if let Some(maxima) = &mut self.row_mean_max {
                            let slot = &mut maxima[(l * shape.heads + head) * shape.context + position];
                            *slot = slot.max(mean);
                        }
                        let (eps, unit) = match eps {
                            Eps::Absolute { value } => (value, 1.0),
                            Eps::Relative { value } => (value * power(largest, p), 1.0),
                            Eps::Frozen => {
                                let e = layer.eps[head * shape.context + position];
                                (e, e)
                            }
                        };
                        let site = self.site(&at("attn.reciprocal"));
                        let reciprocal = self.apply_site(site, (mean + eps) / unit)?;
                        weighted(out, &keys, &scores, value);
                        let factor = reciprocal / (unit * n);
                        out.iter_mut().for_each(|x| *x *= factor);
                    }
                }
            }
        }
        self.cache[l] = cache;
        self.observe(&at("attn.mix"), &mix);
        self.tap_rows(&at("attn.mix"), &mix);
        Ok(layer.out.apply(&mix))
    }

    fn feed_forward(&mut self, l: usize, layer: &Layer<'m>, normed: &[f64]) -> Result<Vec<f64>> {
        let site = format!("layers.{l}.ffn.activation");
        let mut inner = match &layer.gate {
            Some(gate) => {
                let mut gated = self.map(&site, gate.apply(normed))?;
                gated.iter_mut().zip(layer.up.apply(normed)).for_each(|(g, u)| *g *= u);
                gated
            }
            None => self.map(&site, layer.up.apply(normed))?,
        };
        self.tap_rows(&format!("layers.{l}.ffn.up"), &inner);
        inner = layer.down.apply(&inner);
        Ok(inner)
    }

    fn norm(&mut self, weights: &NormWeights<'m>, site_name: &str, rows: &[f64]) -> Result<Vec<f64>> {
        let shape = self.model.shape();
        let d = shape.d_model;
        let site = self.site(site_name);
        let mut out = Vec::with_capacity(rows.len());
        for row in rows.chunks_exact(d) {
            let mean = if weights.centred { row.iter().sum::<f64>() / d as f64 } else { 0.0 };
            let var = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / d as f64;
            let inv = self.apply_site(site, var + shape.norm_eps)?;
            let bias = |i: usize| weights.bias.map_or(0.0, |b| b[i]);
            out.extend(row.iter().enumerate().map(|(i, x)| (x - mean) * inv * weights.gain[i] + bias(i)));
        }
        self.tap_rows(site_name, &out);
        Ok(out)
    }

    fn map(&mut self, site: &str, mut values: Vec<f64>) -> Result<Vec<f64>> {
        let site = self.site(site);
        for x in &mut values {
            *x = self.apply_site(site, *x)?;
        }
        Ok(values)
    }

    fn apply_site(&mut self, site: usize, x: f64) -> Result<f64> {
        self.record(site, x);
        let function = self.functions[site];
        match self.mode {
            Mode::Polynomial if function.is_nonlinear() => match self.schemes[site] {
                Some(scheme) => Ok(scheme.eval(x)),
                None => Err(SpecError::NoScheme { site: self.names[site].clone() }),
            },
            _ => Ok(function.eval(x)),
        }
    }

    fn observe(&mut self, site: &str, values: &[f64]) {
        let site = self.site(site);
        values.iter().for_each(|&x| self.record(site, x));
    }

    fn record(&mut self, site: usize, x: f64) {
        let stats = &mut self.stats[site];
        stats.observed.record(x);
        if let Some(certified) = self.model.spec().sites.get(site)
            && !certified.range.contains(x)
        {
            stats.violations += 1;
        }
    }

    fn tap_rows(&mut self, name: &str, rows: &[f64]) {
        if let Some(taps) = &mut self.taps {
            taps.entry(name.to_owned()).or_default().extend_from_slice(rows);
        }
    }

    fn site(&self, name: &str) -> usize {
        self.index[name]
    }

    fn tensor(&self, name: &str) -> Result<&'m [f64]> {
        crate::block::tensor(self.model, name)
    }
}

/// Turns the rotary pairs of one row (all heads) by the angles of its position.
fn rotate(row: &mut [f64], position: usize, shape: &crate::Shape) {
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

impl crate::Pool {
    /// One vector of length 1 from rows of `width` values; rows that `valid` does not mark are padding. A text whose
    /// rows are all zero has the zero vector.
    pub fn vector(self, rows: &[f64], width: usize, valid: Option<&[bool]>) -> Vec<f64> {
        let counts = |i: &usize| match self {
            Self::Mean => valid.is_none_or(|mask| mask[*i]),
            Self::First => *i == 0,
        };
        let mut out = vec![0.0; width];
        for i in (0..rows.len() / width).filter(counts) {
            add(&mut out, &rows[i * width..(i + 1) * width]);
        }
        let norm = dot(&out, &out).sqrt();
        if norm > 0.0 {
            out.iter_mut().for_each(|x| *x /= norm);
        }
        out
    }
}

impl crate::Rotary {
    /// Angle of pair `j` at a position.
    pub fn angle(&self, position: usize, j: usize) -> f64 {
        position as f64 * self.base.powf(-2.0 * j as f64 / self.dims as f64)
    }
}

fn weighted<'v>(out: &mut [f64], keys: &[usize], weights: &[f64], value: impl Fn(usize) -> &'v [f64]) {
    for (&j, &w) in keys.iter().zip(weights) {
        out.iter_mut().zip(value(j)).for_each(|(o, v)| *o += w * v);
    }
}

fn power(x: f64, p: u32) -> f64 {
    let square = x * x;
    (1..p / 2).fold(square, |acc, _| acc * square)
}

fn add(into: &mut [f64], other: &[f64]) {
    into.iter_mut().zip(other).for_each(|(a, b)| *a += b);
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
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
