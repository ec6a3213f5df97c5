//! Switching keys: encryptions of multiples of one secret under another, one pair of polynomials per digit.

use cipherlm_ring::{Eval, Limbs, Poly};

use super::{GaloisElement, KeyId, KeyPurpose, SecretKey, errors, small_to_eval, uniform};
use crate::params::KeyShape;
use crate::{Error, Params};

/// A switching key in memory, ready for use.
///
/// Digit `j` of the shape holds `b_j = -a_j t + e_j + P g_j s` and `a_j`, modulo the limbs of the level and the special
/// primes, where `g_j` is 1 modulo the primes of the digit and 0 modulo the others (hybrid key switching with an RNS
/// gadget, Han and Ki, "Better bootstrapping for approximate homomorphic encryption"). A Galois key for `g` has `t`
/// equal to the secret under the inverse automorphism, so that the automorphism is applied once, to the result.
pub struct SwitchingKey {
    pub(crate) params: Params,
    pub(crate) id: KeyId,
    pub(crate) purpose: KeyPurpose,
    pub(crate) shape: KeyShape,
    /// Seed of the `a_j`.
    pub(crate) seed: [u8; 32],
    /// `[b_j, a_j]` of each digit.
    pub(crate) digits: Vec<[Poly<Eval>; 2]>,
}

impl SwitchingKey {
    /// The parameter set.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The secret under which results are.
    pub fn key_id(&self) -> KeyId {
        self.id
    }

    /// What the key is for.
    pub fn purpose(&self) -> KeyPurpose {
        self.purpose
    }

    /// Level and special primes.
    pub fn shape(&self) -> KeyShape {
        self.shape
    }

    /// Limbs of the key: those of its level and its special primes.
    pub fn limbs(&self) -> Limbs {
        self.params.extended_limbs(self.shape.level, self.shape.special)
    }
}

/// What to generate; the other secret is needed for a key between two secrets.
pub(super) enum Purpose<'a> {
    Relinearise,
    Galois(GaloisElement),
    Switch(&'a SecretKey),
}

/// The public half of digit `j` of a key with this seed.
pub(crate) fn public_half(params: &Params, limbs: &Limbs, seed: &[u8; 32], digit: usize) -> Result<Poly<Eval>, Error> {
    let mut hasher = blake3::Hasher::new_derive_key("cipherlm-ckks 1 switching key digit");
    hasher.update(seed).update(&(digit as u64).to_le_bytes());
    uniform(params, limbs, hasher.finalize().as_bytes())
}

pub(super) fn generate(secret: &SecretKey, purpose: Purpose<'_>, shape: KeyShape) -> Result<SwitchingKey, Error> {
    let params = secret.params();
    shape.check(params)?;
    shape.check_security(params, secret.distribution())?;
    let ring = params.ring();
    let limbs = params.extended_limbs(shape.level, shape.special);
    let special = params.special_limbs(shape.special);

    let own = secret.eval(&limbs)?;
    let mut source = own.clone();
    let mut target = own;
    let (kind, label) = match purpose {
        Purpose::Relinearise => {
            let s = source.clone();
            source.mul_assign(&s)?;
            (KeyPurpose::Relinearise, "relinearise".to_owned())
        }
        Purpose::Galois(element) => {
            let inverse = ring.automorphism(element.inverse(params).element())?;
            *target = target.automorphism(&inverse)?;
            (KeyPurpose::Galois(element), format!("galois {}", element.element()))
        }
        Purpose::Switch(from) => {
            *source = from.eval(&limbs)?.clone();
            (KeyPurpose::Switch(from.id()), format!("switch {:?}", from.id().as_bytes()))
        }
    };
    let label = format!("{label} level {} special {}", shape.level, shape.special);
    let seed = secret.root().derive_public("switching key a", label.as_bytes());
    let error_seed = secret.root().derive("switching key error", label.as_bytes());

    // P s, the term that digit j carries on its own limbs.
    let p_mod: Vec<u64> = limbs
        .iter()
        .map(|i| {
            let m = ring.modulus(i);
            special.iter().fold(1, |acc, j| m.mul(acc, m.reduce(ring.prime(j))))
        })
        .collect();
    source.scale_assign(&p_mod)?;

    let mut digits = Vec::new();
    for (j, range) in shape.digits(params).into_iter().enumerate() {
        let a = public_half(params, &limbs, &seed, j)?;
        let errors = errors(params, &error_seed.derive("digit", &(j as u64).to_le_bytes()));
        let mut b = small_to_eval(params, &limbs, &errors)?;
        let mut product = a.clone();
        product.mul_assign(&target)?;
        b.sub_assign(&product)?;
        for limb in range {
            // Limbs of the chain come first and in order, so the pool index is the position.
            (ring.kernel().add)(ring.modulus(limb), b.limb_mut(limb), source.limb(limb));
        }
        digits.push([b, a]);
    }
    Ok(SwitchingKey { params: params.clone(), id: secret.id(), purpose: kind, shape, seed, digits })
}
