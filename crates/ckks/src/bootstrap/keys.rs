//! The keys of bootstrapping: the evaluation keys of its circuit and the two that wrap the raise.

use std::sync::Arc;

use super::Bootstrapper;
use crate::params::KeyShape;
use crate::{Error, EvaluationKeys, KeyPurpose, KeyRequest, KeySet, SecretKey, SwitchingKey};

/// Everything an evaluator needs to bootstrap, and any other keys of the same secret.
///
/// The sparse ephemeral secret exists only inside [`BootstrapKeys::generate`]. One key is encrypted under it, at the bottom modulus with one special prime,
/// and key generation refuses it at any modulus that is not 128-bit secure for its weight.
pub struct BootstrapKeys {
    set: KeySet,
    to_sparse: Arc<SwitchingKey>,
    from_sparse: Arc<SwitchingKey>,
}

impl BootstrapKeys {
    /// Generates the keys of one or several bootstrappers over the same parameters and ephemeral weight, and those of `others`.
    ///
    /// # Errors
    /// [`Error::OperandCount`] for an empty list, [`Error::ParamsMismatch`], [`Error::Insecure`] if the bottom modulus is too large for the ephemeral secret,
    /// and as [`SecretKey::key_set`].
    pub fn generate(secret: &SecretKey, bootstrappers: &[&Bootstrapper], others: &KeyRequest) -> Result<Self, Error> {
        let Some(first) = bootstrappers.first() else {
            return Err(Error::OperandCount { operation: "bootstrapping keys", left: 0, right: 1 });
        };
        let ephemeral = SecretKey::generate_sparse(secret.params(), first.profile().ephemeral_weight)?;
        Self::with_ephemeral(secret, &ephemeral, bootstrappers, others)
    }

    pub(super) fn with_ephemeral(
        secret: &SecretKey,
        ephemeral: &SecretKey,
        bootstrappers: &[&Bootstrapper],
        others: &KeyRequest,
    ) -> Result<Self, Error> {
        let params = secret.params();
        let mut request = others.clone();
        let mut raised = 0;
        for bootstrapper in bootstrappers {
            params.check_same("bootstrapping keys", bootstrapper.params())?;
            request.merge(&bootstrapper.key_request());
            raised = raised.max(bootstrapper.raised_level());
        }
        // Cheap and able to fail: first.
        let to_sparse = Arc::new(ephemeral.switching_key_from(secret, KeyShape { level: 0, special: 1 })?);
        let from_sparse = Arc::new(secret.switching_key_from(ephemeral, KeyShape::cheapest(params, raised)?)?);
        Ok(Self { set: secret.key_set(&request)?, to_sparse, from_sparse })
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

impl EvaluationKeys for BootstrapKeys {
    fn key(&self, purpose: KeyPurpose, level: usize) -> Result<Arc<SwitchingKey>, Error> {
        for key in [&self.to_sparse, &self.from_sparse] {
            if key.purpose() == purpose && key.shape().level >= level {
                return Ok(key.clone());
            }
        }
        self.set.key(purpose, level)
    }
}
