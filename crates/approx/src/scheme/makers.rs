//! Ready-made schemes.

use super::circuit::NEWTON_SCALE;
use super::composite::{Extension, minimax_sign, sign_circuit};
use super::{Circuit, Scheme};
use crate::certificate::Measure;
use crate::remez::{Remez, Weight};
use crate::{Error, EvalPlan, Float, Function, Interval, Parity, Polynomial, Result, float};

/// Largest number of Goldschmidt factors.
const MAX_FACTORS: usize = 40;

impl Function {
    /// How the error of this function is usually measured: relative for reciprocals, absolute
    /// otherwise.
    pub fn usual_measure(&self) -> Measure {
        match self {
            Self::Inverse { .. } | Self::InverseSqrt { .. } => Measure::Relative,
            _ => Measure::Absolute,
        }
    }
}

impl Scheme {
    /// The minimax polynomial of a smooth function, in its usual measure.
    ///
    /// On a symmetric domain the symmetry of the function is kept exactly and saves products: tanh
    /// and erf are odd, the sigmoid is 1/2 plus an odd function, GELU and SiLU are x/2 plus an even
    /// one.
    ///
    /// # Errors
    /// A pole in the domain, a degree too high, an exchange that does not converge.
    pub fn minimax(function: Function, domain: Interval, degree: usize) -> Result<Self> {
        Self::minimax_in(function, domain, degree, function.usual_measure())
    }

    /// The minimax polynomial of a smooth function in the measure given.
    ///
    /// # Errors
    /// As [`Scheme::minimax`].
    pub fn minimax_in(function: Function, domain: Interval, degree: usize, measure: Measure) -> Result<Self> {
        let (polynomial, _) = minimax_polynomial(function, domain, degree, measure)?;
        let circuit = Circuit::Polynomial { plan: EvalPlan::new(&polynomial)? };
        Self::certified(format!("minimax {degree}"), circuit, function, &[domain], measure)
    }

    /// 1/(x + shift) by Goldschmidt's division with the given number of factors (1 + e^(2^k)):
    /// relative error ((κ − 1)/(κ + 1))^(2^factors), κ the width ratio of the shifted domain.
    ///
    /// # Errors
    /// If the shifted domain does not lie on the positive side, or there are more than 40 factors.
    pub fn goldschmidt(shift: f64, domain: Interval, factors: usize) -> Result<Self> {
        let (slope, _) = inverse_start(shift, domain, factors)?;
        let circuit = Circuit::Goldschmidt { shift, slope, relaxation: vec![1.0; factors] };
        Self::certified(
            format!("Goldschmidt {factors}"),
            circuit,
            Function::Inverse { shift },
            &[domain],
            Measure::Relative,
        )
    }

    /// 1/(x + shift) by the relaxed product: every factor scaled so that its error is levelled
    /// ("THOR" calls the constants adaptive successive over-relaxation). The product equals the
    /// minimax polynomial of degree 2^factors − 1, for two products of values per factor.
    ///
    /// ```
    /// use cipherlm_approx::{Interval, Scheme};
    /// let domain = Interval::new(0.0, 1.0)?;
    /// let plain = Scheme::goldschmidt(0.01, domain, 6)?;
    /// let relaxed = Scheme::relaxed(0.01, domain, 6)?;
    /// assert!(relaxed.max_error() < plain.max_error() && relaxed.products() == plain.products());
    /// # Ok::<(), cipherlm_approx::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Scheme::goldschmidt`].
    pub fn relaxed(shift: f64, domain: Interval, factors: usize) -> Result<Self> {
        let (slope, epsilon) = inverse_start(shift, domain, factors)?;
        let (relaxation, _) = relaxation(epsilon, factors);
        let circuit = Circuit::Goldschmidt { shift, slope, relaxation };
        Self::certified(
            format!("relaxed {factors}"),
            circuit,
            Function::Inverse { shift },
            &[domain],
            Measure::Relative,
        )
    }

    /// 1/(x + shift) from a minimax seed of the given degree, then relaxed Goldschmidt steps.
    ///
    /// # Errors
    /// As [`Scheme::goldschmidt`] and [`Scheme::minimax`].
    pub fn seeded_inverse(shift: f64, domain: Interval, degree: usize, steps: usize) -> Result<Self> {
        inverse_start(shift, domain, steps)?;
        let function = Function::Inverse { shift };
        let remez = Remez::new(&[domain], degree)?.weight(Weight::Relative).tolerance(1e-6);
        let fit = remez.fit(&function)?;
        let (relaxation, _) = relaxation(fit.largest, steps);
        let circuit = Circuit::SeededInverse { shift, seed: EvalPlan::new(&fit.polynomial)?, relaxation };
        let name = format!("minimax {degree} + Goldschmidt {steps}");
        Self::certified(name, circuit, function, &[domain], Measure::Relative)
    }

    /// 1/√(x + shift) from a minimax seed of the given degree, then Newton steps (two levels, three
    /// products each) with constants that level the error of each step.
    ///
    /// # Errors
    /// As [`Scheme::minimax`].
    pub fn inverse_sqrt(shift: f64, domain: Interval, degree: usize, steps: usize) -> Result<Self> {
        let function = Function::InverseSqrt { shift };
        if steps > MAX_FACTORS {
            return Err(Error::DegreeTooHigh { degree: steps, limit: MAX_FACTORS, what: "Newton steps" });
        }
        let remez = Remez::new(&[domain], degree)?.weight(Weight::Relative).tolerance(1e-6);
        let fit = remez.fit(&function)?;
        let divisor = if steps == 0 { 1.0 } else { NEWTON_SCALE };
        let seed = EvalPlan::new(&fit.polynomial.scaled(1.0 / divisor)?)?;
        let (newton, _) = newton_steps(fit.largest, steps);
        let circuit = Circuit::InverseSqrt { shift, seed, steps: newton };
        Self::certified(
            format!("minimax {degree} + Newton {steps}"),
            circuit,
            function,
            &[domain],
            Measure::Relative,
        )
    }

    /// The sign on [−radius, −gap·radius] ∪ [gap·radius, radius], a composition of odd minimax
    /// polynomials.
    ///
    /// # Errors
    /// If the gap is not in (0, 1), the radius not positive, or a degree even.
    pub fn sign(radius: f64, gap: f64, degrees: &[usize]) -> Result<Self> {
        Self::comparison(Function::Sign, radius, gap, degrees, (1.0, 0.0))
    }

    /// The step (1 + sign)/2 on the domain of [`Scheme::sign`].
    ///
    /// # Errors
    /// As [`Scheme::sign`].
    pub fn step(radius: f64, gap: f64, degrees: &[usize]) -> Result<Self> {
        Self::comparison(Function::Step, radius, gap, degrees, (0.5, 0.5))
    }

    /// max(x, 0) = x·step(x) on the whole of [−radius, radius]; [`Scheme::max`] and [`Scheme::min`]
    /// take it from there. The gap is where the step is fitted from; inside it the error is bounded
    /// by the certificate like everywhere else.
    ///
    /// # Errors
    /// As [`Scheme::sign`].
    pub fn relu(radius: f64, gap: f64, degrees: &[usize]) -> Result<Self> {
        let inner = sign_circuit(&minimax_sign(gap, degrees)?, radius, 0.5, 0.5)?;
        let circuit = Circuit::Gate { inner: Box::new(inner) };
        let domain = Interval::symmetric(radius)?;
        Self::certified(composite_name(degrees), circuit, Function::Relu, &[domain], Measure::Absolute)
    }

    /// tanh, sigmoid or erf on a large [−radius, radius]: cubics fold the domain onto [−inner,
    /// inner], where a minimax polynomial of the given degree takes over. GELU and SiLU are x times
    /// such a scheme.
    ///
    /// `inner` must reach well into the flat part of the function. Each cubic costs two levels and
    /// halves the domain.
    ///
    /// # Errors
    /// For any other function, a radius not above `inner`, or an exchange that does not converge.
    pub fn extended(function: Function, radius: f64, inner: f64, degree: usize) -> Result<Self> {
        let gated = match function {
            Function::Tanh | Function::Sigmoid | Function::Erf => false,
            Function::Gelu | Function::Silu => true,
            _ => {
                let (certified, given) =
                    ("tanh, sigmoid, erf, GELU or SiLU".to_string(), function.to_string());
                return Err(Error::WrongCertificate { certified, given });
            }
        };
        // All five are shift + scale·(odd function of x), times x for the gated ones.
        let (scale, shift) = match function {
            Function::Tanh | Function::Erf => (1.0, 0.0),
            _ => (0.5, 0.5),
        };
        let odd = |x: f64| match function {
            Function::Tanh => x.tanh(),
            Function::Erf => crate::erf(x),
            Function::Gelu => crate::erf(x * std::f64::consts::FRAC_1_SQRT_2),
            _ => (0.5 * x).tanh(),
        };
        let extension = Extension::new(radius, inner)?;
        let on_fold = |y: &Float| float::float(odd(extension.unfold(float::to_f64(y))), y.precision());
        let half = Interval::new(0.0, inner)?;
        let fit = Remez::new(&[half], degree)?.parity(Parity::Odd).tolerance(1e-3).fit_with(&on_fold)?;
        let mut coeffs: Vec<f64> = fit.polynomial.coeffs().iter().map(|c| c * scale).collect();
        coeffs[0] += shift;
        let mut plans = extension.plans()?;
        plans.push(EvalPlan::new(&Polynomial::chebyshev(Interval::UNIT, coeffs)?)?);
        let folds = plans.len() - 1;
        let mut circuit = Circuit::Composite { plans };
        if gated {
            circuit = Circuit::Gate { inner: Box::new(circuit) };
        }
        let name = format!("{folds} folds + minimax {degree}");
        Self::certified(name, circuit, function, &[Interval::symmetric(radius)?], Measure::Absolute)
    }

    fn comparison(
        function: Function,
        radius: f64,
        gap: f64,
        degrees: &[usize],
        (scale, shift): (f64, f64),
    ) -> Result<Self> {
        let circuit = sign_circuit(&minimax_sign(gap, degrees)?, radius, scale, shift)?;
        let domain = [Interval::new(-radius, -gap * radius)?, Interval::new(gap * radius, radius)?];
        Self::certified(composite_name(degrees), circuit, function, &domain, Measure::Absolute)
    }
}

/// The minimax polynomial in either measure, and its error; on a symmetric domain the symmetry of
/// the function is kept exactly.
pub(crate) fn minimax_polynomial(
    function: Function,
    domain: Interval,
    degree: usize,
    measure: Measure,
) -> Result<(Polynomial, f64)> {
    function.check_domain(domain)?;
    let weight = match measure {
        Measure::Absolute => Weight::Absolute,
        Measure::Relative => Weight::Relative,
    };
    let Some(symmetry) = symmetry(function).filter(|_| domain.is_symmetric() && measure == Measure::Absolute)
    else {
        let fit = Remez::new(&[domain], degree)?.weight(weight).tolerance(1e-4).fit(&function)?;
        return Ok((fit.polynomial, fit.largest));
    };
    let half = Interval::new(0.0, domain.hi())?;
    let remez = Remez::new(&[half], degree)?.parity(symmetry.parity).tolerance(1e-4);
    let rest = |x: &Float| {
        let bits = x.precision();
        function.eval_float(x)
            - float::float(symmetry.constant, bits)
            - x * float::float(symmetry.slope, bits)
    };
    let fit = remez.fit_with(&rest)?;
    Ok((symmetry.restore(&fit.polynomial)?, fit.largest))
}

/// f(x) = constant + slope·x + a function of the given parity.
struct Symmetry {
    parity: Parity,
    constant: f64,
    slope: f64,
}

impl Symmetry {
    /// Adds constant + slope·x to a Chebyshev polynomial on a symmetric interval, after clearing
    /// the other parity.
    fn restore(&self, rest: &Polynomial) -> Result<Polynomial> {
        let mut coeffs = rest.clone().with_parity(self.parity).coeffs().to_vec();
        coeffs.resize(coeffs.len().max(2), 0.0);
        coeffs[0] += self.constant;
        coeffs[1] += self.slope * rest.interval().hi();
        Polynomial::chebyshev(rest.interval(), coeffs)
    }
}

fn symmetry(function: Function) -> Option<Symmetry> {
    let (parity, constant, slope) = match function {
        Function::Tanh | Function::Erf => (Parity::Odd, 0.0, 0.0),
        Function::Sigmoid => (Parity::Odd, 0.5, 0.0),
        Function::Gelu | Function::Silu => (Parity::Even, 0.0, 0.5),
        _ => return None,
    };
    Some(Symmetry { parity, constant, slope })
}

/// (2/(a + b), (κ − 1)/(κ + 1)): the slope that levels e_0 on the shifted domain [a, b], and its
/// largest value.
pub(crate) fn inverse_start(shift: f64, domain: Interval, factors: usize) -> Result<(f64, f64)> {
    Function::Inverse { shift }.check_domain(domain)?;
    let (a, b) = (domain.lo() + shift, domain.hi() + shift);
    if a <= 0.0 {
        let function = Function::Inverse { shift }.to_string();
        return Err(Error::Pole { function, at: -shift, lo: domain.lo(), hi: domain.hi() });
    }
    if factors > MAX_FACTORS {
        return Err(Error::DegreeTooHigh {
            degree: factors,
            limit: MAX_FACTORS,
            what: "Goldschmidt factors",
        });
    }
    Ok((2.0 / (a + b), (b - a) / (a + b)))
}

/// The constants ω_k = 2/(2 − ε_k²) of [`Circuit::Goldschmidt`] and the error left after them,
/// starting from |e_0| <= epsilon.
pub fn relaxation(epsilon: f64, factors: usize) -> (Vec<f64>, f64) {
    let mut epsilon = epsilon;
    let omegas = (0..factors)
        .map(|_| {
            let square = epsilon * epsilon;
            epsilon = square / (2.0 - square);
            2.0 / (2.0 - square)
        })
        .collect();
    (omegas, epsilon)
}

/// Newton constants (α, β) that level each step, and the error left, from a seed with relative
/// error at most epsilon.
///
/// With y·√x = 1 + e, Newton gives 1 − (3e² + e³)/2, always low: [1 − (3ε² + ε³)/2, 1]. Scaling by
/// the inverse of the middle of that range halves the error.
pub(crate) fn newton_steps(epsilon: f64, steps: usize) -> (Vec<(f64, f64)>, f64) {
    let mut epsilon = epsilon;
    let constants = (0..steps)
        .map(|_| {
            let loss = 0.5 * (3.0 * epsilon * epsilon + epsilon.powi(3));
            let scale = 1.0 / (1.0 - 0.5 * loss);
            epsilon = scale - 1.0;
            (1.5 * scale, 0.5 * scale)
        })
        .collect();
    (constants, epsilon)
}

fn composite_name(degrees: &[usize]) -> String {
    let list: Vec<String> = degrees.iter().map(ToString::to_string).collect();
    format!("composite {}", list.join("∘"))
}
