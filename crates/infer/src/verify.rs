//! What errors were predicted and which came out, step by step, and how close the answers are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cipherlm_circuits::slots::{Encrypted, EncryptedVector, Noise, NoiseVector};
use cipherlm_ckks::noise::{NoiseModel, Prediction};
use cipherlm_ckks::{Complex64, EvaluationKeys, KeyRequest, Params};
use rayon::prelude::*;

use crate::answer;
use crate::client::Client;
use crate::error::{At, Error, Result};
use crate::lanes;
use crate::plan::Plan;
use crate::run::{Done, Observer, Progress, Start, Wanted};
use crate::small;
use crate::vector::Value;

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
    /// Output vectors with the errors of each machine.
    noisy: Vec<Vec<Vec<f64>>>,
    /// Output vectors without errors.
    exact: Vec<Vec<f64>>,
}

impl Forecast {
    /// Logits of a position with the errors of one simulated encryption.
    ///
    /// # Errors
    /// As [`Plan::logits`].
    pub fn noisy_logits(&self, plan: &Plan, position: usize) -> Result<Vec<f64>> {
        plan.logits(self.noisy.first().map_or(&[], Vec::as_slice), position)
    }

    /// Logits of a position as the circuit computes them without errors.
    ///
    /// # Errors
    /// As [`Plan::logits`].
    pub fn exact_logits(&self, plan: &Plan, position: usize) -> Result<Vec<f64>> {
        plan.logits(&self.exact, position)
    }

    /// Mean square error of a position's logits, over all simulated encryptions.
    ///
    /// # Errors
    /// As [`Plan::logits`].
    pub fn logits_mse(&self, plan: &Plan, position: usize) -> Result<f64> {
        let exact = self.exact_logits(plan, position)?;
        let mse = |noisy: &Vec<Vec<f64>>| Ok(Closeness::of(&exact, &plan.logits(noisy, position)?).mse);
        let all = self.noisy.iter().map(mse).collect::<Result<Vec<f64>>>()?;
        Ok(all.iter().sum::<f64>() / all.len().max(1) as f64)
    }
}

impl Plan {
    /// A noise machine with this plan's chain and refreshes; `keys` as a server will hold them,
    /// `seed` fixes the errors drawn.
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
        self.simulate(machine, &[tokens], &mut Collect::default(), false)
    }

    /// The same of all `prompts` of a pass and with every step, for an [`Audit`], from sixteen runs
    /// with different errors under this client's key. Takes about a megabyte a vector. The forecast
    /// tells something of the secret and is the client's own.
    ///
    /// # Errors
    /// As [`Plan::noise_machine`] and [`Plan::forecast`]; [`Error::Prompts`].
    pub fn forecast_steps(&self, client: &Client, keys: &KeyRequest, prompts: &[&[u32]]) -> Result<Forecast> {
        let run = |seed: u64| {
            let machine = self.noise_machine(client.secret().params(), keys.clone(), seed)?;
            let machine = machine.with_secret(client.secret()).at("noise machine")?;
            let mut collect = Collect { whole: seed == 1, steps: BTreeMap::new() };
            Ok((self.simulate(&machine, prompts, &mut collect, true)?, collect.steps))
        };
        let mut runs = (1..=DRAWS).into_par_iter().map(run).collect::<Result<Vec<_>>>()?.into_iter();
        let first = runs.next();
        let (mut forecast, mut steps) =
            first.ok_or(Error::Malformed { what: "forecast".into(), reason: "no runs".into() })?;
        for (other, seen) in runs {
            forecast.noisy.extend(other.noisy);
            seen.into_iter()
                .zip(steps.values_mut())
                .for_each(|((_, seen), all)| all.errors.extend(seen.errors));
        }
        forecast.steps = steps.into_iter().map(|(step, seen)| seen.expected(step)).collect();
        Ok(forecast)
    }

    fn simulate(
        &self,
        machine: &Noise,
        prompts: &[&[u32]],
        collect: &mut Collect,
        every_step: bool,
    ) -> Result<Forecast> {
        let filled = lanes::fill(prompts, self.prompts())?;
        let lengths: Vec<usize> = filled.iter().map(|tokens| tokens.len()).collect();
        let (level, small) = (self.input_level(), self.prompt_degree() > 0);
        let enter = |vector: Vec<f64>| {
            let entered =
                if small { machine.input_embedded(vector, level) } else { machine.input(vector, level) };
            entered.at("input")
        };
        let input = self.pack_each(&filled)?.into_iter().map(enter).collect::<Result<Vec<_>>>()?;
        let outputs = if every_step {
            self.run_texts(machine, input, &lengths, collect)?
        } else {
            self.run_texts(machine, input, &lengths, &mut |_: &Progress<'_>| true)?
        };
        let real = |slots: &[Complex64]| slots.iter().map(|slot| slot.re).collect::<Vec<_>>();
        let mut noisy: Vec<_> = outputs.iter().map(|vector| real(vector.noisy())).collect();
        let mut exact: Vec<_> = outputs.iter().map(|vector| real(vector.exact())).collect();
        let (answers, places) = (self.answers(), self.prompts());
        if let (Some(tokens), 1..) = (self.reader().tokens(self.asked(lengths[0]), &lengths)?, answers.degree)
        {
            // What the client reads at the position that it asks for came by way of a small answer.
            let gathered = self.gather(machine, &outputs, &tokens)?;
            let small = small::simulate(machine, &gathered, answers.degree)?;
            for (slots, whole) in small.iter().zip([&mut exact, &mut noisy]) {
                for (prompt, &token) in tokens.iter().enumerate() {
                    let read = small::spread(&answers, &lanes::lane(slots, places, prompt), token);
                    answer::places(&answers, token)
                        .for_each(|(v, slot)| whole[v][slot * places + prompt] = read[v][slot]);
                }
            }
        }
        Ok(Forecast { steps: vec![], noisy: vec![noisy], exact })
    }
}

/// Simulated runs behind the forecast of a step. Behind the error of a reciprocal stand the few
/// rows with the smallest sums, so one run shows anything from a quarter of what is typical to
/// three times of it.
const DRAWS: u64 = 16;
/// Factor on the root mean square that the draws show, for the randomness of the run that is
/// predicted: one bit.
const ALLOWANCE: f64 = 2.0;
/// What is added to the typical worst slot, in bits, and in standard deviations of its logarithm
/// over runs. Together they are passed by less than one run in 10^4, whether all slots decide
/// (deviations of a quarter of a bit) or a few rows (nearly one bit).
const WORST_BITS: f64 = 0.5;
const WORST_DEVIATIONS: f64 = 3.0;
/// The deviation that steps have without knowing more, in bits, and the number of draws that it
/// counts for.
const KNOWN_DEVIATION: f64 = 0.35;
const KNOWN_DRAWS: f64 = 8.0;

/// What the noise machines showed of one step.
struct Seen {
    exact: Vec<Vec<Complex64>>,
    /// By the variances of the first run, which are the same in all.
    ceiling: Errors,
    /// Of each run.
    errors: Vec<Errors>,
}

impl Seen {
    /// The draws went through the circuit operation by operation, so that errors which meet again
    /// (the powers in a polynomial) reinforce or cancel as they will under encryption. Variances
    /// know nothing of that: what they promise is kept as the ceiling.
    fn expected(self, step: usize) -> Expected {
        let squares = self.errors.iter().map(|errors| errors.rms.powi(2)).sum::<f64>();
        let rms = ALLOWANCE * (squares / self.errors.len() as f64).sqrt();
        let predicted = Errors { rms, worst: seldom_passed(self.errors.iter().map(|errors| errors.worst)) };
        let ceiling = Errors {
            rms: self.ceiling.rms.max(predicted.rms),
            worst: self.ceiling.worst.max(predicted.worst),
        };
        Expected { step, exact: self.exact, predicted, ceiling }
    }
}

/// A size that the worst slot of another run hardly passes, from those of some runs.
fn seldom_passed(worst: impl Iterator<Item = f64>) -> f64 {
    // Exact steps have no logarithm.
    let bits: Vec<f64> = worst.map(|size| size.max(f64::MIN_POSITIVE).log2()).collect();
    let mean = bits.iter().sum::<f64>() / bits.len() as f64;
    let squares =
        bits.iter().map(|b| (b - mean).powi(2)).sum::<f64>() + KNOWN_DRAWS * KNOWN_DEVIATION.powi(2);
    let deviation = (squares / (bits.len() as f64 - 1.0 + KNOWN_DRAWS)).sqrt();
    (mean + WORST_BITS + WORST_DEVIATIONS * deviation).exp2()
}

#[derive(Default)]
struct Collect {
    /// Whether values and variances are wanted beside the errors.
    whole: bool,
    steps: BTreeMap<usize, Seen>,
}

impl Observer<Noise> for Collect {
    fn before(&mut self, _: &Progress<'_>) -> bool {
        true
    }

    fn after(&mut self, _: &Noise, done: &Done<'_, Noise>) -> Result<()> {
        let value = if self.whole { done.value } else { &[] };
        let errors =
            Errors::of(done.value.iter().flat_map(|vector| vector.exact().iter().zip(vector.noisy())));
        let exact = value.iter().map(|vector| vector.exact().to_vec()).collect();
        self.steps.insert(done.step, Seen { exact, ceiling: ceiling(value), errors: vec![errors] });
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
    /// The larger of `predicted` and of what the variances of all operations promise, added up as
    /// if errors that meet were independent: bits too high where they cancel.
    pub ceiling: Errors,
    /// What decryption showed.
    pub measured: Errors,
}

impl StepError {
    /// Bits by which the prediction lies above the measurement, (root mean square, worst slot);
    /// negative if it was too low.
    pub fn margin(&self) -> (f64, f64) {
        let above = |predicted: f64, measured: f64| (predicted / measured).log2();
        (above(self.predicted.rms, self.measured.rms), above(self.predicted.worst, self.measured.worst))
    }
}

/// Decrypts every step of an encrypted run and compares it with a forecast: for tests and for
/// demonstrations where client and server are one process, because it needs the secret.
pub struct Audit<'a, K> {
    client: &'a Client,
    forecast: &'a Forecast,
    inner: &'a mut dyn Observer<Encrypted<K>>,
    rows: Vec<StepError>,
    spent: Duration,
}

impl<'a, K> Audit<'a, K> {
    /// An audit of one run of the prompt that was forecast, passing everything on to another
    /// observer.
    pub fn new(
        client: &'a Client,
        forecast: &'a Forecast,
        inner: &'a mut dyn Observer<Encrypted<K>>,
    ) -> Self {
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
    fn enter(&mut self, start: &Start<'_, Encrypted<K>>) -> Result<()> {
        self.inner.enter(start)
    }

    fn before(&mut self, progress: &Progress<'_>) -> bool {
        self.inner.before(progress)
    }

    fn has(&self, step: usize, name: &str) -> bool {
        self.inner.has(step, name)
    }

    fn restore(
        &mut self,
        machine: &Encrypted<K>,
        wanted: &Wanted<'_>,
    ) -> Result<Option<Value<Encrypted<K>>>> {
        self.inner.restore(machine, wanted)
    }

    fn leave(&mut self, machine: &Encrypted<K>) {
        self.inner.leave(machine);
    }

    fn after(&mut self, machine: &Encrypted<K>, done: &Done<'_, Encrypted<K>>) -> Result<()> {
        self.inner.after(machine, done)?;
        let clock = Instant::now();
        if let Some(expected) = self.forecast.steps.iter().find(|expected| expected.step == done.step) {
            let decrypt = |vector: &EncryptedVector| {
                let decrypted = self.client.secret().decrypt(vector.ciphertext());
                let failed = |error: cipherlm_ckks::Error| Error::Slots {
                    node: done.name.to_owned(),
                    source: error.into(),
                };
                Ok(decrypted.map_err(failed)?.decode().as_slice().to_vec())
            };
            let found = done.value.iter().map(decrypt).collect::<Result<Vec<_>>>()?;
            // Sparse results repeat.
            let pairs = expected
                .exact
                .iter()
                .zip(&found)
                .flat_map(|(exact, found)| exact.iter().zip(found.iter().cycle()));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Circuits, Options};
    use cipherlm_circuits::bootstrap::Profile;
    use cipherlm_ckks::ring::Seed;
    use cipherlm_ckks::{Params, SecretKey};
    use cipherlm_model::{Shape, random};
    use std::sync::Arc;

    /// A forecast holds for runs that it was not made from, under the same key. All draws are fixed
    /// by seeds; encrypted runs, with keys and errors of their own, are judged in the slow tier.
    #[test]
    fn a_forecast_holds_for_other_draws() {
        const OTHERS: u64 = 8;
        let model = Arc::new(random::certified("two layers", &Shape::preset("test").unwrap(), 4).unwrap());
        let circuits = Circuits::new(&Profile { user_levels: 13, ..Profile::insecure(11) }).unwrap();
        let options = Options { tokens: 8, ..Options::default() };
        let plan = Plan::compile(Arc::clone(&model), circuits.target().unwrap(), &options).unwrap();
        let params: &Params = circuits.params();
        let client = Client::with_secret(SecretKey::from_seed(params, Seed::from_bytes([7; 32])).unwrap());
        let keys = circuits.key_request(&plan);
        let prompt = &random::windows(model.shape(), 8, 1, 5)[0];
        let forecast = plan.forecast_steps(&client, &keys, &[prompt]).unwrap();
        let other = |seed: u64| {
            let machine = plan.noise_machine(params, keys.clone(), 100 + seed).unwrap();
            let machine = machine.with_secret(client.secret()).unwrap();
            let mut collect = Collect::default();
            plan.simulate(&machine, &[prompt], &mut collect, true).unwrap();
            collect.steps
        };
        let others: Vec<_> = (0..OTHERS).into_par_iter().map(other).collect();
        assert_eq!(forecast.steps.len(), plan.steps() - 1);
        for Expected { step, exact, predicted, ceiling } in &forecast.steps {
            assert!(!exact.is_empty());
            let found: Vec<Errors> = others.iter().map(|steps| steps[step].errors[0]).collect();
            let mean = found.iter().map(|e| e.rms.powi(2)).sum::<f64>() / OTHERS as f64;
            let rms = (predicted.rms / mean.sqrt()).log2();
            let worst =
                found.iter().map(|e| (predicted.worst / e.worst).log2()).fold(f64::INFINITY, f64::min);
            assert!((0.0..=2.0).contains(&rms), "step {step}: rms {rms:.2}");
            assert!((0.0..=2.0).contains(&worst), "step {step}: worst {worst:.2}");
            assert!(ceiling.rms >= predicted.rms && ceiling.worst >= predicted.worst);
        }
    }

    #[test]
    fn a_worst_slot_is_predicted_by_how_much_it_varies() {
        let steady = seldom_passed([1.0; 16].into_iter());
        let varied = seldom_passed([0.5, 2.0].into_iter().cycle().take(16));
        assert!((1.8..2.6).contains(&steady), "{steady}");
        assert!((6.0..10.0).contains(&varied), "{varied}");
        assert!((seldom_passed([3.0; 16].into_iter()) / steady - 3.0).abs() < 1e-9);
        assert!(seldom_passed([0.0; 16].into_iter()) < 1e-300);
    }
}
