//! Scales: the factor between a message and the integers that carry it, tracked to 106 bits.

use std::fmt;
use std::ops::{Div, Mul};

/// A positive factor held as an unevaluated sum of two floats (106 significant bits).
///
/// Products and quotients by primes are tracked with a relative error below 2^-100 per operation,
/// so that after a whole circuit two scales that are equal on paper are still equal here to
/// 2^-[`Scale::TOLERANCE_BITS`].
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub struct Scale {
    hi: f64,
    lo: f64,
}

impl Scale {
    /// Two scales closer than 2^-60 (relative) count as equal: far below any encoding error, far
    /// above tracking error.
    pub const TOLERANCE_BITS: i32 = 60;

    /// The scale 1.
    pub const ONE: Self = Self { hi: 1.0, lo: 0.0 };

    /// 2^`exponent`.
    pub fn from_log2(exponent: i32) -> Self {
        Self { hi: 2f64.powi(exponent), lo: 0.0 }
    }

    /// The float `value`; any value is accepted here and checked where it is used (see
    /// [`Scale::is_usable`]).
    pub fn new(value: f64) -> Self {
        Self { hi: value, lo: 0.0 }
    }

    /// An integer, exactly (all 64 bits).
    pub fn from_u64(value: u64) -> Self {
        let hi = (value >> 32) as f64 * 4_294_967_296.0;
        let (hi, lo) = two_sum(hi, (value & 0xffff_ffff) as f64);
        Self { hi, lo }
    }

    /// The two halves, for storage; the value is their sum.
    pub fn to_parts(self) -> (f64, f64) {
        (self.hi, self.lo)
    }

    /// Rebuilds a scale from [`Scale::to_parts`]; `None` if the halves are not finite, positive and
    /// normalised.
    pub fn from_parts(hi: f64, lo: f64) -> Option<Self> {
        let scale = Self { hi, lo };
        (scale.is_usable() && lo.is_finite() && hi + lo == hi).then_some(scale)
    }

    /// True for a finite, normal, positive factor.
    pub fn is_usable(self) -> bool {
        self.hi.is_normal() && self.hi > 0.0 && self.lo.is_finite()
    }

    /// The nearest float.
    pub fn to_f64(self) -> f64 {
        self.hi
    }

    /// log2 of the scale.
    pub fn log2(self) -> f64 {
        self.hi.log2() + self.lo / self.hi * std::f64::consts::LOG2_E
    }

    /// |self / other - 1|.
    pub fn relative_difference(self, other: Self) -> f64 {
        let (d, e) = two_sum(self.hi, -other.hi);
        ((d + (e + (self.lo - other.lo))) / other.hi).abs()
    }

    /// True when the two differ by less than 2^-60 relative.
    pub fn matches(self, other: Self) -> bool {
        self.relative_difference(other) < 2f64.powi(-Self::TOLERANCE_BITS)
    }

    /// The square.
    pub fn square(self) -> Self {
        self * self
    }

    /// The nearest integer to `self * value`, as a float pair rounded to nearest (exact below
    /// 2^106).
    ///
    /// Used to encode real constants: the result is exact up to the rounding of one unit.
    pub fn round_times(self, value: f64) -> (f64, f64) {
        let product = self * Self::new(value);
        let hi = product.hi.round();
        // Above 2^53 `hi` is already an integer and `lo` carries the units.
        let lo = if hi == product.hi { product.lo.round() } else { (product.hi - hi + product.lo).round() };
        two_sum(hi, lo)
    }
}

impl Mul for Scale {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        let (p, e) = two_product(self.hi, other.hi);
        let (hi, lo) = two_sum(p, e + (self.hi * other.lo + self.lo * other.hi));
        Self { hi, lo }
    }
}

impl Div for Scale {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        // Long division, three quotient digits of 53 bits.
        let q1 = self.hi / other.hi;
        let r = sub(self, other * Self::new(q1));
        let q2 = r.hi / other.hi;
        let r = sub(r, other * Self::new(q2));
        let q3 = r.hi / other.hi;
        let (hi, lo) = two_sum(q1, q2);
        let (hi, lo) = two_sum(hi, lo + q3);
        Self { hi, lo }
    }
}

impl fmt::Debug for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scale(2^{:.9})", self.log2())
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "2^{:.4}", self.log2())
    }
}

fn sub(a: Scale, b: Scale) -> Scale {
    let (s, e) = two_sum(a.hi, -b.hi);
    let (hi, lo) = two_sum(s, e + (a.lo - b.lo));
    Scale { hi, lo }
}

/// Knuth's error-free sum: `a + b = s + e` exactly.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let s = a + b;
    let bb = s - a;
    (s, (a - (s - bb)) + (b - bb))
}

/// Error-free product by fused multiply-add: `a * b = p + e` exactly.
fn two_product(a: f64, b: f64) -> (f64, f64) {
    let p = a * b;
    (p, a.mul_add(b, -p))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_squares_and_divisions_comes_back() {
        let primes = [35_184_371_138_561u64, 35_184_373_006_337, 35_184_376_545_281, 1_125_899_904_679_937];
        let start = Scale::from_log2(45);
        let mut s = start;
        for _ in 0..10 {
            for &q in &primes {
                s = s * Scale::from_u64(q);
            }
            for &q in primes.iter().rev() {
                s = s / Scale::from_u64(q);
            }
        }
        assert!(s.relative_difference(start) < 2f64.powi(-96), "{}", s.relative_difference(start).log2());
        assert!(s.matches(start));
    }

    #[test]
    fn integers_are_exact() {
        let q = (1u64 << 62) + 12_345_678_901;
        let (hi, lo) = Scale::from_u64(q).to_parts();
        assert_eq!(hi as u128 as i128 + lo as i128, q as i128);
    }

    #[test]
    fn tolerance_is_two_to_minus_sixty() {
        let s = Scale::from_log2(40);
        let near = s * Scale { hi: 1.0, lo: 2f64.powi(-62) };
        let far = s * Scale { hi: 1.0, lo: 2f64.powi(-58) };
        assert!(s.matches(near));
        assert!(!s.matches(far));
    }

    #[test]
    fn rounding_keeps_units_above_two_to_the_53() {
        let s = Scale::from_u64((1 << 60) + 1);
        let (hi, lo) = s.round_times(1.0);
        assert_eq!(hi as i128 + lo as i128, (1 << 60) + 1);
        assert_eq!(Scale::from_log2(3).round_times(0.3), (2.0, 0.0));
    }

    #[test]
    fn unusable_scales_are_seen() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE / 4.0] {
            assert!(!Scale::new(bad).is_usable());
            assert!(Scale::from_parts(bad, 0.0).is_none());
        }
        assert!(Scale::from_parts(1.0, 1.0).is_none(), "not normalised");
    }
}
