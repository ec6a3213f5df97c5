//! How switching keys lie in memory.

use cipherlm_ring::{Eval, Limbs, PackedPair, Poly, Seed, sample};

use super::packed_poly::PackedPoly;
use crate::{Error, Params};

/// Memory against time: how the residues of a switching key are held. Results do not depend on it,
/// bit by bit.
///
/// Set once for all keys where they are made or loaded:
/// [`SecretKey::key_set_in`](crate::SecretKey::key_set_in),
/// [`KeySet::into_form`](crate::KeySet::into_form),
/// [`KeyStore::with_form`](crate::KeyStore::with_form).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyForm {
    /// Ready for arithmetic: 16 bytes for a pair of residues.
    Expanded,
    /// In the bits of each prime, both halves of a digit side by side: 11.25 bytes a pair for a
    /// prime of 45 bits. Unpacked on the way, which is faster than reading more bytes where the CPU
    /// does it well; see [`KeyForm::fastest`].
    Packed,
    /// One half packed and the uniform half made again from its seed at every use: 5.6 bytes a pair
    /// for a prime of 45 bits, as in a file.
    Seeded,
}

impl KeyForm {
    /// The form in which keys are used fastest on this CPU, which is what they have unless another
    /// is asked for: [`KeyForm::Packed`] with AVX-512 IFMA and VBMI, [`KeyForm::Expanded`]
    /// otherwise.
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
        params: &Params,
        digits: impl Iterator<Item = Result<[Poly<Eval>; 2], Error>>,
    ) -> Result<Self, Error> {
        match form {
            KeyForm::Expanded => Ok(Self::Expanded(digits.collect::<Result<_, _>>()?)),
            KeyForm::Packed => {
                let pairs = digits.map(|pair| Ok(PackedPair::pack(pair?.each_ref())?));
                Ok(Self::Packed(pairs.collect::<Result<_, Error>>()?))
            }
            KeyForm::Seeded => {
                let b = digits.map(|pair| pair.map(|[b, _]| PackedPoly::pack(params, &b)));
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
        Self::collect(form, params, digits)
    }

    /// The halves `b_j` as in a file.
    pub(crate) fn packed(&self, params: &Params) -> Vec<PackedPoly> {
        match self {
            Self::Expanded(digits) => digits.iter().map(|[b, _]| PackedPoly::pack(params, b)).collect(),
            Self::Packed(digits) => {
                digits.iter().map(|pair| PackedPoly::pack(params, &pair.unpack()[0])).collect()
            }
            Self::Seeded { b } => b.clone(),
        }
    }
}

/// Label of the streams of the public halves.
pub(super) const PUBLIC_HALF: &str = "switching key digit";

/// The public half of digit `j` of a key with this seed.
pub(crate) fn public_half(
    params: &Params,
    limbs: &Limbs,
    seed: &[u8; 32],
    digit: usize,
) -> Result<Poly<Eval>, Error> {
    Ok(sample::uniform(params.ring(), limbs, &Seed::from_bytes(*seed), PUBLIC_HALF, digit as u64)?)
}
