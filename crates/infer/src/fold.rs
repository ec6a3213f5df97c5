//! Constants folded into weights: what the encrypted circuit multiplies by, derived from the model
//! once.
//!
//! * The mean of a LayerNorm is linear: every map that writes into the residual stream is centred,
//!   so the stream has mean zero at every token and the variance is a plain mean of squares.
//! * Gains and biases of a normalisation go into the maps that read it.
//! * `1/sqrt(head_dim)`, the number of keys and the frozen eps of each (head, row) go into the
//!   rotary plaintexts of the queries, so that `(x + c)^p` comes out already divided by `n * eps`.

mod affine;

use std::sync::Arc;

use cipherlm_approx::{Interval, Polynomial};
use cipherlm_circuits::linear::LinearTransform;
use cipherlm_circuits::slots::Plain;
use num_complex::Complex64;

use cipherlm_model::{
    Attention, Eps, Function, Kind, Model, Norm, Placement, Range, Residual, Shape, Site, SpecError,
    ensure_certified,
};

use crate::error::{At, InferError, Result};
use crate::geometry::Geometry;

pub(crate) use affine::Map;
use affine::centre;

/// What one unit of a slot stands for, chosen from the certified ranges so that every intermediate
/// value stays within about one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Units {
    /// Residual stream.
    pub(crate) hidden: f64,
    /// Logits.
    pub(crate) logits: f64,
    /// Argument of an encoder's pooling.
    pub(crate) pool: Argument,
    /// One entry per layer.
    pub(crate) layers: Vec<LayerUnits>,
    /// Before the head.
    pub(crate) final_norm: Range,
}

/// Units inside one layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LayerUnits {
    pub(crate) norm1: Range,
    pub(crate) norm2: Range,
    pub(crate) value: f64,
    pub(crate) denominator: Range,
    pub(crate) activation: Argument,
}

/// Smallest unit of a slot. A tensor of zeros is certified for hardly any range; its values are
/// zero in every unit.
const SMALLEST: f64 = 1.0 / (1u64 << 30) as f64;

fn unit(range: Range) -> f64 {
    range.magnitude().max(SMALLEST)
}

/// How a function's argument and value lie in slots: the argument as `(x - middle) / half`, the
/// value in units of `value`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Argument {
    pub(crate) middle: f64,
    pub(crate) half: f64,
    pub(crate) value: f64,
}

impl Argument {
    /// Of a logit or another value that no function is applied to.
    const PLAIN: Self = Self { middle: 0.0, half: 1.0, value: 1.0 };

    fn of(range: Range) -> Self {
        if range.magnitude() < SMALLEST {
            return Self { middle: 0.0, half: SMALLEST, value: SMALLEST };
        }
        // Functions of this kind never exceed their argument in size.
        let (middle, half) = (0.5 * (range.lo + range.hi), 0.5 * (range.hi - range.lo));
        Self { middle, half, value: range.magnitude() }
    }

    fn is_dead(self) -> bool {
        self.half <= SMALLEST
    }
}

impl Units {
    fn new(model: &Model) -> Result<Self> {
        let range = |name: &str| {
            let site = model.site(name).ok_or_else(|| SpecError::NoScheme { site: name.to_owned() })?;
            Ok::<Range, InferError>(site.range)
        };
        let shape = model.shape();
        let mut hidden = unit(range("embed")?);
        let mut layers = vec![];
        for l in 0..shape.layers {
            let at = |part: &str| range(&format!("layers.{l}.{part}"));
            hidden = hidden.max(at("mid")?.magnitude()).max(at("hidden")?.magnitude());
            layers.push(LayerUnits {
                norm1: at("norm1")?,
                norm2: at("norm2")?,
                value: unit(at("attn.v")?),
                denominator: at("attn.reciprocal")?,
                activation: Argument::of(at("ffn.activation")?),
            });
        }
        let decoder = shape.kind == Kind::Decoder;
        let pool = if decoder { Argument::PLAIN } else { Argument::of(range("pool.activation")?) };
        Ok(Self { hidden, logits: unit(range("logits")?), pool, layers, final_norm: range("final_norm")? })
    }
}

/// The model seen through its geometry.
pub(crate) struct Folded {
    pub(crate) model: Arc<Model>,
    pub(crate) geometry: Geometry,
    pub(crate) units: Units,
    /// What the circuit is for.
    pub(crate) purpose: Purpose,
}

/// What a circuit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// All positions of a prompt at once.
    #[default]
    Prompt,
    /// The same, keeping keys and values for a session.
    PromptForSession,
    /// One token over the cached keys and values of those before it.
    Token,
}

impl Folded {
    /// Whether one token at a time is run over a cache.
    pub(crate) fn decoding(&self) -> bool {
        self.purpose == Purpose::Token
    }

    /// Checks that the circuit can express the model.
    pub(crate) fn new(model: Arc<Model>, geometry: Geometry, purpose: Purpose) -> Result<Self> {
        let refuse = |feature, advice| Err(InferError::Unsupported { feature, advice });
        let shape = model.shape();
        match shape.attention {
            Attention::PowerSoftmax { p, .. } if !p.is_power_of_two() && p != 6 => {
                return refuse("this power", "train with p = 2, 4, 6, 8 or 16");
            }
            Attention::PowerSoftmax { eps: Eps::Relative { .. }, .. } => {
                return refuse("a relative eps", "freeze the eps of each head and row first");
            }
            Attention::PowerSoftmax { .. } => {}
            _ => return refuse("attention without an even power", "train with PowerSoftmax attention"),
        }
        if shape.key_heads() != shape.heads {
            return refuse("shared key heads", "repeat them: Model::with_repeated_heads");
        }
        if let Kind::Embedder { .. } = shape.kind {
            return refuse("a model of sentence vectors", "this one answers in the clear only");
        }
        if shape.placement != Placement::Pre {
            return refuse("a model with norms after its branches", "train with norms before them");
        }
        if shape.kind != Kind::Decoder && purpose != Purpose::Prompt {
            return refuse("a session with an encoder", "plan for prompts");
        }
        ensure_certified(&model)?;
        check_sites(&model)?;
        let units = Units::new(&model)?;
        Ok(Self { model, geometry, units, purpose })
    }

    pub(crate) fn shape(&self) -> &Shape {
        self.model.shape()
    }

    /// Values of a row of results: one for each token of the vocabulary, or for each class.
    pub(crate) fn results(&self) -> usize {
        match self.shape().kind {
            Kind::Decoder => self.shape().vocab,
            Kind::Encoder { classes } => classes,
            Kind::Embedder { .. } => self.shape().d_model,
        }
    }

    /// The embedded rows as the client encrypts them: centred where the model normalises by
    /// LayerNorm, in units of the stream.
    pub(crate) fn enter_stream(&self, rows: &mut [f64]) {
        if self.shape().norm == Norm::LayerNorm {
            rows.chunks_exact_mut(self.shape().d_model).for_each(centre);
        }
        rows.iter_mut().for_each(|x| *x /= self.units.hidden);
    }

    /// The transform of a map and its bias, one plaintext per output block, in the token-major
    /// layout.
    pub(crate) fn transform(&self, map: Map) -> Result<(LinearTransform, Vec<Plain>)> {
        let affine = self.affine(map)?;
        let layout = self.geometry.layout()?;
        let transform = layout.matmul(&affine.weights).at("weights")?;
        Ok((transform, layout.every_token(&affine.bias)))
    }

    /// Rotary embedding, folded score constants and the shift between copies, on queries, keys and
    /// values at once.
    ///
    /// Queries keep their token in every copy; copy `c` of the keys and values holds what stands
    /// `c` tokens earlier. What goes to the cache of a session ends after `prompt` tokens.
    pub(crate) fn spread(&self, l: usize, prompt: usize) -> Result<LinearTransform> {
        let g = self.geometry;
        let scale = self.query_scale(l)?;
        let mut diagonals = vec![];
        for block in 0..g.blocks {
            self.rotary_diagonals(&mut diagonals, (block, block), 0, &|token, column| {
                scale.get(column / g.head).map_or(0.0, |rows| rows[token])
            });
            for copy in 0..g.copies {
                let key = g.blocks + block;
                self.rotary_diagonals(&mut diagonals, (key, key), copy, &|_, _| 1.0);
                let value = 2 * g.blocks + block;
                let mask = copy_mask(&g, copy);
                diagonals.push((value, value, -((copy * g.features) as i64), Plain::real(mask)));
            }
        }
        let mut outputs = 3 * g.blocks;
        if self.purpose == Purpose::PromptForSession {
            // Keys and values once more, without copies: the cache.
            for block in 0..g.blocks {
                let first = diagonals.iter().filter(|d| d.1 >= g.blocks && d.1 % g.blocks == block);
                let cached = first.filter_map(|(output, input, shift, plain)| {
                    let half = self.shape().rotary.map_or(0, |r| r.dims as i64 / 2);
                    let own = shift.abs() <= half && plain.values().take(g.period()).any(|v| v.re != 0.0);
                    let kept =
                        |(slot, v): (usize, Complex64)| if g.place(slot).1 < prompt { v.re } else { 0.0 };
                    let kept = || Plain::real(plain.values().enumerate().map(kept).collect::<Vec<_>>());
                    own.then(|| (output + 2 * g.blocks, *input, *shift, kept()))
                });
                let cached: Vec<_> = cached.collect();
                diagonals.extend(cached);
            }
            outputs += 2 * g.blocks;
        }
        LinearTransform::block(g.slots, outputs, 3 * g.blocks, diagonals).at("rotary")
    }

    /// Rotary embedding of one token, the same in every slot group.
    pub(crate) fn spread_one(&self, l: usize, position: usize) -> Result<LinearTransform> {
        let g = self.geometry;
        let scale = self.query_scale(l)?;
        let mut diagonals = vec![];
        for block in 0..g.blocks {
            for part in 0..3 {
                let index = part * g.blocks + block;
                let factor = |column: usize| match part {
                    0 => scale.get(column / g.head).map_or(0.0, |rows| rows[position]),
                    _ => 1.0,
                };
                let mut values = [vec![0.0; g.features], vec![0.0; g.features], vec![0.0; g.features]];
                for feature in 0..g.features {
                    let size = factor(block * g.features + feature);
                    let turned =
                        if part < 2 { self.turn(position, feature % g.head) } else { [1.0, 0.0, 0.0] };
                    values.iter_mut().zip(turned).for_each(|(v, t)| v[feature] = t * size);
                }
                self.push_turns(&mut diagonals, (index, index), 0, values);
            }
        }
        LinearTransform::block(g.slots, 3 * g.blocks, 3 * g.blocks, diagonals).at("rotary")
    }

    /// One in the slot group of a token, zero elsewhere.
    pub(crate) fn token_mask(&self, position: usize) -> Plain {
        let g = self.geometry;
        Plain::real((0..g.slots).map(|s| f64::from(u8::from(s / g.features == position))).collect::<Vec<_>>())
    }

    /// As [`Folded::score_plains`], for one token over the cache: every key up to its own position.
    pub(crate) fn cached_score_plains(
        &self,
        l: usize,
        block: usize,
        position: usize,
    ) -> Result<(Plain, Plain)> {
        let g = self.geometry;
        let Attention::PowerSoftmax { c, .. } = self.shape().attention else {
            return Err(InferError::Unsupported { feature: "this attention", advice: "use PowerSoftmax" });
        };
        let scale = self.query_scale(l)?;
        let root = (self.shape().head_dim as f64).sqrt();
        let (mut mask, mut add) = (vec![0.0; g.slots], vec![0.0; g.slots]);
        for key in 0..=position {
            for local in 0..g.features / g.head {
                let head = block * (g.features / g.head) + local;
                if head < self.shape().heads {
                    mask[key * g.features + local * g.head] = 1.0;
                    add[key * g.features + local * g.head] = c * root * scale[head][position];
                }
            }
        }
        Ok((Plain::real(mask), Plain::real(add)))
    }

    /// For one shift: the mask over first features of heads, and the folded shift `c` under the
    /// same mask.
    pub(crate) fn score_plains(&self, l: usize, block: usize, shift: usize) -> Result<(Plain, Plain)> {
        let g = self.geometry;
        let Attention::PowerSoftmax { c, .. } = self.shape().attention else {
            return Err(InferError::Unsupported { feature: "this attention", advice: "use PowerSoftmax" });
        };
        let scale = self.query_scale(l)?;
        let root = (self.shape().head_dim as f64).sqrt();
        let (mut mask, mut add) = (vec![0.0; g.slots], vec![0.0; g.slots]);
        for (slot, token, _) in self.admitted(shift) {
            for local in 0..g.features / g.head {
                let head = block * (g.features / g.head) + local;
                if head < self.shape().heads {
                    mask[slot + local * g.head] = 1.0;
                    add[slot + local * g.head] = c * root * scale[head][token];
                }
            }
        }
        Ok((Plain::real(mask), Plain::real(add)))
    }

    /// First slot of each (copy, token) whose key is admitted at a shift, with query and key
    /// tokens; every pair once over all shifts.
    fn admitted(&self, shift: usize) -> Vec<(usize, usize, usize)> {
        let g = self.geometry;
        let mut out = vec![];
        for slot in (0..g.slots).step_by(g.features) {
            let (_, token, _) = g.place(slot);
            // Where the rotation takes the value from, and which token the spread put there.
            let from = (slot as i64 - shift as i64 * g.shift_stride()).rem_euclid(g.slots as i64) as usize;
            let (copy, position, _) = g.place(from);
            let key = (position + g.tokens * g.copies - copy) % g.tokens;
            let surplus = copy >= g.tokens;
            let admitted = key <= token || self.shape().kind != Kind::Decoder;
            if admitted && !surplus {
                out.push((slot, token, key));
            }
        }
        out
    }

    /// `1 / (sqrt(head_dim) (n unit top)^(1/p))` by head and row, with `top` half the width of the
    /// denominator's range.
    pub(crate) fn query_scale(&self, l: usize) -> Result<Vec<Vec<f64>>> {
        let shape = self.shape();
        let Attention::PowerSoftmax { p, eps, .. } = shape.attention else {
            return Err(InferError::Unsupported { feature: "this attention", advice: "use PowerSoftmax" });
        };
        let frozen = match eps {
            Eps::Frozen => Some(self.values(&format!("layers.{l}.attn.eps"))?),
            _ => None,
        };
        let root = (shape.head_dim as f64).sqrt();
        let range = self.units.layers[l].denominator;
        let top = 0.5 * (range.hi - range.lo);
        let row = |head: usize, token: usize| {
            let unit = frozen.map_or(1.0, |e| e[head * shape.context + token.min(shape.context - 1)]);
            let keys = if shape.kind == Kind::Decoder { token + 1 } else { self.geometry.tokens };
            1.0 / (root * (keys as f64 * unit * top).powf(1.0 / f64::from(p)))
        };
        let rows = if self.decoding() { shape.context } else { self.geometry.tokens };
        Ok((0..shape.heads).map(|h| (0..rows).map(|t| row(h, t)).collect()).collect())
    }

    /// The constant added to the sum of the weights, so that the denominator runs over [-1, 1].
    pub(crate) fn denominator_offset(&self, l: usize) -> f64 {
        let natural = match self.shape().attention {
            Attention::PowerSoftmax { eps: Eps::Absolute { value }, .. } => value,
            _ => 1.0,
        };
        let range = self.units.layers[l].denominator;
        (2.0 * natural - range.lo - range.hi) / (range.hi - range.lo)
    }

    /// The polynomial of a site, its argument mapped onto [-1, 1] by whoever produces it, its value
    /// in slot units.
    pub(crate) fn polynomial(&self, site: &Site) -> Result<Polynomial> {
        let refuse = |reason: String| InferError::Polynomial { site: site.name.clone(), reason };
        let scheme = site.scheme.as_ref().ok_or_else(|| refuse("the site has no scheme".into()))?;
        let scaled = |factor: f64| scheme.coefficients.iter().map(|c| c * factor).collect();
        let coefficients = match site.function {
            Function::InvSqrt => scaled(site.range.lo.sqrt()),
            Function::Reciprocal => scaled(site.range.hi - site.range.lo),
            function => match Argument::of(site.range) {
                // So near zero a function is its tangent.
                argument if argument.is_dead() => {
                    vec![0.0, if function == Function::Tanh { 1.0 } else { 0.5 }]
                }
                argument => scaled(1.0 / argument.value),
            },
        };
        Polynomial::chebyshev(Interval::UNIT, coefficients).map_err(|e| refuse(e.to_string()))
    }

    /// Factor and constant that turn a sum of squares of the stream into the mapped argument of an
    /// inverse root.
    pub(crate) fn variance_constants(&self, range: Range) -> (f64, f64) {
        let shape = self.shape();
        let half = 0.5 * (range.hi - range.lo);
        let factor = self.units.hidden * self.units.hidden / (shape.d_model as f64 * half);
        (factor, (shape.norm_eps - 0.5 * (range.lo + range.hi)) / half)
    }

    fn rotary_diagonals(
        &self,
        out: &mut Vec<(usize, usize, i64, Plain)>,
        (output, input): (usize, usize),
        copy: usize,
        factor: &dyn Fn(usize, usize) -> f64,
    ) {
        let g = self.geometry;
        let block = output % g.blocks;
        // Queries are the same in every copy: one period of values is enough.
        let is_query = output < g.blocks;
        let length = if is_query { g.period() } else { g.slots };
        let mut values = [vec![0.0; length], vec![0.0; length], vec![0.0; length]];
        for slot in 0..length {
            let (here, token, feature) = g.place(slot);
            if !is_query && here != copy {
                continue;
            }
            let source = (token + g.tokens * g.copies - copy) % g.tokens;
            let size = factor(token, block * g.features + feature);
            let turned = self.turn(source, feature % g.head);
            values.iter_mut().zip(turned).for_each(|(v, t)| v[slot] = t * size);
        }
        self.push_turns(out, (output, input), -((copy * g.features) as i64), values);
    }

    /// What a rotated feature takes of itself, of the one half a turn ahead, and of the one half a
    /// turn behind.
    pub(crate) fn turn(&self, position: usize, within: usize) -> [f64; 3] {
        match self.shape().rotary {
            Some(rotary) if within < rotary.dims => {
                let half = rotary.dims / 2;
                let (sin, cos) = rotary.angle(position, within % half).sin_cos();
                if within < half { [cos, -sin, 0.0] } else { [cos, 0.0, sin] }
            }
            _ => [1.0, 0.0, 0.0],
        }
    }

    fn push_turns(
        &self,
        out: &mut Vec<(usize, usize, i64, Plain)>,
        (output, input): (usize, usize),
        base: i64,
        values: [Vec<f64>; 3],
    ) {
        let half = self.shape().rotary.map_or(0, |r| r.dims as i64 / 2);
        for (shift, values) in [0, half, -half].into_iter().zip(values) {
            if values.iter().any(|&v| v != 0.0) {
                out.push((output, input, base + shift, Plain::real(values)));
            }
        }
    }
}

fn copy_mask(g: &Geometry, copy: usize) -> Vec<f64> {
    (0..g.slots).map(|slot| f64::from(u8::from(g.place(slot).0 == copy))).collect()
}

/// Whether one inverse root serves both norms of a parallel block: one variance, one range, one
/// polynomial.
pub(crate) fn shares_norm(model: &Model, layer: usize) -> bool {
    let site =
        |norm: &str| model.site(&format!("layers.{layer}.{norm}")).map(|site| (site.range, &site.scheme));
    model.shape().residual == Residual::Parallel && site("norm1") == site("norm2")
}

/// Checks what the circuit takes for granted of the certified sites: they are those of the shape,
/// their polynomials are those of their ranges, and the ranges are such that units can be made of
/// them. The reference evaluates the one and the circuit the other.
fn check_sites(model: &Model) -> Result<()> {
    for (name, function) in model.shape().sites() {
        let refuse = |reason: String| Err(InferError::Polynomial { site: name.clone(), reason });
        let Some(site) = model.site(&name) else { return refuse("the site is not certified".into()) };
        let Range { lo, hi } = site.range;
        if site.function != function {
            return refuse(format!(
                "it is certified for {:?}, the shape asks for {function:?}",
                site.function
            ));
        }
        if !(lo.is_finite() && hi.is_finite() && lo <= hi) || (function.is_nonlinear() && lo >= hi) {
            return refuse(format!("[{lo}, {hi}] is no range: certify the model again"));
        }
        if matches!(function, Function::InvSqrt | Function::Reciprocal) && lo <= 0.0 {
            return refuse(format!("its range [{lo}, {hi}] reaches zero: certify the model again"));
        }
        let Some(scheme) = site.scheme.as_ref().filter(|_| function.is_nonlinear()) else { continue };
        if scheme.range != site.range {
            let Range { lo: from, hi: to } = scheme.range;
            return refuse(format!(
                "its polynomial is for [{from}, {to}], the site is certified for [{lo}, {hi}]: fit the model again"
            ));
        }
        if scheme.coefficients.is_empty() || scheme.coefficients.iter().any(|c| !c.is_finite()) {
            return refuse(
                "its polynomial has no coefficients, or some that are not finite: fit the model again".into(),
            );
        }
    }
    Ok(())
}
