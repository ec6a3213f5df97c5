//! The functions this crate knows how to approximate.

use crate::float::{self, Float};
use crate::{Error, Interval, Result};
use serde::{Deserialize, Serialize};
use std::f64::consts::{FRAC_1_SQRT_2, PI};
use std::fmt;

/// A function of one real variable with a name, a value in double and in multi-precision, and known
/// singularities.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Function {
    /// 1 / (x + shift).
    Inverse {
        /// Added to the argument.
        shift: f64,
    },
    /// 1 / √(x + shift).
    InverseSqrt {
        /// Added to the argument.
        shift: f64,
    },
    /// x·Φ(x) = x·(1 + erf(x / √2)) / 2.
    Gelu,
    /// x·sigmoid(x).
    Silu,
    /// Hyperbolic tangent.
    Tanh,
    /// 1 / (1 + exp(−x)).
    Sigmoid,
    /// Exponential function.
    Exp,
    /// Error function.
    Erf,
    /// −1 below 0, 1 above.
    Sign,
    /// 0 below 0, 1 above.
    Step,
    /// max(x, 0).
    Relu,
}

impl Function {
    /// 1/x.
    pub const INVERSE: Self = Self::Inverse { shift: 0.0 };

    /// Value at x in double precision.
    pub fn eval(&self, x: f64) -> f64 {
        match *self {
            Self::Inverse { shift } => 1.0 / (x + shift),
            Self::InverseSqrt { shift } => 1.0 / (x + shift).sqrt(),
            Self::Gelu => 0.5 * x * erfc(-x * FRAC_1_SQRT_2),
            Self::Silu => x / (1.0 + (-x).exp()),
            Self::Tanh => x.tanh(),
            Self::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Self::Exp => x.exp(),
            Self::Erf => erf(x),
            Self::Sign => {
                if x == 0.0 {
                    0.0
                } else {
                    x.signum()
                }
            }
            Self::Step => 0.5 + 0.5 * Self::Sign.eval(x),
            Self::Relu => x.max(0.0),
        }
    }

    /// Value at x, as precise as x is; infinite where the function has a pole or no value.
    pub fn eval_float(&self, x: &Float) -> Float {
        let bits = x.precision();
        if !float::is_finite(x) {
            return Float::try_from(self.eval(float::to_f64(x))).unwrap_or(Float::INFINITY);
        }
        let one = float::float(1.0, bits);
        let half = float::float(0.5, bits);
        match *self {
            Self::Inverse { shift } => match x + float::float(shift, bits) {
                shifted if shifted == Float::ZERO => Float::INFINITY,
                shifted => one / shifted,
            },
            Self::InverseSqrt { shift } => match x + float::float(shift, bits) {
                shifted if shifted <= Float::ZERO => Float::INFINITY,
                shifted => one / shifted.sqrt(),
            },
            Self::Gelu => half.clone() * x * (one + float::erf(&(x * half.sqrt()))),
            Self::Silu => float::sigmoid_of(x, x.clone()),
            Self::Tanh if float::to_f64(x).abs() > float::EXP_LIMIT => {
                float::float(1f64.copysign(float::to_f64(x)), bits)
            }
            Self::Tanh => x.tanh(),
            Self::Sigmoid => float::sigmoid_of(x, one),
            Self::Exp => float::exp(x),
            Self::Erf => float::erf(x),
            Self::Relu if *x <= Float::ZERO => float::float(0.0, bits),
            Self::Relu => x.clone(),
            Self::Sign | Self::Step => float::float(self.eval(float::to_f64(x)), bits),
        }
    }

    /// Refuses a domain on which the function is not smooth.
    ///
    /// # Errors
    /// [`Error::Pole`] naming the singular point, [`Error::NotFinite`] for a shift that is no
    /// number.
    pub fn check_domain(&self, domain: Interval) -> Result<()> {
        if let Self::Inverse { shift } | Self::InverseSqrt { shift } = *self
            && !shift.is_finite()
        {
            return Err(Error::NotFinite { what: "shift of the argument", value: shift });
        }
        let at = match *self {
            Self::Inverse { shift } if domain.contains(-shift) => -shift,
            Self::InverseSqrt { shift } if domain.lo() <= -shift => -shift,
            Self::Sign | Self::Step if domain.contains(0.0) => 0.0,
            _ => return Ok(()),
        };
        Err(Error::Pole { function: self.to_string(), at, lo: domain.lo(), hi: domain.hi() })
    }

    /// Symmetry around 0.
    pub fn parity(&self) -> crate::Parity {
        match self {
            Self::Tanh | Self::Erf | Self::Sign => crate::Parity::Odd,
            Self::Inverse { shift } if *shift == 0.0 => crate::Parity::Odd,
            _ => crate::Parity::None,
        }
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Inverse { shift: 0.0 } => write!(f, "1/x"),
            Self::Inverse { shift } => write!(f, "1/(x + {shift})"),
            Self::InverseSqrt { shift: 0.0 } => write!(f, "1/sqrt(x)"),
            Self::InverseSqrt { shift } => write!(f, "1/sqrt(x + {shift})"),
            Self::Gelu => write!(f, "GELU"),
            Self::Silu => write!(f, "SiLU"),
            Self::Tanh => write!(f, "tanh"),
            Self::Sigmoid => write!(f, "sigmoid"),
            Self::Exp => write!(f, "exp"),
            Self::Erf => write!(f, "erf"),
            Self::Sign => write!(f, "sign"),
            Self::Step => write!(f, "step"),
            Self::Relu => write!(f, "max(x, 0)"),
        }
    }
}

/// Error function in double precision, a few units in the last place.
pub fn erf(x: f64) -> f64 {
    if x.abs() < 2.0 { erf_series(x) } else { (1.0 - erfc_tail(x.abs())).copysign(x) }
}

/// Complementary error function 1 − erf x in double precision, relatively accurate for positive x
/// too.
pub fn erfc(x: f64) -> f64 {
    if x < 2.0 { 1.0 - erf(x) } else { erfc_tail(x) }
}

fn erf_series(x: f64) -> f64 {
    let square = x * x;
    let (mut term, mut sum, mut k) = (x, x, 1.0);
    while term.abs() > 1e-18 * sum.abs() {
        term *= 2.0 * square / (2.0 * k + 1.0);
        sum += term;
        k += 1.0;
    }
    2.0 / PI.sqrt() * (-square).exp() * sum
}

/// erfc for x >= 2 by the continued fraction x + (1/2)/(x + 1/(x + (3/2)/(x + …))).
fn erfc_tail(x: f64) -> f64 {
    let fraction = (1..=80).rev().fold(x, |f, k| x + 0.5 * f64::from(k) / f);
    (-x * x).exp() / (fraction * PI.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn double_and_multi_precision_agree() {
        let functions = [
            Function::INVERSE,
            Function::InverseSqrt { shift: 0.25 },
            Function::Gelu,
            Function::Silu,
            Function::Tanh,
            Function::Sigmoid,
            Function::Exp,
            Function::Erf,
            Function::Sign,
            Function::Step,
            Function::Relu,
        ];
        for f in functions {
            for i in 1..60 {
                let x = 0.17 * f64::from(i);
                for x in [x, -x] {
                    if f.check_domain(Interval::new(x, x + 1e-9).unwrap()).is_err() {
                        continue;
                    }
                    let exact = float::to_f64(&f.eval_float(&float::float(x, 160)));
                    let close = (f.eval(x) - exact).abs() <= 4e-15 * exact.abs().max(0.1);
                    assert!(close, "{f} at {x}: {} {exact}", f.eval(x));
                }
            }
        }
    }

    #[test]
    fn erfc_keeps_relative_accuracy() {
        // Tabulated to 15 digits.
        for (x, value) in [(0.5, 0.479500122186953), (2.0, 4.67773498104727e-3), (4.0, 1.54172579002800e-8)] {
            assert!((erfc(x) / value - 1.0).abs() < 1e-13, "{x}");
        }
    }

    #[test]
    fn poles_are_found() {
        let domain = Interval::new(-1.0, 2.0).unwrap();
        assert!(matches!(Function::INVERSE.check_domain(domain), Err(Error::Pole { at: 0.0, .. })));
        assert!(matches!(Function::InverseSqrt { shift: 0.0 }.check_domain(domain), Err(Error::Pole { .. })));
        assert!(Function::Inverse { shift: 1.5 }.check_domain(domain).is_ok());
    }
}
