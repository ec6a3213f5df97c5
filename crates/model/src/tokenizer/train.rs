//! Learning merges.
//!
//! The trainer of the `tokenizers` crate breaks ties by other ids, so it would give the shipped
//! models other tokenizers than the ones they were trained with.

use std::collections::{BTreeSet, HashMap};

use tokenizers::utils::SysRegex;

use super::file::from_merges;
use super::{END_OF_TEXT, Tokenizer};
use crate::error::{Error, Result};

/// GPT-2's cutting rule, the same that encodes with these merges.
const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

pub(super) fn train(text: &str, vocab: usize) -> Result<Tokenizer> {
    if text.is_empty() {
        return Err(Error::Empty);
    }
    if vocab < 258 {
        return Err(Error::malformed(
            "vocabulary size",
            format!("{vocab}, at least 258: bytes, a merge, the mark"),
        ));
    }
    let mut tokens: Vec<Vec<u8>> = (0u8..=255).map(|b| vec![b]).collect();
    let mut merges = vec![];
    let rule = SysRegex::new(WORDS).map_err(|e| Error::malformed("cutting rule", e))?;
    let mut state = State::new(text, &rule);
    while tokens.len() < vocab - 1 {
        let Some(pair) = state.most_frequent() else {
            let reason = format!("the text has pairs for {} tokens, not for {vocab}", tokens.len() + 1);
            return Err(Error::malformed("vocabulary size", reason));
        };
        let id = tokens.len() as u32;
        tokens.push([&tokens[pair.0 as usize][..], &tokens[pair.1 as usize]].concat());
        merges.push(pair);
        state.merge(pair, id);
    }
    let mark = tokens.len() as u32;
    tokens.push(END_OF_TEXT.as_bytes().to_vec());
    from_merges(&tokens, &merges, &[mark])
}

type Pair = (u32, u32);

/// Distinct words as ids with their counts, the counts of adjacent pairs, and which words hold a
/// pair.
struct State {
    words: Vec<(Vec<u32>, i64)>,
    counts: HashMap<Pair, i64>,
    places: HashMap<Pair, BTreeSet<usize>>,
}

impl State {
    fn new(text: &str, rule: &SysRegex) -> Self {
        let mut frequency: HashMap<&str, i64> = HashMap::new();
        for document in text.split(END_OF_TEXT) {
            rule.find_iter(document)
                .for_each(|(from, to)| *frequency.entry(&document[from..to]).or_default() += 1);
        }
        let mut words: Vec<(Vec<u32>, i64)> =
            frequency.into_iter().map(|(w, n)| (w.bytes().map(u32::from).collect(), n)).collect();
        words.sort_unstable();
        let mut out = Self { words: vec![], counts: HashMap::new(), places: HashMap::new() };
        for (index, (word, count)) in words.iter().enumerate() {
            for w in word.windows(2) {
                *out.counts.entry((w[0], w[1])).or_default() += count;
                out.places.entry((w[0], w[1])).or_default().insert(index);
            }
        }
        out.words = words;
        out
    }

    fn most_frequent(&self) -> Option<Pair> {
        let best = self
            .counts
            .iter()
            .filter(|(_, n)| **n > 0)
            .max_by_key(|(pair, n)| (**n, std::cmp::Reverse(**pair)));
        best.map(|(pair, _)| *pair)
    }

    fn merge(&mut self, pair: Pair, id: u32) {
        for index in self.places.remove(&pair).unwrap_or_default() {
            let (word, count) = std::mem::take(&mut self.words[index]);
            for w in word.windows(2) {
                *self.counts.entry((w[0], w[1])).or_default() -= count;
            }
            let mut merged = Vec::with_capacity(word.len());
            let mut i = 0;
            while i < word.len() {
                if i + 1 < word.len() && (word[i], word[i + 1]) == pair {
                    merged.push(id);
                    i += 2;
                } else {
                    merged.push(word[i]);
                    i += 1;
                }
            }
            for w in merged.windows(2) {
                *self.counts.entry((w[0], w[1])).or_default() += count;
                self.places.entry((w[0], w[1])).or_default().insert(index);
            }
            self.words[index] = (merged, count);
        }
        self.counts.remove(&pair);
    }
}
