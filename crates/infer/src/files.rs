//! Prompts and logits as bytes: the plan they belong to, of a prompt the secret, the number of
//! tokens, what is asked for, the ring, then the ciphertexts in the wire format of the library
//! below.

use cipherlm_ckks::wire::Wire;
use cipherlm_ckks::{Ciphertext, KeyId, Params};

use crate::client::{EncryptedLogits, EncryptedPrompt};
use crate::error::{Error, Result};
use crate::fingerprint;
use crate::small::{Asked, SmallRings};

const PROMPT: &[u8; 8] = b"cipherp2";
const LOGITS: &[u8; 8] = b"cipherl2";

impl EncryptedPrompt {
    /// Magic, plan, secret, number of tokens, what is asked for, degree and level, ciphertexts.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = begin(PROMPT, &self.plan);
        out.extend(self.key_id.as_bytes());
        Head::of(self.length, self.asked, &self.ciphertexts).write(&mut out);
        self.ciphertexts.iter().for_each(|ciphertext| out.extend(ciphertext.to_bytes()));
        out
    }

    /// Reads what [`EncryptedPrompt::to_bytes`] wrote, in the ring of the circuits or in that of
    /// the plan's prompts: no ring is made because a message names it.
    ///
    /// # Errors
    /// [`Error::Malformed`] for anything else, [`Error::Mismatch`] for another ring,
    /// [`Error::Wire`] for ciphertexts that are damaged or of other parameters.
    pub fn from_bytes(params: &Params, rings: &SmallRings, bytes: &[u8]) -> Result<Self> {
        const WHAT: &str = "encrypted prompt";
        let (plan, rest) = opened(PROMPT, WHAT, bytes)?;
        let (&key_id, rest) = rest.split_first_chunk::<32>().ok_or_else(|| early(WHAT))?;
        let (head, rest) = Head::read(WHAT, rest)?;
        let whole = head.degree == 0 || head.degree == params.degree();
        let ring = if whole { params } else { head.small(WHAT, rings.prompt.as_ref())? };
        let ciphertexts = head.ciphertexts(WHAT, ring, rest)?;
        let Head { length, asked, .. } = head;
        Ok(Self { plan, key_id: KeyId::from_bytes(key_id), length, asked, ciphertexts })
    }
}

impl EncryptedLogits {
    /// Magic, plan, number of tokens, what they answer, degree and level, ciphertexts.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = begin(LOGITS, &self.plan);
        Head::of(self.length, self.asked, &self.ciphertexts).write(&mut out);
        self.ciphertexts.iter().for_each(|ciphertext| out.extend(ciphertext.to_bytes()));
        out
    }

    /// Reads what [`EncryptedLogits::to_bytes`] wrote, in the ring of the circuits or in that of
    /// the plan's small answers.
    ///
    /// # Errors
    /// [`Error::Malformed`] for anything else, [`Error::Mismatch`] for another ring,
    /// [`Error::Wire`] for ciphertexts that are damaged or of other parameters.
    pub fn from_bytes(params: &Params, rings: &SmallRings, bytes: &[u8]) -> Result<Self> {
        const WHAT: &str = "encrypted logits";
        let (plan, rest) = opened(LOGITS, WHAT, bytes)?;
        let (head, rest) = Head::read(WHAT, rest)?;
        let Head { length, asked, .. } = head;
        let ring = match asked {
            Asked::All => params,
            Asked::Position(_) => head.small(WHAT, rings.answer.as_ref())?,
        };
        let ciphertexts = head.ciphertexts(WHAT, ring, rest)?;
        if asked != Asked::All && ciphertexts.len() != 1 {
            return Err(malformed(WHAT, "an answer at one position is one ciphertext"));
        }
        Ok(Self { plan, length, asked, ciphertexts })
    }
}

/// Bytes before the ciphertexts of logits.
pub(crate) const LOGITS_HEAD: u64 = 8 + fingerprint::LENGTH as u64 + 4 * 4;
/// Bytes before the ciphertexts of a prompt.
pub(crate) const PROMPT_HEAD: u64 = LOGITS_HEAD + 32;

/// Stands for all positions.
const ALL: u32 = u32::MAX;

/// The numbers before the ciphertexts.
#[derive(Clone, Copy)]
struct Head {
    length: usize,
    asked: Asked,
    /// Degree of the ring, and level of the first ciphertext; 0 where there is none.
    degree: usize,
    level: usize,
}

impl Head {
    fn of(length: usize, asked: Asked, ciphertexts: &[Ciphertext]) -> Self {
        let ring = ciphertexts.first().map(|first| (first.params().degree(), first.level()));
        let (degree, level) = ring.unwrap_or_default();
        Self { length, asked, degree, level }
    }

    fn write(self, out: &mut Vec<u8>) {
        let asked = match self.asked {
            Asked::Position(position) => position,
            Asked::All => ALL as usize,
        };
        for number in [self.length, asked, self.degree, self.level] {
            out.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
        }
    }

    fn read<'a>(what: &str, bytes: &'a [u8]) -> Result<(Self, &'a [u8])> {
        let (numbers, rest) = bytes.split_first_chunk::<16>().ok_or_else(|| early(what))?;
        let number = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| numbers[4 * at + i]));
        let [length, asked, degree, level] = [0, 1, 2, 3].map(number);
        let asked = if asked == ALL { Asked::All } else { Asked::Position(asked as usize) };
        Ok((Self { length: length as usize, asked, degree: degree as usize, level: level as usize }, rest))
    }

    /// The small ring, if it is the one that stands before the ciphertexts.
    fn small<'p>(self, what: &'static str, ring: Option<&'p Params>) -> Result<&'p Params> {
        ring.filter(|ring| ring.degree() == self.degree).ok_or_else(|| Error::Mismatch {
            what,
            expected: ring.map_or_else(
                || "this plan, which has none for it".into(),
                |ring| format!("this plan, which has one of degree {}", ring.degree()),
            ),
            found: format!("a ring of degree {}", self.degree),
        })
    }

    /// The ciphertexts, which have the ring and the first of them the level that stand before them.
    fn ciphertexts(self, what: &'static str, ring: &Params, mut rest: &[u8]) -> Result<Vec<Ciphertext>> {
        let mut ciphertexts = vec![];
        while !rest.is_empty() {
            let (ciphertext, tail) =
                Ciphertext::from_prefix(ring, rest).map_err(|source| Error::Wire { what, source })?;
            ciphertexts.push(ciphertext);
            rest = tail;
        }
        let found = Self::of(self.length, self.asked, &ciphertexts);
        if (found.degree, found.level) != (self.degree, self.level) {
            return Err(malformed(what, "its ring or level is not the one that it begins with"));
        }
        Ok(ciphertexts)
    }
}

fn begin(magic: &[u8; 8], plan: &str) -> Vec<u8> {
    let plan = plan.bytes().chain(std::iter::repeat(b' ')).take(fingerprint::LENGTH);
    magic.iter().copied().chain(plan).collect()
}

/// The plan, and the bytes behind it.
fn opened<'a>(magic: &[u8; 8], what: &str, bytes: &'a [u8]) -> Result<(String, &'a [u8])> {
    let body = bytes.strip_prefix(magic.as_slice());
    let body = body.ok_or_else(|| malformed(what, "it starts with other bytes: make it again"))?;
    let (plan, rest) = body.split_at_checked(fingerprint::LENGTH).ok_or_else(|| early(what))?;
    let plan = String::from_utf8(plan.to_vec()).map_err(|_| malformed(what, "its plan is not text"))?;
    Ok((plan, rest))
}

fn early(what: &str) -> Error {
    malformed(what, "it ends too early")
}

fn malformed(what: &str, reason: &str) -> Error {
    Error::Malformed { what: what.to_owned(), reason: reason.to_owned() }
}
