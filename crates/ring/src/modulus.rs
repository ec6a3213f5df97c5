//! One word-sized prime modulus and arithmetic modulo it.

use crate::bounds::MAX_MODULUS_BITS;
use crate::error::{Error, Result};
use crate::prime::is_prime;

/// A prime `q < 2^50` with the constants that reduction needs.
///
/// Residues are canonical: integers in `[0, q)`, as `u64` in set-up code and as exact `f64` in
/// kernels.
///
/// ```
/// let m = cipherlm_ring::Modulus::new(97)?;
/// assert_eq!(m.mul(50, 2), 3);
/// assert_eq!(m.mul(m.inv(5).unwrap(), 5), 1);
/// # Ok::<(), cipherlm_ring::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Modulus {
    value: u64,
    float: f64,
    recip: f64,
}

impl Modulus {
    /// Checks that `value` is an odd prime below `2^50`.
    pub fn new(value: u64) -> Result<Self> {
        if value >> MAX_MODULUS_BITS != 0 {
            return Err(Error::ModulusTooLarge { modulus: value, max_bits: MAX_MODULUS_BITS });
        }
        if value < 3 || !is_prime(value) {
            return Err(Error::NotPrime { modulus: value });
        }
        Ok(Self { value, float: value as f64, recip: 1.0 / value as f64 })
    }

    /// The modulus as an integer.
    pub fn value(&self) -> u64 {
        self.value
    }

    /// The modulus as an (exact) float.
    #[inline(always)]
    pub fn float(&self) -> f64 {
        self.float
    }

    /// `1 / q`, correctly rounded.
    #[inline(always)]
    pub fn recip(&self) -> f64 {
        self.recip
    }

    /// Bits that hold every residue.
    #[inline(always)]
    pub fn bits(&self) -> u32 {
        u64::BITS - (self.value - 1).leading_zeros()
    }

    /// Bits in the modulus, as a real number: `log2 q`.
    pub fn log2(&self) -> f64 {
        self.float.log2()
    }

    /// Any integer to its canonical residue.
    pub fn reduce(&self, a: u64) -> u64 {
        a % self.value
    }

    /// Any signed integer to its canonical residue.
    pub fn reduce_i128(&self, a: i128) -> u64 {
        a.rem_euclid(i128::from(self.value)) as u64
    }

    /// `a + b mod q`.
    pub fn add(&self, a: u64, b: u64) -> u64 {
        ((u128::from(a) + u128::from(b)) % u128::from(self.value)) as u64
    }

    /// `a - b mod q`.
    pub fn sub(&self, a: u64, b: u64) -> u64 {
        self.add(a, self.neg(b))
    }

    /// `-a mod q`.
    pub fn neg(&self, a: u64) -> u64 {
        (self.value - a % self.value) % self.value
    }

    /// `a * b mod q`.
    pub fn mul(&self, a: u64, b: u64) -> u64 {
        ((u128::from(a) * u128::from(b)) % u128::from(self.value)) as u64
    }

    /// `a^exponent mod q`; `0^0 = 1`.
    pub fn pow(&self, a: u64, mut exponent: u64) -> u64 {
        let (mut base, mut result) = (self.reduce(a), 1);
        while exponent != 0 {
            if exponent & 1 == 1 {
                result = self.mul(result, base);
            }
            base = self.mul(base, base);
            exponent >>= 1;
        }
        result
    }

    /// `a^-1 mod q`, or `None` when `q` divides `a`.
    pub fn inv(&self, a: u64) -> Option<u64> {
        (self.reduce(a) != 0).then(|| self.pow(a, self.value - 2))
    }

    /// `a * b mod q` on canonical residues held in floats (the operation every kernel is made of).
    #[inline(always)]
    pub fn mul_f64(&self, a: f64, b: f64) -> f64 {
        let high = a * b;
        let low = a.mul_add(b, -high);
        let quotient = (high * self.recip).round_ties_even();
        let r = (-quotient).mul_add(self.float, high) + low;
        if r < 0.0 { r + self.float } else { r }
    }

    /// An integer-valued float with `|a| < 2^52 q` to its canonical residue.
    #[inline(always)]
    pub fn reduce_f64(&self, a: f64) -> f64 {
        // Two rounds: the first quotient may be off by a few units when `a` is far above 2^53.
        let r = (-(a * self.recip).round_ties_even()).mul_add(self.float, a);
        let r = (-(r * self.recip).round_ties_even()).mul_add(self.float, r);
        if r < 0.0 { r + self.float } else { r }
    }

    /// `a + b mod q` on canonical residues held in floats.
    #[inline(always)]
    pub fn add_f64(&self, a: f64, b: f64) -> f64 {
        let r = a + b;
        if r >= self.float { r - self.float } else { r }
    }

    /// `a - b mod q` on canonical residues held in floats.
    #[inline(always)]
    pub fn sub_f64(&self, a: f64, b: f64) -> f64 {
        let r = a - b;
        if r < 0.0 { r + self.float } else { r }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn float_product_is_exact_at_the_corners() {
        for q in [3, 97, 1_073_479_681, 1_125_899_906_826_241, 1_125_899_903_827_969, 562_949_951_979_521] {
            let Ok(m) = Modulus::new(q) else { continue };
            let corners = [0, 1, 2, q / 2 - 1, q / 2, q / 2 + 1, q - 2, q - 1].map(|x| x % q);
            for a in corners {
                for b in corners {
                    assert_eq!(m.mul_f64(a as f64, b as f64), m.mul(a, b) as f64, "{a} * {b} mod {q}");
                }
            }
        }
    }

    #[test]
    fn rejects_what_is_not_a_prime_below_the_bound() {
        assert_eq!(Modulus::new(1 << 50), Err(Error::ModulusTooLarge { modulus: 1 << 50, max_bits: 50 }));
        for q in [0, 1, 2, 9, 561, 1_125_899_906_842_623] {
            assert_eq!(Modulus::new(q), Err(Error::NotPrime { modulus: q }));
        }
    }
}
