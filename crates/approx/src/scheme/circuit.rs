//! How a scheme computes: polynomials, compositions, Goldschmidt and Newton iterations.

use crate::plan::{Arith, Cost, Counter, EvalPlan, F64, Lanes, Sum};
use serde::{Deserialize, Serialize};

/// A computation on one value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Circuit {
    /// One polynomial.
    Polynomial {
        /// Its plan.
        plan: EvalPlan,
    },
    /// p_k ∘ … ∘ p_1. Each plan but the first takes its argument in [-1, 1].
    Composite {
        /// The plans, first applied first.
        plans: Vec<EvalPlan>,
    },
    /// 1/(x + shift) as start·Π(1 + e_k), with e_0 = 1 − slope·(x + shift) and e_{k+1} = ω_k·e_k² −
    /// (ω_k − 1).
    ///
    /// All ω_k = 1 is Goldschmidt's division: e_k = e_0^(2^k). With ω_k = 2 / (2 − ε_k²), ε_k
    /// bounding |e_k|, every step levels its error and the product is the minimax polynomial of
    /// degree 2^m − 1.
    Goldschmidt {
        /// Added to the argument.
        shift: f64,
        /// Slope of e_0.
        slope: f64,
        /// ω_k, one for each factor.
        relaxation: Vec<f64>,
    },
    /// A seed y_0 for 1/(x + shift), then y_{k+1} = ω_k·y_k·(1 + e_k) with e_0 = 1 − (x +
    /// shift)·y_0.
    SeededInverse {
        /// Added to the argument.
        shift: f64,
        /// Seed polynomial.
        seed: EvalPlan,
        /// ω_k, one for each step.
        relaxation: Vec<f64>,
    },
    /// A seed y_0 for 1/√(x + shift), then y_{k+1} = α_k·y_k − β_k·(x + shift)·y_k³; Newton has
    /// (3/2, 1/2).
    InverseSqrt {
        /// Added to the argument.
        shift: f64,
        /// Seed polynomial for y/√2 when there are steps, else for y.
        seed: EvalPlan,
        /// (α_k, β_k), one pair for each step.
        steps: Vec<(f64, f64)>,
    },
    /// x·inner(x).
    Gate {
        /// The other factor.
        inner: Box<Circuit>,
    },
}

/// √2: Newton runs on y/√2, so that its cubic term has weight −1.
pub(crate) const NEWTON_SCALE: f64 = std::f64::consts::SQRT_2;

impl Circuit {
    /// The value at x, landing on `target` or, without one, where it falls.
    ///
    /// [`Circuit::SeededInverse`] and [`Circuit::InverseSqrt`] cannot choose their scale; given a
    /// target they spend one more level to land on it.
    ///
    /// # Errors
    /// What the arithmetic reports, such as too few levels.
    pub fn eval<A: Arith>(
        &self,
        a: &mut A,
        x: &A::Value,
        target: Option<&A::Target>,
    ) -> Result<A::Value, A::Error> {
        match self {
            Self::Polynomial { plan } => plan.eval(a, x, target),
            Self::Composite { plans } => composite(plans, a, x, target),
            Self::Goldschmidt { shift, slope, relaxation } => {
                let factors = relaxation.len() as u32;
                let landing = a.below(x, factors.max(1))?;
                let landing = self.mapped_landing(a, &landing)?;
                let e = a.combine(&Sum::affine(-slope, x, 1.0 - slope * shift), Some(&landing))?;
                let result = match target {
                    Some(target) => target.clone(),
                    None => a.below(x, factors + 1)?,
                };
                goldschmidt(*slope, relaxation, a, e, &result)
            }
            Self::SeededInverse { shift, seed, relaxation } => {
                let y = seeded_inverse(*shift, seed, relaxation, a, x)?;
                landed(a, y, target)
            }
            Self::InverseSqrt { shift, seed, steps } => {
                let y = inverse_sqrt(*shift, seed, steps, a, x)?;
                landed(a, y, target)
            }
            Self::Gate { inner } => {
                let result = match target {
                    Some(target) => target.clone(),
                    None => a.below(x, inner.cost().depth + 1)?,
                };
                let factor = a.factor(&result, 1.0, x)?;
                let y = inner.eval(a, x, Some(&factor))?;
                a.combine(&Sum::product(x, &y), Some(&result))
            }
        }
    }

    /// The value at x in double precision.
    pub fn eval_f64(&self, x: f64) -> f64 {
        let Ok(y) = self.eval(&mut F64, &x, None);
        y
    }

    /// The values at many points; bit for bit those of [`Circuit::eval_f64`].
    pub fn eval_slice(&self, x: &[f64]) -> Vec<f64> {
        let mut out = Vec::with_capacity(x.len());
        for block in x.chunks(512) {
            let Ok(y) = self.eval(&mut Lanes, &block.to_vec(), None);
            out.extend(y);
        }
        out
    }

    /// Depth and operation counts, the affine map of the argument included.
    pub fn cost(&self) -> Cost {
        let mut counter = Counter::default();
        let Ok(depth) = self.eval(&mut counter, &0, None);
        counter.cost(depth)
    }

    /// Levels of the affine map of the argument, which whoever makes the argument can fold into an
    /// earlier product.
    pub fn map_depth(&self) -> u32 {
        match self {
            Self::Polynomial { plan } => u32::from(!plan.is_mapped()),
            Self::Composite { plans } => plans.first().map_or(0, |p| u32::from(!p.is_mapped())),
            Self::Goldschmidt { .. } => 1,
            // The argument itself is needed again, so nothing is gained by mapping it elsewhere.
            Self::SeededInverse { .. } | Self::InverseSqrt { .. } | Self::Gate { .. } => 0,
        }
    }

    /// (scale, shift) of the affine map u = scale·x + shift that [`Circuit::eval_mapped`] expects
    /// to have been applied.
    pub fn map(&self) -> (f64, f64) {
        match self {
            Self::Polynomial { plan } => plan.interval().unit_map(),
            Self::Composite { plans } => plans.first().map_or((1.0, 0.0), |p| p.interval().unit_map()),
            Self::Goldschmidt { shift, slope, .. } => (-slope, 1.0 - slope * shift),
            Self::SeededInverse { .. } | Self::InverseSqrt { .. } | Self::Gate { .. } => (1.0, 0.0),
        }
    }

    /// Where the mapped argument should land so that the scales inside a Goldschmidt product do not
    /// drift: `end` is where the last e_k shall land, one level above the result, at the working
    /// scale. Other circuits take the argument at any scale.
    ///
    /// # Errors
    /// If there are not enough levels above `end`.
    pub fn mapped_landing<A: Arith>(&self, a: &A, end: &A::Target) -> Result<A::Target, A::Error> {
        let mut landing = end.clone();
        if let Self::Goldschmidt { relaxation, .. } = self {
            for omega in relaxation.iter().take(relaxation.len().saturating_sub(1)).rev() {
                landing = a.root(&landing, *omega)?;
            }
        }
        Ok(landing)
    }

    /// Like [`Circuit::eval`], for an argument already mapped by [`Circuit::map`].
    ///
    /// # Errors
    /// As [`Circuit::eval`].
    pub fn eval_mapped<A: Arith>(
        &self,
        a: &mut A,
        u: &A::Value,
        target: Option<&A::Target>,
    ) -> Result<A::Value, A::Error> {
        match self {
            Self::Polynomial { plan } => {
                let values = plan.eval_mapped(a, u, target.map(std::slice::from_ref))?;
                Ok(values.into_iter().next().unwrap_or_else(|| u.clone()))
            }
            Self::Composite { plans } => {
                let mut plans = plans.clone();
                if let Some(first) = plans.first_mut() {
                    *first = first.clone().mapped();
                }
                composite(&plans, a, u, target)
            }
            Self::Goldschmidt { slope, relaxation, .. } => {
                let result = match target {
                    Some(target) => target.clone(),
                    None => a.below(u, relaxation.len() as u32)?,
                };
                goldschmidt(*slope, relaxation, a, u.clone(), &result)
            }
            _ => self.eval(a, u, target),
        }
    }
}

fn composite<A: Arith>(
    plans: &[EvalPlan],
    a: &mut A,
    x: &A::Value,
    target: Option<&A::Target>,
) -> Result<A::Value, A::Error> {
    let mut value = x.clone();
    for (i, plan) in plans.iter().enumerate() {
        value = plan.eval(a, &value, target.filter(|_| i + 1 == plans.len()))?;
    }
    Ok(value)
}

/// start·Π(1 + e_k) from e_0, landing on `target`.
fn goldschmidt<A: Arith>(
    slope: f64,
    relaxation: &[f64],
    a: &mut A,
    e: A::Value,
    target: &A::Target,
) -> Result<A::Value, A::Error> {
    let start = slope * relaxation.iter().product::<f64>();
    let mut errors = vec![e];
    for omega in relaxation.iter().take(relaxation.len().saturating_sub(1)) {
        let last = &errors[errors.len() - 1];
        let square =
            Sum { weight: *omega, products: vec![(last, last)], linear: Vec::new(), constant: 1.0 - omega };
        let next = a.combine(&square, None)?;
        errors.push(next);
    }
    if relaxation.is_empty() {
        return a.combine(&Sum::affine(0.0, &errors[0], start), Some(target));
    }
    let mut landings = vec![target.clone()];
    for e in errors.iter().skip(1).rev() {
        let landing = a.factor(&landings[landings.len() - 1], 1.0, e)?;
        landings.push(landing);
    }
    let mut landings = landings.into_iter().rev();
    let first = landings.next();
    let mut y = a.combine(&Sum::affine(start, &errors[0], start), first.as_ref())?;
    for (e, landing) in errors.iter().skip(1).zip(landings) {
        let step = Sum { products: vec![(&y, e)], linear: vec![(1.0, &y)], ..Sum::default() };
        y = a.combine(&step, Some(&landing))?;
    }
    Ok(y)
}

fn seeded_inverse<A: Arith>(
    shift: f64,
    seed: &EvalPlan,
    relaxation: &[f64],
    a: &mut A,
    x: &A::Value,
) -> Result<A::Value, A::Error> {
    let mut y = seed.eval(a, x, None)?;
    let mut e = None;
    for (k, omega) in relaxation.iter().enumerate() {
        let here = match (&e, k.checked_sub(1)) {
            (Some(e), Some(before)) => {
                let omega = relaxation[before];
                let square =
                    Sum { weight: omega, products: vec![(e, e)], linear: Vec::new(), constant: 1.0 - omega };
                a.combine(&square, None)?
            }
            _ => {
                let linear = if shift == 0.0 { Vec::new() } else { vec![(-shift, &y)] };
                a.combine(&Sum { weight: -1.0, products: vec![(x, &y)], linear, constant: 1.0 }, None)?
            }
        };
        let step =
            Sum { weight: *omega, products: vec![(&y, &here)], linear: vec![(*omega, &y)], constant: 0.0 };
        y = a.combine(&step, None)?;
        e = Some(here);
    }
    Ok(y)
}

fn inverse_sqrt<A: Arith>(
    shift: f64,
    seed: &EvalPlan,
    steps: &[(f64, f64)],
    a: &mut A,
    x: &A::Value,
) -> Result<A::Value, A::Error> {
    let mut v = seed.eval(a, x, None)?;
    // y = ρ·v, with ρ such that the cubic term has weight −1; the last step returns to y itself.
    let mut rho = if steps.is_empty() { 1.0 } else { NEWTON_SCALE };
    for (k, (alpha, beta)) in steps.iter().enumerate() {
        let linear = if shift == 0.0 { Vec::new() } else { vec![(shift, &v)] };
        let h = a.combine(&Sum { products: vec![(x, &v)], linear, ..Sum::default() }, None)?;
        let g = a.combine(&Sum::product(&v, &v), None)?;
        let cubic = beta * rho * rho * rho;
        let next = if k + 1 == steps.len() { 1.0 } else { cubic };
        let weight = if k + 1 == steps.len() { -cubic } else { -1.0 };
        let step =
            Sum { weight, products: vec![(&h, &g)], linear: vec![(alpha * rho / next, &v)], constant: 0.0 };
        v = a.combine(&step, None)?;
        rho = next;
    }
    Ok(v)
}

/// Moves a value onto its target, if there is one, by a product with 1.
fn landed<A: Arith>(a: &mut A, y: A::Value, target: Option<&A::Target>) -> Result<A::Value, A::Error> {
    match target {
        Some(target) => a.combine(&Sum::affine(1.0, &y, 0.0), Some(target)),
        None => Ok(y),
    }
}
