//! Ciphertexts on the wire.

use super::pack::unpack;
use super::{Body, HEADER_BYTES, Reader, Wire, field, open, seal};
use crate::encode::check_scale;
use crate::encrypt::fresh_half;
use crate::keys::packed_poly::{pack, packed_bytes};
use crate::{Ciphertext, Error, Params, Scale};

/// Level, parts, seeded flag, reserved, slots, scale.
const FIXED: u64 = 4 + 1 + 1 + 2 + 4 + 16;

struct Meta {
    level: usize,
    parts: usize,
    seeded: bool,
    slots: usize,
    scale: Scale,
}

impl Meta {
    fn read(params: &Params, reader: &mut Reader<'_>) -> Result<Self, Error> {
        let level = reader.u32()?;
        if level as usize > params.max_level() {
            return Err(field("level", level));
        }
        let parts = reader.u8()?;
        if !(2..=3).contains(&parts) {
            return Err(field("parts", parts));
        }
        let seeded = reader.u8()?;
        if seeded > 1 || (seeded == 1 && parts != 2) {
            return Err(field("seeded", seeded));
        }
        let reserved = reader.u16()?;
        if reserved != 0 {
            return Err(field("reserved", reserved));
        }
        let slots = reader.u32()?;
        params.check_slots(slots as usize).map_err(|_| field("slots", slots))?;
        let (hi, lo) = (f64::from_bits(reader.u64()?), f64::from_bits(reader.u64()?));
        let scale = Scale::from_parts(hi, lo).ok_or_else(|| field("scale", hi.to_bits()))?;
        let level = level as usize;
        // Whatever the evaluator can leave: a scale may be above the modulus of a level that was
        // dropped to.
        check_scale("read", scale).map_err(|_| field("scale", hi.to_bits()))?;
        Ok(Self { level, parts: parts.into(), seeded: seeded == 1, slots: slots as usize, scale })
    }

    fn body_bytes(&self, params: &Params) -> u64 {
        let polys = (self.parts - usize::from(self.seeded)) as u64;
        let seed = if self.seeded { 32 } else { 0 };
        FIXED + seed + polys * packed_bytes(params, params.limbs(self.level))
    }
}

impl Ciphertext {
    /// Bytes of a ciphertext of two parts at a level; a fresh one carries a seed instead of its
    /// uniform half.
    pub fn stored_bytes(params: &Params, level: usize, fresh: bool) -> u64 {
        let (seed, polys) = if fresh { (32, 1) } else { (0, 2) };
        HEADER_BYTES + FIXED + seed + polys * packed_bytes(params, params.limbs(level))
    }
}

impl Wire for Ciphertext {
    const TYPE: u16 = 1;

    fn to_bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(&(self.level as u32).to_le_bytes());
        body.extend_from_slice(&[self.parts.len() as u8, u8::from(self.seed.is_some()), 0, 0]);
        body.extend_from_slice(&(self.slots as u32).to_le_bytes());
        let (hi, lo) = self.scale.to_parts();
        body.extend_from_slice(&hi.to_bits().to_le_bytes());
        body.extend_from_slice(&lo.to_bits().to_le_bytes());
        let stored = if let Some(seed) = &self.seed {
            body.extend_from_slice(seed);
            &self.parts[..1]
        } else {
            &self.parts[..]
        };
        stored.iter().for_each(|part| pack(&self.params, part, &mut body));
        seal(Self::TYPE, &self.params, self.key_id, &body)
    }

    fn from_prefix<'a>(params: &Params, bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Error> {
        let Body { key_id, bytes, rest } =
            open(Self::TYPE, params, bytes, FIXED, |r| Ok(Meta::read(params, r)?.body_bytes(params)))?;
        let mut reader = Reader::new(bytes);
        let meta = Meta::read(params, &mut reader)?;
        let seed: Option<[u8; 32]> = if meta.seeded { Some(reader.array()?) } else { None };
        let limbs = params.limbs(meta.level);
        let mut parts = vec![unpack(params, limbs, 0, &mut reader)?];
        if let Some(seed) = &seed {
            parts.push(fresh_half(params, limbs, seed)?);
        }
        while parts.len() < meta.parts {
            parts.push(unpack(params, limbs, parts.len() * limbs.len(), &mut reader)?);
        }
        let Meta { level, scale, slots, .. } = meta;
        Ok((Self { params: params.clone(), key_id, parts, level, scale, slots, seed }, rest))
    }
}
