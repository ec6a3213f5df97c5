//! The trait that circuits are written against.

use super::align::{align_pairs, lower_all, meet, plain_scale, require_scale, settled};
use super::{Chain, Combination, OpLog, Plain, RefreshKind, RefreshProfile, Scale, SlotError, SlotResult};
use crate::linear::LinearTransform;
use num_complex::Complex64;
use std::borrow::Cow;

/// Arithmetic on vectors of complex slots with levels and scales.
///
/// Operations record themselves in [`Machine::log`]; a failed operation changes nothing. Rotations
/// are to the left: slot `i` of the result is slot `i + steps` of the operand, indices modulo the
/// number of slots.
pub trait Machine: Send + Sync {
    /// A vector of slots: a handle that is cheap to clone.
    type Vector: Clone + Send + Sync;

    // ---- What a machine and its vectors are.

    /// The chain of levels and canonical scales.
    fn chain(&self) -> &Chain;

    /// The record of operations.
    fn log(&self) -> &OpLog;

    /// Rescales left in `vector`.
    fn level(&self, vector: &Self::Vector) -> usize;

    /// The scale of `vector`.
    fn scale(&self, vector: &Self::Vector) -> Scale;

    /// Number of complex slots of every vector.
    fn slots(&self) -> usize {
        self.chain().slots()
    }

    // ---- Primitives. Levels and scales are the caller's business here; circuits should prefer the
    // verbs further down.

    /// A vector that holds public values, without any secrecy.
    ///
    /// # Errors
    /// If the values do not fit the slots, the level does not exist, or a value does not fit its
    /// modulus.
    fn trivial_at(&self, plain: &Plain, level: usize, scale: Scale) -> SlotResult<Self::Vector>;

    /// Slotwise sum of two vectors of equal level and scale.
    ///
    /// # Errors
    /// [`SlotError::LevelMismatch`], [`SlotError::ScaleMismatch`].
    fn add_aligned(&self, left: &Self::Vector, right: &Self::Vector) -> SlotResult<Self::Vector>;

    /// Slotwise difference of two vectors of equal level and scale.
    ///
    /// # Errors
    /// [`SlotError::LevelMismatch`], [`SlotError::ScaleMismatch`].
    fn sub_aligned(&self, left: &Self::Vector, right: &Self::Vector) -> SlotResult<Self::Vector>;

    /// Slotwise negation; level and scale stay.
    ///
    /// # Errors
    /// Those of the machine's arithmetic.
    fn neg(&self, vector: &Self::Vector) -> SlotResult<Self::Vector>;

    /// Adds public values, encoded at the vector's own level and scale.
    ///
    /// # Errors
    /// If the plaintext does not repeat evenly over the slots.
    fn add_plain(&self, vector: &Self::Vector, plain: &Plain) -> SlotResult<Self::Vector>;

    /// Multiplies by public values encoded at `plain_scale`; the level stays, the scales multiply.
    ///
    /// # Errors
    /// If the plaintext does not repeat evenly over the slots or `plain_scale` is below one.
    fn mul_plain_at(
        &self,
        vector: &Self::Vector,
        plain: &Plain,
        plain_scale: Scale,
    ) -> SlotResult<Self::Vector>;

    /// Sum of slotwise products with a single relinearisation; all vectors at one level, all
    /// products at one scale, which the result has.
    ///
    /// # Errors
    /// If `pairs` is empty, or levels or scales differ.
    fn mul_sum_aligned(&self, pairs: &[(&Self::Vector, &Self::Vector)]) -> SlotResult<Self::Vector>;

    /// Divides by the modulus of the level: one level down, the scale divided by that modulus.
    ///
    /// # Errors
    /// [`SlotError::LevelExhausted`] at level 0.
    fn rescale(&self, vector: &Self::Vector) -> SlotResult<Self::Vector>;

    /// Gives up modulus without dividing: `level` levels are left, slots and scale stay (so the
    /// result is in general not canonical; see [`Machine::to_level`]).
    ///
    /// # Errors
    /// [`SlotError::LevelRaise`] if `level` is above the vector's.
    fn drop_to(&self, vector: &Self::Vector, level: usize) -> SlotResult<Self::Vector>;

    /// Declares another scale: the slots are multiplied by `scale(vector) / scale`, free of charge.
    ///
    /// # Errors
    /// If `scale` is not positive.
    fn with_scale(&self, vector: &Self::Vector, scale: Scale) -> SlotResult<Self::Vector>;

    /// Several rotations of one vector, sharing their decomposition; one result per entry of
    /// `steps`.
    ///
    /// # Errors
    /// If a rotation key is missing.
    fn rotate_many(&self, vector: &Self::Vector, steps: &[i64]) -> SlotResult<Vec<Self::Vector>>;

    /// The sum of a vector and its rotations by all of `steps`, sharing one decomposition and one
    /// division.
    ///
    /// # Errors
    /// If a rotation key is missing.
    fn rotate_add(&self, vector: &Self::Vector, steps: &[i64]) -> SlotResult<Self::Vector>;

    /// Complex conjugation of every slot.
    ///
    /// # Errors
    /// If the conjugation key is missing.
    fn conjugate(&self, vector: &Self::Vector) -> SlotResult<Self::Vector>;

    /// Multiplies every slot by the imaginary unit: exact, level and scale stay.
    ///
    /// # Errors
    /// Those of the machine's arithmetic.
    fn mul_i(&self, vector: &Self::Vector) -> SlotResult<Self::Vector>;

    /// Applies a (block) linear transform whose plaintexts are encoded at `plain_scale`, without
    /// the final rescale. All inputs have one level and scale.
    ///
    /// # Errors
    /// If the number of inputs is not the transform's, levels or scales differ, or a rotation key
    /// is missing.
    fn linear_transform_at(
        &self,
        inputs: &[&Self::Vector],
        transform: &LinearTransform,
        plain_scale: Scale,
    ) -> SlotResult<Vec<Self::Vector>>;

    /// [`Machine::linear_transform_at`] and the rescale of its results, in one division where the
    /// machine can.
    ///
    /// # Errors
    /// Those of both.
    fn linear_transform_rescale(
        &self,
        inputs: &[&Self::Vector],
        transform: &LinearTransform,
        plain_scale: Scale,
    ) -> SlotResult<Vec<Self::Vector>> {
        let products = self.linear_transform_at(inputs, transform, plain_scale)?;
        products.iter().map(|product| self.rescale(product)).collect()
    }

    /// A weighted sum of products, vectors times plaintexts and a plaintext, with one
    /// relinearisation and one rescale.
    ///
    /// # Errors
    /// If the sum is empty, vectors are at different levels, or terms do not meet at the scale of
    /// the sum.
    fn combine(&self, sum: &Combination<'_, Self::Vector>) -> SlotResult<Self::Vector> {
        let mut total = match sum.pairs.as_slice() {
            [] => None,
            pairs => {
                let mut products = self.mul_sum_aligned(pairs)?;
                if sum.weight != 1 {
                    products =
                        self.mul_plain_at(&products, &Plain::from(f64::from(sum.weight)), Scale::ONE)?;
                }
                Some(self.with_scale(&products, sum.scale)?)
            }
        };
        for (vector, plain) in &sum.terms {
            let term = self.mul_plain_at(vector, plain, sum.scale / self.scale(vector))?;
            total = Some(match total {
                Some(total) => self.add_aligned(&total, &term)?,
                None => term,
            });
        }
        let total = total.ok_or(SlotError::OperandCount { operation: "combine", have: 0, need: 1 })?;
        let total = match &sum.constant {
            Some(constant) => self.add_plain(&total, constant)?,
            None => total,
        };
        self.rescale(&total)
    }

    /// What a refresh of this kind needs and gives, `None` if this machine has none.
    fn refresh_profile(&self, kind: RefreshKind) -> Option<RefreshProfile>;

    /// Refreshes `vector` to level `target` (`None`: as high as the refresh reaches), at its
    /// canonical scale. The input may have any scale.
    ///
    /// # Errors
    /// If there is no such refresh, the input is below its input level or out of its range, or the
    /// target is above its reach.
    fn refresh(
        &self,
        vector: &Self::Vector,
        kind: RefreshKind,
        target: Option<usize>,
    ) -> SlotResult<Self::Vector>;

    // ---- Verbs: canonical vectors in, canonical vectors out.

    /// A canonical vector of public values at `level`.
    ///
    /// # Errors
    /// As [`Machine::trivial_at`].
    fn trivial(&self, plain: &Plain, level: usize) -> SlotResult<Self::Vector> {
        self.trivial_at(plain, level, self.chain().scale(level))
    }

    /// Whether `vector` is a product that awaits its rescale.
    fn is_product(&self, vector: &Self::Vector) -> bool {
        self.chain().product_scale(self.level(vector)).is_some_and(|scale| scale.matches(self.scale(vector)))
    }

    /// Whether `vector` has the canonical scale of its level.
    fn is_canonical(&self, vector: &Self::Vector) -> bool {
        self.chain().scale(self.level(vector)).matches(self.scale(vector))
    }

    /// Rescales `vector` if it is a product; otherwise a copy of the handle.
    ///
    /// # Errors
    /// Those of [`Machine::rescale`].
    fn settle(&self, vector: &Self::Vector) -> SlotResult<Self::Vector> {
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
    /// [`SlotError::LevelRaise`] if the vector is below `level`; [`SlotError::ScaleMismatch`] if it
    /// is at `level` with another scale.
    fn to_level(&self, vector: &Self::Vector, level: usize) -> SlotResult<Self::Vector> {
        let vector = settled(self, vector)?;
        if self.level(&vector) == level {
            require_scale(self.chain().scale(level), self.scale(&vector))?;
            return Ok(vector.into_owned());
        }
        self.mul_plain_to(&vector, &Plain::from(1.0), level)
    }

    /// Slotwise sum. Operands are brought to a common level; if one is a product and the other
    /// canonical at the same level, the sum is a product.
    ///
    /// # Errors
    /// If a scale cannot be matched.
    fn add(&self, left: &Self::Vector, right: &Self::Vector) -> SlotResult<Self::Vector> {
        let (left, right) = meet(self, left, right)?;
        self.add_aligned(&left, &right)
    }

    /// Slotwise difference, aligned as in [`Machine::add`].
    ///
    /// # Errors
    /// If a scale cannot be matched.
    fn sub(&self, left: &Self::Vector, right: &Self::Vector) -> SlotResult<Self::Vector> {
        let (left, right) = meet(self, left, right)?;
        self.sub_aligned(&left, &right)
    }

    /// Sum of all vectors.
    ///
    /// # Errors
    /// [`SlotError::OperandCount`] for an empty list, else those of [`Machine::add`].
    fn add_many(&self, vectors: &[&Self::Vector]) -> SlotResult<Self::Vector> {
        let (first, rest) = vectors.split_first().ok_or(SlotError::OperandCount {
            operation: "add_many",
            have: 0,
            need: 1,
        })?;
        rest.iter().try_fold((*first).clone(), |sum, vector| self.add(&sum, vector))
    }

    /// Adds a constant to every slot.
    ///
    /// # Errors
    /// Those of [`Machine::add_plain`].
    fn add_const(&self, vector: &Self::Vector, constant: Complex64) -> SlotResult<Self::Vector> {
        self.add_plain(vector, &Plain::constant(constant))
    }

    /// Product with public values, as a product at the vector's level.
    ///
    /// # Errors
    /// [`SlotError::LevelExhausted`] at level 0, else those of [`Machine::mul_plain_at`].
    fn mul_plain_lazy(&self, vector: &Self::Vector, plain: &Plain) -> SlotResult<Self::Vector> {
        let vector = settled(self, vector)?;
        let scale = plain_scale(self, "mul_plain", &vector)?;
        self.mul_plain_at(&vector, plain, scale)
    }

    /// Product with public values: canonical, one level down.
    ///
    /// # Errors
    /// As [`Machine::mul_plain_lazy`], and [`SlotError::ValueTooSmall`] for values other than zero
    /// that are all smaller than a unit of the scale they are encoded at. (As a term of a sum such
    /// values are rounded, like all others.)
    fn mul_plain(&self, vector: &Self::Vector, plain: &Plain) -> SlotResult<Self::Vector> {
        let vector = settled(self, vector)?;
        let scale = plain_scale(self, "mul_plain", &vector)?;
        if !plain.holds_at(scale) {
            let (value, log2_scale) = (plain.max_abs(), scale.log2());
            return Err(SlotError::ValueTooSmall { operation: "mul_plain", value, log2_scale });
        }
        self.rescale(&self.mul_plain_at(&vector, plain, scale)?)
    }

    /// Product with public values, landing canonically on `level`, which may be any level below the
    /// vector's: the levels in between are given up without cost.
    ///
    /// # Errors
    /// [`SlotError::LevelRaise`] if the vector is not above `level`, else those of
    /// [`Machine::mul_plain_at`].
    fn mul_plain_to(&self, vector: &Self::Vector, plain: &Plain, level: usize) -> SlotResult<Self::Vector> {
        let vector = settled(self, vector)?;
        let have = self.level(&vector);
        if have <= level {
            return Err(SlotError::LevelRaise { have, want: level + 1 });
        }
        self.mul_plain(&self.drop_to(&vector, level + 1)?, plain)
    }

    /// Product with a constant, as a product at the vector's level.
    ///
    /// # Errors
    /// As [`Machine::mul_plain_lazy`].
    fn mul_const_lazy(&self, vector: &Self::Vector, constant: Complex64) -> SlotResult<Self::Vector> {
        self.mul_plain_lazy(vector, &Plain::constant(constant))
    }

    /// Product with a constant: canonical, one level down.
    ///
    /// # Errors
    /// As [`Machine::mul_plain_lazy`].
    fn mul_const(&self, vector: &Self::Vector, constant: Complex64) -> SlotResult<Self::Vector> {
        self.mul_plain(vector, &Plain::constant(constant))
    }

    /// Slotwise product, relinearised, as a product at the lower of both levels.
    ///
    /// # Errors
    /// [`SlotError::LevelExhausted`] at level 0, or those of the alignment and of relinearisation.
    fn mul_lazy(&self, left: &Self::Vector, right: &Self::Vector) -> SlotResult<Self::Vector> {
        self.mul_sum_lazy(&[(left, right)])
    }

    /// Slotwise product: canonical, one level below the lower operand.
    ///
    /// # Errors
    /// As [`Machine::mul_lazy`].
    fn mul(&self, left: &Self::Vector, right: &Self::Vector) -> SlotResult<Self::Vector> {
        self.mul_sum(&[(left, right)])
    }

    /// Slotwise square: canonical, one level down.
    ///
    /// # Errors
    /// As [`Machine::mul_lazy`].
    fn square(&self, vector: &Self::Vector) -> SlotResult<Self::Vector> {
        let vector = settled(self, vector)?;
        self.mul_sum(&[(&vector, &vector)])
    }

    /// Sum of slotwise products with one relinearisation, as a product at the lowest level of all
    /// operands.
    ///
    /// # Errors
    /// As [`Machine::mul_lazy`], and [`SlotError::OperandCount`] for an empty list.
    fn mul_sum_lazy(&self, pairs: &[(&Self::Vector, &Self::Vector)]) -> SlotResult<Self::Vector> {
        let aligned = align_pairs(self, pairs)?;
        let pairs: Vec<_> = aligned.iter().map(|(left, right)| (left.as_ref(), right.as_ref())).collect();
        self.mul_sum_aligned(&pairs)
    }

    /// Sum of slotwise products with one relinearisation and one rescale: canonical, one level
    /// down.
    ///
    /// # Errors
    /// As [`Machine::mul_sum_lazy`].
    fn mul_sum(&self, pairs: &[(&Self::Vector, &Self::Vector)]) -> SlotResult<Self::Vector> {
        let aligned = align_pairs(self, pairs)?;
        let pairs: Vec<_> = aligned.iter().map(|(left, right)| (left.as_ref(), right.as_ref())).collect();
        let &(left, right) =
            pairs.first().ok_or(SlotError::OperandCount { operation: "mul", have: 0, need: 1 })?;
        let scale = self.scale(left) * self.scale(right);
        self.combine(&Combination { pairs, ..Combination::at(scale) })
    }

    /// Rotation to the left by `steps`.
    ///
    /// # Errors
    /// If the rotation key is missing.
    fn rotate(&self, vector: &Self::Vector, steps: i64) -> SlotResult<Self::Vector> {
        let mut rotated = self.rotate_many(vector, &[steps])?;
        rotated.pop().ok_or(SlotError::OperandCount { operation: "rotate", have: 0, need: 1 })
    }

    /// Sum of the rotations by `0, stride, 2 stride, ..., (count - 1) stride`, by doubling; `count`
    /// must be a power of two.
    ///
    /// # Errors
    /// [`SlotError::Shape`] if `count` is not a power of two, else those of [`Machine::rotate`].
    fn rotate_sum(&self, vector: &Self::Vector, stride: i64, count: usize) -> SlotResult<Self::Vector> {
        if !count.is_power_of_two() {
            return Err(SlotError::Shape {
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
    /// As [`Machine::linear_transform_at`], and [`SlotError::LevelExhausted`] at level 0.
    fn linear_transforms(
        &self,
        inputs: &[&Self::Vector],
        transform: &LinearTransform,
    ) -> SlotResult<Vec<Self::Vector>> {
        let level = inputs.iter().map(|input| self.settled_level(input)).min().unwrap_or(0);
        if level == 0 {
            return Err(SlotError::LevelExhausted { operation: "linear_transform", have: level, need: 1 });
        }
        self.linear_transforms_to(inputs, transform, level - 1)
    }

    /// A block linear transform with canonical results at `level`; the levels between are given up
    /// without cost.
    ///
    /// # Errors
    /// As [`Machine::linear_transform_at`], and [`SlotError::LevelRaise`] if an input is not above
    /// `level`.
    fn linear_transforms_to(
        &self,
        inputs: &[&Self::Vector],
        transform: &LinearTransform,
        level: usize,
    ) -> SlotResult<Vec<Self::Vector>> {
        let operands = lower_all(self, inputs, level + 1)?;
        let Some(first) = operands.first() else {
            return Err(SlotError::OperandCount {
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
    /// As [`Machine::linear_transforms`], and [`SlotError::OperandCount`] if the transform has
    /// several inputs or outputs.
    fn linear_transform(
        &self,
        vector: &Self::Vector,
        transform: &LinearTransform,
    ) -> SlotResult<Self::Vector> {
        let mut results = self.linear_transforms(&[vector], transform)?;
        match (results.pop(), results.len()) {
            (Some(result), 0) => Ok(result),
            (_, more) => Err(SlotError::OperandCount {
                operation: "linear_transform with one output",
                have: more + 1,
                need: 1,
            }),
        }
    }

    /// The real part of every slot, doubled: `v + conj(v)`.
    ///
    /// # Errors
    /// If the conjugation key is missing.
    fn twice_real(&self, vector: &Self::Vector) -> SlotResult<Self::Vector> {
        self.add_aligned(vector, &self.conjugate(vector)?)
    }

    /// Refreshes two real vectors as the real and imaginary parts of one.
    ///
    /// # Errors
    /// Those of [`Machine::refresh`] with [`RefreshKind::Full`].
    fn refresh_pair(
        &self,
        first: &Self::Vector,
        second: &Self::Vector,
        target: Option<usize>,
    ) -> SlotResult<(Self::Vector, Self::Vector)> {
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
