//! Tokenizers of the Hugging Face format, run by the `tokenizers` crate.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Map, Value, json};
use tokenizers::models::ModelWrapper;
use tokenizers::tokenizer::Model as _;
use tokenizers::{DecoderWrapper, Tokenizer as Inner};

use super::bytes::{from_printable, to_printable};
use crate::error::{Error, Result};

/// Largest vocabulary accepted.
const MAX_TOKENS: usize = 1 << 22;

#[derive(Clone)]
pub(super) struct Library {
    inner: Inner,
    /// Tokens are written in GPT-2's table, so each has bytes of its own.
    byte_level: bool,
    size: usize,
}

impl Library {
    /// Reads a `tokenizer.json`. Its truncation and padding are dropped: lengths are the caller's
    /// business.
    pub(super) fn from_value(root: Value) -> Result<Self> {
        let what = "tokenizer.json";
        let added = added_tokens(&root)?;
        let text = root.to_string();
        drop(root);
        // The crate answers some malformed files with a panic instead of an error.
        let parsed = catch_unwind(AssertUnwindSafe(|| Inner::from_bytes(text.as_bytes())));
        let mut inner = match parsed {
            Ok(Ok(inner)) => inner,
            Ok(Err(error)) => return Err(Error::malformed(what, error)),
            Err(_) => return Err(Error::malformed(what, "the tokenizer library failed on it")),
        };
        inner.with_truncation(None).map_err(|e| Error::malformed(what, e))?;
        inner.with_padding(None);
        for (id, content) in &added {
            // The crate numbers added tokens by itself and only warns.
            let given = inner.token_to_id(content);
            if given != Some(*id) {
                let reason = format!(
                    "added token {content:?} has id {id}, but the vocabulary before it gives {given:?}"
                );
                return Err(Error::malformed(what, reason));
            }
        }
        check_vocabulary(inner.get_model()).map_err(|reason| Error::malformed(what, reason))?;
        let size = inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        if size == 0 || size > MAX_TOKENS {
            return Err(Error::malformed(what, format!("{size} tokens, expected 1 to {MAX_TOKENS}")));
        }
        let byte_level = matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        Ok(Self { inner, byte_level, size })
    }

    pub(super) fn to_value(&self) -> Result<Value> {
        let refuse = |e: &dyn std::fmt::Display| Error::malformed("tokenizer", e);
        let text = self.inner.to_string(false).map_err(|e| refuse(&e))?;
        serde_json::from_str(&text).map_err(|e| refuse(&e))
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text)
    }

    /// Ids of the special added tokens with their text.
    pub(super) fn special(&self) -> impl Iterator<Item = (u32, String)> {
        let added = self.inner.get_added_tokens_decoder();
        added.into_iter().filter(|(_, token)| token.special).map(|(id, token)| (id, token.content))
    }

    pub(super) fn encode(&self, text: &str, marks: bool) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, marks).map_err(|e| Error::malformed("text", e))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Bytes of a token where the format gives each token its own.
    pub(super) fn bytes(&self, token: u32) -> Option<Vec<u8>> {
        if !self.byte_level {
            return None;
        }
        let text = self.inner.id_to_token(token)?;
        // Added tokens are plain text.
        let added = self.inner.get_added_vocabulary().simple_id_to_token(token).is_some();
        if added { Some(text.into_bytes()) } else { from_printable(&text).ok() }
    }

    pub(super) fn decode(&self, tokens: &[u32]) -> Result<String> {
        self.inner.decode(tokens, false).map_err(|e| Error::malformed("token sequence", e))
    }
}

/// Faults that would show on some texts only: an id that two tokens share, and no token for unknown
/// characters.
fn check_vocabulary(model: &ModelWrapper) -> std::result::Result<(), String> {
    let vocab = model.get_vocab();
    let mut ids = std::collections::HashSet::new();
    if let Some((text, id)) = vocab.iter().find(|(_, id)| !ids.insert(**id)) {
        return Err(format!("the id {id} of {text:?} stands twice"));
    }
    let unknown = match model {
        ModelWrapper::BPE(m) => m.get_unk_token().clone(),
        ModelWrapper::WordPiece(m) => Some(m.unk_token.clone()),
        ModelWrapper::WordLevel(m) => Some(m.unk_token.clone()),
        ModelWrapper::Unigram(_) => None,
    };
    match unknown {
        Some(token) if !vocab.contains_key(&token) => Err(format!("the unknown token {token:?} has no id")),
        _ => Ok(()),
    }
}

fn added_tokens(root: &Value) -> Result<Vec<(u32, String)>> {
    let field = |token: &Value| {
        let id = token["id"].as_u64().and_then(|id| u32::try_from(id).ok());
        Some((id?, token["content"].as_str()?.to_owned()))
    };
    let list = root["added_tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
    let refuse = || Error::malformed("tokenizer.json", "an added token lacks its id or content");
    list.iter().map(|token| field(token).ok_or_else(refuse)).collect()
}

/// GPT-2's `vocab.json` and `merges.txt`.
pub(super) fn gpt2(vocab_json: &str, merges: &str) -> Result<Library> {
    let vocab: Map<String, Value> =
        serde_json::from_str(vocab_json).map_err(|e| Error::malformed("vocab.json", e))?;
    let lines = merges.lines().filter(|line| !line.starts_with("#version") && !line.is_empty());
    // Characters without a token would be left out of the text, silently.
    if let Some(byte) = (0..=255u8).find(|&b| !vocab.contains_key(&to_printable(&[b]))) {
        return Err(Error::malformed("vocab.json", format!("byte {byte} has no token")));
    }
    let mut ids = std::collections::HashSet::new();
    if let Some((text, id)) = vocab.iter().find(|(_, id)| id.as_u64().is_none_or(|id| !ids.insert(id))) {
        return Err(Error::malformed(
            "vocab.json",
            format!("the id {id} of {text:?} is no number, or stands twice"),
        ));
    }
    let known = |text: &str| vocab.contains_key(text);
    let pair = |line: &str| match line.split_once(' ') {
        Some((a, b)) if known(a) && known(b) && known(&format!("{a}{b}")) => Ok(json!([a, b])),
        _ => {
            Err(Error::malformed("merges", format!("`{line}` is not a pair of known tokens that makes one")))
        }
    };
    let merges = lines.map(pair).collect::<Result<Vec<_>>>()?;
    let marked = vocab.iter().filter(|(text, _)| text.starts_with("<|") && text.ends_with("|>"));
    let special = marked.filter_map(|(text, id)| Some((u32::try_from(id.as_u64()?).ok()?, text.clone())));
    let special: Vec<(u32, String)> = special.collect();
    Library::from_value(byte_level_bpe(Value::Object(vocab), merges, &special))
}

/// A byte-level BPE with GPT-2's cutting rule from bytes of tokens, pairs of ids and special ids.
pub(super) fn byte_bpe(tokens: &[Vec<u8>], merges: &[(u32, u32)], special: &[u32]) -> Result<Library> {
    let what = "tokenizer";
    let mut vocab = Map::new();
    let mut marks = vec![];
    for (id, bytes) in tokens.iter().enumerate() {
        let id = id as u32;
        let text = if special.contains(&id) {
            let text = String::from_utf8_lossy(bytes).into_owned();
            marks.push((id, text.clone()));
            text
        } else {
            to_printable(bytes)
        };
        if vocab.insert(text.clone(), json!(id)).is_some() {
            return Err(Error::malformed(what, format!("two tokens read {text:?}")));
        }
    }
    if let Some(byte) = (0..=255u8).find(|&b| !vocab.contains_key(&to_printable(&[b]))) {
        return Err(Error::malformed(what, format!("byte {byte} has no token")));
    }
    let mut seen = std::collections::HashSet::new();
    let mut pairs = vec![];
    for (rank, pair) in merges.iter().enumerate().filter(|(_, pair)| seen.insert(**pair)) {
        let part = |id: u32| tokens.get(id as usize).map(|t| to_printable(t));
        let (Some(a), Some(b)) = (part(pair.0), part(pair.1)) else {
            return Err(Error::malformed(what, format!("merge {rank} names an unknown id")));
        };
        if !vocab.contains_key(&format!("{a}{b}")) {
            return Err(Error::malformed(what, format!("merge {rank} makes no known token")));
        }
        pairs.push(json!([a, b]));
    }
    Library::from_value(byte_level_bpe(Value::Object(vocab), pairs, &marks))
}

/// The settings of byte level, as pre-tokenizer or decoder.
pub(super) fn byte_level(regex: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": regex })
}

fn byte_level_bpe(vocab: Value, merges: Vec<Value>, special: &[(u32, String)]) -> Value {
    json!({
        "version": "1.0",
        "added_tokens": special.iter().map(|(id, text)| special_token(*id, text)).collect::<Vec<_>>(),
        "pre_tokenizer": byte_level(true),
        "decoder": byte_level(true),
        "model": { "type": "BPE", "vocab": vocab, "merges": merges },
    })
}

fn special_token(id: u32, text: &str) -> Value {
    added_token(id, text, true)
}

pub(super) fn added_token(id: u32, text: &str, special: bool) -> Value {
    json!({
        "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": special,
    })
}

/// BERT's word pieces: cleaned, cut at white space and punctuation, longest match first.
pub(super) fn word_pieces(vocab: &str, lower: bool) -> Result<Library> {
    let what = "vocab.txt";
    let mut ids = Map::new();
    for (id, line) in vocab.lines().enumerate() {
        ids.insert(line.trim_end().to_owned(), json!(id));
    }
    let mark = |text: &str| {
        let id = ids.get(text).and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| Error::malformed(what, format!("there is no {text}")))
    };
    let (unknown, start, end) = (mark("[UNK]")?, mark("[CLS]")?, mark("[SEP]")?);
    let mut special = vec![(unknown, "[UNK]"), (start, "[CLS]"), (end, "[SEP]")];
    special.extend(["[PAD]", "[MASK]"].iter().filter_map(|text| Some((mark(text).ok()?, *text))));
    let added: Vec<Value> = special.iter().map(|(id, text)| special_token(*id, text)).collect();
    Library::from_value(json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
            "lowercase": lower,
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": { "type": "BertProcessing", "sep": ["[SEP]", end], "cls": ["[CLS]", start] },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": ids,
        },
    }))
}
