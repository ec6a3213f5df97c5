//! What a machine has to offer, and what follows from it without a change of level.

use super::{Chain, Combination, Error, OpLog, Plain, RefreshKind, RefreshProfile, Result, Scale};
use crate::linear::LinearTransform;

/// Arithmetic on vectors of complex slots with levels and scales: what each machine does its own
/// way. Levels and scales are the caller's business here; circuits should prefer the verbs of
/// [`Machine`](super::Machine), which every implementation gets for nothing.
///
/// Operations record themselves in [`Primitives::log`]; a failed operation changes nothing.
/// Rotations are to the left: slot `i` of the result is slot `i + steps` of the operand, indices
/// modulo the number of slots.
pub trait Primitives: Send + Sync {
    /// A vector of slots: a handle that is cheap to clone.
    type Vector: Clone + Send + Sync;

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

    /// Whether `vector` is a product that awaits its rescale.
    fn is_product(&self, vector: &Self::Vector) -> bool {
        self.chain().product_scale(self.level(vector)).is_some_and(|scale| scale.matches(self.scale(vector)))
    }

    /// Whether `vector` has the canonical scale of its level.
    fn is_canonical(&self, vector: &Self::Vector) -> bool {
        self.chain().scale(self.level(vector)).matches(self.scale(vector))
    }

    /// A vector that holds public values, without any secrecy.
    ///
    /// # Errors
    /// If the values do not fit the slots, the level does not exist, or a value does not fit its
    /// modulus.
    fn trivial_at(&self, plain: &Plain, level: usize, scale: Scale) -> Result<Self::Vector>;

    /// Slotwise sum of two vectors of equal level and scale.
    ///
    /// # Errors
    /// [`Error::LevelMismatch`], [`Error::ScaleMismatch`].
    fn add_aligned(&self, left: &Self::Vector, right: &Self::Vector) -> Result<Self::Vector>;

    /// Slotwise difference of two vectors of equal level and scale.
    ///
    /// # Errors
    /// [`Error::LevelMismatch`], [`Error::ScaleMismatch`].
    fn sub_aligned(&self, left: &Self::Vector, right: &Self::Vector) -> Result<Self::Vector>;

    /// Slotwise negation; level and scale stay.
    ///
    /// # Errors
    /// Those of the machine's arithmetic.
    fn neg(&self, vector: &Self::Vector) -> Result<Self::Vector>;

    /// Adds public values, encoded at the vector's own level and scale.
    ///
    /// # Errors
    /// If the plaintext does not repeat evenly over the slots.
    fn add_plain(&self, vector: &Self::Vector, plain: &Plain) -> Result<Self::Vector>;

    /// Multiplies by public values encoded at `plain_scale`; the level stays, the scales multiply.
    ///
    /// # Errors
    /// If the plaintext does not repeat evenly over the slots or `plain_scale` is below one.
    fn mul_plain_at(&self, vector: &Self::Vector, plain: &Plain, plain_scale: Scale) -> Result<Self::Vector>;

    /// Sum of slotwise products with a single relinearisation; all vectors at one level, all
    /// products at one scale, which the result has.
    ///
    /// # Errors
    /// If `pairs` is empty, or levels or scales differ.
    fn mul_sum_aligned(&self, pairs: &[(&Self::Vector, &Self::Vector)]) -> Result<Self::Vector>;

    /// Divides by the modulus of the level: one level down, the scale divided by that modulus.
    ///
    /// # Errors
    /// [`Error::LevelExhausted`] at level 0.
    fn rescale(&self, vector: &Self::Vector) -> Result<Self::Vector>;

    /// Gives up modulus without dividing: `level` levels are left, slots and scale stay (so the
    /// result is in general not canonical; see `to_level`).
    ///
    /// # Errors
    /// [`Error::LevelRaise`] if `level` is above the vector's.
    fn drop_to(&self, vector: &Self::Vector, level: usize) -> Result<Self::Vector>;

    /// Declares another scale: the slots are multiplied by `scale(vector) / scale`, free of charge.
    ///
    /// # Errors
    /// If `scale` is not positive.
    fn with_scale(&self, vector: &Self::Vector, scale: Scale) -> Result<Self::Vector>;

    /// Several rotations of one vector, sharing their decomposition; one result per entry of
    /// `steps`.
    ///
    /// # Errors
    /// If a rotation key is missing.
    fn rotate_many(&self, vector: &Self::Vector, steps: &[i64]) -> Result<Vec<Self::Vector>>;

    /// The sum of a vector and its rotations by all of `steps`, sharing one decomposition and one
    /// division.
    ///
    /// # Errors
    /// If a rotation key is missing.
    fn rotate_add(&self, vector: &Self::Vector, steps: &[i64]) -> Result<Self::Vector>;

    /// Complex conjugation of every slot.
    ///
    /// # Errors
    /// If the conjugation key is missing.
    fn conjugate(&self, vector: &Self::Vector) -> Result<Self::Vector>;

    /// Multiplies every slot by the imaginary unit: exact, level and scale stay.
    ///
    /// # Errors
    /// Those of the machine's arithmetic.
    fn mul_i(&self, vector: &Self::Vector) -> Result<Self::Vector>;

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
    ) -> Result<Vec<Self::Vector>>;

    /// [`Primitives::linear_transform_at`] and the rescale of its results, in one division where
    /// the machine can.
    ///
    /// # Errors
    /// Those of both.
    fn linear_transform_rescale(
        &self,
        inputs: &[&Self::Vector],
        transform: &LinearTransform,
        plain_scale: Scale,
    ) -> Result<Vec<Self::Vector>> {
        let products = self.linear_transform_at(inputs, transform, plain_scale)?;
        products.iter().map(|product| self.rescale(product)).collect()
    }

    /// A weighted sum of products, vectors times plaintexts and a plaintext, with one
    /// relinearisation and one rescale.
    ///
    /// # Errors
    /// If the sum is empty, vectors are at different levels, or terms do not meet at the scale of
    /// the sum.
    fn combine(&self, sum: &Combination<'_, Self::Vector>) -> Result<Self::Vector> {
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
        let total = total.ok_or(Error::OperandCount { operation: "combine", have: 0, need: 1 })?;
        let total = match &sum.constant {
            Some(constant) => self.add_plain(&total, constant)?,
            None => total,
        };
        self.rescale(&total)
    }

    /// The real part of every slot, doubled: `v + conj(v)`.
    ///
    /// # Errors
    /// If the conjugation key is missing.
    fn twice_real(&self, vector: &Self::Vector) -> Result<Self::Vector> {
        self.add_aligned(vector, &self.conjugate(vector)?)
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
    ) -> Result<Self::Vector>;
}
