//! Prompts and logits as bytes: the plan they belong to, of a prompt the secret, the number of
//! tokens (of several prompts how many there are, and each one's), what is asked for, the ring,
//! then the ciphertexts in the wire format of the library below.

use cipherlm_ckks::wire::Wire;
use cipherlm_ckks::{Ciphertext, KeyId, Params};

use crate::client::{EncryptedLogits, EncryptedPrompt};
use crate::error::{Error, Result};
use crate::fingerprint;
use crate::small::{Asked, SmallRings};

/// Magics of one text and of several.
const PROMPT: [&[u8; 8]; 2] = [b"cipherp2", b"cipherp3"];
const LOGITS: [&[u8; 8]; 2] = [b"cipherl2", b"cipherl3"];

impl EncryptedPrompt {
    /// Magic, plan, secret, number of tokens, what is asked for, degree and level, ciphertexts.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = begin(PROMPT, &self.plan, &self.lengths);
        out.extend(self.key_id.as_bytes());
        Head::of(&self.lengths, self.asked, &self.ciphertexts).write(&mut out);
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
        let (plan, several, rest) = opened(PROMPT, WHAT, bytes)?;
        let (&key_id, rest) = rest.split_first_chunk::<32>().ok_or_else(|| early(WHAT))?;
        let (head, rest) = Head::read(WHAT, several, rest)?;
        let whole = head.degree == 0 || head.degree == params.degree();
        let ring = if whole { params } else { head.small(WHAT, rings.prompt.as_ref())? };
        let ciphertexts = head.ciphertexts(WHAT, ring, rest)?;
        let Head { lengths, asked, .. } = head;
        Ok(Self { plan, key_id: KeyId::from_bytes(key_id), lengths, asked, ciphertexts })
    }
}

impl EncryptedLogits {
    /// Magic, plan, number of tokens, what they answer, degree and level, ciphertexts.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = begin(LOGITS, &self.plan, &self.lengths);
        Head::of(&self.lengths, self.asked, &self.ciphertexts).write(&mut out);
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
        let (plan, several, rest) = opened(LOGITS, WHAT, bytes)?;
        let (head, rest) = Head::read(WHAT, several, rest)?;
        let ring = match head.asked {
            Asked::All => params,
            Asked::Position(_) | Asked::Each => head.small(WHAT, rings.answer.as_ref())?,
        };
        let ciphertexts = head.ciphertexts(WHAT, ring, rest)?;
        let Head { lengths, asked, .. } = head;
        if asked != Asked::All && ciphertexts.len() != 1 {
            return Err(malformed(WHAT, "an answer at one position is one ciphertext"));
        }
        Ok(Self { plan, lengths, asked, ciphertexts })
    }
}

/// Bytes before the ciphertexts of an answer to `prompts` prompts.
pub(crate) fn logits_head(prompts: usize) -> u64 {
    let lengths = if prompts == 1 { 1 } else { 1 + prompts as u64 };
    8 + fingerprint::LENGTH as u64 + 4 * (lengths + 3)
}

/// Bytes before the ciphertexts of `prompts` prompts.
pub(crate) fn prompt_head(prompts: usize) -> u64 {
    logits_head(prompts) + 32
}

/// Stand for all positions, and for each prompt's own.
const ALL: u32 = u32::MAX;
const EACH: u32 = u32::MAX - 1;

/// The numbers before the ciphertexts.
struct Head {
    lengths: Vec<usize>,
    asked: Asked,
    /// Degree of the ring, and level of the first ciphertext; 0 where there is none.
    degree: usize,
    level: usize,
}

impl Head {
    fn of(lengths: &[usize], asked: Asked, ciphertexts: &[Ciphertext]) -> Self {
        let (degree, level) = ring_of(ciphertexts);
        Self { lengths: lengths.to_vec(), asked, degree, level }
    }

    fn write(self, out: &mut Vec<u8>) {
        let asked = match self.asked {
            Asked::Position(position) => position,
            Asked::Each => EACH as usize,
            Asked::All => ALL as usize,
        };
        let count = Some(self.lengths.len()).filter(|&count| count != 1);
        let numbers = count.into_iter().chain(self.lengths).chain([asked, self.degree, self.level]);
        for number in numbers {
            out.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
        }
    }

    fn read<'a>(what: &str, several: bool, bytes: &'a [u8]) -> Result<(Self, &'a [u8])> {
        let mut rest = bytes;
        let number = |rest: &mut &[u8]| -> Result<u32> {
            let (&bytes, tail) = rest.split_first_chunk().ok_or_else(|| early(what))?;
            *rest = tail;
            Ok(u32::from_le_bytes(bytes))
        };
        let count = if several { number(&mut rest)? } else { 1 };
        if several && count < 2 {
            return Err(malformed(what, "it is of several prompts and says that there are not two"));
        }
        // Only what there are bytes for is set aside, and at once: a vector that grows holds three
        // times as much.
        if count as usize > rest.len() / 4 {
            return Err(early(what));
        }
        let (numbers, tail) = rest.split_at(4 * count as usize);
        let lengths = numbers.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes) as usize).collect();
        rest = tail;
        let asked = match number(&mut rest)? {
            ALL => Asked::All,
            EACH => Asked::Each,
            position => Asked::Position(position as usize),
        };
        let (degree, level) = (number(&mut rest)? as usize, number(&mut rest)? as usize);
        Ok((Self { lengths, asked, degree, level }, rest))
    }

    /// The small ring, if it is the one that stands before the ciphertexts.
    fn small<'p>(&self, what: &'static str, ring: Option<&'p Params>) -> Result<&'p Params> {
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
    fn ciphertexts(&self, what: &'static str, ring: &Params, mut rest: &[u8]) -> Result<Vec<Ciphertext>> {
        let mut ciphertexts = vec![];
        while !rest.is_empty() {
            let (ciphertext, tail) =
                Ciphertext::from_prefix(ring, rest).map_err(|source| Error::Wire { what, source })?;
            ciphertexts.push(ciphertext);
            rest = tail;
        }
        if ring_of(&ciphertexts) != (self.degree, self.level) {
            return Err(malformed(what, "its ring or level is not the one that it begins with"));
        }
        Ok(ciphertexts)
    }
}

/// Degree and level of the first one; 0 where there is none.
fn ring_of(ciphertexts: &[Ciphertext]) -> (usize, usize) {
    ciphertexts.first().map(|first| (first.params().degree(), first.level())).unwrap_or_default()
}

fn begin(magics: [&[u8; 8]; 2], plan: &str, lengths: &[usize]) -> Vec<u8> {
    let magic = magics[usize::from(lengths.len() != 1)];
    let plan = plan.bytes().chain(std::iter::repeat(b' ')).take(fingerprint::LENGTH);
    magic.iter().copied().chain(plan).collect()
}

/// The plan, whether it is of several prompts, and the bytes behind.
fn opened<'a>(magics: [&[u8; 8]; 2], what: &str, bytes: &'a [u8]) -> Result<(String, bool, &'a [u8])> {
    let other = || malformed(what, "it starts with other bytes: make it again");
    let (magic, body) = bytes.split_first_chunk::<8>().ok_or_else(other)?;
    let several = magics.iter().position(|known| *known == magic).ok_or_else(other)? == 1;
    let (plan, rest) = body.split_at_checked(fingerprint::LENGTH).ok_or_else(|| early(what))?;
    let plan = String::from_utf8(plan.to_vec()).map_err(|_| malformed(what, "its plan is not text"))?;
    Ok((plan, several, rest))
}

fn early(what: &str) -> Error {
    malformed(what, "it ends too early")
}

fn malformed(what: &str, reason: &str) -> Error {
    Error::Malformed { what: what.to_owned(), reason: reason.to_owned() }
}
