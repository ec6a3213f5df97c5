//! Plaintext operands: values that are encoded only when the level and scale of their use are
//! known.

use num_complex::Complex64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A vector of plaintext slots, kept as short as its period and cheap to clone.
///
/// A `Plain` has no level and no scale: each machine encodes it at the place of use, at the scale
/// that makes the result land where it should. The values repeat with their length, so a constant
/// has one value and a pattern that is the same for every token has as many values as a token has
/// features.
#[derive(Clone, Debug)]
pub struct Plain {
    id: u64,
    values: Values,
}

#[derive(Clone, Debug)]
enum Values {
    Real(Arc<[f64]>),
    Complex(Arc<[Complex64]>),
}

impl Plain {
    /// The same complex number in every slot.
    pub fn constant(value: Complex64) -> Self {
        if value.im == 0.0 { Self::real(vec![value.re]) } else { Self::complex(vec![value]) }
    }

    /// Real values that repeat with the length of `period` (a power of two; checked against the
    /// slots at each use).
    pub fn real(period: impl Into<Arc<[f64]>>) -> Self {
        Self::from_values(Values::Real(period.into()))
    }

    /// Complex values that repeat with the length of `period`.
    pub fn complex(period: impl Into<Arc<[Complex64]>>) -> Self {
        Self::from_values(Values::Complex(period.into()))
    }

    /// Number of stored values; slot `i` holds value `i mod period`.
    pub fn period(&self) -> usize {
        match &self.values {
            Values::Real(values) => values.len(),
            Values::Complex(values) => values.len(),
        }
    }

    /// Whether every value is stored as a real number.
    pub fn is_real(&self) -> bool {
        matches!(self.values, Values::Real(_))
    }

    /// The value in slot `index` (zero for an empty period).
    pub fn value(&self, index: usize) -> Complex64 {
        let period = self.period();
        if period == 0 {
            return Complex64::ZERO;
        }
        match &self.values {
            Values::Real(values) => Complex64::new(values[index % period], 0.0),
            Values::Complex(values) => values[index % period],
        }
    }

    /// One period of values.
    pub fn values(&self) -> impl ExactSizeIterator<Item = Complex64> + '_ {
        (0..self.period()).map(|index| self.value(index))
    }

    /// The constant that this vector holds in every slot, if its period is one.
    pub fn as_constant(&self) -> Option<Complex64> {
        (self.period() == 1).then(|| self.value(0))
    }

    /// Largest absolute value.
    pub fn max_abs(&self) -> f64 {
        self.values().map(|value| value.norm()).fold(0.0, f64::max)
    }

    /// Whether something is left of the values at `scale`: one of them is a unit of it or more, or
    /// all are zero.
    pub(crate) fn holds_at(&self, scale: super::Scale) -> bool {
        let scale = scale.to_f64();
        self.values().any(|value| value.norm() * scale >= 1.0) || self.is_zero()
    }

    /// Whether every value is zero.
    pub fn is_zero(&self) -> bool {
        self.values().all(|value| value == Complex64::ZERO)
    }

    /// The vector shifted left by `steps` slots: slot `i` of the result is slot `i + steps` of this
    /// one.
    pub fn rotated(&self, steps: i64) -> Self {
        let period = self.period().max(1);
        let shift = steps.rem_euclid(period as i64) as usize;
        if shift == 0 {
            return self.clone();
        }
        match &self.values {
            Values::Real(values) => Self::real([&values[shift..], &values[..shift]].concat()),
            Values::Complex(values) => Self::complex([&values[shift..], &values[..shift]].concat()),
        }
    }

    /// Several vectors in one, slot by slot: slot `i` of the `lane`-th of `parts` becomes slot
    /// `i * parts.len() + lane`, for the first `period` slots of each.
    pub fn interleaved(parts: &[Self], period: usize) -> Self {
        let value = |slot: usize| parts[slot % parts.len()].value(slot / parts.len());
        let slots = 0..period * parts.len();
        if parts.iter().all(Self::is_real) {
            Self::real(slots.map(|slot| value(slot).re).collect::<Vec<_>>())
        } else {
            Self::complex(slots.map(value).collect::<Vec<_>>())
        }
    }

    /// Every value multiplied by `factor`.
    pub fn scaled(&self, factor: f64) -> Self {
        match &self.values {
            Values::Real(values) => Self::real(values.iter().map(|value| value * factor).collect::<Vec<_>>()),
            Values::Complex(values) => {
                Self::complex(values.iter().map(|value| value * factor).collect::<Vec<_>>())
            }
        }
    }

    /// An identity for caches: clones share it, separately built vectors never do.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Bytes of stored values.
    pub fn bytes(&self) -> usize {
        self.period() * if self.is_real() { size_of::<f64>() } else { size_of::<Complex64>() }
    }

    fn from_values(values: Values) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), values }
    }
}

impl From<f64> for Plain {
    fn from(value: f64) -> Self {
        Self::constant(Complex64::new(value, 0.0))
    }
}

impl From<Complex64> for Plain {
    fn from(value: Complex64) -> Self {
        Self::constant(value)
    }
}

impl From<Vec<f64>> for Plain {
    fn from(values: Vec<f64>) -> Self {
        Self::real(values)
    }
}

impl From<Vec<Complex64>> for Plain {
    fn from(values: Vec<Complex64>) -> Self {
        Self::complex(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_repeat_and_rotate() {
        let plain = Plain::real(vec![1.0, 2.0, 3.0, 4.0]);
        assert_eq!(plain.value(6), Complex64::new(3.0, 0.0));
        let rotated = plain.rotated(-1);
        assert_eq!(rotated.values().map(|v| v.re).collect::<Vec<_>>(), [4.0, 1.0, 2.0, 3.0]);
        assert_ne!(plain.id(), rotated.id());
        assert_eq!(plain.id(), plain.clone().id());
    }

    #[test]
    fn interleaved_values_take_turns() {
        let (fast, slow) = (Plain::real(vec![1.0, 2.0]), Plain::real(vec![5.0, 6.0, 7.0, 8.0]));
        let both = Plain::interleaved(&[fast.clone(), slow], 4);
        assert_eq!(both.values().map(|v| v.re).collect::<Vec<_>>(), [1.0, 5.0, 2.0, 6.0, 1.0, 7.0, 2.0, 8.0]);
        assert!(both.is_real());
        assert!(!Plain::interleaved(&[fast, Plain::from(Complex64::I)], 2).is_real());
        assert_eq!(Plain::interleaved(&[], 4).period(), 0);
    }

    #[test]
    fn constants_are_recognised() {
        assert_eq!(Plain::from(2.5).as_constant(), Some(Complex64::new(2.5, 0.0)));
        assert!(Plain::from(Complex64::new(0.0, 1.0)).as_constant().is_some());
        assert!(Plain::real(vec![0.0; 4]).is_zero());
        assert_eq!(Plain::real(vec![1.0, -3.0]).max_abs(), 3.0);
    }
}
