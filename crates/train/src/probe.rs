//! One mechanism for two needs: what ranges do activations take, and a loss that makes them smaller.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::Tensor;
use cipherlm_model as spec;
use serde::{Deserialize, Serialize};

use crate::fused::{self, Series};

/// Places whose range matters once every function is a polynomial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Site {
    /// Attention scores, shift included, masked positions too (the encrypted run computes them as well).
    Scores,
    /// Row mean of the powered scores, before epsilon.
    RowMean,
    /// Row mean over the row's frozen epsilon.
    RowRatio,
    /// Variance (or mean square) inside the attention branch's normalisation.
    AttentionNorm,
    /// Variance inside the feed-forward branch's normalisation.
    FeedForwardNorm,
    /// Variance inside the last normalisation.
    FinalNorm,
    /// Input of the feed-forward non-linearity.
    FeedForward,
    /// Residual stream after a block.
    Hidden,
}

/// Upper bounds that the range loss pushes towards; `None` leaves a site free.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Magnitude of scores.
    pub scores: Option<f64>,
    /// Row means, hinged in the logarithm.
    pub row_mean: Option<f64>,
    /// Row mean over frozen epsilon, hinged in the logarithm.
    pub row_ratio: Option<f64>,
    /// Magnitude of the feed-forward non-linearity's input.
    pub feed_forward: Option<f64>,
    /// Variance at every normalisation: lower and upper bound, hinged in the logarithm.
    pub variance: Option<(f64, f64)>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { scores: Some(12.0), row_mean: None, row_ratio: None, feed_forward: Some(5.0), variance: None }
    }
}

/// Smallest and largest value seen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

impl Range {
    /// Largest magnitude.
    pub fn magnitude(&self) -> f64 {
        self.min.abs().max(self.max.abs())
    }
}

/// Handed through a forward pass; every watched site reports to it.
#[derive(Debug, Default)]
pub struct Probe {
    observe: bool,
    limits: Option<Limits>,
    penalty: Option<Tensor<1>>,
    polynomials: Option<Polynomials>,
    ranges: BTreeMap<(Site, usize), Range>,
    rows: BTreeMap<usize, Vec<f32>>,
}

/// Polynomials in the place of a model's functions, by site and layer: what polynomial-aware training trains against.
#[derive(Debug, Clone, Default)]
pub struct Polynomials {
    series: Arc<BTreeMap<(Site, usize), Arc<Series>>>,
}

impl Polynomials {
    /// The polynomials of a fitted data model: inverse square roots of the normalisations, the activations, and the
    /// reciprocals of the attention rows.
    pub fn of(model: &spec::Model) -> Self {
        let layers = model.shape().layers;
        let mut names = vec![("final_norm".to_owned(), (Site::FinalNorm, layers))];
        for layer in 0..layers {
            for (part, site) in [
                ("norm1", Site::AttentionNorm),
                ("norm2", Site::FeedForwardNorm),
                ("ffn.activation", Site::FeedForward),
                ("attn.reciprocal", Site::RowRatio),
            ] {
                names.push((format!("layers.{layer}.{part}"), (site, layer)));
            }
        }
        let series = names.into_iter().filter_map(|(name, at)| {
            let scheme = model.scheme(&name)?;
            Some((at, Arc::new(Series::new(scheme.range.lo, scheme.range.hi, &scheme.coefficients))))
        });
        Self { series: Arc::new(series.collect()) }
    }

    /// Number of functions replaced.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// True if nothing is replaced.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }
}

impl Probe {
    /// Reports nothing and costs nothing.
    pub fn off() -> Self {
        Self::default()
    }

    /// Records ranges, and the largest row mean per head and row.
    pub fn observe() -> Self {
        Self { observe: true, ..Self::default() }
    }

    /// Builds the range loss.
    pub fn penalise(limits: Limits) -> Self {
        Self { limits: Some(limits), ..Self::default() }
    }

    /// The same probe in a model whose functions are polynomials.
    pub fn with_polynomials(mut self, polynomials: Option<Polynomials>) -> Self {
        self.polynomials = polynomials;
        self
    }

    /// The site's polynomial at `x`, if it has one.
    pub fn substitute<const D: usize>(&self, site: Site, layer: usize, x: &Tensor<D>) -> Option<Tensor<D>> {
        let series = self.polynomials.as_ref()?.series.get(&(site, layer))?;
        Some(fused::polynomial(x.clone(), series.clone()))
    }

    /// True if sites should hand over their tensors.
    pub fn active(&self) -> bool {
        self.observe || self.limits.is_some()
    }

    /// True if this site's tensor would be used.
    pub fn wants(&self, site: Site) -> bool {
        let limited = |limits: &Limits| match site {
            Site::Scores => limits.scores.is_some(),
            Site::RowMean => limits.row_mean.is_some(),
            Site::RowRatio => limits.row_ratio.is_some(),
            Site::FeedForward => limits.feed_forward.is_some(),
            Site::AttentionNorm | Site::FeedForwardNorm | Site::FinalNorm => limits.variance.is_some(),
            Site::Hidden => false,
        };
        let replaced = |p: &Polynomials| p.series.keys().any(|(s, _)| *s == site);
        self.observe || self.limits.as_ref().is_some_and(limited) || self.polynomials.as_ref().is_some_and(replaced)
    }

    /// The accumulated range loss, a tensor of shape `[1]`; `None` if nothing was penalised.
    pub fn take_penalty(&mut self) -> Option<Tensor<1>> {
        self.penalty.take()
    }

    /// Ranges seen so far, by site and layer.
    pub fn ranges(&self) -> &BTreeMap<(Site, usize), Range> {
        &self.ranges
    }

    /// Largest row mean seen per head and row of a layer, `heads * context` values.
    pub fn row_maxima(&self, layer: usize) -> Option<&[f32]> {
        self.rows.get(&layer).map(Vec::as_slice)
    }

    /// Reports one tensor.
    pub fn watch<const D: usize>(&mut self, site: Site, layer: usize, x: &Tensor<D>) {
        if self.observe {
            let min = scalar(x.clone().min());
            let max = scalar(x.clone().max());
            let range = self.ranges.entry((site, layer)).or_insert(Range { min, max });
            // `f64::min` ignores NaN; a NaN must survive to be noticed.
            range.min = if min.is_nan() { min } else { range.min.min(min) };
            range.max = if max.is_nan() { max } else { range.max.max(max) };
        }
        if let Some(limits) = self.limits {
            self.penalise_site(site, x, limits);
        }
    }

    /// Reports row means `[batch, heads, rows, 1]` of a layer whose table holds `context` rows.
    pub fn watch_rows(&mut self, layer: usize, context: usize, mean: &Tensor<4>) {
        if !self.observe {
            return;
        }
        let [_, heads, rows, _] = mean.dims();
        let largest: Vec<f32> = mean.clone().max_dim(0).into_data().iter::<f32>().collect();
        let table = self.rows.entry(layer).or_insert_with(|| vec![0.0; heads * context]);
        for head in 0..heads {
            for row in 0..rows {
                let cell = &mut table[head * context + row];
                *cell = cell.max(largest[head * rows + row]);
            }
        }
    }

    fn penalise_site<const D: usize>(&mut self, site: Site, x: &Tensor<D>, limits: Limits) {
        let term = match site {
            Site::Scores => limits.scores.map(|bound| hinge(x.clone().abs().sub_scalar(bound))),
            Site::FeedForward => limits.feed_forward.map(|bound| hinge(x.clone().abs().sub_scalar(bound))),
            Site::RowMean => limits.row_mean.map(|bound| hinge(log(x).sub_scalar(bound.ln()))),
            Site::RowRatio => limits.row_ratio.map(|bound| hinge(log(x).sub_scalar(bound.ln()))),
            Site::AttentionNorm | Site::FeedForwardNorm | Site::FinalNorm => limits.variance.map(|(low, high)| {
                let log = log(x);
                hinge(log.clone().sub_scalar(high.ln())).add(hinge(log.neg().add_scalar(low.ln())))
            }),
            Site::Hidden => None,
        };
        if let Some(term) = term {
            self.penalty = Some(match self.penalty.take() {
                Some(sum) => sum.add(term),
                None => term,
            });
        }
    }
}

/// Mean square of the excess, and the largest excess: the first moves the bulk, the second the single outlier
/// that a polynomial cannot survive.
fn hinge<const D: usize>(excess: Tensor<D>) -> Tensor<1> {
    let excess = burn::tensor::activation::relu(excess);
    let worst = excess.clone().max();
    excess.clone().mul(excess).mean().add(worst)
}

fn log<const D: usize>(x: &Tensor<D>) -> Tensor<D> {
    x.clone().clamp_min(1e-12).log()
}

fn scalar(x: Tensor<1>) -> f64 {
    x.into_data().iter::<f64>().next().unwrap_or(f64::NAN)
}
