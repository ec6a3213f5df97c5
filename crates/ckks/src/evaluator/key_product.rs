//! The inner product of digits with a switching key, in whatever form the key is held.

use cipherlm_ring::{Eval, Poly};

use super::Evaluator;
use crate::keys::{EvaluationKeys, KeyLimb, SwitchingKey};
use crate::{Error, par};

/// Residues handled together: the accumulators stay in the first-level cache, the key of a block in the second.
const BLOCK: usize = 2048;

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
        let (modulus, inner_product) = (ring.modulus(limb)?, ring.kernel().inner_product2);
        let count = digits.first().map_or(0, |digits| digits.len());
        let mut source = KeyLimb::new(&self.params, &key.body, &key.seed, &key.limbs(), limb, count)?;
        let operands: Vec<Vec<&[f64]>> = digits
            .iter()
            .map(|list| list.iter().map(|digit| digit.limb(limb)).collect::<Result<_, _>>())
            .collect::<Result<_, _>>()?;
        let block = BLOCK.min(degree);
        let mut tile = vec![0.0; source.tile(count, block)];
        for start in (0..degree).step_by(block) {
            let range = start..start + block;
            let [key0, key1] = source.next(&range, &mut tile);
            for ([out0, out1], operand) in outputs.iter_mut().zip(&operands) {
                let digits: Vec<&[f64]> = operand.iter().map(|digit| &digit[range.clone()]).collect();
                let (out0, out1) = (&mut out0[range.clone()], &mut out1[range.clone()]);
                out0.fill(0.0);
                out1.fill(0.0);
                inner_product(modulus, out0, out1, &digits, &key0, &key1, None);
            }
        }
        Ok(())
    }
}
