//! Token streams: packed training windows by seed and step, held-out windows in order.

use std::ops::Range;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};

/// Text as token ids: one packed stream, or sentences that stand by themselves.
#[derive(Debug, Clone)]
pub struct Corpus {
    tokens: Vec<u32>,
    words: usize,
    /// Where each sentence lies in `tokens`; none for a stream.
    sentences: Vec<Range<usize>>,
    /// Numbers of the sentences, the shortest first.
    by_length: Vec<usize>,
}

impl Corpus {
    /// A stream; `words` is the number of words of the text, for word-level perplexity (0 if not
    /// wanted).
    pub fn new(tokens: Vec<u32>, words: usize) -> Self {
        Self { tokens, words, sentences: Vec::new(), by_length: Vec::new() }
    }

    /// Sentences; empty ones are left out.
    pub fn of_sentences(sentences: &[Vec<u32>]) -> Self {
        let mut ranges = Vec::new();
        let mut tokens = Vec::new();
        for sentence in sentences.iter().filter(|s| !s.is_empty()) {
            ranges.push(tokens.len()..tokens.len() + sentence.len());
            tokens.extend_from_slice(sentence);
        }
        let mut by_length: Vec<usize> = (0..ranges.len()).collect();
        by_length.sort_by_key(|&at| ranges[at].len());
        Self { tokens, words: 0, sentences: ranges, by_length }
    }

    /// All tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Words of the text.
    pub fn words(&self) -> usize {
        self.words
    }

    /// BLAKE3 of the tokens, hexadecimal.
    pub(crate) fn hash(&self) -> String {
        let ends = self.sentences.iter().map(|s| s.end as u32);
        let bytes: Vec<u8> = self.tokens.iter().copied().chain(ends).flat_map(|t| t.to_le_bytes()).collect();
        crate::stamp::hash(&bytes)
    }

    /// The windows of one training batch, each of `context + 1` tokens, or sentences of at most
    /// `context`, all of one length: padding would be work for nothing, and its values would count
    /// where ranges are limited. The same seed and step give the same windows, so a run's position
    /// in the data is its step.
    pub fn batch(&self, seed: u64, step: u64, batch: usize, context: usize) -> Result<Vec<&[u32]>> {
        let span = self.starts(context)?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(step);
        if !self.sentences.is_empty() {
            let length = |at: usize| self.sentences[at].len().min(context);
            let wanted = length(rng.random_range(0..span));
            let from = self.by_length.partition_point(|&at| length(at) < wanted);
            let to = self.by_length.partition_point(|&at| length(at) <= wanted);
            let alike = &self.by_length[from..to];
            return Ok((0..batch)
                .map(|_| self.at(alike[rng.random_range(0..alike.len())], context))
                .collect());
        }
        Ok((0..batch).map(|_| self.at(rng.random_range(0..span), context)).collect())
    }

    /// `count` windows of `context + 1` tokens spread evenly over the stream, never overlapping, or
    /// sentences of at most `context`; fewer if it is short.
    pub fn windows(&self, count: usize, context: usize) -> Result<Vec<&[u32]>> {
        self.starts(context)?;
        let stream = self.sentences.is_empty();
        let fitting = if stream { (self.tokens.len() - 1) / context } else { self.sentences.len() };
        let count = count.min(fitting).max(1);
        let stride = if stream { context } else { 1 };
        Ok((0..count).map(|i| self.at(i * fitting / count * stride, context)).collect())
    }

    /// The window that begins at a token, or the sentence of that number.
    fn at(&self, start: usize, context: usize) -> &[u32] {
        match self.sentences.get(start) {
            Some(sentence) => &self.tokens[sentence.start..sentence.end.min(sentence.start + context)],
            None => &self.tokens[start..start + context + 1],
        }
    }

    /// Number of places where a window can begin.
    fn starts(&self, context: usize) -> Result<usize> {
        if !self.sentences.is_empty() {
            return Ok(self.sentences.len());
        }
        match self.tokens.len().checked_sub(context) {
            Some(span) if span > 0 => Ok(span),
            _ => Err(Error::CorpusTooShort { tokens: self.tokens.len(), needed: context + 1 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_depend_on_seed_and_step_only() {
        let corpus = Corpus::new((0..1000).collect(), 0);
        let starts =
            |seed, step| corpus.batch(seed, step, 4, 8).unwrap().iter().map(|w| w[0]).collect::<Vec<_>>();
        assert_eq!(starts(1, 5), starts(1, 5));
        assert_ne!(starts(1, 5), starts(1, 6));
        assert_ne!(starts(1, 5), starts(2, 5));
        assert!(corpus.batch(1, 0, 4, 8).unwrap().iter().all(|w| w.len() == 9));
    }

    #[test]
    fn windows_cover_without_overlap_and_short_text_is_refused() {
        let corpus = Corpus::new((0..101).collect(), 0);
        let windows = corpus.windows(100, 10).unwrap();
        assert_eq!(windows.len(), 10);
        assert!(windows.windows(2).all(|w| w[0][10] == w[1][0]));
        assert!(matches!(corpus.windows(1, 101), Err(Error::CorpusTooShort { needed: 102, .. })));
        assert!(matches!(Corpus::new(vec![], 0).batch(0, 0, 1, 4), Err(Error::CorpusTooShort { .. })));
    }

    #[test]
    fn sentences_are_cut_to_the_context_and_spread_evenly() {
        let corpus = Corpus::of_sentences(&[vec![1, 2], vec![], vec![3, 4, 5], vec![6]]);
        assert_eq!(corpus.windows(9, 2).unwrap(), [&[1, 2][..], &[3, 4], &[6]]);
        assert_eq!(corpus.windows(1, 5).unwrap(), [&[1, 2][..]]);
        let mut lengths = [0; 3];
        for step in 0..40 {
            let batch = corpus.batch(1, step, 8, 2).unwrap();
            assert!(batch.iter().all(|s| [&[1, 2][..], &[3, 4], &[6]].contains(s)));
            assert!(batch.iter().all(|s| s.len() == batch[0].len()), "{batch:?}");
            lengths[batch[0].len()] += 1;
        }
        assert!(lengths[1] > 5 && lengths[2] > 15, "{lengths:?}");
        assert_ne!(corpus.hash(), Corpus::new(vec![1, 2, 3, 4, 5, 6], 0).hash());
    }
}
