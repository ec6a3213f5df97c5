//! Several prompts of one client in one pass: each has every `n`-th slot of vectors that `n`
//! prompts share.

use cipherlm_circuits::linear::LinearTransform;
use cipherlm_circuits::slots::{self, Plain};

use crate::error::{Error, Result};

/// As many prompts as a pass takes: the last one again in places that are left, because whatever
/// is in a slot has to stay in the model's ranges.
///
/// # Errors
/// [`Error::Prompts`] for none or too many.
pub(crate) fn fill<'t>(prompts: &[&'t [u32]], places: usize) -> Result<Vec<&'t [u32]>> {
    check_count(prompts.len(), places)?;
    Ok((0..places).map(|place| prompts[place.min(prompts.len() - 1)]).collect())
}

/// Refuses another number of prompts than a pass takes.
///
/// # Errors
/// [`Error::Prompts`].
pub(crate) fn check_count(given: usize, capacity: usize) -> Result<()> {
    if (1..=capacity).contains(&given) { Ok(()) } else { Err(Error::Prompts { given, capacity }) }
}

/// Refuses a message of another number of prompts than the plan has places for.
///
/// # Errors
/// [`Error::Mismatch`].
pub(crate) fn check_places(given: usize, places: usize) -> Result<()> {
    if given == places {
        return Ok(());
    }
    let (expected, found) = (format!("a plan of {places}"), given.to_string());
    Err(Error::Mismatch { what: "number of prompts", expected, found })
}

/// Something of every prompt; an error says which one it comes from, if there are several.
///
/// # Errors
/// The first one; [`Error::OfPrompt`].
pub(crate) fn of_each<T>(prompts: &[&[u32]], of: impl Fn(&[u32]) -> Result<T>) -> Result<Vec<T>> {
    let numbered = |(prompt, tokens): (usize, &&[u32])| {
        of(tokens).map_err(|source| match prompts.len() {
            1 => source,
            _ => Error::OfPrompt { prompt: prompt + 1, source: Box::new(source) },
        })
    };
    prompts.iter().enumerate().map(numbered).collect()
}

/// One period of every vector of every prompt, slot by slot.
pub(crate) fn interleave(prompts: Vec<Vec<Vec<f64>>>) -> Vec<Vec<f64>> {
    let lanes = prompts.len();
    let Some((first, [_, ..])) = prompts.split_first() else {
        return prompts.into_iter().next().unwrap_or_default();
    };
    let vector =
        |v: usize| (0..first[v].len() * lanes).map(|slot| prompts[slot % lanes][v][slot / lanes]).collect();
    (0..first.len()).map(vector).collect()
}

/// The slots of one prompt.
pub(crate) fn lane<T: Copy>(slots: &[T], lanes: usize, lane: usize) -> Vec<T> {
    slots.iter().copied().skip(lane).step_by(lanes).collect()
}

/// The slots of one prompt in each vector.
pub(crate) fn lane_of_each<T: Copy>(vectors: &[Vec<T>], lanes: usize, number: usize) -> Vec<Vec<T>> {
    vectors.iter().map(|slots| lane(slots, lanes, number)).collect()
}

/// What the number of each text, its length or a position, asks for; once where all have the same.
pub(crate) fn by_text<T>(numbers: &[usize], of: impl Fn(usize) -> Result<T>) -> Result<Vec<T>> {
    let alike = numbers.windows(2).all(|pair| pair[0] == pair[1]);
    let numbers = if alike { &numbers[..numbers.len().min(1)] } else { numbers };
    numbers.iter().map(|&number| of(number)).collect()
}

/// One plaintext for all prompts, or each prompt's own in its `slots` slots.
pub(crate) fn join(plains: &[Plain], slots: usize) -> Plain {
    match plains {
        [one] => one.clone(),
        several => Plain::interleaved(several, slots),
    }
}

/// One map for all prompts, or each prompt's own.
pub(crate) fn join_maps(maps: Vec<LinearTransform>) -> slots::Result<LinearTransform> {
    match <[_; 1]>::try_from(maps) {
        Ok([one]) => Ok(one),
        Err(several) => LinearTransform::interleaved(&several.iter().collect::<Vec<_>>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_take_turns_and_come_apart_again() {
        let prompts: Vec<Vec<Vec<f64>>> =
            (0..4).map(|p| (0..2).map(|v| vec![f64::from(10 * p + v); 3]).collect()).collect();
        let together = interleave(prompts.clone());
        assert_eq!(together[1], [1.0, 11.0, 21.0, 31.0].repeat(3));
        for (number, prompt) in prompts.iter().enumerate() {
            assert_eq!(&lane_of_each(&together, 4, number), prompt);
        }
        assert_eq!(interleave(prompts[..1].to_vec()), prompts[0]);
    }

    #[test]
    fn the_last_prompt_fills_the_places_that_are_left() {
        let prompts: [&[u32]; 3] = [&[1], &[2], &[3, 3]];
        assert_eq!(fill(&prompts, 4).unwrap(), [&[1u32][..], &[2], &[3, 3], &[3, 3]]);
        for given in [0, 3] {
            let refused = fill(&prompts[..given], 2);
            assert!(matches!(refused, Err(Error::Prompts { given: g, capacity: 2 }) if g == given));
        }
        let of = |tokens: &[u32]| if tokens == [2] { Err(Error::EmptyPrompt) } else { Ok(tokens.len()) };
        assert!(matches!(of_each(&prompts, of), Err(Error::OfPrompt { prompt: 2, .. })));
        assert!(matches!(of_each(&prompts[1..2], of), Err(Error::EmptyPrompt)));
        assert_eq!(of_each(&prompts[2..], of).unwrap(), [2]);
    }

    #[test]
    fn lengths_that_are_alike_ask_once() {
        assert_eq!(by_text(&[5, 5, 5, 5], Ok).unwrap(), [5]);
        assert_eq!(by_text(&[5, 4], Ok).unwrap(), [5, 4]);
    }
}
