//! The client's folder of a plan: what it needs beside its secret, and no weights.

use anyhow::Context;
use cipherlm_files::{Access, Existing, create_folder, read, read_text, shown, write};
use cipherlm_model::{TOKENIZER_FILE, Tokenizer};
use cipherlm_protocol::{ClientPlan, Digest, JSON_BYTES};
use std::path::Path;

/// The plan.
pub(crate) const PLAN_FILE: &str = "client-plan.json";
/// The embedding.
pub(crate) const EMBEDDING_FILE: &str = "embedding.safetensors";

/// A client plan with the files that it names.
pub(crate) struct ClientFolder {
    pub(crate) plan: ClientPlan,
    pub(crate) tokenizer: Vec<u8>,
    pub(crate) embedding: Vec<u8>,
}

impl ClientFolder {
    /// Writes the three files; the plan last, so that a folder with a plan is whole.
    pub(crate) fn save(&self, folder: &Path) -> anyhow::Result<()> {
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
    pub(crate) fn load(folder: &Path) -> anyhow::Result<Self> {
        let missing =
            || format!("--plan: {} is no folder of `cipherlm plan --client`: make one first", shown(folder));
        let text = read_text(&folder.join(PLAN_FILE), JSON_BYTES as u64).with_context(missing)?;
        let plan = ClientPlan::from_json(&text).with_context(|| format!("--plan: {}", shown(folder)))?;
        let tokenizer = read(&folder.join(TOKENIZER_FILE), plan.tokenizer.bytes).with_context(missing)?;
        let embedding = read(&folder.join(EMBEDDING_FILE), plan.embedding.bytes).with_context(missing)?;
        let found = Self { plan, tokenizer, embedding };
        found.check().with_context(|| format!("--plan: {}", shown(folder)))?;
        Ok(found)
    }

    /// The files are those of the plan.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        for (what, bytes, blob) in [
            ("tokenizer", &self.tokenizer, self.plan.tokenizer),
            ("embedding", &self.embedding, self.plan.embedding),
        ] {
            let found = Digest::of(bytes);
            anyhow::ensure!(
                found == blob.blake3,
                "the {what} has hash {found}, the plan says {}: make the folder \
                 again with `cipherlm plan --client`",
                blob.blake3
            );
        }
        Ok(())
    }

    /// The tokenizer.
    pub(crate) fn tokenizer(&self) -> anyhow::Result<Tokenizer> {
        let text = std::str::from_utf8(&self.tokenizer).context("the tokenizer is not text")?;
        let tokenizer = Tokenizer::from_json(text)?;
        let vocab = self.plan.model.embedding.vocab;
        anyhow::ensure!(
            tokenizer.vocab() <= vocab,
            "the tokenizer knows {} tokens and the embedding {vocab}: make the folder \
             again with `cipherlm plan --client`",
            tokenizer.vocab()
        );
        Ok(tokenizer)
    }
}
