//! What the door asks: the next token's logits, by way of an encrypted run.

use std::sync::Arc;

use cipherlm_infer::{Client, ClientSide, EncryptedLogits};
use cipherlm_model::Tokenizer;

use crate::ask::ask;
use crate::error::{Error, Result};
use crate::remote::Remote;

/// Bits of a logit's range that leave this process.
const SHOWN_BITS: f64 = 8.0;
/// What bounds the error of a slot.
const SLOT_ERROR: f64 = 1.0 / 4096.0;

/// A model on a server, and the secret that reads its answers.
pub struct Oracle {
    side: Arc<ClientSide>,
    client: Arc<Client>,
    tokenizer: Tokenizer,
    remote: Remote,
    key: String,
}

impl Oracle {
    /// The model of `side` on `remote`. `key` is the id of the client's secret.
    pub fn new(side: ClientSide, client: Client, tokenizer: Tokenizer, remote: Remote) -> Self {
        let key = client.key_id().as_bytes().iter().map(|b| format!("{b:02x}")).collect();
        Self { side: Arc::new(side), client: Arc::new(client), tokenizer, remote, key }
    }

    /// The model's name.
    pub(super) fn model(&self) -> &str {
        &self.side.plan().model.name
    }

    pub(super) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The tokens of a text behind the model's public ones.
    pub(super) fn behind_prefix<'t>(&self, tokens: &'t [u32]) -> &'t [u32] {
        tokens.strip_prefix(self.side.plan().model.prefix.as_slice()).unwrap_or(tokens)
    }

    /// Longest prompt.
    pub(super) fn capacity(&self) -> usize {
        self.side.plan().layout.tokens
    }

    /// The logits after a prompt, with eight bits each.
    pub(super) async fn logits(&self, tokens: &[u32]) -> Result<Vec<f64>> {
        let (side, client, own) = (Arc::clone(&self.side), Arc::clone(&self.client), tokens.to_vec());
        let prompt = blocking(move || Ok(side.encrypt(&client, &own)?.to_bytes())).await?;
        let answer = ask(&self.remote, &self.key, &self.side.plan().plan, &prompt, |_| ()).await?;
        let (side, client) = (Arc::clone(&self.side), Arc::clone(&self.client));
        let position = side.answer_position(tokens.len());
        let mut logits = blocking(move || {
            let answer = EncryptedLogits::from_bytes(side.params(), side.small_rings(), &answer)?;
            Ok(side.decrypt_public(&client, &answer, position, SHOWN_BITS, SLOT_ERROR)?)
        })
        .await?;
        logits.truncate(self.tokenizer.vocab());
        Ok(logits)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(Error::Client(format!("a computation failed: {e}"))))
}
