//! Rotations and conjugation: one at a time, hoisted, or one key for many ciphertexts.

use std::sync::Arc;

use cipherlm_ring::{Automorphism, Eval, Poly, par};

use super::{Evaluator, Hoisted};
use crate::keys::{EvaluationKeys, GaloisElement, KeyPurpose};
use crate::{Ciphertext, Error};

/// Ciphertexts whose digits are in memory together when one key serves many.
const SAME_KEY_BATCH: usize = 4;

impl<K: EvaluationKeys> Evaluator<K> {
    /// Rotates to the left by `steps`: slot `j` receives slot `j + steps`. Level and scale stay.
    ///
    /// Steps count modulo the slots of `a`. A ciphertext of 4 slots is rotated by -3, 1 or 5 with a
    /// key for any one of -3 and 1, or for the step asked for, and by 4 without a key.
    ///
    /// # Errors
    /// [`Error::MissingKey`], [`Error::NotLinear`], and mismatches between key and ciphertext.
    pub fn rotate(&self, a: &Ciphertext, steps: i64) -> Result<Ciphertext, Error> {
        self.automorphism(a, self.rotation_of(a, steps))
    }

    /// The automorphism that rotates `a` by `steps`: of those that do the same to its slots, the
    /// first that there is a key for.
    fn rotation_of(&self, a: &Ciphertext, steps: i64) -> GaloisElement {
        let asked = GaloisElement::rotation(&self.params, steps);
        let slots = a.slots as i64;
        let left = steps.rem_euclid(slots);
        if left == 0 {
            return GaloisElement::rotation(&self.params, 0);
        }
        if a.slots == self.params.slots() {
            return asked;
        }
        let there = |element: &GaloisElement| self.keys.check(KeyPurpose::Galois(*element), a.level).is_ok();
        let others = [left, left - slots].map(|steps| GaloisElement::rotation(&self.params, steps));
        [asked].into_iter().chain(others).find(there).unwrap_or(asked)
    }

    /// Complex conjugate of every slot. Level and scale stay.
    ///
    /// # Errors
    /// As [`Evaluator::rotate`].
    pub fn conjugate(&self, a: &Ciphertext) -> Result<Ciphertext, Error> {
        self.automorphism(a, GaloisElement::conjugation(&self.params))
    }

    /// The automorphism `X -> X^g`, of which rotations and conjugation are cases.
    ///
    /// # Errors
    /// As [`Evaluator::rotate`].
    pub fn automorphism(&self, a: &Ciphertext, element: GaloisElement) -> Result<Ciphertext, Error> {
        self.check_linear("rotate", a)?;
        if element.is_identity() {
            return Ok(a.clone());
        }
        let key = self.key_for("rotate", KeyPurpose::Galois(element), a)?;
        let switched = self.switch_extended(&a.parts[1], a.level, &key)?;
        self.finish_rotation(a, switched, key.shape().special, element)
    }

    /// Several rotations of one ciphertext, sharing its decomposition.
    ///
    /// # Errors
    /// As [`Evaluator::rotate`].
    pub fn rotate_many(&self, a: &Ciphertext, steps: &[i64]) -> Result<Vec<Ciphertext>, Error> {
        let hoisted = self.hoist(a)?;
        steps.iter().map(|&s| self.rotate_hoisted(&hoisted, self.rotation_of(a, s))).collect()
    }

    /// One automorphism of a hoisted ciphertext.
    ///
    /// # Errors
    /// As [`Evaluator::rotate`].
    pub fn rotate_hoisted(&self, hoisted: &Hoisted<'_>, element: GaloisElement) -> Result<Ciphertext, Error> {
        let a = hoisted.ciphertext;
        self.check_linear("rotate_hoisted", a)?;
        if element.is_identity() {
            return Ok(a.clone());
        }
        let key = self.key_for("rotate_hoisted", KeyPurpose::Galois(element), a)?;
        let decomposition = self.params.decomposition(a.level, key.shape())?;
        let digits = hoisted.digits(&decomposition)?;
        let switched = self.multiply_digits(&digits, decomposition.limbs(), &key)?;
        self.finish_rotation(a, switched, key.shape().special, element)
    }

    /// The same automorphism of several ciphertexts of one level: the key is read from memory once
    /// per few of them.
    ///
    /// # Errors
    /// As [`Evaluator::rotate`]; [`Error::LevelMismatch`] if the levels differ.
    pub fn rotate_many_ciphertexts(
        &self,
        list: &[&Ciphertext],
        element: GaloisElement,
    ) -> Result<Vec<Ciphertext>, Error> {
        let Some((first, _)) = list.split_first() else { return Ok(Vec::new()) };
        for a in list {
            self.check_linear("rotate_many_ciphertexts", a)?;
            self.check_pair("rotate_many_ciphertexts", first, a)?;
        }
        if element.is_identity() {
            return Ok(list.iter().map(|&a| a.clone()).collect());
        }
        let key = self.key_for("rotate_many_ciphertexts", KeyPurpose::Galois(element), first)?;
        let decomposition = self.params.decomposition(first.level, key.shape())?;
        let ring = self.params.ring();
        let mut results = Vec::with_capacity(list.len());
        for batch in list.chunks(SAME_KEY_BATCH) {
            let digits: Vec<Vec<Poly<Eval>>> =
                batch.iter().map(|a| decomposition.decompose(&a.parts[1])).collect::<Result<_, _>>()?;
            let digits: Vec<&[Poly<Eval>]> = digits.iter().map(Vec::as_slice).collect();
            let scratch = || Poly::<Eval>::scratch(ring, decomposition.limbs());
            let mut switched: Vec<[Poly<Eval>; 2]> =
                batch.iter().map(|_| Ok([scratch()?, scratch()?])).collect::<Result<_, Error>>()?;
            let mut targets: Vec<[&mut Poly<Eval>; 2]> = switched.iter_mut().map(|[a, b]| [a, b]).collect();
            cipherlm_ring::key_product(&mut targets, &digits, &*key)?;
            for (a, switched) in batch.iter().zip(switched) {
                results.push(self.finish_rotation(a, switched, key.shape().special, element)?);
            }
        }
        Ok(results)
    }

    /// Sum over the `count` slots of every block of `count * stride` with stride `stride`: `count`
    /// must be a power of two. Slot `j` of the result is the sum of slots `j + k * stride`,
    /// `k < count`; uses the rotations `stride * 2^k`.
    ///
    /// # Errors
    /// As [`Evaluator::rotate`]; [`Error::BadSlots`] if `count` is not a power of two.
    pub fn inner_sum(&self, a: &Ciphertext, stride: usize, count: usize) -> Result<Ciphertext, Error> {
        self.params.check_slots(count)?;
        let mut sum = a.clone();
        for step in self.inner_sum_steps(stride, count) {
            let rotated = self.rotate(&sum, step)?;
            self.add_assign(&mut sum, &rotated)?;
        }
        Ok(sum)
    }

    /// The rotations that [`Evaluator::inner_sum`] uses.
    pub fn inner_sum_steps(&self, stride: usize, count: usize) -> Vec<i64> {
        (0..count.max(1).ilog2()).map(|k| (stride as i64) << k).collect()
    }

    /// From the inner product in the extended modulus to the rotated ciphertext.
    fn finish_rotation(
        &self,
        a: &Ciphertext,
        switched: [Poly<Eval>; 2],
        special: usize,
        element: GaloisElement,
    ) -> Result<Ciphertext, Error> {
        let automorphism = self.permutation(element)?;
        let [mut c0, c1] = self.mod_down_parts(&switched, a.level, special)?;
        drop(switched);
        // Limb by limb, so that the sum is permuted while it is in the cache.
        let (ring, kernel) = (self.params.ring(), self.params.ring().kernel());
        let mut image = Poly::scratch(ring, c0.limbs())?;
        let sources = image.limbs().iter().map(|limb| Ok((ring.modulus(limb)?, a.parts[0].limb(limb)?)));
        let sources = sources.collect::<Result<Vec<_>, Error>>()?;
        let limbs = image.iter_mut().zip(c0.iter_mut()).zip(sources);
        par::each(
            ring.degree() * self.params.limb_count(a.level),
            limbs,
            |(((_, to), (_, sum)), (m, own))| {
                (kernel.add)(m, sum, own);
                (kernel.permute)(to, sum, automorphism.index());
            },
        );
        let parts = vec![image, c1.automorphism(&automorphism)?];
        Ok(Ciphertext { parts, ..self.shell(a) })
    }

    pub(super) fn permutation(&self, element: GaloisElement) -> Result<Arc<Automorphism>, Error> {
        Ok(self.params.ring().automorphism(element.element())?)
    }
}
