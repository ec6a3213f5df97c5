//! Between training and the data model that everything downstream reads.

use std::path::Path;

use cipherlm_model::import::Checkpoint;
use cipherlm_model::{FitOptions, Kind, MODEL_FILE, Margins, Mode, Model, Positions, Runner, Weights};
use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::checkpoint::{Weighed, read_weights};
use crate::error::{Error, Result};
use crate::params::HostParam;

/// What the two forward passes say about one text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Comparison {
    /// Of a model that continues text.
    Continuation(Perplexities),
    /// Of a model that makes vectors of sentences.
    Vectors(Distances),
}

/// How far the vectors of sentences are from each other: one minus the cosine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Distances {
    /// Sentences.
    pub sentences: usize,
    /// Mean distance of the exact and the polynomial pass.
    pub mean: f64,
    /// Largest.
    pub largest: f64,
    /// Values outside a certified range on this text, in the exact pass.
    pub violations: u64,
}

/// How well a text is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Perplexities {
    /// Tokens scored.
    pub tokens: usize,
    /// Perplexity per token of the exact model.
    pub exact: f64,
    /// Perplexity per token with every function a polynomial.
    pub polynomial: f64,
    /// Share of positions at which both prefer the same token.
    pub same_top1: f64,
    /// Values outside a certified range on this text, in the exact pass.
    pub violations: u64,
}

/// The data model of an architecture and its parameters, not yet certified.
pub fn export(name: &str, arch: &Arch, params: &[HostParam]) -> Result<Model> {
    arch.check_exportable()?;
    let mut weights = Weights::new();
    for param in params {
        weights.insert(&param.name, &param.shape, param.data.iter().map(|&x| f64::from(x)).collect())?;
    }
    Ok(Model::new(name, arch.shape.clone(), weights)?.with_prefix(arch.prefix.clone())?)
}

/// The way back, for evaluation or further training.
pub fn import(model: &Model) -> Result<Weighed> {
    let model = &model.with_repeated_heads()?;
    let arch = Arch { prefix: model.spec().prefix.clone(), ..Arch::new(model.shape().clone()) };
    let param = |(name, dims): (String, Vec<usize>)| {
        let missing = || Error::Shape { name: name.clone(), expected: dims.clone(), found: Vec::new() };
        let values = model.weights().values(&name).ok_or_else(missing)?;
        Ok(HostParam::new(&name, &dims, values.iter().map(|&x| x as f32).collect()))
    };
    let params = arch.shape.tensors().into_iter().map(param).collect::<Result<Vec<_>>>()?;
    Ok((arch, params))
}

/// Shape and weights of a model folder, of a folder with a public checkpoint, or of a checkpoint.
pub fn read(path: &Path) -> Result<Weighed> {
    if !path.is_dir() {
        return read_weights(path);
    }
    match path.join(MODEL_FILE).exists() {
        true => import(&cipherlm_model::difference::load(path)?),
        false => import(&Checkpoint::open(path)?.model()?),
    }
}

/// Certifies ranges from calibration windows, fits the polynomials and checks held-out windows. The
/// model is returned only if no held-out value left its range.
pub fn certify(
    mut model: Model,
    calibration: &[Vec<u32>],
    held_out: &[Vec<u32>],
    margins: &Margins,
    fit: &FitOptions,
) -> Result<Model> {
    cipherlm_model::certify(&mut model, calibration, held_out, margins)?;
    cipherlm_model::fit(&mut model, fit)?;
    cipherlm_model::ensure_certified(&model)?;
    Ok(model)
}

/// Scores windows of `context + 1` tokens, or sentences, with the exact and the polynomial f64
/// pass.
pub fn compare(model: &Model, windows: &[&[u32]]) -> Result<Comparison> {
    Ok(match model.shape().kind {
        Kind::Embedder { .. } => Comparison::Vectors(vectors(model, windows)?),
        _ => Comparison::Continuation(continuations(model, windows)?),
    })
}

fn vectors(model: &Model, sentences: &[&[u32]]) -> Result<Distances> {
    let mut exact = Runner::new(model, Mode::Exact)?;
    let mut polynomial = Runner::new(model, Mode::Polynomial)?;
    let (mut sum, mut largest) = (0.0f64, 0.0f64);
    for sentence in sentences {
        let [a, b] = [exact.sentence(sentence, None)?, polynomial.sentence(sentence, None)?];
        let distance = 1.0 - a.iter().zip(&b).map(|(a, b)| a * b).sum::<f64>();
        sum += distance;
        // NaN must not pass for a small distance.
        if distance > largest || distance.is_nan() {
            largest = distance;
        }
    }
    let violations = exact.stats().map(|(_, _, s)| s.violations).sum();
    Ok(Distances {
        sentences: sentences.len(),
        mean: sum / sentences.len().max(1) as f64,
        largest,
        violations,
    })
}

fn continuations(model: &Model, windows: &[&[u32]]) -> Result<Perplexities> {
    let mut exact = Runner::new(model, Mode::Exact)?;
    let mut polynomial = Runner::new(model, Mode::Polynomial)?;
    let (mut nats, mut tokens, mut same) = ([0.0f64; 2], 0usize, 0usize);
    for window in windows {
        let (inputs, targets) = (&window[..window.len() - 1], &window[1..]);
        let a = exact.forward(inputs, Positions::All)?;
        let b = polynomial.forward(inputs, Positions::All)?;
        for ((a, b), &target) in a.iter().zip(&b).zip(targets) {
            nats[0] -= log_probability(a, target);
            nats[1] -= log_probability(b, target);
            same += usize::from(argmax(a) == argmax(b));
            tokens += 1;
        }
    }
    let count = tokens.max(1) as f64;
    Ok(Perplexities {
        tokens,
        exact: (nats[0] / count).exp(),
        polynomial: (nats[1] / count).exp(),
        same_top1: same as f64 / count,
        violations: exact.stats().map(|(_, _, s)| s.violations).sum(),
    })
}

fn log_probability(logits: &[f64], token: u32) -> f64 {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|l| (l - largest).exp()).sum();
    logits.get(token as usize).map_or(f64::NEG_INFINITY, |l| l - largest - sum.ln())
}

fn argmax(values: &[f64]) -> Option<usize> {
    (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b]))
}
