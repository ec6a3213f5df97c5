//! Products of ciphertexts, relinearised late and rescaled inside the same division.

use cipherlm_ring::{Eval, Poly, par};

use super::{Evaluator, check_scales};
use crate::keys::{EvaluationKeys, KeyPurpose};
use crate::{Ciphertext, Error};

/// Residues handled together: seven such blocks stay in the L2 cache.
const BLOCK: usize = 4096;

impl<K: EvaluationKeys> Evaluator<K> {
    /// `a * b` as three polynomials; the scales multiply. Sum such products first, then
    /// [`Evaluator::relinearise`].
    ///
    /// # Errors
    /// [`Error::LevelMismatch`], [`Error::KeyMismatch`], [`Error::ParamsMismatch`],
    /// [`Error::NotLinear`], [`Error::LevelExhausted`] if the product does not fit the level.
    pub fn mul(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext, Error> {
        self.check_factors("mul", a, b)?;
        let parts = self.tensor(a, b)?;
        Ok(Ciphertext { parts, scale: a.scale * b.scale, slots: a.slots.max(b.slots), ..self.shell(a) })
    }

    /// `a * a` as three polynomials; see [`Evaluator::mul`].
    ///
    /// # Errors
    /// As [`Evaluator::mul`].
    pub fn square(&self, a: &Ciphertext) -> Result<Ciphertext, Error> {
        self.check_factors("square", a, a)?;
        Ok(Ciphertext { parts: self.tensor(a, a)?, scale: a.scale.square(), ..self.shell(a) })
    }

    /// `acc += a * b`, three polynomials: one term of a sum of products.
    ///
    /// # Errors
    /// As [`Evaluator::mul`]; [`Error::ScaleMismatch`] if the scale of the product is not that of
    /// `acc`.
    pub fn mul_add(&self, acc: &mut Ciphertext, a: &Ciphertext, b: &Ciphertext) -> Result<(), Error> {
        self.check_factors("mul_add", a, b)?;
        self.check_pair("mul_add", acc, a)?;
        check_scales("mul_add", acc.scale, a.scale * b.scale)?;
        while acc.parts.len() < 3 {
            acc.parts.push(Poly::zero(self.params.ring(), self.params.limbs(acc.level))?);
        }
        acc.parts[0].mul_add_assign(&a.parts[0], &b.parts[0])?;
        acc.parts[1].mul_add_assign(&a.parts[0], &b.parts[1])?;
        acc.parts[1].mul_add_assign(&a.parts[1], &b.parts[0])?;
        acc.parts[2].mul_add_assign(&a.parts[1], &b.parts[1])?;
        acc.seed = None;
        acc.slots = acc.slots.max(a.slots).max(b.slots);
        Ok(())
    }

    /// `sum a_k * b_k` with one relinearisation. All levels equal, all products of one scale; no
    /// rescale.
    ///
    /// # Errors
    /// As [`Evaluator::mul_add`] and [`Evaluator::relinearise`]; [`Error::OperandCount`] for an
    /// empty list.
    pub fn mul_sum(&self, pairs: &[(&Ciphertext, &Ciphertext)]) -> Result<Ciphertext, Error> {
        self.relinearise(&self.quadratic_sum("mul_sum", pairs)?)
    }

    /// As [`Evaluator::mul_sum`], rescaled in the same division.
    ///
    /// # Errors
    /// As [`Evaluator::mul_sum`]; [`Error::LevelExhausted`] at level 0.
    pub fn mul_sum_rescale(&self, pairs: &[(&Ciphertext, &Ciphertext)]) -> Result<Ciphertext, Error> {
        self.relinearise_rescale(&self.quadratic_sum("mul_sum_rescale", pairs)?)
    }

    fn quadratic_sum(
        &self,
        operation: &'static str,
        pairs: &[(&Ciphertext, &Ciphertext)],
    ) -> Result<Ciphertext, Error> {
        let [(a, b), rest @ ..] = pairs else {
            return Err(Error::OperandCount { operation, left: 0, right: 0 });
        };
        let mut sum = self.mul(a, b)?;
        rest.iter().try_for_each(|(a, b)| self.mul_add(&mut sum, a, b))?;
        Ok(sum)
    }

    /// Three polynomials to two; level and scale stay. A ciphertext of two parts is returned as it
    /// is.
    ///
    /// # Errors
    /// [`Error::MissingKey`] and mismatches between key and ciphertext.
    pub fn relinearise(&self, a: &Ciphertext) -> Result<Ciphertext, Error> {
        self.check_one("relinearise", a)?;
        if a.is_linear() {
            return Ok(a.clone());
        }
        let key = self.key_for("relinearise", KeyPurpose::Relinearise, a)?;
        let switched = self.switch_extended(&a.parts[2], a.level, &key)?;
        let [mut c0, mut c1] = self.mod_down_parts(&switched, a.level, key.shape().special)?;
        c0.add_assign(&a.parts[0])?;
        c1.add_assign(&a.parts[1])?;
        Ok(Ciphertext { parts: vec![c0, c1], ..self.shell(a) })
    }

    /// [`Evaluator::relinearise`] and [`Evaluator::rescale`] in one division by `P` times the
    /// primes of the level: cheaper than the two, and with one rounding error instead of two.
    ///
    /// # Errors
    /// As the two.
    pub fn relinearise_rescale(&self, a: &Ciphertext) -> Result<Ciphertext, Error> {
        self.check_one("relinearise_rescale", a)?;
        let (level, scale) = self.rescaled("relinearise_rescale", a.level, a.scale)?;
        if a.is_linear() {
            return self.rescale(a);
        }
        let key = self.key_for("relinearise_rescale", KeyPurpose::Relinearise, a)?;
        let special = key.shape().special;
        let switched = self.switch_and_add(&a.parts[2], [&a.parts[0], &a.parts[1]], a.level, &key)?;
        let drop = self.params.group_limbs(a.level).union(&self.params.special_limbs(special));
        let mod_down = self.params.ring().mod_down(self.params.limbs(level), &drop)?;
        let parts = switched.iter().map(|p| mod_down.apply(p)).collect::<Result<Vec<Poly<Eval>>, _>>()?;
        Ok(Ciphertext { parts, level, scale, ..self.shell(a) })
    }

    /// `a * b`, relinearised and rescaled: one level down, scale
    /// `a.scale() * b.scale() / rescale_factor`.
    ///
    /// # Errors
    /// As [`Evaluator::mul`] and [`Evaluator::relinearise_rescale`].
    pub fn mul_relin_rescale(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext, Error> {
        self.relinearise_rescale(&self.mul(a, b)?)
    }

    /// `a * a`, relinearised and rescaled; see [`Evaluator::mul_relin_rescale`].
    ///
    /// # Errors
    /// As [`Evaluator::mul_relin_rescale`].
    pub fn square_relin_rescale(&self, a: &Ciphertext) -> Result<Ciphertext, Error> {
        self.relinearise_rescale(&self.square(a)?)
    }

    /// `(a0 b0, a0 b1 + a1 b0, a1 b1)`, block by block so that each residue is read from memory
    /// once.
    fn tensor(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Vec<Poly<Eval>>, Error> {
        let (ring, limbs) = (self.params.ring(), self.params.limbs(a.level));
        let mut parts: Vec<Poly<Eval>> =
            (0..3).map(|_| Poly::scratch(ring, limbs)).collect::<Result<_, cipherlm_ring::Error>>()?;
        let [d0, d1, d2] = parts.as_mut_slice() else {
            return Err(Error::Internal { what: "a product of three polynomials without them" });
        };
        let sources = limbs.iter().map(|limb| {
            let (a, b) = (
                [a.parts[0].limb(limb)?, a.parts[1].limb(limb)?],
                [b.parts[0].limb(limb)?, b.parts[1].limb(limb)?],
            );
            Ok((ring.modulus(limb)?, a, b))
        });
        let sources = sources.collect::<Result<Vec<_>, Error>>()?;
        let outputs = d0.iter_mut().zip(d1.iter_mut()).zip(d2.iter_mut()).zip(sources);
        let kernel = ring.kernel();
        par::each(
            3 * limbs.len() * ring.degree(),
            outputs,
            |((((_, d0), (_, d1)), (_, d2)), (m, [a0, a1], [b0, b1]))| {
                for start in (0..d0.len()).step_by(BLOCK) {
                    let block = start..d0.len().min(start + BLOCK);
                    let [a0, a1, b0, b1] = [a0, a1, b0, b1].map(|x| &x[block.clone()]);
                    (kernel.mul_to)(m, &mut d0[block.clone()], a0, b0);
                    (kernel.mul_to)(m, &mut d1[block.clone()], a0, b1);
                    (kernel.mul_add)(m, &mut d1[block.clone()], a1, b0);
                    (kernel.mul_to)(m, &mut d2[block], a1, b1);
                }
            },
        );
        Ok(parts)
    }

    fn check_factors(&self, operation: &'static str, a: &Ciphertext, b: &Ciphertext) -> Result<(), Error> {
        self.check_pair(operation, a, b)?;
        self.check_linear(operation, a)?;
        self.check_linear(operation, b)?;
        self.check_room(operation, a.level, a.scale * b.scale)
    }
}
