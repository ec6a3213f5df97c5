//! Evaluation plans: Paterson–Stockmeyer in the Chebyshev basis.
//!
//! A plan is a list of Chebyshev powers T_n and a tree of sums. Every sum
//! Σ q_i·T_{m_i} + Σ c_j·T_j + c is one [`Sum`]: one relinearisation and one rescaling on
//! ciphertexts, however many products it adds. Scales are fixed from the top: the caller says where
//! the result must land, and each sum tells its factors where *they* must land
//! ([`Arith::factor`]), so that all additions meet at exactly the same scale.

mod arith;
mod build;

pub use arith::{Arith, Cost, Counter, F64, Lanes, Sum, exact_weight};
pub use build::PowerStep;

use crate::{Error, Interval, Polynomial, Result};
use build::Tree;
use serde::{Deserialize, Serialize};

/// Highest degree a plan accepts.
pub const MAX_DEGREE: usize = 1 << 12;

/// A plan for one or several polynomials of one argument.
///
/// Depth is ⌈log2(d + 1)⌉ for the largest degree d, when the interval is [-1, 1]; on any other
/// interval one level more maps the argument, unless the caller does that
/// ([`EvalPlan::eval_mapped`]). Symmetric polynomials use only the powers of their parity. Several
/// polynomials share the powers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Polynomial>", into = "Vec<Polynomial>")]
pub struct EvalPlan {
    polynomials: Vec<Polynomial>,
    tree: Tree,
}

impl EvalPlan {
    /// The plan of one polynomial. Monomials are first rewritten in Chebyshev polynomials of their
    /// interval.
    ///
    /// # Errors
    /// If the degree is above [`MAX_DEGREE`].
    pub fn new(polynomial: &Polynomial) -> Result<Self> {
        Self::several(std::slice::from_ref(polynomial))
    }

    /// The plan of several polynomials of the same argument on the same interval.
    ///
    /// # Errors
    /// If there is none, their intervals differ, or a degree is above [`MAX_DEGREE`].
    pub fn several(polynomials: &[Polynomial]) -> Result<Self> {
        let first = polynomials.first().ok_or(Error::NoCoefficients)?.interval();
        let mut chebyshev = Vec::with_capacity(polynomials.len());
        for p in polynomials {
            let (a, b) = (first, p.interval());
            if a != b {
                return Err(Error::IntervalMismatch {
                    a_lo: a.lo(),
                    a_hi: a.hi(),
                    b_lo: b.lo(),
                    b_hi: b.hi(),
                });
            }
            if p.degree() > MAX_DEGREE {
                return Err(Error::DegreeTooHigh {
                    degree: p.degree(),
                    limit: MAX_DEGREE,
                    what: "an evaluation plan",
                });
            }
            chebyshev.push(p.to_basis(crate::Basis::Chebyshev)?);
        }
        let degree = chebyshev.iter().map(Polynomial::degree).max().unwrap_or(0);
        let plan =
            |log: u32| Self { polynomials: chebyshev.clone(), tree: Tree::build(&chebyshev, 1 << log) };
        let best = (1..=usize::BITS - degree.leading_zeros()).map(plan).min_by_key(Self::effort);
        Ok(best.unwrap_or_else(|| plan(1)))
    }

    /// The polynomials, in the Chebyshev basis.
    pub fn polynomials(&self) -> &[Polynomial] {
        &self.polynomials
    }

    /// The common interval of the argument.
    pub fn interval(&self) -> Interval {
        self.polynomials[0].interval()
    }

    /// The Chebyshev powers made, in order.
    pub fn powers(&self) -> &[PowerStep] {
        &self.tree.powers
    }

    /// Number of baby steps chosen.
    pub fn baby_steps(&self) -> usize {
        self.tree.baby_steps
    }

    /// Levels used by [`EvalPlan::eval`], the map of the argument onto [-1, 1] included.
    pub fn depth(&self) -> u32 {
        self.tree.depth + u32::from(!self.is_mapped())
    }

    /// Levels used once the argument lies in [-1, 1].
    pub fn depth_mapped(&self) -> u32 {
        self.tree.depth
    }

    /// Whether the interval already is [-1, 1].
    pub fn is_mapped(&self) -> bool {
        self.interval() == Interval::UNIT
    }

    /// The same plan for an argument that the caller has mapped onto [-1, 1].
    #[must_use]
    pub fn mapped(mut self) -> Self {
        self.polynomials = self.polynomials.into_iter().map(|p| p.on_interval(Interval::UNIT)).collect();
        self
    }

    /// Depth and operation counts of [`EvalPlan::eval`].
    pub fn cost(&self) -> Cost {
        let mut counter = Counter::default();
        match self.eval_all(&mut counter, &0, None) {
            Ok(depths) => counter.cost(depths.into_iter().max().unwrap_or(0)),
            Err(never) => match never {},
        }
    }

    /// Values of all polynomials at x, in order.
    ///
    /// `targets` says where each result must land; without it each lands as many levels down as it
    /// is deep, at the scale of the argument.
    ///
    /// # Errors
    /// What the arithmetic reports, such as too few levels.
    pub fn eval_all<A: Arith>(
        &self,
        arith: &mut A,
        x: &A::Value,
        targets: Option<&[A::Target]>,
    ) -> Values<A> {
        if self.is_mapped() {
            return self.eval_mapped(arith, x, targets);
        }
        let (scale, shift) = self.interval().unit_map();
        let target = arith.below(x, 1)?;
        let u = arith.combine(&Sum::affine(scale, x, shift), Some(&target))?;
        self.eval_mapped(arith, &u, targets)
    }

    /// Value of the first polynomial at x; the whole plan when there is only one.
    ///
    /// # Errors
    /// As [`EvalPlan::eval_all`].
    pub fn eval<A: Arith>(
        &self,
        arith: &mut A,
        x: &A::Value,
        target: Option<&A::Target>,
    ) -> Result<A::Value, A::Error> {
        let values = self.eval_all(arith, x, target.map(std::slice::from_ref))?;
        Ok(values.into_iter().next().unwrap_or_else(|| x.clone()))
    }

    /// Like [`EvalPlan::eval_all`], for an argument u already mapped onto [-1, 1].
    ///
    /// # Errors
    /// As [`EvalPlan::eval_all`].
    pub fn eval_mapped<A: Arith>(
        &self,
        arith: &mut A,
        u: &A::Value,
        targets: Option<&[A::Target]>,
    ) -> Values<A> {
        let top = self.tree.powers.iter().map(|p| p.n).max().unwrap_or(1);
        let mut powers: Vec<Option<A::Value>> = vec![None; top + 1];
        powers[1] = Some(u.clone());
        for step in &self.tree.powers {
            let (Some(a), Some(b)) = (&powers[step.a], &powers[step.b]) else { continue };
            let mut sum = Sum { weight: 2.0, products: vec![(a, b)], ..Sum::default() };
            match &powers[step.a - step.b] {
                Some(difference) => sum.linear.push((-1.0, difference)),
                None => sum.constant = -1.0,
            }
            let power = arith.combine(&sum, None)?;
            powers[step.n] = Some(power);
        }
        let powers: Vec<&A::Value> = powers.iter().map(|p| p.as_ref().unwrap_or(u)).collect();
        let mut out = Vec::with_capacity(self.tree.roots.len());
        for (i, root) in self.tree.roots.iter().enumerate() {
            let target = match targets.and_then(|t| t.get(i)) {
                Some(target) => target.clone(),
                None => arith.below(u, root.depth)?,
            };
            out.push(self.eval_node(arith, root.node, &powers, &target)?);
        }
        Ok(out)
    }

    fn eval_node<A: Arith>(
        &self,
        arith: &mut A,
        node: usize,
        powers: &[&A::Value],
        target: &A::Target,
    ) -> Result<A::Value, A::Error> {
        let node = &self.tree.nodes[node];
        let mut factors = Vec::with_capacity(node.products.len());
        for &(child, m) in &node.products {
            let landing = arith.factor(target, 1.0, powers[m])?;
            factors.push((self.eval_node(arith, child, powers, &landing)?, powers[m]));
        }
        let mut linear: Vec<_> = node.linear.iter().map(|&(j, c)| (c, powers[j])).collect();
        if factors.is_empty() && linear.is_empty() {
            linear.push((0.0, powers[1]));
        }
        let products = factors.iter().map(|(q, t)| (q, *t)).collect();
        arith.combine(&Sum { weight: 1.0, products, linear, constant: node.constant }, Some(target))
    }

    /// Rough price on ciphertexts: a relinearisation costs about eight tensor products.
    fn effort(&self) -> (u32, u32) {
        let cost = self.cost();
        (8 * cost.relinearisations + cost.products, cost.scalar_products)
    }
}

/// Values of all polynomials of a plan, or the error of the arithmetic.
pub type Values<A> = Result<Vec<<A as Arith>::Value>, <A as Arith>::Error>;

impl TryFrom<Vec<Polynomial>> for EvalPlan {
    type Error = Error;

    fn try_from(polynomials: Vec<Polynomial>) -> Result<Self> {
        Self::several(&polynomials)
    }
}

impl From<EvalPlan> for Vec<Polynomial> {
    fn from(plan: EvalPlan) -> Self {
        plan.polynomials
    }
}
