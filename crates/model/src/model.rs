//! A model on disk and in memory: description, weights, provenance.

use std::collections::BTreeMap;
use std::path::Path;

use cipherlm_files::{Access, Existing};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, without_mark};
use crate::folder::{MODEL_FILE, TOKENIZER_FILE, WEIGHTS_FILE};
use crate::scheme::Scheme;
use crate::shape::{Kind, Shape};
use crate::site::Site;
use crate::tokenizer::Tokenizer;
use crate::weights::{Weights, header};

const FORMAT: &str = "cipherlm-model";
const VERSION: u32 = 1;
/// Largest description, bytes: sites and coefficients of some hundred layers.
pub(crate) const MAX_DESCRIPTION: u64 = 1 << 28;

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
    /// Public tokens that every text begins with, such as a mark of the beginning and a system
    /// prompt: no secret, never encrypted, and no part of what is certified. Decoders only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefix: Vec<u32>,
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
    /// Joins a shape and weights. The weights are rounded to f32, so that a saved model computes
    /// the same values.
    ///
    /// # Errors
    /// What [`Shape::validate`] and [`Weights::check`] refuse.
    pub fn new(name: impl Into<String>, shape: Shape, mut weights: Weights) -> Result<Self> {
        shape.validate()?;
        weights.check(&shape)?;
        weights.round_to_f32();
        weights.check(&shape)?;
        let weights_blake3 = blake3::hash(&weights.to_bytes()).to_hex().to_string();
        let spec = ModelSpec {
            format: FORMAT.into(),
            version: VERSION,
            name: name.into(),
            shape,
            weights_blake3,
            prefix: vec![],
            sites: vec![],
            provenance: BTreeMap::new(),
        };
        Ok(Self { spec, weights })
    }

    /// Reads a model folder with weights; [`difference::load`](crate::difference::load) reads those
    /// without as well.
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
            serde_json::from_str(without_mark(description)).map_err(|e| Error::malformed(MODEL_FILE, e))?;
        if spec.format != FORMAT || spec.version != VERSION {
            let reason = format!(
                "format {} version {}, expected {FORMAT} version {VERSION}",
                spec.format, spec.version
            );
            return Err(Error::malformed(MODEL_FILE, reason));
        }
        spec.shape.validate()?;
        let found = blake3::hash(weights).to_hex().to_string();
        if found != spec.weights_blake3 {
            return Err(Error::WeightsHash { expected: spec.weights_blake3, found });
        }
        // Values of an F64 file become those that a save would keep.
        let mut weights = Weights::from_bytes(weights)?;
        weights.round_to_f32();
        weights.check(&spec.shape)?;
        spec.shape.check_sites(&spec.sites)?;
        let model = Self { spec, weights };
        model.check_prefix(&model.spec.prefix)?;
        Ok(model)
    }

    /// Writes `model.json` and `weights.safetensors` into a folder, creating it.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save(&self, dir: &Path) -> Result<()> {
        let write = |name, bytes: &[u8]| {
            cipherlm_files::write(&dir.join(name), bytes, Existing::Replace, Access::Everyone)
        };
        cipherlm_files::create_folder(dir)?;
        write(WEIGHTS_FILE, &self.weights.to_bytes())?;
        self.save_description(dir)
    }

    /// Writes `model.json` alone, for a folder that holds a
    /// [difference](crate::difference) in the place of weights.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save_description(&self, dir: &Path) -> Result<()> {
        // Files written elsewhere may hold the same tensors in another order or type: the hash is
        // that of these.
        let hash = blake3::hash(&self.weights.to_bytes()).to_hex().to_string();
        let spec = ModelSpec { weights_blake3: hash, ..self.spec.clone() };
        let mut text = serde_json::to_string_pretty(&spec).map_err(|e| Error::malformed(MODEL_FILE, e))?;
        text.push('\n');
        let path = dir.join(MODEL_FILE);
        Ok(cipherlm_files::write(&path, text.as_bytes(), Existing::Replace, Access::Everyone)?)
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

    /// The same model with other weights or attention constants; certified sites are dropped,
    /// because they no longer hold.
    ///
    /// # Errors
    /// As [`Model::new`].
    pub fn with(&self, shape: Shape, weights: Weights) -> Result<Self> {
        let mut out = Self::new(self.spec.name.clone(), shape, weights)?;
        out.spec.provenance = self.spec.provenance.clone();
        out.spec.prefix.clone_from(&self.spec.prefix);
        Ok(out)
    }

    /// The same model behind other public tokens. What is certified stays: a text that leaves its
    /// ranges behind them is refused when it is encrypted.
    ///
    /// # Errors
    /// [`Error::UnknownToken`], [`Error::ContextTooLong`] when no token could follow, and
    /// [`Error::Unsupported`] for a model that is no decoder.
    pub fn with_prefix(mut self, tokens: Vec<u32>) -> Result<Self> {
        self.check_prefix(&tokens)?;
        self.spec.prefix = tokens;
        Ok(self)
    }

    /// What of a text has to be encrypted: all that follows the public prefix, if the text begins
    /// with it, else all.
    pub fn behind_prefix<'t>(&self, tokens: &'t [u32]) -> &'t [u32] {
        tokens.strip_prefix(self.spec.prefix.as_slice()).unwrap_or(tokens)
    }

    fn check_prefix(&self, tokens: &[u32]) -> Result<()> {
        if tokens.is_empty() {
            return Ok(());
        }
        if self.spec.shape.kind != Kind::Decoder {
            return Err(Error::Unsupported { operation: "a public prefix", model: "an encoder" });
        }
        self.check_tokens(tokens, 1)
    }

    /// The same model with every key and value head repeated for the query heads that read it: the
    /// same function, for readers that know nothing of shared heads.
    ///
    /// # Errors
    /// None for a model that was accepted.
    pub fn with_repeated_heads(&self) -> Result<Self> {
        let shape = self.shape();
        let shared = shape.heads / shape.key_heads();
        let (width, head) = (shape.key_width(), shape.head_dim);
        let mut weights = self.weights.clone();
        for l in 0..shape.layers {
            for part in ["k", "v"] {
                for kind in ["weight", "bias"] {
                    let name = format!("layers.{l}.attn.{part}.{kind}");
                    let Some(tensor) = self.weights.tensor(&name) else { continue };
                    let row = |row: &[f64]| -> Vec<f64> {
                        row.chunks_exact(head).flat_map(|h| h.repeat(shared)).collect()
                    };
                    let data = tensor.data.chunks_exact(width).flat_map(row).collect();
                    let mut dims = tensor.dims.clone();
                    if let Some(last) = dims.last_mut() {
                        *last *= shared;
                    }
                    weights.insert(name, &dims, data)?;
                }
            }
        }
        let mut out = self.with(Shape { kv_heads: None, ..shape.clone() }, weights)?;
        out.spec.sites.clone_from(&self.spec.sites);
        Ok(out)
    }

    /// Checks a token sequence against the shape.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::ContextTooLong`], [`Error::UnknownToken`].
    pub fn check_tokens(&self, tokens: &[u32], start: usize) -> Result<()> {
        let shape = &self.spec.shape;
        if tokens.is_empty() {
            return Err(Error::Empty);
        }
        if start + tokens.len() > shape.context {
            return Err(Error::ContextTooLong { length: start + tokens.len(), context: shape.context });
        }
        match tokens.iter().position(|&t| t as usize >= shape.vocab) {
            Some(i) => Err(Error::UnknownToken { token: tokens[i], position: start + i, vocab: shape.vocab }),
            None => Ok(()),
        }
    }
}

/// A model whose tensors are made one at a time, on the way to its folder.
pub(crate) struct Source<'s> {
    pub(crate) name: &'s str,
    pub(crate) shape: &'s Shape,
    pub(crate) provenance: BTreeMap<String, String>,
    pub(crate) tokenizer: Option<&'s Tokenizer>,
}

impl Source<'_> {
    /// Writes the folder. On any error nothing is left behind.
    pub(crate) fn save(self, dir: &Path, tensor: impl Fn(&str) -> Result<Vec<f32>>) -> Result<()> {
        let fresh = !dir.exists();
        let taken = [MODEL_FILE, WEIGHTS_FILE, TOKENIZER_FILE]
            .map(|name| dir.join(name))
            .into_iter()
            .find(|p| p.exists());
        if let Some(path) = taken {
            return Err(cipherlm_files::Error::Exists { path }.into());
        }
        cipherlm_files::create_folder(dir)?;
        let done = self.write(dir, tensor);
        if done.is_err() {
            for name in [MODEL_FILE, WEIGHTS_FILE, TOKENIZER_FILE] {
                let _ = std::fs::remove_file(dir.join(name));
            }
            if fresh {
                let _ = std::fs::remove_dir(dir);
            }
        }
        done
    }

    fn write(self, dir: &Path, tensor: impl Fn(&str) -> Result<Vec<f32>>) -> Result<()> {
        let mut tensors = self.shape.tensors();
        tensors.sort();
        let mut hasher = blake3::Hasher::new();
        let mut failed = None;
        let file = dir.join(WEIGHTS_FILE);
        let written = cipherlm_files::write_with(&file, Existing::Refuse, Access::Everyone, |out| {
            let head = header(tensors.iter().map(|(name, dims)| (name.as_str(), dims.as_slice())));
            hasher.update(&head);
            out.write_all(&head)?;
            for (name, dims) in &tensors {
                let values = match tensor(name) {
                    Ok(values) if values.len() == dims.iter().product::<usize>() => values,
                    Ok(values) => {
                        let (expected, found) = (dims.clone(), vec![values.len()]);
                        failed = Some(Error::TensorShape { name: name.clone(), expected, found });
                        return Err(std::io::Error::other("tensor"));
                    }
                    Err(error) => {
                        failed = Some(error);
                        return Err(std::io::Error::other("tensor"));
                    }
                };
                // In pieces: the largest tensor is not in memory twice.
                for piece in values.chunks(1 << 16) {
                    let bytes: Vec<u8> = piece.iter().flat_map(|x| x.to_le_bytes()).collect();
                    hasher.update(&bytes);
                    out.write_all(&bytes)?;
                }
            }
            Ok(())
        });
        // The cause, where a tensor was at fault.
        match failed {
            Some(error) => return Err(error),
            None => written?,
        }
        if let Some(tokenizer) = self.tokenizer {
            tokenizer.save(&dir.join(TOKENIZER_FILE))?;
        }
        let spec = ModelSpec {
            format: FORMAT.into(),
            version: VERSION,
            name: self.name.to_owned(),
            shape: self.shape.clone(),
            weights_blake3: hasher.finalize().to_hex().to_string(),
            prefix: vec![],
            sites: vec![],
            provenance: self.provenance,
        };
        let mut text = serde_json::to_string_pretty(&spec).map_err(|e| Error::malformed(MODEL_FILE, e))?;
        text.push('\n');
        Ok(cipherlm_files::write(&dir.join(MODEL_FILE), text.as_bytes(), Existing::Refuse, Access::Everyone)?)
    }
}
