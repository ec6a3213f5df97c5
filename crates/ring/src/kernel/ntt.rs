//! Twiddle tables and the order of NTT outputs.

use std::sync::OnceLock;

use crate::bounds::log_degree;
use crate::error::{Error, Result};
use crate::modulus::Modulus;

#[cfg(target_arch = "x86_64")]
use super::ifma::table::WordTwiddles;
use super::integer::table::IntegerTwiddles;

/// Slot `index` of a forward NTT of length `2^log_n` holds the value at `psi^e`; this returns the
/// odd exponent `e < 2N`.
///
/// All kernels share this order; automorphisms depend on nothing else. It is bit-reversed order
/// with each block of 16 slots transposed as a 4 x 4 matrix (what vector code gets for free); runs
/// of `2^k >= 16` slots from a multiple of `2^k` hold the exponents of one residue class modulo
/// `2^(log_n + 1 - k)`.
pub fn eval_exponent(log_n: u32, index: usize) -> usize {
    2 * reverse_bits(transpose16(index), log_n) + 1
}

/// Twiddle factors of one prime and one degree, made by the first transform of each kernel: a ring
/// in which nothing is computed has none.
#[derive(Debug)]
pub struct NttTable {
    pub(super) modulus: Modulus,
    pub(super) log_n: u32,
    root: u64,
    pub(super) degree_inv: f64,
    #[cfg(target_arch = "x86_64")]
    floats: OnceLock<[Twiddles; 2]>,
    #[cfg(target_arch = "x86_64")]
    words: OnceLock<[WordTwiddles; 2]>,
    integers: OnceLock<[IntegerTwiddles; 2]>,
    reference: OnceLock<[Vec<f64>; 2]>,
}

impl NttTable {
    /// A table for polynomials modulo `X^degree + 1`; needs `q = 1 mod 2 * degree`.
    pub fn new(modulus: Modulus, degree: usize) -> Result<Self> {
        let (q, log_n) = (modulus.value(), log_degree(degree)?);
        let root = primitive_root(&modulus, degree).ok_or(Error::NotNttFriendly { modulus: q, degree })?;
        let degree_inv = modulus.pow(degree as u64, q - 2) as f64;
        Ok(Self {
            modulus,
            log_n,
            root,
            degree_inv,
            #[cfg(target_arch = "x86_64")]
            floats: OnceLock::new(),
            #[cfg(target_arch = "x86_64")]
            words: OnceLock::new(),
            integers: OnceLock::new(),
            reference: OnceLock::new(),
        })
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

    /// Powers of `psi` and of `psi^-1` in bit-reversed order, for the scalar kernel.
    pub(super) fn reference(&self) -> &[Vec<f64>; 2] {
        self.reference.get_or_init(|| self.powers())
    }

    /// Factors of the forward and the inverse transform for vectors of floats.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn floats(&self) -> &[Twiddles; 2] {
        self.floats.get_or_init(|| self.powers().map(|powers| Twiddles::new(&self.modulus, &powers)))
    }

    /// Factors of the forward and the inverse transform for vectors of words.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn words(&self) -> &[WordTwiddles; 2] {
        self.words.get_or_init(|| self.powers().map(|powers| WordTwiddles::new(&self.modulus, &powers)))
    }

    /// Factors of the forward and the inverse transform for integers.
    pub(super) fn integers(&self) -> &[IntegerTwiddles; 2] {
        self.integers.get_or_init(|| self.powers().map(|powers| IntegerTwiddles::new(&self.modulus, &powers)))
    }

    fn powers(&self) -> [Vec<f64>; 2] {
        [self.root, inverse_root(&self.modulus, self.root)]
            .map(|w| bit_reversed_powers(&self.modulus, w, self.log_n))
    }
}

/// Twiddle factors of one direction, laid out for the vector kernels, centred in `(-q/2, q/2)`.
///
/// With `w[i] = psi^reverse(i)`, a butterfly over blocks `i` of `m` has the factors `w[m + i]`
/// (first level), then `w[2 (m + i)]` and `w[2 (m + i) + 1]`.
#[cfg(target_arch = "x86_64")]
#[derive(Debug)]
pub(super) struct Twiddles {
    /// Levels of distance 16 and more, in order of `m`: the factors of each butterfly, then their
    /// quotients by `q`. An odd number of levels starts with one of radix 2 (one factor and its
    /// quotient).
    passes: Vec<f64>,
    /// The last four levels, 16 entries per block of 16 elements: the three factors shared by the
    /// block and a pad, then 4 each of the first level's and the second level's two factors, one
    /// per row of the block.
    tail: Vec<Line>,
}

/// A cache line, so that vector loads do not straddle two.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f64; 8]);

#[cfg(target_arch = "x86_64")]
impl Twiddles {
    fn new(modulus: &Modulus, powers: &[f64]) -> Self {
        let (n, q) = (powers.len(), modulus.float());
        let centred = |i: usize| if powers[i] > q / 2.0 { powers[i] - q } else { powers[i] };
        let butterfly = |i: usize| [centred(i), centred(2 * i), centred(2 * i + 1)];
        let mut passes = Vec::with_capacity(n / 8);
        let mut m = 1;
        if n.trailing_zeros() % 2 == 1 {
            passes.extend([centred(1), centred(1) / q]);
            m = 2;
        }
        while 64 * m <= n {
            for i in m..2 * m {
                passes.extend(butterfly(i));
                passes.extend(butterfly(i).map(|w| w / q));
            }
            m *= 4;
        }
        let mut tail = Vec::with_capacity(n / 8);
        for i in m..2 * m {
            let [w1, w2, w3] = butterfly(i);
            let [a, b, c, d] = [0, 1, 2, 3].map(|row| butterfly(4 * i + row));
            tail.push(Line([w1, w2, w3, 0.0, a[0], b[0], c[0], d[0]]));
            tail.push(Line([a[1], b[1], c[1], d[1], a[2], b[2], c[2], d[2]]));
        }
        Self { passes, tail }
    }

    /// The factors of the pass over `m` blocks, six per block (two of the one block of a radix-2
    /// pass).
    #[inline(always)]
    pub(super) fn pass(&self, m: usize) -> *const f64 {
        self.passes[2 * (m - 1)..].as_ptr()
    }

    /// The factors of the last four levels from block `block` of 16 on.
    #[inline(always)]
    pub(super) fn tail(&self, block: usize) -> *const f64 {
        self.tail[2 * block..].as_ptr().cast()
    }
}

/// Transposes the low four bits of an index as coordinates of a 4 x 4 matrix.
fn transpose16(index: usize) -> usize {
    index & !15 | (index & 3) << 2 | index >> 2 & 3
}

/// Between bit-reversed order and that of [`eval_exponent`].
#[inline(always)]
pub(super) fn transpose_blocks(a: &mut [f64]) {
    for block in a.chunks_exact_mut(16) {
        for i in 0..16 {
            let j = transpose16(i);
            if i < j {
                block.swap(i, j);
            }
        }
    }
}

/// The low `bits` bits of an index in reverse; all of them where it has not so many.
fn reverse_bits(index: usize, bits: u32) -> usize {
    index.reverse_bits().checked_shr(usize::BITS.saturating_sub(bits)).unwrap_or(0)
}

fn inverse_root(modulus: &Modulus, root: u64) -> u64 {
    modulus.pow(root, modulus.value() - 2)
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
