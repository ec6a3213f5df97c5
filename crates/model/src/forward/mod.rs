//! The reference forward pass in f64: exact or polynomial, whole or incremental.
//!
//! Every row is computed by the same operations in the same order whether it comes alone or among
//! others, so appending tokens one by one gives bit for bit the values of one whole pass.

mod attend;
mod embedding;
mod matrix;
mod prepared;
mod rows;

pub use embedding::{Embedding, EmbeddingShape};

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::function::Function;
use crate::model::Model;
use crate::program::{Op, Program, Value};
use crate::scheme::Scheme;
use crate::shape::{Attention, Eps, Kind};
use crate::site::Observed;
use matrix::Matrix;
pub use prepared::Prepared;
use rows::{Linear, NormWeights, dot};

/// Which functions stand at the non-linear sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The functions themselves.
    Exact,
    /// Their certified polynomials: what runs under encryption, without the noise. The embedding
    /// and its norm are the client's, who computes them exactly.
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

/// A running forward pass: holds the key/value cache, what the sites saw and, on request,
/// intermediate values.
pub struct Runner<'m> {
    model: &'m Model,
    mode: Mode,
    program: Program,
    weights: Vec<StageWeights<'m>>,
    /// First site of each stage.
    site_at: Vec<usize>,
    /// Last stage that reads each value.
    last_read: Vec<usize>,
    names: Vec<String>,
    functions: Vec<Function>,
    schemes: Vec<Option<&'m Scheme>>,
    stats: Vec<SiteStats>,
    cache: Vec<Cache>,
    position: usize,
    /// Public tokens that stand before every sequence.
    prefix: usize,
    /// While those are computed nothing is observed.
    muted: bool,
    taps: Option<BTreeMap<String, Vec<f64>>>,
    row_mean_max: Option<Vec<f64>>,
}

/// What a stage needs of the model.
#[derive(Clone)]
enum StageWeights<'m> {
    None,
    Norm(NormWeights<'m>),
    /// The factors of the square and of the argument, by channel.
    Quadratic([&'m [f64]; 2]),
    Linear(Linear<'m>),
    /// A linear map, or the tied head, in f32.
    Matrix(&'m Matrix),
    /// Which attention it is, and its frozen constants.
    Attend {
        layer: usize,
        eps: &'m [f64],
    },
}

#[derive(Default)]
struct Cache {
    keys: Vec<f64>,
    values: Vec<f64>,
}

/// Tokens of one call.
#[derive(Clone, Copy)]
struct Input<'t> {
    tokens: &'t [u32],
    start: usize,
    valid: Option<&'t [bool]>,
}

impl<'m> Runner<'m> {
    /// Starts a pass over an empty sequence, behind the model's public prefix if it has one.
    ///
    /// # Errors
    /// [`Error::NoScheme`] in polynomial mode while a site has no polynomial;
    /// [`Error::Unsupported`] for softmax attention there.
    pub fn new(model: &'m Model, mode: Mode) -> Result<Self> {
        Self::with_maps(model, mode, None)
    }

    fn with_maps(model: &'m Model, mode: Mode, maps: Option<&'m [Option<Matrix>]>) -> Result<Self> {
        let shape = model.shape();
        let program = shape.program();
        let sites = program.sites(shape);
        if mode == Mode::Polynomial {
            ensure_polynomial(model, &sites)?;
        }
        let (names, functions): (Vec<_>, Vec<_>) = sites.into_iter().unzip();
        let schemes = names.iter().map(|n| model.scheme(n)).collect();
        let (mut site_at, mut weights, mut last_read) = (vec![], vec![], vec![0; program.stages.len()]);
        let mut site = 0;
        for (at, stage) in program.stages.iter().enumerate() {
            site_at.push(site);
            weights.push(match maps.and_then(|maps| maps[at].as_ref()) {
                Some(map) => StageWeights::Matrix(map),
                None => stage_weights(model, &program, at)?,
            });
            stage.op.reads().for_each(|value| last_read[value] = at);
            site += match stage.op {
                Op::Norm { .. } | Op::Activate { .. } | Op::Quadratic { .. } | Op::Bound { .. } => 1,
                Op::Attend { .. } => crate::program::attention_sites(shape.attention).len(),
                _ => 0,
            };
        }
        let cache = (0..shape.layers).map(|_| Cache::default()).collect();
        let stats = vec![SiteStats::default(); names.len()];
        let mut runner = Self {
            model,
            mode,
            program,
            weights,
            site_at,
            last_read,
            names,
            functions,
            schemes,
            stats,
            cache,
            position: 0,
            prefix: 0,
            muted: false,
            taps: None,
            row_mean_max: None,
        };
        runner.begin_with(&model.spec().prefix)?;
        Ok(runner)
    }

    /// Computes the public tokens that every sequence begins with: by the functions themselves,
    /// because no polynomial ever sees them, and without a look at ranges.
    fn begin_with(&mut self, tokens: &[u32]) -> Result<()> {
        if tokens.is_empty() {
            return Ok(());
        }
        let mode = std::mem::replace(&mut self.mode, Mode::Exact);
        self.muted = true;
        let done = self.pass(Input { tokens, start: 0, valid: None }, tokens.len());
        (self.mode, self.muted, self.prefix) = (mode, false, tokens.len());
        done.map(drop)
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

    /// Forgets the sequence, keeps the public prefix and the site statistics.
    pub fn reset(&mut self) {
        let kept = self.prefix * self.model.shape().key_width();
        for Cache { keys, values } in &mut self.cache {
            keys.truncate(kept);
            values.truncate(kept);
        }
        self.position = self.prefix;
        if let Some(taps) = &mut self.taps {
            taps.clear();
        }
    }

    /// Number of positions in the cache, public ones included.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Keys after rotary and values of all positions so far in one layer, rows of
    /// [`crate::Shape::key_width`] values; `None` for a layer that there is not.
    pub fn keys_and_values(&self, layer: usize) -> Option<(&[f64], &[f64])> {
        self.cache.get(layer).map(|cache| (cache.keys.as_slice(), cache.values.as_slice()))
    }

    /// What each site has seen so far, in the order of [`crate::Shape::sites`].
    pub fn stats(&self) -> impl Iterator<Item = (&str, Function, &SiteStats)> {
        self.names.iter().zip(&self.functions).zip(&self.stats).map(|((n, f), s)| (n.as_str(), *f, s))
    }

    /// Intermediate values of the appended positions since the last reset, rows of features, by the
    /// name of the stage that makes them: `embed`, `layers.{l}.norm1`, `mid`, `ffn.activation`,
    /// `hidden`, `final_norm`, `head`, …; of attention `layers.{l}.attn.q` and `attn.k` (after
    /// rotary), `attn.v`, `attn.mix`. Empty without [`Runner::with_taps`].
    pub fn taps(&self) -> impl Iterator<Item = (&str, &[f64])> {
        self.taps.iter().flatten().map(|(n, v)| (n.as_str(), v.as_slice()))
    }

    /// One tap by name.
    pub fn tap(&self, name: &str) -> Option<&[f64]> {
        self.taps.as_ref()?.get(name).map(Vec::as_slice)
    }

    /// Rows that enter the first block: token embedding, plus position, normalised where the shape
    /// says so. This is what a client computes and encrypts. `start` is the position of the first
    /// token.
    ///
    /// # Errors
    /// As [`Model::check_tokens`].
    pub fn embed(&mut self, tokens: &[u32], start: usize) -> Result<Vec<f64>> {
        self.model.check_tokens(tokens, start)?;
        let mut values = vec![vec![]; self.program.stages.len()];
        let (entry, end) = self.program.entry;
        self.execute(0..end, &mut values, Input { tokens, start, valid: None }, entry)?;
        Ok(std::mem::take(&mut values[entry]))
    }

    /// Appends tokens to the sequence and returns logits, one row of `vocab` values per wanted
    /// position.
    ///
    /// # Errors
    /// Bad tokens, too long a context, or an encoder model (use [`Runner::classify`]).
    pub fn append(&mut self, tokens: &[u32], positions: Positions) -> Result<Vec<Vec<f64>>> {
        if self.model.shape().kind != Kind::Decoder {
            return Err(Error::Unsupported { operation: "next-token prediction", model: "an encoder" });
        }
        let from = if positions == Positions::Last { tokens.len().saturating_sub(1) } else { 0 };
        let logits = self.pass(Input { tokens, start: self.position, valid: None }, from)?;
        Ok(logits.chunks_exact(self.model.shape().vocab).map(<[f64]>::to_vec).collect())
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
            return Err(Error::Unsupported { operation: "classification", model: "a model without classes" });
        };
        self.whole(tokens, valid)
    }

    /// The last hidden state of a sequence, `d_model` values a token; `valid` marks the tokens that
    /// are not padding.
    ///
    /// # Errors
    /// As [`Runner::classify`]; a model that answers in tokens or classes.
    pub fn hidden(&mut self, tokens: &[u32], valid: Option<&[bool]>) -> Result<Vec<f64>> {
        let Kind::Embedder { .. } = self.model.shape().kind else {
            let model = "a model that answers in tokens or classes";
            return Err(Error::Unsupported { operation: "a hidden state", model });
        };
        self.whole(tokens, valid)
    }

    /// The vector of a text, of length 1: its hidden states pooled as the shape says, padding left
    /// out.
    ///
    /// # Errors
    /// As [`Runner::hidden`].
    pub fn sentence(&mut self, tokens: &[u32], valid: Option<&[bool]>) -> Result<Vec<f64>> {
        let hidden = self.hidden(tokens, valid)?;
        let Kind::Embedder { pool } = self.model.shape().kind else { return Ok(hidden) };
        Ok(pool.vector(&hidden, self.model.shape().d_model, valid))
    }

    fn whole(&mut self, tokens: &[u32], valid: Option<&[bool]>) -> Result<Vec<f64>> {
        if let Some(mask) = valid
            && (mask.len() != tokens.len() || !mask.contains(&true))
        {
            let reason = format!("{} entries for {} tokens, at least one true", mask.len(), tokens.len());
            return Err(Error::malformed("padding mask", reason));
        }
        self.reset();
        self.pass(Input { tokens, start: 0, valid }, 0)
    }

    /// All stages; the head sees the rows from `from` on.
    fn pass(&mut self, input: Input<'_>, from: usize) -> Result<Vec<f64>> {
        self.model.check_tokens(input.tokens, input.start)?;
        let mut values = vec![vec![]; self.program.stages.len()];
        let ((body, head), answer) = (self.program.body, self.program.answer);
        self.execute(0..head, &mut values, input, body)?;
        self.position += input.tokens.len();
        values[body].drain(..from * self.program.stages[body].width);
        self.execute(head..self.program.stages.len(), &mut values, input, answer)?;
        Ok(std::mem::take(&mut values[answer]))
    }

    /// Runs stages; values that nothing reads any more are dropped, except `kept`.
    fn execute(
        &mut self,
        stages: Range<usize>,
        values: &mut [Vec<f64>],
        input: Input<'_>,
        kept: Value,
    ) -> Result<()> {
        for at in stages {
            values[at] = self.step(at, values, input)?;
            let (op, last_read) = (self.program.stages[at].op, &self.last_read);
            op.reads().filter(|&v| last_read[v] == at && v != kept).for_each(|v| values[v] = vec![]);
        }
        Ok(())
    }

    fn step(&mut self, at: usize, values: &[Vec<f64>], input: Input<'_>) -> Result<Vec<f64>> {
        let (op, site) = (self.program.stages[at].op, self.site_at[at]);
        let out = match (op, self.weights[at].clone()) {
            (Op::Embed, _) => self.embedding(input)?,
            (Op::Norm { of }, StageWeights::Norm(weights)) => self.norm(&weights, site, &values[of])?,
            (Op::FrozenNorm { of }, StageWeights::Norm(weights)) => weights.apply_frozen(&values[of]),
            (Op::Quadratic { of }, StageWeights::Quadratic([square, linear])) => {
                self.observe(site, &values[of]);
                rows::quadratic(&values[of], square, linear)
            }
            (Op::Linear { of, .. }, StageWeights::Linear(map)) => map.apply(&values[of]),
            (Op::Linear { of, .. } | Op::TiedHead { of }, StageWeights::Matrix(map)) => {
                map.apply(&values[of])
            }
            (Op::Attend { q, k, v }, StageWeights::Attend { layer, eps }) => {
                let rows = attend::Rows { q: values[q].clone(), k: values[k].clone(), v: &values[v] };
                self.attend(at, layer, eps, rows, input.valid)?
            }
            (Op::Activate { of, .. }, _) => {
                let mut out = values[of].clone();
                self.apply_site(site, &mut out)?;
                out
            }
            (Op::Mul { a, b }, _) => values[a].iter().zip(&values[b]).map(|(x, y)| x * y).collect(),
            (Op::Add { a, b }, _) => values[a].iter().zip(&values[b]).map(|(x, y)| x + y).collect(),
            (Op::First { of }, _) => values[of][..self.program.stages[at].width].to_vec(),
            (Op::TiedHead { of }, _) => {
                let table = rows::tensor(self.model, "embed.tokens")?;
                let d = self.program.stages[of].width;
                let row = |x| table.chunks_exact(d).map(move |w| dot(x, w));
                values[of].chunks_exact(d).flat_map(row).collect()
            }
            (Op::Bound { of }, _) => {
                self.observe(site, &values[of]);
                return Ok(vec![]);
            }
            (
                Op::Norm { .. }
                | Op::FrozenNorm { .. }
                | Op::Quadratic { .. }
                | Op::Linear { .. }
                | Op::Attend { .. },
                _,
            ) => {
                let name = self.program.stages[at].name.clone();
                return Err(Error::MissingTensor { name, expected: vec![] });
            }
        };
        if !matches!(op, Op::Attend { .. }) {
            let name = std::mem::take(&mut self.program.stages[at].name);
            self.tap_rows(&name, &out);
            self.program.stages[at].name = name;
        }
        Ok(out)
    }

    fn embedding(&mut self, input: Input<'_>) -> Result<Vec<f64>> {
        let shape = self.model.shape();
        rows::embed(self.model.weights(), shape.d_model, shape.positions, input.tokens, input.start)
    }

    fn norm(&mut self, weights: &NormWeights<'m>, site: usize, rows: &[f64]) -> Result<Vec<f64>> {
        weights.apply(rows, self.model.shape().norm_eps, |variances| self.apply_site(site, variances))
    }

    /// Replaces arguments of a site by its function, or by what stands in for it.
    fn apply_site(&mut self, site: usize, values: &mut [f64]) -> Result<()> {
        self.observe(site, values);
        let function = self.functions[site];
        match self.mode {
            Mode::Polynomial if function.is_nonlinear() && !self.in_the_clear(site) => {
                match self.schemes[site] {
                    Some(scheme) => scheme.eval_each(values),
                    None => return Err(Error::NoScheme { site: self.names[site].clone() }),
                }
            }
            _ => values.iter_mut().for_each(|x| *x = function.eval(*x)),
        }
        Ok(())
    }

    /// Whether a site belongs to the rows that a client computes before it encrypts them.
    fn in_the_clear(&self, site: usize) -> bool {
        self.site_at.get(self.program.entry.1).is_some_and(|&first| site < first)
    }

    fn observe(&mut self, site: usize, values: &[f64]) {
        if self.muted {
            return;
        }
        let (stats, seen) = (&mut self.stats[site], Observed::of(values));
        stats.observed.merge(&seen);
        if let Some(certified) = self.model.spec().sites.get(site) {
            let range = certified.range;
            if seen.not_finite > 0 || !(range.contains(seen.min) && range.contains(seen.max)) {
                stats.violations += values.iter().filter(|x| !range.contains(**x)).count() as u64;
            }
        }
    }

    fn tap_rows(&mut self, name: &str, rows: &[f64]) {
        if let Some(taps) = self.taps.as_mut().filter(|_| !self.muted) {
            taps.entry(name.to_owned()).or_default().extend_from_slice(rows);
        }
    }
}

fn ensure_polynomial(model: &Model, sites: &[(String, Function)]) -> Result<()> {
    let refuse = |what| Err(Error::Unsupported { operation: "polynomial mode", model: what });
    match model.shape().attention {
        Attention::Softmax => return refuse("softmax attention"),
        Attention::PowerSoftmax { eps: Eps::Relative { .. }, .. } => return refuse("a relative eps"),
        _ => {}
    }
    match sites.iter().find(|(name, function)| function.is_nonlinear() && model.scheme(name).is_none()) {
        Some((name, _)) => Err(Error::NoScheme { site: name.clone() }),
        None => Ok(()),
    }
}

fn stage_weights<'m>(model: &'m Model, program: &Program, at: usize) -> Result<StageWeights<'m>> {
    let stage = &program.stages[at];
    Ok(match stage.op {
        Op::Norm { .. } | Op::FrozenNorm { .. } => {
            StageWeights::Norm(NormWeights::new(model.weights(), model.shape().norm, &stage.name)?)
        }
        Op::Quadratic { .. } => StageWeights::Quadratic([
            rows::tensor(model, &format!("{}.square", stage.name))?,
            rows::tensor(model, &format!("{}.linear", stage.name))?,
        ]),
        Op::Linear { .. } => StageWeights::Linear(Linear::new(model, &stage.name)?),
        Op::Attend { .. } => {
            let before = program.stages[..at].iter().filter(|s| matches!(s.op, Op::Attend { .. }));
            let eps = match model.shape().attention {
                Attention::PowerSoftmax { eps: Eps::Frozen, .. } => {
                    rows::tensor(model, &format!("{}.eps", stage.name))?
                }
                _ => &[],
            };
            StageWeights::Attend { layer: before.count(), eps }
        }
        _ => StageWeights::None,
    })
}

#[cfg(test)]
mod tests;
