//! Bounded reads of regular files.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::Path;

use crate::error::{Error, Result};

/// The beginning of a file.
#[derive(Debug, Clone)]
pub struct Head {
    /// The first bytes, or all.
    pub bytes: Vec<u8>,
    /// Length of the whole file.
    pub length: u64,
}

/// Reads at most `bytes` bytes from the start of a file, however long it is.
///
/// # Errors
/// [`Error::NotAFile`] for a folder, a device or a pipe; [`Error::Io`].
pub fn head(path: &Path, bytes: u64) -> Result<Head> {
    let (file, length) = open(path)?;
    let mut start = Vec::new();
    file.take(bytes).read_to_end(&mut start).map_err(Error::io("reading", path))?;
    Ok(Head { bytes: start, length })
}

/// Reads a whole file of at most `at_most` bytes.
///
/// # Errors
/// [`Error::TooLarge`] before anything is read; [`Error::NotAFile`]; [`Error::Io`].
pub fn read(path: &Path, at_most: u64) -> Result<Vec<u8>> {
    let (file, length) = open(path)?;
    if length > at_most {
        return Err(Error::TooLarge { path: path.to_owned(), bytes: Some(length), at_most });
    }
    bounded(file, path, length, at_most)
}

/// Reads a whole text of at most `at_most` bytes. A byte-order mark of UTF-8 is left out; line ends
/// stay as they are.
///
/// # Errors
/// As [`read`]; [`Error::NotText`].
pub fn read_text(path: &Path, at_most: u64) -> Result<String> {
    text(read(path, at_most)?, path)
}

/// As [`read_text`], from a stream: `name` stands for it in errors.
///
/// # Errors
/// [`Error::TooLarge`], [`Error::NotText`], [`Error::Io`].
pub fn read_text_from(stream: impl Read, name: &str, at_most: u64) -> Result<String> {
    text(bounded(stream, Path::new(name), 0, at_most)?, Path::new(name))
}

fn open(path: &Path) -> Result<(File, u64)> {
    let regular = |facts: io::Result<Metadata>| {
        let facts = facts.map_err(Error::io("reading", path))?;
        let kind = if facts.is_dir() { "a folder" } else { "a device or a pipe" };
        if facts.is_file() { Ok(facts.len()) } else { Err(Error::NotAFile { path: path.to_owned(), kind }) }
    };
    // Asked before the file is opened, because opening a pipe waits for its writer, and after: it
    // may be another by then.
    regular(fs::metadata(path))?;
    let file = File::open(path).map_err(Error::io("reading", path))?;
    let length = regular(file.metadata())?;
    Ok((file, length))
}

/// `expected` bytes are reserved at once, so a secret is not copied about while the vector grows.
fn bounded(stream: impl Read, path: &Path, expected: u64, at_most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let reserved = usize::try_from(expected).ok().map(|expected| bytes.try_reserve_exact(expected));
    if !matches!(reserved, Some(Ok(()))) {
        let source = io::Error::from(io::ErrorKind::OutOfMemory);
        return Err(Error::Io { action: "reading", path: path.to_owned(), source });
    }
    stream.take(at_most.saturating_add(1)).read_to_end(&mut bytes).map_err(Error::io("reading", path))?;
    if bytes.len() as u64 > at_most {
        return Err(Error::TooLarge { path: path.to_owned(), bytes: None, at_most });
    }
    Ok(bytes)
}

fn text(bytes: Vec<u8>, path: &Path) -> Result<String> {
    const MARK: &[u8] = &[0xef, 0xbb, 0xbf];
    let mut text = String::from_utf8(bytes)
        .map_err(|error| Error::NotText { path: path.to_owned(), at: error.utf8_error().valid_up_to() })?;
    if text.as_bytes().starts_with(MARK) {
        text.drain(..MARK.len());
    }
    Ok(text)
}
