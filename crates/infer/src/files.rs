//! Prompts and logits as bytes: the plan they belong to, then the ciphertexts in the wire format of
//! the library below.

use cipherlm_ckks::wire::Wire;
use cipherlm_ckks::{Ciphertext, Params};

use crate::client::{EncryptedLogits, EncryptedPrompt};
use crate::error::{InferError, Result};
use crate::plan::identity;

const PROMPT: &[u8; 8] = b"cipherpr";
const LOGITS: &[u8; 8] = b"cipherlo";

impl EncryptedPrompt {
    /// Magic, plan, ciphertexts.
    pub fn to_bytes(&self) -> Vec<u8> {
        write(PROMPT, &self.plan, &self.ciphertexts)
    }

    /// Reads what [`EncryptedPrompt::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`InferError::Malformed`] for anything else, ciphertexts of other parameters included.
    pub fn from_bytes(params: &Params, bytes: &[u8]) -> Result<Self> {
        let (plan, ciphertexts) = read(PROMPT, "encrypted prompt", params, bytes)?;
        Ok(Self { plan, ciphertexts })
    }
}

impl EncryptedLogits {
    /// Magic, plan, ciphertexts.
    pub fn to_bytes(&self) -> Vec<u8> {
        write(LOGITS, &self.plan, &self.ciphertexts)
    }

    /// Reads what [`EncryptedLogits::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`InferError::Malformed`] for anything else, ciphertexts of other parameters included.
    pub fn from_bytes(params: &Params, bytes: &[u8]) -> Result<Self> {
        let (plan, ciphertexts) = read(LOGITS, "encrypted logits", params, bytes)?;
        Ok(Self { plan, ciphertexts })
    }
}

fn write(magic: &[u8; 8], plan: &str, ciphertexts: &[Ciphertext]) -> Vec<u8> {
    let mut out = magic.to_vec();
    out.extend(plan.bytes().chain(std::iter::repeat(b' ')).take(identity::LENGTH));
    ciphertexts.iter().for_each(|ciphertext| out.extend(ciphertext.to_bytes()));
    out
}

fn read(magic: &[u8; 8], what: &str, params: &Params, bytes: &[u8]) -> Result<(String, Vec<Ciphertext>)> {
    let malformed = |reason: String| InferError::Malformed { what: what.to_owned(), reason };
    let body =
        bytes.strip_prefix(magic.as_slice()).ok_or_else(|| malformed("it starts with other bytes".into()))?;
    let (plan, mut rest) =
        body.split_at_checked(identity::LENGTH).ok_or_else(|| malformed("it ends too early".into()))?;
    let plan = String::from_utf8(plan.to_vec()).map_err(|_| malformed("its plan is not text".into()))?;
    let mut ciphertexts = vec![];
    while !rest.is_empty() {
        let (ciphertext, tail) =
            Ciphertext::from_prefix(params, rest).map_err(|e| malformed(e.to_string()))?;
        ciphertexts.push(ciphertext);
        rest = tail;
    }
    Ok((plan, ciphertexts))
}
