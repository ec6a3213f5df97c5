//! What errors were predicted and which came out, step by step, and how close the answers are.

use cipherlm_ckks::noise::{NoiseModel, Prediction};
use cipherlm_ckks::slots::{Encrypted, Noise, NoiseVector};
use cipherlm_ckks::{Complex64, EvaluationKeys, KeyRequest, Params};

use crate::client::Client;
use crate::error::{At, InferError, Result};
use crate::exec::Value;
use crate::plan::Plan;
use crate::run::{Done, Observer, Progress};

/// A step on the noise machine: exact values, and how far encryption is expected to be off.
struct Expected {
    step: usize,
    exact: Vec<Vec<Complex64>>,
    predicted: Prediction,
}

/// A run of a plan on the noise machine.
pub struct Forecast {
    steps: Vec<Expected>,
    /// Output vectors with the predicted errors drawn and added.
    noisy: Vec<Vec<f64>>,
    /// Output vectors without errors.
    exact: Vec<Vec<f64>>,
}

impl Forecast {
    /// Logits of a position with the errors of one simulated encryption.
    ///
    /// # Errors
    /// As [`Plan::logits`].
    pub fn noisy_logits(&self, plan: &Plan, position: usize) -> Result<Vec<f64>> {
        plan.logits(&self.noisy, position)
    }

    /// Logits of a position as the circuit computes them without errors.
    ///
    /// # Errors
    /// As [`Plan::logits`].
    pub fn exact_logits(&self, plan: &Plan, position: usize) -> Result<Vec<f64>> {
        plan.logits(&self.exact, position)
    }
}

impl Plan {
    /// A noise machine with this plan's chain and refreshes; `keys` as a server will hold them, `seed` fixes the errors drawn.
    ///
    /// # Errors
    /// Parameters other than the plan's.
    pub fn noise_machine(&self, params: &Params, keys: KeyRequest, seed: u64) -> Result<Noise> {
        let model = NoiseModel::new(params).with_keys(keys);
        let noise = Noise::new(model, seed).at("noise machine")?.on_chain(self.target.chain.clone());
        Ok(self.target.refreshes.iter().fold(noise, |machine, &profile| machine.with_refresh(profile)))
    }

    /// Runs a prompt on the noise machine. With `every_step`, all steps are kept for an [`Audit`] (about a megabyte a vector).
    ///
    /// # Errors
    /// As [`Plan::pack`] and [`Plan::run`].
    pub fn forecast(&self, machine: &Noise, tokens: &[u32], every_step: bool) -> Result<Forecast> {
        let enter = |vector: Vec<f64>| machine.input(vector, self.input_level()).at("input");
        let input = self.pack(tokens)?.into_iter().map(enter).collect::<Result<Vec<_>>>()?;
        let mut collect = Collect { wanted: every_step, steps: vec![] };
        let outputs = self.run(machine, input, &mut collect)?;
        let real = |slots: &[Complex64]| slots.iter().map(|slot| slot.re).collect::<Vec<_>>();
        Ok(Forecast {
            steps: collect.steps,
            noisy: outputs.iter().map(|vector| real(vector.noisy())).collect(),
            exact: outputs.iter().map(|vector| real(vector.exact())).collect(),
        })
    }
}

struct Collect {
    wanted: bool,
    steps: Vec<Expected>,
}

impl Observer<Noise> for Collect {
    fn before(&mut self, _: &Progress<'_>) -> bool {
        true
    }

    fn after(&mut self, _: &Noise, done: &Done<'_, Noise>) -> Result<()> {
        if self.wanted {
            let exact = done.value.iter().map(|vector| vector.exact().to_vec()).collect();
            self.steps.push(Expected { step: done.step, exact, predicted: drawn(done.value) });
        }
        Ok(())
    }
}

/// Factor on a single draw, for the randomness of the run that is predicted.
const MARGIN: f64 = 1.6;

/// What one draw of all errors says about several vectors together.
///
/// The draw went through the circuit operation by operation, so that errors which meet again (the powers in a polynomial) reinforce
/// or cancel as they will under encryption; variances, which know nothing of that, are too large by bits after a polynomial.
fn drawn(vectors: &[NoiseVector]) -> Prediction {
    let pairs = vectors.iter().flat_map(|vector| vector.exact().iter().zip(vector.noisy()));
    let squares = pairs.map(|(exact, noisy)| (exact - noisy).norm_sqr());
    let (sum, worst, count) = squares.fold((0.0, 0f64, 0usize), |(s, w, n), square| (s + square, w.max(square), n + 1));
    Prediction { rms: MARGIN * (sum / count.max(1) as f64).sqrt(), worst: MARGIN * worst.sqrt() }
}

/// Predicted and measured error of one step, its refresh included, in units of slots.
#[derive(Debug, Clone, PartialEq)]
pub struct StepError {
    /// Name of the step.
    pub name: String,
    /// Layer it belongs to.
    pub layer: Option<usize>,
    /// Predicted root mean square over all slots of all vectors.
    pub predicted_rms: f64,
    /// Predicted largest error.
    pub predicted_worst: f64,
    /// Measured root mean square.
    pub measured_rms: f64,
    /// Measured largest error.
    pub measured_worst: f64,
}

impl StepError {
    /// Bits by which the prediction lies above the measurement, (root mean square, worst slot); negative if it was too low.
    pub fn margin(&self) -> (f64, f64) {
        ((self.predicted_rms / self.measured_rms).log2(), (self.predicted_worst / self.measured_worst).log2())
    }

    /// Bits of precision that were measured: minus the logarithm of the root mean square.
    pub fn bits(&self) -> f64 {
        -self.measured_rms.log2()
    }
}

/// Decrypts every step of an encrypted run and compares it with a forecast: for tests and for demonstrations where client and server
/// are one process, because it needs the secret.
pub struct Audit<'a, K> {
    client: &'a Client,
    forecast: &'a Forecast,
    inner: &'a mut dyn Observer<Encrypted<K>>,
    rows: Vec<StepError>,
}

impl<'a, K> Audit<'a, K> {
    /// An audit of one run of the prompt that was forecast, passing everything on to another observer.
    pub fn new(client: &'a Client, forecast: &'a Forecast, inner: &'a mut dyn Observer<Encrypted<K>>) -> Self {
        Self { client, forecast, inner, rows: vec![] }
    }

    /// One row per step.
    pub fn finish(self) -> Vec<StepError> {
        self.rows
    }
}

impl<K: EvaluationKeys> Observer<Encrypted<K>> for Audit<'_, K> {
    fn before(&mut self, progress: &Progress<'_>) -> bool {
        self.inner.before(progress)
    }

    fn has(&self, step: usize, name: &str) -> bool {
        self.inner.has(step, name)
    }

    fn restore(&mut self, machine: &Encrypted<K>, step: usize, name: &str) -> Result<Option<Value<Encrypted<K>>>> {
        self.inner.restore(machine, step, name)
    }

    fn after(&mut self, machine: &Encrypted<K>, done: &Done<'_, Encrypted<K>>) -> Result<()> {
        if let Some(expected) = self.forecast.steps.iter().find(|expected| expected.step == done.step) {
            let (mut sum, mut worst, mut count) = (0.0, 0f64, 0usize);
            for (vector, exact) in done.value.iter().zip(&expected.exact) {
                let decrypted = self.client.secret().decrypt(vector.ciphertext());
                let decrypted = decrypted
                    .map_err(|error| InferError::Slots { node: done.name.to_owned(), source: error.into() })?;
                let slots = decrypted.decode();
                // Sparse results repeat.
                for (found, exact) in slots.as_slice().iter().cycle().zip(exact) {
                    let square = (found - exact).norm_sqr();
                    sum += square;
                    worst = worst.max(square);
                    count += 1;
                }
            }
            self.rows.push(StepError {
                name: done.name.to_owned(),
                layer: done.layer,
                predicted_rms: expected.predicted.rms,
                predicted_worst: expected.predicted.worst,
                measured_rms: (sum / count.max(1) as f64).sqrt(),
                measured_worst: worst.sqrt(),
            });
        }
        self.inner.after(machine, done)
    }
}

/// How close found logits are to the wanted ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Closeness {
    /// Mean square difference.
    pub mse: f64,
    /// Largest difference.
    pub max: f64,
    /// Kullback-Leibler divergence of the found distribution from the wanted one, in nats.
    pub kl: f64,
    /// Whether the most likely token is the same.
    pub same_top: bool,
}

impl Closeness {
    /// Compares two rows of logits of one length; values that are not numbers make everything so.
    pub fn of(wanted: &[f64], found: &[f64]) -> Self {
        let differences: Vec<f64> = wanted.iter().zip(found).map(|(a, b)| (a - b).abs()).collect();
        let worst = |m: f64, d: &f64| if *d > m || d.is_nan() { *d } else { m };
        let (p, q) = (log_softmax(wanted), log_softmax(found));
        Self {
            mse: differences.iter().map(|d| d * d).sum::<f64>() / differences.len().max(1) as f64,
            max: differences.iter().fold(0.0, worst),
            kl: p.iter().zip(&q).map(|(a, b)| a.exp() * (a - b)).sum(),
            same_top: top(wanted) == top(found),
        }
    }
}

fn top(row: &[f64]) -> Option<usize> {
    row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(index, _)| index)
}

fn log_softmax(row: &[f64]) -> Vec<f64> {
    let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = row.iter().map(|v| (v - top).exp()).sum::<f64>().ln() + top;
    row.iter().map(|v| v - log_sum).collect()
}
