//! Everything that is generated from a secret key.

use cipherlm_ring::{Poly, Secret, Stream, sample};
use rayon::prelude::*;

use super::form::{KeyBody, KeyForm, public_half};
use super::root::KeySeeds;
use super::{KeyRequest, KeySet, PublicKey, SecretKey, SwitchingKey};
use crate::ids::{GaloisElement, KeyPurpose};
use crate::params::KeyShape;
use crate::{Error, Params};

impl SecretKey {
    /// The public encryption key.
    ///
    /// # Errors
    /// [`Error::Insecure`] for a sparse secret whose security does not cover the whole chain.
    pub fn public_key(&self) -> Result<PublicKey, Error> {
        generate_public(self)
    }

    /// All keys of a request, each in its cheapest shape, in parallel.
    ///
    /// # Errors
    /// [`Error::LevelOutOfRange`], [`Error::BadKeyShape`], or [`Error::Insecure`] for a key above
    /// 128-bit security.
    pub fn key_set(&self, request: &KeyRequest) -> Result<KeySet, Error> {
        self.key_set_in(request, KeyForm::fastest(self.params()))
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
                self.switching_key_in(purpose, KeyShape::cheapest(self.params(), level)?, form)
            })
            .collect();
        let mut set = KeySet::new();
        keys?.into_iter().try_for_each(|key| set.insert(key))?;
        Ok(set)
    }

    /// One relinearisation or Galois key of a given shape.
    ///
    /// # Errors
    /// As [`SecretKey::key_set`]; [`Error::WrongKey`] for [`KeyPurpose::Switch`] and
    /// [`KeyPurpose::Project`], which need the other secret.
    pub fn switching_key(&self, purpose: KeyPurpose, shape: KeyShape) -> Result<SwitchingKey, Error> {
        self.switching_key_in(purpose, shape, KeyForm::fastest(self.params()))
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
            KeyPurpose::Switch(_) | KeyPurpose::Project(_) => {
                return Err(Error::WrongKey {
                    operation: "generate switching key",
                    have: purpose,
                    need: KeyPurpose::Relinearise,
                });
            }
        };
        generate(self, purpose, shape, form)
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
        self.params().check_same("switching key", from.params())?;
        generate(self, Purpose::Switch(from), shape, KeyForm::fastest(self.params()))
    }

    /// The key with which [`Evaluator::project`](crate::Evaluator::project) takes ciphertexts of
    /// this secret to those of [`SecretKey::in_subring`], at the levels and with the special primes
    /// of the subring's set, which has been found secure.
    ///
    /// # Errors
    /// As [`SecretKey::key_set`]; [`Error::BadKeyShape`] for a subring without special primes.
    pub fn projection_key(&self, subring: &Params) -> Result<SwitchingKey, Error> {
        let target = self.in_subring(subring)?.embed(self.params())?;
        let shape = KeyShape { level: subring.max_level(), special: subring.special_count() };
        generate(&target, Purpose::Project(self), shape, KeyForm::fastest(self.params()))
    }

    /// The key with which [`Evaluator::embed`](crate::Evaluator::embed) takes ciphertexts of
    /// [`SecretKey::in_subring`] to those of this secret.
    ///
    /// # Errors
    /// As [`SecretKey::key_set`].
    pub fn embedding_key(&self, subring: &Params) -> Result<SwitchingKey, Error> {
        let from = self.in_subring(subring)?.embed(self.params())?;
        self.switching_key_from(&from, KeyShape::cheapest(self.params(), subring.max_level())?)
    }
}

fn generate_public(secret: &SecretKey) -> Result<PublicKey, Error> {
    let params = secret.params();
    secret.check_modulus("public key", params.log_q(params.max_level()))?;
    let limbs = params.limbs(params.max_level());
    let KeySeeds { public: seed, errors } =
        secret.seeds(&format!("public key, level {}", params.max_level()));
    let a = PublicKey::public_half(params, &seed)?;
    let error = sample::gaussian(&mut Stream::new(&errors, "error", 0), params.degree());
    let mut b = error.to_poly(params.ring(), limbs)?.into_eval();
    let product = Secret::new(Poly::mul(&a, secret.eval_all())?);
    b.expose_mut().sub_assign(product.expose())?;
    let b = b.publish();
    Ok(PublicKey { params: params.clone(), id: secret.id(), seed, b, a })
}

/// What to generate; the other secret is needed for a key between two secrets.
enum Purpose<'a> {
    Relinearise,
    Galois(GaloisElement),
    Switch(&'a SecretKey),
    Project(&'a SecretKey),
}

fn generate(
    secret: &SecretKey,
    purpose: Purpose<'_>,
    shape: KeyShape,
    form: KeyForm,
) -> Result<SwitchingKey, Error> {
    let params = secret.params();
    shape.check(params)?;
    shape.check_security(params, secret.distribution())?;
    let ring = params.ring();
    let limbs = params.extended_limbs(shape.level, shape.special);

    let own = secret.eval(&limbs)?;
    let (kind, label, mut source, target) = match purpose {
        Purpose::Relinearise => {
            let square = Secret::new(Poly::mul(own.expose(), own.expose())?);
            (KeyPurpose::Relinearise, "relinearise".to_owned(), square, own)
        }
        Purpose::Galois(element) => {
            let inverse = ring.automorphism(element.inverse(params).element())?;
            let target = Secret::new(own.expose().automorphism(&inverse)?);
            (KeyPurpose::Galois(element), format!("galois {}", element.element()), own, target)
        }
        Purpose::Switch(from) => {
            let label = format!("switch {:?}", from.id().as_bytes());
            (KeyPurpose::Switch(from.id()), label, from.eval(&limbs)?, own)
        }
        Purpose::Project(from) => {
            let label = format!("project {:?}", from.id().as_bytes());
            (KeyPurpose::Project(from.id()), label, from.eval(&limbs)?, own)
        }
    };
    // Everything that tells this key from the others of the secret: no two share a public half or
    // an error.
    let (KeyShape { level, special }, digits) = (shape, shape.digits(params));
    let label = format!("switching key {label}, level {level}, special {special}, digits {digits:?}");
    let KeySeeds { public: seed, errors } = secret.seeds(&label);

    // P s, the term that digit j carries on its own limbs.
    source.expose_mut().scale_assign(&params.special_residues(&limbs, shape.special))?;
    let digits = digits.into_iter().enumerate().map(|(j, range)| {
        let a = public_half(params, &limbs, &seed, j)?;
        let error = sample::gaussian(&mut Stream::new(&errors, "digit", j as u64), params.degree());
        let mut b = error.to_poly(ring, &limbs)?.into_eval();
        let product = Secret::new(Poly::mul(&a, target.expose())?);
        b.expose_mut().sub_assign(product.expose())?;
        for limb in range {
            let add = ring.kernel().add;
            add(ring.modulus(limb)?, b.expose_mut().limb_mut(limb)?, source.expose().limb(limb)?);
        }
        // Masked by `a` and the error: public from here on.
        Ok([b.publish(), a])
    });
    let body = KeyBody::collect(form, params, digits)?;
    let (params, distribution) = (params.clone(), secret.distribution());
    Ok(SwitchingKey { params, id: secret.id(), purpose: kind, shape, distribution, seed, body })
}
