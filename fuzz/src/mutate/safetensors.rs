//! Edits of safetensors: eight bytes of length, a JSON header, data.

use super::{EXTREMES, FLOATS, bytes, json};
use crate::rng::Rng;

/// One edit of the header, the data or both; the length of the header is made right again, most of
/// the time.
pub(crate) fn safetensors(input: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut Rng) {
    let Some((mut header, mut data)) = open(input) else { return bytes(input, others, rng) };
    match rng.below(4) {
        0 | 1 => json(&mut header, &[], rng),
        2 => values(&mut data, rng),
        _ => {
            let count = rng.below(9);
            if rng.one_in(2) {
                data.truncate(data.len().saturating_sub(count))
            } else {
                data.resize(data.len() + count, 0)
            }
        }
    }
    let mut length = header.len() as u64;
    if rng.one_in(8) {
        length = EXTREMES[rng.below(EXTREMES.len())];
    }
    *input = [length.to_le_bytes().as_slice(), &header, &data].concat();
}

fn open(input: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (head, rest) = input.split_first_chunk()?;
    let (header, data) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*head)).ok()?)?;
    Some((header.to_vec(), data.to_vec()))
}

/// A run of numbers becomes one extreme number.
fn values(data: &mut [u8], rng: &mut Rng) {
    let count = data.len() / 4;
    let from = rng.below(count);
    let end = (from + (1 << rng.below(10))).min(count);
    let value = (FLOATS[rng.below(FLOATS.len())] as f32).to_le_bytes();
    data.as_chunks_mut::<4>().0[from..end].fill(value);
}
