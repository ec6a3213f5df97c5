//! Arithmetic on 64-bit words, products in 128 bits.

use crate::modulus::Modulus;

/// A modulus with the constants of Barrett's reduction.
#[derive(Clone, Copy)]
pub(super) struct Field {
    pub(super) q: u64,
    bits: u32,
    /// The floor of `2^(2 bits) / q`: at most `bits + 1` bits.
    barrett: u64,
    /// `2^64 mod q`.
    word: u64,
}

/// The high half of a product.
#[inline(always)]
fn high(a: u64, b: u64) -> u64 {
    ((u128::from(a) * u128::from(b)) >> 64) as u64
}

/// A factor and the floor of `2^64 w / q`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Factor {
    w: u64,
    quotient: u64,
}

impl Factor {
    /// A canonical factor.
    pub(super) fn new(w: u64, q: u64) -> Self {
        Self { w, quotient: ((u128::from(w) << 64) / u128::from(q)) as u64 }
    }
}

impl Field {
    pub(super) fn new(m: &Modulus) -> Self {
        let (q, bits) = (m.value(), m.bits());
        let barrett = ((1u128 << (2 * bits)) / u128::from(q)) as u64;
        Self { q, bits, barrett, word: ((1u128 << 64) % u128::from(q)) as u64 }
    }

    /// A canonical residue held in a float, and back.
    #[inline(always)]
    pub(super) fn word(x: f64) -> u64 {
        x as i64 as u64
    }

    /// `x < 2 q` to canonical.
    #[inline(always)]
    pub(super) fn wrap(self, x: u64) -> u64 {
        if x >= self.q { x - self.q } else { x }
    }

    /// `a + b` of canonical residues.
    #[inline(always)]
    pub(super) fn add(self, a: u64, b: u64) -> u64 {
        self.wrap(a + b)
    }

    /// `a - b` of canonical residues.
    #[inline(always)]
    pub(super) fn sub(self, a: u64, b: u64) -> u64 {
        self.wrap(a + self.q - b)
    }

    /// `a b` of canonical residues.
    ///
    /// The quotient falls short by at most 2: one for each floor.
    #[inline(always)]
    pub(super) fn mul(self, a: u64, b: u64) -> u64 {
        let product = u128::from(a) * u128::from(b);
        let top = (product >> (self.bits - 1)) as u64;
        let quotient = ((u128::from(top) * u128::from(self.barrett)) >> (self.bits + 1)) as u64;
        let rest = (product as u64).wrapping_sub(quotient.wrapping_mul(self.q));
        self.wrap(self.wrap(rest))
    }

    /// `y w` below `2 q`, for any `y` (Shoup).
    #[inline(always)]
    pub(super) fn mul_lazy(self, y: u64, factor: Factor) -> u64 {
        y.wrapping_mul(factor.w).wrapping_sub(high(y, factor.quotient).wrapping_mul(self.q))
    }

    /// Any sum of products to canonical.
    #[inline(always)]
    pub(super) fn reduce(self, x: u128) -> u64 {
        self.add(self.mul((x >> 64) as u64 % self.q, self.word), x as u64 % self.q)
    }

    /// An integer-valued float below `2^102` in magnitude to canonical.
    pub(super) fn reduce_float(self, x: f64) -> u64 {
        let bits = x.abs().to_bits();
        let magnitude = match (bits >> 52).checked_sub(1075) {
            None => x.abs() as u64 % self.q,
            // A mantissa of 53 bits times a power of two.
            Some(exponent) => {
                let mantissa = bits & ((1 << 52) - 1) | 1 << 52;
                self.mul(mantissa % self.q, (1u64 << exponent.min(63)) % self.q)
            }
        };
        if x < 0.0 { self.sub(0, magnitude) } else { magnitude }
    }
}
