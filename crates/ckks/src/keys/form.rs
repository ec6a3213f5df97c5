//! How switching keys lie in memory.

use cipherlm_ring::sample::UniformLimb;
use cipherlm_ring::{Eval, Limbs, Modulus, Poly, Seed};
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

/// Unpacks one limb of the first digits of a compact key, block after block.
pub(crate) struct KeyLimb<'a> {
    position: usize,
    b: &'a [PackedPoly],
    a: Uniform<'a>,
}

enum Uniform<'a> {
    Packed(&'a [PackedPoly]),
    Streams(Vec<UniformLimb>),
}

impl<'a> KeyLimb<'a> {
    /// The limb at `position` of the key's limbs, with modulus `m`; `None` for an expanded key.
    pub(crate) fn new(body: &'a KeyBody, seed: &[u8; 32], count: usize, position: usize, m: &Modulus) -> Option<Self> {
        let (b, a) = match body {
            KeyBody::Expanded(_) => return None,
            KeyBody::Packed { b, a } => (b, Uniform::Packed(a)),
            KeyBody::Seeded { b } => {
                let seed = Seed::from_bytes(*seed);
                let streams = (0..count).map(|digit| UniformLimb::new(m, &seed, PUBLIC_HALF, digit as u64));
                (b, Uniform::Streams(streams.collect()))
            }
        };
        Some(Self { position, b, a })
    }

    /// The next block, `range`, of every digit: `b` and `a` in turn, one after the other in `tile`.
    pub(crate) fn next(&mut self, range: &Range<usize>, tile: &mut [f64]) {
        for (digit, pair) in tile.chunks_exact_mut(2 * range.len()).enumerate() {
            let (b, a) = pair.split_at_mut(range.len());
            self.b[digit].unpack(self.position, range, b);
            match &mut self.a {
                Uniform::Packed(packed) => packed[digit].unpack(self.position, range, a),
                Uniform::Streams(streams) => streams[digit].fill(a),
            }
        }
    }
}
