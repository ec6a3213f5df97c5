//! Galois elements: the automorphisms `X -> X^g` behind rotations and conjugation.

use std::fmt;

use crate::{Error, Params};

/// An odd exponent `g < 2N`; `X -> X^g` permutes the slots of a ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GaloisElement {
    element: usize,
    /// `2N`.
    order: usize,
}

impl GaloisElement {
    /// The exponent `g`, checked against the ring.
    ///
    /// # Errors
    /// [`Error::BadGaloisElement`] if it is even or not below 2N.
    pub fn new(params: &Params, element: usize) -> Result<Self, Error> {
        if element.is_multiple_of(2) || element >= 2 * params.degree() {
            return Err(Error::BadGaloisElement { element, degree: params.degree() });
        }
        Ok(Self { element, order: 2 * params.degree() })
    }

    /// Rotation to the left by `steps` (to the right when negative): slot `j` receives slot
    /// `j + steps`. Steps are taken modulo N/2.
    pub fn rotation(params: &Params, steps: i64) -> Self {
        let steps = steps.rem_euclid(params.slots() as i64) as usize;
        let order = 2 * params.degree();
        Self { element: power(5, steps, order), order }
    }

    /// Complex conjugation of every slot.
    pub fn conjugation(params: &Params) -> Self {
        let order = 2 * params.degree();
        Self { element: order - 1, order }
    }

    /// This automorphism after `other`.
    pub fn compose(self, params: &Params, other: Self) -> Self {
        let order = 2 * params.degree();
        Self { element: product(self.element, other.element, order), order }
    }

    /// The automorphism that undoes this one.
    pub fn inverse(self, params: &Params) -> Self {
        // The group of odd residues modulo 2N has exponent dividing N/2 (N for tiny rings), so
        // g^(N-1) is the inverse.
        let order = 2 * params.degree();
        Self { element: power(self.element, params.degree() - 1, order), order }
    }

    /// The exponent `g`.
    pub fn element(self) -> usize {
        self.element
    }

    /// The rotation that this is, to the left and in the nearer direction, and whether a
    /// conjugation follows.
    pub fn steps(self) -> (i64, bool) {
        // Powers of 5 are 1 modulo 4; the others are those of their negatives.
        let conjugate = self.element % 4 == 3;
        let rotation = if conjugate { self.order - self.element } else { self.element };
        // 5^(2^k) is 1 + 2^(k+2) modulo twice that, so each bit of the exponent shows in one bit of
        // the power.
        let (mut steps, mut reached, mut power, slots) = (0, 1usize, 5usize, self.order / 4);
        for bit in 0..slots.trailing_zeros() {
            if (reached ^ rotation) & (4 << bit) != 0 {
                steps |= 1i64 << bit;
                reached = product(reached, power, self.order);
            }
            power = product(power, power, self.order);
        }
        let slots = slots as i64;
        (if 2 * steps > slots { steps - slots } else { steps }, conjugate)
    }

    /// True for the identity, which needs no key.
    pub fn is_identity(self) -> bool {
        self.element == 1
    }
}

/// `a b` modulo `order`, in 64 bits on every target: exponents have up to 18.
fn product(a: usize, b: usize, order: usize) -> usize {
    (a as u64 * b as u64 % order as u64) as usize
}

/// `base^exponent` modulo `order`.
fn power(base: usize, mut exponent: usize, order: usize) -> usize {
    let (mut result, mut square) = (1, base);
    while exponent != 0 {
        if exponent & 1 == 1 {
            result = product(result, square, order);
        }
        square = product(square, square, order);
        exponent >>= 1;
    }
    result
}

impl fmt::Display for GaloisElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.steps() {
            (0, true) => write!(f, "conjugation (X^{})", self.element),
            (steps, true) => write!(f, "conjugation and rotation by {steps} (X^{})", self.element),
            (steps, false) => write!(f, "rotation by {steps} (X^{})", self.element),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets;

    #[test]
    fn every_element_knows_its_rotation() {
        let params = presets::insecure::small(64, 40.0, 1).unwrap();
        for steps in -16i64..=16 {
            let (rotation, conjugation) =
                (GaloisElement::rotation(&params, steps), GaloisElement::conjugation(&params));
            let (found, conjugate) = rotation.steps();
            assert!(
                (found - steps) % 32 == 0 && (-16..=16).contains(&found) && !conjugate,
                "{steps} {found}"
            );
            let (found, conjugate) = rotation.compose(&params, conjugation).steps();
            assert!((found - steps) % 32 == 0 && conjugate, "{steps} {found}");
        }
        let text = |element: GaloisElement| element.to_string();
        assert_eq!(text(GaloisElement::rotation(&params, -3)), "rotation by -3 (X^85)");
        assert_eq!(text(GaloisElement::conjugation(&params)), "conjugation (X^127)");
        for steps in [i64::MIN, i64::MAX] {
            assert_eq!((GaloisElement::rotation(&params, steps).steps().0 - steps % 32) % 32, 0);
        }
    }

    /// Squares of exponents of degree 2^17 have 36 bits, more than a word of a 32-bit target.
    #[test]
    fn the_largest_exponents_multiply_exactly() {
        let order = 1 << 18;
        assert_eq!(product(order - 1, order - 1, order), 1);
        assert_eq!(product(order - 3, order - 5, order), 15);
        for base in [5, order - 1, order - 5, 77_777] {
            let slow = (0..101).fold(1u128, |result, _| result * base as u128 % order as u128);
            assert_eq!(power(base, 101, order) as u128, slow);
            assert_eq!(product(power(base, order / 2 - 1, order), base, order), 1, "the inverse of {base}");
        }
        assert_eq!(power(5, 0, order), 1);
    }
}
