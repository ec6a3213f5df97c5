//! Which ciphertext a vector is: what was computed in the same way from the same operands has the
//! same errors.

use crate::slots::{Plain, Scale};
use num_complex::Complex64;
use std::hash::{Hash, Hasher};

/// A ciphertext, up to a power of `i`.
///
/// Multiplying by a power of `i` moves coefficients and changes signs. Key switches and roundings
/// commute with that, so the error of an operation on `i x` is `i` times its error on `x`: both
/// have one `base` and differ in `turn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name {
    base: u64,
    turn: u8,
}

impl Name {
    /// Something never seen before; `number` tells it from others.
    pub(super) fn fresh(number: u64) -> Self {
        Self { base: hashed(&("fresh", number)), turn: 0 }
    }

    /// The result of an operation that is linear in its operands, which are listed in order.
    pub(super) fn linear(
        operation: &str,
        operands: impl IntoIterator<Item = Self>,
        detail: impl Hash,
    ) -> Self {
        let mut operands: Vec<Self> = operands.into_iter().collect();
        let turn = operands.first().map_or(0, |first| first.turn);
        operands.iter_mut().for_each(|operand| *operand = operand.turned(4 - turn));
        Self { base: hashed(&(operation, operands, hashed(&detail))), turn }
    }

    /// A sum in any order.
    pub(super) fn sum(mut terms: Vec<Self>) -> Self {
        terms.sort();
        Self::linear("sum", terms, ())
    }

    /// A sum of products, both in any order.
    pub(super) fn product(pairs: impl IntoIterator<Item = (Self, Self)>) -> Self {
        let product = |(left, right): (Self, Self)| Self {
            base: hashed(&("product", left.base.min(right.base), left.base.max(right.base))),
            turn: (left.turn + right.turn) % 4,
        };
        Self::sum(pairs.into_iter().map(product).collect())
    }

    /// The result of an operation on named operands that need not commute with anything.
    pub(super) fn of(operation: &str, operands: impl IntoIterator<Item = Self>, detail: impl Hash) -> Self {
        let operands: Vec<Self> = operands.into_iter().collect();
        Self { base: hashed(&(operation, operands, hashed(&detail))), turn: 0 }
    }

    /// Multiplied by `i^turns`.
    pub(super) fn turned(self, turns: u8) -> Self {
        Self { turn: (self.turn + turns) % 4, ..self }
    }

    /// The name of a conjugate of something with `self` as its name.
    pub(super) fn conjugated(self) -> Self {
        Self { turn: (4 - self.turn) % 4, ..self }
    }

    /// The seed of what is drawn for this and everything that differs by a power of `i`.
    pub(super) fn base(self) -> u64 {
        self.base
    }

    /// The power of `i`.
    pub(super) fn unit(self) -> Complex64 {
        [Complex64::ONE, Complex64::I, -Complex64::ONE, -Complex64::I][usize::from(self.turn)]
    }

    /// By what `other` must be multiplied to give this, if both have one base.
    pub(super) fn over(self, other: Self) -> Option<Complex64> {
        (self.base == other.base).then(|| self.turned(4 - other.turn).unit())
    }
}

/// A plaintext's values at a scale, up to a power of `i`, which is the second.
pub(super) fn plain_name(plain: &Plain, scale: Scale) -> (u64, u8) {
    let leading = plain.values().find(|value| *value != Complex64::ZERO).unwrap_or(Complex64::ONE);
    let turn = (0..4u8).find(|&turn| {
        let back = leading * Name { base: 0, turn }.unit().conj();
        back.re > 0.0 && -back.re < back.im && back.im <= back.re
    });
    let turn = turn.unwrap_or(0);
    let back = Name { base: 0, turn }.unit().conj();
    let bits = |x: f64| (x + 0.0).to_bits();
    let values: Vec<[u64; 2]> = plain.values().map(|v| v * back).map(|v| [bits(v.re), bits(v.im)]).collect();
    (hashed(&(values, scale_bits(scale))), turn)
}

/// A scale as something that can be hashed.
pub(super) fn scale_bits(scale: Scale) -> u64 {
    scale.to_f64().to_bits()
}

/// Blake3 of what a value feeds it, with lengths in 64 bits. The standard library's hasher may
/// change from one release to the next, and with it everything that a seed of the noise machine
/// draws.
struct Stable(blake3::Hasher);

impl Hasher for Stable {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn write_u16(&mut self, value: u16) {
        self.write(&value.to_le_bytes());
    }

    fn write_u32(&mut self, value: u32) {
        self.write(&value.to_le_bytes());
    }

    fn write_u64(&mut self, value: u64) {
        self.write(&value.to_le_bytes());
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&self.0.finalize().as_bytes()[..8]);
        u64::from_le_bytes(word)
    }
}

fn hashed(value: &impl Hash) -> u64 {
    let mut hasher = Stable(blake3::Hasher::new());
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_computation_has_the_same_name() {
        let (x, y) = (Name::fresh(1), Name::fresh(2));
        assert_ne!(x, y);
        assert_eq!(Name::sum(vec![x, y]), Name::sum(vec![y, x]));
        assert_eq!(Name::sum(vec![x.turned(1), y.turned(1)]), Name::sum(vec![y, x]).turned(1));
        assert_ne!(Name::sum(vec![x, y.turned(2)]).base(), Name::sum(vec![y, x]).base());
        assert_eq!(Name::product([(x, y.turned(3))]), Name::product([(y, x)]).turned(3));
        assert_eq!(Name::product([(x, x), (x, y)]), Name::product([(y, x), (x, x)]));
        assert_eq!(Name::linear("rescale", [x.turned(1)], ()), Name::linear("rescale", [x], ()).turned(1));
        assert_eq!(x.turned(3).conjugated(), x.turned(1));
        assert_eq!(x.turned(1).over(x.turned(2)), Some(-Complex64::I));
        assert_eq!(x.over(y), None);
    }

    /// Computed with another implementation of Blake3: names outlive compilers.
    #[test]
    fn names_are_the_same_on_every_machine_and_compiler() {
        // "fresh", the end of the string, and the number.
        assert_eq!(Name::fresh(7).base(), 0xb549_9fc2_eec3_40e8);
    }

    #[test]
    fn plaintexts_that_differ_by_a_power_of_i_share_a_name() {
        let scale = Scale::from_log2(40);
        let values = [Complex64::new(0.3, -0.2), Complex64::new(-1.0, 0.5)];
        let (name, turn) = plain_name(&Plain::complex(values.to_vec()), scale);
        let mut unit = Complex64::ONE;
        for turns in 0..4 {
            let turned = Plain::complex(values.map(|v| v * unit).to_vec());
            assert_eq!(plain_name(&turned, scale), (name, (turn + turns) % 4));
            unit *= Complex64::I;
        }
        assert_ne!(plain_name(&Plain::complex(values.to_vec()), Scale::from_log2(41)).0, name);
        assert_eq!(
            plain_name(&Plain::constant((-0.5).into()), scale).0,
            plain_name(&Plain::constant(0.5.into()), scale).0
        );
    }
}
