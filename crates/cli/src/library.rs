//! The server's side of a search: documents and their vectors in a folder.

use crate::model::Loaded;
use crate::sentence::{dot, ensure_embeds};
use anyhow::{Context, bail};
use cipherlm_files::{Access, Existing, shown};
use cipherlm_infer::Index;
use cipherlm_model::{Mode, Weights};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

    /// Whether a folder is an index.
    pub(crate) fn is_at(dir: &Path) -> bool {
        dir.join(DESCRIPTION).exists()
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

    /// Refuses a plan for another number of documents.
    pub(crate) fn check_count(&self, planned: usize) -> anyhow::Result<()> {
        let found = self.documents.len();
        if found != planned {
            bail!(
                "--index holds {found} documents and the plan is for {planned}: pass the index that it was \
                 made with"
            );
        }
        Ok(())
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

    /// The dot product of a vector with each document, in order.
    pub(crate) fn scores(&self, vector: &[f64]) -> Vec<f64> {
        let width = self.vectors.len() / self.documents.len().max(1);
        self.vectors.chunks_exact(width).map(|document| dot(vector, document)).collect()
    }

    /// The model for an encrypted search of the documents that it made the vectors of.
    pub(crate) fn put_on(&self, loaded: Loaded) -> anyhow::Result<Loaded> {
        ensure_embeds(&loaded, "search")?;
        self.check(&loaded)?;
        let width = self.vectors.len() / self.documents.len().max(1);
        let index = Index::new(width, self.vectors.clone())?;
        Ok(Loaded { index: Some(Arc::new(index)), ..loaded })
    }

    /// Documents with their scores, as JSON.
    pub(crate) fn rows(&self, hits: &[Hit]) -> Vec<Value> {
        let row = |(place, hit): (usize, &Hit)| {
            let document = &self.documents[hit.at];
            json!({"place": place + 1, "id": document.id, "score": hit.shown(), "text": document.text})
        };
        hits.iter().enumerate().map(row).collect()
    }
}

/// A document that answers a question.
#[derive(Clone, Copy)]
pub(crate) struct Hit {
    /// Its place in the index.
    pub(crate) at: usize,
    pub(crate) score: f64,
}

impl Hit {
    /// The score to a thousandth: what lies below tells more of the noise than of the document.
    pub(crate) fn shown(&self) -> f64 {
        (self.score * 1000.0).round() / 1000.0
    }
}

/// The best documents for scores, best first; the earlier of equals.
pub(crate) fn best(scores: &[f64], count: usize) -> Vec<Hit> {
    let mut order: Vec<Hit> = scores.iter().zip(0..).map(|(&score, at)| Hit { at, score }).collect();
    order.sort_by(|a, b| b.score.total_cmp(&a.score));
    order.truncate(count);
    order
}
