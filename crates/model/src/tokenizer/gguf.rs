//! Tokenizers as GGUF files describe them.

use serde_json::{Map, Value, json};

use super::library::{self, Library};
use super::scored::{Scored, byte_of};
use super::{Rule, Tokenizer};
use crate::error::{Error, Result};

/// Token types of the format that are marks, not text.
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

/// Tokens of a GGUF file with their types and marks.
pub(crate) struct GgufVocabulary {
    pub(crate) tokens: Vec<String>,
    /// One type a token; all text where empty.
    pub(crate) kinds: Vec<u64>,
    /// The mark before a text, where the file asks for one.
    pub(crate) begin: Option<u32>,
    pub(crate) ends: Vec<u32>,
}

impl GgufVocabulary {
    fn kind(&self, id: usize) -> u64 {
        self.kinds.get(id).copied().unwrap_or(1)
    }
}

impl Tokenizer {
    /// A byte-level BPE. `pre` names the rule that cuts text into words.
    pub(crate) fn from_gguf_merges(vocabulary: GgufVocabulary, merges: &[String], pre: &str) -> Result<Self> {
        let mut vocab = Map::new();
        let mut added = vec![];
        for (id, text) in vocabulary.tokens.iter().enumerate() {
            let kind = vocabulary.kind(id);
            if kind == CONTROL || kind == USER_DEFINED {
                added.push(library::added_token(id as u32, text, kind == CONTROL));
            }
            if vocab.insert(text.clone(), json!(id)).is_some() {
                return Err(Error::malformed("GGUF tokenizer", format!("two tokens read {text:?}")));
            }
        }
        let mut root = json!({
            "version": "1.0",
            "added_tokens": added,
            "pre_tokenizer": cutting_rule(pre)?,
            "decoder": library::byte_level(false),
            "model": { "type": "BPE", "vocab": vocab, "merges": merges },
        });
        if let Some((id, text)) =
            vocabulary.begin.and_then(|id| Some((id, vocabulary.tokens.get(id as usize)?)))
        {
            root["post_processor"] = json!({
                "type": "TemplateProcessing",
                "single": [
                    { "SpecialToken": { "id": text, "type_id": 0 } },
                    { "Sequence": { "id": "A", "type_id": 0 } }
                ],
                "pair": [],
                "special_tokens": { text: { "id": text, "ids": [id], "tokens": [text] } },
            });
        }
        Self::from_library(Library::from_value(root)?, vocabulary.begin, Some(vocabulary.ends))
    }

    /// A scored BPE; `space` puts one before a text.
    pub(crate) fn from_gguf_scores(
        vocabulary: GgufVocabulary,
        scores: Vec<f32>,
        space: bool,
    ) -> Result<Self> {
        let unknown = vocabulary.tokens.iter().position(|t| t == "<unk>").unwrap_or(0) as u32;
        let mut bytes = Box::new([unknown; 256]);
        let (mut tokens, mut special) = (vec![], vec![]);
        for (id, text) in vocabulary.tokens.iter().enumerate() {
            if let Some(byte) = byte_of(text.as_bytes()) {
                bytes[usize::from(byte)] = id as u32;
                tokens.push(vec![byte]);
            } else {
                tokens.push(text.replace('▁', " ").into_bytes());
            }
            if vocabulary.kind(id) == CONTROL {
                special.push(id as u32);
            }
        }
        let rule = Box::new(Scored::new(tokens, scores, bytes, special)?);
        let out = Self { rule: Rule::Scored { rule, space }, begin: None, ends: vec![] };
        out.with_marks(vocabulary.begin, vocabulary.ends)
    }
}

/// The pre-tokenizer that a name in the file stands for.
fn cutting_rule(pre: &str) -> Result<Value> {
    let sequence = |first: Value, regex: bool| {
        let bytes = library::byte_level(regex);
        json!({ "type": "Sequence", "pretokenizers": [first, bytes] })
    };
    Ok(match pre {
        "default" | "gpt-2" | "gpt2" => library::byte_level(true),
        "smollm" => sequence(json!({ "type": "Digits", "individual_digits": true }), true),
        "llama-bpe" | "llama3" | "llama-v3" => {
            let words = concat!(
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
                r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            );
            let split = json!({
                "type": "Split", "pattern": { "Regex": words }, "behavior": "Isolated", "invert": false,
            });
            sequence(split, false)
        }
        other => {
            let reason = format!(
                "field `tokenizer.ggml.pre` is {other:?}; this program reads default, gpt-2, smollm and \
                 llama-bpe"
            );
            return Err(Error::malformed("GGUF tokenizer", reason));
        }
    })
}
