//! Values that leave their ranges, before a run.

use cipherlm_model::{Model, Runner};

use crate::error::{Error, Result};

/// Refuses what a clear run in polynomial mode has shown to leave a certified range.
///
/// # Errors
/// [`Error::LeavesRange`] for the first such site.
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
    Err(Error::LeavesRange { position, repeated, site: site.into(), lo, hi, min, max })
}
