//! The inner product of digits with a switching key, in whatever form the key is held.

use cipherlm_ring::{Eval, Poly};

use super::Evaluator;
use crate::keys::{EvaluationKeys, KeyLimb, SwitchingKey};
use crate::{Error, par};

/// One limb of both halves of a result.
type Pair<'a> = [&'a mut [f64]; 2];

impl<K: EvaluationKeys> Evaluator<K> {
    /// `accs[i] = sum_j digits[i][j] * key[j]` for both halves of the key, over the limbs of the accumulators, which are all alike.
    pub(super) fn key_product(
        &self,
        accs: &mut [[&mut Poly<Eval>; 2]],
        digits: &[&[Poly<Eval>]],
        key: &SwitchingKey,
    ) -> Result<(), Error> {
        let limbs = accs.first().map_or(0, |[acc, _]| acc.limbs().len());
        let mut tasks: Vec<(usize, Vec<Pair<'_>>)> = (0..limbs).map(|_| (0, Vec::new())).collect();
        for [acc0, acc1] in accs.iter_mut() {
            for (task, ((limb, a0), (_, a1))) in tasks.iter_mut().zip(acc0.iter_mut().zip(acc1.iter_mut())) {
                task.0 = limb;
                task.1.push([a0, a1]);
            }
        }
        par::try_for_each(tasks, |(limb, mut outputs)| self.key_product_limb(limb, &mut outputs, digits, key))
    }

    /// One limb of the product. Each block of the key is read, and unpacked, once for all operands.
    pub(super) fn key_product_limb(
        &self,
        limb: usize,
        outputs: &mut [Pair<'_>],
        digits: &[&[Poly<Eval>]],
        key: &SwitchingKey,
    ) -> Result<(), Error> {
        let (ring, degree) = (self.params.ring(), self.params.degree());
        let modulus = ring.modulus(limb)?;
        let count = digits.first().map_or(0, |digits| digits.len());
        let mut source = KeyLimb::new(&self.params, &key.body, &key.seed, &key.limbs(), limb, count)?;
        let operands: Vec<Vec<&[f64]>> = digits
            .iter()
            .map(|list| list.iter().map(|digit| digit.limb(limb)).collect::<Result<_, _>>())
            .collect::<Result<_, _>>()?;
        let block = source.block(operands.len(), degree);
        let mut tile = vec![0.0; source.tile(count, block)];
        for start in (0..degree).step_by(block) {
            source.product(ring.kernel(), modulus, &(start..start + block), &mut tile, outputs, &operands);
        }
        Ok(())
    }
}
