//! Normalisations: what stands around their inverse square roots.
//!
//! Where norms stand before the branches, every map that writes into the residual stream is
//! centred, so a LayerNorm's mean is zero and its variance a plain mean of squares; nobody reads
//! the normalised rows themselves. Where they stand after the branches, the rows come back into the
//! stream with gains and bias, so the mean is there: it is taken off the variance, and off the rows
//! on their way back.

use cipherlm_circuits::slots::Plain;
use cipherlm_model::{Norm, Placement, Range, Residual};

use super::{Folded, NormId};
use crate::error::{Error, Result};

/// Factors of a variance: `squares * sum of squares - mean^2 + constant` is the argument of the
/// inverse root on [-1, 1], with `mean` the sum of the row times `mean`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct VarianceConstants {
    pub(crate) squares: f64,
    /// `None` where the mean is zero, or no part of it.
    pub(crate) mean: Option<f64>,
    pub(crate) constant: f64,
}

impl Folded {
    /// Units of the rows that a norm reads and gives back.
    pub(super) fn norm_units(&self, norm: NormId) -> (f64, f64) {
        let (units, post) = (&self.units, self.shape().placement == Placement::Post);
        let parallel = self.shape().residual == Residual::Parallel;
        let last = units.logits;
        match norm {
            NormId::First(l) => {
                let layer = units.layers[l];
                (if post { layer.mid } else { units.before(l) }, layer.hidden)
            }
            NormId::Second(l) => {
                let next = units.layers.get(l + 1).map_or(last, |next| next.mid);
                let layer = units.layers[l];
                let from = match (post, parallel) {
                    (true, _) => layer.hidden,
                    (false, true) => units.before(l),
                    (false, false) => layer.mid,
                };
                (from, next)
            }
            NormId::Final => (units.layers.last().map_or(units.entry, |layer| layer.hidden), last),
        }
    }

    /// Certified variances of a norm that is not frozen.
    fn variances(&self, norm: NormId) -> Result<Range> {
        let range = match norm {
            NormId::First(l) => self.units.layers[l].norm1,
            NormId::Second(l) => self.units.layers[l].norm2,
            NormId::Final => self.units.final_norm,
        };
        range.ok_or(Error::Unsupported {
            feature: "statistics of a norm that is frozen, or not there",
            advice: "read the norms of the shape",
        })
    }

    /// Whether a norm's inverse root is a constant.
    pub(crate) fn is_frozen(&self, norm: NormId) -> bool {
        self.shape().freezes(&norm.name())
    }

    /// What maps of a norm's rows are divided by: the constant root of a frozen norm, or the
    /// smallest root, whose inverse is the unit of what will multiply their results.
    pub(super) fn deviation_unit(&self, norm: NormId) -> Result<f64> {
        if !self.is_frozen(norm) {
            return Ok(self.variances(norm)?.lo.sqrt());
        }
        let name = format!("{}.root", norm.name());
        let root = self.values(&name)?.first().map(|inverse| 1.0 / inverse);
        root.ok_or_else(|| cipherlm_model::Error::MissingTensor { name, expected: vec![1] }.into())
    }

    /// Whether a norm has to take a mean off the rows.
    pub(crate) fn has_mean(&self) -> bool {
        self.shape().norm == Norm::LayerNorm && self.shape().placement == Placement::Post
    }

    /// Constants of a norm's variance.
    pub(crate) fn variance_constants(&self, norm: NormId) -> Result<VarianceConstants> {
        let (range, (unit, _)) = (self.variances(norm)?, self.norm_units(norm));
        let shape = self.shape();
        let half = 0.5 * (range.hi - range.lo);
        Ok(VarianceConstants {
            squares: unit * unit / (shape.d_model as f64 * half),
            mean: self.has_mean().then(|| unit / (half.sqrt() * shape.d_model as f64)),
            constant: (shape.norm_eps - 0.5 * (range.lo + range.hi)) / half,
        })
    }

    /// Gains of the rows that a norm gives back, and of the mean that is taken off them, by block:
    /// both in the units that the product with the inverse root is to have.
    pub(crate) fn gains(&self, norm: NormId) -> Result<(Vec<Plain>, Vec<Plain>)> {
        let (range, (from, to)) = (self.variances(norm)?, self.norm_units(norm));
        let gain = self.values(&format!("{}.gain", norm.name()))?;
        let layout = self.geometry.layout()?;
        let scaled = |factor: f64| {
            let row: Vec<f64> = gain.iter().map(|g| g * factor).collect();
            layout.every_token(&row)
        };
        let half = 0.5 * (range.hi - range.lo);
        // The mean comes in units of half the range's root.
        let means = if self.has_mean() { scaled(half.sqrt() / (range.lo.sqrt() * to)) } else { vec![] };
        Ok((scaled(from / (range.lo.sqrt() * to)), means))
    }
}
