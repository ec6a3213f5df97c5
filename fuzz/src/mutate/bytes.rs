//! Edits that know nothing of the format.

use super::{EXTREMES, FLOATS};
use crate::rng::Rng;

/// Headers stand in the first bytes: half of all edits go there.
const FRONT: usize = 192;

/// Longest run of bytes that is copied, removed or filled at once.
const RUN: usize = 64;

fn position(length: usize, rng: &mut Rng) -> usize {
    if rng.one_in(2) { rng.below(length.min(FRONT)) } else { rng.below(length) }
}

/// Writes as much of `value` as fits.
fn put(input: &mut [u8], at: usize, value: &[u8]) {
    for (slot, byte) in input.iter_mut().skip(at).zip(value) {
        *slot = *byte;
    }
}

/// One edit. `others` are whole inputs to take pieces of.
pub(crate) fn bytes(input: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut Rng) {
    if input.is_empty() {
        input.extend(rng.next().to_le_bytes());
        return;
    }
    let at = position(input.len(), rng);
    let run = at..(at + 1 + rng.below(RUN)).min(input.len());
    match rng.below(15) {
        0 | 1 => input[at] ^= 1 << rng.below(8),
        2 => input[at] = rng.next() as u8,
        3 | 4 => {
            let value = EXTREMES[rng.below(EXTREMES.len())].to_le_bytes();
            put(input, at, &value[..1 << rng.below(4)]);
        }
        5 => put(input, at, &FLOATS[rng.below(FLOATS.len())].to_le_bytes()),
        6 => put(input, at, &(FLOATS[rng.below(FLOATS.len())] as f32).to_le_bytes()),
        7 => {
            let mut word = [0; 4];
            word.iter_mut().zip(&input[at..]).for_each(|(w, b)| *w = *b);
            let delta = rng.below(9) as u32;
            put(input, at, &u32::from_le_bytes(word).wrapping_add(delta).wrapping_sub(4).to_le_bytes());
        }
        8 => input.truncate(rng.below(input.len() + 1)),
        9 => {
            let value = if rng.one_in(2) { 0 } else { rng.next() as u8 };
            input.extend(std::iter::repeat_n(value, 1 + rng.below(RUN)));
        }
        10 => drop(input.drain(run)),
        11 => {
            let piece = input[run].to_vec();
            let to = position(input.len(), rng);
            input.splice(to..to, piece);
        }
        12 => input[run].fill(if rng.one_in(2) { 0 } else { 0xff }),
        13 => splice(input, others, rng),
        _ => overwrite(input, at, others, rng),
    }
}

/// The front of this input and the back of another.
fn splice(input: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut Rng) {
    if let Some(other) = rng.pick(others) {
        let cut = rng.below(input.len().min(other.len()) + 1);
        input.truncate(cut);
        input.extend_from_slice(&other[cut..]);
    }
}

/// A run of another input over this one.
fn overwrite(input: &mut [u8], at: usize, others: &[Vec<u8>], rng: &mut Rng) {
    if let Some(other) = rng.pick(others).filter(|other| !other.is_empty()) {
        let from = position(other.len(), rng);
        let end = (from + 1 + rng.below(RUN)).min(other.len());
        put(input, at, &other[from..end]);
    }
}
