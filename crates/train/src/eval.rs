//! Perplexity, likelihood scoring and ranges of a trained model.

use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;

use crate::corpus::Corpus;
use crate::error::Result;
use crate::probe::Probe;
use crate::trainer::{cross_entropy, inputs_and_targets, scalar};
use crate::transformer::{Decoder, token_tensor};

/// Windows evaluated at once.
const BATCH: usize = 16;

/// Mean nats per token over `count` windows spread over the corpus.
pub fn nats_per_token(model: &Decoder, corpus: &Corpus, count: usize) -> Result<f64> {
    observe(model, corpus, count, &mut Probe::off())
}

/// As [`nats_per_token`], with the ranges reported to a probe.
pub fn observe(model: &Decoder, corpus: &Corpus, count: usize, probe: &mut Probe) -> Result<f64> {
    let config = model.config();
    let device = model.embedding.val().device();
    let windows = corpus.windows(count, config.context)?;
    let (mut nats, mut tokens) = (0.0, 0usize);
    for batch in windows.chunks(BATCH) {
        let (inputs, targets) = inputs_and_targets(config, batch, &device)?;
        let logits = model.forward(inputs, None, probe);
        let count = targets.len();
        nats += scalar(&cross_entropy(logits, targets)) * count as f64;
        tokens += count;
    }
    Ok(nats / tokens as f64)
}

/// Perplexity per word, from nats per token over a whole text: comparable between tokenizers.
pub fn word_perplexity(nats_per_token: f64, corpus: &Corpus) -> f64 {
    (nats_per_token * corpus.tokens().len() as f64 / corpus.words().max(1) as f64).exp()
}

/// Natural logarithm of the probability of `continuation` after `context`, and whether it is the greedy choice at
/// every token. The oldest tokens are dropped if both do not fit.
pub fn log_likelihood(model: &Decoder, context: &[u32], continuation: &[u32]) -> Result<(f64, bool)> {
    let config = model.config();
    let all: Vec<u32> = context.iter().chain(continuation).copied().collect();
    let inputs = &all[..all.len().saturating_sub(1)];
    let cut = inputs.len().saturating_sub(config.context);
    let inputs = &inputs[cut..];
    let device = model.embedding.val().device();
    let tokens = token_tensor(config, inputs, 1, &device)?;
    let logits = model.forward(tokens, None, &mut Probe::off());
    let [_, rows, vocab] = logits.dims();
    let logs: Vec<f64> = log_softmax(logits.reshape([rows, vocab]), 1).into_data().iter::<f64>().collect();
    let scored = continuation.len().min(rows);
    let (mut sum, mut greedy) = (0.0, scored == continuation.len());
    for (i, &token) in continuation[continuation.len() - scored..].iter().enumerate() {
        let row = &logs[(rows - scored + i) * vocab..][..vocab];
        sum += row[token as usize];
        greedy &= row.iter().all(|&other| other <= row[token as usize]);
    }
    Ok((sum, greedy))
}

/// Mean distance between a query and the keys it attends to, per layer: how local attention is. Averaged over heads,
/// rows and windows.
pub fn attention_distance(model: &Decoder, corpus: &Corpus, count: usize) -> Result<Vec<f64>> {
    let config = model.config();
    let device = model.embedding.val().device();
    let windows = corpus.windows(count, config.context)?;
    let inputs: Vec<u32> = windows.iter().flat_map(|w| &w[..w.len() - 1]).copied().collect();
    let weights = model.attention_weights(token_tensor(config, &inputs, windows.len(), &device)?);
    Ok(weights.into_iter().map(mean_distance).collect())
}

fn mean_distance(weights: Tensor<4>) -> f64 {
    let [b, h, rows, keys] = weights.dims();
    let values: Vec<f64> = weights.into_data().iter::<f64>().collect();
    let mut sum = 0.0;
    for (at, w) in values.iter().enumerate() {
        let (row, key) = (at / keys % rows, at % keys);
        // Pointwise weights have both signs.
        sum += w.abs() * row.abs_diff(key) as f64;
    }
    sum / (b * h * rows) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    #[test]
    fn distance_counts_negative_weights_by_their_magnitude() {
        let weights = TensorData::new(vec![1.0f32, 0.0, -0.5, 0.5], [1, 1, 2, 2]);
        let weights = Tensor::<4>::from_data(weights, &Device::flex());
        // Row 0 attends to itself; row 1 with half its weight to the key before it.
        assert!((mean_distance(weights) - 0.25).abs() < 1e-12);
    }
}
