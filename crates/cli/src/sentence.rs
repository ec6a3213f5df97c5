//! Vectors of sentences, in the clear.

use crate::model::Loaded;
use anyhow::bail;
use cipherlm_model::{Kind, Mode, Prepared, Runner};
use rayon::prelude::*;

/// What an encrypted vector has to reach against the polynomials in the clear.
pub(crate) const LEAST_COSINE: f64 = 0.9999;
/// Tokens that a sentence is cut to.
pub(crate) const LENGTH: usize = 64;

/// Refuses a model that makes no vectors.
pub(crate) fn ensure_embeds(loaded: &Loaded, command: &str) -> anyhow::Result<()> {
    match loaded.model.shape().kind {
        Kind::Embedder { .. } => Ok(()),
        _ => bail!(
            "{} answers in tokens or classes and `{command}` takes a model of sentence vectors",
            loaded.name()
        ),
    }
}

/// The tokens of a text, cut to `length` with the closing mark kept.
pub(crate) fn pieces(loaded: &Loaded, text: &str, length: usize) -> anyhow::Result<Vec<u32>> {
    let tokenizer = &loaded.tokenizer;
    let mut tokens = tokenizer.encode(text)?;
    let length = length.min(loaded.model.shape().context);
    if tokens.len() > length {
        let closing = tokenizer.encode("")?.len().saturating_sub(1).min(length);
        let end = tokens.split_off(tokens.len() - closing);
        tokens.truncate(length - closing);
        tokens.extend(end);
    }
    if tokens.is_empty() {
        bail!("a text without tokens has no vector");
    }
    Ok(tokens)
}

/// The vector of each text, in order, on all threads.
pub(crate) fn vectors(
    loaded: &Loaded,
    mode: Mode,
    texts: &[&str],
    length: usize,
) -> anyhow::Result<Vec<Vec<f64>>> {
    let prepared = Prepared::new(&loaded.model)?;
    // Refusals before any work.
    prepared.runner(mode)?;
    let one = |runner: &mut cipherlm_model::Result<Runner<'_>>, text: &&str| {
        let runner = runner.as_mut().map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(runner.sentence(&pieces(loaded, text, length)?, None)?)
    };
    texts.par_iter().map_init(|| prepared.runner(mode), one).collect()
}

/// The dot product: the cosine of two vectors of length 1.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}
