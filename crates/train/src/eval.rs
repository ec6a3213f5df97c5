//! Perplexity and ranges of a trained model.

use burn::tensor::Tensor;

use crate::corpus::Corpus;
use crate::error::Result;
use crate::loss::{cosine_distance, cross_entropy, inputs_and_targets, padded, scalar};
use crate::probe::Probe;
use crate::transformer::{Transformer, token_tensor};

/// Windows evaluated at once.
const BATCH: usize = 16;

/// Mean nats per token over `count` windows spread over the corpus.
pub fn nats_per_token(model: &Transformer, corpus: &Corpus, count: usize) -> Result<f64> {
    observe(model, corpus, count, &mut Probe::off())
}

/// Mean distance, one minus the cosine, of mean-pooled sentence vectors from those of another
/// model.
pub fn distance(teacher: &Transformer, model: &Transformer, corpus: &Corpus, count: usize) -> Result<f64> {
    let arch = model.arch();
    let sentences = corpus.windows(count, arch.room())?;
    let mut sum = 0.0;
    for batch in sentences.chunks(BATCH) {
        let (ids, keep) = padded(arch, batch, &model.device())?;
        let [wanted, found] =
            [teacher, model].map(|m| m.sentence(ids.clone(), keep.clone(), &mut Probe::off()));
        sum += scalar(&cosine_distance(wanted, found)) * batch.len() as f64;
    }
    Ok(sum / sentences.len() as f64)
}

/// As [`nats_per_token`], with the ranges reported to a probe.
pub fn observe(model: &Transformer, corpus: &Corpus, count: usize, probe: &mut Probe) -> Result<f64> {
    let arch = model.arch();
    let device = model.device();
    let windows = corpus.windows(count, arch.room())?;
    let (mut nats, mut tokens) = (0.0, 0usize);
    for batch in windows.chunks(BATCH) {
        let (inputs, targets) = inputs_and_targets(arch, batch, &device)?;
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

/// Mean distance between a query and the keys it attends to, per layer: how local attention is.
/// Averaged over heads, rows and windows.
pub fn attention_distance(model: &Transformer, corpus: &Corpus, count: usize) -> Result<Vec<f64>> {
    let arch = model.arch();
    let device = model.device();
    let windows = corpus.windows(count, arch.room())?;
    let inputs: Vec<u32> = windows.iter().flat_map(|w| &w[..w.len() - 1]).copied().collect();
    let weights = model.attention_weights(token_tensor(arch, &inputs, windows.len(), &device)?);
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
