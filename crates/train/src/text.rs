//! Text files of a run, and the tokens they become.

use std::path::{Path, PathBuf};

use cipherlm_model::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::passages::passages;
use crate::sentences::{sentences, spread};
use crate::stories::stories;

/// Largest text that is read, in bytes.
const LARGEST: u64 = 1 << 34;
/// The mark between documents.
const MARK: &str = "<|endoftext|>";

/// Text of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Data {
    /// Text files; names ending in `.xz` are read through the `xz` program.
    Files {
        /// Training text.
        train: PathBuf,
        /// Held-out text.
        held_out: PathBuf,
    },
    /// Sentences and short paragraphs of text files, for encoders.
    Sentences {
        /// Training text.
        train: Vec<PathBuf>,
        /// Held-out text.
        held_out: Vec<PathBuf>,
        /// Most sentences of one file, spread evenly over it.
        each: usize,
        /// Least and most words of a sentence.
        words: (usize, usize),
    },
    /// Passages of text files, for decoders of open text. Words that a corpus has cut apart are
    /// joined again.
    Passages {
        /// Training text.
        train: Vec<PathBuf>,
        /// Held-out text.
        held_out: Vec<PathBuf>,
        /// About so many characters of every file, spread evenly over it.
        each: usize,
    },
    /// The built-in generator.
    Generated {
        /// Seed of the training text; the held-out text uses the next one.
        seed: u64,
        /// Training stories; a tenth as many are held out.
        stories: usize,
    },
}

impl Data {
    /// Training and held-out text.
    pub fn read(&self) -> Result<(String, String)> {
        Ok(match self {
            Self::Files { train, held_out } => (read_text(train)?, read_text(held_out)?),
            Self::Sentences { train, held_out, each, words: (least, most) } => {
                let one = |path: &PathBuf| {
                    Ok(spread(&sentences(&read_text(path)?, *least, *most), *each).join("\n"))
                };
                let all = |paths: &[PathBuf]| -> Result<String> {
                    Ok(paths.iter().map(one).collect::<Result<Vec<_>>>()?.join("\n"))
                };
                (all(train)?, all(held_out)?)
            }
            Self::Passages { train, held_out, each } => {
                let all = |paths: &[PathBuf]| -> Result<String> {
                    let one = |path: &PathBuf| Ok(passages(&read_text(path)?, *each));
                    Ok(paths.iter().map(one).collect::<Result<Vec<_>>>()?.concat())
                };
                (all(train)?, all(held_out)?)
            }
            Self::Generated { seed, stories: count } => {
                (stories(*seed, *count), stories(seed + 1, count / 10 + 1))
            }
        })
    }
}

/// Reads a text file; `.xz` through the `xz` program. A leading byte-order mark is not part of the
/// text, and lines end in one character whatever system wrote the file.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = if path.extension().is_none_or(|e| e != "xz") {
        cipherlm_files::read(path, LARGEST)?
    } else {
        cipherlm_files::head(path, 1)?;
        let run = std::process::Command::new("xz").arg("-dc").arg(path).output();
        let output = run.map_err(|source| Error::Program { program: "xz", source })?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::Corrupt { path: path.into(), reason, hint: "fetch the file again" });
        }
        output.stdout
    };
    let text = decode(path, bytes)?;
    if text.trim().is_empty() {
        let reason = "the file is empty".into();
        return Err(Error::Corrupt { path: path.into(), reason, hint: "give a file with text" });
    }
    Ok(if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text })
}

/// UTF-8 without its byte-order mark.
pub(crate) fn decode(path: &Path, bytes: Vec<u8>) -> Result<String> {
    let refuse = |reason: String| Error::Corrupt { path: path.into(), reason, hint: "save it as UTF-8" };
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(refuse("it begins with the byte-order mark of UTF-16".into()));
    }
    let text =
        String::from_utf8(bytes).map_err(|e| refuse(format!("it is not UTF-8: {}", e.utf8_error())))?;
    Ok(text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned))
}

/// Tokens and words of a text: for an encoder every line by itself, else encoded document by
/// document, so that a tokenizer that opens every
/// text with a mark does so for each of them.
pub(crate) fn corpus(tokenizer: &Tokenizer, text: &str, causal: bool) -> Result<Corpus> {
    if !causal {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && *line != MARK);
        let sentences = lines.map(|line| Ok(tokenizer.encode(line)?)).collect::<Result<Vec<_>>>()?;
        return Ok(Corpus::of_sentences(&sentences));
    }
    let tokens = match tokenizer.end_of_text() {
        Some(_) => tokenizer.encode(text)?,
        None => {
            let documents = text.split(MARK).map(str::trim).filter(|t| !t.is_empty());
            documents.map(|t| Ok(tokenizer.encode(t)?)).collect::<Result<Vec<_>>>()?.concat()
        }
    };
    Ok(Corpus::new(tokens, text.replace(MARK, " ").split_whitespace().count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_other_systems_read_as_the_same_text() {
        let path = std::env::temp_dir().join(format!("cipherlm-text-{}.txt", std::process::id()));
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read_text(&path)
        };
        let plain = read(b"one\ntwo\n").unwrap();
        assert_eq!(plain, "one\ntwo\n");
        assert_eq!(read(b"\xef\xbb\xbfone\r\ntwo\r\n").unwrap(), plain);
        assert_eq!(read(b"one\rtwo\r").unwrap(), plain);
        for (bytes, reason) in [
            (&b""[..], "empty"),
            (b"\xef\xbb\xbf", "empty"),
            (b" \r\n", "empty"),
            (b"\xff\xfeo\0", "UTF-16"),
            (b"\x80", "UTF-8"),
        ] {
            let error = read(bytes).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("cipherlm-text"), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}
