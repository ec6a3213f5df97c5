//! What can go wrong between a client and its server.

use std::net::SocketAddr;

use cipherlm_protocol::Problem;

/// Anything that ends a conversation with a server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server refused, with the next step.
    #[error("the server says: {0}")]
    Refused(Box<Problem>),
    /// An address that cannot be used.
    #[error(
        "`{address}` is no address of a server: give https://HOST:PORT (http:// only to this machine itself)"
    )]
    Address {
        /// The address.
        address: String,
    },
    /// Certificates or the handshake.
    #[error("{what}: {reason}")]
    Tls {
        /// What was tried.
        what: String,
        /// Why it failed.
        reason: String,
    },
    /// The line.
    #[error("{what}: {reason}: is the server running, and is the line up?")]
    Line {
        /// What was tried.
        what: String,
        /// Why it failed.
        reason: String,
    },
    /// An address of this machine that cannot be listened on.
    #[error("--listen {address}: {source}: choose another port, or stop the program that has it")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A token that cannot be sent.
    #[error("the token {reason}: give --token-file the file that the server's operator made")]
    Token {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An answer that no server of this protocol gives.
    #[error("the server's answer is not understood ({what}): is it a cipherlm server of this version?")]
    Strange {
        /// What is strange.
        what: String,
    },
    /// A file that no page has.
    #[error("`{name}` is no file of a page: pass the folder that `cargo xtask page` made")]
    PageFile {
        /// Its name.
        name: String,
    },
    /// A job that ended without an answer.
    #[error("the job was cancelled: submit it again")]
    Cancelled,
    /// A file.
    #[error(transparent)]
    Files(#[from] cipherlm_files::Error),
    /// Keys or plan.
    #[error(transparent)]
    Infer(#[from] cipherlm_infer::Error),
    /// The client plan.
    #[error(transparent)]
    Plan(#[from] cipherlm_protocol::PlanError),
    /// What a caller's decoder says.
    #[error("{0}")]
    Client(String),
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Refused(Box::new(problem))
    }
}

impl Error {
    /// Whether the same request may well succeed when it is repeated.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Line { .. } => true,
            Self::Refused(problem) => problem.retry_after.is_some(),
            _ => false,
        }
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
