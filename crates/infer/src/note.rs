//! What a client keeps of a prompt.

use std::path::{Path, PathBuf};

use cipherlm_files::{read_text, shown};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Largest note that is read, in bytes.
const BYTES: u64 = 16 << 20;

/// Where the answer to a prompt stands, and the prompt's tokens, to compare it with.
#[derive(Serialize, Deserialize)]
pub struct Note {
    /// Format and version: [`Note::FORMAT`].
    pub format: String,
    /// The plan of the prompt.
    pub plan: String,
    /// The secret that it is encrypted under.
    pub key_id: String,
    /// Its tokens; of several prompts those of the first.
    pub tokens: Vec<u32>,
    /// Those of the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Vec<u32>>,
}

impl Note {
    /// Format of a note.
    pub const FORMAT: &str = "cipherlm client note 1";

    /// Reads the note beside an encrypted prompt.
    ///
    /// # Errors
    /// [`Error::Files`], [`Error::NotANote`].
    pub fn load(file: &Path) -> Result<Self> {
        let text = read_text(file, BYTES)?;
        let refuse = |reason: String| Error::NotANote { file: shown(file), reason };
        let note: Self = serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
        if note.format != Self::FORMAT || note.prompts().any(<[u32]>::is_empty) {
            return Err(refuse(format!("this version's format is {}", Self::FORMAT)));
        }
        Ok(note)
    }

    /// The tokens of every prompt.
    pub fn prompts(&self) -> impl Iterator<Item = &[u32]> {
        std::iter::once(&self.tokens).chain(&self.others).map(Vec::as_slice)
    }

    /// Where the note of a prompt lies.
    pub fn beside(prompt: &Path) -> PathBuf {
        let mut name = prompt.as_os_str().to_owned();
        name.push(".note");
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_stands_beside_its_prompt() {
        assert_eq!(Note::beside(Path::new("a/prompt.bin")), Path::new("a/prompt.bin.note"));
    }
}
