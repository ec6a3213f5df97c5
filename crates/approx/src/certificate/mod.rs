//! Rigorous bounds on the error of a scheme over its whole domain, rounding included.
//!
//! The domain is cut into pieces. On each the circuit runs on Taylor models, which gives a
//! polynomial and a remainder that enclose what the double-precision evaluation really returns; the
//! function is enclosed in the same way, and the difference is bounded. Pieces with the largest
//! bound are halved until the bound is close to an error that is actually attained. A dense grid
//! plays no part in the bound.

mod model;

use crate::interval::check_domain;
use crate::{Circuit, Error, Function, Interval, Result};
use model::{Model, ModelArith};
use serde::{Deserialize, Serialize};
use std::collections::BinaryHeap;
use std::f64::consts::FRAC_1_SQRT_2;
use std::fmt;

/// How an error is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    /// |y − f(x)|.
    Absolute,
    /// |y − f(x)| / |f(x)|.
    Relative,
}

/// A proved bound on the error of one circuit for one function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// The function approximated.
    pub function: Function,
    /// Where the bound holds: disjoint intervals, ascending.
    pub domain: Vec<Interval>,
    /// How the error is measured.
    pub measure: Measure,
    /// Upper bound on the error of the double-precision evaluation, everywhere on the domain.
    pub bound: f64,
    /// An error that is attained: the bound cannot be lowered below it.
    pub attained: f64,
    /// Where it is attained, up to the width of a piece.
    pub witness: f64,
    /// Pieces of the domain at the end of the proof.
    pub pieces: usize,
}

/// Ratio of bound to attained error at which the proof stops.
const TIGHTNESS: f64 = 1.04;
const MAX_PIECES: usize = 1 << 18;
const FIRST_PIECES: usize = 32;

impl Certificate {
    /// Proves a bound for a circuit.
    ///
    /// # Errors
    /// A pole in the domain, intervals that are not disjoint and ascending, or [`Error::NotProved`]
    /// when no finite bound was found.
    pub fn prove(
        circuit: &Circuit,
        function: Function,
        domain: &[Interval],
        measure: Measure,
    ) -> Result<Self> {
        let mut heap = BinaryHeap::new();
        for piece in first_pieces(function, domain)? {
            heap.push(Piece::new(circuit, function, measure, piece));
        }
        let (mut attained, mut witness) = (0.0, domain[0].lo());
        for piece in &heap {
            if piece.attained > attained {
                (attained, witness) = (piece.attained, piece.witness);
            }
        }
        while let Some(top) = heap.peek() {
            let (lo, hi) = top.ends;
            let mid = 0.5 * lo + 0.5 * hi;
            let indivisible = hi - lo <= 1e-14 * lo.abs().max(hi.abs()) || mid <= lo || mid >= hi;
            if top.upper <= TIGHTNESS * attained || indivisible || heap.len() >= MAX_PIECES {
                break;
            }
            heap.pop();
            for ends in [(lo, mid), (mid, hi)] {
                let piece = Piece::new(circuit, function, measure, ends);
                if piece.attained > attained {
                    (attained, witness) = (piece.attained, piece.witness);
                }
                heap.push(piece);
            }
        }
        let pieces = heap.len();
        let bound = heap.peek().map_or(f64::INFINITY, |p| p.upper);
        if !bound.is_finite() {
            return Err(Error::NotProved { bound: f64::MAX, pieces, at: witness, proved: bound });
        }
        Ok(Self { function, domain: domain.to_vec(), measure, bound, attained, witness, pieces })
    }

    /// Proves the bound again, for a circuit that claims it, by a search of its own: every piece of
    /// the domain is halved until its own bound is not above the one certified.
    ///
    /// # Errors
    /// [`Error::NotProved`] at the first place where that fails, [`Error::Parameter`] for a bound
    /// that bounds nothing.
    pub fn verify(&self, circuit: &Circuit) -> Result<()> {
        if !(self.bound >= 0.0 && self.bound.is_finite()) {
            let (what, value) = ("certified bound", self.bound);
            return Err(Error::Parameter { what, value, expected: "finite and not negative" });
        }
        if !(self.attained >= 0.0 && self.attained <= self.bound) {
            let (what, value) = ("attained error of a certificate", self.attained);
            return Err(Error::Parameter { what, value, expected: "between 0 and the bound" });
        }
        let mut stack: Vec<(f64, f64)> = first_pieces(self.function, &self.domain)?;
        let mut seen = 0;
        while let Some((lo, hi)) = stack.pop() {
            seen += 1;
            let piece = Piece::new(circuit, self.function, self.measure, (lo, hi));
            if piece.upper <= self.bound {
                continue;
            }
            let mid = 0.5 * lo + 0.5 * hi;
            if piece.attained > self.bound || mid <= lo || mid >= hi || seen > 4 * MAX_PIECES {
                return Err(Error::NotProved {
                    bound: self.bound,
                    pieces: seen,
                    at: mid,
                    proved: piece.upper,
                });
            }
            stack.extend([(lo, mid), (mid, hi)]);
        }
        Ok(())
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let measure = match self.measure {
            Measure::Absolute => "absolute",
            Measure::Relative => "relative",
        };
        write!(f, "{} on", self.function)?;
        for interval in &self.domain {
            write!(f, " {interval}")?;
        }
        write!(
            f,
            ": {measure} error <= {:.3e} (attained {:.3e} at {:.6})",
            self.bound, self.attained, self.witness
        )
    }
}

/// A piece of the domain with its bounds.
struct Piece {
    ends: (f64, f64),
    upper: f64,
    attained: f64,
    witness: f64,
}

impl Piece {
    fn new(circuit: &Circuit, function: Function, measure: Measure, ends: (f64, f64)) -> Self {
        let x = Model::argument(ends.0, ends.1);
        let Ok(y) = circuit.eval(&mut ModelArith, &x, None);
        let (upper, attained, t) = deviation(function, measure, &x, &y);
        let upper = if upper.is_nan() { f64::INFINITY } else { upper.max(0.0) };
        let attained = if attained.is_nan() || upper.is_infinite() { 0.0 } else { attained };
        let witness = (0.5 * (ends.0 + ends.1) + 0.5 * t * (ends.1 - ends.0)).clamp(ends.0, ends.1);
        Self { ends, upper, attained, witness }
    }
}

impl PartialEq for Piece {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Piece {}

impl PartialOrd for Piece {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Piece {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.upper.total_cmp(&other.upper)
    }
}

fn first_pieces(function: Function, domain: &[Interval]) -> Result<Vec<(f64, f64)>> {
    check_domain(domain)?;
    let mut out = Vec::new();
    for interval in domain {
        function.check_domain(*interval)?;
        let mut points: Vec<f64> = interval.linspace(FIRST_PIECES + 1).collect();
        if matches!(function, Function::Relu) && interval.contains(0.0) {
            points.push(0.0);
            points.sort_by(f64::total_cmp);
            points.dedup();
        }
        out.extend(points.windows(2).map(|p| (p[0], p[1])));
    }
    Ok(out)
}

/// (upper bound, attained value, its t) of the error on a piece.
fn deviation(function: Function, measure: Measure, x: &Model, y: &Model) -> (f64, f64, f64) {
    let (lo, hi) = x.range();
    match function {
        Function::Inverse { shift } => {
            let shifted = x.plus(shift);
            let relative = shifted.mul(y).plus(-1.0);
            let weight = match measure {
                Measure::Relative => (1.0, 1.0),
                Measure::Absolute => {
                    let (a, b) = shifted.range();
                    (1.0 / a.abs().min(b.abs()).next_down(), 1.0 / a.abs().max(b.abs()))
                }
            };
            weighted(&relative, weight)
        }
        Function::InverseSqrt { shift } => {
            let shifted = x.plus(shift);
            let z = shifted.mul(y).mul(y).plus(-1.0);
            let (a, b) = z.range();
            if y.range().0 <= 0.0 || a < -1.0 {
                return (f64::INFINITY, 0.0, 0.0);
            }
            // y·√x − 1 = √(1 + z) − 1 = z / (1 + √(1 + z)), increasing in z.
            let root = |z: f64| z / (1.0 + (1.0 + z).sqrt());
            let upper = root(a).abs().max(root(b).abs()) * (1.0 + 8.0 * f64::EPSILON);
            let (z, t) = z.attained();
            let attained = root(z).abs() * (1.0 - 8.0 * f64::EPSILON);
            let (near, far) = match measure {
                Measure::Relative => (1.0, 1.0),
                Measure::Absolute => {
                    (shifted.range().0.sqrt().next_down(), shifted.range().1.sqrt().next_up())
                }
            };
            ((upper / near).next_up(), attained / far, t)
        }
        Function::Sign => weighted(&y.plus(if hi > 0.0 { -1.0 } else { 1.0 }), (1.0, 1.0)),
        Function::Step => {
            let error = y.plus(if hi > 0.0 { -1.0 } else { 0.0 });
            if measure == Measure::Relative && hi <= 0.0 {
                return (f64::INFINITY, 0.0, 0.0);
            }
            weighted(&error, (1.0, 1.0))
        }
        _ => {
            let f = value(function, x, lo, hi);
            let error = y.add_scaled(-1.0, &f);
            let weight = match measure {
                Measure::Absolute => (1.0, 1.0),
                Measure::Relative => {
                    let (a, b) = f.range();
                    if a <= 0.0 && b >= 0.0 {
                        return (f64::INFINITY, 0.0, 0.0);
                    }
                    (1.0 / a.abs().min(b.abs()).next_down(), 1.0 / a.abs().max(b.abs()))
                }
            };
            weighted(&error, weight)
        }
    }
}

fn weighted(error: &Model, (above, below): (f64, f64)) -> (f64, f64, f64) {
    let (lo, hi) = error.range();
    let (attained, t) = error.attained();
    ((lo.abs().max(hi.abs()) * above).next_up(), (attained.abs() * below).next_down().max(0.0), t)
}

/// Enclosure of a smooth function on the piece.
fn value(function: Function, x: &Model, lo: f64, hi: f64) -> Model {
    match function {
        Function::Exp => x.exp(),
        Function::Erf => x.erf_affine(),
        Function::Gelu => {
            let z = x.scaled(FRAC_1_SQRT_2);
            let z = z.widened(f64::EPSILON * z.magnitude());
            x.scaled(0.5).mul(&z.erf_affine().plus(1.0))
        }
        Function::Sigmoid => sigmoid(x, lo),
        Function::Silu => x.mul(&sigmoid(x, lo)),
        Function::Tanh => sigmoid(&x.scaled(2.0), lo).scaled(2.0).plus(-1.0),
        Function::Relu => {
            if hi > 0.0 && lo + hi > 0.0 {
                *x
            } else {
                Model::constant(0.0)
            }
        }
        Function::Inverse { .. } | Function::InverseSqrt { .. } | Function::Sign | Function::Step => {
            Model::constant(0.0).widened(f64::INFINITY)
        }
    }
}

/// 1 / (1 + e^−x) or e^x / (1 + e^x), whichever keeps the exponential small.
fn sigmoid(x: &Model, lo: f64) -> Model {
    if lo >= 0.0 {
        x.scaled(-1.0).exp().plus(1.0).recip()
    } else {
        let e = x.exp();
        e.mul(&e.plus(1.0).recip())
    }
}
