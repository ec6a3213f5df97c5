//! What the page shows when something is refused.

use cipherlm_protocol::Digest;

/// Anything that keeps the page from an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server's client plan.
    #[error(transparent)]
    Plan(#[from] cipherlm_protocol::PlanError),
    /// The client's half.
    #[error(transparent)]
    Infer(#[from] cipherlm_infer::Error),
    /// The tokenizer, or a text that it cannot take.
    #[error(transparent)]
    Model(#[from] cipherlm_model::Error),
    /// The secret's file.
    #[error(
        "this is not the secret of the server's plan ({0}): choose `secret.key` of the folder that \
         `cipherlm keygen` made for it"
    )]
    Secret(#[source] cipherlm_ckks::Error),
    /// A profile at a degree that this version does not have.
    #[error(
        "the plan names the parameters `{name}` at degree 2^{log_degree}, which this version does not \
         have: use the page of the server's version"
    )]
    Profile {
        /// Its name.
        name: String,
        /// log2 of its ring degree.
        log_degree: u32,
    },
    /// A model whose answers are not for reading.
    #[error("the model makes vectors of texts, which this page does not show: use `cipherlm search`")]
    Kind,
    /// A file that is not the one that was named.
    #[error("{what} has hash {found}, and {expected} was named: load the page again")]
    Hash {
        /// The file.
        what: &'static str,
        /// Named.
        expected: Digest,
        /// Found.
        found: Digest,
    },
    /// Text that is none.
    #[error("{0} is not UTF-8 text")]
    Text(&'static str),
    /// A text that has no room in the model.
    #[error("the text has {length} tokens and there is room for {capacity}: shorten it")]
    Room {
        /// Tokens of the text.
        length: usize,
        /// Tokens that the plan takes.
        capacity: usize,
    },
    /// A call that comes before the one that it needs.
    #[error("{what} comes first: this is a fault of the page")]
    Order {
        /// The call that is missing.
        what: &'static str,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
