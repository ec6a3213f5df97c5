//! The inner product of digits with a switching key.

use cipherlm_ring::{Eval, KeyDigits, Poly};

use super::Evaluator;
use crate::Error;
use crate::keys::{EvaluationKeys, SwitchingKey};

impl<K: EvaluationKeys> Evaluator<K> {
    /// One limb of [`cipherlm_ring::key_product`], for those who go on with it before the next.
    pub(super) fn key_product_limb(
        &self,
        limb: usize,
        outputs: &mut [[&mut [f64]; 2]],
        digits: &[&[Poly<Eval>]],
        key: &SwitchingKey,
    ) -> Result<(), Error> {
        let ring = self.params.ring();
        let count = digits.first().map_or(0, |digits| digits.len());
        let operands: Vec<Vec<&[f64]>> = digits
            .iter()
            .map(|list| list.iter().map(|digit| digit.limb(limb)).collect::<Result<_, _>>())
            .collect::<Result<_, _>>()?;
        key.limb(ring, limb, count)?.product(ring.kernel(), ring.modulus(limb)?, outputs, &operands);
        Ok(())
    }
}
