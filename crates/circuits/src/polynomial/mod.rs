//! Polynomials and iterative schemes of `cipherlm-approx` on slot machines, with exact target
//! scales.
//!
//! Scales are settled from the top: the caller says where the result must land, each sum tells its
//! factors where they must land, and powers are used where they are, at whatever level and scale
//! they have. So no vector is ever adjusted just to make an addition possible, and each sum costs
//! one relinearisation and one rescale however many products it adds.

use crate::slots::{Combination, Error, Machine, Plain, Result, Scale, square_root};
use cipherlm_approx::plan::exact_weight;
use cipherlm_approx::{Arith, EvalPlan, Sum};
use num_complex::Complex64;

/// The value of the first polynomial of `plan` at every slot of `x`, canonical [`EvalPlan::depth`]
/// levels below it.
///
/// The slots must lie in the plan's interval; what a slot outside of it becomes is not defined.
///
/// # Errors
/// [`Error::LevelExhausted`] if `x` has fewer levels than the plan is deep, else those of the
/// machine.
pub fn evaluate<M: Machine>(machine: &M, plan: &EvalPlan, x: &M::Vector) -> Result<M::Vector> {
    let mut values = evaluate_all(machine, plan, x)?;
    if values.is_empty() {
        return Err(Error::OperandCount { operation: "polynomial", have: 0, need: 1 });
    }
    Ok(values.swap_remove(0))
}

/// The values of all polynomials of `plan` at `x`, sharing their powers; all canonical,
/// [`EvalPlan::depth`] levels down.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_all<M: Machine>(machine: &M, plan: &EvalPlan, x: &M::Vector) -> Result<Vec<M::Vector>> {
    let (have, need) = (machine.settled_level(x), plan.depth() as usize);
    if have < need {
        return Err(Error::LevelExhausted { operation: "polynomial", have, need });
    }
    evaluate_all_to(machine, plan, x, have - need)
}

/// As [`evaluate_all`], landing on `level`. Surplus levels of `x` are given up before the
/// evaluation, which makes it cheaper.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_all_to<M: Machine>(
    machine: &M,
    plan: &EvalPlan,
    x: &M::Vector,
    level: usize,
) -> Result<Vec<M::Vector>> {
    let mapped = map_to_unit(machine, plan, x, level)?;
    let target = Landing { level, scale: machine.chain().scale(level) };
    let targets = vec![target; plan.polynomials().len()];
    plan.eval_mapped(&mut SlotArith::new(machine), &mapped, Some(&targets))
}

/// The argument of `plan`, mapped onto [-1, 1], at the level from which the plan lands on `level`.
fn map_to_unit<M: Machine>(machine: &M, plan: &EvalPlan, x: &M::Vector, level: usize) -> Result<M::Vector> {
    let start = level + plan.depth_mapped() as usize;
    let x = machine.settle(x)?;
    let (have, need) = (machine.level(&x), start + usize::from(!plan.is_mapped()));
    if have < need {
        return Err(Error::LevelExhausted { operation: "polynomial", have, need });
    }
    if plan.is_mapped() {
        return machine.drop_to(&x, start);
    }
    let (factor, shift) = plan.interval().unit_map();
    let scaled = machine.mul_plain_to(&x, &Plain::from(factor), start)?;
    machine.add_const(&scaled, Complex64::new(shift, 0.0))
}

/// Where a value lands: a level and the exact scale it has there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Landing {
    /// Level of the value.
    pub level: usize,
    /// Scale of the value.
    pub scale: Scale,
}

/// The arithmetic of plans and schemes on the vectors of a machine.
pub struct SlotArith<'m, M> {
    machine: &'m M,
}

impl<'m, M: Machine> SlotArith<'m, M> {
    /// Arithmetic on `machine`.
    pub fn new(machine: &'m M) -> Self {
        Self { machine }
    }

    /// The canonical place on `level`: what to pass as target so that the result mixes with
    /// everything else.
    pub fn canonical(&self, level: usize) -> Landing {
        Landing { level, scale: self.machine.chain().scale(level) }
    }

    /// Level and scale of a value before the rescale that lands it on `target`.
    fn before_rescale(&self, target: &Landing) -> Result<Landing> {
        let (chain, level) = (self.machine.chain(), target.level + 1);
        if level > chain.top() {
            return Err(Error::LevelRaise { have: chain.top(), want: level });
        }
        Ok(Landing { level, scale: target.scale * chain.modulus(level) })
    }

    /// Where a sum falls by itself.
    fn natural(&self, sum: &Sum<'_, M::Vector>, rest: f64) -> Result<Landing> {
        let machine = self.machine;
        let operands =
            sum.products.iter().flat_map(|(a, b)| [*a, *b]).chain(sum.linear.iter().map(|(_, v)| *v));
        let level = operands.map(|v| machine.level(v)).min();
        let level = level.ok_or(Error::OperandCount { operation: "sum", have: 0, need: 1 })?;
        let below =
            level.checked_sub(1).ok_or(Error::LevelExhausted { operation: "sum", have: 0, need: 1 })?;
        let scale = match (sum.products.first(), sum.linear.first()) {
            (Some((a, b)), _) => {
                machine.scale(a) * machine.scale(b)
                    / (Scale::new(rest.abs()) * machine.chain().modulus(level))
            }
            (None, Some((_, v))) => machine.scale(v),
            (None, None) => machine.chain().scale(below),
        };
        Ok(Landing { level: below, scale })
    }
}

impl<M: Machine> Arith for SlotArith<'_, M> {
    type Value = M::Vector;
    type Target = Landing;
    type Error = Error;

    fn combine(&mut self, sum: &Sum<'_, M::Vector>, target: Option<&Landing>) -> Result<M::Vector> {
        let machine = self.machine;
        let (integer, rest) = exact_weight(sum.weight);
        let target = match target {
            Some(target) => *target,
            None => self.natural(sum, rest)?,
        };
        let work = self.before_rescale(&target)?;
        let lower = |v: &M::Vector| machine.drop_to(v, work.level);
        let lowered: Vec<_> =
            sum.products.iter().map(|(a, b)| Ok((lower(a)?, lower(b)?))).collect::<Result<_>>()?;
        let pairs: Vec<_> =
            if sum.weight == 0.0 { Vec::new() } else { lowered.iter().map(|(a, b)| (a, b)).collect() };
        if let Some((a, b)) = pairs.first() {
            let (left, right) = (machine.scale(a) * machine.scale(b), work.scale * Scale::new(rest.abs()));
            if !left.matches(right) {
                return Err(Error::ScaleMismatch { left, right });
            }
        }
        // A sum without any vector term is the constant, carried by zero times some operand.
        let carrier = pairs.is_empty() && sum.linear.iter().all(|(factor, _)| *factor == 0.0);
        let used = sum
            .linear
            .iter()
            .enumerate()
            .filter(|(index, (factor, _))| *factor != 0.0 || carrier && *index == 0);
        let linear: Vec<_> = used.map(|(_, (factor, v))| Ok((lower(v)?, *factor))).collect::<Result<_>>()?;
        machine.combine(&Combination {
            pairs,
            weight: if rest < 0.0 { -integer } else { integer },
            terms: linear.iter().map(|(v, factor)| (v, Plain::from(*factor))).collect(),
            constant: (sum.constant != 0.0).then(|| Plain::from(sum.constant)),
            scale: work.scale,
        })
    }

    fn below(&self, x: &M::Vector, levels: u32) -> Result<Landing> {
        let (have, need) = (self.machine.level(x), levels as usize);
        let level =
            have.checked_sub(need).ok_or(Error::LevelExhausted { operation: "polynomial", have, need })?;
        Ok(Landing { level, scale: self.machine.scale(x) })
    }

    fn factor(&self, target: &Landing, weight: f64, other: &M::Vector) -> Result<Landing> {
        let (_, rest) = exact_weight(weight);
        let work = self.before_rescale(target)?;
        Ok(Landing { scale: work.scale * Scale::new(rest.abs()) / self.machine.scale(other), ..work })
    }

    fn root(&self, target: &Landing, weight: f64) -> Result<Landing> {
        let (_, rest) = exact_weight(weight);
        let work = self.before_rescale(target)?;
        Ok(Landing { scale: square_root(work.scale * Scale::new(rest.abs())), ..work })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::{Chain, Clear, OpKind, Primitives};
    use cipherlm_approx::{Interval, Polynomial};

    fn machine(levels: usize) -> Clear {
        let mut groups = vec![vec![(1u64 << 49) - 1234]];
        groups.extend((0..levels).map(|i| vec![(1u64 << 40) + 77 * i as u64 * i as u64 + 1]));
        Clear::new(Chain::new(64, &groups, Scale::from_log2(40)).unwrap())
    }

    fn arguments(interval: Interval) -> Vec<f64> {
        interval.linspace(64).collect()
    }

    #[test]
    fn a_plan_lands_canonically_and_exactly() {
        let interval = Interval::new(-3.0, 5.0).unwrap();
        for degree in [1, 2, 3, 5, 8, 15, 31, 40] {
            let coefficients = (0..=degree).map(|k| 1.0 / (k as f64 + 1.5) - 0.2).collect();
            let polynomial = Polynomial::chebyshev(interval, coefficients).unwrap();
            let plan = EvalPlan::new(&polynomial).unwrap();
            let m = machine(8);
            let x = m.input(arguments(interval), 8).unwrap();
            let y = evaluate(&m, &plan, &x).unwrap();
            assert_eq!(m.level(&y), 8 - plan.depth() as usize, "degree {degree}");
            assert!(m.is_canonical(&y));
            for (x, y) in arguments(interval).iter().zip(y.real()) {
                assert!((y - polynomial.eval(*x)).abs() < 1e-10, "degree {degree} at {x}");
            }
            let lower = evaluate_all_to(&m, &plan, &x, 0).unwrap();
            assert_eq!((m.level(&lower[0]), m.is_canonical(&lower[0])), (0, true));
        }
    }

    #[test]
    fn several_polynomials_share_their_powers() {
        let make = |seed: usize| {
            Polynomial::chebyshev(
                Interval::UNIT,
                (0..16).map(|k| ((k * 7 + seed) % 5) as f64 * 0.1).collect(),
            )
            .unwrap()
        };
        let polynomials = [make(0), make(2), make(3)];
        let plan = EvalPlan::several(&polynomials).unwrap();
        let m = machine(5);
        let x = m.input(arguments(Interval::UNIT), 5).unwrap();
        let values = evaluate_all(&m, &plan, &x).unwrap();
        for (value, polynomial) in values.iter().zip(&polynomials) {
            for (x, y) in arguments(Interval::UNIT).iter().zip(value.real()) {
                assert!((y - polynomial.eval(*x)).abs() < 1e-11);
            }
        }
        let single = machine(5);
        evaluate(&single, &EvalPlan::new(&polynomials[0]).unwrap(), &x).unwrap();
        let relins = |m: &Clear| m.log().total(OpKind::Relin).count;
        assert!(relins(&m) < 3 * relins(&single));
    }

    #[test]
    fn too_few_levels_are_refused_before_work() {
        let polynomial = Polynomial::chebyshev(Interval::UNIT, vec![0.5; 16]).unwrap();
        let plan = EvalPlan::new(&polynomial).unwrap();
        let m = machine(3);
        let x = m.input(0.5, 3).unwrap();
        assert!(matches!(evaluate(&m, &plan, &x), Err(Error::LevelExhausted { have: 3, need: 4, .. })));
        assert!(m.log().rows().is_empty());
    }
}
