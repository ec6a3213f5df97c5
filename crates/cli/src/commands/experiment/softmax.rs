//! Three attention normalisers on the same packed scores, each with the economies that the layout
//! allows.
//!
//! Slot `key * pairs + pair` holds the score of a (head, row) pair and a key; a vector holds `slots
//! / pairs` keys. Sums over keys are additions of vectors and one cyclic sum, clean in every slot,
//! so each normaliser has one *narrow* vector of period `pairs` for all rows, whatever the length:
//! reciprocals are evaluated and refreshed there, and the *wide* vectors of weights are never
//! bootstrapped.

use cipherlm_approx::{EvalPlan, Interval, Polynomial, chebyshev};
use cipherlm_circuits::polynomial;
use cipherlm_circuits::slots::{self, Machine, Plain, RefreshKind};
use rayon::prelude::*;

/// Scores lie in `-REACH .. REACH`; exponentials are taken of `score - REACH`.
pub(super) const REACH: f64 = 4.0;
/// Shift of the power.
const SHIFT: f64 = 3.0;
/// Constant in the power's denominator, in units of the largest possible mean.
const EPS: f64 = 1.0 / 300.0;
/// Halvings of the exponent: `exp(x) = exp(x / 2^HALVINGS)^(2^HALVINGS)`, and rounds of
/// normalise-and-square.
const HALVINGS: usize = 3;
/// Factors of Goldschmidt's product: `(1 - exp(-2 REACH))^(2^15) < 1e-4`.
const FACTORS: usize = 15;

/// Which normaliser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// `(x + c)^4 / (eps + mean)`.
    Power,
    /// Taylor exponential of degree 8 with squarings, Goldschmidt division.
    Taylor,
    /// Exponential of a fraction, then normalise and square.
    Square,
}

impl Method {
    pub(super) const ALL: [Self; 3] = [Self::Power, Self::Taylor, Self::Square];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Power => "power",
            Self::Taylor => "exp_taylor_goldschmidt",
            Self::Square => "normalise_and_square",
        }
    }

    /// Unnormalised weight of a score, in the clear.
    pub(super) fn weight(self, x: f64) -> f64 {
        match self {
            Self::Power => ((x + SHIFT) / (REACH + SHIFT)).powi(4),
            _ => (x - REACH).exp(),
        }
    }

    /// What is added to the sum of `n` weights.
    pub(super) fn constant(self, n: usize) -> f64 {
        if self == Self::Power { EPS * n as f64 } else { 0.0 }
    }
}

/// Circuits for one length.
pub(super) struct Softmax {
    method: Method,
    /// Keys of a row: all rows attend to all of them.
    keys: usize,
    pairs: usize,
    exponential: EvalPlan,
    /// Reciprocals of the narrow vector, by use.
    reciprocals: Vec<EvalPlan>,
}

/// Seconds of the wide and the narrow part of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Split {
    pub(super) wide: f64,
    pub(super) narrow: f64,
    pub(super) refreshes: usize,
}

impl Softmax {
    pub(super) fn new(method: Method, keys: usize, pairs: usize) -> anyhow::Result<Self> {
        let exponential = match method {
            // The Taylor series around the middle of the interval.
            Method::Taylor => {
                let step = REACH / f64::from(1 << HALVINGS);
                let mut term = (-step).exp();
                let series = (0..9).map(|k| {
                    let now = term;
                    term *= step / f64::from(k + 1);
                    now
                });
                Polynomial::monomial(Interval::UNIT, series.collect())?
            }
            _ => {
                let step = REACH / f64::from(1 << HALVINGS);
                chebyshev::interpolate(|t| (step * (t - 1.0)).exp(), Interval::UNIT, 3)?
            }
        };
        let reciprocal = |lo: f64, hi: f64, degree: usize| -> anyhow::Result<EvalPlan> {
            let fit = chebyshev::interpolate(|s| 1.0 / s, Interval::new(lo, hi)?, degree)?;
            Ok(EvalPlan::new(&fit)?)
        };
        let reciprocals = match method {
            Method::Power => vec![reciprocal(EPS, 1.0 + EPS, 63)?],
            Method::Taylor => vec![],
            Method::Square => {
                // Sums of weights that are already normalised: between 1 / keys and 1.
                let least = 1.0 / keys as f64;
                let first = reciprocal((-2.0 * REACH / f64::from(1 << HALVINGS)).exp() * 0.98, 1.02, 7)?;
                let rounds = (1..=HALVINGS).map(|round| {
                    let degree = if round == HALVINGS { 63 } else { 31 };
                    reciprocal(least * 0.9, 1.1, if keys > 512 { 2 * degree + 1 } else { degree })
                });
                std::iter::once(Ok(first)).chain(rounds).collect::<anyhow::Result<_>>()?
            }
        };
        Ok(Self { method, keys, pairs, exponential: EvalPlan::new(&exponential)?, reciprocals })
    }

    pub(super) fn method(&self) -> Method {
        self.method
    }

    /// What one unit of a score's slot is: scores enter as the argument of the first polynomial.
    pub(super) fn enter(&self, score: f64) -> f64 {
        if self.method == Method::Power { (score + SHIFT) / (REACH + SHIFT) } else { score / REACH }
    }

    /// Normalised weights times the number of keys over `gain`: slots within about one.
    pub(super) fn run<M: Machine>(
        &self,
        machine: &M,
        scores: &[M::Vector],
    ) -> slots::Result<(Vec<M::Vector>, Split)> {
        let mut split = Split::default();
        let clock = std::time::Instant::now();
        let out = match self.method {
            Method::Power => self.power(machine, scores, &mut split)?,
            Method::Taylor => self.taylor(machine, scores, &mut split)?,
            Method::Square => self.square(machine, scores, &mut split)?,
        };
        split.wide = clock.elapsed().as_secs_f64() - split.narrow;
        Ok((out, split))
    }

    fn power<M: Machine>(
        &self,
        machine: &M,
        scores: &[M::Vector],
        split: &mut Split,
    ) -> slots::Result<Vec<M::Vector>> {
        let weights = each(scores, |x| machine.square(&machine.square(x)?))?;
        // The mask would ride here; it costs every method the same product.
        let clock = std::time::Instant::now();
        let mean = self.mean(machine, &weights)?;
        let sum = machine.add_plain(&mean, &Plain::from(EPS))?;
        let inverse = polynomial::evaluate_all(machine, &self.reciprocals[0], &sum)?.swap_remove(0);
        split.narrow += clock.elapsed().as_secs_f64();
        times(machine, &weights, &inverse)
    }

    fn taylor<M: Machine>(
        &self,
        machine: &M,
        scores: &[M::Vector],
        split: &mut Split,
    ) -> slots::Result<Vec<M::Vector>> {
        let weights = each(scores, |x| {
            let root = polynomial::evaluate_all(machine, &self.exponential, x)?.swap_remove(0);
            (0..HALVINGS).try_fold(root, |x, _| machine.square(&x))
        })?;
        let clock = std::time::Instant::now();
        // 1/d = prod (1 + e^(2^i)), e = 1 - d. What is refreshed is scaled to stay within one: the
        // product reaches exp(2 REACH).
        let scale = (-2.0 * REACH).exp();
        let mean = self.fresh(machine, &self.mean(machine, &weights)?, split)?;
        let one = |x: &M::Vector| machine.add_plain(x, &Plain::from(1.0));
        let mut error = one(&machine.neg(&mean)?)?;
        let mut inverse = machine.mul_const(&one(&error)?, scale.into())?;
        for _ in 1..FACTORS {
            if machine.level(&error).min(machine.level(&inverse)) < machine.chain().floor() + 2 {
                error = self.fresh(machine, &error, split)?;
                inverse = self.fresh(machine, &inverse, split)?;
            }
            error = machine.square(&error)?;
            inverse = machine.mul(&inverse, &one(&error)?)?;
        }
        let wide = weights.first().map_or(0, |w| machine.level(w));
        if machine.level(&inverse) < wide {
            inverse = self.fresh(machine, &inverse, split)?;
        }
        split.narrow += clock.elapsed().as_secs_f64();
        times(machine, &weights, &inverse)
    }

    fn square<M: Machine>(
        &self,
        machine: &M,
        scores: &[M::Vector],
        split: &mut Split,
    ) -> slots::Result<Vec<M::Vector>> {
        let mut weights =
            each(scores, |x| Ok(polynomial::evaluate_all(machine, &self.exponential, x)?.swap_remove(0)))?;
        for (round, plan) in self.reciprocals.iter().enumerate() {
            if round > 0 {
                weights = each(&weights, |x| machine.square(x))?;
            }
            let clock = std::time::Instant::now();
            // Weights are kept times the number of keys over the largest of them: the mean of the
            // first round, then the sum.
            let mean = if round == 0 { self.mean(machine, &weights)? } else { self.sum(machine, &weights)? };
            let fresh = self.fresh(machine, &mean, split)?;
            let inverse = polynomial::evaluate_all(machine, plan, &fresh)?.swap_remove(0);
            let inverse = if round == 0 {
                machine.mul_const(&inverse, (1.0 / self.keys as f64).into())?
            } else {
                inverse
            };
            split.narrow += clock.elapsed().as_secs_f64();
            weights = times(machine, &weights, &inverse)?;
        }
        Ok(weights)
    }

    /// Scale of the results: weights come out as `scale * weight`.
    pub(super) fn scale(&self) -> f64 {
        match self.method {
            // Divided by the mean, not the sum.
            Method::Power => self.keys as f64,
            Method::Taylor => self.keys as f64 * (-2.0 * REACH).exp(),
            Method::Square => 1.0,
        }
    }

    fn sum<M: Machine>(&self, machine: &M, weights: &[M::Vector]) -> slots::Result<M::Vector> {
        let sum = machine.add_many(&weights.iter().collect::<Vec<_>>())?;
        machine.rotate_sum(&sum, self.pairs as i64, machine.slots() / self.pairs)
    }

    fn mean<M: Machine>(&self, machine: &M, weights: &[M::Vector]) -> slots::Result<M::Vector> {
        let sum = machine.add_many(&weights.iter().collect::<Vec<_>>())?;
        let scaled = machine.mul_const(&sum, (1.0 / self.keys as f64).into())?;
        machine.rotate_sum(&scaled, self.pairs as i64, machine.slots() / self.pairs)
    }

    fn fresh<M: Machine>(
        &self,
        machine: &M,
        narrow: &M::Vector,
        split: &mut Split,
    ) -> slots::Result<M::Vector> {
        split.refreshes += 1;
        machine.refresh(narrow, RefreshKind::SparseReal(self.pairs), None)
    }
}

fn each<V: Send + Sync>(
    vectors: &[V],
    f: impl Fn(&V) -> slots::Result<V> + Sync + Send,
) -> slots::Result<Vec<V>> {
    vectors.par_iter().map(f).collect()
}

/// Every vector times one.
fn times<M: Machine>(
    machine: &M,
    vectors: &[M::Vector],
    factor: &M::Vector,
) -> slots::Result<Vec<M::Vector>> {
    each(vectors, |x| machine.mul(x, factor))
}
