//! Closed real intervals.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A closed interval [lo, hi] with finite ends and lo < hi.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "(f64, f64)", into = "(f64, f64)")]
pub struct Interval {
    lo: f64,
    hi: f64,
}

impl Interval {
    /// [-1, 1], where Chebyshev polynomials live.
    pub const UNIT: Self = Self { lo: -1.0, hi: 1.0 };

    /// The interval [lo, hi].
    ///
    /// # Errors
    /// If an end is not finite, lo >= hi, or the interval is so narrow (below 2^-1023) that no
    /// double maps it onto [-1, 1].
    pub fn new(lo: f64, hi: f64) -> Result<Self> {
        for value in [lo, hi] {
            if !value.is_finite() {
                return Err(Error::NotFinite { what: "interval end", value });
            }
        }
        if lo >= hi {
            return Err(Error::EmptyInterval { lo, hi });
        }
        let interval = Self { lo, hi };
        if interval.unit_map().0.is_finite() { Ok(interval) } else { Err(Error::TooNarrow { lo, hi }) }
    }

    /// The interval [-radius, radius].
    ///
    /// # Errors
    /// If the radius is not positive and finite.
    pub fn symmetric(radius: f64) -> Result<Self> {
        Self::new(-radius, radius)
    }

    /// Lower end.
    pub fn lo(&self) -> f64 {
        self.lo
    }

    /// Upper end.
    pub fn hi(&self) -> f64 {
        self.hi
    }

    /// Midpoint.
    pub fn mid(&self) -> f64 {
        0.5 * self.lo + 0.5 * self.hi
    }

    /// Half the width.
    pub fn radius(&self) -> f64 {
        0.5 * self.hi - 0.5 * self.lo
    }

    /// Width ratio hi / lo, the condition number of a positive interval.
    pub fn ratio(&self) -> f64 {
        self.hi / self.lo
    }

    /// Largest absolute value in the interval.
    pub fn magnitude(&self) -> f64 {
        self.lo.abs().max(self.hi.abs())
    }

    /// Whether x lies in the interval, ends included.
    pub fn contains(&self, x: f64) -> bool {
        self.lo <= x && x <= self.hi
    }

    /// Whether the interval is its own mirror image around 0.
    pub fn is_symmetric(&self) -> bool {
        self.lo == -self.hi
    }

    /// Affine map onto [-1, 1].
    pub fn to_unit(&self, x: f64) -> f64 {
        let (scale, shift) = self.unit_map();
        scale.mul_add(x, shift)
    }

    /// Affine map from [-1, 1].
    pub fn from_unit(&self, u: f64) -> f64 {
        self.radius().mul_add(u, self.mid())
    }

    /// (scale, shift) with u = scale·x + shift mapping the interval onto [-1, 1].
    pub fn unit_map(&self) -> (f64, f64) {
        let scale = 1.0 / self.radius();
        (scale, -self.mid() * scale)
    }

    /// The smallest interval that holds both.
    pub fn hull(&self, other: &Self) -> Self {
        Self { lo: self.lo.min(other.lo), hi: self.hi.max(other.hi) }
    }

    /// `count` points from end to end, equally spaced (at least the two ends).
    pub fn linspace(&self, count: usize) -> impl Iterator<Item = f64> + '_ {
        let last = count.max(2) - 1;
        let width = self.hi - self.lo;
        let small = (width * last as f64).is_finite();
        (0..=last).map(move |i| match i as f64 / last as f64 {
            _ if i == last => self.hi,
            _ if small => self.lo + width * i as f64 / last as f64,
            // Widths and their multiples overflow near the largest doubles; the two parts of the
            // mean do not.
            t => self.lo * (1.0 - t) + self.hi * t,
        })
    }

    /// How many of the values lie outside, and the one farthest out.
    ///
    /// Schemes do not notice an argument outside their domain (a Goldschmidt product saturates
    /// silently), so whoever calls them counts violations with this before anything is encrypted.
    pub fn violations<'a>(&self, values: impl IntoIterator<Item = &'a f64>) -> Violations {
        let mut seen = Violations::default();
        let mut farthest = 0.0;
        for &x in values {
            seen.checked += 1;
            if self.contains(x) {
                continue;
            }
            seen.outside += 1;
            let distance = if x.is_nan() { f64::INFINITY } else { (self.lo - x).max(x - self.hi) };
            if distance > farthest {
                farthest = distance;
                seen.worst = Some(x);
            }
        }
        seen
    }
}

/// Refuses domains that are not a list of disjoint intervals, ascending.
pub(crate) fn check_domain(domain: &[Interval]) -> Result<()> {
    if domain.is_empty() {
        return Err(Error::EmptyDomain);
    }
    match domain.windows(2).find(|pair| pair[0].hi() >= pair[1].lo()) {
        Some(pair) => Err(Error::Overlap { end: pair[0].hi(), begin: pair[1].lo() }),
        None => Ok(()),
    }
}

/// Count of arguments outside a domain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Violations {
    /// Values looked at.
    pub checked: u64,
    /// Values outside the domain, NaN included.
    pub outside: u64,
    /// The value farthest outside.
    pub worst: Option<f64>,
}

impl TryFrom<(f64, f64)> for Interval {
    type Error = Error;

    fn try_from((lo, hi): (f64, f64)) -> Result<Self> {
        Self::new(lo, hi)
    }
}

impl From<Interval> for (f64, f64) {
    fn from(interval: Interval) -> Self {
        (interval.lo, interval.hi)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {}]", self.lo, self.hi)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_ends_are_named() {
        assert_eq!(Interval::new(1.0, 1.0), Err(Error::EmptyInterval { lo: 1.0, hi: 1.0 }));
        assert_eq!(Interval::new(2.0, 1.0), Err(Error::EmptyInterval { lo: 2.0, hi: 1.0 }));
        assert!(matches!(Interval::new(f64::NAN, 1.0), Err(Error::NotFinite { .. })));
        assert!(serde_json::from_str::<Interval>("[3.0, 1.0]").is_err());
    }

    #[test]
    fn intervals_without_a_map_onto_the_unit_interval_are_refused() {
        for (lo, hi) in [(0.0, 5e-324), (-5e-324, 5e-324), (0.0, 1e-308), (1e-310, 2e-310)] {
            assert_eq!(Interval::new(lo, hi), Err(Error::TooNarrow { lo, hi }));
        }
        for (lo, hi) in [(0.0, 2e-308), (1.0, 1.0 + f64::EPSILON), (-f64::MAX, f64::MAX), (1e308, f64::MAX)] {
            let widest = Interval::new(lo, hi).unwrap();
            let points: Vec<f64> = widest.linspace(9).collect();
            assert!(points.is_sorted() && points.iter().all(|x| widest.contains(*x)), "{points:?}");
            // The middle of neighbouring doubles is one of them.
            assert!(widest.to_unit(lo).abs() <= 2.0 && widest.to_unit(hi).abs() <= 2.0, "{widest}");
        }
    }

    #[test]
    fn violations_count_and_name_the_worst() {
        let domain = Interval::new(0.0, 1.0).unwrap();
        let seen = domain.violations(&[0.0, 0.5, 1.0, 1.5, -2.0]);
        assert_eq!(seen, Violations { checked: 5, outside: 2, worst: Some(-2.0) });
        assert_eq!(domain.violations(&[f64::NAN]).outside, 1);
    }

    #[test]
    fn unit_map_round_trips() {
        let domain = Interval::new(-3.0, 7.0).unwrap();
        for x in domain.linspace(11) {
            assert!((domain.from_unit(domain.to_unit(x)) - x).abs() < 1e-14);
        }
    }
}
