//! Sums over blocks of consecutive slots, packed; and the products of attention built from them.
//!
//! In the token-major layout a head is a block of consecutive slots, and a score is a sum over a
//! block. One such sum per vector wastes a whole vector on one useful slot per block. The rotations
//! of a sum can be chosen so that it ends in *any* slot of its block, at no cost: vector `j` of a
//! list ends in slot `j`, one mask per vector keeps that slot, and up to `block` vectors of sums
//! become one. Whatever is done to the sums next (powers, inverses) is then done once. Spreading is
//! the same in reverse.

use crate::slots::{Machine, Plain, SlotError, SlotResult};
use num_complex::Complex64;
use std::collections::BTreeSet;

/// Sums over blocks of `block` consecutive slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockSums {
    slots: usize,
    block: usize,
}

/// Packed real values of a list of vectors in two halves: entry `2 j` in slot `j` of each block of
/// `even`, entry `2 j + 1` in slot `j` of `odd`.
#[derive(Clone, Debug)]
pub struct Packed<V> {
    /// Entries of even index.
    pub even: V,
    /// Entries of odd index.
    pub odd: V,
}

impl BlockSums {
    /// Blocks of `block` slots (a power of two) in vectors of `slots`.
    ///
    /// # Errors
    /// [`SlotError::Shape`] if either is not a power of two or the block is larger than the vector.
    pub fn new(slots: usize, block: usize) -> SlotResult<Self> {
        for (what, have) in [("number of slots", slots), ("block size", block)] {
            if !have.is_power_of_two() {
                return Err(SlotError::Shape { what, have, need: have.next_power_of_two() });
            }
        }
        if block > slots {
            return Err(SlotError::Shape { what: "block size", have: block, need: slots });
        }
        Ok(Self { slots, block })
    }

    /// Slots per block.
    pub fn block(&self) -> usize {
        self.block
    }

    /// Entries that a [`Packed`] holds.
    pub fn capacity(&self) -> usize {
        2 * self.block
    }

    /// All rotations that any of the operations can use, each in `1 .. slots`.
    pub fn rotations(&self) -> BTreeSet<usize> {
        let slots = self.slots as i64;
        let steps = (0..self.block).flat_map(|slot| self.stages(slot)).flatten();
        steps.flat_map(|step| [step, -step]).map(|step| step.rem_euclid(slots) as usize).collect()
    }

    /// One vector per up to `block` vectors: the sum over each block of vector `j`, times
    /// `factors[j]` there, in slot `j` of the block (counted from 0 again after each `block`
    /// vectors). One level; other slots are zero.
    ///
    /// Factors may vary from block to block: slot `j` of each block is what counts.
    ///
    /// # Errors
    /// [`SlotError::OperandCount`] if there is no vector or not one factor per vector, else those
    /// of the machine.
    pub fn gather<M: Machine>(
        &self,
        machine: &M,
        vectors: &[M::Vector],
        factors: &[Plain],
    ) -> SlotResult<Vec<M::Vector>> {
        if vectors.is_empty() || factors.len() != vectors.len() {
            let (have, need) = (factors.len(), vectors.len().max(1));
            return Err(SlotError::OperandCount { operation: "gather", have, need });
        }
        let mut gathered = Vec::with_capacity(vectors.len().div_ceil(self.block));
        for (vectors, factors) in vectors.chunks(self.block).zip(factors.chunks(self.block)) {
            let mut total: Option<M::Vector> = None;
            for (slot, (vector, factor)) in vectors.iter().zip(factors).enumerate() {
                let sum = self.sum_into(machine, &machine.settle(vector)?, slot)?;
                accumulate(machine, &mut total, machine.mul_plain_lazy(&sum, &self.only(slot, factor))?)?;
            }
            if let Some(total) = total {
                gathered.push(machine.rescale(&total)?);
            }
        }
        Ok(gathered)
    }

    /// The value in slot `slot` of each block, times `factor` there, in every slot of the block.
    /// One level.
    ///
    /// # Errors
    /// [`SlotError::Shape`] if there is no such slot, else those of the machine.
    pub fn spread<M: Machine>(
        &self,
        machine: &M,
        packed: &M::Vector,
        slot: usize,
        factor: &Plain,
    ) -> SlotResult<M::Vector> {
        if slot >= self.block {
            return Err(SlotError::Shape { what: "slot of a block", have: slot, need: self.block });
        }
        let single = machine.mul_plain(packed, &self.only(slot, factor))?;
        self.spread_single(machine, single, slot)
    }

    /// The sum over each block, times `factor`, in every slot of the block. One level.
    ///
    /// # Errors
    /// Those of the machine.
    pub fn sum_everywhere<M: Machine>(
        &self,
        machine: &M,
        vector: &M::Vector,
        factor: &Plain,
    ) -> SlotResult<M::Vector> {
        let sum = self.sum_into(machine, &machine.settle(vector)?, 0)?;
        let single = machine.mul_plain(&sum, &self.only(0, factor))?;
        self.spread_single(machine, single, 0)
    }

    /// Inner products over each block of `left` with every vector of `rights`, all real: entry `j`
    /// is the sum over the block of `left * rights[j]`, times `factors[j]`. Two levels.
    ///
    /// Two right-hand sides travel as one complex vector, which halves the products and the
    /// rotations of the sums.
    ///
    /// # Errors
    /// [`SlotError::OperandCount`] if there is nothing to do, more than [`BlockSums::capacity`]
    /// vectors, or not one factor each; else those of the machine.
    pub fn inner_products<M: Machine>(
        &self,
        machine: &M,
        left: &M::Vector,
        rights: &[M::Vector],
        factors: &[Plain],
    ) -> SlotResult<Packed<M::Vector>> {
        if rights.is_empty() || rights.len() > self.capacity() || factors.len() != rights.len() {
            let (have, need) = (rights.len(), factors.len().clamp(1, self.capacity()));
            return Err(SlotError::OperandCount { operation: "inner_products", have, need });
        }
        let (mut mean, mut rest): (Option<M::Vector>, Option<M::Vector>) = (None, None);
        for (slot, (pair, factors)) in rights.chunks(2).zip(factors.chunks(2)).enumerate() {
            let right = match pair {
                [first, second] => machine.add(first, &machine.mul_i(second)?)?,
                _ => pair[0].clone(),
            };
            let sum = self.sum_into(machine, &machine.mul(left, &right)?, slot)?;
            // With factors a and b for the real and imaginary part: a Re v + i b Im v = (a + b) / 2
            // v + (a - b) / 2 conj(v). A further half makes up for taking parts by v + conj(v).
            let (first, second) = (&factors[0], factors.last().unwrap_or(&factors[0]));
            let common = self.mix(slot, first, second, 0.25, 0.25);
            accumulate(machine, &mut mean, machine.mul_plain_lazy(&sum, &common)?)?;
            let difference = self.mix(slot, first, second, 0.25, -0.25);
            if !difference.is_zero() {
                accumulate(machine, &mut rest, machine.mul_plain_lazy(&sum, &difference)?)?;
            }
        }
        let mean = mean.ok_or(SlotError::OperandCount { operation: "inner_products", have: 0, need: 1 })?;
        let sums = match rest {
            Some(rest) => machine.add(&mean, &machine.conjugate(&rest)?)?,
            None => mean,
        };
        let (even, odd) = twice_parts(machine, &machine.rescale(&sums)?)?;
        Ok(Packed { even, odd })
    }

    /// Sum over all entries of `weights[entry] * values[entry]`, where a weight counts for its
    /// whole block; weights and values real. Two levels below the weights.
    ///
    /// # Errors
    /// [`SlotError::OperandCount`] if there are no values or more than [`BlockSums::capacity`],
    /// else those of the machine.
    pub fn weighted_sum<M: Machine>(
        &self,
        machine: &M,
        weights: &Packed<M::Vector>,
        values: &[M::Vector],
    ) -> SlotResult<M::Vector> {
        if values.is_empty() || values.len() > self.capacity() {
            let (have, need) = (values.len(), self.capacity());
            return Err(SlotError::OperandCount { operation: "weighted_sum", have, need });
        }
        let paired = machine.add(&weights.even, &machine.mul_i(&weights.odd)?)?;
        let half = Plain::from(0.5);
        let mut terms = Vec::with_capacity(values.len().div_ceil(2));
        for (slot, pair) in values.chunks(2).enumerate() {
            let weight = self.spread(machine, &paired, slot, &half)?;
            let value = match pair {
                [first, second] => machine.sub(first, &machine.mul_i(second)?)?,
                _ => pair[0].clone(),
            };
            terms.push((weight, value));
        }
        // Re((w + i w') (v - i v')) = w v + w' v'.
        let pairs: Vec<_> = terms.iter().map(|(weight, value)| (weight, value)).collect();
        machine.twice_real(&machine.mul_sum(&pairs)?)
    }

    /// Sum over all entries, in every slot of the block. One level.
    ///
    /// # Errors
    /// Those of the machine.
    pub fn total<M: Machine>(&self, machine: &M, packed: &Packed<M::Vector>) -> SlotResult<M::Vector> {
        self.sum_everywhere(machine, &machine.add(&packed.even, &packed.odd)?, &Plain::from(1.0))
    }

    /// Rotation steps, stage by stage of two bits, after which slot `slot` of each block holds the
    /// block's sum.
    fn stages(&self, slot: usize) -> Vec<Vec<i64>> {
        let bits = self.block.trailing_zeros();
        let stage = |low: u32| {
            let width = (bits - low).min(2);
            let own = (slot >> low & ((1 << width) - 1)) as i64;
            (0..1i64 << width).filter(|&digit| digit != own).map(|digit| (digit - own) << low).collect()
        };
        (0..bits).step_by(2).map(stage).collect()
    }

    fn sum_into<M: Machine>(&self, machine: &M, vector: &M::Vector, slot: usize) -> SlotResult<M::Vector> {
        self.stages(slot).iter().try_fold(vector.clone(), |sum, steps| machine.rotate_add(&sum, steps))
    }

    /// Spreads a vector whose only nonzero slot in each block is `slot`.
    fn spread_single<M: Machine>(
        &self,
        machine: &M,
        single: M::Vector,
        slot: usize,
    ) -> SlotResult<M::Vector> {
        self.stages(slot).iter().try_fold(single, |spread, steps| {
            let back: Vec<i64> = steps.iter().map(|step| -step).collect();
            machine.rotate_add(&spread, &back)
        })
    }

    /// `factor` in slot `slot` of each block, zero elsewhere.
    fn only(&self, slot: usize, factor: &Plain) -> Plain {
        let period = self.block.max(factor.period());
        let value = |i: usize| if i % self.block == slot { factor.value(i) } else { Complex64::ZERO };
        real_if_possible((0..period).map(value).collect())
    }

    /// `a * first + b * second` in slot `slot` of each block, zero elsewhere.
    fn mix(&self, slot: usize, first: &Plain, second: &Plain, a: f64, b: f64) -> Plain {
        let period = first.period().max(second.period());
        let sum = (0..period).map(|i| first.value(i) * a + second.value(i) * b).collect();
        self.only(slot, &real_if_possible(sum))
    }
}

fn accumulate<M: Machine>(machine: &M, total: &mut Option<M::Vector>, term: M::Vector) -> SlotResult<()> {
    *total = Some(match total.take() {
        Some(total) => machine.add(&total, &term)?,
        None => term,
    });
    Ok(())
}

/// Twice the real and twice the imaginary part.
fn twice_parts<M: Machine>(machine: &M, vector: &M::Vector) -> SlotResult<(M::Vector, M::Vector)> {
    let conjugate = machine.conjugate(vector)?;
    let real = machine.add(vector, &conjugate)?;
    Ok((real, machine.mul_i(&machine.sub(&conjugate, vector)?)?))
}

fn real_if_possible(values: Vec<Complex64>) -> Plain {
    if values.iter().all(|value| value.im == 0.0) {
        return Plain::real(values.iter().map(|value| value.re).collect::<Vec<_>>());
    }
    Plain::complex(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::{Chain, Clear, ClearVector, OpKind};

    const SLOTS: usize = 64;

    fn value(seed: usize, index: usize) -> f64 {
        ((seed * 31 + index * 17 + 5) % 23) as f64 / 11.0 - 1.0
    }

    fn vectors(m: &Clear, count: usize) -> Vec<ClearVector> {
        (0..count).map(|k| m.input((0..SLOTS).map(|i| value(k, i)).collect::<Vec<_>>(), 5).unwrap()).collect()
    }

    fn machine() -> Clear {
        Clear::new(Chain::uniform(SLOTS, 5, 40, 60).unwrap())
    }

    fn block_sum(i: usize, block: usize, f: impl Fn(usize) -> f64) -> f64 {
        (i / block * block..(i / block + 1) * block).map(f).sum()
    }

    #[test]
    fn sums_gather_in_their_slots_and_spread_again() {
        for block in [2, 4, 8, 16] {
            let m = machine();
            let sums = BlockSums::new(SLOTS, block).unwrap();
            let inputs = vectors(&m, block + 1);
            let factor = Plain::real((0..SLOTS).map(|i| value(9, i)).collect::<Vec<_>>());
            let factors = vec![factor.clone(); inputs.len()];
            let packed = sums.gather(&m, &inputs, &factors).unwrap();
            assert_eq!(packed.len(), 2);
            for (j, _) in inputs.iter().enumerate() {
                let (vector, slot) = (&packed[j / block], j % block);
                let spread = sums.spread(&m, vector, slot, &Plain::from(2.0)).unwrap();
                assert_eq!((m.level(vector), m.level(&spread)), (4, 3));
                for (i, spread) in spread.real().into_iter().enumerate() {
                    let at = i / block * block + slot;
                    let expected = value(9, at) * block_sum(i, block, |i| value(j, i));
                    assert!((vector.real()[at] - expected).abs() < 1e-9);
                    assert!((spread - 2.0 * expected).abs() < 1e-9);
                }
            }
            let everywhere = sums.sum_everywhere(&m, &inputs[0], &Plain::from(0.5)).unwrap();
            for (i, sum) in everywhere.real().into_iter().enumerate() {
                assert!((sum - 0.5 * block_sum(i, block, |i| value(0, i))).abs() < 1e-9);
            }
            let used: BTreeSet<usize> = m.log().keys().into_keys().filter_map(|key| key.rotation()).collect();
            assert!(used.is_subset(&sums.rotations()));
        }
    }

    #[test]
    fn attention_by_packed_inner_products() {
        let block = 8;
        for count in [1, 2, 5, 16] {
            let m = machine();
            let sums = BlockSums::new(SLOTS, block).unwrap();
            let rights = vectors(&m, count);
            let query: Vec<f64> = (0..SLOTS).map(|i| value(40, i)).collect();
            let left = m.input(query.clone(), 5).unwrap();
            // A different mask for each entry, varying between blocks.
            let mask = |j: usize, i: usize| if (i / block + j).is_multiple_of(3) { 0.0 } else { 0.25 };
            let factors: Vec<Plain> =
                (0..count).map(|j| (0..SLOTS).map(|i| mask(j, i)).collect::<Vec<_>>().into()).collect();
            let scores = sums.inner_products(&m, &left, &rights, &factors).unwrap();
            let values: Vec<_> = vectors(&m, count + 20).split_off(20);
            let result = sums.weighted_sum(&m, &scores, &values).unwrap();
            let total = sums.total(&m, &scores).unwrap();
            assert_eq!((m.level(&scores.even), m.level(&result), m.level(&total)), (3, 1, 2));
            for i in 0..SLOTS {
                let score = |j: usize| mask(j, i) * block_sum(i, block, |i| query[i] * value(j, i));
                let expected: f64 = (0..count).map(|j| score(j) * value(20 + j, i)).sum();
                assert!((result.slots().unwrap()[i] - expected).norm() < 1e-8, "count {count} slot {i}");
                let all: f64 = (0..count).map(score).sum();
                assert!((total.slots().unwrap()[i] - all).norm() < 1e-8);
            }
            assert_eq!(m.log().total(OpKind::Relin).count as usize, count.div_ceil(2) + 1);
        }
    }

    #[test]
    fn bad_operands_are_refused() {
        let m = machine();
        let sums = BlockSums::new(SLOTS, 4).unwrap();
        assert!(BlockSums::new(SLOTS, 6).is_err() && BlockSums::new(8, 16).is_err());
        let inputs = vectors(&m, 9);
        let factors = vec![Plain::from(1.0); 9];
        assert!(matches!(
            sums.inner_products(&m, &inputs[0], &inputs, &factors),
            Err(SlotError::OperandCount { have: 9, need: 8, .. })
        ));
        assert!(sums.gather(&m, &inputs, &factors[1..]).is_err());
        assert!(sums.spread(&m, &inputs[0], 4, &factors[0]).is_err());
    }
}
