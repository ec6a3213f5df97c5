//! The public encryption key.

use cipherlm_ring::{Eval, Poly, Secret, Seed, Stream, sample};

use super::root::KeySeeds;
use super::{KeyId, SecretKey};
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
        let KeySeeds { public: seed, errors } =
            secret.seeds(&format!("public key, level {}", params.max_level()));
        let a = Self::public_half(params, &seed)?;
        let error = sample::gaussian(&mut Stream::new(&errors, "error", 0), params.degree());
        let mut b = error.to_poly(params.ring(), limbs)?.into_eval();
        let product = Secret::new(Poly::mul(&a, secret.eval_all())?);
        b.expose_mut().sub_assign(product.expose())?;
        let b = b.publish();
        Ok(Self { params: params.clone(), id: secret.id(), seed, b, a })
    }

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
