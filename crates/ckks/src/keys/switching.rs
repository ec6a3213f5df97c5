//! Switching keys: encryptions of multiples of one secret under another, one pair of polynomials
//! per digit.

use std::ops::Range;

use cipherlm_ring::sample::UniformLimb;
use cipherlm_ring::{KeyDigits, KeyLimb, Limbs, Ring, Seed};

use super::form::{KeyBody, KeyForm, PUBLIC_HALF};
use crate::ids::{KeyId, KeyPurpose, SecretDistribution};
use crate::params::KeyShape;
use crate::{Error, Params};

/// A switching key in memory, ready for use.
///
/// Digit `j` of the shape holds `b_j = -a_j t + e_j + P g_j s` and `a_j`, modulo the limbs of the
/// level and the special primes, where `g_j` is 1 modulo the primes of the digit and 0 modulo the
/// others (hybrid key switching with an RNS gadget, Han and Ki, "Better bootstrapping for
/// approximate homomorphic encryption"). A Galois key for `g` has `t` equal to the secret under the
/// inverse automorphism, so that the automorphism is applied once, to the result.
pub struct SwitchingKey {
    pub(crate) params: Params,
    pub(crate) id: KeyId,
    pub(crate) purpose: KeyPurpose,
    pub(crate) shape: KeyShape,
    /// Distribution of the secret under which results are: what its modulus was checked against.
    pub(crate) distribution: SecretDistribution,
    /// Seed of the `a_j`.
    pub(crate) seed: [u8; 32],
    /// `[b_j, a_j]` of each digit.
    pub(crate) body: KeyBody,
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

    /// Distribution of the secret under which results are.
    pub fn distribution(&self) -> SecretDistribution {
        self.distribution
    }

    /// How it lies in memory.
    pub fn form(&self) -> KeyForm {
        self.body.form()
    }

    /// Bytes it takes in memory.
    pub fn resident_bytes(&self) -> u64 {
        self.shape.resident_bytes_in(&self.params, self.form())
    }

    /// The same key in another form.
    ///
    /// # Errors
    /// [`Error::Ring`] only.
    pub fn to_form(&self, form: KeyForm) -> Result<Self, Error> {
        let body = if form == self.form() {
            self.body.clone()
        } else {
            KeyBody::from_packed(
                form,
                &self.params,
                &self.limbs(),
                &self.seed,
                self.body.packed(&self.params),
            )?
        };
        Ok(Self { params: self.params.clone(), body, ..*self })
    }

    /// Limbs of the key: those of its level and its special primes.
    pub fn limbs(&self) -> Limbs {
        self.params.extended_limbs(self.shape.level, self.shape.special)
    }
}

impl KeyDigits for SwitchingKey {
    fn count(&self) -> usize {
        match &self.body {
            KeyBody::Expanded(pairs) => pairs.len(),
            KeyBody::Packed(pairs) => pairs.len(),
            KeyBody::Seeded { b } => b.len(),
        }
    }

    fn limb(&self, ring: &Ring, index: usize, count: usize) -> cipherlm_ring::Result<KeyLimb<'_>> {
        let b = match &self.body {
            KeyBody::Expanded(pairs) => return pairs.limb(ring, index, count),
            KeyBody::Packed(pairs) => return pairs.limb(ring, index, count),
            KeyBody::Seeded { b } => b,
        };
        ring.check_same(self.params.ring())?;
        let limbs = self.limbs();
        let missing = || cipherlm_ring::Error::MissingLimb { index, limbs: limbs.clone() };
        let position = limbs.position(index).ok_or_else(missing)?;
        let (seed, modulus) = (Seed::from_bytes(self.seed), ring.modulus(index)?);
        let stream = |digit| UniformLimb::new(modulus, &seed, PUBLIC_HALF, digit as u64);
        let mut streams: Vec<UniformLimb> = (0..count.min(b.len())).map(stream).collect();
        let fill = move |digit: usize, range: &Range<usize>, [first, second]: [&mut [f64]; 2]| {
            b[digit].unpack(position, range, first);
            streams[digit].fill(second);
        };
        Ok(KeyLimb::Made { count: count.min(b.len()), fill: Box::new(fill) })
    }
}
