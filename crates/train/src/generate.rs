//! Text generation by sampling.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};
use crate::probe::Probe;
use crate::transformer::{Transformer, token_tensor};

/// How the next token is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f64,
    /// Only this many most likely tokens are candidates; 0 for all.
    pub top_k: usize,
    /// Tokens that the tokenizer knows: a padded vocabulary has more, and none of those is drawn.
    pub vocab: usize,
    /// Seed of the draws.
    pub seed: u64,
}

/// Continues `prompt` by at most `count` tokens, stopping at a token of `stop`; returns the new
/// tokens. The model sees the last tokens that its context holds.
pub fn generate(
    model: &Transformer,
    prompt: &[u32],
    count: usize,
    stop: &[u32],
    how: Sampling,
) -> Result<Vec<u32>> {
    if prompt.is_empty() {
        return Err(Error::config("prompt", "empty", "at least one token"));
    }
    let arch = model.arch();
    let device = model.device();
    let mut rng = ChaCha8Rng::seed_from_u64(how.seed);
    let mut all = prompt.to_vec();
    for _ in 0..count {
        let seen = &all[all.len().saturating_sub(arch.room())..];
        let logits = model.forward(token_tensor(arch, seen, 1, &device)?, None, &mut Probe::off());
        let last = logits.slice([0..1, seen.len() - 1..seen.len(), 0..how.vocab.min(arch.shape.vocab)]);
        let logits: Vec<f64> = last.into_data().iter::<f64>().collect();
        let token = sample(&logits, how, rng.random());
        if stop.contains(&token) {
            break;
        }
        all.push(token);
    }
    Ok(all.split_off(prompt.len()))
}

/// Draws a token from logits with a uniform number from [0, 1).
pub fn sample(logits: &[f64], how: Sampling, uniform: f64) -> u32 {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    if how.temperature <= 0.0 {
        return order.first().map_or(0, |&i| i as u32);
    }
    if how.top_k > 0 {
        order.truncate(how.top_k);
    }
    let top = order.first().map_or(0.0, |&i| logits[i]);
    let weights: Vec<f64> = order.iter().map(|&i| ((logits[i] - top) / how.temperature).exp()).collect();
    let mut left = uniform * weights.iter().sum::<f64>();
    for (&i, w) in order.iter().zip(&weights) {
        left -= w;
        if left < 0.0 {
            return i as u32;
        }
    }
    order.last().map_or(0, |&i| i as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampling_follows_the_distribution() {
        let logits = [0.0, 2f64.ln(), 4f64.ln(), -50.0];
        let how = |temperature, top_k| Sampling { temperature, top_k, vocab: 4, seed: 0 };
        assert_eq!(sample(&logits, how(0.0, 0), 0.999), 2);
        let share = |k, token| {
            (0..7000).filter(|i| sample(&logits, how(1.0, k), f64::from(*i) / 7000.0) == token).count()
        };
        assert!(
            share(0, 2).abs_diff(4000) < 3
                && share(0, 1).abs_diff(2000) < 3
                && share(0, 0).abs_diff(1000) < 3
        );
        assert_eq!(share(1, 2), 7000);
    }
}
