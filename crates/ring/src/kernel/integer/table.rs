//! Twiddle factors with their quotients.

use super::field::Factor;
use crate::modulus::Modulus;

/// Powers of the root of one direction, in bit-reversed order.
#[derive(Debug)]
pub(in crate::kernel) struct IntegerTwiddles(Vec<Factor>);

impl IntegerTwiddles {
    /// From the powers as floats.
    pub(in crate::kernel) fn new(m: &Modulus, powers: &[f64]) -> Self {
        Self(powers.iter().map(|&w| Factor::new(w as u64, m.value())).collect())
    }

    /// The factors of a level with so many blocks, one for each.
    pub(super) fn level(&self, blocks: usize) -> &[Factor] {
        &self.0[blocks..2 * blocks]
    }
}
