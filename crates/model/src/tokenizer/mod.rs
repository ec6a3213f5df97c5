//! Text to token ids and back: every Hugging Face `tokenizer.json`, byte-level BPE trained here,
//! scored BPE.

mod added;
mod bytes;
#[cfg(any(test, target_arch = "wasm32"))]
mod classes;
mod file;
mod gguf;
#[cfg(any(test, target_arch = "wasm32"))]
mod lean;
mod library;
mod scored;
mod stream;
#[cfg(test)]
mod tests;
#[cfg(not(target_arch = "wasm32"))]
mod train;
#[cfg(not(target_arch = "wasm32"))]
mod whole;

use std::path::Path;

use cipherlm_files::{Access, Existing};

pub(crate) use gguf::GgufVocabulary;
pub use stream::TextStream;

use crate::error::{Error, Result};
use crate::shape::Shape;
use library::Library;
use scored::Scored;

/// The end-of-text mark of GPT-2.
pub(crate) const END_OF_TEXT: &str = "<|endoftext|>";

/// Largest tokenizer file, bytes: the largest public ones have about 30 MB.
const MAX_FILE: u64 = 1 << 28;

/// Marks that end a text in public tokenizers, for files that do not say which one does.
const KNOWN_ENDS: [&str; 7] =
    [END_OF_TEXT, "</s>", "<|end_of_text|>", "<|eot_id|>", "<|im_end|>", "<eos>", "<|end|>"];

/// Text to token ids and back.
///
/// The `tokenizers` crate runs all rules of the Hugging Face format (normalisers, pre-tokenizers,
/// models, post-processors, decoders, added tokens), so ids are those of the Python package of the
/// same project. Scored BPE (llama2.c, SentencePiece models inside GGUF) is the one rule of its own
/// here. On `wasm32` byte-level BPE runs by a rule of its own, with the same ids, and other rules
/// of the format are refused.
///
/// ```
/// use cipherlm_model::Tokenizer;
///
/// let tokenizer = Tokenizer::train(&"the cat sat on the mat; ".repeat(20), 265)?;
/// let ids = tokenizer.encode("the cat")?;
/// assert_eq!(tokenizer.decode(&ids)?, "the cat");
/// # Ok::<(), cipherlm_model::Error>(())
/// ```
#[derive(Clone)]
pub struct Tokenizer {
    rule: Rule,
    begin: Option<u32>,
    ends: Vec<u32>,
}

#[derive(Clone)]
enum Rule {
    Library(Box<Library>),
    /// With the space that this family puts before a text.
    Scored {
        rule: Box<Scored>,
        space: bool,
    },
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { begin, ends, .. } = self;
        f.debug_struct("Tokenizer")
            .field("vocab", &self.vocab())
            .field("begin", begin)
            .field("ends", ends)
            .finish()
    }
}

impl Tokenizer {
    /// Learns a byte-level BPE of `vocab` tokens: 256 bytes, then merges by frequency, the last id
    /// being the end-of-text mark `<|endoftext|>`. Deterministic: ties go to the smaller pair of
    /// ids. Occurrences of the mark in `text` separate documents.
    ///
    /// # Errors
    /// [`Error::Empty`] without text; [`Error::Malformed`] when `vocab` is below 258 or the
    /// text is too short for it.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn train(text: &str, vocab: usize) -> Result<Self> {
        train::train(text, vocab)
    }

    /// Loads GPT-2's `vocab.json` and `merges.txt`.
    ///
    /// # Errors
    /// [`Error::Malformed`] naming the file.
    pub fn from_gpt2(vocab_json: &str, merges: &str) -> Result<Self> {
        Self::from_library(library::gpt2(vocab_json, merges)?, None, None)
    }

    /// Loads BERT's `vocab.txt`: word pieces, each text between `[CLS]` and `[SEP]`. `lower` also
    /// strips accents.
    ///
    /// # Errors
    /// [`Error::Malformed`] when `[UNK]`, `[CLS]` or `[SEP]` is not in the file.
    pub fn from_word_pieces(vocab: &str, lower: bool) -> Result<Self> {
        Self::from_library(library::word_pieces(vocab, lower)?, None, Some(vec![]))
    }

    /// Loads the tokenizer of llama2.c (`tok512.bin`): scores, lengths and bytes. A text begins
    /// with token 1; tokens 1 and 2 end it.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a truncated file.
    pub fn from_llama2c(bytes: &[u8]) -> Result<Self> {
        file::llama2c(bytes)
    }

    /// Reads the format written by [`Tokenizer::save`], or a Hugging Face `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Malformed`].
    pub fn load(path: &Path) -> Result<Self> {
        Self::from_json(&cipherlm_files::read_text(path, MAX_FILE)?)
    }

    /// Parses the format written by [`Tokenizer::to_json`], or a Hugging Face `tokenizer.json`.
    ///
    /// A bare Hugging Face file does not say which marks end a text: its special tokens that other
    /// models use for it are taken (`</s>`, `<|endoftext|>`, `<|im_end|>` and their like).
    ///
    /// # Errors
    /// [`Error::Malformed`], also for a token that the file numbers otherwise than its
    /// vocabulary does.
    pub fn from_json(text: &str) -> Result<Self> {
        file::parse(text)
    }

    /// The own format: the rule with its marks.
    ///
    /// # Errors
    /// None in practice; serialisation failures are reported as [`Error::Malformed`].
    pub fn to_json(&self) -> Result<String> {
        file::write(self)
    }

    /// Writes the own format.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = self.to_json()?;
        Ok(cipherlm_files::write(path, text.as_bytes(), Existing::Replace, Access::Everyone)?)
    }

    /// The same rule with other marks.
    ///
    /// # Errors
    /// [`Error::UnknownToken`] for a mark outside the vocabulary.
    pub fn with_marks(mut self, begin: Option<u32>, ends: Vec<u32>) -> Result<Self> {
        let vocab = self.vocab();
        if let Some(&token) = begin.iter().chain(&ends).find(|&&id| id as usize >= vocab) {
            return Err(Error::UnknownToken { token, position: 0, vocab });
        }
        (self.begin, self.ends) = (begin, ends);
        Ok(self)
    }

    fn from_library(rule: Library, begin: Option<u32>, ends: Option<Vec<u32>>) -> Result<Self> {
        let known = || {
            let special = rule.special().filter(|(_, text)| KNOWN_ENDS.contains(&text.as_str()));
            let mut ids: Vec<u32> = special.map(|(id, _)| id).collect();
            ids.sort_unstable();
            ids
        };
        let ends = ends.unwrap_or_else(known);
        let out = Self { rule: Rule::Library(Box::new(rule)), begin: None, ends: vec![] };
        out.with_marks(begin, ends)
    }

    /// Number of token ids: one more than the largest.
    pub fn vocab(&self) -> usize {
        match &self.rule {
            Rule::Library(library) => library.size(),
            Rule::Scored { rule, .. } => rule.tokens.len(),
        }
    }

    /// Refuses a model whose vocabulary lacks ids of this tokenizer. A larger one is usual (padding
    /// to a round number): its surplus ids mean nothing, so choose among the first
    /// [`Tokenizer::vocab`] logits only.
    ///
    /// # Errors
    /// [`Error::Vocabulary`].
    pub fn check_shape(&self, shape: &Shape) -> Result<()> {
        let (tokenizer, model) = (self.vocab(), shape.vocab);
        if tokenizer > model { Err(Error::Vocabulary { tokenizer, model }) } else { Ok(()) }
    }

    /// Bytes that a token adds to a text, or `None` outside the vocabulary. Where tokens have no
    /// bytes of their own (word pieces), those of its text alone.
    pub fn bytes(&self, token: u32) -> Option<Vec<u8>> {
        if token as usize >= self.vocab() {
            return None;
        }
        match &self.rule {
            Rule::Library(library) => {
                library.bytes(token).or_else(|| library.decode(&[token]).ok().map(String::into_bytes))
            }
            Rule::Scored { rule, .. } => rule.tokens.get(token as usize).cloned(),
        }
    }

    /// Id of the token that is written so, special tokens included.
    pub fn id(&self, text: &str) -> Option<u32> {
        match &self.rule {
            Rule::Library(library) => {
                library.id(text).or_else(|| library.id(&bytes::to_printable(text.as_bytes())))
            }
            Rule::Scored { rule, .. } => rule.id(text.as_bytes()),
        }
    }

    /// The mark before a text, if the model family has one.
    pub fn begin(&self) -> Option<u32> {
        self.begin
    }

    /// The marks that end a text.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// Whether generation stops at this token.
    pub fn is_end(&self, token: u32) -> bool {
        self.ends.contains(&token)
    }

    /// Id of GPT-2's end-of-text mark, if the vocabulary has it.
    pub fn end_of_text(&self) -> Option<u32> {
        self.id(END_OF_TEXT)
    }

    /// Encodes a whole text, with the marks that the model family puts around it (`[CLS]`, `<s>`).
    /// Special tokens spelled out in the text are recognised, except by scored tokenizers.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the rule has no token for a character.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match &self.rule {
            Rule::Library(library) => library.encode(text, true),
            Rule::Scored { rule, space } => {
                let text = if *space && !text.is_empty() { format!(" {text}") } else { text.to_owned() };
                Ok(self.begin.into_iter().chain(rule.encode(&text)).collect())
            }
        }
    }

    /// Encodes text that continues other text: no mark around it, no space before it.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_continuation(&self, text: &str) -> Result<Vec<u32>> {
        match &self.rule {
            Rule::Library(library) => library.encode(text, false),
            Rule::Scored { rule, .. } => Ok(rule.encode(text)),
        }
    }

    /// Decodes to text, a begin mark at the front left out; bytes that are not UTF-8 become the
    /// replacement character.
    ///
    /// # Errors
    /// [`Error::UnknownToken`].
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        let vocab = self.vocab();
        if let Some(position) = tokens.iter().position(|&t| t as usize >= vocab) {
            return Err(Error::UnknownToken { token: tokens[position], position, vocab });
        }
        let marked = tokens.first().is_some_and(|t| self.begin == Some(*t));
        let tokens = &tokens[usize::from(marked)..];
        match &self.rule {
            Rule::Library(library) => library.decode(tokens),
            Rule::Scored { rule, space } => {
                let mut out: Vec<u8> =
                    tokens.iter().flat_map(|&t| rule.tokens[t as usize].iter().copied()).collect();
                if *space && out.first() == Some(&b' ') {
                    out.remove(0);
                }
                Ok(String::from_utf8_lossy(&out).into_owned())
            }
        }
    }

    /// Decodes tokens that continue the text `before`.
    ///
    /// # Errors
    /// [`Error::UnknownToken`].
    pub fn decode_continuation(&self, before: &[u32], tokens: &[u32]) -> Result<String> {
        let mut stream = self.stream(before)?;
        let mut out = tokens.iter().map(|&t| stream.push(t)).collect::<Result<String>>()?;
        out.push_str(&stream.finish());
        Ok(out)
    }

    /// Decodes tokens that continue the text `before`, as they come.
    ///
    /// # Errors
    /// [`Error::UnknownToken`].
    pub fn stream(&self, before: &[u32]) -> Result<TextStream<'_>> {
        TextStream::new(self, before)
    }
}
