//! Prompts and logits as bytes: the plan they belong to, the number of tokens, then the ciphertexts
//! in the wire format of the library below.

use cipherlm_ckks::wire::Wire;
use cipherlm_ckks::{Ciphertext, Params};

use crate::client::{EncryptedLogits, EncryptedPrompt};
use crate::error::{InferError, Result};
use crate::fingerprint;

const PROMPT: &[u8; 8] = b"cipherpr";
const LOGITS: &[u8; 8] = b"cipherlo";

impl EncryptedPrompt {
    /// Magic, plan, number of tokens, ciphertexts.
    pub fn to_bytes(&self) -> Vec<u8> {
        write(PROMPT, &self.plan, self.length, &self.ciphertexts)
    }

    /// Reads what [`EncryptedPrompt::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`InferError::Malformed`] for anything else, [`InferError::Wire`] for ciphertexts that are
    /// damaged or of other parameters.
    pub fn from_bytes(params: &Params, bytes: &[u8]) -> Result<Self> {
        let (plan, length, ciphertexts) = read(PROMPT, "encrypted prompt", params, bytes)?;
        Ok(Self { plan, length, ciphertexts })
    }
}

impl EncryptedLogits {
    /// Magic, plan, number of tokens, ciphertexts.
    pub fn to_bytes(&self) -> Vec<u8> {
        write(LOGITS, &self.plan, self.length, &self.ciphertexts)
    }

    /// Reads what [`EncryptedLogits::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`InferError::Malformed`] for anything else, [`InferError::Wire`] for ciphertexts that are
    /// damaged or of other parameters.
    pub fn from_bytes(params: &Params, bytes: &[u8]) -> Result<Self> {
        let (plan, length, ciphertexts) = read(LOGITS, "encrypted logits", params, bytes)?;
        Ok(Self { plan, length, ciphertexts })
    }
}

/// Bytes before the ciphertexts.
pub(crate) const HEAD: u64 = 8 + fingerprint::LENGTH as u64 + 4;

fn write(magic: &[u8; 8], plan: &str, length: usize, ciphertexts: &[Ciphertext]) -> Vec<u8> {
    let mut out = magic.to_vec();
    out.extend(plan.bytes().chain(std::iter::repeat(b' ')).take(fingerprint::LENGTH));
    out.extend(u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    ciphertexts.iter().for_each(|ciphertext| out.extend(ciphertext.to_bytes()));
    out
}

/// Plan, number of tokens, ciphertexts.
type Content = (String, usize, Vec<Ciphertext>);

fn read(magic: &[u8; 8], what: &'static str, params: &Params, bytes: &[u8]) -> Result<Content> {
    let malformed = |reason: String| InferError::Malformed { what: what.to_owned(), reason };
    let body =
        bytes.strip_prefix(magic.as_slice()).ok_or_else(|| malformed("it starts with other bytes".into()))?;
    let early = || malformed("it ends too early".into());
    let (plan, rest) = body.split_at_checked(fingerprint::LENGTH).ok_or_else(early)?;
    let (&length, mut rest) = rest.split_first_chunk::<4>().ok_or_else(early)?;
    let plan = String::from_utf8(plan.to_vec()).map_err(|_| malformed("its plan is not text".into()))?;
    let mut ciphertexts = vec![];
    while !rest.is_empty() {
        let (ciphertext, tail) =
            Ciphertext::from_prefix(params, rest).map_err(|source| InferError::Wire { what, source })?;
        ciphertexts.push(ciphertext);
        rest = tail;
    }
    Ok((plan, u32::from_le_bytes(length) as usize, ciphertexts))
}
