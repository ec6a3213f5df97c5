//! Scored byte-pair encoding (llama2.c, SentencePiece): the adjacent pair whose joint token has the
//! best score is merged first, the leftmost among equals.
//!
//! The `tokenizers` crate has no such rule: it ranks *pairs*, so two pairs that make one token,
//! which score alike here, have an order there, and runs such as `aaaaa` merge at another place.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use crate::error::{Error, Result};

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scored {
    pub(super) tokens: Vec<Vec<u8>>,
    pub(super) scores: Vec<f32>,
    /// Token that stands for a single byte, tried when no token spells the character.
    pub(super) bytes: Box<[u32; 256]>,
    /// Marks: text never becomes one.
    pub(super) special: Vec<u32>,
    ids: HashMap<Vec<u8>, u32>,
}

/// A pair that can be merged: best score first, then the leftmost.
struct Candidate {
    score: f32,
    left: usize,
    right: usize,
    /// Lengths in bytes of both parts when the pair was found: a part that grew since makes it
    /// stale.
    lengths: (usize, usize),
    merged: u32,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

impl Scored {
    /// `bytes[b]` is the token of byte `b`; those tokens are never the result of a merge.
    pub(super) fn new(
        tokens: Vec<Vec<u8>>,
        scores: Vec<f32>,
        bytes: Box<[u32; 256]>,
        special: Vec<u32>,
    ) -> Result<Self> {
        let what = "scored tokenizer";
        if scores.len() != tokens.len() || tokens.is_empty() {
            let reason = format!("{} scores for {} tokens", scores.len(), tokens.len());
            return Err(Error::malformed(what, reason));
        }
        if let Some(id) = scores.iter().position(|s| !s.is_finite()) {
            return Err(Error::malformed(what, format!("the score of token {id} is not finite")));
        }
        if let Some(byte) = (0..256).find(|&b| bytes[b] as usize >= tokens.len()) {
            return Err(Error::malformed(what, format!("byte {byte} has no token")));
        }
        // Byte tokens first: a token that spells the same character replaces them.
        let mut ids: HashMap<Vec<u8>, u32> =
            (0..=255u8).map(|byte| (vec![byte], bytes[usize::from(byte)])).collect();
        let spelled = tokens.iter().enumerate().map(|(id, text)| (text, id as u32));
        ids.extend(
            spelled
                .filter(|(_, id)| !bytes.contains(id) && !special.contains(id))
                .map(|(text, id)| (text.clone(), id)),
        );
        Ok(Self { tokens, scores, bytes, special, ids })
    }

    pub(super) fn id(&self, bytes: &[u8]) -> Option<u32> {
        self.ids.get(bytes).copied()
    }

    /// Tokens of a text, without marks. Time grows as `n log n`.
    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        // Symbols are ranges of the text, linked so that a merge takes constant time.
        let source = text.as_bytes();
        let mut symbols: Vec<Symbol> = vec![];
        for (at, c) in text.char_indices() {
            match self.id(&source[at..at + c.len_utf8()]) {
                Some(id) => symbols.push(Symbol::new(id, at, c.len_utf8(), false)),
                None => (at..at + c.len_utf8()).for_each(|i| {
                    symbols.push(Symbol::new(self.bytes[usize::from(source[i])], i, 1, true));
                }),
            }
        }
        let count = symbols.len();
        for (i, symbol) in symbols.iter_mut().enumerate() {
            (symbol.previous, symbol.next) = (i.checked_sub(1), Some(i + 1).filter(|&n| n < count));
        }
        let mut heap: BinaryHeap<Candidate> =
            (1..count).filter_map(|right| self.candidate(&symbols, source, right - 1, right)).collect();
        while let Some(best) = heap.pop() {
            let (left, right) = (symbols[best.left], symbols[best.right]);
            if (left.length, right.length) != best.lengths || left.next != Some(best.right) {
                continue;
            }
            symbols[best.left] =
                Symbol { id: best.merged, length: left.length + right.length, next: right.next, ..left };
            symbols[best.right].length = 0;
            if let Some(next) = right.next {
                symbols[next].previous = Some(best.left);
                heap.extend(self.candidate(&symbols, source, best.left, next));
            }
            if let Some(previous) = left.previous {
                heap.extend(self.candidate(&symbols, source, previous, best.left));
            }
        }
        symbols.iter().filter(|s| s.length > 0).map(|s| s.id).collect()
    }

    fn candidate(&self, symbols: &[Symbol], source: &[u8], left: usize, right: usize) -> Option<Candidate> {
        let (a, b) = (symbols[left], symbols[right]);
        if a.raw || b.raw {
            return None;
        }
        let merged = self.id(&source[a.at..b.at + b.length])?;
        let score = self.scores[merged as usize];
        Some(Candidate { score, left, right, lengths: (a.length, b.length), merged })
    }
}

#[derive(Clone, Copy)]
struct Symbol {
    id: u32,
    at: usize,
    length: usize,
    /// One byte of a character without a token; never merged.
    raw: bool,
    previous: Option<usize>,
    next: Option<usize>,
}

impl Symbol {
    fn new(id: u32, at: usize, length: usize, raw: bool) -> Self {
        Self { id, at, length, raw, previous: None, next: None }
    }
}

/// The single byte that a token such as `<0x0A>` stands for.
pub(super) fn byte_of(token: &[u8]) -> Option<u8> {
    let hex = std::str::from_utf8(token).ok()?.strip_prefix("<0x")?.strip_suffix('>')?;
    if hex.len() == 2 { u8::from_str_radix(hex, 16).ok() } else { None }
}
