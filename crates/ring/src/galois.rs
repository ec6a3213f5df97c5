//! Automorphisms `X -> X^g`.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::kernel::eval_exponent;
use crate::poly::{Coeff, Eval, Poly};
use crate::ring::Ring;

/// The map `a(X) -> a(X^element)`; in the evaluation domain a permutation shared by all limbs.
#[derive(Debug)]
pub struct Automorphism {
    element: usize,
    degree: usize,
    index: Vec<u32>,
}

impl Automorphism {
    /// Builds the permutation; [`Ring::automorphism`] keeps it for the next call.
    pub fn new(ring: &Ring, element: usize) -> Result<Self> {
        let (degree, log_n) = (ring.degree(), ring.log_degree());
        // Products of exponents take up to 36 bits.
        let order = 2 * degree as u64;
        if element.is_multiple_of(2) || element >= 2 * degree {
            return Err(Error::NotAGaloisElement { element, degree });
        }
        let mut slot_of = vec![0u32; degree];
        for slot in 0..degree {
            slot_of[eval_exponent(log_n, slot) / 2] = slot as u32;
        }
        // Slot i of the image holds a(psi^(e_i g)).
        let source = |slot| eval_exponent(log_n, slot) as u64 * element as u64 % order / 2;
        let index = (0..degree).map(|slot| slot_of[source(slot) as usize]).collect();
        Ok(Self { element, degree, index })
    }

    /// The exponent `g`.
    pub fn element(&self) -> usize {
        self.element
    }

    /// Where slot `i` of the image is read from, for every `i`.
    pub fn index(&self) -> &[u32] {
        &self.index
    }

    fn check_degree(&self, ring: &Ring) -> Result<()> {
        if self.degree == ring.degree() {
            Ok(())
        } else {
            Err(Error::LengthMismatch {
                what: "slots permuted by the automorphism",
                expected: ring.degree(),
                found: self.degree,
            })
        }
    }
}

impl Ring {
    /// The automorphism `X -> X^element` (odd, below `2N`), built once.
    pub fn automorphism(&self, element: usize) -> Result<Arc<Automorphism>> {
        self.derived().get(element, || Automorphism::new(self, element))
    }
}

impl Poly<Eval> {
    /// `a(X^g)`, as a permutation of slots.
    pub fn automorphism(&self, automorphism: &Automorphism) -> Result<Self> {
        automorphism.check_degree(self.ring())?;
        let kernel = self.ring().kernel();
        let mut image = Self::scratch(self.ring(), self.limbs())?;
        image.zip_limbs("image", self, "source", |_, dst, src| {
            (kernel.permute)(dst, src, &automorphism.index)
        })?;
        Ok(image)
    }
}

impl Poly<Coeff> {
    /// `a(X^g)`, by moving coefficients and flipping the signs of those that wrap.
    pub fn automorphism(&self, automorphism: &Automorphism) -> Result<Self> {
        automorphism.check_degree(self.ring())?;
        let (n, g) = (self.ring().degree(), automorphism.element);
        let mut image = Self::scratch(self.ring(), self.limbs())?;
        image.zip_limbs("image", self, "source", |m, dst, src| {
            let mut to = 0;
            for &x in src {
                dst[to % n] = if to < n { x } else { m.sub_f64(0.0, x) };
                to = (to + g) % (2 * n);
            }
        })?;
        Ok(image)
    }
}
