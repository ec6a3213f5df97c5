//! Galois elements: the automorphisms `X -> X^g` behind rotations and conjugation.

use std::fmt;

use crate::{Error, Params};

/// An odd exponent `g < 2N`; `X -> X^g` permutes the slots of a ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GaloisElement(usize);

impl GaloisElement {
    /// The identity.
    pub const IDENTITY: Self = Self(1);

    /// The exponent `g`, checked against the ring.
    ///
    /// # Errors
    /// [`Error::BadGaloisElement`] if it is even or not below 2N.
    pub fn new(params: &Params, element: usize) -> Result<Self, Error> {
        if element.is_multiple_of(2) || element >= 2 * params.degree() {
            return Err(Error::BadGaloisElement { element, degree: params.degree() });
        }
        Ok(Self(element))
    }

    /// Rotation to the left by `steps` (to the right when negative): slot `j` receives slot `j + steps`.
    /// Steps are taken modulo N/2.
    pub fn rotation(params: &Params, steps: i64) -> Self {
        let steps = steps.rem_euclid(params.slots() as i64) as usize;
        Self(power(5, steps, 2 * params.degree()))
    }

    /// Complex conjugation of every slot.
    pub fn conjugation(params: &Params) -> Self {
        Self(2 * params.degree() - 1)
    }

    /// This automorphism after `other`.
    pub fn compose(self, params: &Params, other: Self) -> Self {
        Self(product(self.0, other.0, 2 * params.degree()))
    }

    /// The automorphism that undoes this one.
    pub fn inverse(self, params: &Params) -> Self {
        // The group of odd residues modulo 2N has exponent dividing N/2 (N for tiny rings), so g^(N-1) is the inverse.
        Self(power(self.0, params.degree() - 1, 2 * params.degree()))
    }

    /// The exponent `g`.
    pub fn element(self) -> usize {
        self.0
    }

    /// True for the identity, which needs no key.
    pub fn is_identity(self) -> bool {
        self.0 == 1
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
        write!(f, "X^{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{power, product};

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
