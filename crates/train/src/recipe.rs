//! A training run as a file: data, tokenizer, stages, export.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cipherlm_model::difference::Difference;
use cipherlm_model::{Attention, FitOptions, Margins};
use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::convert::{Attenuation, Local};
use crate::error::{Error, Result};
use crate::settings::{Distil, TrainConfig};
use crate::text::{Data, decode};

/// A training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Name of the model.
    pub name: String,
    /// Training and held-out text.
    pub data: Data,
    /// Where the tokens come from.
    pub tokenizer: TokenizerSource,
    /// Shape; its `vocab` must be the tokenizer's. What `start` has, when absent.
    #[serde(default)]
    pub model: Option<Arch>,
    /// Model folder or checkpoint to start from instead of random weights.
    #[serde(default)]
    pub start: Option<PathBuf>,
    /// Positions of the model, if fewer than `start` has: windows are that long, and so are the
    /// longest texts for which ranges are certified.
    #[serde(default)]
    pub context: Option<usize>,
    /// Public text before every window, special tokens included: it takes its share of the context,
    /// is computed by exact functions, and no loss or range looks at it. Decoders only.
    #[serde(default)]
    pub public_prefix: Option<String>,
    /// Stages, in order.
    pub stages: Vec<Stage>,
    /// Folder for checkpoints and logs.
    pub folder: PathBuf,
    /// What to certify at the end.
    #[serde(default)]
    pub export: ExportConfig,
    /// How the difference from `start` is written.
    #[serde(default)]
    pub difference: Option<Difference>,
    /// Lines of the model card: data, licence and the like.
    #[serde(default)]
    pub about: BTreeMap<String, String>,
    /// Opening of the card's samples.
    #[serde(default = "opening")]
    pub prompt: String,
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
    /// The one in the model folder that the run starts from.
    Start,
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
    /// Match every attention layer to the model as it entered the stage, layer by layer, before
    /// training.
    #[serde(default)]
    pub local: Option<Local>,
    /// Output channels of matrices that begin the stage at another size.
    #[serde(default)]
    pub attenuate: Vec<Attenuation>,
    /// Cheaper functions from this stage on.
    #[serde(default)]
    pub lean: Option<Lean>,
    /// Freeze epsilon before this stage.
    #[serde(default)]
    pub freeze: Option<Freeze>,
    /// Train with polynomials in the place of the functions, fitted on training text before the
    /// stage.
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
    /// Who teaches.
    #[serde(default)]
    pub teacher: Teacher,
    /// Weight and temperature.
    #[serde(default = "even")]
    pub how: Distil,
}

/// Who teaches a stage.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Teacher {
    /// The model as it enters the stage, before any new operator.
    #[default]
    Before,
    /// The model that the run starts from.
    Start,
    /// A model folder or checkpoint.
    File(PathBuf),
}

/// Cheaper functions that a stage begins with, found on training text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lean {
    /// Put quadratics in the place of the activations, fitted channel by channel.
    #[serde(default)]
    pub quadratic: bool,
    /// Normalisations to freeze, by the names of the data model.
    #[serde(default)]
    pub norms: Vec<String>,
    /// Training windows looked at.
    pub windows: usize,
}

/// How epsilons are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Freeze {
    /// Largest row mean over epsilon.
    pub spread: f64,
    /// Training windows looked at.
    pub windows: usize,
    /// The largest mean of a row is looked for from this part of its number to this multiple.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub reach: f64,
    /// Epsilons that are frozen already are not lowered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub raise: bool,
}

impl Freeze {
    /// The same for the data model.
    pub fn freezing(&self) -> cipherlm_model::Freezing {
        cipherlm_model::Freezing { ratio: self.spread, reach: self.reach, raise: self.raise }
    }
}

fn one() -> f64 {
    1.0
}

/// What has its usual value is left out: runs that an older version began go on.
fn is_one(reach: &f64) -> bool {
    *reach == one()
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
    /// Raise frozen epsilons by what the finished model shows. What a difference of low rank keeps
    /// of queries and keys gives its rare rows other means than the trained matrices had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raise: Option<Freeze>,
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
            raise: None,
            margins: Margins::default(),
            fit: FitOptions::default(),
        }
    }
}

impl Run {
    /// Reads a run from a JSON file.
    pub fn load(path: &Path) -> Result<Self> {
        let text = decode(path, cipherlm_files::read(path, 1 << 24)?)?;
        serde_json::from_str(&text).map_err(|e| Error::Corrupt {
            path: path.into(),
            reason: e.to_string(),
            hint: "see docs/powersoftmax.md for the fields of a run",
        })
    }

    /// Folder of a stage.
    pub fn stage_folder(&self, stage: &Stage) -> PathBuf {
        self.folder.join(&stage.name)
    }
}

fn opening() -> String {
    "Once upon a time".into()
}

fn even() -> Distil {
    Distil { weight: 0.5, temperature: 1.0, hidden: 0.0 }
}
