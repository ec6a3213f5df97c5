//! The training loop: one step is one optimiser update; everything is counted in steps.

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use serde::Serialize;

use crate::arch::Arch;
use crate::checkpoint::Archive;
use crate::corpus::Corpus;
use crate::descent::{Descent, Outcome};
use crate::error::{Error, Result};
use crate::eval;
use crate::heap;
use crate::journal::{Event, Note, Progress, StepStats, append};
use crate::learned::Learned;
use crate::loss::{
    cosine_distance, cross_entropy, divergence, inputs_and_targets, padded, scalar, with_hidden,
};
use crate::params::{HostParam, align, gradients, pull, push, push_trained};
use crate::probe::{Polynomials, Probe};
use crate::settings::{Distil, FREE, TrainConfig};
use crate::stamp::{differences, hash_params, json};
use crate::state::State;
use crate::transformer::Transformer;

/// Checkpoint that a run continues from.
pub const LAST: &str = "last.safetensors";
/// The one before it.
pub const PREVIOUS: &str = "previous.safetensors";
/// Checkpoint with the lowest held-out loss.
pub const BEST: &str = "best.safetensors";

/// A model in training.
pub struct Trainer {
    name: String,
    arch: Arch,
    train: TrainConfig,
    device: Device,
    model: Transformer,
    params: Vec<HostParam>,
    descent: Descent,
    folder: Option<PathBuf>,
    /// With the settings that they were fitted by.
    polynomials: Option<(Polynomials, String)>,
    teacher: Option<(Transformer, Distil)>,
    state: State,
    /// Tokens learned from since the trainer was made.
    tokens: usize,
    notes: Vec<String>,
    /// Hashes of the texts, known once [`Trainer::run`] has seen them.
    texts: [String; 2],
    /// Hash of the weights at the first step.
    begun: String,
}

impl Trainer {
    /// Starts a run named `name` from `params` (in the order of [`pull`]), or from random weights
    /// of `seed`.
    pub fn new(
        name: impl Into<String>,
        arch: Arch,
        train: TrainConfig,
        params: Option<Vec<HostParam>>,
        device: &Device,
    ) -> Result<Self> {
        heap::retain();
        let device = device.clone().autodiff();
        let mut model = Transformer::new(&arch, train.seed, &device, DType::F32)?;
        let mut params = match params {
            Some(params) => align(&pull(&model), params)?,
            None => pull(&model),
        };
        train.check(&params)?;
        if let Some(bad) = params.iter().find(|p| p.data.iter().any(|x| !x.is_finite())) {
            return Err(Error::config("start", format!("not finite in `{}`", bad.name), "finite everywhere"));
        }
        let begun = hash_params(&params, "");
        let learned = Learned::new(&mut params, &train.learn, train.seed);
        model = push(model, &params)?;
        Ok(Self {
            name: name.into(),
            arch,
            train,
            device,
            model,
            params,
            descent: Descent::new(learned),
            folder: None,
            polynomials: None,
            teacher: None,
            state: State { step: 0, best: None, smooth: None, lowest: f64::INFINITY },
            tokens: 0,
            notes: Vec::new(),
            texts: Default::default(),
            begun,
        })
    }

    /// Trains the model with polynomials in the place of its functions, fitted by these settings: a
    /// run by others is not gone on with. Evaluations stay exact.
    pub fn with_polynomials(mut self, polynomials: Polynomials, settings: &impl Serialize) -> Self {
        self.polynomials = Some((polynomials, json(settings).to_string()));
        self
    }

    /// Mixes the loss with what a teacher of the same vocabulary and context says.
    pub fn with_teacher(mut self, teacher: Transformer, distil: Distil) -> Result<Self> {
        let (own, other) = (&self.arch.shape, &teacher.arch().shape);
        if other.vocab != own.vocab {
            return Err(Error::config("teacher vocab", other.vocab, format!("the student's {}", own.vocab)));
        }
        if distil.hidden > 0.0 && (other.layers, other.d_model) != (own.layers, own.d_model) {
            let found = format!("{} layers of {}", other.layers, other.d_model);
            let expected =
                format!("the student's {} of {}, for hidden states to compare", own.layers, own.d_model);
            return Err(Error::config("teacher", found, expected));
        }
        if teacher.arch().prefix != self.arch.prefix {
            let [found, own] = [&teacher.arch().prefix, &self.arch.prefix].map(|p| format!("{p:?}"));
            return Err(Error::config("teacher public_prefix", found, format!("the student's {own}")));
        }
        distil.check()?;
        self.teacher = Some((teacher, distil));
        Ok(self)
    }

    /// Writes checkpoints and the log to a folder. With `resume` it continues from the checkpoint
    /// there, if one exists; without, a folder that holds a checkpoint is refused. A damaged
    /// checkpoint is put aside for the one before it.
    pub fn in_folder(mut self, folder: &Path, resume: bool) -> Result<Self> {
        if !resume {
            ensure_vacant(folder)?;
        }
        cipherlm_files::create_folder(folder)?;
        self.folder = Some(folder.into());
        let [last, previous] = [LAST, PREVIOUS].map(|name| folder.join(name));
        if last.exists() {
            match Archive::load(&last) {
                Ok(archive) => self.restore(&last, archive)?,
                Err(damage @ Error::Corrupt { .. }) if previous.exists() => {
                    let Ok(archive) = Archive::load(&previous) else { return Err(damage) };
                    self.restore(&previous, archive)?;
                    cipherlm_files::rename(&last, &folder.join("damaged.safetensors"))?;
                    self.notes.push(format!("{damage}; put aside, went on from the checkpoint before"));
                }
                Err(damage) => return Err(damage),
            }
        } else if previous.exists() {
            // A crash between the two renames of a save.
            self.restore(&previous, Archive::load(&previous)?)?;
        }
        Ok(self)
    }

    /// Shape and form.
    pub fn arch(&self) -> &Arch {
        &self.arch
    }

    /// Steps done.
    pub fn step_count(&self) -> usize {
        self.state.step
    }

    /// Factor on the learning rate: 1, halved with every step that was undone.
    pub fn rate_factor(&self) -> f64 {
        self.descent.factor
    }

    /// Parameters on the host, always in step with the model.
    pub fn params(&self) -> &[HostParam] {
        &self.params
    }

    /// The model on the plain device, for evaluation.
    pub fn valid(&self) -> Transformer {
        self.model.valid()
    }

    /// One optimiser update. A batch whose loss or gradient is not finite undoes the update before
    /// it, halves the rate and is skipped, at most eight times in a row.
    pub fn step(&mut self, corpus: &Corpus) -> Result<StepStats> {
        loop {
            if let Some(stats) = self.attempt(corpus)? {
                return Ok(stats);
            }
        }
    }

    /// Trains to the end, evaluating, logging and saving on the way; returns the held-out nats per
    /// token at the end.
    ///
    /// The best checkpoint is the one with the lowest held-out loss. On divergence the run stops
    /// with the reason and all checkpoints stay as they were.
    pub fn run(&mut self, corpus: &Corpus, held_out: &Corpus, mut report: impl FnMut(&Event)) -> Result<f64> {
        self.read_texts(corpus, held_out)?;
        if let (true, Some((teacher, _))) = (self.arch.causal() && self.state.step == 0, &self.teacher) {
            let nats = eval::nats_per_token(teacher, held_out, self.train.evaluate_windows)?;
            self.notes.push(format!("the teacher has {nats:.4} nats a token on the held-out windows"));
        }
        self.tell(&mut report)?;
        let (mut since, mut then) = (Instant::now(), (self.state.step, self.tokens));
        let mut last = f64::NAN;
        while self.state.step < self.train.steps {
            let stats = self.attempt(corpus)?;
            self.tell(&mut report)?;
            let step = self.state.step;
            let done = step == self.train.steps;
            let due = |every: usize| done || (every > 0 && step.is_multiple_of(every));
            let mut evaluated = None;
            if due(self.train.evaluate_every) {
                last = self.evaluate(held_out)?;
                evaluated = Some(last);
                if last.is_finite() && self.state.best.is_none_or(|best| last < best) {
                    self.state.best = Some(last);
                    self.save(BEST)?;
                }
            }
            if due(self.train.checkpoint_every) {
                self.save(LAST)?;
            }
            let Some(stats) = stats else { continue };
            if evaluated.is_some() || due(self.train.log_every.max(1)) {
                let seconds = since.elapsed().as_secs_f64();
                let left = (self.train.steps - step) as f64 / (step - then.0) as f64;
                let progress = Progress {
                    run: self.name.clone(),
                    stats,
                    steps: self.train.steps,
                    tokens_per_second: (self.tokens - then.1) as f64 / seconds,
                    seconds_left: left * seconds,
                    held_out: evaluated,
                };
                self.log(&Event::Step(progress), &mut report)?;
                (since, then) = (Instant::now(), (step, self.tokens));
            }
        }
        self.tell(&mut report)?;
        if last.is_nan() {
            last = self.evaluate(held_out)?;
        }
        Ok(last)
    }

    /// Everything needed to continue, as one archive.
    pub fn archive(&self) -> Archive {
        let mut tensors = self.params.clone();
        let learned = &self.descent.learned;
        tensors.extend(learned.factors());
        let moments = &learned.moments;
        for (kind, moments) in [("first", &moments.first), ("second", &moments.second)] {
            let arrays = learned.arrays.iter().zip(moments);
            tensors.extend(
                arrays.map(|(a, m)| HostParam::new(format!("{kind}/{}", a.name), &a.shape, m.clone())),
            );
        }
        let number = |x: Option<f64>| x.map(|x| x.to_bits().to_string()).unwrap_or_default();
        let s = &self.state;
        let fields = [
            ("arch", json(&self.arch).to_string()),
            ("train", json(&self.train).to_string()),
            ("lesson", self.lesson()),
            ("begun", self.begun.clone()),
            ("text", self.texts[0].clone()),
            ("held_out", self.texts[1].clone()),
            ("step", s.step.to_string()),
            ("best", number(s.best)),
            ("smooth", number(s.smooth)),
            ("lowest", number(Some(s.lowest))),
            ("factor", number(Some(self.descent.factor))),
        ];
        Archive { tensors, fields: fields.map(|(k, v)| (k.to_owned(), v)).into() }
    }

    /// One update, or `None` where it was undone.
    fn attempt(&mut self, corpus: &Corpus) -> Result<Option<StepStats>> {
        let (loss, range_loss, grads) = self.accumulate(corpus)?;
        if loss.is_finite() {
            self.watch_divergence(loss)?;
        }
        let t = &self.train;
        let (step, rate) = (self.state.step + 1, t.schedule.rate(self.state.step, t.steps));
        let total = loss + range_loss;
        let outcome =
            self.descent.step(&t.optimiser, (total, grads), t.clip, rate, step, &mut self.params)?;
        self.model = push_trained(self.model.clone(), &self.params)?;
        self.state.step = step;
        match outcome {
            Outcome::Moved { norm, rate } => Ok(Some(StepStats { step, loss, range_loss, norm, rate })),
            Outcome::Undone(note) => {
                self.notes.push(note);
                Ok(None)
            }
        }
    }

    /// Mean losses and summed gradients of the micro-batches of one step.
    fn accumulate(&mut self, corpus: &Corpus) -> Result<(f64, f64, Vec<Vec<f32>>)> {
        let t = &self.train;
        let mut sum: Vec<Vec<f32>> = Vec::new();
        let (mut loss, mut range_loss) = (0.0, 0.0);
        for micro in 0..t.accumulation {
            let at = (self.state.step * t.accumulation + micro) as u64;
            let windows = corpus.batch(t.seed, at, t.batch, self.arch.room())?;
            let (total, task, range) = self.losses(&windows)?;
            // The last token of a window is a target only.
            let inputs = |w: &&[u32]| w.len() - usize::from(self.arch.causal());
            self.tokens += windows.iter().map(inputs).sum::<usize>();
            loss += task / t.accumulation as f64;
            range_loss += range / t.accumulation as f64;
            let mut grads = total.div_scalar(t.accumulation as f64).backward();
            let grads = self.descent.learned.gradients(gradients(&self.model, &mut grads));
            if sum.is_empty() {
                sum = grads;
            } else {
                sum.iter_mut().flatten().zip(grads.iter().flatten()).for_each(|(a, g)| *a += g);
            }
        }
        Ok((loss, range_loss, sum))
    }

    /// Total loss as a tensor, the task's loss and the range loss as numbers.
    fn losses(&self, windows: &[&[u32]]) -> Result<(Tensor<1>, f64, f64)> {
        let mut probe = match self.train.range {
            Some(range) => Probe::penalise(range.limits),
            None => Probe::off(),
        }
        .with_polynomials(self.polynomials.as_ref().map(|(polynomials, _)| polynomials.clone()));
        if self.teacher.as_ref().is_some_and(|(_, d)| d.hidden > 0.0) {
            probe = probe.keeping_hidden();
        }
        let (total, value) = match self.arch.causal() {
            true => self.next_token_loss(windows, &mut probe)?,
            false => self.sentence_loss(windows, &mut probe)?,
        };
        let Some((range, penalty)) = self.train.range.zip(probe.take_penalty()) else {
            return Ok((total, value, 0.0));
        };
        let ramp = ((self.state.step + 1) as f64 / range.ramp.max(1) as f64).min(1.0);
        let range_loss = scalar(&penalty);
        Ok((total.add(penalty.mul_scalar(range.weight * ramp)), value, range_loss))
    }

    /// Cross-entropy with the text, mixed with what the teacher says; and the cross-entropy alone.
    fn next_token_loss(&self, windows: &[&[u32]], probe: &mut Probe) -> Result<(Tensor<1>, f64)> {
        let (inputs, targets) = inputs_and_targets(&self.arch, windows, &self.device)?;
        let logits = self.model.forward(inputs, None, probe);
        let task = cross_entropy(logits.clone(), targets);
        let value = scalar(&task);
        let Some((teacher, distil)) = &self.teacher else { return Ok((task, value)) };
        let (inputs, _) = inputs_and_targets(&self.arch, windows, &self.device.clone().inner())?;
        let mut theirs = Probe::off().keeping_hidden();
        let wanted = teacher.forward(inputs, None, &mut theirs);
        let lesson = divergence(wanted, logits, distil.temperature);
        let total = task.mul_scalar(1.0 - distil.weight).add(lesson.mul_scalar(distil.weight));
        Ok((with_hidden(total, distil, theirs, probe, None), value))
    }

    /// Distance of sentence vectors from the teacher's, and of hidden states; and the former alone.
    fn sentence_loss(&self, sentences: &[&[u32]], probe: &mut Probe) -> Result<(Tensor<1>, f64)> {
        let Some((teacher, distil)) = &self.teacher else {
            return Err(Error::config("distil", "absent", "a teacher: encoders learn from one here"));
        };
        let (ids, keep) = padded(&self.arch, sentences, &self.device)?;
        let found = self.model.sentence(ids, keep, probe);
        let (ids, keep) = padded(&self.arch, sentences, &self.device.clone().inner())?;
        let mut theirs = Probe::off().keeping_hidden();
        let wanted = teacher.sentence(ids, keep.clone(), &mut theirs);
        let distance = cosine_distance(wanted, found);
        let value = scalar(&distance);
        let total = distance.mul_scalar(distil.weight);
        Ok((with_hidden(total, distil, theirs, probe, Some(&keep)), value))
    }

    /// Held-out nats per token, or for an encoder the distance from its teacher.
    fn evaluate(&self, held_out: &Corpus) -> Result<f64> {
        let count = self.train.evaluate_windows;
        match &self.teacher {
            Some((teacher, _)) if !self.arch.causal() => {
                eval::distance(teacher, &self.valid(), held_out, count)
            }
            _ => eval::nats_per_token(&self.valid(), held_out, count),
        }
    }

    fn watch_divergence(&mut self, loss: f64) -> Result<()> {
        let s = &mut self.state;
        let smooth = s.smooth.map_or(loss, |smooth| 0.95 * smooth + 0.05 * loss);
        if smooth > 1.5 * s.lowest + 1.0 {
            let reason = format!("the smoothed loss rose to {smooth:.3} from {:.3}", s.lowest);
            return Err(Error::Diverged { step: s.step + 1, reason });
        }
        s.smooth = Some(smooth);
        s.lowest = s.lowest.min(smooth);
        Ok(())
    }

    /// Compares the texts with those of the checkpoint that the run continues from.
    fn read_texts(&mut self, corpus: &Corpus, held_out: &Corpus) -> Result<()> {
        let texts = [corpus.hash(), held_out.hash()];
        let [learned, scored] = &self.texts;
        if !learned.is_empty() && *learned != texts[0] {
            let path = self.folder.clone().unwrap_or_default().join(LAST);
            let differences = format!("training text {learned}, now {}", texts[0]);
            return Err(Error::Checkpoint { path, differences });
        }
        if !scored.is_empty() && *scored != texts[1] {
            self.state.best = None;
            self.notes.push("the held-out text is another one: the best checkpoint is chosen anew".into());
        }
        self.texts = texts;
        Ok(())
    }

    /// What the run learns from beside the text.
    fn lesson(&self) -> String {
        let teacher =
            self.teacher.as_ref().map(|(teacher, how)| hash_params(&pull(teacher), &json(how).to_string()));
        let polynomials = match &self.polynomials {
            Some((_, settings)) => format!("polynomials by {settings}"),
            None => "exact functions".into(),
        };
        format!("{}, {polynomials}", teacher.map_or("no teacher".into(), |hash| format!("teacher {hash}")))
    }

    fn tell(&mut self, report: &mut impl FnMut(&Event)) -> Result<()> {
        for note in std::mem::take(&mut self.notes) {
            let note = Note { run: self.name.clone(), step: self.state.step, note };
            self.log(&Event::Note(note), report)?;
        }
        Ok(())
    }

    fn log(&self, event: &Event, report: &mut impl FnMut(&Event)) -> Result<()> {
        if let Some(folder) = &self.folder {
            append(&folder.join("log.jsonl"), event)?;
        }
        report(event);
        Ok(())
    }

    fn save(&self, file: &str) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let path = folder.join(file);
        if file == LAST && path.exists() {
            cipherlm_files::rename(&path, &folder.join(PREVIOUS))?;
        }
        self.archive().save(&path)
    }

    fn restore(&mut self, path: &Path, archive: Archive) -> Result<()> {
        let own = self.archive();
        let field = |fields: &Archive, name: &str| fields.fields.get(name).cloned().unwrap_or_default();
        let value = |text: &str| serde_json::from_str(text).unwrap_or_default();
        let mut found = differences(&value(&field(&archive, "arch")), &json(&self.arch), &[]);
        found.extend(differences(&value(&field(&archive, "train")), &json(&self.train), &FREE));
        let lessons = [field(&archive, "lesson"), own.fields["lesson"].clone()];
        if lessons[0] != lessons[1] {
            found.push(format!("{}, now {}", lessons[0], lessons[1]));
        }
        if field(&archive, "begun") != self.begun {
            found.push("the weights that the stage begins with".into());
        }
        if !found.is_empty() {
            return Err(Error::Checkpoint { path: path.into(), differences: found.join("; ") });
        }
        self.texts = [field(&archive, "text"), field(&archive, "held_out")];
        (self.state, self.descent.factor) = State::read(path, &archive)?;
        let mut tensors = align(&own.tensors, archive.tensors)?;
        let others = tensors.split_off(self.params.len());
        for (param, read) in self.params.iter_mut().zip(tensors) {
            param.data = read.data;
        }
        let find = |name: &str| others.iter().find(|t| t.name == name).map(|t| t.data.clone());
        self.descent.learned.restore(&self.params, find);
        self.model = push(self.model.clone(), &self.params)?;
        Ok(())
    }
}

/// Refuses a folder in which a run has left a checkpoint.
pub(crate) fn ensure_vacant(folder: &Path) -> Result<()> {
    match [LAST, PREVIOUS, BEST].map(|name| folder.join(name)).into_iter().find(|path| path.exists()) {
        Some(path) => Err(Error::Occupied { path }),
        None => Ok(()),
    }
}
