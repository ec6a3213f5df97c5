//! The tokenizer of a run: trained once, and only as long as what it was trained from stays the
//! same.

use std::path::Path;

use cipherlm_model::import::Checkpoint;
use cipherlm_model::{MODEL_FILE, TOKENIZER_FILE, Tokenizer};
use serde_json::{Value, json};

use crate::checkpoint::write;
use crate::error::{Error, Result};
use crate::recipe::{Run, TokenizerSource};
use crate::stamp::{differences, hash};
use crate::trainer::ensure_vacant;

/// Beside the tokenizer: what it was trained from.
const SOURCE_FILE: &str = "tokenizer.source.json";

/// The run's tokenizer. One that is trained is kept in the run's folder; if its text or size
/// changed since, it is trained again, or refused where a stage has already learned its tokens.
pub(crate) fn tokenizer(run: &Run, text: &str) -> Result<Tokenizer> {
    match &run.tokenizer {
        TokenizerSource::Train { vocab } => trained(run, text, *vocab),
        TokenizerSource::File(path) => Ok(Tokenizer::load(path)?),
        TokenizerSource::Llama2c(path) => Ok(Tokenizer::from_llama2c(&cipherlm_files::read(path, 1 << 28)?)?),
        TokenizerSource::Start => of_start(run.start.as_deref()),
    }
}

/// The tokenizer of a model folder, or of a public checkpoint's.
fn of_start(start: Option<&Path>) -> Result<Tokenizer> {
    let none = || Error::config("tokenizer", "start", "a model folder in `start` to take it from");
    let folder = start.filter(|folder| folder.is_dir()).ok_or_else(none)?;
    if folder.join(MODEL_FILE).exists() {
        return Ok(Tokenizer::load(&folder.join(TOKENIZER_FILE))?);
    }
    Checkpoint::open(folder)?.tokenizer().cloned().ok_or_else(none)
}

fn trained(run: &Run, text: &str, vocab: usize) -> Result<Tokenizer> {
    let (kept, source) = (run.folder.join(TOKENIZER_FILE), run.folder.join(SOURCE_FILE));
    let wanted = json!({ "vocab": vocab, "text": hash(text.as_bytes()) });
    if kept.exists() {
        let found = read_source(&source);
        let changed = differences(&found, &wanted, &[]);
        if changed.is_empty() {
            return Ok(Tokenizer::load(&kept)?);
        }
        for stage in &run.stages {
            if let Err(Error::Occupied { .. }) = ensure_vacant(&run.stage_folder(stage)) {
                return Err(Error::Checkpoint { path: kept, differences: changed.join("; ") });
            }
        }
    }
    let tokenizer = Tokenizer::train(text, vocab)?;
    // Without its source beside it a tokenizer counts for nothing: a crash between the two writes
    // only costs the training again.
    let _ = std::fs::remove_file(&source);
    tokenizer.save(&kept)?;
    write(&source, wanted.to_string().as_bytes())?;
    Ok(tokenizer)
}

fn read_source(path: &Path) -> Value {
    std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}
