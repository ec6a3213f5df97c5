//! Why a server does not start, or cannot keep its records.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Anything that keeps a server from starting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file.
    #[error(transparent)]
    Files(#[from] cipherlm_files::Error),
    /// The plan.
    #[error(transparent)]
    Infer(#[from] cipherlm_infer::Error),
    /// The client's view of the plan.
    #[error(transparent)]
    Plan(#[from] cipherlm_protocol::PlanError),
    /// The records.
    #[error("the records in {}: {source}: {}", path.display(), of_records(source))]
    Records {
        /// Their file.
        path: PathBuf,
        /// What the store said.
        source: Box<redb::Error>,
    },
    /// An address that cannot be listened on.
    #[error("--listen {address}: {source}: {}", of_address(source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Bounds in which nothing can be served.
    #[error("the limits: {reason}")]
    Limits {
        /// The first of them.
        reason: String,
    },
    /// The system.
    #[error("{what}: {source}")]
    Network {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Certificate or key.
    #[error("{what}: {reason}")]
    Tls {
        /// The file.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// NATS.
    #[error("NATS: {what}: {reason}")]
    Nats {
        /// What was tried.
        what: &'static str,
        /// What it said.
        reason: String,
    },
    /// What a server leaves for its workers.
    #[error("{} is not what a server leaves for its workers: start the server with --nats", path.display())]
    Introduction {
        /// The file.
        path: PathBuf,
    },
    /// A worker of another kind than its server.
    #[error("the server has {what} {server}, the worker {worker}: give both the same program and options")]
    OtherServer {
        /// What differs.
        what: &'static str,
        /// The server's.
        server: String,
        /// The worker's.
        worker: String,
    },
    /// No randomness for a token.
    #[error("the system gives no random numbers")]
    Randomness,
    /// A name that cannot be a folder.
    #[error("`{name}` is no name for a tenant: 1 to 32 lower-case letters, digits or hyphens")]
    Tenant {
        /// The name.
        name: String,
    },
}

/// The next step after an error of the records.
fn of_records(error: &redb::Error) -> &'static str {
    match error {
        redb::Error::Io(error) if error.kind() == ErrorKind::StorageFull => "free some space",
        // Of the content, not of the disk.
        redb::Error::Io(error) if error.kind() != ErrorKind::InvalidData => {
            "look at this disk, or choose another --data"
        }
        redb::Error::DatabaseAlreadyOpen => "stop the other server of this folder, or choose another --data",
        redb::Error::UpgradeRequired(_) => "start the version that wrote them, or choose another --data",
        _ => "put back a copy of this folder, or choose another --data",
    }
}

/// The next step when an address cannot be listened on.
fn of_address(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::AddrInUse => "stop the other program that listens there, or choose another port",
        ErrorKind::AddrNotAvailable => "name an address of this machine",
        ErrorKind::PermissionDenied => "choose a port from 1024 on, or give the program the right",
        _ => "choose another address",
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
