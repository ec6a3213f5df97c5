//! Errors of the training half.

use std::path::PathBuf;

/// What can go wrong while building, training, evaluating or exporting a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A shape or operator setting that no model can have.
    #[error("model configuration: {field} is {found}, but must be {expected}")]
    Config {
        /// The offending field.
        field: &'static str,
        /// Its value.
        found: String,
        /// What would be accepted.
        expected: String,
    },
    /// A program of the system could not be run.
    #[error("running {program}: {source}")]
    Program {
        /// The program.
        program: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    Files(#[from] cipherlm_files::Error),
    /// A file was read but its content is not what it should be.
    #[error("{}: {reason}; {hint}", cipherlm_files::shown(path))]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// A weights file does not fit the model.
    #[error("parameter `{name}`: the model needs shape {expected:?}, the file has {found:?}")]
    Shape {
        /// Name of the parameter.
        name: String,
        /// Shape in the model.
        expected: Vec<usize>,
        /// Shape in the file; empty when the file lacks the tensor.
        found: Vec<usize>,
    },
    /// A corpus too short to cut one training window from.
    #[error("the corpus has {tokens} tokens, a window needs {needed}: give more text or a shorter context")]
    CorpusTooShort {
        /// Tokens found.
        tokens: usize,
        /// Tokens needed.
        needed: usize,
    },
    /// More tokens than positions.
    #[error("{tokens} tokens do not fit the model's context of {context}: shorten the text")]
    ContextTooLong {
        /// Tokens given.
        tokens: usize,
        /// Context of the model.
        context: usize,
    },
    /// A token id outside the model's vocabulary: the tokenizer belongs to another model.
    #[error(
        "token id {token} is outside the model's vocabulary of {vocab}: the tokenizer belongs to another \
         model"
    )]
    Vocabulary {
        /// The id.
        token: u32,
        /// Vocabulary of the model.
        vocab: usize,
    },
    /// Training stopped because it no longer converges.
    #[error("training diverged at step {step}: {reason}; the last good checkpoint is kept")]
    Diverged {
        /// Step at which it was noticed.
        step: usize,
        /// What was seen.
        reason: String,
    },
    /// A checkpoint of another run.
    #[error(
        "{} was written by another configuration: {differences}; restore it, or start afresh in another \
         folder",
        cipherlm_files::shown(path)
    )]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// Each differing field with both values.
        differences: String,
    },
    /// A folder that holds a run already.
    #[error("{} holds a run: continue it with --resume, or give another folder", cipherlm_files::shown(path))]
    Occupied {
        /// The file that would be lost.
        path: PathBuf,
    },
    /// A value has no JSON form.
    #[error("writing JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The data model refused something.
    #[error(transparent)]
    Model(#[from] cipherlm_model::Error),
}

impl Error {
    pub(crate) fn config(field: &'static str, found: impl ToString, expected: impl Into<String>) -> Self {
        Self::Config { field, found: found.to_string(), expected: expected.into() }
    }
}

/// Result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;
