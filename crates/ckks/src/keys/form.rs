//! How switching keys lie in memory.

use cipherlm_ring::sample::UniformLimb;
use cipherlm_ring::{Eval, Limbs, Poly, Seed};
use std::ops::Range;

use super::switching::{PUBLIC_HALF, public_half};
use crate::wire::PackedPoly;
use crate::{Error, Params};

/// Memory against time: how the residues of a switching key are held. Results do not depend on it, bit by bit.
///
/// Set once for all keys where they are made or loaded: [`SecretKey::key_set_in`](crate::SecretKey::key_set_in),
/// [`KeySet::into_form`](crate::KeySet::into_form), [`KeyStore::with_form`](crate::KeyStore::with_form).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyForm {
    /// Ready for arithmetic: 16 bytes for a pair of residues.
    #[default]
    Expanded,
    /// 50 bits a residue, 12.5 bytes a pair; unpacked block by block into the cache while the key is used.
    Packed,
    /// One half packed and the uniform half made again from its seed at every use: 6.25 bytes a pair, as in a file.
    Seeded,
}

/// The digits of a key: pairs `[b_j, a_j]`.
#[derive(Clone)]
pub(crate) enum KeyBody {
    Expanded(Vec<[Poly<Eval>; 2]>),
    Packed { b: Vec<PackedPoly>, a: Vec<PackedPoly> },
    Seeded { b: Vec<PackedPoly> },
}

impl KeyBody {
    pub(crate) fn form(&self) -> KeyForm {
        match self {
            Self::Expanded(_) => KeyForm::Expanded,
            Self::Packed { .. } => KeyForm::Packed,
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
                let pairs = digits.map(|pair| pair.map(|pair| pair.each_ref().map(PackedPoly::pack)));
                let (b, a) = pairs.collect::<Result<Vec<_>, _>>()?.into_iter().map(|[b, a]| (b, a)).unzip();
                Ok(Self::Packed { b, a })
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
        let publics = (0..b.len()).map(|digit| public_half(params, limbs, seed, digit));
        match form {
            KeyForm::Seeded => Ok(Self::Seeded { b }),
            KeyForm::Packed => {
                let a = publics.map(|a| a.map(|a| PackedPoly::pack(&a))).collect::<Result<_, _>>()?;
                Ok(Self::Packed { b, a })
            }
            KeyForm::Expanded => {
                let digits = b.iter().zip(publics).map(|(packed, a)| {
                    let mut b = Poly::scratch(params.ring(), limbs)?;
                    b.iter_mut().enumerate().for_each(|(position, (_, limb))| {
                        packed.unpack(position, &(0..limb.len()), limb);
                    });
                    Ok([b, a?])
                });
                Ok(Self::Expanded(digits.collect::<Result<_, Error>>()?))
            }
        }
    }

    /// The packed halves `b_j`.
    pub(crate) fn packed(&self) -> Vec<PackedPoly> {
        match self {
            Self::Expanded(digits) => digits.iter().map(|[b, _]| PackedPoly::pack(b)).collect(),
            Self::Packed { b, .. } | Self::Seeded { b } => b.clone(),
        }
    }
}

/// One limb of the first digits of a key, read block after block in whatever form the key is.
pub(crate) enum KeyLimb<'a> {
    Expanded(Vec<[&'a [f64]; 2]>),
    Packed { position: usize, b: &'a [PackedPoly], a: &'a [PackedPoly] },
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
            KeyBody::Packed { b, a } => Self::Packed { position, b, a },
            KeyBody::Seeded { b } => {
                let (seed, modulus) = (Seed::from_bytes(*seed), params.ring().modulus(limb)?);
                let stream = |digit| UniformLimb::new(modulus, &seed, PUBLIC_HALF, digit as u64);
                Self::Seeded { position, b, a: (0..count).map(stream).collect() }
            }
        })
    }

    /// Room that [`KeyLimb::next`] needs for a block.
    pub(crate) fn tile(&self, count: usize, block: usize) -> usize {
        if matches!(self, Self::Expanded(_)) { 0 } else { 2 * count * block }
    }

    /// The next block, `range`, of every digit: all `b_j` and all `a_j`. What has to be unpacked is put in `tile`.
    pub(crate) fn next<'b>(&'b mut self, range: &Range<usize>, tile: &'b mut [f64]) -> [Vec<&'b [f64]>; 2] {
        let length = range.len();
        match self {
            Self::Expanded(pairs) => [0, 1].map(|half| pairs.iter().map(|pair| &pair[half][range.clone()]).collect()),
            Self::Packed { position, b, a } => {
                for (digit, pair) in tile.chunks_exact_mut(2 * length).enumerate() {
                    let (first, second) = pair.split_at_mut(length);
                    b[digit].unpack(*position, range, first);
                    a[digit].unpack(*position, range, second);
                }
                halves(tile, length)
            }
            Self::Seeded { position, b, a } => {
                for ((digit, pair), stream) in tile.chunks_exact_mut(2 * length).enumerate().zip(a) {
                    let (first, second) = pair.split_at_mut(length);
                    b[digit].unpack(*position, range, first);
                    stream.fill(second);
                }
                halves(tile, length)
            }
        }
    }
}

fn halves(tile: &[f64], length: usize) -> [Vec<&[f64]>; 2] {
    [0, 1].map(|half| tile.chunks_exact(length).skip(half).step_by(2).collect())
}
