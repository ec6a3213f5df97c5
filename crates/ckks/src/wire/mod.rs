//! The wire format: versioned, bound to parameters and key, with every length recomputed before
//! memory is taken.
//!
//! An object is a header of 112 bytes and a body. All numbers are little-endian.
//!
//! | bytes | header field |
//! |---|---|
//! | 4 | magic `CLMK` |
//! | 2 | format version |
//! | 2 | type of object |
//! | 32 | hash of the parameters |
//! | 32 | id of the secret key |
//! | 8 | length of the body |
//! | 32 | Blake3 hash of type, parameters, key id and body |
//!
//! A residue takes the bits of its prime, eight residues after each other fill whole bytes; fresh
//! ciphertexts and keys carry a seed instead of their uniform half.
//! The hash finds damage, it is no signature: whoever can write the file can also write the hash.
//! Authenticate at the layer that carries it.

mod ciphertext;
mod key;
mod pack;
mod store;

pub use store::KeyStore;

use zeroize::Zeroize;

use crate::{Error, KeyId, Params, ParamsHash, WireError};

/// First bytes of every object.
pub const MAGIC: [u8; 4] = *b"CLMK";
/// Version that this build writes and reads.
pub const VERSION: u16 = 4;
/// Bytes of the header.
pub const HEADER_BYTES: u64 = 112;

/// Objects that can be stored and sent.
pub trait Wire: Sized {
    /// The type tag of the header.
    const TYPE: u16;

    /// Header and body.
    fn to_bytes(&self) -> Vec<u8>;

    /// Reads one object that fills `bytes` exactly.
    ///
    /// # Errors
    /// [`Error::Wire`] for anything malformed, [`Error::ParamsMismatch`] for an object of another
    /// parameter set. No input panics. Memory beyond three times the input is never taken, and none
    /// before the length has been checked.
    fn from_bytes(params: &Params, bytes: &[u8]) -> Result<Self, Error> {
        let (object, rest) = Self::from_prefix(params, bytes)?;
        if rest.is_empty() {
            Ok(object)
        } else {
            Err(WireError::TrailingBytes { extra: rest.len() as u64 }.into())
        }
    }

    /// Reads one object from the front of `bytes` and returns what follows it.
    ///
    /// # Errors
    /// As [`Wire::from_bytes`].
    fn from_prefix<'a>(params: &Params, bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Error>;
}

/// The header of an object, readable without its parameters: what a store needs to file it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Type of the object; compare with [`Wire::TYPE`].
    pub kind: u16,
    /// Hash of the parameters.
    pub params: ParamsHash,
    /// Id of the secret key.
    pub key_id: KeyId,
    /// Length of the body.
    pub body_length: u64,
    hash: [u8; 32],
}

impl Header {
    /// Reads the header of any object.
    ///
    /// # Errors
    /// [`Error::Wire`] if there are not enough bytes, or they are not a header of this version.
    pub fn read(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(bytes);
        if reader.left() < HEADER_BYTES {
            return Err(WireError::Truncated { have: reader.left(), need: HEADER_BYTES }.into());
        }
        if reader.array::<4>()? != MAGIC {
            return Err(WireError::Magic.into());
        }
        let found = reader.u16()?;
        if found != VERSION {
            return Err(WireError::Version { found, expected: VERSION }.into());
        }
        Ok(Self {
            kind: reader.u16()?,
            params: ParamsHash(reader.array()?),
            key_id: KeyId(reader.array()?),
            body_length: reader.u64()?,
            hash: reader.array()?,
        })
    }

    /// Whether these bytes are the body that the header was written for.
    pub fn matches(&self, body: &[u8]) -> bool {
        body.len() as u64 == self.body_length
            && Self::body_hash(self.kind, &self.params, &self.key_id, body) == self.hash
    }

    fn body_hash(kind: u16, params: &ParamsHash, key_id: &KeyId, body: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("cipherlm-ckks 1 wire object");
        hasher.update(&kind.to_le_bytes()).update(&params.0).update(&key_id.0).update(body);
        let hash = *hasher.finalize().as_bytes();
        // The body may be a root seed.
        hasher.zeroize();
        hash
    }
}

/// Puts a header before a body.
fn seal(kind: u16, params: &Params, key_id: KeyId, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES as usize + body.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&params.hash().0);
    out.extend_from_slice(&key_id.0);
    out.extend_from_slice(&(body.len() as u64).to_le_bytes());
    out.extend_from_slice(&Header::body_hash(kind, &params.hash(), &key_id, body));
    out.extend_from_slice(body);
    out
}

/// A body whose header and hash have been checked.
struct Body<'a> {
    key_id: KeyId,
    bytes: &'a [u8],
    rest: &'a [u8],
}

/// Checks header and hash; `expected` computes the length of the body from its first `fixed` bytes.
fn open<'a>(
    kind: u16,
    params: &Params,
    bytes: &'a [u8],
    fixed: u64,
    expected: impl FnOnce(&mut Reader<'a>) -> Result<u64, Error>,
) -> Result<Body<'a>, Error> {
    let header = Header::read(bytes)?;
    if header.kind != kind {
        return Err(WireError::Type { found: header.kind, expected: kind }.into());
    }
    if header.params != params.hash() {
        return Err(Error::ParamsMismatch { operation: "read", left: params.hash(), right: header.params });
    }
    let after = &bytes[HEADER_BYTES as usize..];
    let have = after.len() as u64;
    if have < fixed {
        return Err(WireError::Truncated { have, need: fixed }.into());
    }
    let expected = expected(&mut Reader::new(after))?;
    if header.body_length != expected {
        return Err(WireError::BodyLength { found: header.body_length, expected }.into());
    }
    if have < expected {
        return Err(WireError::Truncated { have: have + HEADER_BYTES, need: expected + HEADER_BYTES }.into());
    }
    // `expected` is at most `have`, so it fits a usize.
    let (body, rest) = after.split_at(expected as usize);
    if Header::body_hash(kind, &header.params, &header.key_id, body) != header.hash {
        return Err(WireError::Checksum.into());
    }
    Ok(Body { key_id: header.key_id, bytes: body, rest })
}

/// Takes numbers off the front of a slice.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn left(&self) -> u64 {
        self.0.len() as u64
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], Error> {
        if self.left() < count {
            return Err(WireError::Truncated { have: self.left(), need: count }.into());
        }
        let (front, back) = self.0.split_at(count as usize);
        self.0 = back;
        Ok(front)
    }

    fn array<const K: usize>(&mut self) -> Result<[u8; K], Error> {
        let mut out = [0; K];
        out.copy_from_slice(self.take(K as u64)?);
        Ok(out)
    }

    fn u8(&mut self) -> Result<u8, Error> {
        self.array::<1>().map(|[b]| b)
    }

    fn u16(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_le_bytes)
    }
}

fn field(field: &'static str, value: impl Into<u64>) -> Error {
    WireError::Field { field, value: value.into() }.into()
}
