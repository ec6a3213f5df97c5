//! Values that left their ranges, before a run and after it.

use cipherlm_ckks::Complex64;
use cipherlm_model::{Model, Runner};

use crate::error::{InferError, Result};

/// Refuses what a clear run in polynomial mode has shown to leave a certified range.
///
/// # Errors
/// [`InferError::LeavesRange`] for the first such site.
pub fn ensure_in_range(model: &Model, runner: &Runner<'_>) -> Result<()> {
    leaves_range(model, runner, None, None)
}

pub(super) fn leaves_range(
    model: &Model,
    runner: &Runner<'_>,
    position: Option<usize>,
    repeated: Option<usize>,
) -> Result<()> {
    let Some((site, _, stats)) = runner.stats().find(|(_, _, stats)| stats.violations > 0) else {
        return Ok(());
    };
    let (lo, hi) = model.site(site).map_or((f64::NAN, f64::NAN), |site| (site.range.lo, site.range.hi));
    let (min, max) = (stats.observed.min, stats.observed.max);
    Err(InferError::LeavesRange { position, repeated, site: site.into(), lo, hi, min, max })
}

/// What errors of encryption may add to a slot of an answer. Those seen are below 2^-9; what is no
/// answer is near 1 or far beyond.
pub(super) const SLACK: f64 = 1.0 / 32.0;

/// The real parts, if there is nothing else.
pub(crate) fn ensure_real(vectors: &[Vec<Complex64>]) -> Result<Vec<Vec<f64>>> {
    at_most("an imaginary part", vectors.iter().flatten().map(|slot| slot.im), SLACK)?;
    Ok(vectors.iter().map(|slots| slots.iter().map(|slot| slot.re).collect()).collect())
}

pub(crate) fn at_most(what: &'static str, values: impl Iterator<Item = f64>, bound: f64) -> Result<()> {
    let larger = |most: f64, x: f64| if x.abs() > most || x.is_nan() { x.abs() } else { most };
    let found = values.fold(0.0, larger);
    if found <= bound { Ok(()) } else { Err(InferError::NotAnAnswer { what, found, bound }) }
}
