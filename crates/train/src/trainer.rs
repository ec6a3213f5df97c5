//! The training loop: one step is one optimiser update; everything is counted in steps.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::checkpoint::Archive;
use crate::config::ModelConfig;
use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::eval;
use crate::fused;
use crate::heap;
use crate::optim::{AdamW, Moments, Schedule, clip_global_norm};
use crate::params::{HostParam, align, gradients, pull, push};
use crate::probe::{Limits, Polynomials, Probe};
use crate::transformer::{Decoder, check_tokens, token_tensor};

/// One run (or one stage of a recipe).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Seed of the data order.
    pub seed: u64,
    /// Windows per micro-batch.
    pub batch: usize,
    /// Micro-batches per step.
    #[serde(default = "one")]
    pub accumulation: usize,
    /// Optimiser updates.
    pub steps: usize,
    /// Learning rate.
    pub schedule: Schedule,
    /// Optimiser.
    #[serde(default)]
    pub optimiser: AdamW,
    /// Largest global gradient norm.
    #[serde(default = "unit")]
    pub clip: f64,
    /// Range loss, if any.
    #[serde(default)]
    pub range: Option<RangeLoss>,
    /// Steps between evaluations; 0 for only at the end.
    #[serde(default)]
    pub evaluate_every: usize,
    /// Held-out windows per evaluation.
    #[serde(default = "windows")]
    pub evaluate_windows: usize,
    /// Steps between checkpoints; 0 for only at the end.
    #[serde(default)]
    pub checkpoint_every: usize,
    /// Steps between log lines.
    #[serde(default = "log_every")]
    pub log_every: usize,
}

/// Weight of the range loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RangeLoss {
    /// Factor on the loss.
    pub weight: f64,
    /// Steps over which the factor rises from 0.
    #[serde(default)]
    pub ramp: usize,
    /// Targets.
    #[serde(default)]
    pub limits: Limits,
}

/// Learning from the logits of another model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distil {
    /// Share of the teacher's term; the rest is the cross-entropy with the text.
    pub weight: f64,
    /// Divides both models' logits.
    #[serde(default = "unit")]
    pub temperature: f64,
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepStats {
    /// Steps done, this one included.
    pub step: usize,
    /// Cross-entropy in nats per token.
    pub loss: f64,
    /// Range loss before its weight, 0 without.
    pub range_loss: f64,
    /// Gradient norm before clipping.
    pub norm: f64,
    /// Learning rate.
    pub rate: f64,
}

/// A line of the log, and what a progress display gets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Progress {
    /// Name of the run.
    pub run: String,
    /// Last step.
    #[serde(flatten)]
    pub stats: StepStats,
    /// Steps in all.
    pub steps: usize,
    /// Training tokens per second since the previous line.
    pub tokens_per_second: f64,
    /// Seconds until the end at that speed.
    pub seconds_left: f64,
    /// Held-out nats per token, where this line follows an evaluation.
    pub held_out: Option<f64>,
}

/// A model in training.
pub struct Trainer {
    name: String,
    config: ModelConfig,
    train: TrainConfig,
    device: Device,
    model: Decoder,
    params: Vec<HostParam>,
    moments: Moments,
    step: usize,
    best: Option<f64>,
    smooth: Option<f64>,
    lowest: f64,
    folder: Option<PathBuf>,
    polynomials: Option<Polynomials>,
    teacher: Option<(Decoder, Distil)>,
}

impl Trainer {
    /// Starts a run named `name` from `params` (in the order of [`pull`]), or from random weights of `seed`.
    pub fn new(
        name: impl Into<String>,
        config: ModelConfig,
        train: TrainConfig,
        params: Option<Vec<HostParam>>,
        device: &Device,
    ) -> Result<Self> {
        train.check()?;
        heap::retain();
        let device = device.clone().autodiff();
        let mut model = Decoder::new(&config, train.seed, &device, DType::F32)?;
        if let Some(params) = params {
            model = push(model.clone(), &align(&pull(&model), params)?)?;
        }
        let params = pull(&model);
        let moments = Moments::new(&params);
        Ok(Self {
            name: name.into(),
            config,
            train,
            device,
            model,
            params,
            moments,
            step: 0,
            best: None,
            smooth: None,
            lowest: f64::INFINITY,
            folder: None,
            polynomials: None,
            teacher: None,
        })
    }

    /// Trains the model with polynomials in the place of its functions. Evaluations stay exact.
    pub fn with_polynomials(mut self, polynomials: Option<Polynomials>) -> Self {
        self.polynomials = polynomials;
        self
    }

    /// Mixes the loss with the divergence from a teacher of the same vocabulary and context.
    pub fn with_teacher(mut self, teacher: Decoder, distil: Distil) -> Result<Self> {
        if teacher.config().vocab != self.config.vocab {
            let expected = format!("the student's {}", self.config.vocab);
            return Err(Error::config("teacher vocab", teacher.config().vocab, expected));
        }
        if !(0.0..=1.0).contains(&distil.weight) || distil.temperature.is_nan() || distil.temperature <= 0.0 {
            return Err(Error::config("distil", format!("{distil:?}"), "a weight in [0, 1], a temperature above 0"));
        }
        self.teacher = Some((teacher, distil));
        Ok(self)
    }

    /// Writes checkpoints and the log to a folder; continues from the checkpoint there, if `resume` and one exists.
    pub fn in_folder(mut self, folder: &Path, resume: bool) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        self.folder = Some(folder.into());
        let last = folder.join("last.safetensors");
        if resume && last.exists() {
            self.restore(&last)?;
        }
        Ok(self)
    }

    /// Shape and operators.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Steps done.
    pub fn step_count(&self) -> usize {
        self.step
    }

    /// Parameters on the host, always in step with the model.
    pub fn params(&self) -> &[HostParam] {
        &self.params
    }

    /// The model on the plain device, for evaluation.
    pub fn valid(&self) -> Decoder {
        self.model.valid()
    }

    /// One optimiser update.
    pub fn step(&mut self, corpus: &Corpus) -> Result<StepStats> {
        let t = &self.train;
        let mut sum: Option<Vec<Vec<f32>>> = None;
        let (mut loss, mut range_loss) = (0.0, 0.0);
        for micro in 0..t.accumulation {
            let at = (self.step * t.accumulation + micro) as u64;
            let windows = corpus.batch(t.seed, at, t.batch, self.config.context)?;
            let (total, task, range) = self.losses(&windows)?;
            loss += task / t.accumulation as f64;
            range_loss += range / t.accumulation as f64;
            let mut grads = total.div_scalar(t.accumulation as f64).backward();
            let grads = gradients(&self.model, &mut grads);
            match &mut sum {
                None => sum = Some(grads),
                Some(sum) => {
                    for (a, g) in sum.iter_mut().flatten().zip(grads.iter().flatten()) {
                        *a += g;
                    }
                }
            }
        }
        let mut grads = sum.unwrap_or_default();
        let norm = clip_global_norm(&mut grads, t.clip);
        let rate = t.schedule.rate(self.step, t.steps);
        self.watch_divergence(loss, norm)?;
        self.train.optimiser.update(&mut self.params, &mut self.moments, &grads, rate, self.step + 1);
        self.model = push(self.model.clone(), &self.params)?;
        self.step += 1;
        Ok(StepStats { step: self.step, loss, range_loss, norm, rate })
    }

    /// Trains to the end, evaluating, logging and saving on the way; returns the held-out nats per token at the end.
    ///
    /// The best checkpoint is the one with the lowest held-out loss. On divergence the run stops with the reason and
    /// both checkpoints stay as they were.
    pub fn run(&mut self, corpus: &Corpus, held_out: &Corpus, mut report: impl FnMut(&Progress)) -> Result<f64> {
        let (mut since, mut step_then) = (Instant::now(), self.step);
        let mut last = f64::NAN;
        while self.step < self.train.steps {
            let stats = self.step(corpus)?;
            let done = self.step == self.train.steps;
            let due = |every: usize| done || (every > 0 && self.step.is_multiple_of(every));
            let mut evaluated = None;
            if due(self.train.evaluate_every) {
                last = eval::nats_per_token(&self.valid(), held_out, self.train.evaluate_windows)?;
                evaluated = Some(last);
                if self.best.is_none_or(|best| last < best) {
                    self.best = Some(last);
                    self.save("best.safetensors")?;
                }
            }
            if due(self.train.checkpoint_every) {
                self.save("last.safetensors")?;
            }
            if evaluated.is_some() || due(self.train.log_every.max(1)) {
                let tokens = (self.step - step_then) * self.train.tokens_per_step(&self.config);
                let speed = tokens as f64 / since.elapsed().as_secs_f64();
                let left = (self.train.steps - self.step) * self.train.tokens_per_step(&self.config);
                let progress = Progress {
                    run: self.name.clone(),
                    stats,
                    steps: self.train.steps,
                    tokens_per_second: speed,
                    seconds_left: left as f64 / speed,
                    held_out: evaluated,
                };
                self.log(&progress)?;
                report(&progress);
                (since, step_then) = (Instant::now(), self.step);
            }
        }
        if last.is_nan() {
            last = eval::nats_per_token(&self.valid(), held_out, self.train.evaluate_windows)?;
        }
        Ok(last)
    }

    /// Everything needed to continue, as one archive.
    pub fn archive(&self) -> Archive {
        let mut tensors = self.params.clone();
        for (kind, moments) in [("first", &self.moments.first), ("second", &self.moments.second)] {
            tensors.extend(self.params.iter().zip(moments).map(|(p, data)| HostParam {
                name: format!("{kind}/{}", p.name),
                data: data.clone(),
                ..p.clone()
            }));
        }
        let number = |x: Option<f64>| x.map(|x| x.to_bits().to_string()).unwrap_or_default();
        let fields = [
            ("model", serde_json::to_string(&self.config).unwrap_or_default()),
            ("train", serde_json::to_string(&self.train).unwrap_or_default()),
            ("step", self.step.to_string()),
            ("best", number(self.best)),
            ("smooth", number(self.smooth)),
            ("lowest", number(Some(self.lowest))),
        ];
        Archive { tensors, fields: fields.map(|(k, v)| (k.to_owned(), v)).into() }
    }

    fn save(&self, file: &str) -> Result<()> {
        match &self.folder {
            Some(folder) => self.archive().save(&folder.join(file)),
            None => Ok(()),
        }
    }

    fn restore(&mut self, path: &Path) -> Result<()> {
        let archive = Archive::load(path)?;
        let own = self.archive();
        for field in ["model", "train"] {
            let (found, expected) = (archive.fields.get(field).cloned().unwrap_or_default(), &own.fields[field]);
            if &found != expected {
                return Err(Error::Checkpoint { path: path.into(), field, found, expected: expected.clone() });
            }
        }
        let tensors = align(&own.tensors, archive.tensors)?;
        let corrupt = |field: &str| Error::Corrupt {
            path: path.into(),
            reason: format!("field `{field}` is missing or not a number"),
            hint: "delete it and continue from an older checkpoint",
        };
        let number = |field: &str| -> Result<Option<f64>> {
            match archive.fields.get(field).map(String::as_str) {
                Some("") => Ok(None),
                Some(bits) => bits.parse().map(|b| Some(f64::from_bits(b))).map_err(|_| corrupt(field)),
                None => Err(corrupt(field)),
            }
        };
        self.step = archive.fields.get("step").and_then(|s| s.parse().ok()).ok_or_else(|| corrupt("step"))?;
        self.best = number("best")?;
        self.smooth = number("smooth")?;
        self.lowest = number("lowest")?.unwrap_or(f64::INFINITY);
        let count = self.params.len();
        self.params = tensors[..count].to_vec();
        self.moments.first = tensors[count..2 * count].iter().map(|t| t.data.clone()).collect();
        self.moments.second = tensors[2 * count..].iter().map(|t| t.data.clone()).collect();
        self.model = push(self.model.clone(), &self.params)?;
        Ok(())
    }

    /// Total loss as a tensor, cross-entropy and range loss as numbers.
    fn losses(&self, windows: &[&[u32]]) -> Result<(Tensor<1>, f64, f64)> {
        let (inputs, targets) = inputs_and_targets(&self.config, windows, &self.device)?;
        let mut probe = match self.train.range {
            Some(range) => Probe::penalise(range.limits),
            None => Probe::off(),
        }
        .with_polynomials(self.polynomials.clone());
        let logits = self.model.forward(inputs, None, &mut probe);
        let lesson = match &self.teacher {
            Some((teacher, distil)) => {
                let (inputs, _) = inputs_and_targets(&self.config, windows, &self.device.clone().inner())?;
                let wanted = teacher.forward(inputs, None, &mut Probe::off());
                Some((divergence(wanted, logits.clone(), distil.temperature), distil.weight))
            }
            None => None,
        };
        let task = cross_entropy(logits, targets);
        let task_value = scalar(&task);
        let task = match lesson {
            Some((lesson, weight)) => task.mul_scalar(1.0 - weight).add(lesson.mul_scalar(weight)),
            None => task,
        };
        let Some((range, penalty)) = self.train.range.zip(probe.take_penalty()) else {
            return Ok((task, task_value, 0.0));
        };
        let value = scalar(&penalty);
        let ramp = ((self.step + 1) as f64 / range.ramp.max(1) as f64).min(1.0);
        Ok((task.add(penalty.mul_scalar(range.weight * ramp)), task_value, value))
    }

    fn watch_divergence(&mut self, loss: f64, norm: f64) -> Result<()> {
        let stop = |reason: String| Err(Error::Diverged { step: self.step + 1, reason });
        if !loss.is_finite() {
            return stop(format!("the loss is {loss}"));
        }
        if !norm.is_finite() {
            return stop(format!("the gradient norm is {norm}"));
        }
        let smooth = self.smooth.map_or(loss, |s| 0.95 * s + 0.05 * loss);
        let limit = 1.5 * self.lowest + 1.0;
        if smooth > limit {
            return stop(format!("the smoothed loss rose to {smooth:.3} from {:.3}", self.lowest));
        }
        self.smooth = Some(smooth);
        self.lowest = self.lowest.min(smooth);
        Ok(())
    }

    fn log(&self, progress: &Progress) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let path = folder.join("log.jsonl");
        let line = serde_json::to_string(progress).map_err(|e| Error::Export(e.to_string()))?;
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io(&path))?;
        writeln!(file, "{line}").map_err(Error::io(&path))
    }
}

impl TrainConfig {
    /// A run with the defaults that the shipped model uses.
    pub fn new(seed: u64, batch: usize, steps: usize, peak: f64) -> Self {
        Self {
            seed,
            batch,
            accumulation: 1,
            steps,
            schedule: Schedule { peak, warm_up: (steps / 20).clamp(1, 100), floor: 0.05 },
            optimiser: AdamW { beta2: 0.98, weight_decay: 0.05, ..AdamW::default() },
            clip: 1.0,
            range: None,
            evaluate_every: 0,
            evaluate_windows: windows(),
            checkpoint_every: 0,
            log_every: log_every(),
        }
    }

    /// Training tokens consumed by one step.
    pub fn tokens_per_step(&self, config: &ModelConfig) -> usize {
        self.batch * self.accumulation * config.context
    }

    fn check(&self) -> Result<()> {
        for (field, value) in [("batch", self.batch), ("accumulation", self.accumulation), ("steps", self.steps)] {
            if value == 0 {
                return Err(Error::config(field, value, "at least 1"));
            }
        }
        if self.clip.is_nan() || self.clip <= 0.0 {
            return Err(Error::config("clip", self.clip, "positive"));
        }
        if !(self.schedule.peak > 0.0 && self.schedule.peak.is_finite()) {
            return Err(Error::config("peak", self.schedule.peak, "positive and finite"));
        }
        self.optimiser.check()
    }
}

/// Splits windows of `context + 1` tokens into inputs `[batch, context]` and `batch * context` next tokens.
pub fn inputs_and_targets(
    config: &ModelConfig,
    windows: &[&[u32]],
    device: &Device,
) -> Result<(Tensor<2, Int>, Vec<u32>)> {
    let inputs: Vec<u32> = windows.iter().flat_map(|w| &w[..w.len() - 1]).copied().collect();
    let targets: Vec<u32> = windows.iter().flat_map(|w| &w[1..]).copied().collect();
    check_tokens(config, &targets)?;
    Ok((token_tensor(config, &inputs, windows.len(), device)?, targets))
}

/// Mean cross-entropy in nats of logits `[batch, rows, vocab]` against `batch * rows` targets below `vocab`.
pub fn cross_entropy(logits: Tensor<3>, targets: Vec<u32>) -> Tensor<1> {
    let [batch, rows, vocab] = logits.dims();
    let logits = logits.reshape([batch * rows, vocab]);
    if fused::applies(&logits) {
        return fused::cross_entropy(logits, Arc::new(targets));
    }
    let ids: Vec<i64> = targets.into_iter().map(i64::from).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [batch * rows, 1]), (&logits.device(), DType::I64));
    log_softmax(logits, 1).gather(1, ids).mean().neg()
}

/// Mean Kullback-Leibler divergence in nats of a student's logits from its teacher's, both over `temperature`, times its
/// square, so that gradients keep their size. The teacher is on the plain device.
pub fn divergence(teacher: Tensor<3>, student: Tensor<3>, temperature: f64) -> Tensor<1> {
    let [batch, rows, vocab] = student.dims();
    let flat = |x: Tensor<3>| log_softmax(x.reshape([batch * rows, vocab]).div_scalar(temperature), 1);
    let wanted = Tensor::from_inner(flat(teacher));
    let difference = wanted.clone().sub(flat(student));
    wanted.exp().mul(difference).sum().mul_scalar(temperature * temperature / (batch * rows) as f64)
}

/// The value of a tensor of one element.
pub(crate) fn scalar(x: &Tensor<1>) -> f64 {
    x.clone().detach().into_data().iter::<f64>().next().unwrap_or(f64::NAN)
}

fn one() -> usize {
    1
}

fn unit() -> f64 {
    1.0
}

fn windows() -> usize {
    64
}

fn log_every() -> usize {
    20
}
