//! Small tools on vectors of any machine.

use cipherlm_circuits::slots::{self, Machine, Primitives};

/// Suffix of the label under which the power and its mask are recorded.
pub(crate) const POWER_LABEL: &str = ".power";

/// The vectors of one node.
pub(crate) type Value<M> = Vec<<M as Primitives>::Vector>;

/// `vector` at `level`, canonical; unchanged if it is there.
pub(crate) fn lower<M: Machine>(machine: &M, vector: &M::Vector, level: usize) -> slots::Result<M::Vector> {
    if machine.level(vector) == level && machine.is_canonical(vector) {
        return Ok(vector.clone());
    }
    machine.to_level(vector, level)
}

/// Copies the first of every `count` slots to all of them, where the others are zero. Rotates to
/// the left only, by the steps of a sum over the same slots: one more rotation than the other way
/// round, and hardly any key.
pub(crate) fn spread<M: Machine>(machine: &M, vector: &M::Vector, count: usize) -> slots::Result<M::Vector> {
    machine.rotate_sum(&machine.rotate(vector, 1 - count as i64)?, 1, count)
}

/// `x^p` for p = 2, 4, 6, 8, 16.
pub(crate) fn power<M: Machine>(machine: &M, x: &M::Vector, p: u32) -> slots::Result<M::Vector> {
    let square = machine.square(x)?;
    if p == 6 {
        let fourth = machine.square(&square)?;
        return machine.mul(&fourth, &square);
    }
    (1..p.trailing_zeros()).try_fold(square, |x, _| machine.square(&x))
}

/// Levels of `x^p`.
pub(crate) fn power_depth(p: u32) -> usize {
    p.next_power_of_two().trailing_zeros() as usize
}
