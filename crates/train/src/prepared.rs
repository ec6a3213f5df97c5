//! A run with its text read: all stages, then certification.
//!
//! Stages follow each other on the same weights: learn (softmax or PowerSoftmax, from scratch or
//! imported), convert to PowerSoftmax, minimise ranges, freeze epsilon; any of them with
//! polynomials in the place of the functions, or with a teacher. Each stage has its own folder with
//! checkpoints and a log, so an interrupted run continues at the step where it stopped.

use burn::tensor::{DType, Device};
use cipherlm_files::Lock;
use cipherlm_model::difference::{self, DIFFERENCE_FILE, Difference, Report};
use cipherlm_model::{Model, Tokenizer};
use serde_json::Value;
use std::path::Path;

use crate::arch::Arch;
use crate::checkpoint::{Archive, Weighed, read_weights, write_weights};
use crate::convert::match_layers;
use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::eval;
use crate::export::{self, Comparison};
use crate::journal::Event;
use crate::params::{HostParam, pull};
use crate::probe::Polynomials;
use crate::recipe::{Distillation, Freeze, Lean, Run, Stage, Teacher};
use crate::stamp::{differences, hash_params, json};
use crate::text::corpus;
use crate::tokens::tokenizer;
use crate::trainer::{LAST, PREVIOUS, Trainer, ensure_vacant};
use crate::transformer::Transformer;

/// Field of a calibrated file that says what it was made from.
const MADE: &str = "made";

/// A run with its text read and tokenised.
pub struct Prepared {
    /// The run.
    pub run: Run,
    /// Shape and form at the start.
    pub arch: Arch,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Training text.
    pub train: Corpus,
    /// Held-out text.
    pub held_out: Corpus,
    start: Vec<HostParam>,
}

/// A certified model and its figures.
pub struct Shipped {
    /// The model.
    pub model: Model,
    /// Exact against polynomial, in f64.
    pub comparison: Comparison,
    /// Of the exact model in f32, over all held-out windows of the check: nats per token, or for an
    /// encoder the mean distance from the model that the run starts from.
    pub held_out: f64,
}

impl Prepared {
    /// Reads and tokenises the text of a run and checks all that can be checked before the first
    /// step. Without `resume` no stage may have left a checkpoint. A tokenizer that was trained is
    /// kept in the run's folder, with what it was trained from.
    pub fn new(run: Run, resume: bool) -> Result<Self> {
        if run.stages.is_empty() {
            return Err(Error::config("stages", "empty", "at least one"));
        }
        for stage in run.stages.iter().filter(|_| !resume) {
            ensure_vacant(&run.stage_folder(stage))?;
        }
        let (mut arch, start) = start(&run)?;
        cipherlm_files::create_folder(&run.folder)?;
        let (train, held_out) = run.data.read()?;
        let tokenizer = tokenizer(&run, &train)?;
        if let Some(text) = &run.public_prefix {
            arch.prefix = tokenizer.encode(text)?;
            if arch.prefix.is_empty() {
                return Err(Error::config("public_prefix", format!("{text:?}"), "some text, or absent"));
            }
        }
        arch.check()?;
        for cut in run.stages.iter().flat_map(|stage| &stage.attenuate) {
            cut.check(&start)?;
        }
        let (words, vocab) = (tokenizer.vocab(), arch.shape.vocab);
        // The vocabulary of a published model may be padded; one that is trained from scratch has
        // no reason to be.
        if words > vocab || (words < vocab && run.start.is_none()) {
            return Err(Error::config("vocab", vocab, format!("the tokenizer's {words}")));
        }
        let (train, held_out) =
            (corpus(&tokenizer, &train, arch.causal())?, corpus(&tokenizer, &held_out, arch.causal())?);
        for text in [&train, &held_out] {
            text.windows(1, arch.room())?;
        }
        Ok(Self { run, arch, tokenizer, train, held_out, start })
    }

    /// Runs all stages, continuing where checkpoints exist if `resume`; returns shape and weights
    /// at the end.
    pub fn train(&self, resume: bool, mut report: impl FnMut(&Event)) -> Result<Weighed> {
        let device = Device::flex();
        let mut model = (self.arch.clone(), self.start.clone());
        for stage in &self.run.stages {
            model = self.stage(stage, model, resume, &device, &mut report)?;
        }
        Ok(model)
    }

    fn stage(
        &self,
        stage: &Stage,
        model: Weighed,
        resume: bool,
        device: &Device,
        report: &mut impl FnMut(&Event),
    ) -> Result<Weighed> {
        let folder = self.run.stage_folder(stage);
        cipherlm_files::create_folder(&folder)?;
        let lock = Lock::exclusive(&folder)?;
        lock.sweep()?;
        let teacher = match &stage.distil {
            Some(Distillation { teacher, how }) => Some((self.teacher(teacher, &model, device)?, *how)),
            None => None,
        };
        let before = model.clone();
        let mut model = match stage.attention {
            Some(attention) => convert(&model, attention)?,
            None => model,
        };
        if let Some(local) = &stage.local {
            model = match_layers(&stage.name, local, &before, model, &self.train, &folder, resume, report)?;
        }
        for cut in &stage.attenuate {
            cut.apply(&mut model.1)?;
        }
        if let Some(lean) = &stage.lean {
            let file = folder.join("lean.safetensors");
            model = self.kept(&file, resume, (&model, json(lean)), || self.lean(&model, lean))?;
        }
        if let Some(how) = stage.freeze {
            let file = folder.join("frozen.safetensors");
            model = self.kept(&file, resume, (&model, json(&how)), || self.freeze(&model, how))?;
        }
        let polynomials = if stage.polynomial { Some(self.polynomials(&model)?) } else { None };
        let (arch, params) = model;
        let trainer = Trainer::new(&stage.name, arch.clone(), stage.train.clone(), Some(params), device)?;
        let e = &self.run.export;
        let mut trainer = match polynomials {
            Some(polynomials) => {
                trainer.with_polynomials(polynomials, &(e.calibration_windows, &e.margins, &e.fit))
            }
            None => trainer,
        };
        if let Some((teacher, how)) = teacher {
            trainer = trainer.with_teacher(teacher, how)?;
        }
        let mut trainer = trainer.in_folder(&folder, resume)?;
        trainer.run(&self.train, &self.held_out, report)?;
        Ok((
            arch,
            trainer.params().iter().map(|p| HostParam::new(&p.name, &p.shape, p.data.clone())).collect(),
        ))
    }

    /// What is calibrated on text is so once: a resumed run must continue with the same constants,
    /// of the same weights by the same settings on the same text.
    fn kept(
        &self,
        file: &Path,
        resume: bool,
        (before, settings): (&Weighed, Value),
        make: impl FnOnce() -> Result<Weighed>,
    ) -> Result<Weighed> {
        let made = Value::from_iter([
            ("the weights before it", Value::from(hash_params(&before.1, &json(&before.0).to_string()))),
            ("training text", Value::from(self.train.hash())),
            ("settings", settings),
        ]);
        if resume && file.exists() {
            match Archive::load(file) {
                Ok(archive) => {
                    let found = archive.fields.get(MADE).map(|text| serde_json::from_str(text));
                    let found = found.and_then(|read| read.ok()).unwrap_or(Value::Null);
                    let differences = differences(&found, &made, &[]);
                    if !differences.is_empty() {
                        return Err(Error::Checkpoint {
                            path: file.into(),
                            differences: differences.join("; "),
                        });
                    }
                    return read_weights(file);
                }
                // Made again from what it was made from.
                Err(Error::Corrupt { .. }) => {
                    cipherlm_files::rename(file, &file.with_extension("damaged"))?;
                }
                Err(other) => return Err(other),
            }
        }
        let (arch, params) = make()?;
        write_weights(file, (&arch, &params), &[(MADE, made.to_string())])?;
        Ok((arch, params))
    }

    fn teacher(&self, teacher: &Teacher, before: &Weighed, device: &Device) -> Result<Transformer> {
        let read;
        let (arch, params) = match teacher {
            Teacher::Before => (&before.0, &before.1),
            Teacher::Start => (&self.arch, &self.start),
            Teacher::File(path) => {
                read = export::read(path)?;
                (&read.0, &read.1)
            }
        };
        // Whatever it was trained with, it speaks about the same sequences.
        let arch = Arch { prefix: self.arch.prefix.clone(), ..arch.clone() };
        Transformer::with_params(&arch, params, device)
    }

    /// Polynomials fitted to the ranges that training text shows, widened by the run's margins.
    fn polynomials(&self, (arch, params): &Weighed) -> Result<Polynomials> {
        let e = &self.run.export;
        let windows = inputs(&self.train, e.calibration_windows, arch)?;
        let mut model = export::export(&self.run.name, arch, params)?;
        cipherlm_model::certify(&mut model, &windows, &windows[..1], &e.margins)?;
        cipherlm_model::fit(&mut model, &e.fit)?;
        Ok(Polynomials::of(&model))
    }

    /// Writes the difference from the model that the run starts from, where the run asks for one:
    /// then what others get, and what is certified and measured, is the start with the difference
    /// applied. Epsilons are raised by what that shows.
    pub fn write_difference(&self, mut trained: Weighed, folder: &Path) -> Result<(Weighed, Option<Report>)> {
        let raise = self.run.export.raise.map(|how| Freeze { raise: true, ..how });
        let Some(how) = &self.run.difference else {
            return Ok((raise.map_or(Ok(trained.clone()), |raise| self.freeze(&trained, raise))?, None));
        };
        let (mut applied, mut report) = self.applied(&trained, how, folder)?;
        if let Some(raise) = raise {
            let (_, raised) = self.freeze(&applied, raise)?;
            let epsilons = raised.into_iter().filter(|param| param.name.ends_with("attn.eps"));
            for epsilon in epsilons {
                if let Some(old) = trained.1.iter_mut().find(|param| param.name == epsilon.name) {
                    *old = epsilon;
                }
            }
            (applied, report) = self.applied(&trained, how, folder)?;
        }
        Ok((applied, Some(report)))
    }

    /// The start with the difference to a trained model, which is written.
    fn applied(&self, trained: &Weighed, how: &Difference, folder: &Path) -> Result<(Weighed, Report)> {
        let start = self.run.start.as_deref().map_or_else(|| "random weights".into(), cipherlm_files::shown);
        let base = export::export(self.run.about.get("base").unwrap_or(&start), &self.arch, &self.start)?;
        let model = export::export(&self.run.name, &trained.0, &trained.1)?;
        let report = difference::write(&base, &model, how, folder)?;
        let applied = difference::apply(&base, &folder.join(DIFFERENCE_FILE))?;
        let (arch, params) = export::import(&applied)?;
        Ok(((Arch { prefix: trained.0.prefix.clone(), ..arch }, params), report))
    }

    /// Certifies and measures a trained model. Refuses while a held-out value leaves its certified
    /// range. Epsilons that are not frozen yet are frozen first, at the spread of the run's
    /// freezing stage (96 without one).
    pub fn export(&self, trained: &Weighed) -> Result<Shipped> {
        let e = &self.run.export;
        let frozen = match trained.0.shape.attention {
            cipherlm_model::Attention::PowerSoftmax { .. } if !trained.0.frozen() => {
                let stage = self.run.stages.iter().find_map(|s| s.freeze);
                self.freeze(
                    trained,
                    stage.unwrap_or(Freeze {
                        spread: 96.0,
                        windows: e.calibration_windows,
                        reach: 1.0,
                        raise: false,
                    }),
                )?
            }
            _ => trained.clone(),
        };
        let (arch, params) = &frozen;
        let model = export::export(&self.run.name, arch, params)?;
        let calibration = inputs(&self.train, e.calibration_windows, arch)?;
        let held_out = inputs(&self.held_out, e.held_out_windows, arch)?;
        let mut model = export::certify(model, &calibration, &held_out, &e.margins, &e.fit)?;
        let windows = self.held_out.windows(e.compare_windows, arch.room())?;
        let comparison = export::compare(&model, &windows)?;
        let held_out = self.held_out(&frozen)?;
        for (key, value) in self.facts(&comparison, held_out) {
            model.set_provenance(key, format!("{value:.6}"));
        }
        for (key, value) in &self.run.about {
            model.set_provenance(key.as_str(), value.as_str());
        }
        let steps: Vec<String> = self
            .run
            .stages
            .iter()
            .map(|s| format!("{} {} (seed {})", s.name, s.train.steps, s.train.seed))
            .collect();
        model.set_provenance("steps", steps.join(", "));
        Ok(Shipped { model, comparison, held_out })
    }

    /// Figures for the model's provenance.
    fn facts(&self, comparison: &Comparison, held_out: f64) -> Vec<(&'static str, f64)> {
        match comparison {
            Comparison::Continuation(c) => vec![
                ("perplexity_exact", c.exact),
                ("perplexity_polynomial", c.polynomial),
                ("same_top1", c.same_top1),
                ("perplexity_per_word", eval::word_perplexity(held_out, &self.held_out)),
            ],
            Comparison::Vectors(c) => {
                vec![("distance_from_start", held_out), ("distance_polynomial", c.mean)]
            }
        }
    }

    /// Shape and weights of the newest checkpoint of the run.
    pub fn newest(&self) -> Result<Weighed> {
        for stage in self.run.stages.iter().rev() {
            let folder = self.run.stage_folder(stage);
            if let Some(path) =
                [LAST, PREVIOUS].map(|name| folder.join(name)).into_iter().find(|p| p.exists())
            {
                return read_weights(&path);
            }
        }
        Err(Error::Corrupt {
            path: self.run.folder.clone(),
            reason: "no stage has written a checkpoint".into(),
            hint: "train the run first",
        })
    }

    /// Held-out nats per token of the model that the run starts from, and of another, on the same
    /// windows; of encoders the distances from the former, the first of them 0.
    pub fn compared(&self, trained: &Weighed) -> Result<(f64, f64)> {
        let before = if self.arch.causal() { self.held_out(&self.started_from())? } else { 0.0 };
        Ok((before, self.held_out(trained)?))
    }

    fn held_out(&self, (arch, params): &Weighed) -> Result<f64> {
        let count = self.run.export.held_out_windows;
        let device = Device::flex();
        let model = Transformer::with_params(arch, params, &device)?;
        if arch.causal() {
            return eval::nats_per_token(&model, &self.held_out, count);
        }
        let start = Transformer::with_params(&self.arch, &self.start, &device)?;
        eval::distance(&start, &model, &self.held_out, count)
    }

    /// What the run starts from.
    pub fn started_from(&self) -> Weighed {
        (self.arch.clone(), self.start.clone())
    }

    /// The same model with cheaper functions, found on training text.
    fn lean(&self, (arch, params): &Weighed, how: &Lean) -> Result<Weighed> {
        let windows = inputs(&self.train, how.windows, arch)?;
        let mut model = export::export(&self.run.name, arch, params)?;
        if how.quadratic {
            model = cipherlm_model::with_quadratics(&model, &windows)?;
        }
        let (lean, params) = export::import(&cipherlm_model::freeze_norms(&model, &windows, &how.norms)?)?;
        Ok((Arch { form: arch.form, ..lean }, params))
    }

    /// The same model with epsilons frozen from training text.
    fn freeze(&self, (arch, params): &Weighed, how: Freeze) -> Result<Weighed> {
        let windows = inputs(&self.train, how.windows, arch)?;
        let model = export::export(&self.run.name, arch, params)?;
        let (frozen, params) =
            export::import(&cipherlm_model::freeze_eps(&model, &windows, how.freezing())?)?;
        Ok((Arch { form: arch.form, ..frozen }, params))
    }
}

/// Windows spread over a text, as long as the context allows.
fn inputs(corpus: &Corpus, count: usize, arch: &Arch) -> Result<Vec<Vec<u32>>> {
    let room = arch.room();
    Ok(corpus.windows(count, room)?.iter().map(|w| w[..room.min(w.len())].to_vec()).collect())
}

/// The same weights under another attention operator.
pub fn convert((arch, params): &Weighed, attention: cipherlm_model::Attention) -> Result<Weighed> {
    let new = arch.with_attention(attention);
    new.check()?;
    if new.frozen() && !arch.frozen() {
        return Err(Error::config(
            "attention.eps",
            "frozen",
            "absolute or relative: `freeze` makes the frozen ones",
        ));
    }
    let kept = params.iter().filter(|p| new.frozen() || !p.name.ends_with("attn.eps")).cloned().collect();
    Ok((new, kept))
}

/// The same weights with fewer positions.
fn shortened((mut arch, params): Weighed, context: usize) -> Result<Weighed> {
    let most = arch.shape.context;
    if context == 0 || context > most {
        return Err(Error::config("context", context, format!("from 1 to the {most} of `start`")));
    }
    if arch.shape.positions || arch.frozen() {
        let expected = "absent: `start` has a table with a row for each position";
        return Err(Error::config("context", context, expected));
    }
    arch.shape.context = context;
    Ok((arch, params))
}

/// Shape and weights that a run begins with.
fn start(run: &Run) -> Result<Weighed> {
    let Some(path) = &run.start else {
        if let Some(context) = run.context {
            return Err(Error::config("context", context, "absent without `start`: `model` has its own"));
        }
        let arch =
            run.model.clone().ok_or_else(|| Error::config("model", "absent", "a shape, or a `start`"))?;
        let seed = run.stages.first().map_or(0, |s| s.train.seed);
        let params = pull(&Transformer::new(&arch, seed, &Device::flex(), DType::F32)?);
        return Ok((arch, params));
    };
    let read = export::read(path)?;
    let read = match run.context {
        Some(context) => shortened(read, context)?,
        None => read,
    };
    let Some(wanted) = &run.model else { return Ok(read) };
    let found = differences(&json(&read.0.shape), &json(&wanted.shape), &["attention"]);
    if !found.is_empty() {
        let reason =
            format!("it holds a model of another shape than the run's `model`: {}", found.join("; "));
        return Err(Error::Corrupt {
            path: path.into(),
            reason,
            hint: "leave `model` out to take the shape from there",
        });
    }
    let (arch, params) = convert(&read, wanted.shape.attention)?;
    Ok((Arch { form: wanted.form, ..arch }, params))
}
