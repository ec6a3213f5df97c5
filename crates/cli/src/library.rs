//! The server's side of a search: documents and their vectors in a folder.

use crate::model::Loaded;
use anyhow::{Context, bail};
use cipherlm_files::{Access, Existing, shown};
use cipherlm_model::{Mode, Weights};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const DESCRIPTION: &str = "index.json";
const VECTORS: &str = "vectors.safetensors";
const TENSOR: &str = "documents";
const FORMAT: &str = "cipherlm index 1";
/// Largest description, in bytes: it holds the documents.
const MAX_DESCRIPTION: u64 = 1 << 32;

/// An index: what its vectors are of and what made them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Library {
    format: String,
    /// Name of the model.
    pub(crate) model: String,
    /// Where the model was when the index was made.
    pub(crate) folder: PathBuf,
    /// Its weights: vectors of other weights cannot be compared.
    weights_blake3: String,
    /// Whether the polynomials made the vectors.
    pub(crate) polynomial: bool,
    /// Tokens that a text is cut to.
    pub(crate) length: usize,
    pub(crate) documents: Vec<Document>,
    #[serde(skip)]
    vectors: Vec<f64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    pub(crate) id: String,
    pub(crate) text: String,
}

impl Library {
    /// From lines of `id TAB text`, or of texts that are numbered from 0.
    pub(crate) fn build(loaded: &Loaded, mode: Mode, text: &str, length: usize) -> anyhow::Result<Self> {
        let document = |(at, line): (usize, &str)| match line.split_once('\t') {
            Some((id, text)) => Document { id: id.to_owned(), text: text.to_owned() },
            None => Document { id: at.to_string(), text: line.to_owned() },
        };
        let documents: Vec<Document> = text.lines().enumerate().map(document).collect();
        let texts: Vec<&str> = documents.iter().map(|d| d.text.as_str()).collect();
        let vectors = crate::sentence::vectors(loaded, mode, &texts, length)?.concat();
        let spec = loaded.model.spec();
        Ok(Self {
            format: FORMAT.into(),
            model: spec.name.clone(),
            folder: std::path::absolute(&loaded.folder).unwrap_or_else(|_| loaded.folder.clone()),
            weights_blake3: spec.weights_blake3.clone(),
            polynomial: mode == Mode::Polynomial,
            length,
            documents,
            vectors,
        })
    }

    /// Writes the folder.
    pub(crate) fn save(&self, dir: &Path) -> anyhow::Result<()> {
        let width = self.vectors.len() / self.documents.len().max(1);
        let mut tensors = Weights::new();
        tensors.insert(TENSOR, &[self.documents.len(), width], self.vectors.clone())?;
        cipherlm_files::create_folder(dir)?;
        let write = |name: &str, bytes: &[u8]| {
            cipherlm_files::write(&dir.join(name), bytes, Existing::Replace, Access::Everyone)
        };
        write(VECTORS, &tensors.to_bytes())?;
        Ok(write(DESCRIPTION, serde_json::to_string(self)?.as_bytes())?)
    }

    /// Reads a folder.
    pub(crate) fn load(dir: &Path) -> anyhow::Result<Self> {
        let file = dir.join(DESCRIPTION);
        let text = cipherlm_files::read_text(&file, MAX_DESCRIPTION)?;
        let mut out: Self =
            serde_json::from_str(&text).with_context(|| format!("reading {}", shown(&file)))?;
        if out.format != FORMAT {
            bail!("{} has format {:?}, expected {FORMAT:?}", shown(&file), out.format);
        }
        let file = dir.join(VECTORS);
        let tensors = Weights::load(&file).with_context(|| format!("reading {}", shown(&file)))?;
        let tensor = tensors.tensor(TENSOR).with_context(|| format!("{} lacks {TENSOR:?}", shown(&file)))?;
        let fits = matches!(tensor.dims[..], [count, width] if count == out.documents.len() && width > 0);
        if !fits || out.documents.is_empty() {
            let (count, dims) = (out.documents.len(), &tensor.dims);
            bail!(
                "{}: vectors of dimensions {dims:?} for {count} documents: the index is damaged",
                shown(dir)
            );
        }
        out.vectors.clone_from(&tensor.data);
        Ok(out)
    }

    /// Refuses another model than the one that made the vectors.
    pub(crate) fn check(&self, loaded: &Loaded) -> anyhow::Result<()> {
        let (ours, theirs) = (&self.weights_blake3, &loaded.model.spec().weights_blake3);
        if ours != theirs {
            bail!(
                "the index was made by weights {}… and {} has {}…: make the index again",
                &ours[..ours.len().min(12)],
                loaded.name(),
                &theirs[..theirs.len().min(12)]
            );
        }
        Ok(())
    }

    /// The vector of each document, in order.
    pub(crate) fn vectors(&self) -> impl Iterator<Item = &[f64]> {
        self.vectors.chunks_exact(self.vectors.len() / self.documents.len().max(1))
    }

    /// The best documents for scores, best first; the earlier of equals.
    pub(crate) fn best(&self, scores: &[f64], count: usize) -> Vec<(usize, f64)> {
        let mut order: Vec<(usize, f64)> = scores.iter().copied().enumerate().collect();
        order.sort_by(|a, b| b.1.total_cmp(&a.1));
        order.truncate(count);
        order
    }
}
