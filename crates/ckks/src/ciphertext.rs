//! Ciphertexts and the two steps on the secret side: encryption and decryption.

use std::sync::Arc;

use cipherlm_ring::{Eval, Poly, Ring};

use crate::keys::KeyId;
use crate::{Error, Params, Scale};

/// An encrypted vector: two polynomials (three after a product that is not yet relinearised), a
/// level and a scale.
///
/// It decrypts to `c0 + c1 s (+ c2 s^2)` modulo the primes of its level, which is the message times
/// the scale plus noise.
#[derive(Clone)]
pub struct Ciphertext {
    pub(crate) params: Params,
    pub(crate) key_id: KeyId,
    pub(crate) parts: Vec<Poly<Eval>>,
    pub(crate) level: usize,
    pub(crate) scale: Scale,
    pub(crate) slots: usize,
    /// Seed of `c1` in a fresh ciphertext from the secret key: halves its size in a file.
    pub(crate) seed: Option<[u8; 32]>,
}

impl Ciphertext {
    /// Puts polynomials together to a ciphertext. For circuits below the level of slots
    /// (bootstrapping); the caller answers for the meaning.
    ///
    /// # Errors
    /// [`Error::LevelOutOfRange`], [`Error::BadSlots`], [`Error::BadScale`], [`Error::NotLinear`]
    /// if there are not 2 or 3 parts, [`Error::Ring`] if a part is of another ring,
    /// [`Error::LevelMismatch`] if it does not live on the limbs of `level`.
    pub fn from_parts(
        params: &Params,
        key_id: KeyId,
        parts: Vec<Poly<Eval>>,
        level: usize,
        scale: Scale,
        slots: usize,
    ) -> Result<Self, Error> {
        params.check_level("ciphertext", level)?;
        params.check_slots(slots)?;
        crate::encode::check_scale("ciphertext", scale)?;
        if !(2..=3).contains(&parts.len()) {
            return Err(Error::NotLinear { operation: "ciphertext", parts: parts.len() });
        }
        for part in &parts {
            check_ring(params.ring(), part.ring())?;
        }
        if let Some(part) = parts.iter().find(|p| p.limbs() != params.limbs(level)) {
            let right = part.limbs().len().saturating_sub(1);
            return Err(Error::LevelMismatch { operation: "ciphertext", left: level, right });
        }
        Ok(Self { params: params.clone(), key_id, parts, level, scale, slots, seed: None })
    }

    /// The parameter set.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The secret it is encrypted under.
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Rescales left.
    pub fn level(&self) -> usize {
        self.level
    }

    /// Factor between message and plaintext polynomial.
    pub fn scale(&self) -> Scale {
        self.scale
    }

    /// Number of slots; the message repeats with this period.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// The polynomials, `c0` first.
    pub fn parts(&self) -> &[Poly<Eval>] {
        &self.parts
    }

    /// The polynomials, by value.
    pub fn into_parts(self) -> Vec<Poly<Eval>> {
        self.parts
    }

    /// True if it has two parts.
    pub fn is_linear(&self) -> bool {
        self.parts.len() == 2
    }

    /// The same polynomials read at another scale: the message is multiplied by
    /// `self.scale() / scale`.
    ///
    /// # Errors
    /// [`Error::BadScale`].
    pub fn with_scale(mut self, scale: Scale) -> Result<Self, Error> {
        crate::encode::check_scale("with_scale", scale)?;
        self.scale = scale;
        Ok(self)
    }

    /// The same polynomials read as `slots` slots; the caller knows that the message has this
    /// period.
    ///
    /// # Errors
    /// [`Error::BadSlots`].
    pub fn with_slots(mut self, slots: usize) -> Result<Self, Error> {
        self.params.check_slots(slots)?;
        self.slots = slots;
        Ok(self)
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.parts.len() * self.params.limb_count(self.level) * (self.params.degree() + 72) * 8
    }
}

/// Refuses polynomials of another ring: equal limb numbers then mean other primes.
fn check_ring(ours: &Arc<Ring>, other: &Arc<Ring>) -> Result<(), Error> {
    if Arc::ptr_eq(ours, other) || (ours.degree() == other.degree() && ours.primes().eq(other.primes())) {
        return Ok(());
    }
    Err(cipherlm_ring::Error::RingMismatch {
        left_degree: ours.degree(),
        left_primes: ours.prime_count(),
        right_degree: other.degree(),
        right_primes: other.prime_count(),
    }
    .into())
}
