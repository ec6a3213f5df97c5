//! Tokenizers of the Hugging Face format, run by the `tokenizers` crate.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::Value;
use tokenizers::models::ModelWrapper;
use tokenizers::tokenizer::Model as _;
use tokenizers::{DecoderWrapper, Tokenizer as Inner};

use super::added::added_tokens;
use super::bytes::from_printable;
use crate::error::{Error, Result};

/// Largest vocabulary accepted.
const MAX_TOKENS: usize = 1 << 22;

#[derive(Clone)]
pub(super) struct Library {
    inner: Inner,
    /// Tokens are written in GPT-2's table, so each has bytes of its own.
    byte_level: bool,
    size: usize,
}

impl Library {
    /// Reads a `tokenizer.json`. Its truncation and padding are dropped: lengths are the caller's
    /// business.
    pub(super) fn from_value(root: Value) -> Result<Self> {
        let what = "tokenizer.json";
        let added = added_tokens(&root)?;
        let text = root.to_string();
        drop(root);
        // The crate answers some malformed files with a panic instead of an error.
        let parsed = catch_unwind(AssertUnwindSafe(|| Inner::from_bytes(text.as_bytes())));
        let mut inner = match parsed {
            Ok(Ok(inner)) => inner,
            Ok(Err(error)) => return Err(Error::malformed(what, error)),
            Err(_) => return Err(Error::malformed(what, "the tokenizer library failed on it")),
        };
        inner.with_truncation(None).map_err(|e| Error::malformed(what, e))?;
        inner.with_padding(None);
        for (id, content) in &added {
            // The crate numbers added tokens by itself and only warns.
            let given = inner.token_to_id(content);
            if given != Some(*id) {
                let reason = format!(
                    "added token {content:?} has id {id}, but the vocabulary before it gives {given:?}"
                );
                return Err(Error::malformed(what, reason));
            }
        }
        check_vocabulary(inner.get_model()).map_err(|reason| Error::malformed(what, reason))?;
        let size = inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        if size == 0 || size > MAX_TOKENS {
            return Err(Error::malformed(what, format!("{size} tokens, expected 1 to {MAX_TOKENS}")));
        }
        let byte_level = matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        Ok(Self { inner, byte_level, size })
    }

    pub(super) fn to_value(&self) -> Result<Value> {
        let refuse = |e: &dyn std::fmt::Display| Error::malformed("tokenizer", e);
        let text = self.inner.to_string(false).map_err(|e| refuse(&e))?;
        serde_json::from_str(&text).map_err(|e| refuse(&e))
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text)
    }

    /// Ids of the special added tokens with their text.
    pub(super) fn special(&self) -> impl Iterator<Item = (u32, String)> {
        let added = self.inner.get_added_tokens_decoder();
        added.into_iter().filter(|(_, token)| token.special).map(|(id, token)| (id, token.content))
    }

    pub(super) fn encode(&self, text: &str, marks: bool) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, marks).map_err(|e| Error::malformed("text", e))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Bytes of a token where the format gives each token its own.
    pub(super) fn bytes(&self, token: u32) -> Option<Vec<u8>> {
        if !self.byte_level {
            return None;
        }
        let text = self.inner.id_to_token(token)?;
        // Added tokens are plain text.
        let added = self.inner.get_added_vocabulary().simple_id_to_token(token).is_some();
        if added { Some(text.into_bytes()) } else { from_printable(&text).ok() }
    }

    pub(super) fn decode(&self, tokens: &[u32]) -> Result<String> {
        self.inner.decode(tokens, false).map_err(|e| Error::malformed("token sequence", e))
    }
}

/// Faults that would show on some texts only: an id that two tokens share, and no token for unknown
/// characters.
fn check_vocabulary(model: &ModelWrapper) -> std::result::Result<(), String> {
    let vocab = model.get_vocab();
    let mut ids = std::collections::HashSet::new();
    if let Some((text, id)) = vocab.iter().find(|(_, id)| !ids.insert(**id)) {
        return Err(format!("the id {id} of {text:?} stands twice"));
    }
    let unknown = match model {
        ModelWrapper::BPE(m) => m.get_unk_token().clone(),
        ModelWrapper::WordPiece(m) => Some(m.unk_token.clone()),
        ModelWrapper::WordLevel(m) => Some(m.unk_token.clone()),
        ModelWrapper::Unigram(_) => None,
    };
    match unknown {
        Some(token) if !vocab.contains_key(&token) => Err(format!("the unknown token {token:?} has no id")),
        _ => Ok(()),
    }
}
