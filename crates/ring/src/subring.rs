//! Polynomials in `Y = X^(N/n)`: a ring of degree `n` inside one of degree `N`, same primes.
//!
//! Every root `y` of `Y^n + 1` is the `N/n`-th power of `N/n` roots of `X^N + 1`. A polynomial in
//! `Y` has one value at all of these, and the mean of a polynomial's values there is the value at
//! `y` of the part of it that is a polynomial in `Y`: `a(X) = sum of X^i a_i(Y)`, and the powers of
//! the roots add up to nothing for all `i` but 0.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::kernel::eval_exponent;
use crate::poly::{Eval, Poly};
use crate::ring::Ring;
use crate::secret::SmallCoeffs;
use crate::wiped::Wiped;

/// For each value in a ring of degree `2^log_large`, the one of the ring of degree `2^log_small` at
/// its power.
fn places(log_small: u32, log_large: u32) -> Vec<u32> {
    let small = 1usize << log_small;
    let mut index_of = vec![0; small];
    for index in 0..small {
        index_of[eval_exponent(log_small, index) / 2] = index as u32;
    }
    let at = |index: usize| index_of[eval_exponent(log_large, index) % (2 * small) / 2];
    (0..1usize << log_large).map(at).collect()
}

/// Checks that `small` lies in `large` over the limbs of a polynomial.
fn check(small: &Ring, large: &Ring, poly: &Poly<Eval>) -> Result<()> {
    if small.degree() > large.degree() {
        return Err(Error::LengthMismatch {
            what: "values of a subring",
            expected: large.degree(),
            found: small.degree(),
        });
    }
    for index in poly.limbs().iter() {
        if small.modulus(index)?.value() != large.modulus(index)?.value() {
            return Err(Error::RingMismatch {
                left_degree: small.degree(),
                left_primes: small.prime_count(),
                right_degree: large.degree(),
                right_primes: large.prime_count(),
            });
        }
    }
    Ok(())
}

impl Poly<Eval> {
    /// `a(X^(N/n))` in a larger ring whose pool begins with the primes of the polynomial.
    ///
    /// ```
    /// use cipherlm_ring::{Coeff, Limbs, Poly, Ring, ntt_primes};
    /// let primes = ntt_primes(64, 40, 2, &[])?;
    /// let (small, large) = (Ring::new(16, &primes)?, Ring::new(64, &primes)?);
    /// let mut x = [0; 16];
    /// x[1] = 1;
    /// let a = Poly::<Coeff>::from_i64(&small, &Limbs::range(0..2), &x)?.into_eval();
    /// let embedded = a.embed(&large)?;
    /// assert_eq!(embedded.project(&small)?, a);
    /// assert_eq!(embedded.into_coeff().to_f64()[4], 1.0);
    /// # Ok::<(), cipherlm_ring::Error>(())
    /// ```
    pub fn embed(&self, ring: &Arc<Ring>) -> Result<Self> {
        check(self.ring(), ring, self)?;
        let places = places(self.ring().log_degree(), ring.log_degree());
        let mut out = Self::scratch(ring, self.limbs())?;
        for ((_, to), (_, from)) in out.iter_mut().zip(self.iter()) {
            to.iter_mut().zip(&places).for_each(|(value, &place)| *value = from[place as usize]);
        }
        Ok(out)
    }

    /// The part of a polynomial that is a polynomial in `X^(N/n)`, in a smaller ring whose pool has
    /// the same primes: every `N/n`-th coefficient.
    pub fn project(&self, ring: &Arc<Ring>) -> Result<Self> {
        check(ring, self.ring(), self)?;
        let run = (self.ring().degree() / ring.degree()) as u64;
        let places = places(ring.log_degree(), self.ring().log_degree());
        let mut sums = vec![0u64; ring.degree()];
        let mut out = Self::scratch(ring, self.limbs())?;
        for ((index, to), (_, from)) in out.iter_mut().zip(self.iter()) {
            let modulus = ring.modulus(index)?;
            let missing = || Error::NotPrime { modulus: modulus.value() };
            let mean = modulus.inv(modulus.reduce(run)).ok_or_else(missing)?;
            sums.fill(0);
            // At most 2^13 residues below 2^50 each.
            from.iter().zip(&places).for_each(|(&x, &place)| sums[place as usize] += x as u64);
            for (value, &sum) in to.iter_mut().zip(&sums) {
                *value = modulus.mul(modulus.reduce(sum), mean) as f64;
            }
        }
        Ok(out)
    }
}

impl SmallCoeffs {
    /// The coefficients of `a(X^(degree/n))`.
    pub fn embed(&self, degree: usize) -> Result<Self> {
        let small = self.expose().len();
        if small == 0 || !degree.is_multiple_of(small) {
            return Err(Error::LengthMismatch { what: "coefficients", expected: degree, found: small });
        }
        let mut out = Wiped::<i8>::zeros(degree);
        for (to, &x) in out.iter_mut().step_by(degree / small).zip(self.expose()) {
            *to = x;
        }
        Ok(Self::new(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limbs::Limbs;
    use crate::poly::Coeff;
    use crate::prime::ntt_primes;
    use crate::sample::{Seed, Stream, ternary};

    #[test]
    fn projection_takes_every_so_many_th_coefficient_and_embedding_puts_them_back() {
        let primes = ntt_primes(256, 45, 3, &[]).unwrap();
        let limbs = Limbs::range(0..2);
        let coefficients: Vec<i64> = (0..256).map(|i| i * i * 7919 - 100_000).collect();
        for degree in [16usize, 32, 256] {
            let (large, small) = (Ring::new(256, &primes).unwrap(), Ring::new(degree, &primes[..2]).unwrap());
            let a = Poly::<Coeff>::from_i64(&large, &limbs, &coefficients).unwrap().into_eval();
            let projected = a.project(&small).unwrap();
            let every: Vec<i64> = coefficients.iter().copied().step_by(256 / degree).collect();
            let expected = Poly::<Coeff>::from_i64(&small, &limbs, &every).unwrap().into_eval();
            assert_eq!(projected, expected, "degree {degree}");
            let mut spread = vec![0; 256];
            spread.iter_mut().step_by(256 / degree).zip(&every).for_each(|(to, x)| *to = *x);
            let expected = Poly::<Coeff>::from_i64(&large, &limbs, &spread).unwrap().into_eval();
            assert_eq!(projected.embed(&large).unwrap(), expected, "degree {degree}");
        }
    }

    #[test]
    fn small_coefficients_are_embedded_as_the_polynomial_is() {
        let primes = ntt_primes(64, 40, 1, &[]).unwrap();
        let (small, large) = (Ring::new(16, &primes).unwrap(), Ring::new(64, &primes).unwrap());
        let coefficients = ternary(&mut Stream::new(&Seed::from_bytes([1; 32]), "t", 0), 16);
        let of = |coefficients: &SmallCoeffs, ring: &Arc<Ring>| {
            coefficients.to_poly(ring, &ring.limbs()).unwrap().into_eval().publish()
        };
        let embedded = of(&coefficients.embed(64).unwrap(), &large);
        assert_eq!(of(&coefficients, &small).embed(&large).unwrap(), embedded);
        assert!(coefficients.embed(40).is_err());
    }

    #[test]
    fn other_primes_and_larger_subrings_are_refused() {
        let primes = ntt_primes(64, 40, 2, &[]).unwrap();
        let (small, large) = (Ring::new(16, &primes[1..]).unwrap(), Ring::new(64, &primes).unwrap());
        let a = Poly::<Eval>::zero(&large, &Limbs::range(0..1)).unwrap();
        assert!(a.project(&small).is_err());
        assert!(Poly::<Eval>::zero(&large, &Limbs::range(0..2)).unwrap().project(&small).is_err());
        let same = Ring::new(16, &primes).unwrap();
        assert!(a.embed(&same).is_err() && a.project(&same).is_ok());
    }
}
