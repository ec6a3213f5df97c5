//! Key switching: decomposition, inner product with a key, division by the special primes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cipherlm_ring::{Decomposition, Eval, Limbs, Poly};

use super::Evaluator;
use crate::keys::{EvaluationKeys, KeyId, KeyPurpose, SwitchingKey};
use crate::{Ciphertext, Error};

/// A ciphertext whose second polynomial has been taken apart for key switching: rotations of it
/// share that work.
///
/// Keys cut to different levels have different digits; each kind is computed when first needed and
/// kept. Threads may share it; those that need the same digits at the same time each compute them,
/// and one result is kept.
pub struct Hoisted<'a> {
    pub(super) ciphertext: &'a Ciphertext,
    digits: Mutex<Known>,
}

/// Digits that were computed, each with the layout they have.
type Known = Vec<(Arc<Decomposition>, Digits)>;

/// One polynomial per digit, shared by all rotations that use it.
type Digits = Arc<Vec<Poly<Eval>>>;

impl Hoisted<'_> {
    /// The ciphertext.
    pub fn ciphertext(&self) -> &Ciphertext {
        self.ciphertext
    }

    /// Digits of the second polynomial in the layout of `decomposition`.
    pub(super) fn digits(&self, decomposition: &Arc<Decomposition>) -> Result<Digits, Error> {
        let find = |list: &Known| {
            let same = |have: &Decomposition| {
                have.limbs() == decomposition.limbs() && have.digit_limbs().eq(decomposition.digit_limbs())
            };
            list.iter().find(|(have, _)| same(have)).map(|(_, digits)| digits.clone())
        };
        if let Some(digits) = find(&self.known()) {
            return Ok(digits);
        }
        // No lock is held here: a thread that waits for the parallel parts of `decompose` may begin
        // another rotation of this ciphertext, and would wait for itself.
        let digits = Arc::new(decomposition.decompose(&self.ciphertext.parts[1])?);
        let mut list = self.known();
        if let Some(first) = find(&list) {
            return Ok(first);
        }
        list.push((decomposition.clone(), digits.clone()));
        Ok(digits)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.digits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: EvaluationKeys> Evaluator<K> {
    /// Prepares rotations of `a`; see [`Hoisted`].
    ///
    /// # Errors
    /// [`Error::NotLinear`], [`Error::ParamsMismatch`].
    pub fn hoist<'a>(&self, a: &'a Ciphertext) -> Result<Hoisted<'a>, Error> {
        self.check_linear("hoist", a)?;
        Ok(Hoisted { ciphertext: a, digits: Mutex::new(Vec::new()) })
    }

    /// `a` under the secret of `key`, whose source must be the secret of `a`; level and scale stay.
    ///
    /// # Errors
    /// [`Error::WrongKey`], [`Error::KeyMismatch`], [`Error::NotLinear`],
    /// [`Error::LevelOutOfRange`].
    pub fn switch_key(&self, a: &Ciphertext, key: &SwitchingKey) -> Result<Ciphertext, Error> {
        self.check_linear("switch_key", a)?;
        self.check_key("switch_key", KeyPurpose::Switch(a.key_id), a.level, a.key_id, key)?;
        self.switch_by(a, key)
    }

    /// [`Evaluator::switch_key`] with a key that has been checked.
    pub(super) fn switch_by(&self, a: &Ciphertext, key: &SwitchingKey) -> Result<Ciphertext, Error> {
        let switched = self.switch_extended(&a.parts[1], a.level, key)?;
        let [mut c0, c1] = self.mod_down_parts(&switched, a.level, key.shape().special)?;
        c0.add_assign(&a.parts[0])?;
        Ok(Ciphertext { parts: vec![c0, c1], key_id: key.key_id(), ..self.shell(a) })
    }

    /// `a` under the secret that the source's key from the secret of `a` leads to.
    pub(crate) fn switch_by_source(
        &self,
        operation: &'static str,
        a: &Ciphertext,
    ) -> Result<Ciphertext, Error> {
        self.switch_key(a, &*self.key_for(operation, KeyPurpose::Switch(a.key_id), a)?)
    }

    /// The key for an operation on `a`, checked to fit it.
    pub(super) fn key_for(
        &self,
        operation: &'static str,
        purpose: KeyPurpose,
        a: &Ciphertext,
    ) -> Result<Arc<SwitchingKey>, Error> {
        self.key_at(operation, purpose, a.level, a.key_id)
    }

    /// The key for an operation at `level` on ciphertexts of the secret `key_id`. The only way to a
    /// key of the source: a source is code of the caller's, and a key that does not fit would give
    /// a wrong result.
    pub(crate) fn key_at(
        &self,
        operation: &'static str,
        purpose: KeyPurpose,
        level: usize,
        key_id: KeyId,
    ) -> Result<Arc<SwitchingKey>, Error> {
        let key = self.keys.key(purpose, level)?;
        self.check_key(operation, purpose, level, key_id, &key)?;
        Ok(key)
    }

    fn check_key(
        &self,
        operation: &'static str,
        purpose: KeyPurpose,
        level: usize,
        key_id: KeyId,
        key: &SwitchingKey,
    ) -> Result<(), Error> {
        self.params.check_same(operation, key.params())?;
        if key.purpose() != purpose {
            return Err(Error::WrongKey { operation, have: key.purpose(), need: purpose });
        }
        if purpose.source().is_none() && key.key_id() != key_id {
            return Err(Error::KeyMismatch { operation, left: key_id, right: key.key_id() });
        }
        if key.shape().level < level {
            return Err(Error::LevelOutOfRange { operation, level, max: key.shape().level });
        }
        Ok(())
    }

    /// Inner product of the digits of `x` with a key, over the limbs of `level` and the key's
    /// special primes.
    pub(super) fn switch_extended(
        &self,
        x: &Poly<Eval>,
        level: usize,
        key: &SwitchingKey,
    ) -> Result<[Poly<Eval>; 2], Error> {
        let decomposition = self.params.decomposition(level, key.shape())?;
        let digits = decomposition.decompose(x)?;
        self.multiply_digits(&digits, decomposition.limbs(), key)
    }

    pub(super) fn multiply_digits(
        &self,
        digits: &[Poly<Eval>],
        limbs: &Limbs,
        key: &SwitchingKey,
    ) -> Result<[Poly<Eval>; 2], Error> {
        let ring = self.params.ring();
        let [mut acc0, mut acc1] = [Poly::scratch(ring, limbs)?, Poly::scratch(ring, limbs)?];
        cipherlm_ring::key_product(&mut [[&mut acc0, &mut acc1]], &[digits], key)?;
        Ok([acc0, acc1])
    }

    /// Divides both halves by the special primes.
    pub(super) fn mod_down_parts(
        &self,
        parts: &[Poly<Eval>; 2],
        level: usize,
        special: usize,
    ) -> Result<[Poly<Eval>; 2], Error> {
        let mod_down =
            self.params.ring().mod_down(self.params.limbs(level), &self.params.special_limbs(special))?;
        Ok([mod_down.apply(&parts[0])?, mod_down.apply(&parts[1])?])
    }

    /// `acc += P x` on the limbs of `level`.
    pub(super) fn add_times_p(
        &self,
        acc: &mut Poly<Eval>,
        x: &Poly<Eval>,
        level: usize,
        special: usize,
    ) -> Result<(), Error> {
        let limbs = self.params.limbs(level);
        Ok(acc.add_scaled_assign(x, limbs, &self.params.special_residues(limbs, special))?)
    }
}
