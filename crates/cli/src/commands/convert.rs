//! `cipherlm convert`: a pretrained softmax model to PowerSoftmax and polynomials, and the
//! difference that is shipped.

use super::train::Options;

/// Without the feature there is nothing to convert with; the message says how to get it.
#[cfg(not(feature = "train"))]
pub(crate) fn run(_options: &Options, _as_json: bool) -> anyhow::Result<bool> {
    anyhow::bail!("this build cannot convert: build with `--features train`")
}

/// Runs the stages of the recipe, writes the difference from the model that they start from, and
/// certifies what that difference makes of it.
#[cfg(feature = "train")]
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    use super::train::{begin, finish};
    use crate::console::err;
    use anyhow::Context;

    let prepared = begin(options)?;
    let start = prepared.run.start.clone();
    let start = start.context("the recipe has no `start`: name the model folder to convert")?;
    let shown = cipherlm_files::shown(&start);
    err(&format!("{shown}: {} parameters", prepared.arch.shape.parameters()));
    finish(options, &prepared, as_json)
}
