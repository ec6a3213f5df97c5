//! What is transformed on words, in which passes, and the twiddle factors as words.

use crate::modulus::Modulus;

/// `3 * 2^44`: values up to 64 stay below `2^52`, and the way back to floats is exact.
pub(in crate::kernel) const LIMIT: u64 = 3 << 44;

/// The smallest degree that has a pass before the blocks.
const MIN_LOG_DEGREE: u32 = 8;

/// Elements of the blocks whose six levels run in registers.
pub(super) const BLOCK: usize = 64;

/// Elements that are taken through all their passes at a time, at most; 8 KiB.
pub(super) const LEAF: usize = 1 << 10;

/// Whether transforms for this modulus and degree run on words.
pub(in crate::kernel) fn fits(modulus: &Modulus, log_n: u32) -> bool {
    modulus.value() < LIMIT && log_n >= MIN_LOG_DEGREE
}

/// The levels above the blocks: sizes of blocks and levels of each pass, largest first. Three
/// levels a pass, and two in the last one or two where the number is no multiple of three.
pub(super) fn passes(log_n: u32) -> impl DoubleEndedIterator<Item = (usize, u32)> {
    let levels = log_n - BLOCK.trailing_zeros();
    let twos = (3 - levels % 3) % 3;
    let threes = (levels - 2 * twos) / 3;
    let pass = move |k| if k < threes { (3 * k, 3) } else { (2 * k + threes, 2) };
    (0..threes + twos).map(pass).map(move |(above, levels)| (1 << (log_n - above), levels))
}

/// The size of the largest pass within [`LEAF`], or of a block.
pub(super) fn leaf(log_n: u32) -> usize {
    passes(log_n).map(|(size, _)| size).find(|&size| size <= LEAF).unwrap_or(BLOCK)
}

/// Twiddle factors of one direction.
///
/// With `w[i] = psi^reverse(i)`, block `i` of the level with `m` blocks has the factor of number
/// `m + i`, and its halves have numbers `2 (m + i)` and `2 (m + i) + 1` in the next.
#[derive(Debug)]
pub(in crate::kernel) struct WordTwiddles {
    /// The passes, largest blocks first; for each block the factors of its levels, then their
    /// quotients.
    passes: Vec<u64>,
    /// Where passes start, by the logarithm of their number of blocks.
    starts: Vec<usize>,
    /// Eight lines for each block of 64 elements: the quotients alone, from which the factors
    /// follow.
    tail: Vec<Line>,
}

/// A cache line, so that vector loads do not straddle two.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u64; 8]);

impl WordTwiddles {
    /// From the powers of the root in bit-reversed order.
    pub(in crate::kernel) fn new(m: &Modulus, powers: &[f64]) -> Self {
        let (n, log_n) = (powers.len(), powers.len().trailing_zeros());
        let word = |i: usize| powers[i] as u64;
        let quotient = |i: usize| ((u128::from(word(i)) << 52) / u128::from(m.value())) as u64;
        let (mut list, mut starts) = (Vec::new(), vec![0; log_n as usize]);
        for (size, levels) in passes(log_n) {
            let blocks = n / size;
            starts[blocks.trailing_zeros() as usize] = list.len();
            for block in blocks..2 * blocks {
                let numbers = || (0..levels).flat_map(move |k| (block << k)..((block + 1) << k));
                list.extend(numbers().map(word));
                list.extend(numbers().map(quotient));
            }
        }
        let mut tail = Vec::with_capacity(n / 8);
        for a in n / BLOCK..2 * n / BLOCK {
            // Levels between whole vectors; the first word only pads.
            tail.push(Line([a, a, 2 * a, 2 * a + 1, 4 * a, 4 * a + 1, 4 * a + 2, 4 * a + 3].map(quotient)));
            // Levels within pairs of vectors, in the order in which vectors of factors are made
            // from them.
            let line = |from: usize, order: [usize; 8]| Line(order.map(|k| quotient(from + k)));
            tail.push(line(8 * a, [0, 2, 1, 3, 4, 6, 5, 7]));
            tail.extend([0, 8].map(|k| line(16 * a + k, [0, 4, 2, 6, 1, 5, 3, 7])));
            tail.extend([0, 8, 16, 24].map(|k| line(32 * a + k, [0, 1, 4, 5, 2, 3, 6, 7])));
        }
        Self { passes: list, starts, tail }
    }

    /// The factors of a block of the pass of so many levels over `blocks` blocks.
    #[inline(always)]
    pub(super) fn pass(&self, blocks: usize, block: usize, levels: u32) -> *const u64 {
        let words = 2 * ((1 << levels) - 1);
        self.passes[self.starts[blocks.trailing_zeros() as usize] + words * block..][..words].as_ptr()
    }

    /// The quotients of the six levels in blocks of 64, from `block` on.
    #[inline(always)]
    pub(super) fn tail(&self, block: usize) -> *const u64 {
        self.tail[8 * block..].as_ptr().cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_cover_the_levels_above_the_blocks() {
        for log_n in MIN_LOG_DEGREE..=17 {
            let mut size = 1 << log_n;
            for (at, levels) in passes(log_n) {
                assert!(at == size && (2..=3).contains(&levels), "N = 2^{log_n}");
                size >>= levels;
            }
            assert_eq!(size, BLOCK, "N = 2^{log_n}");
        }
    }
}
