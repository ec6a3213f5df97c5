//! Seeded randomness: streams, uniform polynomials, errors and secrets.
//!
//! Every draw comes from a [`Stream`], named by a [`Seed`], a label and a number. Errors and
//! secrets are drawn in constant time and live in containers that wipe themselves; uniform
//! polynomials are public and use rejection.

use std::sync::Arc;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::bounds::log_degree;
use crate::error::{Error, Result};
use crate::limbs::Limbs;
use crate::modulus::Modulus;
use crate::poly::{Domain, Poly};
use crate::ring::Ring;
use crate::secret::SmallCoeffs;
use crate::wiped::Wiped;

/// Standard deviation of [`gaussian`].
pub const SIGMA: f64 = 3.2;

/// 32 bytes from which streams are derived; wiped on drop, never printed.
///
/// A seed that masks or makes secrets must never be published; derive the published one under
/// another label.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Seed([u8; 32]);

impl Seed {
    /// A fresh seed from the operating system.
    pub fn random() -> Result<Self> {
        let mut seed = Self([0; 32]);
        getrandom::fill(&mut seed.0).map_err(|e| Error::Entropy(e.to_string()))?;
        Ok(seed)
    }

    /// A seed with known bytes: one read from a file, or fixed in a test.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes. Store them only if the seed is a public one.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// An independent seed for one purpose; it does not give away `self`.
    pub fn derive(&self, label: &str, number: u64) -> Self {
        let mut seed = Self([0; 32]);
        let mut reader = keyed("cipherlm-ring 2026 derived seed", self, label, number);
        reader.fill(&mut seed.0);
        reader.zeroize();
        seed
    }
}

/// An endless stream of random bytes (BLAKE3 in key derivation mode, extended output); wiped on
/// drop.
pub struct Stream {
    reader: blake3::OutputReader,
    block: Zeroizing<[u8; Stream::BLOCK]>,
    used: usize,
}

impl Stream {
    const BLOCK: usize = 4096;

    /// The stream of this seed, label and number; different labels or numbers give independent
    /// streams.
    pub fn new(seed: &Seed, label: &str, number: u64) -> Self {
        let reader = keyed("cipherlm-ring 2026 stream", seed, label, number);
        Self { reader, block: Zeroizing::new([0; Self::BLOCK]), used: Self::BLOCK }
    }

    /// The next eight bytes, little-endian.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        if self.used == Self::BLOCK {
            self.reader.fill(&mut self.block[..]);
            self.used = 0;
        }
        let (word, _) = self.block[self.used..].as_chunks::<8>().0.split_first().unwrap_or((&[0; 8], &[]));
        self.used += 8;
        u64::from_le_bytes(*word)
    }

    /// The next `count` words, or as many of them as are at hand: at least one if `count` is not
    /// zero.
    fn words(&mut self, count: usize) -> &[[u8; 8]] {
        if self.used == Self::BLOCK {
            self.reader.fill(&mut self.block[..]);
            self.used = 0;
        }
        let start = self.used;
        self.used = Self::BLOCK.min(start + 8 * count);
        self.block[start..self.used].as_chunks().0
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.reader.zeroize();
    }
}

/// A public polynomial with independent uniform residues, the same in either domain.
///
/// Each limb has its own stream, named by its prime: the limbs of a polynomial over fewer primes
/// are the same limbs, and they can be made in any order or in parallel.
pub fn uniform<D: Domain>(
    ring: &Arc<Ring>,
    limbs: &Limbs,
    seed: &Seed,
    label: &str,
    number: u64,
) -> Result<Poly<D>> {
    let mut poly = Poly::scratch(ring, limbs)?;
    let purpose = seed.derive(label, number);
    poly.for_each_limb(|_, m, dst| UniformLimb::of(&purpose, m).fill(dst));
    Ok(poly)
}

/// The residues of one limb of [`uniform`], in order: for those who need them block by block.
pub struct UniformLimb {
    stream: Stream,
    modulus: u64,
    /// 2^64 modulo the modulus.
    reject: u64,
}

impl UniformLimb {
    /// The limb modulo `m` of `uniform(.., seed, label, number)`.
    pub fn new(m: &Modulus, seed: &Seed, label: &str, number: u64) -> Self {
        Self::of(&seed.derive(label, number), m)
    }

    fn of(purpose: &Seed, m: &Modulus) -> Self {
        let stream = Stream::new(purpose, "uniform limb", m.value());
        Self { stream, modulus: m.value(), reject: m.value().wrapping_neg() % m.value() }
    }

    /// The next residues.
    ///
    /// A word times the modulus, divided by 2^64 (Lemire, "Fast random integer generation in an
    /// interval"): exactly uniform, because products are rejected, once in more than 2^13 draws,
    /// that would make some residues more likely than others.
    pub fn fill(&mut self, mut dst: &mut [f64]) {
        while !dst.is_empty() {
            let mut kept = 0;
            for word in self.stream.words(dst.len()) {
                let product = u128::from(u64::from_le_bytes(*word)) * u128::from(self.modulus);
                // Written anyway and overwritten by the next draw if rejected: no branch to
                // mispredict.
                dst[kept] = (product >> 64) as i64 as f64;
                kept += usize::from(product as u64 >= self.reject);
            }
            dst = &mut dst[kept..];
        }
    }
}

/// `count` draws from the discrete Gaussian of standard deviation [`SIGMA`], in constant time.
///
/// Inversion of the cumulative distribution, to 63 bits, against the whole table for every draw.
/// The distance from the ideal distribution is below 2^-58.
pub fn gaussian(stream: &mut Stream, count: usize) -> SmallCoeffs {
    draw(count, || {
        let word = stream.next_u64();
        let (sign, uniform) = (word & 1, word >> 1);
        // The borrow of `uniform - cdf` is 0 where the draw is at least this large.
        let magnitude: u64 = GAUSSIAN_CDF.iter().map(|cdf| 1 - (uniform.wrapping_sub(*cdf) >> 63)).sum();
        select_sign(magnitude as i8, sign)
    })
}

/// `count` independent uniform draws from {-1, 0, 1}, in constant time; each symbol is within 2^-63
/// of a third.
pub fn ternary(stream: &mut Stream, count: usize) -> SmallCoeffs {
    draw(count, || ((u128::from(stream.next_u64()) * 3) >> 64) as i8 - 1)
}

/// A uniformly random vector of length `count` (a power of two) with `weight` entries of -1 or 1
/// and zeros elsewhere.
///
/// Sorts random 62-bit tags with a network, so that time and memory accesses depend on `count`
/// alone.
pub fn ternary_weight(stream: &mut Stream, count: usize, weight: usize) -> Result<SmallCoeffs> {
    log_degree(count)?;
    if weight == 0 || weight > count {
        return Err(Error::BadWeight { weight, degree: count });
    }
    let mut tagged = Wiped::<u64>::zeros(count);
    for (i, x) in tagged.iter_mut().enumerate() {
        let word = stream.next_u64();
        // Low two bits: 0 for a zero, 1 or 3 for a sign. Whether i < weight is public before the
        // sort.
        *x = (word & !3) | if i < weight { 1 | (word & 2) } else { 0 };
    }
    sort_constant_time(&mut tagged);
    let mut next = tagged.iter();
    Ok(draw(count, || {
        let low = next.next().copied().unwrap_or(0) & 3;
        (low & 1) as i8 - (low & 2) as i8
    }))
}

fn draw(count: usize, mut sample: impl FnMut() -> i8) -> SmallCoeffs {
    let mut coefficients = Wiped::<i8>::zeros(count);
    coefficients.iter_mut().for_each(|x| *x = sample());
    SmallCoeffs::new(coefficients)
}

/// `magnitude` or `-magnitude` as `sign` is 0 or 1, without a branch.
fn select_sign(magnitude: i8, sign: u64) -> i8 {
    let mask = -(sign as i8);
    (magnitude ^ mask) - mask
}

/// Batcher's bitonic network for a power-of-two length: the comparisons made do not depend on the
/// values.
fn sort_constant_time(values: &mut [u64]) {
    let n = values.len();
    let mut size = 2;
    while size <= n {
        let mut stride = size / 2;
        while stride > 0 {
            for i in (0..n).filter(|i| i & stride == 0) {
                let (a, b) = (values[i], values[i | stride]);
                let descending = (i & size != 0) as u64;
                // All ones where the pair is out of order.
                let swap = ((u64::from(a > b)) ^ descending).wrapping_neg() & (a ^ b);
                values[i] = a ^ swap;
                values[i | stride] = b ^ swap;
            }
            stride /= 2;
        }
        size *= 2;
    }
}

fn keyed(context: &str, seed: &Seed, label: &str, number: u64) -> blake3::OutputReader {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(&seed.0);
    hasher.update(&number.to_le_bytes());
    hasher.update(label.as_bytes());
    let reader = hasher.finalize_xof();
    hasher.zeroize();
    reader
}

/// `round(2^63 P(|x| <= k))` for `k = 0, 1, …`, `P(x)` proportional to `exp(-x^2 / (2 * 3.2^2))`;
/// computed with 60 digits.
#[rustfmt::skip]
const GAUSSIAN_CDF: [u64; 29] = [
    1149872835429266008, 3340023666152832878, 5231742854224525755, 6713673034491318534, 7766573326200196559,
    8445050402542556634, 8841576285654612683, 9051758678878186096, 9152802451769415979, 9196859074767746705,
    9214281206174004120, 9220529764022708441, 9222562339745873206, 9223161995634596964, 9223322447917711088,
    9223361386320111733, 9223369956674611012, 9223371667508612691, 9223371977254386295, 9223372028116140532,
    9223372035690845298, 9223372036713969870, 9223372036839307001, 9223372036853232778, 9223372036854636068,
    9223372036854764320, 9223372036854774951, 9223372036854775750, 9223372036854775804,
];
