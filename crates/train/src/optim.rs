//! AdamW over host parameters, with groups, a warm-up-and-cosine schedule and clipping by the
//! global norm.
//!
//! The state lives on the host in plain arrays: a checkpoint is those arrays, and a resumed run
//! continues bit for bit.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::params::HostParam;

/// Elements that one thread takes at a time.
const CHUNK: usize = 1 << 14;

/// AdamW constants; the defaults are those of PyTorch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay, as a fraction of the learning rate.
    pub weight_decay: f64,
    /// Exceptions, the last matching one wins.
    pub groups: Vec<Group>,
}

/// Other constants for some of the parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The group holds every parameter whose name contains one of these.
    pub names: Vec<String>,
    /// Factor on the learning rate.
    #[serde(default = "one")]
    pub rate: f64,
    /// Weight decay of the group.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        let names = ["bias", "gain"].map(String::from).to_vec();
        let undecayed = Group { names, rate: 1.0, weight_decay: 0.0 };
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01, groups: vec![undecayed] }
    }
}

impl AdamW {
    /// Multiplies the learning rate of all query and key projections by `factor`, their decay per
    /// step with it.
    ///
    /// The slope of `ln (x + c)^p` is `p / (x + c)`: it falls as scores grow, so PowerSoftmax needs
    /// larger scores than softmax for the same attention, and at the common rate a short run ends
    /// before they are reached.
    pub fn with_query_key_rate(mut self, factor: f64) -> Self {
        for (kind, weight_decay) in [("weight", self.weight_decay), ("bias", 0.0)] {
            let names = ["q", "k"].map(|side| format!("attn.{side}.{kind}")).to_vec();
            self.groups.push(Group { names, rate: factor, weight_decay });
        }
        self
    }

    /// Refuses constants outside their domain.
    pub fn check(&self, params: &[HostParam]) -> Result<()> {
        // Models without biases have the default group all the same.
        let known =
            |name: &str| ["bias", "gain"].contains(&name) || params.iter().any(|p| p.name.contains(name));
        if let Some(name) = self.groups.iter().flat_map(|g| &g.names).find(|name| !known(name)) {
            return Err(Error::config("name in a group", name, "part of the name of a tensor of the model"));
        }
        for (field, value) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&value) {
                return Err(Error::config(field, value, "in [0, 1)"));
            }
        }
        if self.epsilon.is_nan() || self.epsilon <= 0.0 {
            return Err(Error::config("epsilon", self.epsilon, "positive"));
        }
        match self.groups.iter().find(|g| !(g.rate >= 0.0 && g.rate.is_finite())) {
            Some(group) => Err(Error::config("rate of a group", group.rate, "finite and not negative")),
            None => Ok(()),
        }
    }

    /// One update of all arrays. `step` counts from 1.
    pub fn update(
        &self,
        params: &mut [HostParam],
        state: &mut Moments,
        grads: &[Vec<f32>],
        rate: f64,
        step: usize,
    ) {
        let correction1 = 1.0 - self.beta1.powf(step as f64);
        let correction2 = 1.0 - self.beta2.powf(step as f64);
        let moments = state.first.iter_mut().zip(&mut state.second);
        for ((param, grad), (first, second)) in params.iter_mut().zip(grads).zip(moments) {
            let (scale, decay) = self.constants(&param.name);
            let rate = rate * scale;
            let keep = (1.0 - rate * decay) as f32;
            let (b1, b2) = (self.beta1 as f32, self.beta2 as f32);
            let (step_size, root) = ((rate / correction1) as f32, (1.0 / correction2.sqrt()) as f32);
            let epsilon = self.epsilon as f32;
            let moments = first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK));
            let values = param.data.par_chunks_mut(CHUNK).zip(grad.par_chunks(CHUNK));
            values.zip(moments).for_each(|((params, grads), (first, second))| {
                for (((p, &g), m), v) in params.iter_mut().zip(grads).zip(first).zip(second) {
                    *m = b1 * *m + (1.0 - b1) * g;
                    *v = b2 * *v + (1.0 - b2) * g * g;
                    *p = *p * keep - step_size * *m / (v.sqrt() * root + epsilon);
                }
            });
        }
    }

    /// Rate factor and weight decay of a parameter.
    fn constants(&self, name: &str) -> (f64, f64) {
        let matching = self.groups.iter().rev().find(|g| g.names.iter().any(|n| name.contains(n.as_str())));
        matching.map_or((1.0, self.weight_decay), |g| (g.rate, g.weight_decay))
    }
}

/// First and second moments, in the order of the parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// Running mean of the gradients.
    pub first: Vec<Vec<f32>>,
    /// Running mean of their squares.
    pub second: Vec<Vec<f32>>,
}

impl Moments {
    /// All zero.
    pub fn new(params: &[HostParam]) -> Self {
        let zeros: Vec<Vec<f32>> = params.iter().map(|p| vec![0.0; p.data.len()]).collect();
        Self { first: zeros.clone(), second: zeros }
    }
}

/// Linear warm-up, then a cosine down to a fraction of the peak.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Highest learning rate.
    pub peak: f64,
    /// Steps until it is reached.
    #[serde(default)]
    pub warm_up: usize,
    /// Last learning rate as a fraction of the peak.
    #[serde(default = "five_percent")]
    pub floor: f64,
}

impl Schedule {
    /// Learning rate of step `step` (from 0) of `steps`.
    pub fn rate(&self, step: usize, steps: usize) -> f64 {
        if step < self.warm_up {
            return self.peak * (step + 1) as f64 / self.warm_up as f64;
        }
        let span = steps.saturating_sub(self.warm_up).max(1);
        let done = ((step - self.warm_up) as f64 / span as f64).min(1.0);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
        self.peak * (self.floor + (1.0 - self.floor) * cosine)
    }
}

/// Scales all gradients together so that their joint Euclidean norm is at most `limit`; returns the
/// norm before.
pub fn clip_global_norm(grads: &mut [Vec<f32>], limit: f64) -> f64 {
    // Sums of fixed chunks, added in order: the same with any number of threads.
    let square = |chunk: &[f32]| chunk.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>();
    let parts: Vec<f64> = grads.par_iter().map(|g| g.chunks(CHUNK).map(square).sum()).collect();
    let norm = parts.iter().sum::<f64>().sqrt();
    if norm > limit {
        let factor = (limit / norm) as f32;
        grads.par_iter_mut().for_each(|g| g.iter_mut().for_each(|g| *g *= factor));
    }
    norm
}

fn one() -> f64 {
    1.0
}

fn five_percent() -> f64 {
    0.05
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn param(name: &str, data: Vec<f32>) -> HostParam {
        HostParam { name: name.into(), shape: vec![data.len()], data, trained: true }
    }

    #[test]
    fn first_step_is_the_learning_rate_against_the_sign() {
        let optimiser = AdamW { weight_decay: 0.0, ..AdamW::default() };
        let mut params = vec![param("w", vec![1.0, -2.0])];
        let mut state = Moments::new(&params);
        optimiser.update(&mut params, &mut state, &[vec![0.3, -7.0]], 0.01, 1);
        assert!((params[0].data[0] - 0.99).abs() < 1e-6 && (params[0].data[1] + 1.99).abs() < 1e-6);
    }

    #[test]
    fn groups_spare_biases_from_decay() {
        let mut params = vec![param("a.weight", vec![1.0]), param("a.bias", vec![1.0])];
        let mut state = Moments::new(&params);
        let optimiser = AdamW { weight_decay: 0.5, ..AdamW::default() };
        optimiser.update(&mut params, &mut state, &[vec![0.0], vec![0.0]], 0.1, 1);
        let values: Vec<f32> = params.iter().map(|p| p.data[0]).collect();
        assert_eq!(values, [0.95, 1.0]);
    }

    #[test]
    fn query_and_key_projections_learn_at_their_own_rate() {
        let names = ["attn.q.weight", "attn.k.bias", "attn.v.weight", "ffn.up.weight"];
        let mut params: Vec<HostParam> =
            names.iter().map(|n| param(&format!("layers.0.{n}"), vec![1.0])).collect();
        let mut state = Moments::new(&params);
        let optimiser = AdamW { weight_decay: 0.5, ..AdamW::default() }.with_query_key_rate(4.0);
        let all: Vec<HostParam> = ["q.weight", "q.bias", "k.weight", "k.bias"]
            .iter()
            .map(|n| param(&format!("attn.{n}"), vec![]))
            .collect();
        optimiser.check(&all).unwrap();
        // A group for tensors that the model does not have would do nothing, silently.
        let error = optimiser.check(&params[2..]).unwrap_err().to_string();
        assert!(error.contains("attn.q.weight"), "{error}");
        let mut decayed = params.clone();
        optimiser.update(&mut params, &mut state, &vec![vec![1.0]; 4], 0.01, 1);
        let values: Vec<f32> = params.iter().map(|p| p.data[0]).collect();
        // 1 - 4 x 0.01 x 0.5 - 4 x 0.01, the same without decay, and both at the common rate.
        for (value, wanted) in values.iter().zip([0.94f32, 0.96, 0.985, 0.985]) {
            assert!((value - wanted).abs() < 1e-6, "{values:?}");
        }
        let plain = AdamW { weight_decay: 0.5, ..AdamW::default() };
        plain.clone().with_query_key_rate(1.0).update(
            &mut decayed,
            &mut Moments::new(&params),
            &vec![vec![1.0]; 4],
            0.01,
            1,
        );
        assert!((decayed[0].data[0] - 0.985).abs() < 1e-6 && (decayed[1].data[0] - 0.99).abs() < 1e-6);
        assert!(plain.with_query_key_rate(f64::NAN).check(&all).is_err());
    }

    #[test]
    fn schedule_rises_then_falls_to_the_floor() {
        let schedule = Schedule { peak: 1.0, warm_up: 10, floor: 0.1 };
        let rates: Vec<f64> = (0..=100).map(|s| schedule.rate(s, 100)).collect();
        assert!((rates[0] - 0.1).abs() < 1e-12 && (rates[9] - 1.0).abs() < 1e-12);
        assert!(rates[10..].windows(2).all(|w| w[1] <= w[0]) && (rates[100] - 0.1).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn clipping_is_that_of_the_flat_vector(
            flat in prop::collection::vec(-5f32..5.0, 1..40),
            limit in 0.1f64..20.0,
        ) {
            let mut grads: Vec<Vec<f32>> = flat.chunks(3).map(<[f32]>::to_vec).collect();
            let norm = flat.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            prop_assert!((clip_global_norm(&mut grads, limit) - norm).abs() < 1e-9);
            let factor = if norm > limit { limit / norm } else { 1.0 };
            for (after, before) in grads.iter().flatten().zip(&flat) {
                prop_assert!((f64::from(*after) - factor * f64::from(*before)).abs() < 1e-5);
            }
        }
    }
}
