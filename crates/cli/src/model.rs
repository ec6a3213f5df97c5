//! Finds and loads models.

use anyhow::{Context, bail};
use cipherlm_model::{Model, TOKENIZER_FILE, Tokenizer};
use std::path::{Path, PathBuf};

/// The shipped model's folder below `models/`.
const SHIPPED: &str = "stories-2x128";

/// A model with its tokenizer.
pub(crate) struct Loaded {
    pub(crate) dir: PathBuf,
    pub(crate) model: Model,
    pub(crate) tokenizer: Tokenizer,
}

/// Loads the model in `dir`, or the shipped one.
pub(crate) fn load(dir: Option<&Path>) -> anyhow::Result<Loaded> {
    let dir = match dir {
        Some(dir) if dir.exists() => dir.to_path_buf(),
        // A bare name means a folder below `models/`.
        Some(name) => find(&name.to_string_lossy()).with_context(|| format!("no model folder {}", name.display()))?,
        None => find(SHIPPED).context("the shipped model was not found: run from the repository, or pass --model")?,
    };
    let model = Model::load(&dir).with_context(|| format!("loading the model in {}", dir.display()))?;
    let file = dir.join(TOKENIZER_FILE);
    let tokenizer = Tokenizer::load(&file).with_context(|| format!("loading {}", file.display()))?;
    tokenizer.check_shape(model.shape()).with_context(|| format!("loading {}", dir.display()))?;
    Ok(Loaded { dir, model, tokenizer })
}

/// `models/<name>` in the working folder or above it, or beside this program's sources.
fn find(name: &str) -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    here.ancestors().map(Path::to_path_buf).chain([built]).map(|dir| dir.join("models").join(name)).find(|d| d.is_dir())
}

impl Loaded {
    /// The prompt's tokens, refused when there is none or there are too many.
    pub(crate) fn tokens(&self, prompt: &str, room: usize) -> anyhow::Result<Vec<u32>> {
        let tokens = self.tokenizer.encode(prompt)?;
        if tokens.is_empty() {
            bail!("the prompt is empty: pass some text");
        }
        let most = self.model.shape().context.saturating_sub(room);
        if tokens.len() > most {
            bail!("the prompt has {} tokens; with {room} to generate the model takes {most}: shorten it", tokens.len());
        }
        Ok(tokens)
    }

    /// The logits of tokens that exist: a model's vocabulary may be padded beyond its tokenizer's.
    pub(crate) fn known<'l>(&self, logits: &'l [f64]) -> &'l [f64] {
        &logits[..logits.len().min(self.tokenizer.vocab())]
    }

    /// A text file cut into windows of tokens.
    pub(crate) fn windows(&self, file: &Path, length: usize, count: usize) -> anyhow::Result<Vec<Vec<u32>>> {
        if length < 2 || length > self.model.shape().context {
            bail!("a window has 2 to {} tokens, not {length}", self.model.shape().context);
        }
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        // Tokens are rarely shorter than a byte, so this prefix is enough.
        let mut end = text.len().min(length * count * 16);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let tokens = self.tokenizer.encode(&text[..end])?;
        let windows: Vec<Vec<u32>> = tokens.chunks_exact(length).take(count).map(<[u32]>::to_vec).collect();
        if windows.is_empty() {
            bail!("{} has {} tokens; one window takes {length}", file.display(), tokens.len());
        }
        Ok(windows)
    }
}
