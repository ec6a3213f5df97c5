//! Certified ranges: seen on calibration text, widened by a margin, checked on held-out text.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::forward::{Mode, Positions, Prepared, Runner, SiteStats};
use crate::function::Function;
use crate::model::Model;
use crate::range::Range;
use crate::scheme::Scheme;
use crate::shape::{Attention, Eps, Kind, Shape};
use crate::site::{Observed, Site};

/// Least magnitude certified at a site. A dead tensor leaves zeros everywhere; planners divide by
/// these ranges.
const LEAST_MAGNITUDE: f64 = 1.0 / (1 << 20) as f64;

/// Factors by which observed extremes are widened.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Margins {
    /// Upper end of the attention denominators (the heaviest tail by far).
    pub denominator: f64,
    /// Both ends of the variances.
    pub variance: f64,
    /// Inputs of activations.
    pub activation: f64,
    /// Magnitudes of everything else.
    pub magnitude: f64,
}

impl Default for Margins {
    fn default() -> Self {
        Self { denominator: 3.0, variance: 1.3, activation: 1.15, magnitude: 1.5 }
    }
}

/// Target errors of the polynomials.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FitOptions {
    /// Relative error of reciprocals.
    pub reciprocal: f64,
    /// Relative error of inverse square roots.
    pub inv_sqrt: f64,
    /// Absolute error of activations.
    pub activation: f64,
    /// Largest degree considered.
    pub max_degree: usize,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self { reciprocal: 1e-4, inv_sqrt: 1e-4, activation: 1e-3, max_degree: 255 }
    }
}

/// What a pass over text found at one site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SiteReport {
    /// The site.
    pub site: String,
    /// Its function.
    pub function: Function,
    /// What was seen.
    pub observed: Observed,
    /// Values outside the certified range.
    pub violations: u64,
}

/// Runs windows of tokens through the model, on all threads, and reports every site. Linear maps
/// take f32, everything else f64; the result does not depend on the number of threads.
///
/// # Errors
/// Bad tokens, no window, or no polynomials in polynomial mode.
pub fn survey(model: &Model, windows: &[Vec<u32>], mode: Mode) -> Result<Vec<SiteReport>> {
    let parts = parts(
        model,
        windows,
        mode,
        |runner| runner,
        |runner| runner.stats().map(|(_, _, stats)| *stats).collect::<Vec<SiteStats>>(),
    )?;
    let mut parts = parts.into_iter();
    let mut all = parts.next().unwrap_or_default();
    for part in parts {
        for (stats, other) in all.iter_mut().zip(&part) {
            stats.observed.merge(&other.observed);
            stats.violations += other.violations;
        }
    }
    let report = |((site, function), stats): ((String, Function), SiteStats)| SiteReport {
        site,
        function,
        observed: stats.observed,
        violations: stats.violations,
    };
    Ok(model.shape().sites().into_iter().zip(all).map(report).collect())
}

/// Runs parts of the windows, each with a runner of its own, and takes something from each runner
/// at the end. Parts are in order and their number is that of the threads, so what is taken must
/// join to the same whole however the windows are cut.
fn parts<T: Send>(
    model: &Model,
    windows: &[Vec<u32>],
    mode: Mode,
    begin: impl for<'r> Fn(Runner<'r>) -> Runner<'r> + Sync,
    end: impl Fn(&Runner<'_>) -> T + Sync,
) -> Result<Vec<T>> {
    if windows.is_empty() {
        return Err(Error::Empty);
    }
    let prepared = Prepared::new(model)?;
    let each = windows.len().div_ceil(4 * rayon::current_num_threads());
    let part = |part: &[Vec<u32>]| {
        let mut runner = begin(prepared.runner(mode)?);
        part.iter().try_for_each(|window| run(&mut runner, model.shape(), window))?;
        Ok(end(&runner))
    };
    windows.par_chunks(each).map(part).collect()
}

/// How much of a text leaves the certified ranges.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutOfRange {
    /// Windows looked at.
    pub windows: u64,
    /// Windows in which at least one value leaves its range: there the polynomials prove nothing.
    pub windows_outside: u64,
    /// Values looked at.
    pub values: u64,
    /// Values outside their ranges.
    pub values_outside: u64,
    /// The site that most of them are of.
    pub worst: Option<String>,
}

impl OutOfRange {
    /// Upper end of the exact one-sided confidence interval (Clopper and Pearson, Biometrika 26,
    /// 1934) of the rate of windows with a value outside. Windows are the unit, because values of
    /// one text hang together.
    pub fn bound(&self, confidence: f64) -> f64 {
        let (n, k) = (self.windows, self.windows_outside);
        if k >= n {
            return 1.0;
        }
        // The rate at which no more than k of n are seen with probability 1 - confidence.
        let at_most = |rate: f64| {
            let (mut term, mut sum) = (n as f64 * (-rate).ln_1p(), 0.0);
            for i in 0..=k {
                sum += term.exp();
                term += (((n - i) as f64) / ((i + 1) as f64)).ln() + rate.ln() - (-rate).ln_1p();
            }
            sum
        };
        let (mut lo, mut hi) = (0.0, 1.0);
        for _ in 0..60 {
            let rate = 0.5 * (lo + hi);
            if at_most(rate) > 1.0 - confidence { lo = rate } else { hi = rate }
        }
        hi
    }
}

/// Counts what leaves the certified ranges of a model, window by window.
///
/// # Errors
/// Bad tokens or no window; [`Error::NoScheme`] without certified ranges.
pub fn out_of_range(model: &Model, windows: &[Vec<u32>]) -> Result<OutOfRange> {
    if windows.is_empty() {
        return Err(Error::Empty);
    }
    if let (true, Some((site, _))) = (model.spec().sites.is_empty(), model.shape().sites().first()) {
        return Err(Error::NoScheme { site: site.clone() });
    }
    let prepared = Prepared::new(model)?;
    let count = |window: &Vec<u32>| -> Result<Vec<(u64, u64)>> {
        let mut runner = prepared.runner(Mode::Exact)?;
        run(&mut runner, model.shape(), window)?;
        Ok(runner.stats().map(|(_, _, stats)| (stats.observed.count, stats.violations)).collect())
    };
    let counts: Vec<_> = windows.par_iter().map(count).collect::<Result<_>>()?;
    let outside = |sites: &[(u64, u64)]| sites.iter().map(|(_, outside)| outside).sum::<u64>();
    let by_site: Vec<u64> =
        (0..model.spec().sites.len()).map(|site| counts.iter().map(|sites| sites[site].1).sum()).collect();
    let worst = (0..by_site.len()).filter(|&site| by_site[site] > 0).max_by_key(|&site| by_site[site]);
    Ok(OutOfRange {
        windows: counts.len() as u64,
        windows_outside: counts.iter().filter(|sites| outside(sites) > 0).count() as u64,
        values: counts.iter().flatten().map(|(count, _)| count).sum(),
        values_outside: by_site.iter().sum(),
        worst: worst.map(|site| model.spec().sites[site].name.clone()),
    })
}

/// How the denominator's constants are frozen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Freezing {
    /// Largest mean of a row over its constant.
    pub ratio: f64,
    /// A maximum is that of the rows from `row / reach` to `row * reach`, and of two to each side
    /// at least: a reach of 1 is those two. Means differ little from row to row, while their tails
    /// are long: the largest of few windows at one row says little of what another text has there,
    /// and the largest of many rows says more.
    pub reach: f64,
    /// Constants that are frozen already are not lowered.
    pub raise: bool,
}

impl Freezing {
    /// Anew, each row by itself and two to each side.
    pub fn at(ratio: f64) -> Self {
        Self { ratio, reach: 1.0, raise: false }
    }
}

/// Freezes the denominator's constant for each (layer, head, row) at `max mean / ratio`, maxima
/// from calibration windows, so that every row of every head shares the domain
/// `[1, 1 + ratio * margin]`.
///
/// Rows that no window reaches take the constant of the last row that one did. The result is a new
/// model without certified sites.
///
/// # Errors
/// Bad windows, a reach below 1, or attention other than PowerSoftmax.
pub fn freeze_eps(model: &Model, windows: &[Vec<u32>], how: Freezing) -> Result<Model> {
    let Freezing { ratio, reach, raise } = how;
    let Attention::PowerSoftmax { p, c, .. } = model.shape().attention else {
        return Err(Error::Unsupported {
            operation: "freezing eps",
            model: "attention without a denominator",
        });
    };
    if !(1.0..=1e6).contains(&reach) {
        let reason = "a row looks at itself and at rows near it: from 1 to 1000000";
        return Err(Error::Shape { field: "reach", value: reach.to_string(), reason });
    }
    let seen = parts(
        model,
        windows,
        Mode::Exact,
        |runner| runner.with_row_means(),
        |runner| runner.row_means().map(<[f64]>::to_vec).unwrap_or_default(),
    )?;
    let mut maxima = vec![0.0f64; model.shape().layers * model.shape().heads * model.shape().context];
    for part in seen {
        maxima.iter_mut().zip(part).for_each(|(max, seen)| *max = max.max(seen));
    }
    let shape =
        Shape { attention: Attention::PowerSoftmax { p, c, eps: Eps::Frozen }, ..model.shape().clone() };
    let mut weights = model.weights().clone();
    for l in 0..shape.layers {
        let rows = &maxima[l * shape.heads * shape.context..][..shape.heads * shape.context];
        let mut eps: Vec<f64> =
            rows.chunks_exact(shape.context).flat_map(|head| smoothed(head, ratio, reach)).collect();
        let name = format!("layers.{l}.attn.eps");
        if let Some(before) = model.weights().values(&name).filter(|_| raise) {
            eps.iter_mut().zip(before).for_each(|(eps, before)| *eps = eps.max(*before));
        }
        weights.insert(name, &[shape.heads, shape.context], eps)?;
    }
    model.with(shape, weights)
}

/// Certifies every site: ranges from `calibration` widened by the margins, then checked on
/// `held_out`.
///
/// The model carries the sites afterwards, violations included; [`ensure_certified`] tells whether
/// it may be used.
///
/// # Errors
/// Bad windows; values that are not finite.
pub fn certify(
    model: &mut Model,
    calibration: &[Vec<u32>],
    held_out: &[Vec<u32>],
    margins: &Margins,
) -> Result<()> {
    let seen = survey(model, calibration, Mode::Exact)?;
    let mut sites = Vec::with_capacity(seen.len());
    for report in seen {
        let (range, margin) = widen(model.shape(), &report, margins)?;
        sites.push(Site {
            name: report.site,
            function: report.function,
            range,
            observed: report.observed,
            margin,
            violations: 0,
            checked: 0,
            held_out: None,
            scheme: None,
        });
    }
    model.set_sites(sites.clone());
    if !held_out.is_empty() {
        for (site, report) in sites.iter_mut().zip(survey(model, held_out, Mode::Exact)?) {
            site.violations = report.violations;
            site.checked = report.observed.count;
            let Observed { min, max, .. } = report.observed;
            site.held_out = (report.violations > 0).then_some(Range { lo: min, hi: max });
        }
        model.set_sites(sites);
    }
    Ok(())
}

/// Refuses a model with uncertified or violated sites.
///
/// # Errors
/// [`Error::NoScheme`] or [`Error::Violated`] naming the first such site.
pub fn ensure_certified(model: &Model) -> Result<()> {
    for (name, function) in model.shape().sites() {
        let Some(site) = model.site(&name) else { return Err(Error::NoScheme { site: name }) };
        if site.violations > 0 {
            // What calibration saw lies inside the range; what left it was on held-out text.
            let Range { lo: min, hi: max } =
                site.held_out.unwrap_or(Range { lo: site.observed.min, hi: site.observed.max });
            return Err(Error::Violated {
                site: name,
                violations: site.violations,
                lo: site.range.lo,
                hi: site.range.hi,
                min,
                max,
            });
        }
        if function.is_nonlinear() && site.scheme.is_none() {
            return Err(Error::NoScheme { site: name });
        }
    }
    Ok(())
}

/// Fits a polynomial to every non-linear certified site.
///
/// # Errors
/// [`Error::Fit`] when no degree up to the limit reaches the target; [`Error::NoScheme`]
/// when the model is not certified.
pub fn fit(model: &mut Model, options: &FitOptions) -> Result<()> {
    let mut sites = model.spec().sites.clone();
    if let (true, Some((first, _))) = (sites.is_empty(), model.shape().sites().first()) {
        return Err(Error::NoScheme { site: first.clone() });
    }
    for site in sites.iter_mut().filter(|s| s.function.is_nonlinear()) {
        let target = match site.function {
            Function::Reciprocal => options.reciprocal,
            Function::InvSqrt => options.inv_sqrt,
            _ => options.activation,
        };
        site.scheme = Some(cheapest(site, target, options.max_degree)?);
    }
    model.set_sites(sites);
    Ok(())
}

/// Smallest depth whose full degree reaches the target.
fn cheapest(site: &Site, target: f64, max_degree: usize) -> Result<Scheme> {
    let mut degree = 3;
    let mut best = f64::INFINITY;
    while degree <= max_degree {
        let scheme = Scheme::interpolate(&site.name, site.function, site.range, degree)?;
        if scheme.error <= target {
            return Ok(scheme);
        }
        best = best.min(scheme.error);
        degree = 2 * degree + 1;
    }
    let reason = format!(
        "degree {max_degree} reaches {best:.1e}, the target is {target:.1e}: control the range in training"
    );
    Err(Error::Fit { site: site.name.clone(), lo: site.range.lo, hi: site.range.hi, reason })
}

fn run(runner: &mut Runner<'_>, shape: &Shape, window: &[u32]) -> Result<()> {
    match shape.kind {
        Kind::Decoder => runner.forward(window, Positions::All).map(|_| ()),
        Kind::Encoder { .. } => runner.classify(window, None).map(|_| ()),
        Kind::Embedder { .. } => runner.hidden(window, None).map(|_| ()),
    }
}

fn smoothed(maxima: &[f64], ratio: f64, reach: f64) -> Vec<f64> {
    let reached = maxima.iter().rposition(|&m| m > 0.0).unwrap_or(0);
    let row = |i: usize| {
        let i = i.min(reached);
        let first = i.saturating_sub(2).min((i as f64 / reach) as usize);
        let last = (i + 2).max((i as f64 * reach) as usize).min(reached);
        let near = &maxima[first..=last];
        let top = near.iter().copied().fold(0.0, f64::max);
        if top > 0.0 { top / ratio } else { 1.0 / ratio }
    };
    (0..maxima.len()).map(row).collect()
}

fn widen(shape: &Shape, report: &SiteReport, margins: &Margins) -> Result<(Range, f64)> {
    let Observed { min, max, count, not_finite } = report.observed;
    if not_finite > 0 || count == 0 {
        return Err(Error::Fit {
            site: report.site.clone(),
            lo: min,
            hi: max,
            reason: format!("{not_finite} of {count} calibration values are not finite"),
        });
    }
    let symmetric = |factor: f64| {
        let bound = (factor * min.abs().max(max.abs())).max(LEAST_MAGNITUDE);
        (Range { lo: -bound, hi: bound }, factor)
    };
    Ok(match report.function {
        Function::Identity => symmetric(margins.magnitude),
        Function::Gelu | Function::Silu | Function::Tanh => symmetric(margins.activation),
        Function::InvSqrt => {
            let lo = (min / margins.variance).max(shape.norm_eps);
            (Range { lo, hi: max * margins.variance }, margins.variance)
        }
        Function::Reciprocal => {
            // An even power is never negative, so eps itself is a lower bound that needs no margin.
            let floor = match shape.attention {
                Attention::PowerSoftmax { eps: Eps::Absolute { value }, .. } => value,
                Attention::PowerSoftmax { eps: Eps::Frozen, .. } => 1.0,
                _ => min / margins.denominator,
            };
            (
                Range { lo: floor, hi: floor + margins.denominator * (max - floor).max(floor) },
                margins.denominator,
            )
        }
    })
}
