//! What errors were predicted and which came out, step by step, and how close the answers are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cipherlm_ckks::noise::{NoiseModel, Prediction};
use cipherlm_ckks::slots::{Encrypted, EncryptedVector, Noise, NoiseVector};
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
    predicted: Errors,
    ceiling: Errors,
}

/// A plan's runs on noise machines.
pub struct Forecast {
    steps: Vec<Expected>,
    /// Output vectors with the errors of the first machine.
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

    /// What encryption will do to the logits of a prompt, by one noise machine.
    ///
    /// # Errors
    /// As [`Plan::pack`] and [`Plan::run`].
    pub fn forecast(&self, machine: &Noise, tokens: &[u32]) -> Result<Forecast> {
        self.simulate(machine, tokens, &mut Collect::default(), false)
    }

    /// The same with every step, for an [`Audit`], from four runs with different errors. Takes about a megabyte a vector.
    ///
    /// # Errors
    /// As [`Plan::noise_machine`] and [`Plan::forecast`].
    pub fn forecast_steps(&self, params: &Params, keys: &KeyRequest, tokens: &[u32]) -> Result<Forecast> {
        let mut collect = Collect::default();
        let mut first = None;
        for seed in 1..=DRAWS {
            let machine = self.noise_machine(params, keys.clone(), seed)?;
            let forecast = self.simulate(&machine, tokens, &mut collect, true)?;
            first.get_or_insert(forecast);
        }
        let forecast = first.ok_or(InferError::Malformed { what: "forecast".into(), reason: "no runs".into() })?;
        let steps = collect.steps.into_iter().map(|(step, seen)| seen.expected(step)).collect();
        Ok(Forecast { steps, ..forecast })
    }

    fn simulate(&self, machine: &Noise, tokens: &[u32], collect: &mut Collect, every_step: bool) -> Result<Forecast> {
        let enter = |vector: Vec<f64>| machine.input(vector, self.input_level()).at("input");
        let input = self.pack(tokens)?.into_iter().map(enter).collect::<Result<Vec<_>>>()?;
        let outputs = if every_step {
            self.run(machine, input, collect)?
        } else {
            self.run(machine, input, &mut |_: &Progress<'_>| true)?
        };
        let real = |slots: &[Complex64]| slots.iter().map(|slot| slot.re).collect::<Vec<_>>();
        Ok(Forecast {
            steps: vec![],
            noisy: outputs.iter().map(|vector| real(vector.noisy())).collect(),
            exact: outputs.iter().map(|vector| real(vector.exact())).collect(),
        })
    }
}

/// Simulated runs behind the forecast of a step.
const DRAWS: u64 = 4;
/// Factor on what the draws show, for the randomness of the run that is predicted: one bit.
const ALLOWANCE: f64 = 2.0;

/// What the noise machines showed of one step.
struct Seen {
    exact: Vec<Vec<Complex64>>,
    /// By the variances of the first run, which are the same in all.
    ceiling: Errors,
    /// Sum of the mean squares of all runs.
    squares: f64,
    /// Largest square of all runs.
    worst: f64,
}

impl Seen {
    /// The draws went through the circuit operation by operation, so that errors which meet again (the powers in a polynomial) reinforce
    /// or cancel as they will under encryption. Variances know nothing of that: what they promise is kept as the ceiling.
    fn expected(self, step: usize) -> Expected {
        let rms = ALLOWANCE * (self.squares / DRAWS as f64).sqrt();
        let predicted = Errors { rms, worst: ALLOWANCE * self.worst.sqrt() };
        let ceiling =
            Errors { rms: self.ceiling.rms.max(predicted.rms), worst: self.ceiling.worst.max(predicted.worst) };
        Expected { step, exact: self.exact, predicted, ceiling }
    }
}

#[derive(Default)]
struct Collect {
    steps: BTreeMap<usize, Seen>,
}

impl Observer<Noise> for Collect {
    fn before(&mut self, _: &Progress<'_>) -> bool {
        true
    }

    fn after(&mut self, _: &Noise, done: &Done<'_, Noise>) -> Result<()> {
        let seen = self.steps.entry(done.step).or_insert_with(|| Seen {
            exact: done.value.iter().map(|vector| vector.exact().to_vec()).collect(),
            ceiling: ceiling(done.value),
            squares: 0.0,
            worst: 0.0,
        });
        let errors = Errors::of(done.value.iter().flat_map(|vector| vector.exact().iter().zip(vector.noisy())));
        seen.squares += errors.rms.powi(2);
        seen.worst = seen.worst.max(errors.worst.powi(2));
        Ok(())
    }
}

/// What the variances promise of several vectors together.
fn ceiling(vectors: &[NoiseVector]) -> Errors {
    let predictions: Vec<Prediction> = vectors.iter().map(NoiseVector::prediction).collect();
    let mean = predictions.iter().map(|p| p.rms * p.rms).sum::<f64>() / predictions.len().max(1) as f64;
    Errors { rms: mean.sqrt(), worst: predictions.iter().map(|p| p.worst).fold(0.0, f64::max) }
}

/// Errors of all slots of a value, in units of slots.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Errors {
    /// Root mean square.
    pub rms: f64,
    /// The largest.
    pub worst: f64,
}

impl Errors {
    fn of<'a>(pairs: impl Iterator<Item = (&'a Complex64, &'a Complex64)>) -> Self {
        let squares = pairs.map(|(exact, found)| (exact - found).norm_sqr());
        // A value that is not a number is the worst there is.
        let larger = |m: f64, s: f64| if s > m || s.is_nan() { s } else { m };
        let add = |(sum, worst, count), square| (sum + square, larger(worst, square), count + 1);
        let (sum, worst, count) = squares.fold((0.0, 0f64, 0usize), add);
        Self { rms: (sum / count.max(1) as f64).sqrt(), worst: worst.sqrt() }
    }

    /// Bits of precision: minus the logarithms of root mean square and worst slot.
    pub fn bits(&self) -> (f64, f64) {
        (-self.rms.log2(), -self.worst.log2())
    }
}

/// Predicted and measured error of one step, its refresh included.
#[derive(Debug, Clone, PartialEq)]
pub struct StepError {
    /// Name of the step.
    pub name: String,
    /// Layer it belongs to.
    pub layer: Option<usize>,
    /// What simulated runs showed, with an allowance.
    pub predicted: Errors,
    /// The larger of `predicted` and of what the variances of all operations promise, added up as if errors that meet were
    /// independent: bits too high where they cancel.
    pub ceiling: Errors,
    /// What decryption showed.
    pub measured: Errors,
}

impl StepError {
    /// Bits by which the prediction lies above the measurement, (root mean square, worst slot); negative if it was too low.
    pub fn margin(&self) -> (f64, f64) {
        let above = |predicted: f64, measured: f64| (predicted / measured).log2();
        (above(self.predicted.rms, self.measured.rms), above(self.predicted.worst, self.measured.worst))
    }
}

/// Decrypts every step of an encrypted run and compares it with a forecast: for tests and for demonstrations where client and server
/// are one process, because it needs the secret.
pub struct Audit<'a, K> {
    client: &'a Client,
    forecast: &'a Forecast,
    inner: &'a mut dyn Observer<Encrypted<K>>,
    rows: Vec<StepError>,
    spent: Duration,
}

impl<'a, K> Audit<'a, K> {
    /// An audit of one run of the prompt that was forecast, passing everything on to another observer.
    pub fn new(client: &'a Client, forecast: &'a Forecast, inner: &'a mut dyn Observer<Encrypted<K>>) -> Self {
        Self { client, forecast, inner, rows: vec![], spent: Duration::ZERO }
    }

    /// Time spent on decrypting and comparing, which is not the run's.
    pub fn spent(&self) -> Duration {
        self.spent
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
        self.inner.after(machine, done)?;
        let clock = Instant::now();
        if let Some(expected) = self.forecast.steps.iter().find(|expected| expected.step == done.step) {
            let decrypt = |vector: &EncryptedVector| {
                let decrypted = self.client.secret().decrypt(vector.ciphertext());
                let failed = |error: cipherlm_ckks::Error| InferError::Slots {
                    node: done.name.to_owned(),
                    source: error.into(),
                };
                Ok(decrypted.map_err(failed)?.decode().as_slice().to_vec())
            };
            let found = done.value.iter().map(decrypt).collect::<Result<Vec<_>>>()?;
            // Sparse results repeat.
            let pairs =
                expected.exact.iter().zip(&found).flat_map(|(exact, found)| exact.iter().zip(found.iter().cycle()));
            self.rows.push(StepError {
                name: done.name.to_owned(),
                layer: done.layer,
                predicted: expected.predicted,
                ceiling: expected.ceiling,
                measured: Errors::of(pairs),
            });
        }
        self.spent += clock.elapsed();
        Ok(())
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
