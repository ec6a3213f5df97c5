//! Functions with a circuit, a domain, a certified error and a cost.

pub(crate) mod circuit;
pub(crate) mod composite;
pub(crate) mod makers;

pub use circuit::Circuit;
pub use composite::{SignStage, minimax_sign};
pub use makers::relaxation;

use crate::certificate::{Certificate, Measure};
use crate::plan::{Arith, Cost, Sum};
use crate::{Error, Function, Interval, Result, Violations};
use serde::{Deserialize, Serialize};

/// One function, made polynomial.
///
/// A scheme does not notice an argument outside its domain: Goldschmidt's product saturates there
/// at a wrong constant, and polynomials grow. Count violations with [`Scheme::violations`] on clear
/// data first.
///
/// Reading one with serde proves it again, which takes about as long as making it: a file cannot
/// claim an error, a domain or a cost that its circuit has not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Claim")]
pub struct Scheme {
    name: String,
    circuit: Circuit,
    certificate: Certificate,
    cost: Cost,
}

/// A scheme as a file has it, before it is proved.
#[derive(Deserialize)]
struct Claim {
    name: String,
    circuit: Circuit,
    certificate: Certificate,
    cost: Cost,
}

impl TryFrom<Claim> for Scheme {
    type Error = Error;

    fn try_from(Claim { name, circuit, certificate, cost }: Claim) -> Result<Self> {
        let scheme = Self { name, circuit, certificate, cost };
        scheme.verify()?;
        Ok(scheme)
    }
}

impl Scheme {
    /// A circuit for a function on a domain of disjoint ascending intervals, with its error proved
    /// here.
    ///
    /// # Errors
    /// A pole in the domain, or an error that cannot be bounded.
    pub fn certified(
        name: impl Into<String>,
        circuit: Circuit,
        function: Function,
        domain: &[Interval],
        measure: Measure,
    ) -> Result<Self> {
        let certificate = Certificate::prove(&circuit, function, domain, measure)?;
        let cost = circuit.cost();
        Ok(Self { name: name.into(), circuit, certificate, cost })
    }

    /// How it computes, in a few words.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The function approximated.
    pub fn function(&self) -> Function {
        self.certificate.function
    }

    /// Where the error holds: disjoint intervals, ascending.
    pub fn domain(&self) -> &[Interval] {
        &self.certificate.domain
    }

    /// The smallest interval around the domain.
    pub fn hull(&self) -> Interval {
        let domain = &self.certificate.domain;
        domain.iter().skip(1).fold(domain[0], |h, i| h.hull(i))
    }

    /// Absolute or relative error.
    pub fn measure(&self) -> Measure {
        self.certificate.measure
    }

    /// Proved bound on the error over the domain, rounding of doubles included.
    pub fn max_error(&self) -> f64 {
        self.certificate.bound
    }

    /// The proof's outcome.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The computation.
    pub fn circuit(&self) -> &Circuit {
        &self.circuit
    }

    /// Operation counts, the affine map of the argument included.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// Levels used, the affine map of the argument included.
    pub fn depth(&self) -> u32 {
        self.cost.depth
    }

    /// Levels used when the affine map of the argument is folded into whatever makes the argument.
    pub fn depth_mapped(&self) -> u32 {
        self.cost.depth - self.circuit.map_depth()
    }

    /// Products of two values.
    pub fn products(&self) -> u32 {
        self.cost.products
    }

    /// The value at x on any arithmetic; see [`Circuit::eval`].
    ///
    /// # Errors
    /// What the arithmetic reports, such as too few levels.
    pub fn eval<A: Arith>(
        &self,
        a: &mut A,
        x: &A::Value,
        target: Option<&A::Target>,
    ) -> Result<A::Value, A::Error> {
        self.circuit.eval(a, x, target)
    }

    /// The value at x in double precision; also outside the domain, where it means nothing.
    pub fn eval_f64(&self, x: f64) -> f64 {
        self.circuit.eval_f64(x)
    }

    /// The values at many points.
    pub fn eval_slice(&self, x: &[f64]) -> Vec<f64> {
        self.circuit.eval_slice(x)
    }

    /// Whether x lies in the domain.
    pub fn contains(&self, x: f64) -> bool {
        self.domain().iter().any(|i| i.contains(x))
    }

    /// How many of the values lie outside the domain, and the worst. Points in a gap of the domain
    /// (the neighbourhood of 0 for a sign) count as outside; the worst is the value farthest from
    /// the hull, or else the first in a gap.
    pub fn violations<'a>(&self, values: impl IntoIterator<Item = &'a f64>) -> Violations {
        let hull = self.hull();
        let mut total = Violations::default();
        let mut in_gap = None;
        let mut worst: Option<f64> = None;
        for x in values {
            total.checked += 1;
            if self.contains(*x) {
                continue;
            }
            total.outside += 1;
            if hull.contains(*x) {
                in_gap = in_gap.or(Some(*x));
                continue;
            }
            let both = [worst.unwrap_or(*x), *x];
            worst = hull.violations(&both).worst;
        }
        total.worst = worst.or(in_gap);
        total
    }

    /// Proves the error of this scheme again, as reading it from a file does.
    ///
    /// # Errors
    /// [`Error::NotProved`] if the bound cannot be shown, [`Error::WrongCertificate`] if the
    /// recorded cost is not that of the circuit, and what [`Certificate::verify`] refuses in a
    /// domain or a bound.
    pub fn verify(&self) -> Result<()> {
        let cost = self.circuit.cost();
        if cost != self.cost {
            let (certified, given) = (format!("{:?}", self.cost), format!("{cost:?}"));
            return Err(Error::WrongCertificate { certified, given });
        }
        self.certificate.verify(&self.circuit)
    }

    /// max(a, b), for a scheme of max(x, 0) whose domain holds a − b: b + relu(a − b). One level
    /// more than the scheme for the difference and one for the sum.
    ///
    /// # Errors
    /// [`Error::WrongCertificate`] inside the outer result for a scheme of another function; the
    /// inner one is the arithmetic's.
    pub fn max<A: Arith>(
        &self,
        arith: &mut A,
        a: &A::Value,
        b: &A::Value,
    ) -> Result<Result<A::Value, A::Error>> {
        self.extremum(arith, (a, b), (1.0, b))
    }

    /// min(a, b) = a − relu(a − b); see [`Scheme::max`].
    ///
    /// # Errors
    /// As [`Scheme::max`].
    pub fn min<A: Arith>(
        &self,
        arith: &mut A,
        a: &A::Value,
        b: &A::Value,
    ) -> Result<Result<A::Value, A::Error>> {
        self.extremum(arith, (a, b), (-1.0, a))
    }

    fn extremum<A: Arith>(
        &self,
        arith: &mut A,
        (a, b): (&A::Value, &A::Value),
        (sign, base): (f64, &A::Value),
    ) -> Result<Result<A::Value, A::Error>> {
        if self.function() != Function::Relu {
            let (certified, given) = (self.function().to_string(), Function::Relu.to_string());
            return Err(Error::WrongCertificate { certified, given });
        }
        let run = |arith: &mut A| {
            let difference =
                arith.combine(&Sum { linear: vec![(1.0, a), (-1.0, b)], ..Sum::default() }, None)?;
            let relu = self.eval(arith, &difference, None)?;
            arith.combine(&Sum { linear: vec![(sign, &relu), (1.0, base)], ..Sum::default() }, None)
        };
        Ok(run(arith))
    }
}
