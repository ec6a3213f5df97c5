//! Containers that wipe themselves.

use std::sync::Arc;

use crate::error::Result;
use crate::limbs::Limbs;
use crate::poly::{Coeff, Domain, Eval, Poly, check_len};
use crate::ring::Ring;
use crate::wiped::{Wiped, wipe};

/// A polynomial that is wiped before its memory goes back to the pool.
///
/// It cannot be cloned, printed or serialised; [`Secret::expose`] and [`Secret::publish`] are the
/// ways to the residues, and [`Secret::to_f64`] and [`Secret::to_double_double`] give integers in
/// memory that is wiped too.
pub struct Secret<D: Domain>(Poly<D>);

impl<D: Domain> Secret<D> {
    /// Takes charge of a polynomial.
    pub fn new(poly: Poly<D>) -> Self {
        Self(poly)
    }

    /// The polynomial. Copies made of it are the caller's to wrap again.
    pub fn expose(&self) -> &Poly<D> {
        &self.0
    }

    /// The polynomial, for changing it in place.
    pub fn expose_mut(&mut self) -> &mut Poly<D> {
        &mut self.0
    }

    /// The polynomial without its protection: for results that are public, such as a secret under a
    /// mask.
    pub fn publish(mut self) -> Poly<D> {
        self.0.take()
    }

    /// The ring.
    pub fn ring(&self) -> &Arc<Ring> {
        self.0.ring()
    }
}

impl Secret<Coeff> {
    /// Coefficients to evaluations, in place.
    pub fn into_eval(mut self) -> Secret<Eval> {
        Secret(self.0.take().into_eval())
    }
}

impl Secret<Eval> {
    /// Evaluations to coefficients, in place.
    pub fn into_coeff(mut self) -> Secret<Coeff> {
        Secret(self.0.take().into_coeff())
    }
}

impl<D: Domain> Drop for Secret<D> {
    fn drop(&mut self) {
        wipe(self.0.raw_mut());
    }
}

/// Small secret or error coefficients, wiped on drop.
pub struct SmallCoeffs(Wiped<i8>);

impl SmallCoeffs {
    pub(crate) fn new(coefficients: Wiped<i8>) -> Self {
        Self(coefficients)
    }

    /// The coefficients.
    pub fn expose(&self) -> &[i8] {
        &self.0
    }

    /// As residues over some limbs, in constant time; there must be `N` coefficients.
    pub fn to_poly(&self, ring: &Arc<Ring>, limbs: &Limbs) -> Result<Secret<Coeff>> {
        check_len("coefficients", ring.degree(), self.0.len())?;
        let mut secret = Secret::new(Poly::scratch(ring, limbs)?);
        secret.expose_mut().for_each_limb(|_, m, dst| {
            for (d, &x) in dst.iter_mut().zip(self.0.iter()) {
                // The sign bit selects q by a product: no branch on the secret.
                *d = f64::from(x) + f64::from((x as u8) >> 7) * m.float();
            }
        });
        Ok(secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prime::ntt_primes;
    use crate::sample::{Seed, Stream, ternary};

    #[test]
    fn secrets_are_wiped_before_their_memory_is_reused() {
        let ring = Ring::new(256, &ntt_primes(256, 40, 4, &[]).unwrap()).unwrap();
        let limbs = ring.limbs();
        let left_behind = |secret: bool| {
            ring.pool().set_limit(0);
            ring.pool().set_limit(1 << 30);
            let mut stream = Stream::new(&Seed::from_bytes([1; 32]), "secret", 0);
            let poly = ternary(&mut stream, ring.degree()).to_poly(&ring, &limbs).unwrap().into_eval();
            let copy = poly.expose().clone();
            if secret {
                drop(Secret::new(copy))
            } else {
                drop(copy)
            }
            // The pool hands back the last buffer given to it.
            let reused = Poly::<Eval>::scratch(&ring, &limbs).unwrap();
            assert!(ring.pool().bytes() == 0, "the buffer came from the pool");
            reused.iter().map(|(_, limb)| limb.iter().filter(|&&x| x != 0.0).count()).sum::<usize>()
        };
        assert!(left_behind(false) > 0, "an ordinary polynomial leaves its residues");
        assert_eq!(left_behind(true), 0);
    }
}
