//! The modular reduction's arithmetic on ciphertexts.

use cipherlm_ring::Poly;

use super::eval_mod::{ModArithmetic, Sum};
use cipherlm_ckks::keys::EvaluationKeys;
use cipherlm_ckks::{Ciphertext, Error, Evaluator, Scale};

/// Runs [`super::eval_mod::EvalMod`] on ciphertexts.
pub(super) struct Encrypted<'a, K> {
    pub(super) evaluator: &'a Evaluator<K>,
}

/// The factors of a sum as they are multiplied: encoded at its scale.
struct Integers {
    weight: i128,
    linear: Vec<i128>,
    constant: i128,
}

impl<K: EvaluationKeys> ModArithmetic for Encrypted<'_, K> {
    type Value = Ciphertext;
    type Error = Error;

    fn level(&self, value: &Ciphertext) -> usize {
        value.level()
    }

    fn scale(&self, value: &Ciphertext) -> f64 {
        value.scale().to_f64()
    }

    fn divisor(&self, level: usize) -> f64 {
        self.evaluator.params().rescale_factor(level).to_f64()
    }

    fn fused(&mut self, level: usize, scale: f64, sum: &Sum<'_, Ciphertext>) -> Result<Ciphertext, Error> {
        let params = self.evaluator.params();
        let (ring, limbs) = (params.ring(), params.limbs(level));
        let Some(first) = sum.products.first().map(|p| p.0).or(sum.linear.first().map(|l| l.1)) else {
            return Err(Error::OperandCount { operation: "modular reduction", left: 0, right: 0 });
        };
        let count = if sum.products.is_empty() { 2 } else { 3 };
        let mut parts = (0..count).map(|_| Poly::scratch(ring, limbs)).collect::<Result<Vec<_>, _>>()?;
        let integers = Integers {
            weight: i128::from(sum.weight),
            linear: sum
                .linear
                .iter()
                .map(|&(c, v)| (c * scale / v.scale().to_f64()).round() as i128)
                .collect(),
            constant: (sum.constant * scale).round() as i128,
        };
        let mut tasks: Vec<(usize, Vec<&mut [f64]>)> =
            limbs.iter().map(|limb| (limb, Vec::with_capacity(count))).collect();
        for part in &mut parts {
            tasks.iter_mut().zip(part.iter_mut()).for_each(|(task, (_, limb))| task.1.push(limb));
        }
        cipherlm_ring::par::try_for_each(tasks, |(limb, mut outputs)| {
            self.fused_limb(limb, &mut outputs, sum, &integers)
        })?;
        // Exact for products; they agree with `scale` up to the rounding of f64, far below that of
        // the coefficients.
        let scale = sum.products.first().map_or_else(|| Scale::new(scale), |p| p.0.scale() * p.1.scale());
        Ciphertext::from_parts(params, first.key_id(), parts, level, scale, first.slots())
    }

    fn rescale(&mut self, value: Ciphertext) -> Result<Ciphertext, Error> {
        self.evaluator.relinearise_rescale(&value)
    }
}

impl<K: EvaluationKeys> Encrypted<'_, K> {
    /// One limb of a fused sum, block by block, so that the sum is written to memory once.
    fn fused_limb(
        &self,
        limb: usize,
        outputs: &mut [&mut [f64]],
        sum: &Sum<'_, Ciphertext>,
        integers: &Integers,
    ) -> Result<(), Error> {
        const BLOCK: usize = 1024;
        let params = self.evaluator.params();
        let (ring, degree) = (params.ring(), params.degree());
        let (modulus, kernel) = (ring.modulus(limb)?, ring.kernel());
        let scalar = |integer: i128| modulus.reduce_i128(integer) as f64;
        for start in (0..degree).step_by(BLOCK) {
            let block = start..(start + BLOCK).min(degree);
            for output in outputs.iter_mut() {
                output[block.clone()].fill(0.0);
            }
            for (a, b) in sum.products {
                let [a0, a1] =
                    [&a.parts()[0].limb(limb)?[block.clone()], &a.parts()[1].limb(limb)?[block.clone()]];
                let [b0, b1] =
                    [&b.parts()[0].limb(limb)?[block.clone()], &b.parts()[1].limb(limb)?[block.clone()]];
                let mut term = |i: usize, a: &[f64], b: &[f64]| {
                    (kernel.mul_add)(modulus, &mut outputs[i][block.clone()], a, b)
                };
                term(0, a0, b0);
                term(2, a1, b1);
                term(1, a0, b1);
                term(1, a1, b0);
            }
            if integers.weight != 1 && !sum.products.is_empty() {
                for output in outputs.iter_mut() {
                    (kernel.mul_scalar)(modulus, &mut output[block.clone()], scalar(integers.weight));
                }
            }
            for (&c, (_, value)) in integers.linear.iter().zip(sum.linear) {
                for (output, part) in outputs.iter_mut().zip(value.parts()) {
                    let part = &part.limb(limb)?[block.clone()];
                    (kernel.mul_scalar_add)(modulus, &mut output[block.clone()], part, scalar(c));
                }
            }
            if integers.constant != 0 {
                let c = scalar(integers.constant);
                outputs[0][block.clone()].iter_mut().for_each(|x| *x = modulus.add_f64(*x, c));
            }
        }
        Ok(())
    }
}
