//! The stages of the circuit, one after the other.

use cipherlm_ring::{Eval, Limbs, Poly};
use rayon::prelude::*;

use super::machine::Encrypted;
use super::shorten::ShortKeys;
use super::types::Goal;
use super::{Bootstrapper, Content, Stage};
use cipherlm_ckks::keys::EvaluationKeys;
use cipherlm_ckks::{Ciphertext, Error, Evaluator, Params, Scale, hazmat};

impl Bootstrapper {
    /// Everything from the ciphertext under the ephemeral secret on, to the level of the goal or,
    /// for the sake of the keys' digits, somewhat above.
    pub(super) fn finish<K: EvaluationKeys>(
        &self,
        evaluator: &Evaluator<K>,
        sparse: Ciphertext,
        goal: Goal,
        progress: &mut dyn FnMut(Stage),
    ) -> Result<Ciphertext, Error> {
        let short = self.shortened(evaluator, goal.level)?;
        let parts = self.reduced(&short, sparse, goal.scale, progress)?;
        let result = self.combine(&short, &parts, goal.scale)?;
        progress(Stage::Finished);
        self.restored(&short, result)
    }

    /// As [`Bootstrapper::finish`], with real and imaginary part in a ciphertext each.
    pub(super) fn finish_apart<K: EvaluationKeys>(
        &self,
        evaluator: &Evaluator<K>,
        sparse: Ciphertext,
        goal: Goal,
    ) -> Result<[Ciphertext; 2], Error> {
        let short = self.shortened(evaluator, goal.level)?;
        let parts = self.reduced(&short, sparse, goal.scale, &mut |_| {})?;
        let [real, imaginary] = parts.as_slice() else {
            return Err(Error::OperandCount { operation: "bootstrap_pair", left: parts.len(), right: 2 });
        };
        let one = |part: &Ciphertext| {
            self.restored(&short, self.combine(&short, std::slice::from_ref(part), goal.scale)?)
        };
        Ok([one(real)?, one(imaginary)?])
    }

    /// The results of the modular reductions: of the real parts and, for complex content, of the
    /// imaginary parts.
    fn reduced<K: EvaluationKeys>(
        &self,
        evaluator: &Evaluator<ShortKeys<'_, K>>,
        sparse: Ciphertext,
        scale: Scale,
        progress: &mut dyn FnMut(Stage),
    ) -> Result<Vec<Ciphertext>, Error> {
        let ratio = (self.params.rescale_factor(0) / sparse.scale()).log2();
        let mut raised = self.raise(evaluator, sparse)?;
        if self.slots < self.params.slots() {
            progress(Stage::SubSum);
            raised = self.project(evaluator, raised)?;
        }
        progress(Stage::CoeffsToSlots);
        let inputs = self.to_slots(evaluator, raised)?;
        progress(Stage::EvalMod);
        self.reduce(evaluator, inputs, scale, ratio)
    }

    pub(super) fn to_bottom<K: EvaluationKeys>(
        &self,
        evaluator: &Evaluator<K>,
        input: &Ciphertext,
    ) -> Result<Ciphertext, Error> {
        let _span = tracing::debug_span!("slots_to_coeffs").entered();
        let mut value = evaluator.drop_to_level(input, self.input_level())?;
        for transform in &self.down {
            value = evaluator.mod_down_rescale(&transform.apply(evaluator, &value, true)?)?;
        }
        Ok(value)
    }

    pub(super) fn encapsulate<K: EvaluationKeys>(
        &self,
        evaluator: &Evaluator<K>,
        bottom: &Ciphertext,
    ) -> Result<Ciphertext, Error> {
        let _span = tracing::debug_span!("encapsulate").entered();
        hazmat::switch_by_source(evaluator, "encapsulate", bottom)
    }

    fn raise<K: EvaluationKeys>(
        &self,
        evaluator: &Evaluator<ShortKeys<'_, K>>,
        sparse: Ciphertext,
    ) -> Result<Ciphertext, Error> {
        let _span = tracing::debug_span!("mod_raise").entered();
        let params = evaluator.params();
        let level = evaluator.keys().short(self.raised_level());
        let (id, slots) = (sparse.key_id(), sparse.slots());
        let limbs = params.limbs(level);
        let parts = sparse
            .into_parts()
            .into_iter()
            .map(|part| lift_centred(params, part, limbs))
            .collect::<Result<_, _>>()?;
        let raised = Ciphertext::from_parts(params, id, parts, level, params.rescale_factor(0), slots)?;
        hazmat::switch_by_source(evaluator, "mod_raise", &raised)
    }

    fn project<K: EvaluationKeys>(
        &self,
        evaluator: &Evaluator<ShortKeys<'_, K>>,
        mut value: Ciphertext,
    ) -> Result<Ciphertext, Error> {
        let _span = tracing::debug_span!("sub_sum").entered();
        for elements in self.sub_sum() {
            let special = match elements.first() {
                Some(&element) => {
                    hazmat::galois_special(evaluator, "sub_sum", element, value.level(), value.key_id())?
                }
                None => continue,
            };
            value = evaluator.mod_down(&hazmat::rotated_sum(
                evaluator,
                &evaluator.hoist(&value)?,
                &elements,
                special,
            )?)?;
        }
        let gap = (self.params.slots() / self.slots) as f64;
        let scale = value.scale() * Scale::new(gap);
        value.with_scale(scale)
    }

    /// The inputs `i·x/B` of the modular reduction: of the real parts and, for complex content, of
    /// the imaginary parts.
    fn to_slots<K: EvaluationKeys>(
        &self,
        evaluator: &Evaluator<ShortKeys<'_, K>>,
        mut value: Ciphertext,
    ) -> Result<Vec<Ciphertext>, Error> {
        let _span = tracing::debug_span!("coeffs_to_slots").entered();
        let Some((last, first)) = self.up.split_last() else {
            return Err(Error::OperandCount { operation: "coefficients to slots", left: 0, right: 1 });
        };
        for transform in first {
            let keep = self.keeps(transform);
            value = evaluator.mod_down_rescale(&transform.apply(evaluator, &value, keep)?)?;
        }
        let value = evaluator.mod_down(&last.apply(evaluator, &value, true)?)?;
        let conjugate = evaluator.conjugate(&value)?;
        let real = evaluator.mul_i(&evaluator.add(&value, &conjugate)?)?;
        let mut inputs = vec![real];
        if self.content == Content::Complex {
            inputs.push(evaluator.sub(&value, &conjugate)?);
        }
        drop((value, conjugate));
        // The values are multiples of x known only here: all of it is in the scale.
        let scale = Scale::new(self.profile.input_scale.exp2());
        inputs.into_iter().map(|input| evaluator.rescale(&input)?.with_scale(scale)).collect()
    }

    fn reduce<K: EvaluationKeys>(
        &self,
        evaluator: &Evaluator<ShortKeys<'_, K>>,
        inputs: Vec<Ciphertext>,
        scale: Scale,
        ratio: f64,
    ) -> Result<Vec<Ciphertext>, Error> {
        let _span = tracing::debug_span!("eval_mod").entered();
        let evaluate = |input: Ciphertext| {
            let value =
                self.eval_mod.evaluate(&mut Encrypted { evaluator }, &input, scale.to_f64(), ratio)?;
            drop(input);
            evaluator.relinearise(&value)
        };
        if rayon::current_num_threads() == 1 {
            return inputs.into_iter().map(evaluate).collect();
        }
        inputs.into_par_iter().map(evaluate).collect()
    }

    /// `2·Im` of one result, or of two as real and imaginary part, rescaled: the refreshed message.
    fn combine<K: EvaluationKeys>(
        &self,
        evaluator: &Evaluator<ShortKeys<'_, K>>,
        parts: &[Ciphertext],
        scale: Scale,
    ) -> Result<Ciphertext, Error> {
        let _span = tracing::debug_span!("combine").entered();
        let [real, rest @ ..] = parts else {
            return Err(Error::OperandCount { operation: "modular reduction", left: 0, right: 1 });
        };
        let turned = evaluator.mul_i(real)?;
        let result = match rest.first() {
            // 2·Im x = -(ix + conj(ix)).
            None => {
                let mut sum = evaluator.conjugate(&turned)?;
                evaluator.add_assign(&mut sum, &turned)?;
                evaluator.neg(&sum)?
            }
            // (x + iy - conj(x - iy))/i = (y - ix) - conj(y + ix).
            Some(imaginary) => {
                let imaginary = imaginary.clone().with_scale(turned.scale())?;
                let conjugate = evaluator.conjugate(&evaluator.add(&imaginary, &turned)?)?;
                let mut difference = evaluator.sub(&imaginary, &turned)?;
                evaluator.sub_assign(&mut difference, &conjugate)?;
                difference
            }
        };
        // The scale of the exponential was chosen so that this is its scale, up to the rounding of
        // f64.
        evaluator.rescale(&result)?.with_scale(scale)
    }
}

/// The coefficients of a polynomial modulo the bottom prime, as the integers in `[-q/2, q/2]`,
/// modulo many primes.
fn lift_centred(params: &Params, part: Poly<Eval>, limbs: &Limbs) -> Result<Poly<Eval>, Error> {
    let part = part.into_coeff();
    let coefficients: Vec<i64> = if part.limbs().len() == 1 {
        let q = params.prime(0)? as i64;
        let centred = |&x: &f64| {
            let x = x as i64;
            if 2 * x > q { x - q } else { x }
        };
        part.limb(0)?.iter().map(centred).collect()
    } else {
        part.to_f64().iter().map(|&x| x as i64).collect()
    };
    Ok(Poly::from_i64(params.ring(), limbs, &coefficients)?.into_eval())
}
