//! Public checkpoints as models of this project, by their public tensor names.
//!
//! | source | families | what is done |
//! |---|---|---|
//! | Hugging Face folder | BERT, GPT-NeoX, Llama | fused maps split, linear maps transposed, token type 0 folded into positions |
//! | GGUF file | Llama | blocks dequantised, interleaved rotary pairs become halves |
//! | llama2.c file | Llama | the same layout of rotary pairs |
//!
//! Everything that can be wrong is found from headers, before any value is read; values are read
//! and written one tensor at a time. Attention stays softmax: converting it is training's part.

mod archive;
mod bert;
mod config;
mod dtype;
mod gguf;
mod llama;
mod llama2c;
mod neox;
mod recipe;
mod safetensors;
mod vocabulary;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::model::{Model, Source};
use crate::shape::{Pool, Shape};
use crate::tokenizer::Tokenizer;
use crate::weights::Weights;
use archive::Archive;
use config::Config;
use recipe::{Book, Recipe};

/// Largest `config.json`, bytes.
const MAX_CONFIG: u64 = 1 << 20;

/// A checkpoint whose headers were checked; its values still lie in its files.
#[derive(Debug)]
pub struct Checkpoint {
    name: String,
    family: &'static str,
    shape: Shape,
    tokenizer: Option<Tokenizer>,
    left_out: Vec<String>,
    archive: Archive,
    recipes: BTreeMap<String, Recipe>,
}

impl Checkpoint {
    /// Opens a Hugging Face folder, a GGUF file (or a folder with one and no `config.json`) or a
    /// llama2.c file.
    ///
    /// # Errors
    /// [`Error::Malformed`] naming the field or tensor: truncated files, missing shards, other
    /// architectures, types that are no weights. [`Error::MissingTensor`],
    /// [`Error::TensorShape`], [`Error::StrayTensor`] where file and description disagree.
    pub fn open(path: &Path) -> Result<Self> {
        let inside = gguf::only_file(path)?;
        let path = inside.as_deref().unwrap_or(path);
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let (family, shape, tokenizer, archive, (recipes, left_out)) = if path.is_dir() {
            open_folder(path)?
        } else if gguf::is_gguf(path) {
            let (config, archive) = gguf::open(path)?;
            let (shape, book, tokenizer) = gguf::llama(&config, &archive)?;
            let done = book.finish(&shape)?;
            ("GGUF llama", shape, tokenizer, archive, done)
        } else {
            let (shape, archive) = llama2c::open(path)?;
            let done = llama2c::recipes(&archive, &shape)?.finish(&shape)?;
            ("llama2.c", shape, None, archive, done)
        };
        if let Some(tokenizer) = &tokenizer {
            tokenizer.check_shape(&shape)?;
        }
        Ok(Self { name, family, shape, tokenizer, left_out, archive, recipes })
    }

    /// Where the checkpoint's tensors and names come from.
    pub fn family(&self) -> &'static str {
        self.family
    }

    /// The shape, with softmax attention.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The tokenizer, if the source has one.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// Takes a tokenizer from elsewhere.
    ///
    /// # Errors
    /// [`Error::Vocabulary`] when it has more tokens than the model.
    pub fn with_tokenizer(mut self, tokenizer: Tokenizer) -> Result<Self> {
        tokenizer.check_shape(&self.shape)?;
        self.tokenizer = Some(tokenizer);
        Ok(self)
    }

    /// Tensors of the source that the model has no use for (heads of pretraining tasks), by name.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// The model in memory, as f64.
    ///
    /// # Errors
    /// A file that changed or ends early; [`Error::NotFinite`].
    pub fn model(&self) -> Result<Model> {
        let mut weights = Weights::new();
        for (name, dims) in self.shape.tensors() {
            weights.insert(&name, &dims, self.tensor(&name)?.into_iter().map(f64::from).collect())?;
        }
        let mut model = Model::new(&self.name, self.shape.clone(), weights)?;
        model.set_provenance("source", self.provenance());
        Ok(model)
    }

    /// Writes a model folder, tensor by tensor: description, weights as f32, tokenizer. On any
    /// error nothing is left behind.
    ///
    /// # Errors
    /// As [`Checkpoint::model`]; [`Error::File`], also when a model is there already.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let provenance = BTreeMap::from([("source".to_owned(), self.provenance())]);
        let source =
            Source { name: &self.name, shape: &self.shape, provenance, tokenizer: self.tokenizer.as_ref() };
        source.save(dir, |name| self.tensor(name))
    }

    fn provenance(&self) -> String {
        format!("{} checkpoint {}", self.family, self.name)
    }

    fn tensor(&self, name: &str) -> Result<Vec<f32>> {
        match self.recipes.get(name) {
            Some(recipe) => recipe.cook(&self.archive),
            None => Err(Error::MissingTensor { name: name.to_owned(), expected: vec![] }),
        }
    }
}

type Opened = (&'static str, Shape, Option<Tokenizer>, Archive, (BTreeMap<String, Recipe>, Vec<String>));

fn open_folder(dir: &Path) -> Result<Opened> {
    let config = dir.join("config.json");
    if !config.is_file() {
        let reason =
            "no `config.json` and no GGUF file: a Hugging Face folder has the former beside its weights";
        return Err(Error::malformed(dir.display().to_string(), reason));
    }
    let text = cipherlm_files::read_text(&config, MAX_CONFIG)?;
    let root: Value = serde_json::from_str(&text).map_err(|e| Error::malformed("config.json", e))?;
    let config = Config::new("config.json", root)?;
    let family = config.text("model_type").unwrap_or("none").to_owned();
    if !["bert", "gpt_neox", "llama"].contains(&family.as_str()) {
        let reason = format!("is {family:?}; this program reads bert, gpt_neox and llama");
        return Err(config.refuse("model_type", reason));
    }
    let archive = safetensors::of_folder(dir)?;
    let (family, shape, done) = match family.as_str() {
        "bert" => {
            let mut book = Book::new(&archive, bert::PREFIX);
            let shape = bert::shape(&config, &book, pooling(dir)?)?;
            shape.validate()?;
            bert::recipes(&mut book, &shape)?;
            let done = book.finish(&shape)?;
            ("BERT", shape, done)
        }
        "gpt_neox" => {
            let mut book = Book::new(&archive, neox::PREFIX);
            let shape = neox::shape(&config)?;
            shape.validate()?;
            neox::recipes(&config, &mut book, &shape)?;
            let done = book.finish(&shape)?;
            ("GPT-NeoX", shape, done)
        }
        _ => {
            let mut book = Book::new(&archive, llama::PREFIX);
            let shape = llama::shape(&config, &book)?;
            shape.validate()?;
            llama::recipes(&mut book, &shape, &llama::HUGGING_FACE)?;
            let done = book.finish(&shape)?;
            ("Llama", shape, done)
        }
    };
    Ok((family, shape, vocabulary::of_folder(dir, &config)?, archive, done))
}

/// How a sentence-transformers folder makes one vector of a text; the mean of all rows where
/// nothing says so.
fn pooling(dir: &Path) -> Result<Pool> {
    let path: PathBuf = dir.join("1_Pooling").join("config.json");
    if !path.exists() {
        return Ok(Pool::Mean);
    }
    let what = "1_Pooling/config.json";
    let text = cipherlm_files::read_text(&path, MAX_CONFIG)?;
    let root: Value = serde_json::from_str(&text).map_err(|e| Error::malformed(what, e))?;
    let config = Config::new(what, root)?;
    let known = [("pooling_mode_mean_tokens", Pool::Mean), ("pooling_mode_cls_token", Pool::First)];
    let chosen = known.into_iter().find(|(field, _)| config.flag(field, false));
    chosen
        .map(|(_, pool)| pool)
        .ok_or_else(|| config.refuse("pooling_mode", "is neither mean nor first token"))
}
