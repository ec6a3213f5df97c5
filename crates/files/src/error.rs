//! Errors: each names the file, what stands there and the next step.

use std::io;
use std::path::{Path, PathBuf};

use crate::text::shown;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a file was not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message of a variant says what its fields are")]
pub enum Error {
    /// The system refused.
    #[error("{action} {}: {}", shown(path), reason(source))]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// An output would replace something and was not told to.
    #[error("{} is already there: choose another name, or say that it may be replaced", shown(path))]
    Exists { path: PathBuf },
    /// The folder of an output is missing.
    #[error("{}: there is no folder {}: make it first, or choose another name", shown(path), shown(folder))]
    NoFolder { path: PathBuf, folder: PathBuf },
    /// A folder was expected.
    #[error("{} is not a folder: choose another name", shown(path))]
    NotAFolder { path: PathBuf },
    /// A regular file was expected.
    #[error("{} is {kind}, not a file: name a file", shown(path))]
    NotAFile { path: PathBuf, kind: &'static str },
    /// Nothing can be created in a folder.
    #[error(
        "{}: the folder {} takes no new file ({}): choose another",
        shown(path),
        shown(folder),
        reason(source)
    )]
    NotWritable { path: PathBuf, folder: PathBuf, source: io::Error },
    /// Another process holds the folder.
    #[error("{} is in use by another process: wait for it to end, or choose another folder", shown(path))]
    InUse { path: PathBuf },
    /// More bytes than the reader takes.
    #[error("{} has {} bytes, and at most {at_most} are read here", shown(path), count(*bytes))]
    TooLarge { path: PathBuf, bytes: Option<u64>, at_most: u64 },
    /// Text in another encoding.
    #[error("{} is not UTF-8 text: byte {at} begins no character", shown(path))]
    NotText { path: PathBuf, at: usize },
}

impl Error {
    /// The file or folder at fault.
    pub fn path(&self) -> &Path {
        match self {
            Self::Io { path, .. }
            | Self::Exists { path }
            | Self::NoFolder { path, .. }
            | Self::NotAFolder { path }
            | Self::NotAFile { path, .. }
            | Self::NotWritable { path, .. }
            | Self::InUse { path }
            | Self::TooLarge { path, .. }
            | Self::NotText { path, .. } => path,
        }
    }

    /// The nearest kind of the standard library.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Io { source, .. } | Self::NotWritable { source, .. } => source.kind(),
            Self::Exists { .. } => io::ErrorKind::AlreadyExists,
            Self::NoFolder { .. } => io::ErrorKind::NotFound,
            Self::NotAFolder { .. } => io::ErrorKind::NotADirectory,
            Self::NotAFile { .. } => io::ErrorKind::InvalidInput,
            Self::InUse { .. } => io::ErrorKind::ResourceBusy,
            Self::TooLarge { .. } => io::ErrorKind::FileTooLarge,
            Self::NotText { .. } => io::ErrorKind::InvalidData,
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error)
    }
}

fn count(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "more".into(), |bytes| bytes.to_string())
}

/// The system's words, with the next step where it is not plain.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => format!("{error}: free some space"),
        io::ErrorKind::FileTooLarge => format!("{error}: a limit of this process or file system"),
        _ => error.to_string(),
    }
}
