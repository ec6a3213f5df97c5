//! Secret keys and everything generated from them.

use cipherlm_ring::{Eval, Limbs, Poly, Secret, Seed, Stream, sample};
use rayon::prelude::*;

use super::root::{KeySeeds, Root};
use super::switching::{self, Purpose};
use super::{KeyForm, KeyId, KeyPurpose, KeyRequest, KeySet, PublicKey, SwitchingKey};
use crate::params::{KeyShape, SecretDistribution};
use crate::{Error, Params};

/// A secret key. It is wiped on drop and can be neither printed, cloned nor serialised by derive.
///
/// Its coefficients, its identity, and the public halves and errors of its keys come from one root
/// seed by labelled one-way derivation: generating the same key twice gives the same bytes, and no
/// two keys share a stream. The derivation takes in the parameter set and the distribution, so that
/// one root seed under two sets gives two unrelated secrets.
///
/// ```compile_fail
/// fn copy<T: Clone>(x: &T) -> T { x.clone() }
/// fn leak(secret: &cipherlm_ckks::SecretKey) { copy(secret); }
/// ```
pub struct SecretKey {
    params: Params,
    distribution: SecretDistribution,
    root: Root,
    id: KeyId,
    /// Over all limbs of the ring.
    eval: Secret<Eval>,
}

impl SecretKey {
    /// A fresh dense ternary secret from the operating system's randomness.
    ///
    /// # Errors
    /// [`Error::Ring`] if there is no randomness.
    pub fn generate(params: &Params) -> Result<Self, Error> {
        Self::from_seed(params, Seed::random()?)
    }

    /// The dense ternary secret of a root seed under these parameters, for tests that repeat and
    /// for those who keep 32 bytes. Under other parameters the seed gives another secret;
    /// [`SecretKey::to_secret_bytes`] stores which ones they were.
    ///
    /// # Errors
    /// [`Error::Ring`] only.
    pub fn from_seed(params: &Params, root: Seed) -> Result<Self, Error> {
        Self::with_distribution(params, SecretDistribution::Ternary, root)
    }

    /// A fresh ephemeral secret with `weight` nonzero coefficients, for the encapsulation step of
    /// bootstrapping.
    ///
    /// It can only encrypt, and be the target of switching keys, at moduli that are 128-bit secure
    /// for this weight; anything else is refused key by key.
    ///
    /// # Errors
    /// [`Error::NoSecurityEstimate`] if there is no safe modulus at all for this weight (unless the
    /// parameters are insecure anyway), [`Error::Ring`] if the weight exceeds the degree.
    pub fn generate_sparse(params: &Params, weight: usize) -> Result<Self, Error> {
        Self::sparse_from_seed(params, weight, Seed::random()?)
    }

    /// The ephemeral secret of a root seed; see [`SecretKey::generate_sparse`].
    ///
    /// # Errors
    /// As [`SecretKey::generate_sparse`].
    pub fn sparse_from_seed(params: &Params, weight: usize, root: Seed) -> Result<Self, Error> {
        let secret = SecretDistribution::Sparse { weight };
        if !params.is_insecure() && crate::params::security_limit(params.degree(), secret).is_none() {
            return Err(Error::NoSecurityEstimate { degree: params.degree(), secret });
        }
        Self::with_distribution(params, secret, root)
    }

    fn with_distribution(
        params: &Params,
        distribution: SecretDistribution,
        root: Seed,
    ) -> Result<Self, Error> {
        let root = Root::new(root, params, distribution);
        let mut stream = Stream::new(&root.coefficients(), "coefficients", 0);
        let coefficients = match distribution {
            SecretDistribution::Ternary => sample::ternary(&mut stream, params.degree()),
            SecretDistribution::Sparse { weight } => {
                sample::ternary_weight(&mut stream, params.degree(), weight)?
            }
        };
        let eval = coefficients.to_poly(params.ring(), &params.ring().limbs())?.into_eval();
        let id = KeyId(root.id());
        Ok(Self { params: params.clone(), distribution, root, id, eval })
    }

    /// The parameter set.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The public identity of the key.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// How the coefficients were drawn.
    pub fn distribution(&self) -> SecretDistribution {
        self.distribution
    }

    /// The public encryption key.
    ///
    /// # Errors
    /// [`Error::Insecure`] for a sparse secret whose security does not cover the whole chain.
    pub fn public_key(&self) -> Result<PublicKey, Error> {
        PublicKey::generate(self)
    }

    /// All keys of a request, each in its cheapest shape, in parallel.
    ///
    /// # Errors
    /// [`Error::LevelOutOfRange`], [`Error::BadKeyShape`], or [`Error::Insecure`] for a key above
    /// 128-bit security.
    pub fn key_set(&self, request: &KeyRequest) -> Result<KeySet, Error> {
        self.key_set_in(request, KeyForm::fastest(&self.params))
    }

    /// As [`SecretKey::key_set`], held in memory in the given form.
    ///
    /// # Errors
    /// As [`SecretKey::key_set`].
    pub fn key_set_in(&self, request: &KeyRequest, form: KeyForm) -> Result<KeySet, Error> {
        let wanted: Vec<(KeyPurpose, usize)> = request.iter().collect();
        let keys: Result<Vec<SwitchingKey>, Error> = wanted
            .into_par_iter()
            .map(|(purpose, level)| {
                self.switching_key_in(purpose, KeyShape::cheapest(&self.params, level)?, form)
            })
            .collect();
        let mut set = KeySet::new();
        keys?.into_iter().try_for_each(|key| set.insert(key))?;
        Ok(set)
    }

    /// One relinearisation or Galois key of a given shape.
    ///
    /// # Errors
    /// As [`SecretKey::key_set`]; [`Error::WrongKey`] for [`KeyPurpose::Switch`], which needs the
    /// other secret.
    pub fn switching_key(&self, purpose: KeyPurpose, shape: KeyShape) -> Result<SwitchingKey, Error> {
        self.switching_key_in(purpose, shape, KeyForm::fastest(&self.params))
    }

    fn switching_key_in(
        &self,
        purpose: KeyPurpose,
        shape: KeyShape,
        form: KeyForm,
    ) -> Result<SwitchingKey, Error> {
        let purpose = match purpose {
            KeyPurpose::Relinearise => Purpose::Relinearise,
            KeyPurpose::Galois(element) => Purpose::Galois(element),
            KeyPurpose::Switch(_) => {
                return Err(Error::WrongKey {
                    operation: "generate switching key",
                    have: purpose,
                    need: KeyPurpose::Relinearise,
                });
            }
        };
        switching::generate(self, purpose, shape, form)
    }

    /// The key that takes ciphertexts under `from` to ciphertexts under this secret.
    ///
    /// The key is a set of encryptions under *this* secret, so it is this secret's distribution
    /// that must be safe at the modulus of `shape`: to switch to a sparse secret, ask for the
    /// lowest level and one special prime.
    ///
    /// # Errors
    /// As [`SecretKey::key_set`]; [`Error::ParamsMismatch`] if the secrets have different
    /// parameters.
    pub fn switching_key_from(&self, from: &Self, shape: KeyShape) -> Result<SwitchingKey, Error> {
        self.params.check_same("switching key", &from.params)?;
        switching::generate(self, Purpose::Switch(from), shape, KeyForm::fastest(&self.params))
    }

    /// The secret in evaluation form over `limbs`.
    pub(crate) fn eval(&self, limbs: &Limbs) -> Result<Secret<Eval>, Error> {
        Ok(Secret::new(self.eval_all().keep(limbs)?))
    }

    /// The secret in evaluation form over all limbs of the ring.
    pub(crate) fn eval_all(&self) -> &Poly<Eval> {
        self.eval.expose()
    }

    /// The root seed as it is stored.
    pub(crate) fn stored_root(&self) -> &Seed {
        self.root.stored()
    }

    /// The seeds of one key of this secret; see [`Root::key`].
    pub(super) fn seeds(&self, object: &str) -> KeySeeds {
        self.root.key(object)
    }

    /// Refuses an encryption under this secret at a modulus of `log_q` bits below 128-bit security.
    pub(crate) fn check_modulus(&self, what: &'static str, log_q: f64) -> Result<(), Error> {
        if self.params.is_insecure() {
            return Ok(());
        }
        crate::params::check_security(what, self.params.degree(), self.distribution, log_q).map(drop)
    }
}
