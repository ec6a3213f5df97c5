//! Galois elements: the automorphisms `X -> X^g` behind rotations and conjugation.

use crate::ids::{GaloisElement, product};
use crate::{Error, Params};

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
