//! A whole training run from a configuration file: data, tokenizer, stages, export.
//!
//! Stages follow each other on the same weights: learn (softmax or PowerSoftmax, from scratch or imported), convert to
//! PowerSoftmax, minimise ranges, freeze epsilon; any of them with polynomials in the place of the functions, or with a
//! teacher. Each stage has its own folder with checkpoints and a log, so an interrupted run continues at the step where
//! it stopped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device};
use cipherlm_model::{FitOptions, Margins, Model, Tokenizer};
use serde::{Deserialize, Serialize};

use crate::checkpoint::Archive;
use crate::config::{Attention, Epsilon, ModelConfig};
use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::eval;
use crate::export::{self, Comparison, refuse};
use crate::params::{HostParam, align, pull, push};
use crate::probe::{Polynomials, Probe};
use crate::stories::stories;
use crate::trainer::{Distil, Progress, TrainConfig, Trainer};
use crate::transformer::Decoder;

/// A training run as a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Name of the model.
    pub name: String,
    /// Training and held-out text.
    pub data: Data,
    /// Where the tokens come from.
    pub tokenizer: TokenizerSource,
    /// Shape; its `vocab` must be the tokenizer's.
    pub model: ModelConfig,
    /// Checkpoint to start from instead of random weights (as written by a stage or by an import).
    #[serde(default)]
    pub start: Option<PathBuf>,
    /// Stages, in order.
    pub stages: Vec<Stage>,
    /// Folder for checkpoints and logs.
    pub folder: PathBuf,
    /// What to certify at the end.
    #[serde(default)]
    pub export: ExportConfig,
    /// Lines of the model card: data, licence and the like.
    #[serde(default)]
    pub about: BTreeMap<String, String>,
    /// Opening of the card's samples.
    #[serde(default = "opening")]
    pub prompt: String,
}

/// Text of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Data {
    /// Text files; names ending in `.xz` are read through the `xz` program.
    Files {
        /// Training text.
        train: PathBuf,
        /// Held-out text.
        held_out: PathBuf,
    },
    /// The built-in generator.
    Generated {
        /// Seed of the training text; the held-out text uses the next one.
        seed: u64,
        /// Training stories; a tenth as many are held out.
        stories: usize,
    },
}

/// Tokenizer of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenizerSource {
    /// Byte-level BPE of this size, trained on the training text.
    Train {
        /// Vocabulary size.
        vocab: usize,
    },
    /// A tokenizer in the project's format.
    File(PathBuf),
    /// A llama2.c tokenizer.
    Llama2c(PathBuf),
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Name of its folder and in the log.
    pub name: String,
    /// Operator from this stage on.
    #[serde(default)]
    pub attention: Option<Attention>,
    /// Freeze epsilon before this stage.
    #[serde(default)]
    pub freeze: Option<Freeze>,
    /// Train with polynomials in the place of the functions, fitted on training text before the stage.
    #[serde(default)]
    pub polynomial: bool,
    /// Learn from a teacher too.
    #[serde(default)]
    pub distil: Option<Distillation>,
    /// Training.
    pub train: TrainConfig,
}

/// Distillation in a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distillation {
    /// The teacher's checkpoint; without one, the model as it enters the stage, before any new operator.
    #[serde(default)]
    pub teacher: Option<PathBuf>,
    /// Weight and temperature.
    #[serde(default = "even")]
    pub how: Distil,
}

/// How epsilons are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Freeze {
    /// Largest row mean over epsilon.
    pub spread: f64,
    /// Training windows looked at.
    pub windows: usize,
}

/// Certification and export.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExportConfig {
    /// Training windows for the ranges.
    pub calibration_windows: usize,
    /// Held-out windows on which no value may leave its range.
    pub held_out_windows: usize,
    /// Held-out windows on which exact and polynomial model are compared.
    pub compare_windows: usize,
    /// Factors on the observed ranges.
    pub margins: Margins,
    /// Target errors of the polynomials.
    pub fit: FitOptions,
}

impl Default for ExportConfig {
    fn default() -> Self {
        Self {
            calibration_windows: 1024,
            held_out_windows: 800,
            compare_windows: 200,
            margins: Margins::default(),
            fit: FitOptions::default(),
        }
    }
}

/// A run with its text read and tokenised.
pub struct Prepared {
    /// The run.
    pub run: Run,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Training text.
    pub train: Corpus,
    /// Held-out text.
    pub held_out: Corpus,
}

/// A certified model and its figures.
pub struct Shipped {
    /// The model.
    pub model: Model,
    /// Exact against polynomial, in f64.
    pub comparison: Comparison,
    /// Held-out nats per token of the exact model in f32, over all held-out windows of the check.
    pub nats: f64,
}

impl Run {
    /// Reads a run from a JSON file.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        serde_json::from_str(&text).map_err(|e| Error::Corrupt {
            path: path.into(),
            reason: e.to_string(),
            hint: "see docs/powersoftmax.md for the fields of a run",
        })
    }

    /// Reads and tokenises the text. The tokenizer is kept in the run's folder and reused from there.
    pub fn prepare(self) -> Result<Prepared> {
        self.model.check()?;
        std::fs::create_dir_all(&self.folder).map_err(Error::io(&self.folder))?;
        let (train, held_out) = self.data.read()?;
        let kept = self.folder.join("tokenizer.json");
        let tokenizer = match &self.tokenizer {
            TokenizerSource::Train { .. } if kept.exists() => Tokenizer::load(&kept).map_err(refuse)?,
            TokenizerSource::Train { vocab } => Tokenizer::train(&train, *vocab).map_err(refuse)?,
            TokenizerSource::File(path) => Tokenizer::load(path).map_err(refuse)?,
            TokenizerSource::Llama2c(path) => {
                let bytes = std::fs::read(path).map_err(Error::io(path))?;
                Tokenizer::from_llama2c(&bytes).map_err(refuse)?
            }
        };
        if tokenizer.vocab() > self.model.vocab {
            let expected = format!("at least the tokenizer's {}", tokenizer.vocab());
            return Err(Error::config("vocab", self.model.vocab, expected));
        }
        tokenizer.save(&kept).map_err(refuse)?;
        let corpus = |text: &str| -> Result<Corpus> {
            Ok(Corpus::new(encode_documents(&tokenizer, text).map_err(refuse)?, count_words(text)))
        };
        let (train, held_out) = (corpus(&train)?, corpus(&held_out)?);
        Ok(Prepared { run: self, tokenizer, train, held_out })
    }
}

impl Data {
    /// Training and held-out text.
    pub fn read(&self) -> Result<(String, String)> {
        Ok(match self {
            Self::Files { train, held_out } => (read_text(train)?, read_text(held_out)?),
            Self::Generated { seed, stories: count } => (stories(*seed, *count), stories(seed + 1, count / 10 + 1)),
        })
    }
}

impl Prepared {
    /// Runs all stages, continuing where checkpoints exist if `resume`; returns configuration and weights at the end.
    pub fn train(&self, resume: bool, mut report: impl FnMut(&Progress)) -> Result<(ModelConfig, Vec<HostParam>)> {
        let device = Device::flex();
        let (mut config, mut params) = self.start(&device)?;
        for stage in &self.run.stages {
            let teacher = match &stage.distil {
                Some(Distillation { teacher: Some(path), how }) => {
                    let (config, params) = read_weights(path)?;
                    Some((decoder(&config, &params, &device)?, *how))
                }
                Some(Distillation { teacher: None, how }) => Some((decoder(&config, &params, &device)?, *how)),
                None => None,
            };
            if let Some(attention) = stage.attention {
                (config, params) = convert(&config, &params, attention, &device)?;
            }
            let folder = self.run.folder.join(&stage.name);
            if let Some(freeze) = stage.freeze {
                // Calibrated once: a resumed run must continue with the same constants.
                let kept = folder.join("frozen.safetensors");
                if resume && kept.exists() {
                    (config, params) = read_weights(&kept)?;
                } else {
                    self.freeze(&mut config, &mut params, freeze, &device)?;
                    std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
                    write_weights(&kept, &config, &params)?;
                }
            }
            let polynomials = if stage.polynomial { Some(self.polynomials(&config, &params)?) } else { None };
            let trainer = Trainer::new(&stage.name, config.clone(), stage.train.clone(), Some(params), &device)?;
            let mut trainer = trainer.with_polynomials(polynomials);
            if let Some((teacher, how)) = teacher {
                trainer = trainer.with_teacher(teacher, how)?;
            }
            let mut trainer = trainer.in_folder(&folder, resume)?;
            trainer.run(&self.train, &self.held_out, &mut report)?;
            params = trainer.params().to_vec();
        }
        Ok((config, params))
    }

    /// Polynomials fitted to the ranges that training text shows, widened by the run's margins.
    fn polynomials(&self, config: &ModelConfig, params: &[HostParam]) -> Result<Polynomials> {
        let e = &self.run.export;
        let windows = self.train.windows(e.calibration_windows, config.context)?;
        let windows: Vec<Vec<u32>> = windows.iter().map(|w| w[..config.context].to_vec()).collect();
        let mut model = export::export(&self.run.name, config, params)?;
        cipherlm_model::certify(&mut model, &windows, &windows[..1], &e.margins).map_err(refuse)?;
        cipherlm_model::fit(&mut model, &e.fit).map_err(refuse)?;
        Ok(Polynomials::of(&model))
    }

    /// Certifies and measures a trained model. Refuses while a held-out value leaves its certified range. Epsilons that
    /// are not frozen yet are frozen first, at the spread of the run's freezing stage (96 without one).
    pub fn export(&self, config: &ModelConfig, params: &[HostParam]) -> Result<Shipped> {
        let e = &self.run.export;
        let context = config.context;
        let inputs = |corpus: &Corpus, count| -> Result<Vec<Vec<u32>>> {
            Ok(corpus.windows(count, context)?.iter().map(|w| w[..context].to_vec()).collect())
        };
        let (mut config, mut params) = (config.clone(), params.to_vec());
        if matches!(config.attention, Attention::Power(p) if p.epsilon != Epsilon::Frozen) {
            let stage = self.run.stages.iter().find_map(|s| s.freeze);
            let freeze = stage.unwrap_or(Freeze { spread: 96.0, windows: e.calibration_windows });
            self.freeze(&mut config, &mut params, freeze, &Device::flex())?;
        }
        let model = export::export(&self.run.name, &config, &params)?;
        let calibration = inputs(&self.train, e.calibration_windows)?;
        let model =
            export::certify(model, &calibration, &inputs(&self.held_out, e.held_out_windows)?, &e.margins, &e.fit)?;
        let windows: Vec<Vec<u32>> =
            self.held_out.windows(e.compare_windows, context)?.iter().map(|w| w.to_vec()).collect();
        let comparison = export::compare(&model, &windows)?;
        let decoder = decoder(&config, &params, &Device::flex())?;
        let nats = eval::nats_per_token(&decoder, &self.held_out, e.held_out_windows)?;
        let mut model = model;
        let facts = [
            ("perplexity_exact", comparison.exact),
            ("perplexity_polynomial", comparison.polynomial),
            ("same_top1", comparison.same_top1),
            ("perplexity_per_word", eval::word_perplexity(nats, &self.held_out)),
        ];
        for (key, value) in facts {
            model.set_provenance(key, format!("{value:.6}"));
        }
        for (key, value) in &self.run.about {
            model.set_provenance(key.as_str(), value.as_str());
        }
        let steps: Vec<String> =
            self.run.stages.iter().map(|s| format!("{} {} (seed {})", s.name, s.train.steps, s.train.seed)).collect();
        model.set_provenance("steps", steps.join(", "));
        Ok(Shipped { model, comparison, nats })
    }

    /// Configuration and weights of the newest checkpoint of the run.
    pub fn newest(&self) -> Result<(ModelConfig, Vec<HostParam>)> {
        for stage in self.run.stages.iter().rev() {
            let path = self.run.folder.join(&stage.name).join("last.safetensors");
            if path.exists() {
                return read_weights(&path);
            }
        }
        Err(Error::Corrupt {
            path: self.run.folder.clone(),
            reason: "no stage has written a checkpoint".into(),
            hint: "train the run first",
        })
    }

    /// Freezes epsilon from training text, in place.
    pub fn freeze(
        &self,
        config: &mut ModelConfig,
        params: &mut [HostParam],
        freeze: Freeze,
        device: &Device,
    ) -> Result<()> {
        let mut probe = Probe::observe();
        let model = decoder(config, params, device)?;
        eval::observe(&model, &self.train, freeze.windows, &mut probe)?;
        Decoder::freeze_epsilon(config, params, &probe, freeze.spread)
    }

    fn start(&self, device: &Device) -> Result<(ModelConfig, Vec<HostParam>)> {
        if let Some(path) = &self.run.start {
            let (mut config, params) = read_weights(path)?;
            if config.attention != self.run.model.attention {
                let (converted, params) = convert(&config, &params, self.run.model.attention, device)?;
                config = converted;
                return Ok((config, params));
            }
            return Ok((config, params));
        }
        let seed = self.run.stages.first().map_or(0, |s| s.train.seed);
        let model = Decoder::new(&self.run.model, seed, device, DType::F32)?;
        Ok((self.run.model.clone(), pull(&model)))
    }
}

/// A decoder on `device` with these weights, f32.
pub fn decoder(config: &ModelConfig, params: &[HostParam], device: &Device) -> Result<Decoder> {
    let model = Decoder::new(config, 0, device, DType::F32)?;
    let params = align(&pull(&model), params.to_vec())?;
    push(model, &params)
}

/// The same weights under another attention operator.
pub fn convert(
    config: &ModelConfig,
    params: &[HostParam],
    attention: Attention,
    device: &Device,
) -> Result<(ModelConfig, Vec<HostParam>)> {
    let model = decoder(config, params, device)?.with_attention(attention)?;
    Ok((model.config().clone(), pull(&model)))
}

/// Writes configuration and weights as one file.
pub fn write_weights(path: &Path, config: &ModelConfig, params: &[HostParam]) -> Result<()> {
    let model = serde_json::to_string(config).map_err(|e| Error::Export(e.to_string()))?;
    Archive { tensors: params.to_vec(), fields: [("model".to_owned(), model)].into() }.save(path)
}

/// Reads configuration and weights of a checkpoint, without the optimiser's state.
pub fn read_weights(path: &Path) -> Result<(ModelConfig, Vec<HostParam>)> {
    let archive = Archive::load(path)?;
    let corrupt =
        |reason: String| Error::Corrupt { path: path.into(), reason, hint: "it is not a checkpoint of this program" };
    let text = archive.fields.get("model").ok_or_else(|| corrupt("no field `model`".into()))?;
    let config: ModelConfig = serde_json::from_str(text).map_err(|e| corrupt(e.to_string()))?;
    let model = Decoder::new(&config, 0, &Device::flex(), DType::F32)?;
    let tensors = archive.tensors.into_iter().filter(|t| !t.name.contains('/')).collect();
    Ok((config, align(&pull(&model), tensors)?))
}

/// Reads a text file; `.xz` through the `xz` program.
pub fn read_text(path: &Path) -> Result<String> {
    if path.extension().is_none_or(|e| e != "xz") {
        return std::fs::read_to_string(path).map_err(Error::io(path));
    }
    std::fs::metadata(path).map_err(Error::io(path))?;
    let output = std::process::Command::new("xz").arg("-dc").arg(path).output().map_err(Error::io("xz"))?;
    let corrupt = |reason: String| Error::Corrupt { path: path.into(), reason, hint: "fetch the file again" };
    if !output.status.success() {
        return Err(corrupt(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    String::from_utf8(output.stdout).map_err(|e| corrupt(e.to_string()))
}

/// Encodes document by document, so that a tokenizer that opens every text with a mark does so for each of them.
fn encode_documents(tokenizer: &Tokenizer, text: &str) -> cipherlm_model::Result<Vec<u32>> {
    const MARK: &str = "<|endoftext|>";
    if tokenizer.end_of_text().is_some() {
        return tokenizer.encode(text);
    }
    let documents = text.split(MARK).map(str::trim).filter(|t| !t.is_empty());
    Ok(documents.map(|t| tokenizer.encode(t)).collect::<cipherlm_model::Result<Vec<_>>>()?.concat())
}

fn opening() -> String {
    "Once upon a time".into()
}

fn even() -> Distil {
    Distil { weight: 0.5, temperature: 1.0 }
}

fn count_words(text: &str) -> usize {
    text.replace("<|endoftext|>", " ").split_whitespace().count()
}
