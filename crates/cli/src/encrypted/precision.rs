//! Bits of precision after every step: what the noise machine promises, and what the owner of the key sees.

use super::setup::Setup;
use cipherlm_ckks::noise::NoiseModel;
use cipherlm_ckks::slots::{Encrypted, Noise};
use cipherlm_ckks::{EvaluationKeys, SecretKey};
use cipherlm_infer::{Done, InferError, Observer, Progress};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Slots of one step without any error, and the bits that are promised of them.
struct Expected {
    slots: Vec<Vec<f64>>,
    bits: f64,
}

/// What a run should show, by step.
pub(super) struct Expectation(BTreeMap<usize, Expected>);

/// Bits promised and bits seen of a step, worst slot of all its vectors. Slots are in units of their certified range.
#[derive(Clone, Copy, serde::Serialize)]
pub(crate) struct Bits {
    pub(crate) predicted: f64,
    pub(crate) measured: f64,
}

impl Expectation {
    /// Runs the plan on the noise machine.
    pub(super) fn of(setup: &Setup, tokens: &[u32]) -> anyhow::Result<Self> {
        let (plan, target) = (&setup.plan, setup.circuits.target()?);
        let model = NoiseModel::new(setup.circuits.params()).with_keys(setup.circuits.key_request(plan));
        let machine = Noise::new(model, 1)?.on_chain(target.chain);
        let machine = target.refreshes.into_iter().fold(machine, Noise::with_refresh);
        let input =
            plan.pack(tokens)?.into_iter().map(|v| machine.input(v, plan.input_level())).collect::<Result<_, _>>()?;
        let mut collect = Collect(BTreeMap::new());
        plan.run(&machine, input, &mut collect)?;
        Ok(Self(collect.0))
    }
}

/// Keeps what the noise machine computed.
struct Collect(BTreeMap<usize, Expected>);

impl Observer<Noise> for Collect {
    fn before(&mut self, _: &Progress<'_>) -> bool {
        true
    }

    fn after(&mut self, _: &Noise, done: &Done<'_, Noise>) -> Result<(), InferError> {
        let bits = done.value.iter().map(|v| v.prediction().bits()).fold(f64::INFINITY, f64::min);
        let slots = done.value.iter().map(|v| v.exact().iter().map(|z| z.re).collect()).collect();
        self.0.insert(done.step, Expected { slots, bits });
        Ok(())
    }
}

/// Decrypts every step of a run and compares it. Only for a process that is client and server at once.
pub(super) struct Watch<'a, O> {
    pub(super) inner: O,
    secret: &'a SecretKey,
    expected: &'a Expectation,
    /// By step.
    pub(super) bits: BTreeMap<String, Bits>,
    /// Time spent here, which is not the run's.
    pub(super) spent: Duration,
}

impl<'a, O> Watch<'a, O> {
    pub(super) fn new(inner: O, secret: &'a SecretKey, expected: &'a Expectation) -> Self {
        Self { inner, secret, expected, bits: BTreeMap::new(), spent: Duration::ZERO }
    }
}

impl<K: EvaluationKeys, O: Observer<Encrypted<K>>> Observer<Encrypted<K>> for Watch<'_, O> {
    fn before(&mut self, progress: &Progress<'_>) -> bool {
        self.inner.before(progress)
    }

    fn after(&mut self, machine: &Encrypted<K>, done: &Done<'_, Encrypted<K>>) -> Result<(), InferError> {
        self.inner.after(machine, done)?;
        let clock = Instant::now();
        if let Some(expected) = self.expected.0.get(&done.step) {
            let mut worst = 0f64;
            for (vector, exact) in done.value.iter().zip(&expected.slots) {
                let at =
                    |source: cipherlm_ckks::Error| InferError::Slots { node: done.name.into(), source: source.into() };
                let seen = self.secret.decrypt(vector.ciphertext()).map_err(at)?.decode().real();
                // Fewer slots than a vector has repeat.
                worst = exact.iter().zip(seen.iter().cycle()).map(|(a, b)| (a - b).abs()).fold(worst, f64::max);
            }
            self.bits.insert(done.name.into(), Bits { predicted: expected.bits, measured: -worst.log2() });
        }
        self.spent += clock.elapsed();
        Ok(())
    }
}
