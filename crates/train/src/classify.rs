//! Encoders that classify a text: data, training, accuracy, export.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use cipherlm_model as spec;
use cipherlm_model::Tokenizer;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::export::{refuse, shape, spec_name};
use crate::optim::{Moments, clip_global_norm};
use crate::params::{HostParam, gradients, pull, push};
use crate::probe::Probe;
use crate::recipe::read_text;
use crate::tasks::Score;
use crate::trainer::{TrainConfig, cross_entropy, scalar};
use crate::transformer::{Encoder, check_tokens};

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

/// Reads the sentence polarity data set (Pang and Lee 2005): class 0 negative, 1 positive; every tenth pair of sentences is
/// held out. Returns training and held-out sentences.
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
pub fn encode(
    tokenizer: &Tokenizer,
    sentences: &[(String, usize)],
    context: usize,
) -> cipherlm_model::Result<Vec<Example>> {
    let example = |(text, label): &(String, usize)| {
        let mut tokens = tokenizer.encode(text)?;
        tokens.truncate(context);
        Ok(Example { tokens, label: *label })
    };
    let kept = |e: &cipherlm_model::Result<Example>| e.as_ref().map_or(true, |e| !e.tokens.is_empty());
    sentences.iter().map(example).filter(kept).collect()
}

/// An encoder in training.
pub struct Classifier {
    model: Encoder,
    params: Vec<HostParam>,
    moments: Moments,
    settings: TrainConfig,
    device: Device,
    step: usize,
}

impl Classifier {
    /// Random weights from the settings' seed.
    pub fn new(config: &ModelConfig, classes: usize, settings: TrainConfig, device: &Device) -> Result<Self> {
        let device = device.clone().autodiff();
        let model = Encoder::new(config, classes, settings.seed, &device, DType::F32)?;
        let params = pull(&model);
        Ok(Self { moments: Moments::new(&params), model, params, settings, device, step: 0 })
    }

    /// One optimiser update on a random batch; returns the loss in nats.
    pub fn step(&mut self, examples: &[Example]) -> Result<f64> {
        if examples.is_empty() {
            return Err(Error::CorpusTooShort { tokens: 0, needed: 1 });
        }
        let s = &self.settings;
        let mut rng = ChaCha8Rng::seed_from_u64(s.seed);
        rng.set_stream(self.step as u64);
        let batch: Vec<&Example> = (0..s.batch).map(|_| &examples[rng.random_range(0..examples.len())]).collect();
        let logits = forward(&self.model, &batch, &self.device)?;
        let labels = batch.iter().map(|e| e.label as u32).collect();
        let [count, classes] = logits.dims();
        let loss = cross_entropy(logits.reshape([count, 1, classes]), labels);
        let value = scalar(&loss);
        let mut grads = gradients(&self.model, &mut loss.backward());
        let norm = clip_global_norm(&mut grads, s.clip);
        if !value.is_finite() || !norm.is_finite() {
            let reason = format!("the loss is {value}, the gradient norm {norm}");
            return Err(Error::Diverged { step: self.step + 1, reason });
        }
        let rate = s.schedule.rate(self.step, s.steps);
        s.optimiser.update(&mut self.params, &mut self.moments, &grads, rate, self.step + 1);
        self.model = push(self.model.clone(), &self.params)?;
        self.step += 1;
        Ok(value)
    }

    /// The model on the plain device.
    pub fn valid(&self) -> Encoder {
        self.model.valid()
    }

    /// Its parameters.
    pub fn params(&self) -> &[HostParam] {
        &self.params
    }
}

/// Share of examples whose most likely class is theirs, beside the share of the largest class.
pub fn accuracy(model: &Encoder, examples: &[Example]) -> Result<Score> {
    let device = model.body.embedding.val().device();
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
pub fn polynomial_accuracy(model: &spec::Model, examples: &[Example]) -> Result<Score> {
    let mut runner = spec::Runner::new(model, spec::Mode::Polynomial).map_err(refuse)?;
    let mut right = 0usize;
    for example in examples {
        let row = runner.classify(&example.tokens, None).map_err(refuse)?;
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
fn forward(model: &Encoder, batch: &[&Example], device: &Device) -> Result<Tensor<2>> {
    let config = model.body.config();
    let rows = batch.iter().map(|e| e.tokens.len()).max().unwrap_or(1);
    if rows > config.context {
        return Err(Error::ContextTooLong { tokens: rows, context: config.context });
    }
    let (mut ids, mut keep) = (vec![0i64; batch.len() * rows], vec![0.0f32; batch.len() * rows]);
    for (i, example) in batch.iter().enumerate() {
        check_tokens(config, &example.tokens)?;
        for (j, &token) in example.tokens.iter().enumerate() {
            (ids[i * rows + j], keep[i * rows + j]) = (i64::from(token), 1.0);
        }
    }
    let shape = [batch.len(), rows];
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, shape), (device, DType::I64));
    let keep = Tensor::<2>::from_data(TensorData::new(keep, shape), (device, DType::F32));
    Ok(model.forward(ids, keep, &mut Probe::off()))
}

/// The data model of an encoder, not yet certified.
pub fn export(name: &str, config: &ModelConfig, classes: usize, params: &[HostParam]) -> Result<spec::Model> {
    let shape = spec::Shape { kind: spec::Kind::Encoder { classes }, tied_head: false, ..shape(config)? };
    let frozen = matches!(shape.attention, spec::Attention::PowerSoftmax { eps: spec::Eps::Frozen, .. });
    let mut weights = spec::Weights::new();
    for param in params.iter().filter(|p| p.trained || frozen) {
        let name = match param.name.strip_prefix("body.") {
            Some(name) => spec_name(name, config.post_norm),
            None => param.name.replacen("pooler.", "pool.", 1),
        };
        let data = param.data.iter().map(|&x| f64::from(x)).collect();
        weights.insert(name, &param.shape, data).map_err(refuse)?;
    }
    spec::Model::new(name, shape, weights).map_err(refuse)
}
