//! Typed errors: every mismatch names both sides and what to do about it.

/// Anything that can be wrong with a model, its files or its input.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] cipherlm_files::Error),
    /// A file is not what its name promises.
    #[error("{what} is malformed: {reason}")]
    Malformed {
        /// The file or the field.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The weights file lacks a tensor that the shape asks for.
    #[error(
        "tensor `{name}` is missing; the shape asks for it with dimensions {expected:?}: export the model \
         again"
    )]
    MissingTensor {
        /// Tensor name.
        name: String,
        /// Dimensions asked for.
        expected: Vec<usize>,
    },
    /// The weights file holds a tensor that the shape does not know.
    #[error("tensor `{name}` does not belong to this shape: remove it or correct the shape")]
    UnknownTensor {
        /// Tensor name.
        name: String,
    },
    /// A public checkpoint holds a tensor that its architecture has no place for.
    #[error(
        "tensor `{name}` of the checkpoint has no place in its architecture: it is another kind of model \
         than it says"
    )]
    StrayTensor {
        /// Tensor name.
        name: String,
    },
    /// A tensor has other dimensions than the shape says.
    #[error("tensor `{name}` has dimensions {found:?}, the shape asks for {expected:?}")]
    TensorShape {
        /// Tensor name.
        name: String,
        /// Dimensions asked for.
        expected: Vec<usize>,
        /// Dimensions found.
        found: Vec<usize>,
    },
    /// A weight is NaN or infinite.
    #[error("tensor `{name}` holds a value that is not finite at index {index}: the training run diverged")]
    NotFinite {
        /// Tensor name.
        name: String,
        /// Flat index of the first bad value.
        index: usize,
    },
    /// A model that is shipped as a difference, without the weights that it is a difference from.
    #[error("a difference from {name}, whose weights are in none of {places}: fetch them with `{fetch}`")]
    NoBase {
        /// Where they were looked for.
        places: String,
        /// Name of the base.
        name: String,
        /// Command that fetches them.
        fetch: String,
    },
    /// The weights do not belong to the model description beside them.
    #[error(
        "weights have hash {found}, the model description names {expected}: the two files are from \
         different exports"
    )]
    WeightsHash {
        /// Hash in the description.
        expected: String,
        /// Hash of the file found.
        found: String,
    },
    /// The shape contradicts itself.
    #[error("shape field `{field}` is {value}: {reason}")]
    Shape {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it has to be.
        reason: &'static str,
    },
    /// More tokens than the model has positions for.
    #[error("{length} tokens, but the model's context is {context}: shorten the text")]
    ContextTooLong {
        /// Tokens asked for.
        length: usize,
        /// Positions the model has.
        context: usize,
    },
    /// No token at all.
    #[error("the token sequence is empty: give at least one token")]
    Empty,
    /// A token id outside the vocabulary.
    #[error(
        "token {token} at position {position} is outside the vocabulary of {vocab}: the text was encoded \
         with another tokenizer"
    )]
    UnknownToken {
        /// The id.
        token: u32,
        /// Where it stands.
        position: usize,
        /// Vocabulary size.
        vocab: usize,
    },
    /// The tokenizer has ids that the model does not know.
    #[error(
        "the tokenizer has {tokenizer} tokens, the model's vocabulary {model}: they do not belong together"
    )]
    Vocabulary {
        /// Tokens of the tokenizer.
        tokenizer: usize,
        /// Vocabulary of the model.
        model: usize,
    },
    /// Polynomial mode was asked of a site that has no polynomial yet.
    #[error("site `{site}` has no polynomial: certify the model and fit its schemes first")]
    NoScheme {
        /// The site.
        site: String,
    },
    /// A certified site contradicts itself or its shape.
    #[error("site `{site}` of the description is not usable: {reason}; certify the model again")]
    Site {
        /// The site.
        site: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Values on held-out text left a certified range.
    #[error(
        "{violations} values of site `{site}` on held-out text are outside [{lo}, {hi}] (seen there: \
         [{min}, {max}]): certify with more text, widen the margin or train with range loss"
    )]
    Violated {
        /// The site.
        site: String,
        /// How many values.
        violations: u64,
        /// Certified lower end.
        lo: f64,
        /// Certified upper end.
        hi: f64,
        /// Smallest value on held-out text.
        min: f64,
        /// Largest value on held-out text.
        max: f64,
    },
    /// A polynomial could not be fitted.
    #[error("no polynomial for site `{site}` on [{lo}, {hi}]: {reason}")]
    Fit {
        /// The site.
        site: String,
        /// Lower end.
        lo: f64,
        /// Upper end.
        hi: f64,
        /// Why.
        reason: String,
    },
    /// The operation does not exist for this kind of model.
    #[error("{operation} is not defined for {model}")]
    Unsupported {
        /// What was asked.
        operation: &'static str,
        /// What the model is.
        model: &'static str,
    },
}

impl Error {
    pub(crate) fn malformed(what: impl Into<String>, reason: impl ToString) -> Self {
        Self::Malformed { what: what.into(), reason: reason.to_string() }
    }
}

/// Text without the byte-order mark that some editors put before it.
pub(crate) fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
