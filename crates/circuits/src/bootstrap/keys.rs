//! The keys of bootstrapping: the evaluation keys of its circuit and the two that wrap the raise.

use std::sync::Arc;

use super::Bootstrapper;
use cipherlm_ckks::params::KeyShape;
use cipherlm_ckks::{
    Error, EvaluationKeys, KeyForm, KeyPurpose, KeyRequest, KeySet, SecretKey, SwitchingKey, hazmat,
};

/// Everything an evaluator needs to bootstrap, and any other keys of the same secret.
///
/// The sparse ephemeral secret exists only inside [`BootstrapKeys::generate`]. One key is encrypted
/// under it, at the bottom modulus with one special prime, and key generation refuses it at any
/// modulus that is not 128-bit secure for its weight.
pub struct BootstrapKeys {
    set: KeySet,
    to_sparse: Arc<SwitchingKey>,
    from_sparse: Arc<SwitchingKey>,
    /// Between secrets, beside those two.
    between: Vec<Arc<SwitchingKey>>,
}

impl BootstrapKeys {
    /// Generates the keys of one or several bootstrappers over the same parameters and ephemeral
    /// weight, and those of `others`.
    ///
    /// # Errors
    /// [`Error::OperandCount`] for an empty list, [`Error::ParamsMismatch`],
    /// [`Error::InvalidParams`] for different ephemeral weights, [`Error::Insecure`] if the bottom
    /// modulus is too large for the ephemeral secret, and as [`SecretKey::key_set`].
    pub fn generate(
        secret: &SecretKey,
        bootstrappers: &[&Bootstrapper],
        others: &KeyRequest,
    ) -> Result<Self, Error> {
        Self::generate_in(secret, bootstrappers, others, KeyForm::fastest(secret.params()))
    }

    /// As [`BootstrapKeys::generate`], with all but the two wrapping keys held in memory in the
    /// given form.
    ///
    /// # Errors
    /// As [`BootstrapKeys::generate`].
    pub fn generate_in(
        secret: &SecretKey,
        bootstrappers: &[&Bootstrapper],
        others: &KeyRequest,
        form: KeyForm,
    ) -> Result<Self, Error> {
        Self::with_ephemeral(secret, &ephemeral(secret, bootstrappers)?, bootstrappers, others, form)
    }

    pub(super) fn with_ephemeral(
        secret: &SecretKey,
        ephemeral: &SecretKey,
        bootstrappers: &[&Bootstrapper],
        others: &KeyRequest,
        form: KeyForm,
    ) -> Result<Self, Error> {
        // Cheap and able to fail: first.
        let [to_sparse, from_sparse] = wrapping(secret, ephemeral, bootstrappers)?.map(Arc::new);
        let mut request = others.clone();
        bootstrappers.iter().for_each(|bootstrapper| {
            request.merge(&bootstrapper.key_request());
        });
        Ok(Self { set: secret.key_set_in(&request, form)?, to_sparse, from_sparse, between: vec![] })
    }

    /// Only the two keys that wrap the raise, to a fresh ephemeral secret and back: for those who
    /// make and store the others one by one.
    ///
    /// # Errors
    /// As [`BootstrapKeys::generate`].
    pub fn wrapping(secret: &SecretKey, bootstrappers: &[&Bootstrapper]) -> Result<[SwitchingKey; 2], Error> {
        wrapping(secret, &ephemeral(secret, bootstrappers)?, bootstrappers)
    }

    /// The same with a key between this secret and another.
    #[must_use]
    pub fn with_key(mut self, key: SwitchingKey) -> Self {
        self.between.push(Arc::new(key));
        self
    }

    /// The key from the main secret to the ephemeral one.
    pub fn to_sparse(&self) -> &SwitchingKey {
        &self.to_sparse
    }

    /// The key back from the ephemeral secret.
    pub fn from_sparse(&self) -> &SwitchingKey {
        &self.from_sparse
    }

    /// All other keys.
    pub fn evaluation_keys(&self) -> &KeySet {
        &self.set
    }
}

fn ephemeral(secret: &SecretKey, bootstrappers: &[&Bootstrapper]) -> Result<SecretKey, Error> {
    let Some(first) = bootstrappers.first() else {
        return Err(Error::OperandCount { operation: "bootstrapping keys", left: 0, right: 1 });
    };
    let weight = first.profile().ephemeral_weight;
    if let Some(other) =
        bootstrappers.iter().map(|b| b.profile().ephemeral_weight).find(|&other| other != weight)
    {
        let allowed = "that of the first bootstrapper: those of one key set share an ephemeral secret";
        return Err(Error::InvalidParams { field: "ephemeral weight", value: other as f64, allowed });
    }
    SecretKey::generate_sparse(secret.params(), weight)
}

fn wrapping(
    secret: &SecretKey,
    ephemeral: &SecretKey,
    bootstrappers: &[&Bootstrapper],
) -> Result<[SwitchingKey; 2], Error> {
    let params = secret.params();
    bootstrappers.iter().try_for_each(|b| hazmat::check_same(params, "bootstrapping keys", b.params()))?;
    let raised = bootstrappers.iter().map(|b| b.raised_level()).max().unwrap_or(0);
    let to_sparse = ephemeral.switching_key_from(secret, KeyShape { level: 0, special: 1 })?;
    Ok([to_sparse, secret.switching_key_from(ephemeral, KeyShape::cheapest(params, raised)?)?])
}

impl EvaluationKeys for BootstrapKeys {
    fn key(&self, purpose: KeyPurpose, level: usize) -> Result<Arc<SwitchingKey>, Error> {
        for key in [&self.to_sparse, &self.from_sparse].into_iter().chain(&self.between) {
            if key.purpose() == purpose && key.shape().level >= level {
                return Ok(key.clone());
            }
        }
        self.set.key(purpose, level)
    }
}
