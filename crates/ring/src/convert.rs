//! Between residues and integers: `i64`, `i128`, `f64`, double-double and big integers.

use std::sync::Arc;

use num_bigint::{BigInt, BigUint, Sign};
use num_traits::ToPrimitive;

use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::limbs::Limbs;
use crate::modulus::Modulus;
use crate::par;
use crate::poly::{Coeff, Poly, check_len};
use crate::ring::Ring;
use crate::secret::Secret;
use crate::wiped::Wiped;

/// An unevaluated sum `high + low` with `|low|` at most half a unit in the last place of `high`:
/// about 106 bits.
pub type DoubleDouble = (f64, f64);

/// From here on every `i64` is in the range of the reduction kernel.
const MIN_FAST_PRIME: u64 = 1 << 12;

/// Coefficients handled together when rebuilding integers.
const BLOCK: usize = 1024;

impl Poly<Coeff> {
    /// From `N` signed coefficients.
    pub fn from_i64(ring: &Arc<Ring>, limbs: &Limbs, coefficients: &[i64]) -> Result<Self> {
        check_len("coefficients", ring.degree(), coefficients.len())?;
        if limbs.iter().any(|i| ring.modulus(i).is_ok_and(|m| m.value() < MIN_FAST_PRIME)) {
            let residue = |m: &Modulus, x: &i64| m.reduce_i128(i128::from(*x)) as f64;
            return Self::from_integers(ring, limbs, coefficients, residue);
        }
        // They may be those of a message.
        if coefficients.iter().fold(0, |bits, x| bits | x.unsigned_abs()) >> 53 == 0 {
            let whole: Wiped<f64> = coefficients.iter().map(|&x| x as f64).collect();
            return Self::from_parts(ring, limbs, &whole, None);
        }
        // Both parts are exact as floats.
        let high: Wiped<f64> = coefficients.iter().map(|x| (x >> 32) as f64 * 32f64.exp2()).collect();
        let low: Wiped<f64> = coefficients.iter().map(|x| (x & 0xFFFF_FFFF) as f64).collect();
        Self::from_parts(ring, limbs, &high, Some(&low))
    }

    /// From `N` signed big integers.
    ///
    /// ```
    /// use cipherlm_ring::{Coeff, Poly, Ring, ntt_primes};
    /// use num_bigint::BigInt;
    /// let ring = Ring::new(16, &ntt_primes(16, 40, 3, &[])?)?;
    /// let x: Vec<BigInt> = (0..16).map(|i| (BigInt::from(1) << 100) - i).collect();
    /// assert_eq!(Poly::<Coeff>::from_bigint(&ring, &ring.limbs(), &x)?.to_bigint(), x);
    /// # Ok::<(), cipherlm_ring::Error>(())
    /// ```
    pub fn from_bigint(ring: &Arc<Ring>, limbs: &Limbs, coefficients: &[BigInt]) -> Result<Self> {
        Self::from_integers(ring, limbs, coefficients, |m, x| {
            let r = (x.magnitude() % m.value()).to_u64().unwrap_or(0);
            (if x.sign() == Sign::Minus { m.neg(r) } else { r }) as f64
        })
    }

    /// From `N` real coefficients, each rounded to the nearest integer; exact for every
    /// `|x| < 2^52 q`, `q` the smallest prime.
    pub fn from_f64(ring: &Arc<Ring>, limbs: &Limbs, coefficients: &[f64]) -> Result<Self> {
        check_len("coefficients", ring.degree(), coefficients.len())?;
        check_range(ring, limbs, coefficients.iter().copied())?;
        if coefficients.iter().fold(true, |whole, x| whole & (round_ties_even(*x) == *x)) {
            return Self::from_parts(ring, limbs, coefficients, None);
        }
        let rounded: Wiped<f64> = coefficients.iter().map(|&x| round_ties_even(x)).collect();
        Self::from_parts(ring, limbs, &rounded, None)
    }

    /// From integer-valued floats in the range of the reduction kernel, `high + low`.
    fn from_parts(ring: &Arc<Ring>, limbs: &Limbs, high: &[f64], low: Option<&[f64]>) -> Result<Self> {
        let mut poly = Self::scratch(ring, limbs)?;
        let kernel = ring.kernel();
        poly.for_each_limb(|_, m, dst| {
            (kernel.reduce)(m, dst, high);
            let mut rest = [0.0; BLOCK];
            for (dst, low) in dst.chunks_mut(BLOCK).zip(low.iter().flat_map(|low| low.chunks(BLOCK))) {
                let rest = &mut rest[..low.len()];
                (kernel.reduce)(m, rest, low);
                (kernel.add)(m, dst, rest);
            }
        });
        Ok(poly)
    }

    fn from_integers<T: Sync>(
        ring: &Arc<Ring>,
        limbs: &Limbs,
        coefficients: &[T],
        residue: impl Fn(&Modulus, &T) -> f64 + Sync + Send,
    ) -> Result<Self> {
        let mut poly = Self::scratch(ring, limbs)?;
        check_len("coefficients", ring.degree(), coefficients.len())?;
        poly.for_each_limb(|_, m, dst| {
            for (d, x) in dst.iter_mut().zip(coefficients) {
                *d = residue(m, x);
            }
        });
        Ok(poly)
    }

    /// The coefficients as integers in `(-Q/2, Q/2)`, `Q` the product of the limbs' primes: the
    /// exact reference.
    pub fn to_bigint(&self) -> Vec<BigInt> {
        let moduli: Vec<&Modulus> = self.limbs().iter().map(|i| self.ring().modulus_at(i)).collect();
        let product: BigUint = moduli.iter().map(|m| BigUint::from(m.value())).product();
        let lifts: Vec<BigUint> = moduli
            .iter()
            .map(|m| {
                let cofactor = &product / m.value();
                let residue = (&cofactor % m.value()).to_u64().unwrap_or(0);
                cofactor * m.pow(residue, m.value() - 2)
            })
            .collect();
        let limbs: Vec<&[f64]> = self.iter().map(|(_, limb)| limb).collect();
        let mut integers = vec![BigInt::ZERO; self.ring().degree()];
        let half = &product >> 1u32;
        par::each(integers.len() * limbs.len(), integers.chunks_mut(BLOCK).enumerate(), |(block, out)| {
            for (k, x) in out.iter_mut().enumerate() {
                let position = block * BLOCK + k;
                let sum: BigUint =
                    lifts.iter().zip(&limbs).map(|(lift, limb)| lift * (limb[position] as u64)).sum();
                let positive = sum % &product;
                *x = if positive > half {
                    BigInt::from(positive) - BigInt::from(product.clone())
                } else {
                    BigInt::from(positive)
                };
            }
        });
        integers
    }

    /// The centred coefficients to 53 bits: [`Poly::to_double_double`] rounded.
    pub fn to_f64(&self) -> Vec<f64> {
        self.rebuild(0.0, |(high, _)| high)
    }

    /// The centred coefficients to about 104 bits, exact below 2^100; the fast way to decode.
    ///
    /// Costs `l^2 / 2` modular products a coefficient: first drop to the few limbs that hold the
    /// message. The time depends on the values, so it is for those who may learn them.
    pub fn to_double_double(&self) -> Vec<DoubleDouble> {
        self.rebuild((0.0, 0.0), |x| x)
    }

    /// One `convert`ed integer a coefficient. The mixed-radix digits on the way are wiped, as the
    /// polynomial may be secret.
    fn rebuild<T: Clone + Send>(&self, zero: T, convert: impl Fn(DoubleDouble) -> T + Sync + Send) -> Vec<T> {
        let garner = Garner::new(self);
        let limbs: Vec<&[f64]> = self.iter().map(|(_, limb)| limb).collect();
        let mut out = vec![zero; self.ring().degree()];
        par::each(out.len() * limbs.len(), out.chunks_mut(BLOCK).enumerate(), |(block, out)| {
            let here = block * BLOCK..block * BLOCK + out.len();
            let digits = garner.digits(limbs.iter().map(|limb| &limb[here.clone()]), out.len());
            let mut digits: Vec<&[f64]> = digits.chunks(out.len()).collect();
            // Messages are small: their upper digits are zero.
            while digits.len() > 1 && digits.last().is_some_and(|top| top.iter().all(|&d| d == 0.0)) {
                digits.pop();
            }
            for (k, x) in out.iter_mut().enumerate() {
                *x = convert(garner.evaluate(&digits, k));
            }
        });
        out
    }
}

impl Secret<Coeff> {
    /// As [`Poly::to_f64`], in memory that is wiped on drop.
    pub fn to_f64(&self) -> Wiped<f64> {
        Wiped::new(self.expose().to_f64())
    }

    /// As [`Poly::to_double_double`], in memory that is wiped on drop.
    pub fn to_double_double(&self) -> Wiped<DoubleDouble> {
        Wiped::new(self.expose().to_double_double())
    }
}

/// Centred mixed-radix digits: `x = d_0 + q_0 (d_1 + q_1 (d_2 + …))`, `|d_i| < q_i / 2`.
///
/// Centred digits cover exactly `(-Q/2, Q/2)`, and the digits above a small `x` are zero, so `x`
/// comes out to full relative precision.
struct Garner {
    kernel: &'static Kernel,
    moduli: Vec<Modulus>,
    /// `q_j^-1 mod q_i` at `[i][j]`, `j < i`.
    inverses: Vec<Vec<f64>>,
}

impl Garner {
    fn new(poly: &Poly<Coeff>) -> Self {
        let moduli: Vec<Modulus> = poly.limbs().iter().map(|i| *poly.ring().modulus_at(i)).collect();
        let inverse = |m: &Modulus, of: &Modulus| m.pow(of.value(), m.value() - 2) as f64;
        let inverses = moduli
            .iter()
            .enumerate()
            .map(|(i, m)| moduli[..i].iter().map(|below| inverse(m, below)).collect())
            .collect();
        Self { kernel: poly.ring().kernel(), moduli, inverses }
    }

    /// The digits of `count` coefficients, all of the lowest prime first.
    fn digits<'a>(&self, residues: impl Iterator<Item = &'a [f64]>, count: usize) -> Wiped<f64> {
        let mut digits = Wiped::<f64>::zeros(self.moduli.len() * count);
        let mut work = Wiped::<f64>::zeros(count);
        for (i, (residues, m)) in residues.zip(&self.moduli).enumerate() {
            let (below, rest) = digits.split_at_mut(i * count);
            let t = &mut rest[..count];
            t.copy_from_slice(residues);
            for (digit, &inverse) in below.chunks(count).zip(&self.inverses[i]) {
                (self.kernel.reduce)(m, &mut work, digit);
                (self.kernel.rsub_mul_scalar)(m, &mut work, t, inverse);
                t.copy_from_slice(&work);
            }
            let half = (m.value() / 2) as f64;
            t.iter_mut().for_each(|t| *t -= if *t > half { m.float() } else { 0.0 });
        }
        digits
    }

    /// The integer of coefficient `k`.
    fn evaluate(&self, digits: &[&[f64]], k: usize) -> DoubleDouble {
        let used = digits.iter().rposition(|digit| digit[k] != 0.0).map_or(0, |top| top + 1);
        match used {
            0 => return (0.0, 0.0),
            1 => return (digits[0][k], 0.0),
            2 => {
                // At most 100 bits.
                let [low, high] = [digits[0][k] as i128, digits[1][k] as i128];
                let x = low + high * i128::from(self.moduli[0].value());
                let rounded = x as f64;
                return (rounded, (x - rounded as i128) as f64);
            }
            _ => {}
        }
        let mut sum = (0.0, 0.0);
        for (m, digit) in self.moduli.iter().zip(digits).take(used).rev() {
            let high: f64 = sum.0 * m.float();
            let low = sum.1 * m.float() + f64::mul_add(sum.0, m.float(), -high);
            sum = two_sum(high, digit[k]);
            sum = two_sum(sum.0, sum.1 + low);
        }
        sum
    }
}

/// The nearest integer, the even one of two: [`f64::round_ties_even`], which without SSE4.1 is a
/// call for each number.
#[inline]
pub fn round_ties_even(x: f64) -> f64 {
    // At 2^52 and above a float is an integer.
    const WHOLE: f64 = (1u64 << 52) as f64;
    let shift = WHOLE.copysign(x);
    if x.abs() < WHOLE { (x + shift) - shift } else { x }
}

/// `a + b` and its rounding error (Knuth).
fn two_sum(a: f64, b: f64) -> DoubleDouble {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

fn check_range(ring: &Ring, limbs: &Limbs, coefficients: impl Iterator<Item = f64> + Clone) -> Result<()> {
    ring.check_limbs("polynomial", limbs)?;
    let smallest = limbs.iter().map(|i| ring.modulus_at(i).value()).min().unwrap_or(2);
    let max_bits = 52 + smallest.ilog2();
    let bound = f64::from(max_bits).exp2();
    // No early end: a vector at a time.
    if coefficients.clone().fold(true, |fine, x| fine & (x.abs() < bound)) {
        return Ok(());
    }
    match coefficients.enumerate().find(|(_, x)| x.is_nan() || x.abs() >= bound) {
        Some((position, value)) => Err(Error::CoefficientOutOfRange { position, value, max_bits }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::round_ties_even;

    #[test]
    fn rounding_is_that_of_the_standard_library() {
        let halves = (-20..20).map(|k| f64::from(k) / 4.0);
        let edges = [50, 51, 52, 53, 61].into_iter().flat_map(|bits| {
            let edge = (1u64 << bits) as f64;
            [edge - 0.5, edge - 0.25, edge, edge + 0.5, edge + 1.0, -edge + 0.5, -edge - 1.5]
        });
        for x in halves.chain(edges).chain([f64::INFINITY, f64::MIN_POSITIVE, f64::MAX, 0.49999999999999994])
        {
            assert_eq!(round_ties_even(x), x.round_ties_even(), "{x:e}");
        }
        assert!(round_ties_even(f64::NAN).is_nan());
    }
}
