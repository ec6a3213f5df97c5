//! Twiddle tables and the order of NTT outputs.

use crate::error::{Error, Result};
use crate::modulus::Modulus;
use crate::ring::log_degree;

/// Slot `index` of a forward NTT of length `2^log_n` holds the value at `psi^e`; this returns the odd exponent `e < 2N`.
///
/// All kernels share this order; automorphisms depend on nothing else.
pub fn eval_exponent(log_n: u32, index: usize) -> usize {
    2 * reverse_bits(index, log_n) + 1
}

/// Twiddle factors of one prime and one degree.
#[derive(Debug)]
pub struct NttTable {
    pub(super) modulus: Modulus,
    pub(super) log_n: u32,
    root: u64,
    pub(super) forward: Vec<f64>,
    pub(super) inverse: Vec<f64>,
    pub(super) degree_inv: f64,
}

impl NttTable {
    /// Builds the table for polynomials modulo `X^degree + 1`; needs `q = 1 mod 2 * degree`.
    pub fn new(modulus: Modulus, degree: usize) -> Result<Self> {
        let (q, log_n) = (modulus.value(), log_degree(degree)?);
        let root = primitive_root(&modulus, degree).ok_or(Error::NotNttFriendly { modulus: q, degree })?;
        let root_inv = modulus.pow(root, 2 * degree as u64 - 1);
        let degree_inv = modulus.pow(degree as u64, q - 2) as f64;
        let [forward, inverse] = [root, root_inv].map(|w| bit_reversed_powers(&modulus, w, log_n));
        Ok(Self { modulus, log_n, root, forward, inverse, degree_inv })
    }

    /// The prime.
    pub fn modulus(&self) -> &Modulus {
        &self.modulus
    }

    /// `psi`, the primitive `2N`-th root of unity behind the table.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// `N`.
    pub fn degree(&self) -> usize {
        1 << self.log_n
    }
}

pub(super) fn reverse_bits(index: usize, bits: u32) -> usize {
    if bits == 0 { 0 } else { index.reverse_bits() >> (usize::BITS - bits) }
}

/// `w^reverse(i)` for `i` in `0..2^log_n`.
fn bit_reversed_powers(modulus: &Modulus, w: u64, log_n: u32) -> Vec<f64> {
    let mut powers = vec![0.0; 1 << log_n];
    let mut power = 1;
    for i in 0..1usize << log_n {
        powers[reverse_bits(i, log_n)] = power as f64;
        power = modulus.mul(power, w);
    }
    powers
}

/// The primitive `2 * degree`-th root of unity got from the smallest base that gives one.
fn primitive_root(modulus: &Modulus, degree: usize) -> Option<u64> {
    let (q, order) = (modulus.value(), 2 * degree as u64);
    if !(q - 1).is_multiple_of(order) {
        return None;
    }
    (2..q).map(|g| modulus.pow(g, (q - 1) / order)).find(|&root| modulus.pow(root, degree as u64) == q - 1)
}
