//! The inner product of digits with a switching key, in whatever form the key is held.

use cipherlm_ring::{Eval, Poly, inner_product_many};

use super::Evaluator;
use crate::keys::{EvaluationKeys, KeyBody, KeyLimb, SwitchingKey};
use crate::{Error, par};

/// Residues of a key unpacked together: all digits of both halves stay in the second-level cache.
const BLOCK: usize = 2048;

impl<K: EvaluationKeys> Evaluator<K> {
    /// `accs[i] = sum_j digits[i][j] * key[j]` for both halves of the key, over the limbs of the accumulators, which are all alike.
    /// Each block of the key is read, and unpacked, once for all operands.
    pub(super) fn key_product(
        &self,
        accs: &mut [[&mut Poly<Eval>; 2]],
        digits: &[&[Poly<Eval>]],
        key: &SwitchingKey,
    ) -> Result<(), Error> {
        if let KeyBody::Expanded(pairs) = &key.body {
            return Ok(inner_product_many(accs, digits, pairs, None)?);
        }
        let limbs = accs.first().map_or(0, |[acc, _]| acc.limbs().len());
        let mut tasks: Vec<(usize, Vec<[&mut [f64]; 2]>)> = (0..limbs).map(|_| (0, Vec::new())).collect();
        for [acc0, acc1] in accs.iter_mut() {
            for (task, ((limb, a0), (_, a1))) in tasks.iter_mut().zip(acc0.iter_mut().zip(acc1.iter_mut())) {
                task.0 = limb;
                task.1.push([a0, a1]);
            }
        }
        par::try_for_each(tasks, |(limb, outputs)| self.compact_limb(limb, outputs, digits, key))
    }

    /// One limb of the product with a key that is not expanded.
    fn compact_limb(
        &self,
        limb: usize,
        mut outputs: Vec<[&mut [f64]; 2]>,
        digits: &[&[Poly<Eval>]],
        key: &SwitchingKey,
    ) -> Result<(), Error> {
        let (ring, degree) = (self.params.ring(), self.params.degree());
        let (modulus, inner_product) = (ring.modulus(limb)?, ring.kernel().inner_product2);
        let missing = cipherlm_ring::Error::LimbOutOfRange { index: limb, count: key.limbs().len() };
        let position = key.limbs().position(limb).ok_or(missing)?;
        let count = digits.first().map_or(0, |digits| digits.len());
        let Some(mut source) = KeyLimb::new(&key.body, &key.seed, count, position, modulus) else { return Ok(()) };
        let operands: Vec<Vec<&[f64]>> = digits
            .iter()
            .map(|list| list.iter().map(|digit| digit.limb(limb)).collect::<Result<_, _>>())
            .collect::<Result<_, _>>()?;
        let mut tile = vec![0.0; 2 * count * BLOCK.min(degree)];
        for start in (0..degree).step_by(BLOCK) {
            let block = start..degree.min(start + BLOCK);
            source.next(&block, &mut tile);
            let halves = tile.chunks_exact(block.len());
            let (key0, key1): (Vec<&[f64]>, Vec<&[f64]>) =
                (halves.clone().step_by(2).collect(), halves.skip(1).step_by(2).collect());
            for ([out0, out1], operand) in outputs.iter_mut().zip(&operands) {
                let digits: Vec<&[f64]> = operand.iter().map(|digit| &digit[block.clone()]).collect();
                let (out0, out1) = (&mut out0[block.clone()], &mut out1[block.clone()]);
                out0.fill(0.0);
                out1.fill(0.0);
                inner_product(modulus, out0, out1, &digits, &key0, &key1, None);
            }
        }
        Ok(())
    }
}
