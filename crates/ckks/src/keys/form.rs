//! How switching keys lie in memory.

use cipherlm_ring::sample::UniformLimb;
use cipherlm_ring::{Eval, Kernel, Limbs, Modulus, PackedPair, Poly, Seed};
use std::ops::Range;

use super::switching::{PUBLIC_HALF, public_half};
use crate::wire::PackedPoly;
use crate::{Error, Params};

/// Memory against time: how the residues of a switching key are held. Results do not depend on it, bit by bit.
///
/// Set once for all keys where they are made or loaded: [`SecretKey::key_set_in`](crate::SecretKey::key_set_in),
/// [`KeySet::into_form`](crate::KeySet::into_form), [`KeyStore::with_form`](crate::KeyStore::with_form).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyForm {
    /// Ready for arithmetic: 16 bytes for a pair of residues.
    Expanded,
    /// In the bits of each prime, both halves of a digit side by side: 11.25 bytes a pair for a prime of 45 bits. Unpacked on
    /// the way, which is faster than reading more bytes where the CPU does it well; see [`KeyForm::fastest`].
    Packed,
    /// One half packed and the uniform half made again from its seed at every use: 6.25 bytes a pair, as in a file.
    Seeded,
}

impl KeyForm {
    /// The form in which keys are used fastest on this CPU, which is what they have unless another is asked for:
    /// [`KeyForm::Packed`] with AVX-512 IFMA and VBMI, [`KeyForm::Expanded`] otherwise.
    pub fn fastest(params: &Params) -> Self {
        if params.ring().kernel().packed_is_faster { Self::Packed } else { Self::Expanded }
    }
}

/// The digits of a key: pairs `[b_j, a_j]`.
#[derive(Clone)]
pub(crate) enum KeyBody {
    Expanded(Vec<[Poly<Eval>; 2]>),
    Packed(Vec<PackedPair>),
    Seeded { b: Vec<PackedPoly> },
}

impl KeyBody {
    pub(crate) fn form(&self) -> KeyForm {
        match self {
            Self::Expanded(_) => KeyForm::Expanded,
            Self::Packed(_) => KeyForm::Packed,
            Self::Seeded { .. } => KeyForm::Seeded,
        }
    }

    /// From digits, one after the other, so that at most one is ever expanded.
    pub(crate) fn collect(
        form: KeyForm,
        digits: impl Iterator<Item = Result<[Poly<Eval>; 2], Error>>,
    ) -> Result<Self, Error> {
        match form {
            KeyForm::Expanded => Ok(Self::Expanded(digits.collect::<Result<_, _>>()?)),
            KeyForm::Packed => {
                let pairs = digits.map(|pair| Ok(PackedPair::pack(pair?.each_ref())?));
                Ok(Self::Packed(pairs.collect::<Result<_, Error>>()?))
            }
            KeyForm::Seeded => {
                let b = digits.map(|pair| pair.map(|[b, _]| PackedPoly::pack(&b)));
                Ok(Self::Seeded { b: b.collect::<Result<_, _>>()? })
            }
        }
    }

    /// From the packed halves `b_j` of a file and the seed of the others.
    pub(crate) fn from_packed(
        form: KeyForm,
        params: &Params,
        limbs: &Limbs,
        seed: &[u8; 32],
        b: Vec<PackedPoly>,
    ) -> Result<Self, Error> {
        if form == KeyForm::Seeded {
            return Ok(Self::Seeded { b });
        }
        let digits = b.iter().enumerate().map(|(digit, packed)| {
            let mut b = Poly::scratch(params.ring(), limbs)?;
            b.iter_mut().enumerate().for_each(|(position, (_, limb))| {
                packed.unpack(position, &(0..limb.len()), limb);
            });
            Ok([b, public_half(params, limbs, seed, digit)?])
        });
        Self::collect(form, digits)
    }

    /// The halves `b_j` as in a file.
    pub(crate) fn packed(&self) -> Vec<PackedPoly> {
        match self {
            Self::Expanded(digits) => digits.iter().map(|[b, _]| PackedPoly::pack(b)).collect(),
            Self::Packed(digits) => digits.iter().map(|pair| PackedPoly::pack(&pair.unpack()[0])).collect(),
            Self::Seeded { b } => b.clone(),
        }
    }
}

/// One limb of the first digits of a key, read as it is or block after block.
pub(crate) enum KeyLimb<'a> {
    Expanded(Vec<[&'a [f64]; 2]>),
    Packed(Vec<&'a [u8]>),
    Seeded { position: usize, b: &'a [PackedPoly], a: Vec<UniformLimb> },
}

impl<'a> KeyLimb<'a> {
    /// Limb `limb` of the first `count` digits; `seed` is that of the key.
    pub(crate) fn new(
        params: &Params,
        body: &'a KeyBody,
        seed: &[u8; 32],
        limbs: &Limbs,
        limb: usize,
        count: usize,
    ) -> Result<Self, Error> {
        let missing = cipherlm_ring::Error::LimbOutOfRange { index: limb, count: limbs.len() };
        let position = limbs.position(limb).ok_or(missing)?;
        Ok(match body {
            KeyBody::Expanded(pairs) => {
                let pairs = pairs.iter().take(count).map(|[b, a]| Ok([b.limb(limb)?, a.limb(limb)?]));
                Self::Expanded(pairs.collect::<Result<_, Error>>()?)
            }
            KeyBody::Packed(pairs) => {
                let limbs = pairs.iter().take(count).map(|pair| Ok(pair.limb(limb)?));
                Self::Packed(limbs.collect::<Result<_, Error>>()?)
            }
            KeyBody::Seeded { b } => {
                let (seed, modulus) = (Seed::from_bytes(*seed), params.ring().modulus(limb)?);
                let stream = |digit| UniformLimb::new(modulus, &seed, PUBLIC_HALF, digit as u64);
                Self::Seeded { position, b, a: (0..count).map(stream).collect() }
            }
        })
    }

    /// Residues to handle together: the accumulators stay in the first-level cache, and the key of a block in the second if it
    /// is read again.
    pub(crate) fn block(&self, operands: usize, degree: usize) -> usize {
        const BLOCK: usize = 2048;
        if matches!(self, Self::Packed(_)) && operands == 1 { degree } else { BLOCK.min(degree) }
    }

    /// Room that [`KeyLimb::product`] needs for a block.
    pub(crate) fn tile(&self, count: usize, block: usize) -> usize {
        if matches!(self, Self::Seeded { .. }) { 2 * count * block } else { 0 }
    }

    /// The product of the next block, `range`, with each list of digits, in order of the lists; blocks follow each other from
    /// the first on. What has to be unpacked first is put in `tile`.
    pub(crate) fn product(
        &mut self,
        kernel: &Kernel,
        modulus: &Modulus,
        range: &Range<usize>,
        tile: &mut [f64],
        outputs: &mut [[&mut [f64]; 2]],
        operands: &[Vec<&[f64]>],
    ) {
        let length = range.len();
        let [key0, key1]: [Vec<&[f64]>; 2] = match self {
            Self::Packed(keys) => {
                let keys: Vec<&[u8]> =
                    keys.iter().map(|key| &key[PackedPair::offset(modulus, range.start)..]).collect();
                for ([out0, out1], digits) in outputs.iter_mut().zip(operands) {
                    let (out0, out1) = (&mut out0[range.clone()], &mut out1[range.clone()]);
                    (kernel.inner_product_packed)(modulus, out0, out1, &cut(digits, range), &keys);
                }
                return;
            }
            Self::Expanded(pairs) => [0, 1].map(|half| pairs.iter().map(|pair| &pair[half][range.clone()]).collect()),
            Self::Seeded { position, b, a } => {
                for ((digit, pair), stream) in tile.chunks_exact_mut(2 * length).enumerate().zip(a) {
                    let (first, second) = pair.split_at_mut(length);
                    b[digit].unpack(*position, range, first);
                    stream.fill(second);
                }
                [0, 1].map(|half| tile.chunks_exact(length).skip(half).step_by(2).collect())
            }
        };
        for ([out0, out1], digits) in outputs.iter_mut().zip(operands) {
            let (out0, out1) = (&mut out0[range.clone()], &mut out1[range.clone()]);
            out0.fill(0.0);
            out1.fill(0.0);
            (kernel.inner_product2)(modulus, out0, out1, &cut(digits, range), &key0, &key1, None);
        }
    }
}

fn cut<'a>(slices: &[&'a [f64]], range: &Range<usize>) -> Vec<&'a [f64]> {
    slices.iter().map(|slice| &slice[range.clone()]).collect()
}
