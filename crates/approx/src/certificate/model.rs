//! Taylor models: a polynomial in t in [-1, 1] and a rigorous bound on everything left out.
//!
//! A model encloses the double that a circuit really computes: [`ModelArith`] adds the rounding of
//! every operation of [`F64`](crate::F64) to the remainder. All bounds are rounded upwards.

use crate::float::{self, float};
use crate::plan::{Arith, Sum};
use std::convert::Infallible;

/// Order of the polynomial part.
const ORDER: usize = 6;
/// Unit roundoff of a double.
const UNIT: f64 = f64::EPSILON / 2.0;
/// More than any underflow can lose in one operation on models.
const TINY: f64 = 1e-290;

/// Σ c_k t^k ± r on t in [-1, 1].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Model {
    c: [f64; ORDER + 1],
    r: f64,
}

impl Model {
    pub(crate) fn constant(value: f64) -> Self {
        let mut c = [0.0; ORDER + 1];
        c[0] = value;
        Self { c, r: 0.0 }
    }

    /// The argument on [lo, hi].
    pub(crate) fn argument(lo: f64, hi: f64) -> Self {
        let mid = 0.5 * lo + 0.5 * hi;
        let mut model = Self::constant(mid);
        model.c[1] = (hi - mid).max(mid - lo).next_up();
        model
    }

    /// Bound of |model|, from the absolute values of all terms.
    pub(crate) fn magnitude(&self) -> f64 {
        up(self.c.iter().map(|c| c.abs()).sum::<f64>() + self.r)
    }

    /// Enclosure [lo, hi] of the values, exact in the terms up to the second.
    pub(crate) fn range(&self) -> (f64, f64) {
        let [c0, c1, c2, ..] = self.c;
        let high: f64 = self.c[3..].iter().map(|c| c.abs()).sum();
        let slack = up(high + self.r + 16.0 * UNIT * (c0.abs() + c1.abs() + c2.abs()));
        let (left, right) = (c0 - c1 + c2, c0 + c1 + c2);
        let (mut lo, mut hi) = (left.min(right), left.max(right));
        if c1.abs() <= 2.0 * c2.abs() {
            let vertex = c0 - 0.25 * c1 * c1 / c2;
            if vertex.is_finite() {
                (lo, hi) = (lo.min(vertex), hi.max(vertex));
            } else {
                (lo, hi) = (lo.min(c0 - c2.abs()), hi.max(c0 + c2.abs()));
            }
        }
        ((lo - slack).next_down(), (hi + slack).next_up())
    }

    /// A value v and a place t such that the enclosed function certainly reaches |v| there, with
    /// the sign of v.
    pub(crate) fn attained(&self) -> (f64, f64) {
        let at = |t: f64| self.c.iter().rev().fold(0.0, |acc, c| acc * t + c);
        let slack = self.r + 64.0 * UNIT * self.magnitude();
        [0.0, -1.0, 1.0, -0.5, 0.5]
            .map(|t| (at(t).signum() * (at(t).abs() - slack).max(0.0), t))
            .into_iter()
            .fold((0.0, 0.0), |best, next| if next.0.abs() > f64::abs(best.0) { next } else { best })
    }

    /// self + weight·other.
    pub(crate) fn add_scaled(&self, weight: f64, other: &Self) -> Self {
        let mut out = *self;
        for (o, c) in out.c.iter_mut().zip(&other.c) {
            *o += weight * c;
        }
        let magnitude = self.magnitude() + weight.abs() * other.magnitude();
        out.r = up(self.r + weight.abs() * other.r + 4.0 * UNIT * magnitude + TINY);
        out
    }

    pub(crate) fn scaled(&self, weight: f64) -> Self {
        Self::constant(0.0).add_scaled(weight, self)
    }

    pub(crate) fn plus(&self, value: f64) -> Self {
        self.add_scaled(1.0, &Self::constant(value))
    }

    pub(crate) fn mul(&self, other: &Self) -> Self {
        let mut out = Self::constant(0.0);
        let mut high = 0.0;
        for (i, a) in self.c.iter().enumerate() {
            for (j, b) in other.c.iter().enumerate() {
                if i + j <= ORDER {
                    out.c[i + j] += a * b;
                } else {
                    high += (a * b).abs();
                }
            }
        }
        let (a, b) = (self.magnitude(), other.magnitude());
        out.r = up(high
            + a * other.r
            + b * self.r
            + self.r * other.r
            + (2 * ORDER + 4) as f64 * UNIT * a * b
            + TINY);
        out
    }

    /// 1 / model; an infinite remainder when the model comes too close to 0.
    pub(crate) fn recip(&self) -> Self {
        let center = self.c[0];
        let mut rest = *self;
        rest.c[0] = 0.0;
        let v = rest.scaled(-1.0 / center);
        // 1/center is rounded: widen v by that.
        let v = v.widened(2.0 * UNIT * v.magnitude());
        let delta = v.magnitude();
        if center == 0.0 || delta.is_nan() || delta >= 0.5 {
            return Self::unbounded();
        }
        let sum = (0..ORDER).fold(Self::constant(1.0), |acc, _| acc.mul(&v).plus(1.0));
        let sum = sum.widened(up(delta.powi(ORDER as i32 + 1) / (1.0 - delta)) * 1.000_001);
        let out = sum.scaled(1.0 / center);
        out.widened(2.0 * UNIT * out.magnitude())
    }

    /// exp(model).
    pub(crate) fn exp(&self) -> Self {
        let mut rest = *self;
        rest.c[0] = 0.0;
        let delta = rest.magnitude();
        if delta.is_nan() || delta > 1.0 || self.c[0].abs() > 700.0 {
            return Self::unbounded();
        }
        // Horner: 1 + v(1 + v/2(1 + v/3(…))).
        let sum = (1..=ORDER).rev().fold(Self::constant(1.0), |acc, k| {
            let term = acc.mul(&rest).scaled(1.0 / k as f64);
            term.widened(2.0 * UNIT * term.magnitude()).plus(1.0)
        });
        let factorial: f64 = (1..=ORDER + 1).map(|k| k as f64).product();
        let sum = sum.widened(2.72 * delta.powi(ORDER as i32 + 1) / factorial * 1.000_001);
        let center = float::to_f64(&float(self.c[0], 96).exp());
        let out = sum.scaled(center);
        out.widened(2.0 * UNIT * out.magnitude())
    }

    /// erf of a model without terms above the first.
    pub(crate) fn erf_affine(&self) -> Self {
        let slope = self.mul(self).scaled(-1.0).exp();
        let two_over_root_pi = std::f64::consts::FRAC_2_SQRT_PI;
        let step = slope.scaled(two_over_root_pi * self.c[1]);
        let step = step.widened(4.0 * UNIT * step.magnitude());
        let center = float::to_f64(&float::erf(&float(self.c[0], 96)));
        let mut out = Self::constant(center);
        for k in 0..ORDER {
            out.c[k + 1] = step.c[k] / (k + 1) as f64;
        }
        let dropped = step.c[ORDER].abs() / (ORDER + 1) as f64;
        // |erf'| <= 1.13, so an uncertain argument moves the value by no more than 1.13 times as much.
        let rounding = 2.0 * UNIT * (center.abs() + step.magnitude());
        out.r = up(step.r + dropped + 1.13 * self.r + rounding + TINY);
        out
    }

    pub(crate) fn widened(mut self, by: f64) -> Self {
        self.r = up(self.r + by);
        self
    }

    fn unbounded() -> Self {
        Self { r: f64::INFINITY, ..Self::constant(0.0) }
    }
}

/// Runs circuits on models, rounding included.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ModelArith;

impl Arith for ModelArith {
    type Value = Model;
    type Target = ();
    type Error = Infallible;

    fn combine(&mut self, sum: &Sum<'_, Model>, _: Option<&()>) -> Result<Model, Infallible> {
        let mut products = Model::constant(0.0);
        let mut magnitude = sum.constant.abs();
        for (a, b) in &sum.products {
            products = products.add_scaled(1.0, &a.mul(b));
            magnitude += sum.weight.abs() * a.magnitude() * b.magnitude();
        }
        let mut out = Model::constant(sum.constant);
        if !sum.products.is_empty() {
            out = out.add_scaled(sum.weight, &products);
        }
        for (c, v) in &sum.linear {
            out = out.add_scaled(*c, v);
            magnitude += c.abs() * v.magnitude();
        }
        let operations = (sum.products.len() + sum.linear.len() + 4) as f64;
        Ok(out.widened(operations * UNIT * magnitude * 1.000_001))
    }

    fn below(&self, _: &Model, _: u32) -> Result<(), Infallible> {
        Ok(())
    }

    fn factor(&self, (): &(), _: f64, _: &Model) -> Result<(), Infallible> {
        Ok(())
    }

    fn root(&self, (): &(), _: f64) -> Result<(), Infallible> {
        Ok(())
    }
}

/// A little above x, for sums of a few dozen non-negative doubles.
fn up(x: f64) -> f64 {
    x * (1.0 + 64.0 * UNIT) + TINY
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Float, Function};

    fn encloses(model: &Model, lo: f64, hi: f64, f: impl Fn(&Float) -> Float, what: &str) {
        let mid = 0.5 * lo + 0.5 * hi;
        for i in 0..=20 {
            let x = lo + (hi - lo) * f64::from(i) / 20.0;
            let t = float((x - mid) / model_radius(lo, hi), 128);
            let poly = model.c.iter().rev().fold(float(0.0, 128), |acc, c| acc * &t + float(*c, 128));
            let gap = float::to_f64(&float::abs(&(poly - f(&float(x, 128)))));
            assert!(
                gap <= model.r * (1.0 + 1e-9) + 1e-16 * hi.abs(),
                "{what} at {x}: {gap:e} > {:e}",
                model.r
            );
            assert!(model.r < 1e-7, "{what}: remainder {:e}", model.r);
        }
    }

    fn model_radius(lo: f64, hi: f64) -> f64 {
        Model::argument(lo, hi).c[1]
    }

    #[test]
    fn elementary_functions_are_enclosed() {
        for (lo, hi) in [(0.1, 0.11), (1.0, 1.05), (-2.02, -2.0), (-0.01, 0.02), (5.0, 5.03)] {
            let x = Model::argument(lo, hi);
            encloses(&x.exp(), lo, hi, |x| x.exp(), "exp");
            encloses(&x.erf_affine(), lo, hi, |x| Function::Erf.eval_float(x), "erf");
            encloses(&x.mul(&x), lo, hi, |x| x * x, "square");
            if lo > 0.0 {
                encloses(&x.recip(), lo, hi, |x| Float::from(1) / x, "reciprocal");
            }
        }
    }

    #[test]
    fn ranges_hold_the_values() {
        let x = Model::argument(-1.0, 1.0);
        let p = x.mul(&x).add_scaled(-1.0, &x).plus(0.5);
        let (lo, hi) = p.range();
        assert!(lo <= 0.25 && lo > 0.249_999 && (2.5..2.500_001).contains(&hi), "{lo} {hi}");
        assert!(x.recip().magnitude().is_infinite());
    }
}
