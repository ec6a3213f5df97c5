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
        let mut parts = Vec::with_capacity(count);
        for _ in 0..count {
            parts.push(Poly::zero(ring, limbs)?);
        }
        for p in products {
            let (a, b) = (&p.left.parts, &p.right.parts);
            parts[0].mul_add_assign(&a[0], &b[0])?;
            parts[2].mul_add_assign(&a[1], &b[1])?;
            parts[1].mul_add_assign(&a[0], &b[1])?;
            if std::ptr::eq(p.left, p.right) {
                parts[1].scale_integer_assign(2);
            } else {
                parts[1].mul_add_assign(&a[1], &b[0])?;
            }
        }
        // All products of one sum have the same weight.
        if let Some(weight) = products.first().map(|p| p.weight).filter(|&w| w != 1) {
            parts.iter_mut().for_each(|part| part.scale_integer_assign(i128::from(weight)));
        }
        for &(c, value) in linear {
            let factors = self.residues(level, (c * scale / value.scale.to_f64()).round() as i128)?;
            for (part, addend) in parts.iter_mut().zip(&value.parts) {
                part.add_scaled_assign(addend, limbs, &factors)?;
            }
        }
        if constant != 0.0 {
            parts[0].add_constant_assign(&self.residues(level, (constant * scale).round() as i128)?)?;
        }
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
    fn residues(&self, level: usize, integer: i128) -> Result<Vec<u64>, Error> {
        let params = self.evaluator.params();
        params.limbs(level).iter().map(|i| Ok(params.ring().modulus(i)?.reduce_i128(integer))).collect()
    }
}
