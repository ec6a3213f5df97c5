//! Seeded models with random weights: for tests, and for planning and timing shapes that nobody
//! trained here.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::certify::{FitOptions, Freezing, Margins, certify, fit, freeze_eps};
use crate::error::Result;
use crate::lean::freeze_norms;
use crate::model::Model;
use crate::shape::{Attention, Eps, Shape};
use crate::weights::Weights;

/// A model of that shape with Gaussian weights of standard deviation `1/sqrt(fan-in)` (half of it
/// for maps into the residual stream), gains near 1, and a placeholder eps.
///
/// # Errors
/// A shape that contradicts itself.
pub fn weights_only(name: &str, shape: &Shape, seed: u64) -> Result<Model> {
    shape.validate()?;
    let mut weights = Weights::new();
    for (index, (tensor, dims)) in shape.tensors().into_iter().enumerate() {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ ((index as u64 + 1) << 32));
        let count: usize = dims.iter().product();
        let (mean, std) = if crate::shape::is_calibrated(&tensor) {
            (1.0, 0.0)
        } else if tensor.ends_with("activation.square") {
            (0.25, 0.05)
        } else if tensor.ends_with("activation.linear") {
            (0.5, 0.1)
        } else if tensor.ends_with(".gain") {
            (1.0, 0.05)
        } else if dims.len() == 1 {
            (0.0, 0.02)
        } else if tensor == "embed.tokens" || tensor == "embed.positions" {
            (0.0, 0.5)
        } else {
            let half = tensor.ends_with("attn.out.weight") || tensor.ends_with("ffn.down.weight");
            (0.0, if half { 0.5 } else { 1.0 } / (dims[0] as f64).sqrt())
        };
        weights.insert(tensor, &dims, (0..count).map(|_| mean + std * gaussian(&mut rng)).collect())?;
    }
    Model::new(name, shape.clone(), weights)
}

/// Like [`weights_only`], with eps frozen, every site certified and every polynomial fitted on
/// random tokens: ready to plan and run.
///
/// # Errors
/// A shape that contradicts itself, or ranges that no polynomial covers.
pub fn certified(name: &str, shape: &Shape, seed: u64) -> Result<Model> {
    let mut model = weights_only(name, shape, seed)?;
    let calibration = (1024 / shape.context).clamp(4, 32);
    let windows = windows(shape, shape.context.min(128), calibration + 2, seed);
    model = freeze_norms(&model, &windows[..calibration], &shape.frozen_norms)?;
    if let Attention::PowerSoftmax { eps: Eps::Frozen, .. } = shape.attention {
        model = freeze_eps(&model, &windows[..calibration], Freezing::at(30.0))?;
    }
    // Random tokens reach further than text, above all in narrow models.
    let margins = Margins { variance: 2.0, activation: 1.5, ..Margins::default() };
    certify(&mut model, &windows[..calibration], &windows[calibration..], &margins)?;
    fit(&mut model, &FitOptions::default())?;
    model.set_provenance("weights", format!("random, seed {seed}: not a language model"));
    Ok(model)
}

/// Windows of uniformly random tokens.
pub fn windows(shape: &Shape, length: usize, count: usize, seed: u64) -> Vec<Vec<u32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let vocab = shape.vocab as u64;
    (0..count).map(|_| (0..length).map(|_| (rng.next_u64() % vocab) as u32).collect()).collect()
}

fn gaussian(rng: &mut impl Rng) -> f64 {
    let uniform = |bits: u64| ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let (u, v) = (uniform(rng.next_u64()), uniform(rng.next_u64()));
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}
