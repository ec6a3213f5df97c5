//! Token streams: packed training windows by seed and step, held-out windows in order.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};

/// Text as one packed stream of token ids.
#[derive(Debug, Clone)]
pub struct Corpus {
    tokens: Vec<u32>,
    words: usize,
}

impl Corpus {
    /// Wraps token ids; `words` is the number of words of the text, for word-level perplexity (0 if not wanted).
    pub fn new(tokens: Vec<u32>, words: usize) -> Self {
        Self { tokens, words }
    }

    /// All tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Words of the text.
    pub fn words(&self) -> usize {
        self.words
    }

    /// The windows of one training batch, each of `context + 1` tokens. The same seed and step give the same windows,
    /// so a run's position in the data is its step.
    pub fn batch(&self, seed: u64, step: u64, batch: usize, context: usize) -> Result<Vec<&[u32]>> {
        let span = self.starts(context)?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(step);
        Ok((0..batch)
            .map(|_| {
                let start = rng.random_range(0..span);
                &self.tokens[start..start + context + 1]
            })
            .collect())
    }

    /// `count` windows of `context + 1` tokens spread evenly over the stream, never overlapping; fewer if it is short.
    pub fn windows(&self, count: usize, context: usize) -> Result<Vec<&[u32]>> {
        self.starts(context)?;
        let fitting = (self.tokens.len() - 1) / context;
        let count = count.min(fitting).max(1);
        Ok((0..count)
            .map(|i| {
                let start = i * fitting / count * context;
                &self.tokens[start..start + context + 1]
            })
            .collect())
    }

    fn starts(&self, context: usize) -> Result<usize> {
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
        let starts = |seed, step| corpus.batch(seed, step, 4, 8).unwrap().iter().map(|w| w[0]).collect::<Vec<_>>();
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
}
