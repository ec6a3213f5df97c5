//! Decoding token by token.

use super::{Rule, Tokenizer};
use crate::error::{Error, Result};

/// Tokens kept so that a decoder which looks at neighbours (spaces, word pieces) sees some.
const OVERLAP: usize = 8;

/// Text of tokens that arrive one by one. A character that is split over tokens comes with its last
/// one.
pub struct TextStream<'t> {
    tokenizer: &'t Tokenizer,
    /// Last tokens, whose text is out up to `shown`.
    tokens: Vec<u32>,
    shown: usize,
    pending: Vec<u8>,
}

impl<'t> TextStream<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer, before: &[u32]) -> Result<Self> {
        let tokens = before[before.len().saturating_sub(OVERLAP)..].to_vec();
        let shown = tokenizer.decode(&tokens)?.len();
        Ok(Self { tokenizer, tokens, shown, pending: vec![] })
    }

    /// The text that this token completes, which may be none.
    ///
    /// # Errors
    /// [`Error::UnknownToken`].
    pub fn push(&mut self, token: u32) -> Result<String> {
        let vocab = self.tokenizer.vocab();
        let own = match &self.tokenizer.rule {
            Rule::Library(library) => library.bytes(token),
            Rule::Scored { rule, .. } => rule.tokens.get(token as usize).cloned(),
        };
        if token as usize >= vocab {
            return Err(Error::UnknownToken { token, position: self.tokens.len(), vocab });
        }
        match own {
            Some(bytes) => Ok(self.push_bytes(&bytes)),
            None => self.push_decoded(token),
        }
    }

    /// What is left of a character that never got its last token.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }

    fn push_bytes(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let complete = match std::str::from_utf8(&self.pending) {
            Ok(_) => self.pending.len(),
            // An end in the middle of a character waits; bytes that never become one do not.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => self.pending.len(),
        };
        let rest = self.pending.split_off(complete);
        let out = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending = rest;
        out
    }

    fn push_decoded(&mut self, token: u32) -> Result<String> {
        if self.tokens.len() >= 2 * OVERLAP && self.shown == self.tokenizer.decode(&self.tokens)?.len() {
            self.tokens.drain(..OVERLAP);
            self.shown = self.tokenizer.decode(&self.tokens)?.len();
        }
        self.tokens.push(token);
        let text = self.tokenizer.decode(&self.tokens)?;
        if text.ends_with('\u{fffd}') {
            return Ok(String::new());
        }
        let new = text.get(self.shown..).unwrap_or_default().to_owned();
        self.shown = text.len();
        Ok(new)
    }
}
