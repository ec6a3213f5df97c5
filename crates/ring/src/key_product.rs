//! The inner product of key switching: digits of polynomials with a key, in whatever form the key
//! is held.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::modulus::Modulus;
use crate::packed::PackedPair;
use crate::par;
use crate::poly::{Eval, Poly, check_contains, check_len};
use crate::ring::Ring;

/// Residues handled together: the accumulators stay in the L1 cache, and the key of a block in L2
/// if it is read again.
const BLOCK: usize = 2048;

/// One limb of both halves of an accumulator.
type Pair<'a> = [&'a mut [f64]; 2];

/// One limb of the first digits of a key, read as it is or made block after block.
pub enum KeyLimb<'a> {
    /// The residues of both halves of each digit.
    Expanded(Vec<[&'a [f64]; 2]>),
    /// Both halves of each digit as [`PackedPair::limb`] has them.
    Packed(Vec<&'a [u8]>),
    /// So many digits whose residues are written when they are needed.
    Made {
        /// How many there are.
        count: usize,
        /// Writes a range of both halves of a digit. For each digit the ranges follow each other
        /// from 0 on.
        fill: Box<KeyFill<'a>>,
    },
}

/// `(digit, range, both halves)`; see [`KeyLimb::Made`].
pub type KeyFill<'a> = dyn FnMut(usize, &Range<usize>, [&mut [f64]; 2]) + Send + 'a;

/// A key as [`key_product`] reads it: digits of two polynomials each.
///
/// Implemented for keys in memory, expanded or packed; other forms say how to get at a limb.
pub trait KeyDigits {
    /// Number of digits.
    fn count(&self) -> usize;

    /// The limb at a pool index of `ring` of the first `count` digits.
    ///
    /// # Errors
    /// If the key is of another ring, or has no such limb.
    fn limb(&self, ring: &Ring, index: usize, count: usize) -> Result<KeyLimb<'_>>;
}

impl KeyDigits for [[Poly<Eval>; 2]] {
    fn count(&self) -> usize {
        self.len()
    }

    fn limb(&self, ring: &Ring, index: usize, count: usize) -> Result<KeyLimb<'_>> {
        let pairs = self.iter().take(count).map(|[b, a]| {
            ring.check_same(b.ring())?;
            ring.check_same(a.ring())?;
            Ok([b.limb(index)?, a.limb(index)?])
        });
        Ok(KeyLimb::Expanded(pairs.collect::<Result<_>>()?))
    }
}

impl KeyDigits for [PackedPair] {
    fn count(&self) -> usize {
        self.len()
    }

    fn limb(&self, ring: &Ring, index: usize, count: usize) -> Result<KeyLimb<'_>> {
        let limbs = self.iter().take(count).map(|pair| {
            ring.check_same(pair.ring())?;
            pair.limb(index)
        });
        Ok(KeyLimb::Packed(limbs.collect::<Result<_>>()?))
    }
}

/// `accs[i] = sum_d digits[i][d] * key[d]` for both halves of the key, over the limbs of the
/// accumulators, which are all alike; each block of the key is read, and unpacked or made, once for
/// all of them.
///
/// Digits and keys may have more limbs than the accumulators, and keys more digits than there are
/// digits.
///
/// # Errors
/// Other rings, limbs or numbers of digits than these; nothing is computed then.
pub fn key_product<K: KeyDigits + ?Sized>(
    accs: &mut [[&mut Poly<Eval>; 2]],
    digits: &[&[Poly<Eval>]],
    key: &K,
) -> Result<()> {
    check_len("lists of digits, one per accumulator", accs.len(), digits.len())?;
    let Some([first, _]) = accs.first() else { return Ok(()) };
    let (ring, limbs) = (first.ring().clone(), first.limbs().clone());
    for poly in accs.iter().flatten() {
        ring.check_same(poly.ring())?;
        check_contains("accumulator", &limbs, "other accumulator", poly.limbs())?;
        check_contains("accumulator", poly.limbs(), "other accumulator", &limbs)?;
    }
    let count = digits.first().map_or(0, |list| list.len());
    for list in digits {
        check_len("digits of each operand", count, list.len())?;
        for digit in *list {
            ring.check_same(digit.ring())?;
            check_contains("accumulator", &limbs, "digit", digit.limbs())?;
        }
    }
    if key.count() < count {
        return Err(Error::LengthMismatch { what: "digits in the key", expected: count, found: key.count() });
    }
    let mut jobs = Vec::with_capacity(limbs.len());
    for index in limbs.iter() {
        let operands = digits
            .iter()
            .map(|list| list.iter().map(|digit| digit.limb(index)).collect::<Result<Vec<_>>>())
            .collect::<Result<Vec<_>>>()?;
        jobs.push((
            ring.modulus_at(index),
            key.limb(&ring, index, count)?,
            operands,
            Vec::with_capacity(accs.len()),
        ));
    }
    for [acc0, acc1] in accs.iter_mut() {
        for ((job, (_, limb0)), (_, limb1)) in jobs.iter_mut().zip(acc0.iter_mut()).zip(acc1.iter_mut()) {
            job.3.push([limb0, limb1]);
        }
    }
    let kernel = ring.kernel();
    par::each(ring.degree() * limbs.len(), jobs.into_iter(), |(modulus, key, operands, mut outputs)| {
        key.product(kernel, modulus, &mut outputs, &operands);
    });
    Ok(())
}

impl KeyLimb<'_> {
    /// `outputs[i] = sum_d operands[i][d] * key[d]` for both halves, on one limb of `modulus`; the
    /// shortest slice decides how many residues there are.
    pub fn product(
        mut self,
        kernel: &Kernel,
        modulus: &Modulus,
        outputs: &mut [Pair<'_>],
        operands: &[Vec<&[f64]>],
    ) {
        let lengths =
            outputs.iter().flatten().map(|x| x.len()).chain(operands.iter().flatten().map(|x| x.len()));
        let length = lengths.min().unwrap_or(0);
        let single = matches!(self, Self::Packed(_)) && outputs.len() == 1;
        let block = if single { length } else { BLOCK.min(length) };
        let mut tile = match self {
            Self::Made { count, .. } => vec![0.0; 2 * count * block],
            _ => Vec::new(),
        };
        for start in (0..length).step_by(block.max(1)) {
            let range = start..length.min(start + block);
            self.block(kernel, modulus, &range, &mut tile, outputs, operands);
        }
    }

    /// One block of residues. What has to be made first is put in `tile`.
    fn block(
        &mut self,
        kernel: &Kernel,
        modulus: &Modulus,
        range: &Range<usize>,
        tile: &mut [f64],
        outputs: &mut [Pair<'_>],
        operands: &[Vec<&[f64]>],
    ) {
        let length = range.len();
        let [key0, key1]: [Vec<&[f64]>; 2] = match self {
            Self::Packed(keys) => {
                let offset = PackedPair::offset(modulus, range.start);
                let keys: Vec<&[u8]> = keys.iter().map(|key| &key[offset.min(key.len())..]).collect();
                for ([out0, out1], digits) in outputs.iter_mut().zip(operands) {
                    let (out0, out1) = (&mut out0[range.clone()], &mut out1[range.clone()]);
                    (kernel.inner_product_packed)(modulus, out0, out1, &cut(digits, range), &keys);
                }
                return;
            }
            Self::Expanded(pairs) => {
                [0, 1].map(|half| pairs.iter().map(|pair| &pair[half][range.clone()]).collect())
            }
            Self::Made { count, fill } => {
                let tile = &mut tile[..2 * *count * length];
                for (digit, pair) in tile.chunks_exact_mut(2 * length).enumerate() {
                    let (first, second) = pair.split_at_mut(length);
                    fill(digit, range, [first, second]);
                }
                [0, 1].map(|half| tile.chunks_exact(length).skip(half).step_by(2).collect())
            }
        };
        for ([out0, out1], digits) in outputs.iter_mut().zip(operands) {
            let (out0, out1) = (&mut out0[range.clone()], &mut out1[range.clone()]);
            out0.fill(0.0);
            out1.fill(0.0);
            (kernel.inner_product2)(modulus, out0, out1, &cut(digits, range), &key0, &key1);
        }
    }
}

fn cut<'a>(slices: &[&'a [f64]], range: &Range<usize>) -> Vec<&'a [f64]> {
    slices.iter().map(|slice| &slice[range.clone()]).collect()
}
