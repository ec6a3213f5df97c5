//! How much work a bootstrap is, before any key exists: what a planner prices.

use std::convert::Infallible;

use super::eval_mod::{ModArithmetic, Sum};
use super::transform::Transform;
use super::{Bootstrapper, Content};
use crate::slots::OpKind;
use cipherlm_ckks::Error;
use cipherlm_ckks::params::KeyShape;

/// A number of primitive operations of one size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// The primitive.
    pub kind: OpKind,
    /// The part of the circuit.
    pub stage: WorkStage,
    /// Limbs of its operand.
    pub limbs: usize,
    /// Special primes of its key.
    pub special: usize,
    /// Digits of the key that have a limb of the operand.
    pub digits: usize,
    /// How many: parts of one where a part is done.
    pub count: f64,
}

/// Parts of a bootstrap that are made of differently fused primitives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkStage {
    /// The homomorphic transforms, with the key switches around them.
    Transforms,
    /// The modular reduction.
    Reduction,
}

/// The chain of a bootstrap to a lower level.
struct Short<'a> {
    circuit: &'a Bootstrapper,
    left_out: Vec<usize>,
    work: Vec<Work>,
}

impl Bootstrapper {
    /// The work of one bootstrap to `output`.
    ///
    /// # Errors
    /// [`Error::LevelOutOfRange`] above [`Bootstrapper::output_level`]; [`Error::BadKeyShape`] if
    /// the parameters cannot hold the keys.
    pub fn work(&self, output: usize) -> Result<Vec<Work>, Error> {
        if output > self.output_level() {
            return Err(Error::LevelOutOfRange {
                operation: "bootstrap",
                level: output,
                max: self.output_level(),
            });
        }
        let mut short = Short { circuit: self, left_out: self.left_out(output)?, work: Vec::new() };
        for transform in self.down.iter().chain(&self.up) {
            short.transform(transform)?;
        }
        let stage = WorkStage::Transforms;
        // To the ephemeral secret and, at the top, back; the sums over a subring, at the top too.
        short.add(stage, OpKind::Relin, 0, 1.0)?;
        short.add(stage, OpKind::Relin, self.raised_level(), 1.0)?;
        for elements in self.sub_sum() {
            short.add(stage, OpKind::ModUp, self.raised_level(), 1.0)?;
            short.add(stage, OpKind::KeyProduct, self.raised_level(), elements.len() as f64)?;
            short.add(stage, OpKind::ModDown, self.raised_level(), 1.0)?;
        }
        let parts = if self.content == Content::Complex { 2.0 } else { 1.0 };
        short.add(stage, OpKind::Conjugate, self.eval_level() + 1, 1.0)?;
        short.add(stage, OpKind::Rescale, self.eval_level() + 1, parts)?;
        short.add(stage, OpKind::Conjugate, self.output_level() + 1, 1.0)?;
        short.add(stage, OpKind::Rescale, self.output_level() + 1, 1.0)?;
        short.reduction(parts)?;
        Ok(short.work)
    }
}

impl Short<'_> {
    fn add(&mut self, stage: WorkStage, kind: OpKind, level: usize, count: f64) -> Result<(), Error> {
        let params = &self.circuit.params;
        let shape = KeyShape::cheapest(params, level)?;
        let removed = |limb: usize| self.left_out.iter().any(|&l| params.group_limbs(l).contains(limb));
        let limbs = params.limbs(level).iter().filter(|&limb| !removed(limb)).count();
        let digits =
            shape.digits(params).into_iter().filter(|d| d.clone().any(|limb| !removed(limb))).count();
        self.work.push(Work { kind, stage, limbs, special: shape.special, digits, count });
        Ok(())
    }

    /// Baby rotations share a decomposition; each giant step divides one half of a sum and takes it
    /// apart again.
    fn transform(&mut self, transform: &Transform) -> Result<(), Error> {
        let (babies, giants, diagonals) = transform.counts();
        let (level, giants) = (transform.level(), giants as f64);
        for (kind, count) in [
            (OpKind::ModUp, 1.0 + giants),
            (OpKind::KeyProduct, babies as f64 + giants),
            (OpKind::MulPlainExtended, diagonals as f64),
            (OpKind::ModDown, 1.0 + giants / 2.0),
        ] {
            self.add(WorkStage::Transforms, kind, level, count)?;
        }
        Ok(())
    }

    fn reduction(&mut self, parts: f64) -> Result<(), Error> {
        let circuit = self.circuit;
        let mut counter = Counter { circuit, rows: Vec::new() };
        let scale = circuit.profile.input_scale.exp2();
        let input = Counted { level: circuit.eval_level(), scale, wide: false };
        let (scale, ratio) = (circuit.profile.scale.exp2(), circuit.profile.ratio);
        let Ok(result) = circuit.eval_mod.evaluate(&mut counter, &input, scale, ratio);
        counter.rows.push((OpKind::Relin, result.level, 1.0));
        for (kind, level, count) in counter.rows {
            self.add(WorkStage::Reduction, kind, level, parts * count)?;
        }
        Ok(())
    }
}

/// Counts what the modular reduction does.
struct Counter<'a> {
    circuit: &'a Bootstrapper,
    rows: Vec<(OpKind, usize, f64)>,
}

#[derive(Clone)]
struct Counted {
    level: usize,
    scale: f64,
    /// A sum of products, which awaits its relinearisation.
    wide: bool,
}

impl ModArithmetic for Counter<'_> {
    type Value = Counted;
    type Error = Infallible;

    fn level(&self, value: &Counted) -> usize {
        value.level
    }

    fn scale(&self, value: &Counted) -> f64 {
        value.scale
    }

    fn divisor(&self, level: usize) -> f64 {
        self.circuit.params.rescale_factor(level).to_f64()
    }

    fn fused(&mut self, level: usize, scale: f64, sum: &Sum<'_, Counted>) -> Result<Counted, Infallible> {
        self.rows.push((OpKind::Mul, level, sum.products.len() as f64));
        self.rows.push((OpKind::MulConst, level, sum.linear.len() as f64));
        Ok(Counted { level, scale, wide: !sum.products.is_empty() })
    }

    fn rescale(&mut self, value: Counted) -> Result<Counted, Infallible> {
        if value.wide {
            self.rows.push((OpKind::Relin, value.level, 1.0));
        }
        self.rows.push((OpKind::Rescale, value.level, 1.0));
        let scale = value.scale / self.divisor(value.level);
        Ok(Counted { level: value.level - 1, scale, wide: false })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Profile;
    use super::*;

    #[test]
    fn less_is_done_for_lower_results_and_for_real_content() {
        let profile = Profile { user_levels: 12, ..Profile::insecure(10) };
        let params = profile.params().unwrap();
        let [complex, real] = [Content::Complex, Content::Real]
            .map(|content| Bootstrapper::new(&params, &profile, params.slots(), content).unwrap());
        let sum = |work: &[Work], kind: OpKind| -> f64 {
            let of_kind = work.iter().filter(|work| work.kind == kind);
            of_kind.map(|work| work.count * (work.digits * (work.limbs + work.special)) as f64).sum()
        };
        let [high, low, single] =
            [complex.work(14), complex.work(6), real.work(14)].map(|work| work.unwrap());
        for kind in [OpKind::ModUp, OpKind::KeyProduct, OpKind::Relin] {
            assert!(sum(&low, kind) < 0.85 * sum(&high, kind), "{kind:?}");
        }
        let relins = |work: &[Work]| -> f64 {
            let of = work.iter().filter(|w| w.kind == OpKind::Relin && w.stage == WorkStage::Reduction);
            of.map(|work| work.count).sum()
        };
        let expected = profile.circuit().unwrap().relinearisations() as f64;
        assert_eq!((relins(&high), relins(&single)), (2.0 * expected, expected));
        assert!(sum(&single, OpKind::Relin) < 0.6 * sum(&high, OpKind::Relin));
        assert!(complex.work(15).is_err());
    }
}
