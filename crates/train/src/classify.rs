//! Encoders that classify a text: data, training, accuracy, export.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use cipherlm_model::{Mode, Model, Runner, Tokenizer};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::arch::Arch;
use crate::descent::{Descent, Outcome};
use crate::error::{Error, Result};
use crate::learned::Learned;
use crate::loss::{cross_entropy, padded, scalar};
use crate::params::{HostParam, gradients, pull, push};
use crate::probe::Probe;
use crate::settings::TrainConfig;
use crate::text::read_text;
use crate::transformer::Transformer;

/// Accuracy with its uncertainty.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Questions.
    pub count: usize,
    /// Share answered rightly, by total likelihood.
    pub accuracy: f64,
    /// Share answered rightly, by likelihood per byte of the continuation.
    pub normalised: f64,
    /// Accuracy of guessing.
    pub chance: f64,
    /// Half width of the 95 % interval of `accuracy` (normal approximation).
    pub interval: f64,
}

impl Score {
    /// From counts: right by likelihood, right per byte, all, and the expected number right by
    /// guessing.
    pub fn new(right: usize, normalised: usize, count: usize, chance: f64) -> Self {
        let n = count.max(1) as f64;
        let accuracy = right as f64 / n;
        Self {
            count,
            accuracy,
            normalised: normalised as f64 / n,
            chance: chance / n,
            interval: 1.96 * (accuracy * (1.0 - accuracy) / n).sqrt(),
        }
    }

    /// True if the accuracy is above chance at the 95 % level.
    pub fn significant(&self) -> bool {
        self.accuracy - self.interval > self.chance
    }
}

/// A text and its class.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// Token ids, at most the model's context.
    pub tokens: Vec<u32>,
    /// Class.
    pub label: usize,
}

/// Sentences with their classes.
pub type Sentences = Vec<(String, usize)>;

/// Reads the sentence polarity data set (Pang and Lee 2005): class 0 negative, 1 positive; every
/// tenth pair of sentences is held out. Returns training and held-out sentences.
pub fn sentence_polarity(folder: &Path) -> Result<(Sentences, Sentences)> {
    let [negative, positive] =
        ["neg", "pos"].map(|name| read_text(&folder.join(format!("rt-polarity.{name}.utf8.xz"))));
    let (negative, positive) = (negative?, positive?);
    let (mut train, mut held_out) = (Vec::new(), Vec::new());
    for (i, (n, p)) in negative.lines().zip(positive.lines()).enumerate() {
        let side = if i % 10 == 9 { &mut held_out } else { &mut train };
        side.extend([(n.trim().to_owned(), 0), (p.trim().to_owned(), 1)]);
    }
    if held_out.is_empty() {
        return Err(Error::CorpusTooShort { tokens: train.len(), needed: 20 });
    }
    Ok((train, held_out))
}

/// Tokenises sentences, cut to `context` tokens.
pub fn encode(tokenizer: &Tokenizer, sentences: &[(String, usize)], context: usize) -> Result<Vec<Example>> {
    let example = |(text, label): &(String, usize)| {
        let mut tokens = tokenizer.encode(text)?;
        tokens.truncate(context);
        Ok(Example { tokens, label: *label })
    };
    let kept = |e: &Result<Example>| e.as_ref().map_or(true, |e| !e.tokens.is_empty());
    sentences.iter().map(example).filter(kept).collect()
}

/// An encoder in training.
pub struct Classifier {
    model: Transformer,
    params: Vec<HostParam>,
    descent: Descent,
    settings: TrainConfig,
    device: Device,
    step: usize,
}

impl Classifier {
    /// Random weights from the settings' seed.
    pub fn new(arch: &Arch, settings: TrainConfig, device: &Device) -> Result<Self> {
        if arch.causal() {
            return Err(Error::config("kind", "decoder", "encoder"));
        }
        let device = device.clone().autodiff();
        let model = Transformer::new(arch, settings.seed, &device, DType::F32)?;
        let mut params = pull(&model);
        settings.check(&params)?;
        let descent = Descent::new(Learned::new(&mut params, &settings.learn, settings.seed));
        let model = push(model, &params)?;
        Ok(Self { model, params, descent, settings, device, step: 0 })
    }

    /// One optimiser update on a random batch; returns the loss in nats. Where it is not finite,
    /// the update before is undone and the error says so; the next call goes on.
    pub fn step(&mut self, examples: &[Example]) -> Result<f64> {
        if examples.is_empty() {
            return Err(Error::CorpusTooShort { tokens: 0, needed: 1 });
        }
        let s = &self.settings;
        let mut rng = ChaCha8Rng::seed_from_u64(s.seed);
        rng.set_stream(self.step as u64);
        let batch: Vec<&Example> =
            (0..s.batch).map(|_| &examples[rng.random_range(0..examples.len())]).collect();
        let logits = forward(&self.model, &batch, &self.device)?;
        let labels = batch.iter().map(|e| e.label as u32).collect();
        let [count, classes] = logits.dims();
        let loss = cross_entropy(logits.reshape([count, 1, classes]), labels);
        let value = scalar(&loss);
        let grads = self.descent.learned.gradients(gradients(&self.model, &mut loss.backward()));
        let rate = s.schedule.rate(self.step, s.steps);
        self.step += 1;
        let outcome =
            self.descent.step(&s.optimiser, (value, grads), s.clip, rate, self.step, &mut self.params)?;
        self.model = push(self.model.clone(), &self.params)?;
        match outcome {
            Outcome::Moved { .. } => Ok(value),
            Outcome::Undone(reason) => Err(Error::Diverged { step: self.step, reason }),
        }
    }

    /// The model on the plain device.
    pub fn valid(&self) -> Transformer {
        self.model.valid()
    }

    /// Its parameters.
    pub fn params(&self) -> &[HostParam] {
        &self.params
    }
}

/// Share of examples whose most likely class is theirs, beside the share of the largest class.
pub fn accuracy(model: &Transformer, examples: &[Example]) -> Result<Score> {
    let device = model.device();
    let mut right = 0usize;
    for batch in examples.chunks(32) {
        let batch: Vec<&Example> = batch.iter().collect();
        let logits = forward(model, &batch, &device)?;
        let classes = logits.dims()[1];
        let values: Vec<f32> = logits.into_data().iter::<f32>().collect();
        for (row, example) in values.chunks(classes).zip(&batch) {
            right += usize::from(likeliest(row) == Some(example.label));
        }
    }
    Ok(score(right, examples))
}

/// As [`accuracy`], of an exported model with every function a polynomial, in f64.
pub fn polynomial_accuracy(model: &Model, examples: &[Example]) -> Result<Score> {
    let mut runner = Runner::new(model, Mode::Polynomial)?;
    let mut right = 0usize;
    for example in examples {
        let row = runner.classify(&example.tokens, None)?;
        right += usize::from(likeliest(&row) == Some(example.label));
    }
    Ok(score(right, examples))
}

fn likeliest<T: PartialOrd>(row: &[T]) -> Option<usize> {
    (0..row.len()).reduce(|best, i| if row[i] > row[best] { i } else { best })
}

/// Chance is the share of the largest class.
fn score(right: usize, examples: &[Example]) -> Score {
    let largest = examples.iter().map(|e| examples.iter().filter(|o| o.label == e.label).count()).max();
    Score::new(right, right, examples.len(), largest.unwrap_or(0) as f64)
}

/// Class logits `[batch, classes]`.
fn forward(model: &Transformer, batch: &[&Example], device: &Device) -> Result<Tensor<2>> {
    let sentences: Vec<&[u32]> = batch.iter().map(|e| &e.tokens[..]).collect();
    let (ids, keep) = padded(model.arch(), &sentences, device)?;
    let logits = model.classify(ids, keep, &mut Probe::off());
    logits.ok_or_else(|| Error::config("kind", "decoder", "encoder"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn significance_needs_the_interval_above_chance() {
        let near = Score::new(52, 50, 100, 50.0);
        assert!(
            (near.accuracy - 0.52).abs() < 1e-12 && (near.chance - 0.5).abs() < 1e-12 && !near.significant()
        );
        assert!(Score::new(700, 700, 1000, 500.0).significant());
    }
}
