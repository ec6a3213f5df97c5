//! Tokens from logits.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha20Rng;

/// Picks tokens by temperature and nucleus.
pub(super) struct Sampler {
    temperature: f64,
    top_p: f64,
    rng: ChaCha20Rng,
}

impl Sampler {
    pub(super) fn new(temperature: f64, top_p: f64, seed: u64) -> Self {
        Self { temperature, top_p, rng: ChaCha20Rng::seed_from_u64(seed) }
    }

    /// The next token; the first of equals at temperature 0.
    pub(super) fn pick(&mut self, logits: &[f64], bias: &BTreeMap<usize, f64>) -> usize {
        let mut logits = logits.to_vec();
        for (&token, value) in bias {
            if let Some(logit) = logits.get_mut(token) {
                *logit += value;
            }
        }
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        let Some(&best) = order.first() else { return 0 };
        if self.temperature == 0.0 {
            return best;
        }
        let weight = |token: &usize| ((logits[*token] - logits[best]) / self.temperature).exp();
        let weights: Vec<f64> = order.iter().map(weight).collect();
        let all: f64 = weights.iter().sum();
        // The fewest tokens that hold this much of the probability.
        let mut held = 0.0;
        let kept = weights.iter().take_while(|weight| {
            let wanted = held < self.top_p * all;
            held += **weight;
            wanted
        });
        let kept: Vec<f64> = kept.copied().collect();
        let mut at = self.rng.random::<f64>() * kept.iter().sum::<f64>();
        for (token, weight) in order.iter().zip(&kept) {
            at -= weight;
            if at <= 0.0 {
                return *token;
            }
        }
        best
    }
}

/// The most likely tokens with their log-probabilities, and that of one token.
pub(super) fn log_probabilities(logits: &[f64], token: usize, count: usize) -> (f64, Vec<(usize, f64)>) {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum = top + logits.iter().map(|x| (x - top).exp()).sum::<f64>().ln();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    let best = order.into_iter().take(count).map(|token| (token, logits[token] - sum)).collect();
    (logits.get(token).map_or(f64::NEG_INFINITY, |logit| logit - sum), best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nucleus_leaves_out_the_tail_and_bias_counts() {
        let logits = [0.0, 3.0, 2.0, -1.0];
        let none = BTreeMap::new();
        let mut narrow = Sampler::new(1.0, 0.6, 1);
        assert!((0..200).all(|_| narrow.pick(&logits, &none) == 1), "one token holds 0.6");
        let mut wide = Sampler::new(1.0, 0.9, 1);
        let found: std::collections::BTreeSet<usize> = (0..200).map(|_| wide.pick(&logits, &none)).collect();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(Sampler::new(0.0, 1.0, 1).pick(&logits, &BTreeMap::from([(3, 9.0)])), 3);
        let (own, best) = log_probabilities(&logits, 2, 2);
        assert_eq!(best.iter().map(|(t, _)| *t).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(best[1].1, own);
        let all: f64 = (0..4).map(|t| log_probabilities(&logits, t, 0).0.exp()).sum();
        assert!((all - 1.0).abs() < 1e-12);
    }
}
