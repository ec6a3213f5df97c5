//! The modular reduction's arithmetic on ciphertexts.

use cipherlm_ring::Poly;

use super::eval_mod::{ModArithmetic, Product};
use crate::keys::EvaluationKeys;
use crate::{Ciphertext, Error, Evaluator, Scale};

/// Runs [`super::eval_mod::EvalMod`] on ciphertexts.
pub(super) struct Encrypted<'a, K> {
    pub(super) evaluator: &'a Evaluator<K>,
}

impl<K: EvaluationKeys> ModArithmetic for Encrypted<'_, K> {
    type Value = Ciphertext;
    type Error = Error;

    fn level(&self, value: &Ciphertext) -> usize {
        value.level
    }

    fn scale(&self, value: &Ciphertext) -> f64 {
        value.scale.to_f64()
    }

    fn divisor(&self, level: usize) -> f64 {
        self.evaluator.params().rescale_factor(level).to_f64()
    }

    fn fused(
        &mut self,
        level: usize,
        scale: f64,
        products: &[Product<'_, Ciphertext>],
        linear: &[(f64, &Ciphertext)],
        constant: f64,
    ) -> Result<Ciphertext, Error> {
        let params = self.evaluator.params();
        let (ring, limbs) = (params.ring(), params.limbs(level));
        let Some(first) = products.first().map(|p| p.left).or(linear.first().map(|l| l.1)) else {
            return Err(Error::OperandCount { operation: "modular reduction", left: 0, right: 0 });
        };
        let count = if products.is_empty() { 2 } else { 3 };
        let mut parts = (0..count).map(|_| Poly::scratch(ring, limbs)).collect::<Result<Vec<_>, _>>()?;
        let linear: Vec<_> = linear.iter().map(|&(c, v)| ((c * scale / v.scale.to_f64()).round() as i128, v)).collect();
        let constant = (constant * scale).round() as i128;
        let mut tasks: Vec<(usize, Vec<&mut [f64]>)> =
            limbs.iter().map(|limb| (limb, Vec::with_capacity(count))).collect();
        for part in &mut parts {
            tasks.iter_mut().zip(part.iter_mut()).for_each(|(task, (_, limb))| task.1.push(limb));
        }
        crate::par::try_for_each(tasks, |(limb, mut outputs)| {
            self.fused_limb(limb, &mut outputs, products, &linear, constant)
        })?;
        // Exact for products; they agree with `scale` up to the rounding of f64, far below that of the coefficients.
        let scale = products.first().map_or_else(|| Scale::new(scale), |p| p.left.scale * p.right.scale);
        Ok(Ciphertext {
            params: params.clone(),
            key_id: first.key_id,
            parts,
            level,
            scale,
            slots: first.slots,
            seed: None,
        })
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
        products: &[Product<'_, Ciphertext>],
        linear: &[(i128, &Ciphertext)],
        constant: i128,
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
            for p in products {
                let [a0, a1] =
                    [&p.left.parts[0].limb(limb)?[block.clone()], &p.left.parts[1].limb(limb)?[block.clone()]];
                let [b0, b1] =
                    [&p.right.parts[0].limb(limb)?[block.clone()], &p.right.parts[1].limb(limb)?[block.clone()]];
                let mut term =
                    |i: usize, a: &[f64], b: &[f64]| (kernel.mul_add)(modulus, &mut outputs[i][block.clone()], a, b);
                term(0, a0, b0);
                term(2, a1, b1);
                term(1, a0, b1);
                term(1, a1, b0);
            }
            // All products of one sum have the same weight.
            if let Some(weight) = products.first().map(|p| p.weight).filter(|&w| w != 1) {
                for output in outputs.iter_mut() {
                    (kernel.mul_scalar)(modulus, &mut output[block.clone()], scalar(i128::from(weight)));
                }
            }
            for (c, value) in linear {
                for (output, part) in outputs.iter_mut().zip(&value.parts) {
                    (kernel.mul_scalar_add)(
                        modulus,
                        &mut output[block.clone()],
                        &part.limb(limb)?[block.clone()],
                        scalar(*c),
                    );
                }
            }
            if constant != 0 {
                let c = scalar(constant);
                outputs[0][block.clone()].iter_mut().for_each(|x| *x = modulus.add_f64(*x, c));
            }
        }
        Ok(())
    }
}
