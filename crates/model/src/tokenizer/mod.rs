//! Tokenizers: byte-level BPE trained here or loaded from public files, and the scored BPE of llama2.c.

mod import;
mod pretoken;
mod train;

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Result, SpecError};

const FORMAT: &str = "cipherlm-tokenizer";
const VERSION: u32 = 1;

/// Text to token ids and back.
///
/// Byte-level BPE: text is cut into words by the GPT-2 rule (letters, digits, other signs and white space apart, one leading space
/// kept), each word becomes bytes, and learned pairs are merged, earliest learned first. Any text can be encoded and decodes to
/// itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Tokenizer {
    tokens: Vec<Vec<u8>>,
    ids: HashMap<Vec<u8>, u32>,
    special: Vec<u32>,
    rule: Rule,
}

#[derive(Debug, Clone, PartialEq)]
enum Rule {
    /// Pair to (rank, merged id).
    Merges { ranks: HashMap<(u32, u32), (u32, u32)>, bytes: Box<[u32; 256]> },
    /// Score of each token; the best-scoring adjacent pair is merged first. Ids 3..259 are the single bytes.
    Scores(Vec<f32>),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    version: u32,
    tokens: Vec<String>,
    #[serde(default)]
    merges: Vec<(u32, u32)>,
    #[serde(default)]
    scores: Vec<f32>,
    #[serde(default)]
    special: Vec<u32>,
}

impl Tokenizer {
    /// Learns a byte-level BPE of `vocab` tokens: 256 bytes, then merges by frequency, the last id being the end-of-text mark
    /// `<|endoftext|>`. Deterministic: ties go to the smaller pair of ids. Occurrences of the mark in `text` separate documents.
    ///
    /// # Errors
    /// [`SpecError::Empty`] without text; [`SpecError::Malformed`] when `vocab` is below 258 or the text is too short for it.
    pub fn train(text: &str, vocab: usize) -> Result<Self> {
        train::train(text, vocab)
    }

    /// Loads GPT-2's `vocab.json` and `merges.txt`.
    ///
    /// # Errors
    /// [`SpecError::Malformed`] naming the file.
    pub fn from_gpt2(vocab_json: &str, merges: &str) -> Result<Self> {
        import::gpt2(vocab_json, merges)
    }

    /// Loads a Hugging Face `tokenizer.json` with a byte-level BPE model (GPT-NeoX, Pythia). Unicode normalisation is not applied:
    /// text that is not in normal form C may encode otherwise than there.
    ///
    /// # Errors
    /// [`SpecError::Malformed`] for other models.
    pub fn from_hugging_face(json: &str) -> Result<Self> {
        import::hugging_face(json)
    }

    /// Loads the tokenizer of llama2.c (`tok512.bin`): scores, lengths and bytes.
    ///
    /// # Errors
    /// [`SpecError::Malformed`] for a truncated file.
    pub fn from_llama2c(bytes: &[u8]) -> Result<Self> {
        import::llama2c(bytes)
    }

    /// Reads the format written by [`Tokenizer::save`].
    ///
    /// # Errors
    /// [`SpecError::Io`], [`SpecError::Malformed`].
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| SpecError::Io { path: path.into(), source })?;
        Self::from_json(&text)
    }

    /// Parses the format written by [`Tokenizer::to_json`].
    ///
    /// # Errors
    /// [`SpecError::Malformed`].
    pub fn from_json(text: &str) -> Result<Self> {
        let file: File = serde_json::from_str(text).map_err(|e| SpecError::malformed("tokenizer", e))?;
        if file.format != FORMAT || file.version != VERSION {
            let reason = format!("format {} version {}, expected {FORMAT} {VERSION}", file.format, file.version);
            return Err(SpecError::malformed("tokenizer", reason));
        }
        let tokens = file.tokens.iter().map(|t| import::printable_to_bytes(t)).collect::<Result<Vec<_>>>()?;
        if file.special.iter().any(|&id| id as usize >= tokens.len()) {
            return Err(SpecError::malformed("tokenizer", "a special id is outside the vocabulary"));
        }
        if file.scores.is_empty() {
            Self::from_merges(tokens, &file.merges, file.special)
        } else {
            Self::from_scores(tokens, file.scores, file.special)
        }
    }

    /// The own format: tokens with bytes as printable characters (GPT-2's table), merges as pairs of ids.
    ///
    /// # Errors
    /// None in practice; serialisation failures are reported as [`SpecError::Malformed`].
    pub fn to_json(&self) -> Result<String> {
        let (merges, scores) = match &self.rule {
            Rule::Merges { ranks, .. } => {
                let mut ordered: Vec<_> = ranks.iter().map(|(pair, (rank, _))| (*rank, *pair)).collect();
                ordered.sort_unstable();
                (ordered.into_iter().map(|(_, pair)| pair).collect(), vec![])
            }
            Rule::Scores(scores) => (vec![], scores.clone()),
        };
        let file = File {
            format: FORMAT.into(),
            version: VERSION,
            tokens: self.tokens.iter().map(|t| import::bytes_to_printable(t)).collect(),
            merges,
            scores,
            special: self.special.clone(),
        };
        serde_json::to_string(&file).map_err(|e| SpecError::malformed("tokenizer", e))
    }

    /// Writes the own format.
    ///
    /// # Errors
    /// [`SpecError::Io`].
    pub fn save(&self, path: &Path) -> Result<()> {
        std::fs::write(path, self.to_json()?).map_err(|source| SpecError::Io { path: path.into(), source })
    }

    /// Number of tokens.
    pub fn vocab(&self) -> usize {
        self.tokens.len()
    }

    /// Bytes of a token.
    pub fn bytes(&self, token: u32) -> Option<&[u8]> {
        self.tokens.get(token as usize).map(Vec::as_slice)
    }

    /// Id of the token with exactly these bytes.
    pub fn id(&self, bytes: &[u8]) -> Option<u32> {
        self.ids.get(bytes).copied()
    }

    /// Id of the end-of-text mark, if the vocabulary has one.
    pub fn end_of_text(&self) -> Option<u32> {
        self.id(END_OF_TEXT.as_bytes())
    }

    /// Encodes text; special tokens spelled out in it are recognised.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        match &self.rule {
            Rule::Scores(scores) => self.encode_scored(text, scores),
            Rule::Merges { ranks, bytes } => {
                let mut cache: HashMap<&str, Vec<u32>> = HashMap::new();
                let mut out = vec![];
                for (part, special) in self.split_special(text) {
                    if let Some(id) = special {
                        out.push(id);
                        continue;
                    }
                    for word in pretoken::words(part) {
                        let ids = cache.entry(word).or_insert_with(|| merge(word.as_bytes(), ranks, bytes));
                        out.extend_from_slice(ids);
                    }
                }
                out
            }
        }
    }

    /// Decodes to text; bytes that are not UTF-8 become the replacement character.
    ///
    /// # Errors
    /// [`SpecError::UnknownToken`].
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.decode_bytes(tokens)?).into_owned())
    }

    /// Decodes to bytes.
    ///
    /// # Errors
    /// [`SpecError::UnknownToken`].
    pub fn decode_bytes(&self, tokens: &[u32]) -> Result<Vec<u8>> {
        let mut out = vec![];
        for (position, &token) in tokens.iter().enumerate() {
            let Some(bytes) = self.bytes(token) else {
                return Err(SpecError::UnknownToken { token, position, vocab: self.vocab() });
            };
            match (&self.rule, position) {
                // The scored family starts a text with a space that is not part of it, after the begin mark.
                (Rule::Scores(_), 0) if token == 1 || token == 2 => {}
                (Rule::Scores(_), 0) => out.extend_from_slice(bytes.strip_prefix(b" ").unwrap_or(bytes)),
                (Rule::Scores(_), 1) if tokens[0] == 1 => {
                    out.extend_from_slice(bytes.strip_prefix(b" ").unwrap_or(bytes));
                }
                _ => out.extend_from_slice(bytes),
            }
        }
        Ok(out)
    }

    fn from_merges(tokens: Vec<Vec<u8>>, merges: &[(u32, u32)], special: Vec<u32>) -> Result<Self> {
        let ids: HashMap<Vec<u8>, u32> = tokens.iter().enumerate().map(|(i, t)| (t.clone(), i as u32)).collect();
        let mut bytes = Box::new([0u32; 256]);
        for (byte, slot) in bytes.iter_mut().enumerate() {
            let missing = || SpecError::malformed("tokenizer", format!("byte {byte} has no token"));
            *slot = *ids.get(&[byte as u8][..]).ok_or_else(missing)?;
        }
        let mut ranks = HashMap::with_capacity(merges.len());
        for (rank, &(left, right)) in merges.iter().enumerate() {
            let part = |id: u32| tokens.get(id as usize).map(Vec::as_slice);
            let (Some(a), Some(b)) = (part(left), part(right)) else {
                return Err(SpecError::malformed("tokenizer", format!("merge {rank} names an unknown id")));
            };
            let Some(&merged) = ids.get(&[a, b].concat()) else {
                return Err(SpecError::malformed("tokenizer", format!("merge {rank} makes no known token")));
            };
            ranks.entry((left, right)).or_insert((rank as u32, merged));
        }
        Ok(Self { tokens, ids, special, rule: Rule::Merges { ranks, bytes } })
    }

    fn from_scores(tokens: Vec<Vec<u8>>, scores: Vec<f32>, special: Vec<u32>) -> Result<Self> {
        if scores.len() != tokens.len() || tokens.len() < 259 {
            let reason = format!("{} scores for {} tokens, at least 259 of each", scores.len(), tokens.len());
            return Err(SpecError::malformed("tokenizer", reason));
        }
        // Later duplicates (single characters) win over the byte tokens, which are only for bytes no token covers.
        let ids = tokens.iter().enumerate().map(|(i, t)| (t.clone(), i as u32)).collect();
        Ok(Self { tokens, ids, special, rule: Rule::Scores(scores) })
    }

    fn encode_scored(&self, text: &str, scores: &[f32]) -> Vec<u32> {
        let spaced = if text.is_empty() { String::new() } else { format!(" {text}") };
        let mut ids = vec![1];
        for c in spaced.chars() {
            let mut buffer = [0; 4];
            let bytes = c.encode_utf8(&mut buffer).as_bytes();
            match self.id(bytes) {
                Some(id) => ids.push(id),
                None => ids.extend(bytes.iter().map(|&b| u32::from(b) + 3)),
            }
        }
        loop {
            let mut best: Option<(f32, usize, u32)> = None;
            for i in 0..ids.len().saturating_sub(1) {
                let joined = [&self.tokens[ids[i] as usize][..], &self.tokens[ids[i + 1] as usize]].concat();
                if i > 0
                    && let Some(id) = self.id(&joined)
                    && best.is_none_or(|(score, ..)| scores[id as usize] > score)
                {
                    best = Some((scores[id as usize], i, id));
                }
            }
            let Some((_, i, id)) = best else { return ids };
            ids[i] = id;
            ids.remove(i + 1);
        }
    }

    /// Cuts text at special tokens, longest first.
    fn split_special<'t>(&self, text: &'t str) -> Vec<(&'t str, Option<u32>)> {
        let mut specials: Vec<(&str, u32)> = self
            .special
            .iter()
            .filter_map(|&id| Some((std::str::from_utf8(self.bytes(id)?).ok()?, id)))
            .filter(|(s, _)| !s.is_empty())
            .collect();
        specials.sort_by_key(|(s, _)| std::cmp::Reverse(s.len()));
        let mut out = vec![];
        let mut rest = text;
        while !rest.is_empty() {
            let next =
                specials.iter().filter_map(|&(s, id)| Some((rest.find(s)?, std::cmp::Reverse(s.len()), id))).min();
            let Some((at, std::cmp::Reverse(length), id)) = next else { break };
            if at > 0 {
                out.push((&rest[..at], None));
            }
            out.push((&rest[at..at + length], Some(id)));
            rest = &rest[at + length..];
        }
        if !rest.is_empty() {
            out.push((rest, None));
        }
        out
    }
}

/// The end-of-text mark of GPT-2.
pub(crate) const END_OF_TEXT: &str = "<|endoftext|>";

fn merge(word: &[u8], ranks: &HashMap<(u32, u32), (u32, u32)>, bytes: &[u32; 256]) -> Vec<u32> {
    let mut ids: Vec<u32> = word.iter().map(|&b| bytes[b as usize]).collect();
    loop {
        let best = ids.windows(2).filter_map(|w| ranks.get(&(w[0], w[1])).map(|r| (*r, (w[0], w[1])))).min();
        let Some(((_, merged), pair)) = best else { return ids };
        let mut out = Vec::with_capacity(ids.len());
        let mut i = 0;
        while i < ids.len() {
            if i + 1 < ids.len() && (ids[i], ids[i + 1]) == pair {
                out.push(merged);
                i += 2;
            } else {
                out.push(ids[i]);
                i += 1;
            }
        }
        ids = out;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Tokenizer {
        let text = "the cat sat on the mat; the cat's hat is that.\n\nIt's 1234 O'clock — naïve café. ".repeat(20);
        Tokenizer::train(&text, 290).unwrap()
    }

    #[test]
    fn any_text_round_trips_and_files_do_too() {
        let tokenizer = sample();
        let again = Tokenizer::from_json(&tokenizer.to_json().unwrap()).unwrap();
        assert_eq!(again, tokenizer);
        for text in
            ["", "the cat", "  two  spaces \n\t x", "日本語 emoji 🦀", "<|endoftext|>a<|endoftext|>", "\u{0}\u{7f}"]
        {
            let ids = tokenizer.encode(text);
            assert_eq!(tokenizer.decode(&ids).unwrap(), text);
            assert_eq!(again.encode(text), ids);
        }
        assert_eq!(tokenizer.vocab(), 290);
        assert_eq!(tokenizer.encode("<|endoftext|>"), [289]);
        assert!(tokenizer.encode("the cat").len() <= 3);
        assert!(matches!(tokenizer.decode(&[300]), Err(SpecError::UnknownToken { token: 300, .. })));
    }

    #[test]
    fn training_refuses_what_it_cannot_do() {
        assert!(matches!(Tokenizer::train("", 300), Err(SpecError::Empty)));
        assert!(Tokenizer::train("abc", 100).is_err());
        assert!(Tokenizer::train("abc", 400).is_err());
    }

    #[test]
    fn gpt2_format() {
        // Ids in GPT-2's byte order, then two merges and the mark.
        let mut vocab: Vec<String> = (0u8..=255).map(|b| import::bytes_to_printable(&[b])).collect();
        vocab.extend(["th".into(), "the".into(), END_OF_TEXT.into()]);
        let entries: Vec<String> =
            vocab.iter().enumerate().map(|(i, t)| format!("{}: {i}", serde_json::to_string(t).unwrap())).collect();
        let json = format!("{{{}}}", entries.join(", "));
        let tokenizer = Tokenizer::from_gpt2(&json, "#version: 0.2\nt h\nth e\n").unwrap();
        assert_eq!(tokenizer.encode("the<|endoftext|>th"), [257, 258, 256]);
        assert!(Tokenizer::from_gpt2(&json, "x y\n").is_err());
    }

    #[test]
    fn scored_format() {
        let mut bytes = 8i32.to_le_bytes().to_vec();
        let mut push = |score: f32, token: &[u8]| {
            bytes.extend(score.to_le_bytes());
            bytes.extend((token.len() as i32).to_le_bytes());
            bytes.extend(token);
        };
        for token in ["<unk>", "\n<s>\n", "\n</s>\n"] {
            push(0.0, token.as_bytes());
        }
        (0..256).for_each(|b| push(0.0, format!("<0x{b:02X}>").as_bytes()));
        for (score, token) in [(-1.0, " a"), (-2.0, "ab"), (-3.0, " ab"), (-9.0, " "), (-9.0, "a"), (-9.0, "b")] {
            push(score, token.as_bytes());
        }
        let tokenizer = Tokenizer::from_llama2c(&bytes).unwrap();
        assert_eq!(tokenizer.encode("ab"), [1, 261]);
        assert_eq!(tokenizer.encode("aé"), [1, 259, 3 + 0xc3, 3 + 0xa9]);
        assert_eq!(tokenizer.decode(&[1, 259, 3 + 0xc3, 3 + 0xa9]).unwrap(), "aé");
        assert_eq!(Tokenizer::from_json(&tokenizer.to_json().unwrap()).unwrap().encode("ab"), [1, 261]);
        assert!(Tokenizer::from_llama2c(&bytes[..bytes.len() - 1]).is_err());
    }
}
