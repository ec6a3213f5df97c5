//! Constants folded into weights: what the encrypted circuit multiplies by, derived from the model
//! once.
//!
//! * The mean of a LayerNorm is linear: every map that writes into the residual stream is centred,
//!   so the stream has mean zero at every token and the variance is a plain mean of squares.
//! * Gains and biases of a normalisation go into the maps that read it.
//! * So does the constant inverse root of a frozen normalisation, which then takes no level.
//! * A quadratic activation is a product of two sums, whose factors go into the maps around it.
//! * `1/sqrt(head_dim)`, the number of keys and the frozen eps of each (head, row) go into the
//!   rotary plaintexts of the queries, so that `(x + c)^p` comes out already divided by `n * eps`.

mod affine;
mod check;
mod extend;
mod head;
mod norm;
mod prefix;
mod public;
mod quadratic;
mod rope;
mod scores;
mod units;

use std::sync::Arc;

use cipherlm_approx::{Interval, Polynomial};

use cipherlm_model::{
    Function, Kind, Model, Norm, Placement, Positions, Residual, Shape, Site, ensure_certified,
};

use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::index::Index;

pub(crate) use affine::{Map, enter_stream};
pub(crate) use head::Wide;
use public::Prefix;
pub(crate) use units::NormId;
use units::{Argument, Units};

/// The model seen through its geometry.
pub(crate) struct Folded {
    pub(crate) model: Arc<Model>,
    pub(crate) geometry: Geometry,
    pub(crate) units: Units,
    /// What the circuit is for.
    pub(crate) purpose: Purpose,
    /// Layout of answers at one position, if not all positions answer.
    pub(crate) wide: Option<Wide>,
    /// Documents that a question is compared with.
    pub(crate) index: Option<Arc<Index>>,
    prefix: Option<Prefix>,
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
    pub(crate) fn new(
        model: Arc<Model>,
        geometry: Geometry,
        purpose: Purpose,
        positions: Positions,
        index: Option<Arc<Index>>,
    ) -> Result<Self> {
        check::check_shape(model.shape(), purpose)?;
        check::check_index(model.shape(), index.as_deref())?;
        ensure_certified(&model)?;
        check::check_sites(&model)?;
        let (units, prefix) = (Units::new(&model)?, Prefix::of(&model)?);
        let mut folded = Self { model, geometry, units, purpose, wide: None, index, prefix };
        (0..folded.shape().layers).try_for_each(|l| folded.quadratics(l).map(drop))?;
        folded.wide = match &folded.index {
            Some(_) => Some(Wide::of(&geometry, folded.results())),
            None => Wide::choose(folded.shape().kind, positions, &geometry, folded.results()),
        };
        Ok(folded)
    }

    pub(crate) fn shape(&self) -> &Shape {
        self.model.shape()
    }

    /// Values of a row of results: one for each token of the vocabulary, for each class, or for
    /// each feature of the last hidden state; before those of the pooled one, the score of each
    /// document of an index.
    pub(crate) fn results(&self) -> usize {
        match self.shape().kind {
            Kind::Decoder => self.shape().vocab,
            Kind::Encoder { classes } => classes,
            Kind::Embedder { .. } => {
                self.index.as_ref().map_or(0, |index| index.documents()) + self.shape().d_model
            }
        }
    }

    /// What one unit of a slot of the results stands for.
    pub(crate) fn result_unit(&self) -> f64 {
        let most = self.index.as_ref().map_or(1.0, |index| index.largest_score().max(1.0));
        self.units.logits * most
    }

    /// Whether the stream has mean zero at every token.
    pub(crate) fn centred(&self) -> bool {
        self.shape().norm == Norm::LayerNorm && self.shape().placement == Placement::Pre
    }

    /// The polynomial of a site, its argument mapped onto [-1, 1] by whoever produces it, its value
    /// in slot units.
    pub(crate) fn polynomial(&self, site: &Site) -> Result<Polynomial> {
        let refuse = |reason: String| Error::Polynomial { site: site.name.clone(), reason };
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
}

/// Whether one inverse root serves both norms of a parallel block: one variance, one range, one
/// polynomial.
pub(crate) fn shares_norm(model: &Model, layer: usize) -> bool {
    let site =
        |norm: &str| model.site(&format!("layers.{layer}.{norm}")).map(|site| (site.range, &site.scheme));
    model.shape().residual == Residual::Parallel && site("norm1") == site("norm2")
}
