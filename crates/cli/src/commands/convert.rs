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
    use super::train::{begin, report, show};
    use crate::console::err;
    use anyhow::Context;
    use cipherlm_train::card::write_folder;

    let prepared = begin(options)?;
    let start = prepared.run.start.clone();
    let start = start.context("the recipe has no `start`: name the model folder to convert")?;
    let shown = cipherlm_files::shown(&start);
    err(&format!("{shown}: {} parameters", prepared.arch.shape.parameters()));
    let bar = crate::progress::bar(!as_json);
    let trained = prepared.train(options.resume, |event| show(&bar, event, as_json))?;
    bar.finish_and_clear();
    let folder = options.out.as_deref().unwrap_or(&prepared.run.folder);
    let (trained, written) = prepared.write_difference(trained, folder)?;
    if let Some(written) = written {
        let (tensors, bytes, lost) = (written.tensors, written.bytes, written.lost);
        err(&format!("difference: {tensors} tensors, {bytes} bytes, {lost:.4} of the change lost"));
    }
    let (before, after) = prepared.compared(&trained)?;
    let what = if prepared.arch.causal() { "held-out nats a token" } else { "distance from the start" };
    err(&format!("{what}: {before:.4} before, {after:.4} after"));
    let shipped = prepared.export(&trained)?;
    report(&prepared.run.name, &shipped, as_json);
    if let Some(out) = &options.out {
        write_folder(&prepared, &shipped, &trained, out)?;
    }
    Ok(true)
}
