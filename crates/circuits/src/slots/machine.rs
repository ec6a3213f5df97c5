//! The trait that circuits are written against.

use super::align::{self, align_pairs, lower_all, meet, plain_scale, settled};
use super::{Combination, Error, Plain, Primitives, RefreshKind, Result, Scale};
use crate::linear::LinearTransform;
use num_complex::Complex64;
use std::borrow::Cow;

/// The verbs of slots: canonical vectors in, canonical vectors out; every machine has them.
pub trait Machine: Primitives {
    /// A canonical vector of public values at `level`.
    ///
    /// # Errors
    /// As [`Primitives::trivial_at`].
    fn trivial(&self, plain: &Plain, level: usize) -> Result<Self::Vector> {
        self.trivial_at(plain, level, self.chain().scale(level))
    }

    /// Rescales `vector` if it is a product; otherwise a copy of the handle.
    ///
    /// # Errors
    /// Those of [`Primitives::rescale`].
    fn settle(&self, vector: &Self::Vector) -> Result<Self::Vector> {
        settled(self, vector).map(Cow::into_owned)
    }

    /// The level that `vector` has once it is settled.
    fn settled_level(&self, vector: &Self::Vector) -> usize {
        self.level(vector) - usize::from(self.is_product(vector))
    }

    /// Brings `vector` down to `level` at that level's canonical scale, exactly: drop to the level
    /// above, multiply by one at the scale that is missing, rescale. Costs no level beyond those
    /// given up.
    ///
    /// # Errors
    /// [`Error::LevelRaise`] if the vector is below `level`; [`Error::ScaleMismatch`] if it
    /// is at `level` with another scale.
    fn to_level(&self, vector: &Self::Vector, level: usize) -> Result<Self::Vector> {
        align::to_level(self, vector, level)
    }

    /// Slotwise sum. Operands are brought to a common level; if one is a product and the other
    /// canonical at the same level, the sum is a product.
    ///
    /// # Errors
    /// If a scale cannot be matched.
    fn add(&self, left: &Self::Vector, right: &Self::Vector) -> Result<Self::Vector> {
        let (left, right) = meet(self, left, right)?;
        self.add_aligned(&left, &right)
    }

    /// Slotwise difference, aligned as in [`Machine::add`].
    ///
    /// # Errors
    /// If a scale cannot be matched.
    fn sub(&self, left: &Self::Vector, right: &Self::Vector) -> Result<Self::Vector> {
        let (left, right) = meet(self, left, right)?;
        self.sub_aligned(&left, &right)
    }

    /// Sum of all vectors.
    ///
    /// # Errors
    /// [`Error::OperandCount`] for an empty list, else those of [`Machine::add`].
    fn add_many(&self, vectors: &[&Self::Vector]) -> Result<Self::Vector> {
        let (first, rest) =
            vectors.split_first().ok_or(Error::OperandCount { operation: "add_many", have: 0, need: 1 })?;
        rest.iter().try_fold((*first).clone(), |sum, vector| self.add(&sum, vector))
    }

    /// Adds a constant to every slot.
    ///
    /// # Errors
    /// Those of [`Primitives::add_plain`].
    fn add_const(&self, vector: &Self::Vector, constant: Complex64) -> Result<Self::Vector> {
        self.add_plain(vector, &Plain::constant(constant))
    }

    /// Product with public values, as a product at the vector's level.
    ///
    /// # Errors
    /// [`Error::LevelExhausted`] at level 0, else those of [`Primitives::mul_plain_at`].
    fn mul_plain_lazy(&self, vector: &Self::Vector, plain: &Plain) -> Result<Self::Vector> {
        let vector = settled(self, vector)?;
        let scale = plain_scale(self, "mul_plain", &vector)?;
        self.mul_plain_at(&vector, plain, scale)
    }

    /// Product with public values: canonical, one level down.
    ///
    /// # Errors
    /// As [`Machine::mul_plain_lazy`], and [`Error::ValueTooSmall`] for values other than zero
    /// that are all smaller than a unit of the scale they are encoded at. (As a term of a sum such
    /// values are rounded, like all others.)
    fn mul_plain(&self, vector: &Self::Vector, plain: &Plain) -> Result<Self::Vector> {
        let vector = settled(self, vector)?;
        align::mul_plain(self, &vector, plain)
    }

    /// Product with public values, landing canonically on `level`, which may be any level below the
    /// vector's: the levels in between are given up without cost.
    ///
    /// # Errors
    /// [`Error::LevelRaise`] if the vector is not above `level`, else those of
    /// [`Primitives::mul_plain_at`].
    fn mul_plain_to(&self, vector: &Self::Vector, plain: &Plain, level: usize) -> Result<Self::Vector> {
        let vector = settled(self, vector)?;
        align::mul_plain_to(self, &vector, plain, level)
    }

    /// Product with a constant, as a product at the vector's level.
    ///
    /// # Errors
    /// As [`Machine::mul_plain_lazy`].
    fn mul_const_lazy(&self, vector: &Self::Vector, constant: Complex64) -> Result<Self::Vector> {
        self.mul_plain_lazy(vector, &Plain::constant(constant))
    }

    /// Product with a constant: canonical, one level down.
    ///
    /// # Errors
    /// As [`Machine::mul_plain_lazy`].
    fn mul_const(&self, vector: &Self::Vector, constant: Complex64) -> Result<Self::Vector> {
        self.mul_plain(vector, &Plain::constant(constant))
    }

    /// Slotwise product, relinearised, as a product at the lower of both levels.
    ///
    /// # Errors
    /// [`Error::LevelExhausted`] at level 0, or those of the alignment and of relinearisation.
    fn mul_lazy(&self, left: &Self::Vector, right: &Self::Vector) -> Result<Self::Vector> {
        self.mul_sum_lazy(&[(left, right)])
    }

    /// Slotwise product: canonical, one level below the lower operand.
    ///
    /// # Errors
    /// As [`Machine::mul_lazy`].
    fn mul(&self, left: &Self::Vector, right: &Self::Vector) -> Result<Self::Vector> {
        self.mul_sum(&[(left, right)])
    }

    /// Slotwise square: canonical, one level down.
    ///
    /// # Errors
    /// As [`Machine::mul_lazy`].
    fn square(&self, vector: &Self::Vector) -> Result<Self::Vector> {
        let vector = settled(self, vector)?;
        self.mul_sum(&[(&vector, &vector)])
    }

    /// Sum of slotwise products with one relinearisation, as a product at the lowest level of all
    /// operands.
    ///
    /// # Errors
    /// As [`Machine::mul_lazy`], and [`Error::OperandCount`] for an empty list.
    fn mul_sum_lazy(&self, pairs: &[(&Self::Vector, &Self::Vector)]) -> Result<Self::Vector> {
        let aligned = align_pairs(self, pairs)?;
        let pairs: Vec<_> = aligned.iter().map(|(left, right)| (left.as_ref(), right.as_ref())).collect();
        self.mul_sum_aligned(&pairs)
    }

    /// Sum of slotwise products with one relinearisation and one rescale: canonical, one level
    /// down.
    ///
    /// # Errors
    /// As [`Machine::mul_sum_lazy`].
    fn mul_sum(&self, pairs: &[(&Self::Vector, &Self::Vector)]) -> Result<Self::Vector> {
        let aligned = align_pairs(self, pairs)?;
        let pairs: Vec<_> = aligned.iter().map(|(left, right)| (left.as_ref(), right.as_ref())).collect();
        let &(left, right) =
            pairs.first().ok_or(Error::OperandCount { operation: "mul", have: 0, need: 1 })?;
        let scale = self.scale(left) * self.scale(right);
        self.combine(&Combination { pairs, ..Combination::at(scale) })
    }

    /// Rotation to the left by `steps`.
    ///
    /// # Errors
    /// If the rotation key is missing.
    fn rotate(&self, vector: &Self::Vector, steps: i64) -> Result<Self::Vector> {
        let mut rotated = self.rotate_many(vector, &[steps])?;
        rotated.pop().ok_or(Error::OperandCount { operation: "rotate", have: 0, need: 1 })
    }

    /// Sum of the rotations by `0, stride, 2 stride, ..., (count - 1) stride`, by doubling; `count`
    /// must be a power of two.
    ///
    /// # Errors
    /// [`Error::Shape`] if `count` is not a power of two, else those of [`Machine::rotate`].
    fn rotate_sum(&self, vector: &Self::Vector, stride: i64, count: usize) -> Result<Self::Vector> {
        if !count.is_power_of_two() {
            return Err(Error::Shape {
                what: "rotate_sum over a number of slots that is not a power of two",
                have: count,
                need: count.checked_next_power_of_two().unwrap_or(self.slots()),
            });
        }
        let mut sum = vector.clone();
        for bit in 0..count.trailing_zeros() {
            sum = self.add_aligned(&sum, &self.rotate(&sum, stride.wrapping_shl(bit))?)?;
        }
        Ok(sum)
    }

    /// A block linear transform: canonical results one level below the inputs, which are brought to
    /// one level first.
    ///
    /// # Errors
    /// As [`Primitives::linear_transform_at`], and [`Error::LevelExhausted`] at level 0.
    fn linear_transforms(
        &self,
        inputs: &[&Self::Vector],
        transform: &LinearTransform,
    ) -> Result<Vec<Self::Vector>> {
        let level = inputs.iter().map(|input| self.settled_level(input)).min().unwrap_or(0);
        if level == 0 {
            return Err(Error::LevelExhausted { operation: "linear_transform", have: level, need: 1 });
        }
        self.linear_transforms_to(inputs, transform, level - 1)
    }

    /// A block linear transform with canonical results at `level`; the levels between are given up
    /// without cost.
    ///
    /// # Errors
    /// As [`Primitives::linear_transform_at`], and [`Error::LevelRaise`] if an input is not
    /// above `level`.
    fn linear_transforms_to(
        &self,
        inputs: &[&Self::Vector],
        transform: &LinearTransform,
        level: usize,
    ) -> Result<Vec<Self::Vector>> {
        let operands = lower_all(self, inputs, level + 1)?;
        let Some(first) = operands.first() else {
            return Err(Error::OperandCount {
                operation: "linear_transform",
                have: 0,
                need: transform.inputs(),
            });
        };
        let scale = plain_scale(self, "linear_transform", first)?;
        let operands: Vec<_> = operands.iter().collect();
        self.linear_transform_rescale(&operands, transform, scale)
    }

    /// A linear transform of one vector into one: canonical, one level down.
    ///
    /// # Errors
    /// As [`Machine::linear_transforms`], and [`Error::OperandCount`] if the transform has
    /// several inputs or outputs.
    fn linear_transform(&self, vector: &Self::Vector, transform: &LinearTransform) -> Result<Self::Vector> {
        let mut results = self.linear_transforms(&[vector], transform)?;
        match (results.pop(), results.len()) {
            (Some(result), 0) => Ok(result),
            (_, more) => Err(Error::OperandCount {
                operation: "linear_transform with one output",
                have: more + 1,
                need: 1,
            }),
        }
    }

    /// Refreshes two real vectors as the real and imaginary parts of one.
    ///
    /// # Errors
    /// Those of [`Primitives::refresh`] with [`RefreshKind::Full`].
    fn refresh_pair(
        &self,
        first: &Self::Vector,
        second: &Self::Vector,
        target: Option<usize>,
    ) -> Result<(Self::Vector, Self::Vector)> {
        let (first, second) = meet(self, first, second)?;
        let pair = self.add_aligned(&first, &self.mul_i(&second)?)?;
        // Half of the pair goes through, so that v + conj(v) is the real part itself.
        let half = self.with_scale(&pair, self.scale(&pair) * Scale::from_log2(1))?;
        let fresh = self.refresh(&half, RefreshKind::Full, target)?;
        let conjugate = self.conjugate(&fresh)?;
        let real = self.add_aligned(&fresh, &conjugate)?;
        let imaginary = self.mul_i(&self.sub_aligned(&conjugate, &fresh)?)?;
        Ok((real, imaginary))
    }
}

impl<M: Primitives + ?Sized> Machine for M {}
