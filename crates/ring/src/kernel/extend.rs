//! Constants of a basis extension, laid out for the kernels.

use num_bigint::BigUint;
use num_traits::ToPrimitive;

use crate::modulus::Modulus;

/// Constants that take residues modulo `q_0 … q_{l-1}` (product `Q`) to residues modulo
/// `p_0 … p_{k-1}`.
///
/// With `y_i = x_i (Q/q_i)^-1 mod q_i` and `v = round(sum_i y_i / q_i)`, the centred integer is
/// `x = sum_i y_i (Q/q_i) - v Q` (Halevi, Polyakov and Shoup, "An improved RNS variant of the BFV
/// scheme"). Kernels accumulate `s = sum_i y_i / q_i` as `s = y_i.mul_add(recip_i, s)`, in order of
/// `i` from 0; where the fraction of `s` is within [`ExtendTable::EDGE`] of one half they ask
/// [`ExtendTable::exact_v`].
#[derive(Debug)]
pub struct ExtendTable {
    /// The source primes `q_i`.
    pub from: Vec<Modulus>,
    /// The target primes `p_j`.
    pub to: Vec<Modulus>,
    /// `(Q/q_i)^-1 mod q_i`.
    pub inv: Vec<f64>,
    /// `(Q/q_i) mod p_j` at `j * l + i`.
    pub matrix: Vec<f64>,
    /// `-Q mod p_j`.
    pub neg_q: Vec<f64>,
    /// `matrix` and `neg_q` in `(-p_j/2, p_j/2)`.
    #[cfg(target_arch = "x86_64")]
    pub(super) matrix_centred: Vec<f64>,
    #[cfg(target_arch = "x86_64")]
    pub(super) neg_q_centred: Vec<f64>,
    cofactors: Vec<BigUint>,
    product: BigUint,
}

impl ExtendTable {
    /// Sums this close to a half are decided by integers; the float sum is off by less than `2^-40`
    /// up to 2^10 primes.
    pub const EDGE: f64 = 1.0 / (1u64 << 40) as f64;

    /// Builds the constants; the source primes must be distinct.
    pub fn new(from: &[Modulus], to: &[Modulus]) -> Self {
        let product: BigUint = from.iter().map(|m| BigUint::from(m.value())).product();
        let cofactors: Vec<BigUint> = from.iter().map(|m| &product / m.value()).collect();
        let inv = from.iter().zip(&cofactors).map(|(m, c)| m.pow(rem(c, m), m.value() - 2) as f64).collect();
        let matrix: Vec<f64> = to.iter().flat_map(|p| cofactors.iter().map(|c| rem(c, p) as f64)).collect();
        let neg_q: Vec<f64> = to.iter().map(|p| p.neg(rem(&product, p)) as f64).collect();
        #[cfg(target_arch = "x86_64")]
        let matrix_centred = {
            let rows = to.iter().zip(matrix.chunks(from.len().max(1)));
            rows.flat_map(|(p, row)| row.iter().map(|&c| centred(p, c))).collect()
        };
        #[cfg(target_arch = "x86_64")]
        let neg_q_centred = to.iter().zip(&neg_q).map(|(p, &c)| centred(p, c)).collect();
        Self {
            from: from.to_vec(),
            to: to.to_vec(),
            inv,
            matrix,
            neg_q,
            #[cfg(target_arch = "x86_64")]
            matrix_centred,
            #[cfg(target_arch = "x86_64")]
            neg_q_centred,
            cofactors,
            product,
        }
    }

    /// `Q`, the product of the source primes.
    pub fn product(&self) -> &BigUint {
        &self.product
    }

    /// `round(sum_i y_i / q_i)` decided exactly; a cold path, reached once in about `2^40` random
    /// coefficients.
    #[cold]
    pub fn exact_v(&self, y: impl Iterator<Item = f64>) -> f64 {
        let sum: BigUint = self.cofactors.iter().zip(y).map(|(c, y)| c * (y as u64)).sum();
        // Q is odd, so there are no ties: round(s/Q) = floor((2s + Q) / 2Q).
        let v: BigUint = ((sum << 1u32) + &self.product) / (&self.product << 1u32);
        v.to_f64().unwrap_or(0.0)
    }

    /// As [`Self::exact_v`], for centred digits.
    #[cfg(target_arch = "x86_64")]
    #[cold]
    pub(super) fn exact_centred_v(&self, y: impl Iterator<Item = f64> + Clone) -> f64 {
        let lifted = y.clone().filter(|&y| y < 0.0).count() as f64;
        let canonical = y.zip(&self.from).map(|(y, m)| if y < 0.0 { y + m.float() } else { y });
        self.exact_v(canonical) - lifted
    }
}

/// The representative of a canonical residue in `(-q/2, q/2)`.
#[cfg(target_arch = "x86_64")]
pub(super) fn centred(m: &Modulus, c: f64) -> f64 {
    if c > m.float() / 2.0 { c - m.float() } else { c }
}

fn rem(a: &BigUint, m: &Modulus) -> u64 {
    (a % m.value()).to_u64().unwrap_or(0)
}
