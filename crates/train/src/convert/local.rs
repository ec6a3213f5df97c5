//! The first stage of a conversion: every attention layer under the new operator learns the old
//! one's output from the old one's input. Layers do not depend on each other, and no gradient
//! crosses one.

use std::path::Path;
use std::time::Instant;

use burn::tensor::Device;
use cipherlm_model::Attention;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::layer::Layer;
use super::states::{LayerStates, States};
use crate::checkpoint::{Archive, Weighed};
use crate::corpus::Corpus;
use crate::descent::{Descent, Outcome};
use crate::error::{Error, Result};
use crate::journal::{Event, Note, Progress, StepStats, append};
use crate::optim::{AdamW, Schedule};
use crate::params::HostParam;
use crate::settings::{Learn, RangeLoss};
use crate::stamp::{differences, hash_params, json};

/// Factors on the queries that are tried before a layer learns, for all heads and then for each.
const SCALES: [f32; 9] = [1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.08, 0.04, 0.02];
/// Windows on which they are compared.
const TRIED: usize = 4;
/// Where the stage is.
const FILE: &str = "local.safetensors";

/// Settings of the layer-local stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Local {
    /// Seed of the data order.
    pub seed: u64,
    /// Training windows whose states are kept.
    pub windows: usize,
    /// Tokens of a window; the model's context when absent.
    #[serde(default)]
    pub length: Option<usize>,
    /// Windows per step.
    pub batch: usize,
    /// Optimiser updates for each layer.
    pub steps: usize,
    /// Learning rate.
    pub schedule: Schedule,
    /// Optimiser.
    #[serde(default = "undecayed")]
    pub optimiser: AdamW,
    /// Which tensors learn: those of queries and keys, when absent.
    #[serde(default = "queries_and_keys")]
    pub learn: Learn,
    /// Range loss, if any: its limits on scores and row means.
    #[serde(default)]
    pub range: Option<RangeLoss>,
    /// Steps between checkpoints, besides the one after every layer.
    #[serde(default = "hundred")]
    pub checkpoint_every: usize,
}

/// Trains the attention layers of `model` one after the other to do what those of `teacher` do on
/// training text. Progress counts the steps of all layers. With `resume` it continues at the step
/// where a stage in the folder was interrupted.
#[expect(clippy::too_many_arguments, reason = "a stage's surroundings")]
pub fn match_layers(
    stage: &str,
    how: &Local,
    teacher: &Weighed,
    model: Weighed,
    text: &Corpus,
    folder: &Path,
    resume: bool,
    report: &mut impl FnMut(&Event),
) -> Result<Weighed> {
    how.check(&model)?;
    let device = Device::flex();
    let room = model.0.room();
    let length = how.length.unwrap_or(room).min(room);
    let windows = text.windows(how.windows, length)?;
    let mut windows: Vec<&[u32]> = windows.iter().map(|w| &w[..length.min(w.len())]).collect();
    // Neighbours are alike, so that a batch of them has little padding.
    windows.sort_by_key(|w| w.len());
    let mut matching = Matching::new(stage, how, model, folder, resume)?;
    if matching.layer < matching.model.0.shape.layers {
        let states = States::of(teacher, &windows, &folder.join("states"), &device)?;
        while matching.layer < matching.model.0.shape.layers {
            matching.learn_layer(&states, &device, report)?;
        }
    }
    Ok(matching.model)
}

/// The stage on its way.
struct Matching<'a> {
    run: String,
    how: &'a Local,
    folder: &'a Path,
    made: String,
    model: Weighed,
    layer: usize,
    /// A layer in the middle, from a checkpoint.
    middle: Option<(usize, f64, Vec<HostParam>)>,
}

impl<'a> Matching<'a> {
    fn new(stage: &str, how: &'a Local, model: Weighed, folder: &'a Path, resume: bool) -> Result<Self> {
        let made = hash_params(&model.1, &json(&model.0).to_string());
        let mut out =
            Self { run: format!("{stage}/local"), how, folder, made, model, layer: 0, middle: None };
        let path = folder.join(FILE);
        if path.exists() {
            if !resume {
                return Err(Error::Occupied { path });
            }
            match Archive::load(&path) {
                Ok(archive) => out.restore(&path, archive)?,
                // Minutes of work, made again from the start.
                Err(Error::Corrupt { .. }) => cipherlm_files::rename(&path, &folder.join("local.damaged"))?,
                Err(other) => return Err(other),
            }
        }
        Ok(out)
    }

    fn learn_layer(
        &mut self,
        states: &States,
        device: &Device,
        report: &mut impl FnMut(&Event),
    ) -> Result<()> {
        let how = self.how;
        let from = states.layer(self.layer)?;
        let mut layer = Layer::new(&self.model.0, &self.model.1, self.layer, device)?;
        let middle = self.middle.take();
        if middle.is_none() {
            start_scale(
                &mut layer,
                &self.model.0.shape.attention,
                self.model.0.shape.heads,
                &from,
                states.windows,
            )?;
        }
        let mut descent = Descent::new(layer.learn(&how.learn, how.seed)?);
        let mut step = 0;
        if let Some((done, factor, tensors)) = middle {
            let find = |name: &str| tensors.iter().find(|t| t.name == name).map(|t| t.data.clone());
            descent.learned.restore(&layer.params, find);
            descent.learned.write(&mut layer.params);
            layer.push()?;
            (step, descent.factor) = (done, factor);
        }
        let since = (Instant::now(), step);
        while step < how.steps {
            let batch = self.batch(step, states);
            let (loss, grads) = layer.loss(from.pick(&batch, &layer.plain()), how.range)?;
            let grads = descent.learned.gradients(grads);
            let rate = how.schedule.rate(step, how.steps);
            step += 1;
            let outcome = descent.step(&how.optimiser, (loss, grads), 1.0, rate, step, &mut layer.params)?;
            layer.push()?;
            let event = self.event(outcome, loss, step, since, states.length);
            if matches!(event, Event::Note(_)) || step.is_multiple_of(20) || step == how.steps {
                append(&self.folder.join("log.jsonl"), &event)?;
                report(&event);
            }
            if step < how.steps && step.is_multiple_of(how.checkpoint_every.max(1)) {
                self.take(&layer);
                self.save(step, Some(&descent))?;
            }
        }
        self.take(&layer);
        self.layer += 1;
        self.save(0, None)
    }

    /// Windows of a step, the same for the same seed, layer and step; neighbours, where they have
    /// different lengths.
    fn batch(&self, step: usize, states: &States) -> Vec<usize> {
        let windows = states.windows;
        let mut rng = ChaCha8Rng::seed_from_u64(self.how.seed);
        rng.set_stream((self.layer * self.how.steps + step) as u64);
        if states.uneven() {
            let first = rng.random_range(0..=windows.saturating_sub(self.how.batch));
            return (first..windows.min(first + self.how.batch)).collect();
        }
        (0..self.how.batch).map(|_| rng.random_range(0..windows)).collect()
    }

    fn event(
        &self,
        outcome: Outcome,
        loss: f64,
        step: usize,
        since: (Instant, usize),
        length: usize,
    ) -> Event {
        let all = self.how.steps * self.model.0.shape.layers;
        let done = self.layer * self.how.steps + step;
        match outcome {
            Outcome::Undone(note) => Event::Note(Note { run: self.run.clone(), step: done, note }),
            Outcome::Moved { norm, rate } => {
                let speed = (step - since.1) as f64 / since.0.elapsed().as_secs_f64();
                Event::Step(Progress {
                    run: self.run.clone(),
                    stats: StepStats { step: done, loss, range_loss: 0.0, norm, rate },
                    steps: all,
                    tokens_per_second: speed * (self.how.batch * length) as f64,
                    seconds_left: (all - done) as f64 / speed,
                    held_out: None,
                })
            }
        }
    }

    /// Takes a layer's values into the model.
    fn take(&mut self, layer: &Layer) {
        for new in &layer.params {
            if let Some(param) = self.model.1.iter_mut().find(|p| p.name == new.name) {
                param.data.clone_from(&new.data);
            }
        }
    }

    fn save(&self, step: usize, descent: Option<&Descent>) -> Result<()> {
        let mut tensors: Vec<HostParam> =
            self.model.1.iter().filter(|p| p.name.contains(".attn.")).cloned().collect();
        if let Some(descent) = descent {
            let learned = &descent.learned;
            tensors.extend(learned.factors());
            for (kind, moments) in [("first", &learned.moments.first), ("second", &learned.moments.second)] {
                let arrays = learned.arrays.iter().zip(moments);
                tensors.extend(
                    arrays.map(|(a, m)| HostParam::new(format!("{kind}/{}", a.name), &a.shape, m.clone())),
                );
            }
        }
        let factor = descent.map_or(1.0, |d| d.factor);
        let fields = [
            ("made", self.made.clone()),
            ("local", json(self.how).to_string()),
            ("layer", self.layer.to_string()),
            ("step", step.to_string()),
            ("factor", factor.to_bits().to_string()),
        ];
        let fields = fields.map(|(k, v)| (k.to_owned(), v)).into();
        Archive { tensors, fields }.save(&self.folder.join(FILE))
    }

    fn restore(&mut self, path: &Path, archive: Archive) -> Result<()> {
        let field = |name: &str| archive.fields.get(name).cloned().unwrap_or_default();
        let settings = serde_json::from_str(&field("local")).unwrap_or_default();
        let mut found = differences(&settings, &json(self.how), &["checkpoint_every"]);
        if field("made") != self.made {
            found.push("the weights that the stage begins with".into());
        }
        if !found.is_empty() {
            return Err(Error::Checkpoint { path: path.into(), differences: found.join("; ") });
        }
        let number = |name: &str| {
            let reason = format!("field `{name}` is missing or not a number");
            field(name).parse::<u64>().map_err(|_| Error::Corrupt {
                path: path.into(),
                reason,
                hint: "delete it",
            })
        };
        self.layer = number("layer")? as usize;
        let (step, factor) = (number("step")? as usize, f64::from_bits(number("factor")?));
        for param in &mut self.model.1 {
            if let Some(found) =
                archive.tensors.iter().find(|t| t.name == param.name && t.shape == param.shape)
            {
                param.data.clone_from(&found.data);
            }
        }
        self.middle = (step > 0).then_some((step, factor, archive.tensors));
        Ok(())
    }
}

impl Local {
    fn check(&self, (arch, params): &Weighed) -> Result<()> {
        for (field, value) in
            [("local.windows", self.windows), ("local.batch", self.batch), ("local.steps", self.steps)]
        {
            if value == 0 {
                return Err(Error::config(field, value, "at least 1"));
            }
        }
        if let Some(part) = self.learn.tensors.iter().find(|part| !part.starts_with("attn.")) {
            return Err(Error::config("local.learn", part, "tensors of the attention, such as `attn.q`"));
        }
        if arch.frozen() {
            return Err(Error::config(
                "attention.eps",
                "frozen",
                "absolute: epsilons are frozen after this stage",
            ));
        }
        self.learn.check(params)?;
        self.optimiser.check(params)
    }
}

/// Gives the queries the size at which the new operator is closest to the old one, first for all
/// heads, then for each.
///
/// Under `(x + c)^p` a score has the slope of softmax at zero when it is multiplied by `c / p`;
/// heads whose scores spread over more than `c` below zero need less, because an even power grows
/// again beyond its zero.
fn start_scale(
    layer: &mut Layer,
    attention: &Attention,
    heads: usize,
    states: &LayerStates,
    windows: usize,
) -> Result<()> {
    let &Attention::PowerSoftmax { p, c, .. } = attention else { return Ok(()) };
    if c > 0.0 {
        layer.scale_queries(None, (c / f64::from(p)) as f32);
    }
    let some: Vec<usize> = (0..windows.min(TRIED)).map(|i| i * windows / windows.min(TRIED)).collect();
    for head in std::iter::once(None).chain((0..heads).map(Some)) {
        let kept = layer.params.clone();
        let mut best: Option<(f64, f32)> = None;
        for scale in SCALES {
            layer.params.clone_from(&kept);
            layer.scale_queries(head, scale);
            layer.push()?;
            let error = layer.error(states.pick(&some, &layer.plain()));
            if error.is_finite() && best.is_none_or(|(lowest, _)| error < lowest) {
                best = Some((error, scale));
            }
        }
        layer.params = kept;
        layer.scale_queries(head, best.map_or(1.0, |(_, scale)| scale));
    }
    layer.push()
}

fn undecayed() -> AdamW {
    AdamW { weight_decay: 0.0, beta2: 0.98, ..AdamW::default() }
}

fn queries_and_keys() -> Learn {
    Learn { tensors: vec!["attn.q".into(), "attn.k".into()], ..Learn::default() }
}

fn hundred() -> usize {
    100
}
