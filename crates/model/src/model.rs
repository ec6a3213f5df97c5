//! A model on disk and in memory: description, weights, provenance.

use std::collections::BTreeMap;
use std::path::Path;

use cipherlm_files::{Access, Existing};
use serde::{Deserialize, Serialize};

use crate::error::{Result, SpecError, without_mark};
use crate::scheme::Scheme;
use crate::shape::Shape;
use crate::site::Site;
use crate::weights::Weights;

/// File name of the description inside a model folder.
pub const MODEL_FILE: &str = "model.json";
/// File name of the weights inside a model folder.
pub const WEIGHTS_FILE: &str = "weights.safetensors";
/// File name of the tokenizer inside a model folder.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

const FORMAT: &str = "cipherlm-model";
const VERSION: u32 = 1;
/// Largest description, bytes: sites and coefficients of some hundred layers.
const MAX_DESCRIPTION: u64 = 1 << 28;

/// The description of a model: everything but the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Always `cipherlm-model`.
    pub format: String,
    /// Version of this format.
    pub version: u32,
    /// Name for reports.
    pub name: String,
    /// Sizes and choices.
    pub shape: Shape,
    /// BLAKE3 of the weights file, hexadecimal.
    pub weights_blake3: String,
    /// Certified sites, in the order of [`Shape::sites`]; empty until certified.
    #[serde(default)]
    pub sites: Vec<Site>,
    /// Free-form provenance: data, seeds, steps, perplexities.
    #[serde(default)]
    pub provenance: BTreeMap<String, String>,
}

/// A description together with its weights, checked against each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    spec: ModelSpec,
    weights: Weights,
}

impl Model {
    /// Joins a shape and weights. The weights are rounded to f32, so that a saved model computes the same values.
    ///
    /// # Errors
    /// What [`Shape::validate`] and [`Weights::check`] refuse.
    pub fn new(name: impl Into<String>, shape: Shape, mut weights: Weights) -> Result<Self> {
        shape.validate()?;
        weights.check(&shape)?;
        weights.round_to_f32();
        weights.check(&shape)?;
        let weights_blake3 = blake3::hash(&weights.to_bytes()?).to_hex().to_string();
        let spec = ModelSpec {
            format: FORMAT.into(),
            version: VERSION,
            name: name.into(),
            shape,
            weights_blake3,
            sites: vec![],
            provenance: BTreeMap::new(),
        };
        Ok(Self { spec, weights })
    }

    /// Reads a model folder.
    ///
    /// # Errors
    /// Unreadable or malformed files, a wrong hash, and all that [`Model::new`] refuses.
    pub fn load(dir: &Path) -> Result<Self> {
        let text = cipherlm_files::read_text(&dir.join(MODEL_FILE), MAX_DESCRIPTION)?;
        let bytes = cipherlm_files::read(&dir.join(WEIGHTS_FILE), u64::MAX)?;
        Self::from_parts(&text, &bytes)
    }

    /// Like [`Model::load`], from the contents of the two files.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn from_parts(description: &str, weights: &[u8]) -> Result<Self> {
        let spec: ModelSpec =
            serde_json::from_str(without_mark(description)).map_err(|e| SpecError::malformed(MODEL_FILE, e))?;
        if spec.format != FORMAT || spec.version != VERSION {
            let reason =
                format!("format {} version {}, expected {FORMAT} version {VERSION}", spec.format, spec.version);
            return Err(SpecError::malformed(MODEL_FILE, reason));
        }
        spec.shape.validate()?;
        let found = blake3::hash(weights).to_hex().to_string();
        if found != spec.weights_blake3 {
            return Err(SpecError::WeightsHash { expected: spec.weights_blake3, found });
        }
        // Values of an F64 file become those that a save would keep.
        let mut weights = Weights::from_bytes(weights)?;
        weights.round_to_f32();
        weights.check(&spec.shape)?;
        let known = spec.shape.sites();
        let in_order = spec.sites.iter().map(|s| (s.name.clone(), s.function)).eq(known);
        if !spec.sites.is_empty() && !in_order {
            return Err(SpecError::malformed(MODEL_FILE, "the certified sites are not those of this shape, in order"));
        }
        Ok(Self { spec, weights })
    }

    /// Writes `model.json` and `weights.safetensors` into a folder, creating it.
    ///
    /// # Errors
    /// [`SpecError::File`].
    pub fn save(&self, dir: &Path) -> Result<()> {
        let write =
            |name, bytes: &[u8]| cipherlm_files::write(&dir.join(name), bytes, Existing::Replace, Access::Everyone);
        cipherlm_files::create_folder(dir)?;
        // Files written elsewhere may hold the same tensors in another order or type: the hash is that of these.
        let weights = self.weights.to_bytes()?;
        let hash = blake3::hash(&weights).to_hex().to_string();
        let spec = ModelSpec { weights_blake3: hash, ..self.spec.clone() };
        let mut text = serde_json::to_string_pretty(&spec).map_err(|e| SpecError::malformed(MODEL_FILE, e))?;
        text.push('\n');
        write(WEIGHTS_FILE, &weights)?;
        Ok(write(MODEL_FILE, text.as_bytes())?)
    }

    /// The description.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// The shape.
    pub fn shape(&self) -> &Shape {
        &self.spec.shape
    }

    /// The weights.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The certified site of that name.
    pub fn site(&self, name: &str) -> Option<&Site> {
        self.spec.sites.iter().find(|s| s.name == name)
    }

    /// The polynomial at the site of that name.
    pub fn scheme(&self, name: &str) -> Option<&Scheme> {
        self.site(name)?.scheme.as_ref()
    }

    /// Records where the model comes from.
    pub fn set_provenance(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.spec.provenance.insert(key.into(), value.into());
    }

    pub(crate) fn set_sites(&mut self, sites: Vec<Site>) {
        self.spec.sites = sites;
    }

    /// The same model with other weights or attention constants; certified sites are dropped, because they no longer hold.
    ///
    /// # Errors
    /// As [`Model::new`].
    pub fn with(&self, shape: Shape, weights: Weights) -> Result<Self> {
        let mut out = Self::new(self.spec.name.clone(), shape, weights)?;
        out.spec.provenance = self.spec.provenance.clone();
        Ok(out)
    }

    /// Checks a token sequence against the shape.
    ///
    /// # Errors
    /// [`SpecError::Empty`], [`SpecError::ContextTooLong`], [`SpecError::UnknownToken`].
    pub fn check_tokens(&self, tokens: &[u32], start: usize) -> Result<()> {
        let shape = &self.spec.shape;
        if tokens.is_empty() {
            return Err(SpecError::Empty);
        }
        if start + tokens.len() > shape.context {
            return Err(SpecError::ContextTooLong { length: start + tokens.len(), context: shape.context });
        }
        match tokens.iter().position(|&t| t as usize >= shape.vocab) {
            Some(i) => Err(SpecError::UnknownToken { token: tokens[i], position: start + i, vocab: shape.vocab }),
            None => Ok(()),
        }
    }
}
