//! Tokens from logits.

use anyhow::bail;
use rand::{RngExt, SeedableRng};

/// Chooses tokens from logits.
pub(crate) struct Sampler {
    temperature: f64,
    top_k: usize,
    rng: rand_chacha::ChaCha20Rng,
}

impl Sampler {
    pub(crate) fn new(temperature: f64, top_k: usize, seed: u64) -> anyhow::Result<Self> {
        if !temperature.is_finite() || temperature < 0.0 || top_k == 0 {
            bail!("temperature {temperature} and top-k {top_k}: at least 0 and at least 1 are needed");
        }
        Ok(Self { temperature, top_k, rng: rand_chacha::ChaCha20Rng::seed_from_u64(seed) })
    }

    /// The next token.
    pub(crate) fn pick(&mut self, logits: &[f64]) -> u32 {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        if self.temperature == 0.0 {
            return order[0] as u32;
        }
        order.truncate(self.top_k);
        let top = logits[order[0]];
        let weights: Vec<f64> = order.iter().map(|i| ((logits[*i] - top) / self.temperature).exp()).collect();
        let mut at = self.rng.random::<f64>() * weights.iter().sum::<f64>();
        for (index, weight) in order.iter().zip(&weights) {
            at -= weight;
            if at <= 0.0 {
                return *index as u32;
            }
        }
        order[order.len() - 1] as u32
    }
}

/// Negative log-likelihood of a token, in nats.
pub(crate) fn loss(logits: &[f64], token: usize) -> f64 {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|x| (x - top).exp()).sum();
    top + sum.ln() - logits[token]
}

/// The most likely token; the first of equals.
pub(crate) fn argmax(logits: &[f64]) -> usize {
    logits.iter().enumerate().fold(0, |best, (i, x)| if *x > logits[best] { i } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_minus_log_softmax() {
        let logits = [1.0, 2.0, 3.0];
        let want = -(3f64.exp() / logits.iter().map(|x: &f64| x.exp()).sum::<f64>()).ln();
        assert!((loss(&logits, 2) - want).abs() < 1e-12);
    }

    #[test]
    fn greedy_and_top_1_sampling_agree() {
        let logits = [0.1, 4.0, -2.0, 3.9];
        let mut greedy = Sampler::new(0.0, 40, 1).unwrap();
        let mut top1 = Sampler::new(1.5, 1, 1).unwrap();
        assert_eq!(greedy.pick(&logits), 1);
        assert_eq!(top1.pick(&logits), 1);
        assert_eq!(argmax(&logits), 1);
    }

    #[test]
    fn sampling_follows_the_weights() {
        let mut sampler = Sampler::new(1.0, 2, 7).unwrap();
        let logits = [0.0, 3f64.ln(), -50.0];
        let ones = (0..4000).filter(|_| sampler.pick(&logits) == 1).count();
        assert!((ones as f64 / 4000.0 - 0.75).abs() < 0.03, "{ones} of 4000");
    }

    #[test]
    fn bad_sampler_settings_are_refused() {
        assert!(Sampler::new(-1.0, 40, 1).is_err());
        assert!(Sampler::new(f64::NAN, 40, 1).is_err());
        assert!(Sampler::new(1.0, 0, 1).is_err());
    }
}
