//! What a session keeps between its tokens.

use cipherlm_circuits::slots::Machine;

use crate::fold::Folded;

/// A session within one step: read as it was before, written for after. A step that is done twice
/// so leaves what one does.
pub(crate) struct Turn<'a, M: Machine> {
    pub(crate) before: &'a Session<M>,
    pub(crate) after: &'a mut Session<M>,
}

/// Keys and values of the tokens so far, encrypted, and the position of the next token.
pub struct Session<M: Machine> {
    /// Position of the token to run next.
    pub(crate) position: usize,
    /// Tokens of the prompt to come; what follows them in its plan is padding and stays out of the
    /// cache.
    pub(crate) prompt: usize,
    /// Slots per token of the cache.
    pub(crate) features: usize,
    /// Keys after rotary, then values, by layer and block: token-major, one slot group per token.
    pub(crate) cache: Vec<Vec<Option<[M::Vector; 2]>>>,
}

impl<M: Machine> Clone for Session<M> {
    fn clone(&self) -> Self {
        Self { cache: self.cache.clone(), ..*self }
    }
}

impl<M: Machine> Session<M> {
    /// An empty session for a prompt of `prompt` tokens.
    pub(crate) fn empty(folded: &Folded, prompt: usize) -> Self {
        let g = folded.geometry;
        let cache = vec![vec![None; g.blocks]; folded.shape().layers];
        Self { position: 0, prompt, features: g.features, cache }
    }

    /// Number of tokens in the cache.
    pub fn position(&self) -> usize {
        self.position
    }
}
