//! From a root seed to all the randomness of a secret key.

use cipherlm_ring::Seed;

use crate::Params;
use crate::ids::SecretDistribution;
use crate::secrecy::finish;

/// What a root seed becomes. A change of any label, sampler or order below it needs another number.
const EXPANSION: &str = "cipherlm-ckks 2 root seed";

/// Where a secret key takes its coefficients, its identity, and the masks and errors of its keys
/// from.
///
/// The stored seed is never used directly: it is bound to the parameter set (all primes, the
/// special ones too), to the distribution and to the version of the expansion. A seed under two
/// sets is therefore two unrelated secrets. Otherwise both would share masks and errors modulo
/// common primes, and differences of their keys would show the secret.
pub(super) struct Root {
    stored: Seed,
    bound: Seed,
}

/// The two seeds behind one key of a secret.
pub(super) struct KeySeeds {
    /// Expands to the uniform half; published with the key.
    pub(super) public: [u8; 32],
    /// Expands to the errors; stays secret.
    pub(super) errors: Seed,
}

impl Root {
    pub(super) fn new(stored: Seed, params: &Params, distribution: SecretDistribution) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(EXPANSION);
        hasher.update(stored.expose()).update(params.hash().as_bytes());
        let (kind, weight) = match distribution {
            SecretDistribution::Ternary => (0u8, 0),
            SecretDistribution::Sparse { weight } => (1, weight as u64),
            SecretDistribution::Subring { degree } => (2, degree as u64),
        };
        hasher.update(&[kind]).update(&weight.to_le_bytes());
        let bound = finish(hasher);
        Self { stored, bound }
    }

    /// The seed as it is stored.
    pub(super) fn stored(&self) -> &Seed {
        &self.stored
    }

    /// The seed of the secret's own coefficients.
    pub(super) fn coefficients(&self) -> Seed {
        self.bound.derive("secret coefficients", 0)
    }

    /// The public identity.
    pub(super) fn id(&self) -> [u8; 32] {
        *self.bound.derive("key id", 0).expose()
    }

    /// The seeds of one key. `object` must name everything that tells it from the other keys of
    /// this secret.
    pub(super) fn key(&self, object: &str) -> KeySeeds {
        KeySeeds {
            public: *self.bound.derive(&format!("public half of {object}"), 0).expose(),
            errors: self.bound.derive(&format!("errors of {object}"), 0),
        }
    }
}
