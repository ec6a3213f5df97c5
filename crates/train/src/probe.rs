//! One mechanism for two needs: what ranges do activations take, and a loss that makes them
//! smaller.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::Tensor;
use cipherlm_model::{Model, Range, Shape};
use serde::{Deserialize, Serialize};

use crate::fused::{self, Series};
use crate::public::{Public, texts};

/// Places whose range matters once every function is a polynomial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Site {
    /// Attention scores, shift included, masked positions too (the encrypted run computes them as
    /// well).
    Scores,
    /// Row mean of the powered scores, before epsilon.
    RowMean,
    /// Row mean over the row's frozen epsilon.
    RowRatio,
    /// Variance inside the normalisation of the embedding.
    EmbedNorm,
    /// Variance (or mean square) inside the attention branch's normalisation.
    AttentionNorm,
    /// Variance inside the feed-forward branch's normalisation.
    FeedForwardNorm,
    /// Variance inside the last normalisation.
    FinalNorm,
    /// Input of the feed-forward non-linearity.
    FeedForward,
    /// The linear factor of a gated feed-forward layer, and its product with the gate.
    Product,
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
    /// Magnitude of the linear factor of a gated feed-forward layer, and of its product with the
    /// gate.
    pub product: Option<f64>,
    /// Variance at every normalisation: lower and upper bound, hinged in the logarithm.
    pub variance: Option<(f64, f64)>,
    /// Largest over smallest variance at every normalisation: each is hinged in the logarithm at
    /// half of it from the batch's geometric mean.
    pub variance_ratio: Option<f64>,
    /// Magnitude of the residual stream after every block.
    pub hidden: Option<f64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            scores: Some(12.0),
            row_mean: None,
            row_ratio: None,
            feed_forward: Some(5.0),
            product: None,
            variance: None,
            variance_ratio: None,
            hidden: None,
        }
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
    keep: Keep,
    kept: Vec<Tensor<2>>,
    public: Option<Public>,
}

/// Tensors that a forward pass leaves with its probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Keep {
    #[default]
    Nothing,
    Hidden,
    Attention,
}

/// Polynomials in the place of a model's functions, by site and layer: what polynomial-aware
/// training trains against.
#[derive(Debug, Clone, Default)]
pub struct Polynomials {
    series: Arc<BTreeMap<(Site, usize), Arc<Series>>>,
}

impl Polynomials {
    /// The polynomials of a fitted data model: inverse square roots of the normalisations, the
    /// activations, and the reciprocals of the attention rows.
    pub fn of(model: &Model) -> Self {
        let series = places(model.shape()).into_iter().filter_map(|(name, at)| {
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

/// Names that the data model gives to the sites whose function has a polynomial.
fn places(shape: &Shape) -> Vec<(String, (Site, usize))> {
    let mut names = vec![
        ("embed.norm".to_owned(), (Site::EmbedNorm, 0)),
        ("final_norm".to_owned(), (Site::FinalNorm, shape.layers)),
    ];
    for layer in 0..shape.layers {
        for (part, site) in [
            ("norm1", Site::AttentionNorm),
            ("norm2", Site::FeedForwardNorm),
            ("ffn.activation", Site::FeedForward),
            ("attn.reciprocal", Site::RowRatio),
        ] {
            names.push((format!("layers.{layer}.{part}"), (site, layer)));
        }
    }
    names
}

impl Probe {
    /// Reports nothing and costs nothing.
    pub fn off() -> Self {
        Self::default()
    }

    /// Records ranges.
    pub fn observe() -> Self {
        Self { observe: true, ..Self::default() }
    }

    /// Builds the range loss.
    pub fn penalise(limits: Limits) -> Self {
        Self { limits: Some(limits), ..Self::default() }
    }

    /// Keeps the residual stream after every block.
    pub fn keeping_hidden(mut self) -> Self {
        self.keep = Keep::Hidden;
        self
    }

    /// Keeps input and output of every attention layer, by turns.
    pub fn keeping_attention() -> Self {
        Self { keep: Keep::Attention, ..Self::default() }
    }

    /// What was kept, in the order of the forward pass.
    pub fn take_kept(&mut self) -> Vec<Tensor<2>> {
        std::mem::take(&mut self.kept)
    }

    /// From here on tensors begin with rows of public tokens, or no longer: no site looks at them,
    /// and no polynomial stands for their functions.
    pub(crate) fn behind(&mut self, public: Option<Public>) {
        self.public = public;
    }

    pub(crate) fn keep_hidden(&mut self, x: &Tensor<2>) {
        if self.keep == Keep::Hidden {
            self.kept.push(texts(self.public, x.clone()));
        }
    }

    pub(crate) fn keep_attention(&mut self, input: &Tensor<2>, output: &Tensor<2>) {
        if self.keep == Keep::Attention {
            self.kept.extend([input.clone(), output.clone()]);
        }
    }

    /// The same probe in a model whose functions are polynomials.
    pub fn with_polynomials(mut self, polynomials: Option<Polynomials>) -> Self {
        self.polynomials = polynomials;
        self
    }

    /// The site's polynomial at `x`, if it has one; at the rows of public tokens `exact`, which
    /// acts on every element by itself.
    pub fn substitute<const D: usize>(
        &self,
        site: Site,
        layer: usize,
        x: &Tensor<D>,
        exact: impl FnOnce(Tensor<3>) -> Tensor<3>,
    ) -> Option<Tensor<D>> {
        let series = self.polynomials.as_ref()?.series.get(&(site, layer))?.clone();
        let Some(public) = self.public else { return Some(fused::polynomial(x.clone(), series)) };
        let [public, text] = public.parts(x);
        let parts = vec![exact(public), fused::polynomial(text, series)];
        Some(Tensor::cat(parts, 1).reshape(x.dims()))
    }

    /// A tensor `[batch * rows, heads, 1]` without the rows of public tokens.
    pub(crate) fn of_texts(&self, x: Tensor<3>) -> Tensor<3> {
        let Some(public) = self.public else { return x };
        let [_, text] = public.parts(&x);
        text
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
            Site::Product => limits.product.is_some(),
            Site::EmbedNorm | Site::AttentionNorm | Site::FeedForwardNorm | Site::FinalNorm => {
                limits.variance.is_some() || limits.variance_ratio.is_some()
            }
            Site::Hidden => limits.hidden.is_some(),
        };
        let replaced = |p: &Polynomials| p.series.keys().any(|(s, _)| *s == site);
        self.observe
            || self.limits.as_ref().is_some_and(limited)
            || self.polynomials.as_ref().is_some_and(replaced)
    }

    /// Limits of row means and of their ratios to epsilon, where limits are all that is asked of
    /// rows.
    pub(crate) fn row_limits(&self) -> Option<[Option<f64>; 2]> {
        let replaced = |p: &Polynomials| p.series.keys().any(|(site, _)| *site == Site::RowRatio);
        let limits =
            self.limits.filter(|_| !self.observe && !self.polynomials.as_ref().is_some_and(replaced));
        limits.map(|limits| [limits.row_mean, limits.row_ratio])
    }

    /// The accumulated range loss, a tensor of shape `[1]`; `None` if nothing was penalised.
    pub fn take_penalty(&mut self) -> Option<Tensor<1>> {
        self.penalty.take()
    }

    /// Ranges seen so far, by site and layer.
    pub fn ranges(&self) -> &BTreeMap<(Site, usize), Range> {
        &self.ranges
    }

    /// Reports one tensor: its rows `[batch * rows, ..]`, or `[batch, heads, rows, ..]`.
    pub fn watch<const D: usize>(&mut self, site: Site, layer: usize, x: &Tensor<D>) {
        if !self.active() {
            return;
        }
        match self.public.map(|public| public.parts(x)) {
            Some([_, text]) => self.report(site, layer, &text),
            None => self.report(site, layer, x),
        }
    }

    /// Reports rows of texts.
    pub(crate) fn report<const D: usize>(&mut self, site: Site, layer: usize, x: &Tensor<D>) {
        if self.observe {
            // Minimum and maximum pass over a NaN, a sum does not; once seen it stays.
            let nan = scalar(x.clone().sum()).is_nan();
            let [lo, hi] = [x.clone().min(), x.clone().max()].map(scalar);
            let range = self.ranges.entry((site, layer)).or_insert(Range { lo, hi });
            *range = if nan || range.lo.is_nan() {
                Range { lo: f64::NAN, hi: f64::NAN }
            } else {
                Range { lo: range.lo.min(lo), hi: range.hi.max(hi) }
            };
        }
        if let Some(limits) = self.limits {
            self.penalise_site(site, x, limits);
        }
    }

    fn penalise_site<const D: usize>(&mut self, site: Site, x: &Tensor<D>, limits: Limits) {
        let magnitude = |bound: f64| hinge(x.clone().abs().sub_scalar(bound));
        let upper = |bound: f64| hinge(log(x).sub_scalar(bound.ln()));
        let term = match site {
            Site::Scores => limits.scores.map(magnitude),
            Site::FeedForward => limits.feed_forward.map(magnitude),
            Site::Product => limits.product.map(magnitude),
            Site::Hidden => limits.hidden.map(magnitude),
            Site::RowMean => limits.row_mean.map(upper),
            Site::RowRatio => limits.row_ratio.map(upper),
            Site::EmbedNorm | Site::AttentionNorm | Site::FeedForwardNorm | Site::FinalNorm => {
                let log = log(x);
                let fixed = limits.variance.map(|(low, high)| {
                    hinge(log.clone().sub_scalar(high.ln()))
                        .add(hinge(log.clone().neg().add_scalar(low.ln())))
                });
                let relative = limits.variance_ratio.map(|ratio| {
                    let centre = scalar(log.clone().detach().mean());
                    hinge(log.sub_scalar(centre).abs().sub_scalar(0.5 * ratio.ln()))
                });
                match (fixed, relative) {
                    (Some(fixed), Some(relative)) => Some(fixed.add(relative)),
                    (fixed, relative) => fixed.or(relative),
                }
            }
        };
        if let Some(term) = term {
            self.penalty = Some(match self.penalty.take() {
                Some(sum) => sum.add(term),
                None => term,
            });
        }
    }
}

/// Mean square of the excess, and the largest excess: the first moves the bulk, the second the
/// single outlier that a polynomial cannot survive.
fn hinge<const D: usize>(excess: Tensor<D>) -> Tensor<1> {
    let excess = burn::tensor::activation::relu(excess);
    let worst = excess.clone().max();
    excess.clone().mul(excess).mean().add(worst)
}

fn log<const D: usize>(x: &Tensor<D>) -> Tensor<D> {
    x.clone().clamp_min(1e-12).log()
}

pub(crate) fn scalar(x: Tensor<1>) -> f64 {
    x.into_data().iter::<f64>().next().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{DType, Device, TensorData};

    const NONE: Limits = Limits {
        scores: None,
        row_mean: None,
        row_ratio: None,
        feed_forward: None,
        product: None,
        variance: None,
        variance_ratio: None,
        hidden: None,
    };

    /// The penalty of one value at a site; `None` where the limits leave the site free.
    fn penalty(site: Site, limits: Limits, value: f64) -> Option<f64> {
        let x = Tensor::<2>::from_data(TensorData::new(vec![value], [1, 1]), (&Device::flex(), DType::F64));
        let mut probe = Probe::penalise(limits);
        probe.watch(site, 0, &x);
        probe.take_penalty().map(scalar)
    }

    /// Square and largest of a single excess.
    fn hinged(excess: f64) -> f64 {
        excess * excess + excess
    }

    #[test]
    fn every_limit_penalises_what_leaves_it_and_nothing_else() {
        let magnitudes = [
            (Site::Scores, Limits { scores: Some(3.0), ..NONE }),
            (Site::FeedForward, Limits { feed_forward: Some(3.0), ..NONE }),
            (Site::Product, Limits { product: Some(3.0), ..NONE }),
            (Site::Hidden, Limits { hidden: Some(3.0), ..NONE }),
        ];
        let logarithms = [
            (Site::RowMean, Limits { row_mean: Some(3.0), ..NONE }),
            (Site::RowRatio, Limits { row_ratio: Some(3.0), ..NONE }),
        ];
        for (site, limits) in magnitudes {
            for (x, expected) in [(2.9, 0.0), (-2.9, 0.0), (3.5, hinged(0.5)), (-4.0, hinged(1.0))] {
                assert!((penalty(site, limits, x).unwrap() - expected).abs() < 1e-12, "{site:?} at {x}");
            }
        }
        for (site, limits) in logarithms {
            for (x, expected) in [(1e-9, 0.0), (2.9, 0.0), (3.0 * 1f64.exp(), hinged(1.0))] {
                assert!((penalty(site, limits, x).unwrap() - expected).abs() < 1e-12, "{site:?} at {x}");
            }
        }
        for (at, (site, _)) in magnitudes.iter().chain(&logarithms).enumerate() {
            for (other, (_, limits)) in magnitudes.iter().chain(&logarithms).enumerate() {
                assert_eq!(
                    penalty(*site, *limits, 100.0).is_some(),
                    at == other,
                    "{site:?} under {limits:?}"
                );
                assert_eq!(Probe::penalise(*limits).wants(*site), at == other, "{site:?} under {limits:?}");
            }
        }
    }

    #[test]
    fn variances_are_pushed_into_their_interval_from_both_sides() {
        let limits = Limits { variance: Some((0.5, 2.0)), ..NONE };
        for site in [Site::EmbedNorm, Site::AttentionNorm, Site::FeedForwardNorm, Site::FinalNorm] {
            let e = 1f64.exp();
            for (x, expected) in [
                (0.5, 0.0),
                (1.0, 0.0),
                (2.0, 0.0),
                (2.0 * e, hinged(1.0)),
                (0.5 / e, hinged(1.0)),
                (0.1, hinged(5f64.ln())),
            ] {
                assert!((penalty(site, limits, x).unwrap() - expected).abs() < 1e-12, "{site:?} at {x}");
            }
        }
    }

    #[test]
    fn variances_far_from_each_other_are_pushed_towards_their_middle() {
        let penalty = |values: [f64; 2]| {
            let x = Tensor::<2>::from_data(
                TensorData::new(values.to_vec(), [2, 1]),
                (&Device::flex(), DType::F64),
            );
            let mut probe = Probe::penalise(Limits { variance_ratio: Some(1f64.exp()), ..NONE });
            probe.watch(Site::AttentionNorm, 0, &x);
            probe.take_penalty().map(scalar).unwrap()
        };
        assert_eq!(penalty([20.0, 20.0 * 0.9f64.exp()]), 0.0);
        // Both are one and a half from the middle, one too much.
        assert!((penalty([20.0, 20.0 * 3f64.exp()]) - hinged(1.0)).abs() < 1e-9);
    }

    #[test]
    fn nan_is_observed_as_nan() {
        let x =
            Tensor::<1>::from_data(TensorData::new(vec![1.0, f64::NAN], [2]), (&Device::flex(), DType::F64));
        let mut probe = Probe::observe();
        probe.watch(Site::Hidden, 0, &x);
        probe.watch(Site::Hidden, 0, &Tensor::<1>::full_like(&x, 3.0));
        let range = probe.ranges()[&(Site::Hidden, 0)];
        assert!(range.lo.is_nan() && range.hi.is_nan(), "{range:?}");
    }
}
