//! Several vectors in the slots of one.

use super::{
    Chain, Combination, Error, OpLog, Plain, Primitives, RefreshKind, RefreshProfile, Result, Scale,
};
use crate::linear::LinearTransform;
use std::borrow::Cow;

/// A machine that takes `lanes` vectors through a circuit at once: slot `i` of vector `v` is slot
/// `i * lanes + v` of the machine below, whose vectors, levels, log and keys these are.
///
/// A circuit sees the slots of one vector. Its rotations go `lanes` times as far below; its
/// plaintexts and linear transforms hold for every vector. Those that fill the slots below
/// ([`Plain::interleaved`], [`LinearTransform::interleaved`]) are taken as they are: in them the
/// vectors differ.
pub struct Interleaved<'m, M> {
    machine: &'m M,
    lanes: usize,
    chain: Chain,
}

impl<'m, M: Primitives> Interleaved<'m, M> {
    /// `lanes` vectors on `machine`; one is the machine itself.
    ///
    /// # Errors
    /// [`Error::Shape`] if `lanes` is not a power of two of at most the slots.
    pub fn new(machine: &'m M, lanes: usize) -> Result<Self> {
        Ok(Self { machine, lanes, chain: machine.chain().of_lane(lanes)? })
    }

    fn below(&self, steps: i64) -> i64 {
        // The slots below are a power of two, so what runs over does not count.
        steps.wrapping_mul(self.lanes as i64)
    }

    fn all_below(&self, steps: &[i64]) -> Vec<i64> {
        steps.iter().map(|&steps| self.below(steps)).collect()
    }

    fn kind(&self, kind: RefreshKind) -> RefreshKind {
        match kind {
            RefreshKind::Sparse(period) => RefreshKind::Sparse(period.saturating_mul(self.lanes)),
            RefreshKind::SparseReal(period) => RefreshKind::SparseReal(period.saturating_mul(self.lanes)),
            whole => whole,
        }
    }

    fn plain<'p>(&self, plain: &'p Plain) -> Result<Cow<'p, Plain>> {
        let (have, slots) = (plain.period(), self.chain.slots());
        // A constant is the same in every lane.
        if self.lanes == 1 || have <= 1 || have == self.machine.slots() {
            return Ok(Cow::Borrowed(plain));
        }
        if !slots.is_multiple_of(have) {
            return Err(Error::Period { have, slots });
        }
        Ok(Cow::Owned(Plain::interleaved(&vec![plain.clone(); self.lanes], have)))
    }

    fn transform<'t>(&self, transform: &'t LinearTransform) -> Result<Cow<'t, LinearTransform>> {
        if transform.slots() == self.machine.slots() {
            return Ok(Cow::Borrowed(transform));
        }
        transform.check(self.chain.slots(), transform.inputs())?;
        LinearTransform::interleaved(&vec![transform; self.lanes]).map(Cow::Owned)
    }
}

impl<M: Primitives> Primitives for Interleaved<'_, M> {
    type Vector = M::Vector;

    fn chain(&self) -> &Chain {
        &self.chain
    }

    fn log(&self) -> &OpLog {
        self.machine.log()
    }

    fn level(&self, vector: &M::Vector) -> usize {
        self.machine.level(vector)
    }

    fn scale(&self, vector: &M::Vector) -> Scale {
        self.machine.scale(vector)
    }

    fn trivial_at(&self, plain: &Plain, level: usize, scale: Scale) -> Result<M::Vector> {
        self.machine.trivial_at(self.plain(plain)?.as_ref(), level, scale)
    }

    fn add_aligned(&self, left: &M::Vector, right: &M::Vector) -> Result<M::Vector> {
        self.machine.add_aligned(left, right)
    }

    fn sub_aligned(&self, left: &M::Vector, right: &M::Vector) -> Result<M::Vector> {
        self.machine.sub_aligned(left, right)
    }

    fn neg(&self, vector: &M::Vector) -> Result<M::Vector> {
        self.machine.neg(vector)
    }

    fn add_plain(&self, vector: &M::Vector, plain: &Plain) -> Result<M::Vector> {
        self.machine.add_plain(vector, self.plain(plain)?.as_ref())
    }

    fn mul_plain_at(&self, vector: &M::Vector, plain: &Plain, plain_scale: Scale) -> Result<M::Vector> {
        self.machine.mul_plain_at(vector, self.plain(plain)?.as_ref(), plain_scale)
    }

    fn mul_sum_aligned(&self, pairs: &[(&M::Vector, &M::Vector)]) -> Result<M::Vector> {
        self.machine.mul_sum_aligned(pairs)
    }

    fn rescale(&self, vector: &M::Vector) -> Result<M::Vector> {
        self.machine.rescale(vector)
    }

    fn drop_to(&self, vector: &M::Vector, level: usize) -> Result<M::Vector> {
        self.machine.drop_to(vector, level)
    }

    fn with_scale(&self, vector: &M::Vector, scale: Scale) -> Result<M::Vector> {
        self.machine.with_scale(vector, scale)
    }

    fn rotate_many(&self, vector: &M::Vector, steps: &[i64]) -> Result<Vec<M::Vector>> {
        self.machine.rotate_many(vector, &self.all_below(steps))
    }

    fn rotate_add(&self, vector: &M::Vector, steps: &[i64]) -> Result<M::Vector> {
        self.machine.rotate_add(vector, &self.all_below(steps))
    }

    fn conjugate(&self, vector: &M::Vector) -> Result<M::Vector> {
        self.machine.conjugate(vector)
    }

    fn mul_i(&self, vector: &M::Vector) -> Result<M::Vector> {
        self.machine.mul_i(vector)
    }

    fn linear_transform_at(
        &self,
        inputs: &[&M::Vector],
        transform: &LinearTransform,
        plain_scale: Scale,
    ) -> Result<Vec<M::Vector>> {
        self.machine.linear_transform_at(inputs, self.transform(transform)?.as_ref(), plain_scale)
    }

    fn linear_transform_rescale(
        &self,
        inputs: &[&M::Vector],
        transform: &LinearTransform,
        plain_scale: Scale,
    ) -> Result<Vec<M::Vector>> {
        self.machine.linear_transform_rescale(inputs, self.transform(transform)?.as_ref(), plain_scale)
    }

    fn combine(&self, sum: &Combination<'_, M::Vector>) -> Result<M::Vector> {
        let mut below = sum.clone();
        for plain in below.terms.iter_mut().map(|(_, plain)| plain).chain(&mut below.constant) {
            *plain = self.plain(plain)?.into_owned();
        }
        self.machine.combine(&below)
    }

    fn twice_real(&self, vector: &M::Vector) -> Result<M::Vector> {
        self.machine.twice_real(vector)
    }

    fn refresh_profile(&self, kind: RefreshKind) -> Option<RefreshProfile> {
        let profile = self.machine.refresh_profile(self.kind(kind))?;
        Some(RefreshProfile { kind, ..profile })
    }

    fn refresh(&self, vector: &M::Vector, kind: RefreshKind, target: Option<usize>) -> Result<M::Vector> {
        self.machine.refresh(vector, self.kind(kind), target)
    }
}
