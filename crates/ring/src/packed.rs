//! Pairs of polynomials in as many bits a residue as their primes have: keys, which are read once
//! at every use.

use std::ops::Range;
use std::sync::Arc;

use crate::arena::fresh_bytes;
use crate::error::{Error, Result};
use crate::kernel::{GROUP, SLACK, group_bytes, pack_pair, unpack_pair};
use crate::limbs::Limbs;
use crate::modulus::Modulus;
use crate::par;
use crate::poly::{Eval, Poly, check_contains};
use crate::ring::Ring;

/// Two polynomials, eight residues of the first and eight of the second in turn, each in the bits
/// of its prime.
///
/// Both halves of a digit of a key are read together, and the time of an inner product is that of
/// reading them from memory: a residue of a 45-bit prime takes 45 bits instead of 64.
/// [`Kernel::inner_product_packed`](crate::kernel::Kernel) unpacks on the way.
///
/// ```
/// use cipherlm_ring::{Limbs, PackedPair, Poly, Ring, ntt_primes};
/// let ring = Ring::new(16, &ntt_primes(16, 40, 2, &[])?)?;
/// let one = Poly::from_i64(&ring, &Limbs::range(0..2), &[1; 16])?.into_eval();
/// let packed = PackedPair::pack([&one, &one])?;
/// assert_eq!(packed.unpack(), [one.clone(), one]);
/// # Ok::<(), cipherlm_ring::Error>(())
/// ```
pub struct PackedPair {
    ring: Arc<Ring>,
    limbs: Limbs,
    bytes: Vec<u8>,
}

impl PackedPair {
    /// Packs two polynomials over the same limbs.
    pub fn pack(pair: [&Poly<Eval>; 2]) -> Result<Self> {
        let [first, second] = pair;
        let (ring, limbs) = (first.ring().clone(), first.limbs().clone());
        ring.check_same(second.ring())?;
        check_contains("first polynomial", &limbs, "second polynomial", second.limbs())?;
        check_contains("second polynomial", second.limbs(), "first polynomial", &limbs)?;
        let mut bytes = fresh_bytes(Self::bytes_over(&ring, &limbs)?);
        let mut rest = &mut bytes[..];
        let mut jobs = Vec::with_capacity(limbs.len());
        for (position, index) in limbs.iter().enumerate() {
            let (limb, left) = rest.split_at_mut(limb_bytes(&ring, index) + SLACK);
            jobs.push((ring.modulus_at(index), [first.at(position), second.at(position)], limb));
            rest = left;
        }
        par::each(2 * ring.degree() * limbs.len(), jobs.into_iter(), |(m, pair, limb)| {
            pack_pair(m, pair, limb)
        });
        Ok(Self { ring, limbs, bytes })
    }

    /// Both polynomials again.
    pub fn unpack(&self) -> [Poly<Eval>; 2] {
        let mut pair = [0, 1].map(|_| Poly::scratch_over(&self.ring, &self.limbs));
        let [first, second] = &mut pair;
        let jobs = self.ranges().zip(first.iter_mut().zip(second.iter_mut()));
        par::each(2 * self.ring.degree() * self.limbs.len(), jobs, |(range, ((index, a), (_, b)))| {
            unpack_pair(self.ring.modulus_at(index), &self.bytes[range], [a, b]);
        });
        pair
    }

    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The limbs, as indices into the ring's pool.
    pub fn limbs(&self) -> &Limbs {
        &self.limbs
    }

    /// Both limbs at a pool index as [`Kernel::inner_product_packed`](crate::kernel::Kernel) reads
    /// them, and some bytes more.
    pub fn limb(&self, index: usize) -> Result<&[u8]> {
        let missing = || Error::MissingLimb { index, limbs: self.limbs.clone() };
        let position = self.limbs.position(index).ok_or_else(missing)?;
        let range = self.ranges().nth(position).ok_or_else(missing)?;
        Ok(&self.bytes[range.start..range.end + SLACK])
    }

    /// Where residues from `start`, a multiple of 8, lie in two packed limbs.
    pub(crate) fn offset(modulus: &Modulus, start: usize) -> usize {
        start / GROUP * group_bytes(modulus)
    }

    /// Bytes of a pair over these limbs.
    pub fn bytes_over(ring: &Ring, limbs: &Limbs) -> Result<usize> {
        ring.check_limbs("packed", limbs)?;
        Ok(limbs.iter().map(|index| limb_bytes(ring, index) + SLACK).sum())
    }

    /// Where the groups of each limb lie.
    fn ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.limbs.iter().scan(0, |start, index| {
            let range = *start..*start + limb_bytes(&self.ring, index);
            *start = range.end + SLACK;
            Some(range)
        })
    }
}

impl Clone for PackedPair {
    fn clone(&self) -> Self {
        let mut bytes = fresh_bytes(self.bytes.len());
        bytes.copy_from_slice(&self.bytes);
        Self { ring: self.ring.clone(), limbs: self.limbs.clone(), bytes }
    }
}

/// Bytes of both limbs at a pool index that is known to exist.
fn limb_bytes(ring: &Ring, index: usize) -> usize {
    ring.degree() / GROUP * group_bytes(ring.modulus_at(index))
}
