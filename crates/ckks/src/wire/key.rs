//! Keys on the wire.

use zeroize::Zeroizing;

use super::pack::{read_packed, unpack};
use super::{Body, HEADER_BYTES, Header, Reader, Wire, field, open, seal};
use crate::keys::packed_poly::{pack, packed_bytes};
use crate::keys::size::{FIXED, body_bytes};
use crate::keys::{
    GaloisElement, KeyBody, KeyForm, KeyId, KeyPurpose, KeySet, PublicKey, SecretKey, SwitchingKey,
    public_half,
};
use crate::params::{KeyShape, SecretDistribution};
use crate::ring::Seed;
use crate::{Error, Params, WireError};

/// Purpose and shape of a switching key, from the first bytes of its file.
pub(crate) fn switching_key_label(params: &Params, bytes: &[u8]) -> Result<(KeyPurpose, KeyShape), Error> {
    let header = Header::read(bytes)?;
    if header.kind != SwitchingKey::TYPE {
        return Err(crate::WireError::Type { found: header.kind, expected: SwitchingKey::TYPE }.into());
    }
    if header.params != params.hash() {
        return Err(Error::ParamsMismatch { operation: "read", left: params.hash(), right: header.params });
    }
    let mut reader = Reader::new(bytes);
    reader.take(HEADER_BYTES)?;
    let meta = Meta::read(params, &mut reader)?;
    Ok((meta.purpose, meta.shape))
}

struct Meta {
    purpose: KeyPurpose,
    shape: KeyShape,
    distribution: SecretDistribution,
    seed: [u8; 32],
}

impl Meta {
    fn read(params: &Params, reader: &mut Reader<'_>) -> Result<Self, Error> {
        let kind = reader.u8()?;
        let digits = reader.u8()?;
        let reserved = reader.u16()?;
        if reserved != 0 {
            return Err(field("reserved", reserved));
        }
        let (level, special, weight) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let shape = KeyShape { level: level as usize, special: special as usize };
        let distribution = distribution(weight)?;
        shape.check(params)?;
        // A key that offers the secret at too large a modulus is refused, whoever made it.
        shape.check_security(params, distribution)?;
        if shape.digits(params).len() != usize::from(digits) {
            return Err(field("digits", digits));
        }
        let argument: [u8; 32] = reader.array()?;
        let mut low = [0; 8];
        low.copy_from_slice(&argument[..8]);
        let number = u64::from_le_bytes(low);
        let purpose = match kind {
            1 if argument == [0; 32] => KeyPurpose::Relinearise,
            2 if argument[8..] == [0; 24] => {
                let element = usize::try_from(number).map_err(|_| field("Galois element", number))?;
                KeyPurpose::Galois(GaloisElement::new(params, element)?)
            }
            3 => KeyPurpose::Switch(KeyId(argument)),
            4 => KeyPurpose::Project(KeyId(argument)),
            _ => return Err(field("purpose", kind)),
        };
        Ok(Self { purpose, shape, distribution, seed: reader.array()? })
    }

    fn body_bytes(&self, params: &Params) -> u64 {
        body_bytes(params, self.shape)
    }
}

impl Wire for SwitchingKey {
    const TYPE: u16 = 3;

    fn to_bytes(&self) -> Vec<u8> {
        let mut argument = [0u8; 32];
        let kind = match self.purpose {
            KeyPurpose::Relinearise => 1,
            KeyPurpose::Galois(element) => {
                argument[..8].copy_from_slice(&(element.element() as u64).to_le_bytes());
                2
            }
            KeyPurpose::Switch(from) => {
                argument = from.0;
                3
            }
            KeyPurpose::Project(from) => {
                argument = from.0;
                4
            }
        };
        let packed = self.body.packed(&self.params);
        let mut body = vec![kind, packed.len() as u8, 0, 0];
        body.extend_from_slice(&(self.shape.level as u32).to_le_bytes());
        body.extend_from_slice(&(self.shape.special as u32).to_le_bytes());
        body.extend_from_slice(&weight(self.distribution).to_le_bytes());
        body.extend_from_slice(&argument);
        body.extend_from_slice(&self.seed);
        packed.iter().for_each(|b| body.extend_from_slice(b.bytes()));
        seal(Self::TYPE, &self.params, self.id, &body)
    }

    fn from_prefix<'a>(params: &Params, bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Error> {
        Self::from_prefix_in(params, bytes, KeyForm::fastest(params))
    }
}

impl SwitchingKey {
    /// Bytes at the front of a key that [`SwitchingKey::peek`] reads.
    pub const HEAD_BYTES: u64 = HEADER_BYTES + FIXED;

    /// Purpose and shape of a key from its first bytes, checked as the whole would be: what a store
    /// needs before it takes the rest, whose length is [`KeyShape::stored_bytes`].
    ///
    /// # Errors
    /// As [`Wire::from_bytes`].
    pub fn peek(params: &Params, bytes: &[u8]) -> Result<(KeyPurpose, KeyShape), Error> {
        switching_key_label(params, bytes)
    }

    /// As [`Wire::from_bytes`], held in memory in the given form.
    ///
    /// # Errors
    /// As [`Wire::from_bytes`].
    pub fn from_bytes_in(params: &Params, bytes: &[u8], form: KeyForm) -> Result<Self, Error> {
        let (key, rest) = Self::from_prefix_in(params, bytes, form)?;
        if rest.is_empty() {
            Ok(key)
        } else {
            Err(crate::WireError::TrailingBytes { extra: rest.len() as u64 }.into())
        }
    }

    fn from_prefix_in<'a>(
        params: &Params,
        bytes: &'a [u8],
        form: KeyForm,
    ) -> Result<(Self, &'a [u8]), Error> {
        let Body { key_id, bytes, rest } =
            open(Self::TYPE, params, bytes, FIXED, |r| Ok(Meta::read(params, r)?.body_bytes(params)))?;
        let mut reader = Reader::new(bytes);
        let Meta { purpose, shape, distribution, seed } = Meta::read(params, &mut reader)?;
        let limbs = params.extended_limbs(shape.level, shape.special);
        let digits = 0..shape.digits(params).len();
        let first = |digit: usize| digit * limbs.len();
        let body = if form == KeyForm::Seeded {
            let b = digits.map(|digit| read_packed(params, &limbs, first(digit), &mut reader));
            KeyBody::Seeded { b: b.collect::<Result<_, _>>()? }
        } else {
            // From the bytes to the form, digit by digit: no copy of the packed key is made.
            let pair = |digit| {
                let b = unpack(params, &limbs, first(digit), &mut reader)?;
                Ok([b, public_half(params, &limbs, &seed, digit)?])
            };
            KeyBody::collect(form, params, digits.map(pair))?
        };
        Ok((Self { params: params.clone(), id: key_id, purpose, shape, distribution, seed, body }, rest))
    }
}

impl Wire for PublicKey {
    const TYPE: u16 = 2;

    fn to_bytes(&self) -> Vec<u8> {
        let mut body = self.seed.to_vec();
        pack(&self.params, &self.b, &mut body);
        seal(Self::TYPE, &self.params, self.id, &body)
    }

    fn from_prefix<'a>(params: &Params, bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Error> {
        let limbs = params.limbs(params.max_level());
        let length = 32 + packed_bytes(params, limbs);
        let Body { key_id, bytes, rest } = open(Self::TYPE, params, bytes, 32, |_| Ok(length))?;
        let mut reader = Reader::new(bytes);
        let seed = reader.array()?;
        let b = unpack(params, limbs, 0, &mut reader)?;
        let a = Self::public_half(params, &seed)?;
        Ok((Self { params: params.clone(), id: key_id, seed, b, a }, rest))
    }
}

impl SecretKey {
    const TYPE: u16 = 4;

    /// The secret key for storage: whoever reads these bytes can decrypt everything.
    pub fn to_secret_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut body = Zeroizing::new(weight(self.distribution()).to_le_bytes().to_vec());
        body.extend_from_slice(self.stored_root().expose());
        Zeroizing::new(seal(Self::TYPE, self.params(), self.id(), &body))
    }

    /// Reads what [`SecretKey::to_secret_bytes`] wrote.
    ///
    /// # Errors
    /// As [`Wire::from_bytes`].
    pub fn from_secret_bytes(params: &Params, bytes: &[u8]) -> Result<Self, Error> {
        let Body { key_id, bytes, rest } = open(Self::TYPE, params, bytes, 36, |_| Ok(36))?;
        if !rest.is_empty() {
            return Err(crate::WireError::TrailingBytes { extra: rest.len() as u64 }.into());
        }
        let mut reader = Reader::new(bytes);
        let weight = reader.u32()?;
        let root = Seed::from_bytes(reader.array()?);
        let secret = match distribution(weight)? {
            SecretDistribution::Ternary => Self::from_seed(params, root)?,
            SecretDistribution::Sparse { weight } => Self::sparse_from_seed(params, weight, root)?,
            // Its root seed is that of the secret of the larger ring, which is what is kept.
            SecretDistribution::Subring { .. } => return Err(field("weight", weight)),
        };
        if secret.id() != key_id {
            return Err(Error::KeyMismatch { operation: "read", left: key_id, right: secret.id() });
        }
        Ok(secret)
    }
}

impl KeySet {
    /// Their number in eight bytes, then one object after the other.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = (self.len() as u64).to_le_bytes().to_vec();
        self.iter().for_each(|key| bytes.extend(key.to_bytes()));
        bytes
    }

    /// Reads a set of switching keys.
    ///
    /// # Errors
    /// As [`Wire::from_bytes`]; [`Error::KeyMismatch`] for keys of different secrets.
    pub fn from_bytes(params: &Params, bytes: &[u8]) -> Result<Self, Error> {
        Self::from_bytes_in(params, bytes, KeyForm::fastest(params))
    }

    /// As [`KeySet::from_bytes`], held in memory in the given form.
    ///
    /// # Errors
    /// As [`KeySet::from_bytes`].
    pub fn from_bytes_in(params: &Params, bytes: &[u8], form: KeyForm) -> Result<Self, Error> {
        let have = bytes.len() as u64;
        let (count, mut bytes) = bytes.split_first_chunk().ok_or(WireError::Truncated { have, need: 8 })?;
        let mut set = Self::new();
        for _ in 0..u64::from_le_bytes(*count) {
            let (key, rest) = SwitchingKey::from_prefix_in(params, bytes, form)?;
            let before = set.len();
            set.insert(key)?;
            // The same purpose and level twice: which of the two is meant?
            if set.len() == before {
                return Err(field("keys of one purpose and level", 2u8));
            }
            bytes = rest;
        }
        if bytes.is_empty() {
            Ok(set)
        } else {
            Err(WireError::TrailingBytes { extra: bytes.len() as u64 }.into())
        }
    }
}

/// Marks the weight of a secret of a subring, beside the logarithm of its degree.
const SUBRING: u32 = 1 << 31;

/// Dense secrets are written as weight 0.
fn weight(distribution: SecretDistribution) -> u32 {
    match distribution {
        SecretDistribution::Ternary => 0,
        SecretDistribution::Sparse { weight } => weight as u32,
        SecretDistribution::Subring { degree } => SUBRING | degree.trailing_zeros(),
    }
}

fn distribution(weight: u32) -> Result<SecretDistribution, Error> {
    match (weight & SUBRING != 0, weight & !SUBRING) {
        (false, 0) => Ok(SecretDistribution::Ternary),
        (false, weight) => Ok(SecretDistribution::Sparse { weight: weight as usize }),
        (true, log_degree @ 0..=17) => Ok(SecretDistribution::Subring { degree: 1 << log_degree }),
        (true, _) => Err(field("weight", weight)),
    }
}
