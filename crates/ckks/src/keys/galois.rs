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
        let (slots, order) = (params.slots() as i64, 2 * params.degree());
        let mut steps = steps.rem_euclid(slots);
        let (mut result, mut power) = (1usize, 5usize);
        while steps != 0 {
            if steps & 1 == 1 {
                result = result * power % order;
            }
            power = power * power % order;
            steps >>= 1;
        }
        Self(result)
    }

    /// Complex conjugation of every slot.
    pub fn conjugation(params: &Params) -> Self {
        Self(2 * params.degree() - 1)
    }

    /// This automorphism after `other`.
    pub fn compose(self, params: &Params, other: Self) -> Self {
        Self(self.0 * other.0 % (2 * params.degree()))
    }

    /// The automorphism that undoes this one.
    pub fn inverse(self, params: &Params) -> Self {
        // The group of odd residues modulo 2N has exponent dividing N/2 (N for tiny rings), so g^(N-1) is the inverse.
        let order = 2 * params.degree();
        let (mut result, mut power, mut exponent) = (1usize, self.0, params.degree() - 1);
        while exponent != 0 {
            if exponent & 1 == 1 {
                result = result * power % order;
            }
            power = power * power % order;
            exponent >>= 1;
        }
        Self(result)
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

impl fmt::Display for GaloisElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "X^{}", self.0)
    }
}
