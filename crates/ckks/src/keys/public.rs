//! The public encryption key.

use cipherlm_ring::{Eval, Poly, Seed, sample};

use crate::{Error, KeyId, Params};

/// An encryption of zero at the highest level, from which anybody can encrypt.
#[derive(Clone)]
pub struct PublicKey {
    pub(crate) params: Params,
    pub(crate) id: KeyId,
    /// Seed of `a`.
    pub(crate) seed: [u8; 32],
    /// `b = -a s + e`.
    pub(crate) b: Poly<Eval>,
    pub(crate) a: Poly<Eval>,
}

impl PublicKey {
    /// `a`, from its seed.
    pub(crate) fn public_half(params: &Params, seed: &[u8; 32]) -> Result<Poly<Eval>, Error> {
        let limbs = params.limbs(params.max_level());
        Ok(sample::uniform(params.ring(), limbs, &Seed::from_bytes(*seed), "public key", 0)?)
    }

    /// The parameter set.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The secret it belongs to.
    pub fn key_id(&self) -> KeyId {
        self.id
    }
}
