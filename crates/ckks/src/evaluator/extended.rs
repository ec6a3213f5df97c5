//! Ciphertexts still multiplied by the special primes: the accumulators of double hoisting.

use cipherlm_ring::{Eval, Poly};

use super::{Evaluator, Hoisted, check_scales};
use crate::encode::LiftedPlaintext;
use crate::keys::{EvaluationKeys, GaloisElement, KeyId, KeyPurpose};
use crate::{Ciphertext, Error, Params, Scale};

/// `P` times a ciphertext, modulo the primes of its level and the special primes `P`.
///
/// Key switching produces these; sums of plaintext products of them need one division by `P` in the end instead of one
/// each (Bossuat, Mouchet, Troncoso-Pastoriza and Hubaux, "Efficient bootstrapping ... with non-sparse keys").
#[derive(Clone)]
pub struct ExtendedCiphertext {
    params: Params,
    key_id: KeyId,
    parts: [Poly<Eval>; 2],
    level: usize,
    special: usize,
    scale: Scale,
    slots: usize,
}

impl ExtendedCiphertext {
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
    /// One automorphism of a hoisted ciphertext, not yet divided by the special primes. The identity uses the special
    /// primes of the cheapest key shape at this level.
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

    /// One automorphism of `a`, staying over the special primes: only the second half is divided by them, to be taken apart for
    /// the key. The key must have as many special primes as `a`.
    ///
    /// # Errors
    /// As [`Evaluator::rotate`]; [`Error::BadKeyShape`] for a key with another number of special primes.
    pub fn rotate_qp(&self, a: &ExtendedCiphertext, element: GaloisElement) -> Result<ExtendedCiphertext, Error> {
        self.params.check_same("rotate_qp", &a.params)?;
        if element.is_identity() {
            return Ok(a.clone());
        }
        let key = self.keys.key(KeyPurpose::Galois(element), a.level)?;
        if key.shape().special != a.special {
            let reason = "the ciphertext has a different number of special primes";
            return Err(Error::BadKeyShape { level: key.shape().level, special: key.shape().special, reason });
        }
        if key.key_id() != a.key_id {
            return Err(Error::KeyMismatch { operation: "rotate_qp", left: a.key_id, right: key.key_id() });
        }
        let mod_down =
            self.params.ring().mod_down(self.params.limbs(a.level), &self.params.special_limbs(a.special))?;
        let c1 = mod_down.apply(&a.parts[1])?;
        let [mut u0, u1] = self.switch_extended(&c1, a.level, &key)?;
        u0.add_assign(&a.parts[0])?;
        let automorphism = self.permutation(element)?;
        let parts = [u0.automorphism(&automorphism)?, u1.automorphism(&automorphism)?];
        Ok(ExtendedCiphertext { parts, params: a.params.clone(), ..*a })
    }

    /// For each row of plaintexts the sum of `value * plaintext` over the pairs that are present: the baby-step half of a linear
    /// transform, all giant steps at once, so that every value is read from memory once.
    ///
    /// # Errors
    /// As [`Evaluator::mul_plain_qp_accumulate`]; [`Error::OperandCount`] for a row without a pair.
    pub fn mul_plain_qp_rows(
        &self,
        values: &[Option<ExtendedCiphertext>],
        rows: &[Vec<Option<LiftedPlaintext>>],
    ) -> Result<Vec<ExtendedCiphertext>, Error> {
        let ring = self.params.ring();
        let mut sums = Vec::with_capacity(rows.len());
        let mut terms = Vec::with_capacity(rows.len());
        for row in rows {
            let pairs: Vec<_> = values.iter().zip(row).filter_map(|(v, p)| Some((v.as_ref()?, p.as_ref()?))).collect();
            let Some(&(first, plaintext)) = pairs.first() else {
                return Err(Error::OperandCount {
                    operation: "mul_plain_qp_rows",
                    left: values.len(),
                    right: row.len(),
                });
            };
            let scale = first.scale * plaintext.scale();
            let mut slots = first.slots;
            for (value, plaintext) in &pairs {
                self.check_extended("mul_plain_qp_rows", first, value)?;
                self.params.check_same("mul_plain_qp_rows", plaintext.params())?;
                check_scales("mul_plain_qp_rows", scale, value.scale * plaintext.scale())?;
                slots = slots.max(value.slots).max(plaintext.slots());
            }
            let limbs = first.parts[0].limbs();
            let parts = [Poly::zero(ring, limbs)?, Poly::zero(ring, limbs)?];
            sums.push(ExtendedCiphertext { parts, scale, slots, params: self.params.clone(), ..*first });
            terms.push(pairs);
        }
        // One task per limb: its part of every sum.
        let count = sums.first().map_or(0, |sum| sum.parts[0].limbs().len());
        let mut tasks: Vec<(usize, Vec<[&mut [f64]; 2]>)> = (0..count).map(|_| (0, Vec::new())).collect();
        for sum in &mut sums {
            let [c0, c1] = &mut sum.parts;
            for (task, ((limb, a), (_, b))) in tasks.iter_mut().zip(c0.iter_mut().zip(c1.iter_mut())) {
                task.0 = limb;
                task.1.push([a, b]);
            }
        }
        crate::par::try_for_each(tasks, |(limb, outputs)| self.rows_of_limb(limb, outputs, &terms))?;
        Ok(sums)
    }

    fn rows_of_limb(
        &self,
        limb: usize,
        mut outputs: Vec<[&mut [f64]; 2]>,
        terms: &[Vec<(&ExtendedCiphertext, &LiftedPlaintext)>],
    ) -> Result<(), Error> {
        // A block of every value stays in the second-level cache while all rows use it.
        const BLOCK: usize = 1024;
        let (ring, degree) = (self.params.ring(), self.params.degree());
        let (modulus, inner_product) = (ring.modulus(limb)?, ring.kernel().inner_product2);
        let width = terms.iter().map(Vec::len).max().unwrap_or(0);
        let mut scratch = vec![0.0; width * BLOCK.min(degree)];
        for start in (0..degree).step_by(BLOCK) {
            let block = start..(start + BLOCK).min(degree);
            for ([out0, out1], row) in outputs.iter_mut().zip(terms) {
                let mut digits = Vec::with_capacity(row.len());
                let (mut key0, mut key1) = (Vec::with_capacity(row.len()), Vec::with_capacity(row.len()));
                for ((value, plaintext), work) in row.iter().zip(scratch.chunks_exact_mut(block.len())) {
                    digits.push(plaintext.block(limb, block.clone(), work)?);
                    key0.push(&value.parts[0].limb(limb)?[block.clone()]);
                    key1.push(&value.parts[1].limb(limb)?[block.clone()]);
                }
                inner_product(modulus, &mut out0[block.clone()], &mut out1[block.clone()], &digits, &key0, &key1, None);
            }
        }
        Ok(())
    }

    /// `P a` modulo the limbs of `a` and the first `special` special primes.
    ///
    /// # Errors
    /// [`Error::NotLinear`], [`Error::ParamsMismatch`].
    pub fn extend(&self, a: &Ciphertext, special: usize) -> Result<ExtendedCiphertext, Error> {
        self.check_linear("extend", a)?;
        let limbs = self.params.extended_limbs(a.level, special);
        let [mut c0, mut c1] = [Poly::zero(self.params.ring(), &limbs)?, Poly::zero(self.params.ring(), &limbs)?];
        self.add_times_p(&mut c0, &a.parts[0], a.level, special)?;
        self.add_times_p(&mut c1, &a.parts[1], a.level, special)?;
        Ok(self.extended(a, [c0, c1], special))
    }

    /// `acc += a`. Levels, special primes and scales must be equal.
    ///
    /// # Errors
    /// [`Error::LevelMismatch`], [`Error::ScaleMismatch`], [`Error::KeyMismatch`], [`Error::BadKeyShape`] for different
    /// special primes.
    pub fn add_qp_assign(&self, acc: &mut ExtendedCiphertext, a: &ExtendedCiphertext) -> Result<(), Error> {
        self.check_extended("add_qp", acc, a)?;
        check_scales("add_qp", acc.scale, a.scale)?;
        for (x, y) in acc.parts.iter_mut().zip(&a.parts) {
            x.add_assign(y)?;
        }
        acc.slots = acc.slots.max(a.slots);
        Ok(())
    }

    /// `a * plaintext`; the plaintext must be lifted to the limbs of `a`, special ones included. The scales multiply.
    ///
    /// # Errors
    /// [`Error::ParamsMismatch`], [`Error::LevelMismatch`] for missing limbs.
    pub fn mul_plain_qp(
        &self,
        a: &ExtendedCiphertext,
        plaintext: &LiftedPlaintext,
    ) -> Result<ExtendedCiphertext, Error> {
        self.params.check_same("mul_plain_qp", &a.params)?;
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
        self.params.check_same("mod_down", &a.params)?;
        let parts = self.mod_down_parts(&a.parts, a.level, a.special)?;
        Ok(self.reduced(a, parts.into(), a.level, a.scale))
    }

    /// Divides by the special primes and the primes of the level at once: [`Evaluator::mod_down`] and
    /// [`Evaluator::rescale`] for the price of one.
    ///
    /// # Errors
    /// As the two.
    pub fn mod_down_rescale(&self, a: &ExtendedCiphertext) -> Result<Ciphertext, Error> {
        self.params.check_same("mod_down_rescale", &a.params)?;
        let (level, scale) = self.rescaled("mod_down_rescale", a.level, a.scale)?;
        let drop = self.params.group_limbs(a.level).union(&self.params.special_limbs(a.special));
        let mod_down = self.params.ring().mod_down(self.params.limbs(level), &drop)?;
        let parts = a.parts.iter().map(|p| mod_down.apply(p)).collect::<Result<_, _>>()?;
        Ok(self.reduced(a, parts, level, scale))
    }

    fn extended(&self, a: &Ciphertext, parts: [Poly<Eval>; 2], special: usize) -> ExtendedCiphertext {
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

    fn reduced(&self, a: &ExtendedCiphertext, parts: Vec<Poly<Eval>>, level: usize, scale: Scale) -> Ciphertext {
        let (params, key_id, slots) = (self.params.clone(), a.key_id, a.slots);
        Ciphertext { params, key_id, parts, level, scale, slots, seed: None }
    }

    fn check_extended(
        &self,
        operation: &'static str,
        a: &ExtendedCiphertext,
        b: &ExtendedCiphertext,
    ) -> Result<(), Error> {
        self.params.check_same(operation, &a.params)?;
        self.params.check_same(operation, &b.params)?;
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
