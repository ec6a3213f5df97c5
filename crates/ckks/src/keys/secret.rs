//! Secret keys.

use cipherlm_ring::{Eval, Limbs, Poly, Secret, Seed, SmallCoeffs, Stream, sample};

use super::root::{KeySeeds, Root};
use crate::ids::{KeyId, SecretDistribution};
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
    /// [`Error::ZeroSeed`] for 32 zeros; [`Error::Ring`].
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
        // The usual sign of a seed that was never filled.
        if root.expose().iter().fold(0, |any, byte| any | byte) == 0 {
            return Err(Error::ZeroSeed);
        }
        let root = Root::new(root, params, distribution);
        let mut stream = Stream::new(&root.coefficients(), "coefficients", 0);
        let coefficients = match distribution {
            SecretDistribution::Ternary => sample::ternary(&mut stream, params.degree()),
            SecretDistribution::Sparse { weight } => {
                sample::ternary_weight(&mut stream, params.degree(), weight)?
            }
            SecretDistribution::Subring { .. } => {
                return Err(Error::Internal { what: "a subring's secret comes from its own set" });
            }
        };
        let eval = coefficients.to_poly(params.ring(), &params.ring().limbs())?.into_eval();
        let id = KeyId(root.id());
        Ok(Self { params: params.clone(), distribution, root, id, eval })
    }

    /// The secret of the same root seed in a subring ([`Params::subring`]): one file keeps both,
    /// which have nothing else in common.
    ///
    /// # Errors
    /// [`Error::Ring`].
    pub fn in_subring(&self, subring: &Params) -> Result<Self, Error> {
        Self::from_seed(subring, Seed::from_bytes(*self.root.stored().expose()))
    }

    /// This secret, of a subring, as one of the larger ring: the identity stays, and the masks and
    /// errors of its keys there are its own.
    pub(super) fn embed(&self, params: &Params) -> Result<Self, Error> {
        let degree = self.params.degree();
        let distribution = SecretDistribution::Subring { degree };
        let coefficients = self.coefficients().embed(params.degree())?;
        let eval = coefficients.to_poly(params.ring(), &params.ring().limbs())?.into_eval();
        let mut root = Seed::from_bytes(*self.root.stored().expose());
        // Bound to both sets: the larger one is below.
        root = root.derive(&format!("embedded {:?}", self.params.hash().as_bytes()), 0);
        let root = Root::new(root, params, distribution);
        Ok(Self { params: params.clone(), distribution, root, id: self.id, eval })
    }

    /// The dense coefficients again.
    fn coefficients(&self) -> SmallCoeffs {
        let mut stream = Stream::new(&self.root.coefficients(), "coefficients", 0);
        sample::ternary(&mut stream, self.params.degree())
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
