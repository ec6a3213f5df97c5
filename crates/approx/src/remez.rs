//! Minimax polynomials by the Remez exchange, in multi-precision.

mod exchange;
mod minimax;

pub use minimax::{Minimax, Weight};

use crate::float::Float;
use crate::interval::check_domain;
use crate::{Error, Function, Interval, Parity, Result};
use exchange::Problem;

/// Highest degree accepted.
pub const MAX_DEGREE: usize = 512;
const MAX_BITS: usize = 4096;

/// A minimax problem: a domain of one or several intervals, a degree, a parity, a weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Remez {
    domain: Vec<Interval>,
    degree: usize,
    parity: Parity,
    weight: Weight,
    tolerance: f64,
    max_iterations: usize,
}

impl Remez {
    /// Best approximation of the given degree on a domain, in absolute error.
    ///
    /// # Errors
    /// If there is no interval, or they touch or are out of order, or the degree is above
    /// [`MAX_DEGREE`].
    pub fn new(domain: &[Interval], degree: usize) -> Result<Self> {
        check_domain(domain)?;
        if degree > MAX_DEGREE {
            return Err(Error::DegreeTooHigh { degree, limit: MAX_DEGREE, what: "the Remez exchange" });
        }
        let (parity, weight) = (Parity::None, Weight::Absolute);
        Ok(Self { domain: domain.to_vec(), degree, parity, weight, tolerance: 1e-9, max_iterations: 60 })
    }

    /// Weight of the error.
    #[must_use]
    pub fn weight(self, weight: Weight) -> Self {
        Self { weight, ..self }
    }

    /// Restricts to even or odd polynomials. The domain must then lie on the positive side: the
    /// mirror image is implied.
    #[must_use]
    pub fn parity(self, parity: Parity) -> Self {
        Self { parity, ..self }
    }

    /// Relative gap between levelled and largest error at which the exchange stops (10^-9 unless
    /// set).
    #[must_use]
    pub fn tolerance(self, tolerance: f64) -> Self {
        Self { tolerance, ..self }
    }

    /// Exchanges after which to give up (60 unless set).
    #[must_use]
    pub fn max_iterations(self, max_iterations: usize) -> Self {
        Self { max_iterations, ..self }
    }

    /// The best approximation of one of the named functions.
    ///
    /// # Errors
    /// A pole in the domain, a zero in it if the error is relative, fewer doubles in the domain
    /// than the degree needs points, an exchange that does not converge (with its last state), or a
    /// degree whose error no working precision resolves.
    pub fn fit(&self, f: &Function) -> Result<Minimax> {
        for &interval in &self.domain {
            f.check_domain(interval)?;
        }
        self.fit_with(&|x| f.eval_float(x))
    }

    /// The best approximation of a function given in multi-precision. A function that is only known
    /// to double precision limits the levelled error to about 10^-15 of its values. A function that
    /// is itself a polynomial of the degree asked for comes back as it is, with the error 0.
    ///
    /// # Errors
    /// As [`Remez::fit`], and [`Error::NonFiniteSample`] where f is not finite.
    pub fn fit_with(&self, f: &dyn Fn(&Float) -> Float) -> Result<Minimax> {
        if self.parity != Parity::None && self.domain[0].lo() < 0.0 {
            let value = self.domain[0].lo();
            return Err(Error::Parameter {
                what: "domain of a symmetric fit",
                value,
                expected: "not negative",
            });
        }
        if self.parity == Parity::Odd && self.degree == 0 {
            return Err(Error::Parameter {
                what: "degree of an odd fit",
                value: 0.0,
                expected: "at least 1",
            });
        }
        if !(self.tolerance > 0.0 && self.tolerance.is_finite()) {
            let (what, value) = ("tolerance of a fit", self.tolerance);
            return Err(Error::Parameter { what, value, expected: "positive and finite" });
        }
        let mut bits = 128 + self.degree;
        loop {
            let problem = Problem::new(&self.domain, self.degree, self.parity, self.weight, bits, f);
            match problem.solve(self.tolerance, self.max_iterations) {
                Err(Error::PrecisionExhausted { .. }) if 2 * bits <= MAX_BITS => bits *= 2,
                Err(Error::PrecisionExhausted { .. }) => return problem.exact(),
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::float;

    fn interval(lo: f64, hi: f64) -> Interval {
        Interval::new(lo, hi).unwrap()
    }

    /// log2 of 1 / T_{n+1}((κ+1)/(κ−1)), the least possible relative error of degree n for 1/x on
    /// [1, κ].
    fn closed_form(kappa: f64, n: usize) -> f64 {
        let k = float::float(kappa, 256);
        let t = (&k + Float::from(1)) / (&k - Float::from(1));
        let s = &t + (&t * &t - Float::from(1)).sqrt();
        let big = s.powi((n + 1).into());
        let value = (big.clone() + Float::from(1) / big) / Float::from(2);
        -float::log2_abs(&value)
    }

    #[test]
    fn inverse_levels_at_the_closed_form() {
        for (kappa, n) in [(2.0, 15), (10.0, 31), (1e3, 7), (1024.0, 63), (1048576.0, 31), (1048576.0, 127)] {
            let fit = Remez::new(&[interval(1.0, kappa)], n)
                .unwrap()
                .weight(Weight::Relative)
                .fit(&Function::INVERSE);
            let fit = fit.unwrap();
            let relative = ((fit.log2_levelled - closed_form(kappa, n)) * std::f64::consts::LN_2).abs();
            assert!(relative < 1e-6, "κ = {kappa}, n = {n}: off by {relative:e}");
            assert!(fit.largest / fit.levelled < 1.0 + 1e-6);
        }
    }

    #[test]
    fn inverse_levels_at_the_closed_form_at_high_degree() {
        for (kappa, n) in [(2.0, 191), (1e3, 191), (1048576.0, 191), (65536.0, 160)] {
            let fit = Remez::new(&[interval(1.0, kappa)], n)
                .unwrap()
                .weight(Weight::Relative)
                .fit(&Function::INVERSE);
            let fit = fit.unwrap();
            let relative = ((fit.log2_levelled - closed_form(kappa, n)) * std::f64::consts::LN_2).abs();
            assert!(relative < 1e-6, "κ = {kappa}, n = {n}: off by {relative:e}");
        }
    }

    #[test]
    fn errors_equioscillate() {
        let fit = Remez::new(&[interval(-1.0, 1.0)], 9).unwrap().fit(&Function::Exp).unwrap();
        assert_eq!(fit.reference.len(), 11);
        let signs: Vec<f64> = fit.reference.iter().map(|&x| x.exp() - fit.polynomial.eval(x)).collect();
        for pair in signs.windows(2) {
            assert!(pair[0] * pair[1] < 0.0);
            assert!((pair[0].abs() / fit.levelled - 1.0).abs() < 1e-3);
        }
    }

    #[test]
    fn parity_matches_the_two_sided_problem() {
        let (lo, hi) = (0.05, 1.0);
        let two =
            Remez::new(&[interval(-hi, -lo), interval(lo, hi)], 7).unwrap().fit(&Function::Sign).unwrap();
        let odd =
            Remez::new(&[interval(lo, hi)], 7).unwrap().parity(Parity::Odd).fit(&Function::Sign).unwrap();
        assert!((two.levelled / odd.levelled - 1.0).abs() < 1e-6, "{} {}", two.levelled, odd.levelled);
        assert_eq!(odd.polynomial.parity(), Parity::Odd);
        let even = Remez::new(&[interval(0.0, 2.0)], 8).unwrap().parity(Parity::Even);
        let even = even.fit_with(&|x| (-(x * x)).exp()).unwrap();
        assert_eq!(even.polynomial.parity(), Parity::Even);
        for x in interval(-2.0, 2.0).linspace(101) {
            assert!(((-x * x).exp() - even.polynomial.eval(x)).abs() < 1.001 * even.levelled);
        }
    }

    #[test]
    fn tiny_errors_come_out_right() {
        let fit = Remez::new(&[interval(-0.5, 0.5)], 20).unwrap().fit(&Function::Exp).unwrap();
        // Leading term of the best approximation: r^(n+1) / (2^n (n+1)!).
        let log2_factorial: f64 = (1..=21).map(|k| f64::from(k).log2()).sum();
        let expected = -21.0 - 20.0 - log2_factorial;
        assert!((fit.log2_levelled - expected).abs() < 0.05, "{} {expected}", fit.log2_levelled);
    }

    #[test]
    fn bad_problems_are_refused() {
        let pole = Remez::new(&[interval(-1.0, 1.0)], 4).unwrap().fit(&Function::INVERSE);
        assert!(matches!(pole, Err(Error::Pole { .. })));
        assert!(matches!(
            Remez::new(&[interval(0.0, 1.0), interval(0.5, 2.0)], 3),
            Err(Error::Overlap { .. })
        ));
        assert!(matches!(Remez::new(&[interval(0.0, 1.0)], 100_000), Err(Error::DegreeTooHigh { .. })));
        let stopped =
            Remez::new(&[interval(0.01, 1.0)], 20).unwrap().max_iterations(1).fit(&Function::INVERSE);
        assert!(matches!(stopped, Err(Error::NotConverged { ref reference, .. }) if reference.len() == 22));
        let infinite = Remez::new(&[interval(0.0, 1.0)], 3).unwrap().fit_with(&|x| Float::from(1) / (x - x));
        assert!(matches!(infinite, Err(Error::NonFiniteSample { .. })));
        for tolerance in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let fit = Remez::new(&[interval(0.0, 1.0)], 3).unwrap().tolerance(tolerance).fit(&Function::Exp);
            assert!(matches!(fit, Err(Error::Parameter { what: "tolerance of a fit", .. })), "{tolerance}");
        }
        assert_eq!(Remez::new(&[], 3), Err(Error::EmptyDomain));
    }

    /// The exchange needs degree + 2 different points: domains of a few doubles are refused, with
    /// their ends.
    #[test]
    fn domains_of_a_few_doubles_are_fitted_or_refused() {
        let four_ulps = interval(1.0, 1.0 + 4.0 * f64::EPSILON);
        for (function, degree) in [(Function::Exp, 7), (Function::INVERSE, 7), (Function::Gelu, 4)] {
            let fit = Remez::new(&[four_ulps], degree).unwrap().fit(&function);
            let (lo, hi, needed) = (four_ulps.lo(), four_ulps.hi(), degree + 2);
            assert!(
                matches!(fit, Err(Error::TooFewPoints { lo: a, hi: b, needed: n, .. })
                    if (a, b, n) == (lo, hi, needed)),
                "{function} {degree}: {fit:?}"
            );
        }
        // The two points of a constant are there.
        let constant =
            Remez::new(&[interval(1.0, 1.0 + 2.0 * f64::EPSILON)], 0).unwrap().fit(&Function::Exp).unwrap();
        assert_eq!(constant.polynomial.degree(), 0);
        assert!((constant.polynomial.eval(1.0) - 1f64.exp()).abs() < 1e-14);
        for (lo, hi) in [(0.0, 2e-308), (1e308, 1.7e308), (-f64::MAX, f64::MAX), (1e-300, 1e300)] {
            for function in [Function::Exp, Function::Sigmoid, Function::Tanh, Function::Erf, Function::Gelu]
            {
                for (degree, weight) in [(0, Weight::Absolute), (5, Weight::Absolute), (3, Weight::Relative)]
                {
                    let remez =
                        Remez::new(&[interval(lo, hi)], degree).unwrap().weight(weight).max_iterations(8);
                    if let Ok(fit) = remez.fit(&function) {
                        assert!(
                            fit.polynomial.coeffs().iter().all(|c| c.is_finite()),
                            "{function} on [{lo}, {hi}]"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_relative_error_at_a_zero_is_refused_by_name() {
        let relative =
            |lo, hi, degree: usize| Remez::new(&[interval(lo, hi)], degree).unwrap().weight(Weight::Relative);
        for (function, lo, hi) in [
            (Function::Tanh, 0.0, 1.0),
            (Function::Tanh, -1.0, 1.0),
            (Function::Erf, -0.3, 2.0),
            (Function::Gelu, -0.5, 3.0),
            (Function::Relu, -2.0, -1.0),
        ] {
            let fit = relative(lo, hi, 5).fit(&function);
            assert!(
                matches!(fit, Err(Error::ZeroOfFunction { x }) if lo <= x && x <= hi),
                "{function}: {fit:?}"
            );
        }
        let zero = relative(0.0, 1.0, 2).fit_with(&|x| x - x);
        assert!(matches!(zero, Err(Error::ZeroOfFunction { .. })), "{zero:?}");
        assert!(relative(0.1, 1.0, 5).fit(&Function::Tanh).is_ok());
        // A change of sign across a gap of the domain is no zero.
        let sign =
            Remez::new(&[interval(-1.0, -0.5), interval(0.5, 1.0)], 5).unwrap().weight(Weight::Relative);
        assert!(sign.fit(&Function::Sign).is_ok());
    }

    #[test]
    fn polynomials_and_the_zero_function_come_back_exactly() {
        let domain = interval(-0.5, 2.0);
        let check = |degree: usize, f: &dyn Fn(&Float) -> Float, value: &dyn Fn(f64) -> f64| {
            let fit = Remez::new(&[domain], degree).unwrap().fit_with(f).unwrap();
            assert_eq!((fit.levelled, fit.largest), (0.0, 0.0), "degree {degree}");
            assert!(fit.log2_levelled < -1000.0);
            for x in domain.linspace(33) {
                assert!(
                    (fit.polynomial.eval(x) - value(x)).abs() <= 4.0 * f64::EPSILON,
                    "degree {degree} at {x}"
                );
            }
        };
        check(1, &|x| x.clone(), &|x| x);
        check(4, &|x| x.clone(), &|x| x);
        check(3, &|x| x * x * float::float(0.25, x.precision()), &|x| 0.25 * x * x);
        check(1, &|x| float::float(0.0, x.precision()), &|_| 0.0);
        check(0, &|x| float::float(3.0, x.precision()), &|_| 3.0);
        let half = Remez::new(&[interval(0.0, 2.0)], 5)
            .unwrap()
            .parity(Parity::Odd)
            .fit_with(&|x| x.clone())
            .unwrap();
        assert_eq!((half.polynomial.degree(), half.levelled), (1, 0.0));
        assert!(
            Remez::new(&[interval(0.0, 2.0)], 0).unwrap().parity(Parity::Odd).fit(&Function::Tanh).is_err()
        );
        // Nearly a polynomial is none.
        let bits = |x: &Float| x.precision();
        let fit = Remez::new(&[domain], 2)
            .unwrap()
            .fit_with(&|x| x * x + float::float(1e-30, bits(x)) * x.exp())
            .unwrap();
        assert!(fit.levelled > 1e-33 && fit.levelled < 1e-29, "{:e}", fit.levelled);
    }
}
