//! Ciphertexts still multiplied by the special primes: the accumulators of double hoisting.

use cipherlm_ring::{Eval, Poly};

use super::{Evaluator, Hoisted, check_scales};
use crate::encode::LiftedPlaintext;
use crate::keys::{EvaluationKeys, GaloisElement, KeyId, KeyPurpose};
use crate::{Ciphertext, Error, Params, Scale};

/// `P` times a ciphertext, modulo the primes of its level and the special primes `P`.
///
/// Key switching produces these; sums of plaintext products of them need one division by `P` in the
/// end instead of one each (Bossuat, Mouchet, Troncoso-Pastoriza and Hubaux, "Efficient
/// bootstrapping ... with non-sparse keys").
#[derive(Clone)]
pub struct ExtendedCiphertext {
    pub(super) params: Params,
    pub(super) key_id: KeyId,
    pub(super) parts: [Poly<Eval>; 2],
    pub(super) level: usize,
    pub(super) special: usize,
    pub(super) scale: Scale,
    pub(super) slots: usize,
}

impl ExtendedCiphertext {
    /// The parameter set.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The secret it is encrypted under.
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The level that [`Evaluator::mod_down`] returns to.
    pub fn level(&self) -> usize {
        self.level
    }

    /// Number of special primes.
    pub fn special(&self) -> usize {
        self.special
    }

    /// The scale that [`Evaluator::mod_down`] returns to.
    pub fn scale(&self) -> Scale {
        self.scale
    }

    /// Number of slots.
    pub fn slots(&self) -> usize {
        self.slots
    }
}

impl<K: EvaluationKeys> Evaluator<K> {
    /// One automorphism of a hoisted ciphertext, not yet divided by the special primes. The
    /// identity uses the special primes of the cheapest key shape at this level.
    ///
    /// # Errors
    /// As [`Evaluator::rotate_hoisted`].
    pub fn rotate_hoisted_qp(
        &self,
        hoisted: &Hoisted<'_>,
        element: GaloisElement,
    ) -> Result<ExtendedCiphertext, Error> {
        let a = hoisted.ciphertext;
        self.check_linear("rotate_hoisted_qp", a)?;
        if element.is_identity() {
            let shape = crate::params::KeyShape::cheapest(&self.params, a.level)?;
            return self.extend(a, shape.special);
        }
        let key = self.key_for("rotate_hoisted_qp", KeyPurpose::Galois(element), a)?;
        let special = key.shape().special;
        let decomposition = self.params.decomposition(a.level, key.shape())?;
        let digits = hoisted.digits(&decomposition)?;
        let [mut u0, u1] = self.multiply_digits(&digits, decomposition.limbs(), &key)?;
        self.add_times_p(&mut u0, &a.parts[0], a.level, special)?;
        let automorphism = self.permutation(element)?;
        let parts = [u0.automorphism(&automorphism)?, u1.automorphism(&automorphism)?];
        Ok(self.extended(a, parts, special))
    }

    /// `P a` modulo the limbs of `a` and the first `special` special primes.
    ///
    /// # Errors
    /// [`Error::NotLinear`], [`Error::ParamsMismatch`].
    pub fn extend(&self, a: &Ciphertext, special: usize) -> Result<ExtendedCiphertext, Error> {
        self.check_linear("extend", a)?;
        let limbs = self.params.extended_limbs(a.level, special);
        let [mut c0, mut c1] =
            [Poly::zero(self.params.ring(), &limbs)?, Poly::zero(self.params.ring(), &limbs)?];
        self.add_times_p(&mut c0, &a.parts[0], a.level, special)?;
        self.add_times_p(&mut c1, &a.parts[1], a.level, special)?;
        Ok(self.extended(a, [c0, c1], special))
    }

    /// `acc += a`. Levels, special primes and scales must be equal.
    ///
    /// # Errors
    /// [`Error::LevelMismatch`], [`Error::ScaleMismatch`], [`Error::KeyMismatch`],
    /// [`Error::BadKeyShape`] for different special primes.
    pub fn add_qp_assign(&self, acc: &mut ExtendedCiphertext, a: &ExtendedCiphertext) -> Result<(), Error> {
        self.check_extended("add_qp", acc, a)?;
        check_scales("add_qp", acc.scale, a.scale)?;
        for (x, y) in acc.parts.iter_mut().zip(&a.parts) {
            x.add_assign(y)?;
        }
        acc.slots = acc.slots.max(a.slots);
        Ok(())
    }

    /// `a * plaintext`; the plaintext must be lifted to the limbs of `a`, special ones included.
    /// The scales multiply.
    ///
    /// # Errors
    /// [`Error::ParamsMismatch`], [`Error::LevelMismatch`] for missing limbs.
    pub fn mul_plain_qp(
        &self,
        a: &ExtendedCiphertext,
        plaintext: &LiftedPlaintext,
    ) -> Result<ExtendedCiphertext, Error> {
        self.params.check_same_levels("mul_plain_qp", &a.params)?;
        self.params.check_same("mul_plain_qp", plaintext.params())?;
        let parts = [plaintext.times(&a.parts[0])?, plaintext.times(&a.parts[1])?];
        let (scale, slots) = (a.scale * plaintext.scale(), a.slots.max(plaintext.slots()));
        Ok(ExtendedCiphertext { parts, scale, slots, params: a.params.clone(), ..*a })
    }

    /// `acc += a * plaintext`: the inner loop of a linear transform.
    ///
    /// # Errors
    /// As [`Evaluator::add_qp_assign`] and [`Evaluator::mul_plain_qp`].
    pub fn mul_plain_qp_accumulate(
        &self,
        acc: &mut ExtendedCiphertext,
        a: &ExtendedCiphertext,
        plaintext: &LiftedPlaintext,
    ) -> Result<(), Error> {
        self.check_extended("mul_plain_qp_accumulate", acc, a)?;
        self.params.check_same("mul_plain_qp_accumulate", plaintext.params())?;
        check_scales("mul_plain_qp_accumulate", acc.scale, a.scale * plaintext.scale())?;
        for (acc, part) in acc.parts.iter_mut().zip(&a.parts) {
            plaintext.mul_add(acc, part)?;
        }
        acc.slots = acc.slots.max(a.slots).max(plaintext.slots());
        Ok(())
    }

    /// Divides by the special primes; level and scale stay.
    ///
    /// # Errors
    /// [`Error::ParamsMismatch`].
    pub fn mod_down(&self, a: &ExtendedCiphertext) -> Result<Ciphertext, Error> {
        self.params.check_same_levels("mod_down", &a.params)?;
        let parts = self.mod_down_parts(&a.parts, a.level, a.special)?;
        Ok(self.reduced(a, parts.into(), a.level, a.scale))
    }

    /// Divides by the special primes and the primes of the level at once: [`Evaluator::mod_down`]
    /// and [`Evaluator::rescale`] for the price of one.
    ///
    /// # Errors
    /// As the two.
    pub fn mod_down_rescale(&self, a: &ExtendedCiphertext) -> Result<Ciphertext, Error> {
        self.params.check_same_levels("mod_down_rescale", &a.params)?;
        let (level, scale) = self.rescaled("mod_down_rescale", a.level, a.scale)?;
        let drop = self.params.group_limbs(a.level).union(&self.params.special_limbs(a.special));
        let mod_down = self.params.ring().mod_down(self.params.limbs(level), &drop)?;
        let parts = a.parts.iter().map(|p| mod_down.apply(p)).collect::<Result<_, _>>()?;
        Ok(self.reduced(a, parts, level, scale))
    }

    pub(super) fn extended(
        &self,
        a: &Ciphertext,
        parts: [Poly<Eval>; 2],
        special: usize,
    ) -> ExtendedCiphertext {
        ExtendedCiphertext {
            params: self.params.clone(),
            key_id: a.key_id,
            parts,
            level: a.level,
            special,
            scale: a.scale,
            slots: a.slots,
        }
    }

    fn reduced(
        &self,
        a: &ExtendedCiphertext,
        parts: Vec<Poly<Eval>>,
        level: usize,
        scale: Scale,
    ) -> Ciphertext {
        let (params, key_id, slots) = (self.params.clone(), a.key_id, a.slots);
        Ciphertext { params, key_id, parts, level, scale, slots, seed: None }
    }

    pub(super) fn check_extended(
        &self,
        operation: &'static str,
        a: &ExtendedCiphertext,
        b: &ExtendedCiphertext,
    ) -> Result<(), Error> {
        self.params.check_same_levels(operation, &a.params)?;
        self.params.check_same_levels(operation, &b.params)?;
        if a.key_id != b.key_id {
            return Err(Error::KeyMismatch { operation, left: a.key_id, right: b.key_id });
        }
        if a.level != b.level {
            return Err(Error::LevelMismatch { operation, left: a.level, right: b.level });
        }
        if a.special != b.special {
            let reason = "the other operand has a different number of special primes";
            return Err(Error::BadKeyShape { level: a.level, special: b.special, reason });
        }
        Ok(())
    }
}
