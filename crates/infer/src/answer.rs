//! Answers out of decrypted vectors.

use cipherlm_ckks::Complex64;
use cipherlm_model::Kind;
use cipherlm_protocol::Answers;

use crate::error::{Error, Result};

/// Logits of one position out of decrypted vectors, after a look at what a real answer cannot have:
/// imaginary parts, values in slots that hold nothing, logits beyond their certified range.
/// Whatever goes wrong under encryption fills all slots.
///
/// # Errors
/// [`Error::NotAnAnswer`]; as [`logits`].
pub(crate) fn read(layout: &Answers, outputs: &[Vec<Complex64>], position: usize) -> Result<Vec<f64>> {
    check_vectors(layout, outputs.len())?;
    let real = ensure_real(outputs)?;
    for token in 0..layout.tokens {
        let row = row(layout, &real, token, layout.vectors * layout.features);
        at_most("a slot that holds nothing", row[layout.results..].iter().copied(), SLACK)?;
    }
    let logits = logits(layout, &real, position)?;
    let units = logits.iter().map(|x| x / layout.unit);
    at_most("a logit, in units of its certified range,", units, 1.0 + SLACK)?;
    Ok(logits)
}

/// Logits of one position out of the decrypted output vectors.
///
/// # Errors
/// [`Error::Malformed`] for another number of vectors, [`Error::Position`] for a
/// position outside the plan.
pub(crate) fn logits(layout: &Answers, outputs: &[Vec<f64>], position: usize) -> Result<Vec<f64>> {
    check_vectors(layout, outputs.len())?;
    let token = if layout.last { 0 } else { position };
    if token >= layout.tokens {
        let advice = "the plan has fewer positions: ask for one of the prompt";
        return Err(Error::Position { position, length: layout.tokens, advice });
    }
    let row = row(layout, outputs, token, layout.results);
    Ok(row.into_iter().map(|x| x * layout.unit).collect())
}

/// Position at which the answer to a prompt of `length` tokens stands: a decoder's last token, an
/// encoder's first; the last one where there is one answer.
pub(crate) fn position(kind: Kind, layout: &Answers, length: usize) -> usize {
    if kind == Kind::Decoder || layout.last { length.saturating_sub(1) } else { 0 }
}

/// Refuses a position that an answer to `length` tokens does not have.
///
/// # Errors
/// [`Error::Position`].
pub fn check_position(layout: &Answers, position: usize, length: usize) -> Result<()> {
    let alone = layout.last && position + 1 != length;
    if position < length && !alone {
        return Ok(());
    }
    let advice = if alone {
        "this plan answers the last token alone: ask for that, or plan for all positions"
    } else {
        "positions count from 0 to the prompt's last token"
    };
    Err(Error::Position { position, length, advice })
}

/// Vector and slot of each column of a token.
pub(crate) fn places(layout: &Answers, token: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
    let features = layout.features;
    (0..layout.vectors * features)
        .map(move |column| (column / features, token * features + column % features))
}

/// The first `width` numbers of a token.
fn row(layout: &Answers, vectors: &[Vec<f64>], token: usize, width: usize) -> Vec<f64> {
    places(layout, token).take(width).map(|(vector, slot)| vectors[vector][slot]).collect()
}

fn check_vectors(layout: &Answers, found: usize) -> Result<()> {
    let expected = layout.vectors;
    if found == expected {
        return Ok(());
    }
    let reason = format!("it has {found} vectors, the plan gives {expected}");
    Err(Error::Malformed { what: "encrypted logits".into(), reason })
}

/// What errors of encryption may add to a slot of an answer. Those seen are below 2^-9; what is no
/// answer is near 1 or far beyond.
pub(crate) const SLACK: f64 = 1.0 / 32.0;

/// The real parts, if there is nothing else.
pub(crate) fn ensure_real(vectors: &[Vec<Complex64>]) -> Result<Vec<Vec<f64>>> {
    at_most("an imaginary part", vectors.iter().flatten().map(|slot| slot.im), SLACK)?;
    Ok(vectors.iter().map(|slots| slots.iter().map(|slot| slot.re).collect()).collect())
}

pub(crate) fn at_most(what: &'static str, values: impl Iterator<Item = f64>, bound: f64) -> Result<()> {
    let larger = |most: f64, x: f64| if x.abs() > most || x.is_nan() { x.abs() } else { most };
    let found = values.fold(0.0, larger);
    if found <= bound { Ok(()) } else { Err(Error::NotAnAnswer { what, found, bound }) }
}
