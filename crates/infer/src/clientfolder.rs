//! The client's folder of a plan: what it needs beside its secret, and no weights.

use std::path::Path;

use cipherlm_files::{Access, Existing, create_folder, read, read_text, shown, write};
use cipherlm_model::{TOKENIZER_FILE, Tokenizer};
use cipherlm_protocol::{ClientPlan, Digest, JSON_BYTES};

use crate::error::{Error, Result};

/// The plan.
const PLAN_FILE: &str = "client-plan.json";
/// The embedding.
const EMBEDDING_FILE: &str = "embedding.safetensors";

/// A client plan with the files that it names.
#[derive(Clone)]
pub struct ClientFolder {
    /// The plan.
    pub plan: ClientPlan,
    /// The tokenizer's file.
    pub tokenizer: Vec<u8>,
    /// The embedding's file.
    pub embedding: Vec<u8>,
}

impl ClientFolder {
    /// Writes the three files; the plan last, so that a folder with a plan is whole.
    ///
    /// # Errors
    /// [`Error::ClientPlan`] for a plan that is too long, [`Error::Files`].
    pub fn save(&self, folder: &Path) -> Result<()> {
        let plan = self.plan.to_json()?;
        create_folder(folder)?;
        let parts = [
            (TOKENIZER_FILE, self.tokenizer.as_slice()),
            (EMBEDDING_FILE, &self.embedding),
            (PLAN_FILE, plan.as_bytes()),
        ];
        for (name, bytes) in parts {
            write(&folder.join(name), bytes, Existing::Replace, Access::Everyone)?;
        }
        Ok(())
    }

    /// Reads the three files and compares them with the plan.
    ///
    /// # Errors
    /// [`Error::NoClientFolder`], [`Error::ClientPlan`], [`Error::NotOfThePlan`].
    pub fn load(folder: &Path) -> Result<Self> {
        let missing = |error| Error::NoClientFolder { folder: shown(folder), source: Box::new(error) };
        let text = read_text(&folder.join(PLAN_FILE), JSON_BYTES as u64).map_err(missing)?;
        let plan = ClientPlan::from_json(&text)?;
        let tokenizer = read(&folder.join(TOKENIZER_FILE), plan.tokenizer.bytes).map_err(missing)?;
        let embedding = read(&folder.join(EMBEDDING_FILE), plan.embedding.bytes).map_err(missing)?;
        let found = Self { plan, tokenizer, embedding };
        found.check()?;
        Ok(found)
    }

    /// The files are those of the plan.
    fn check(&self) -> Result<()> {
        for (what, bytes, blob) in [
            ("tokenizer", &self.tokenizer, self.plan.tokenizer),
            ("embedding", &self.embedding, self.plan.embedding),
        ] {
            let found = Digest::of(bytes);
            if found != blob.blake3 {
                let show = |hash: Digest| format!("hash {hash}");
                let (expected, found) = (show(blob.blake3), show(found));
                return Err(Error::NotOfThePlan { what, expected, found });
            }
        }
        Ok(())
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// [`Error::Spec`] for a file that is none, [`Error::NotOfThePlan`] for one with more tokens
    /// than the embedding.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let text = std::str::from_utf8(&self.tokenizer).map_err(|e| Error::Malformed {
            what: "the tokenizer".into(),
            reason: format!("it is not text ({e})"),
        })?;
        let tokenizer = Tokenizer::from_json(text)?;
        let (found, vocab) = (tokenizer.vocab(), self.plan.model.embedding.vocab);
        if found > vocab {
            let show = |tokens: usize| format!("{tokens} tokens");
            let (expected, found) = (format!("an embedding of {}", show(vocab)), show(found));
            return Err(Error::NotOfThePlan { what: "tokenizer", expected, found });
        }
        Ok(tokenizer)
    }
}
