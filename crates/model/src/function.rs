//! The functions that polynomials stand in for, in f64.

use serde::{Deserialize, Serialize};

/// A scalar function of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    /// `x`: nothing to replace, only a magnitude to bound.
    Identity,
    /// `x Φ(x)`.
    Gelu,
    /// `x / (1 + exp(-x))`.
    Silu,
    /// `1 / x`.
    Reciprocal,
    /// `1 / sqrt(x)`.
    InvSqrt,
    /// `tanh x`.
    Tanh,
}

impl Function {
    /// The function's value.
    pub fn eval(self, x: f64) -> f64 {
        match self {
            Self::Identity => x,
            Self::Gelu => 0.5 * x * erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
            Self::Silu => x / (1.0 + (-x).exp()),
            Self::Reciprocal => 1.0 / x,
            Self::InvSqrt => 1.0 / x.sqrt(),
            Self::Tanh => x.tanh(),
        }
    }

    /// Whether a polynomial has to replace it.
    pub fn is_nonlinear(self) -> bool {
        self != Self::Identity
    }
}

/// Complementary error function, relative error below 1e-14: the Maclaurin series of `erf` near zero, the continued fraction beyond.
pub fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    if x < 2.0 {
        // erf(x) = 2/sqrt(pi) exp(-x^2) sum 2^n x^(2n+1) / (2n+1)!!: every term positive, so no cancellation.
        let (mut term, mut sum, mut n) = (x, x, 1.0);
        while term > 1e-17 * sum {
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
            n += 1.0;
        }
        return 1.0 - std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum;
    }
    if x > 27.5 {
        return 0.0;
    }
    // exp(-x^2)/sqrt(pi) * 1/(x + (1/2)/(x + 1/(x + (3/2)/(x + ...)))), from the far end.
    let tail = (1..=80).rev().fold(x, |acc, k| x + 0.5 * f64::from(k) / acc);
    (-x * x).exp() * 0.5 * std::f64::consts::FRAC_2_SQRT_PI / tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erfc_against_tables() {
        // Abramowitz and Stegun, table 7.1, and the tail values of DLMF 7.
        for (x, want) in [
            (0.0, 1.0),
            (0.5, 0.479_500_122_186_953_5),
            (1.0, 0.157_299_207_050_285_13),
            (2.0, 0.004_677_734_981_047_266),
            (3.0, 2.209_049_699_858_544e-5),
            (5.0, 1.537_459_794_428_035e-12),
        ] {
            let got = erfc(x);
            assert!((got - want).abs() <= 4e-14 * want, "erfc({x}) = {got}, want {want}");
            assert!((erfc(-x) - (2.0 - want)).abs() < 1e-15);
        }
    }

    #[test]
    fn activations_at_known_points() {
        assert!((Function::Gelu.eval(1.0) - 0.841_344_746_068_542_9).abs() < 1e-15);
        assert!((Function::Silu.eval(1.0) - 0.731_058_578_630_004_9).abs() < 1e-15);
        assert_eq!(Function::InvSqrt.eval(4.0), 0.5);
        assert_eq!(Function::Gelu.eval(-40.0), 0.0);
    }
}
