//! The public encryption key.

use cipherlm_ring::{Eval, Poly};

use super::{KeyId, SecretKey, errors, small_to_eval, uniform};
use crate::{Error, Params};

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
    pub(super) fn generate(secret: &SecretKey) -> Result<Self, Error> {
        let params = secret.params();
        secret.check_modulus("public key", params.log_q(params.max_level()))?;
        let limbs = params.limbs(params.max_level());
        let seed = secret.root().derive_public("public key a", &[]);
        let a = uniform(params, limbs, &seed)?;
        let mut b = small_to_eval(params, limbs, &errors(params, &secret.root().derive("public key error", &[])))?;
        let mut product = a.clone();
        product.mul_assign(&*secret.eval(limbs)?)?;
        b.sub_assign(&product)?;
        Ok(Self { params: params.clone(), id: secret.id(), seed, b, a })
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
