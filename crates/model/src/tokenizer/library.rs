//! Tokenizers of the Hugging Face format: which code runs them here, and how their files are made.

use serde_json::{Map, Value, json};

use super::bytes::to_printable;
#[cfg(target_arch = "wasm32")]
pub(super) use super::lean::Library;
#[cfg(not(target_arch = "wasm32"))]
pub(super) use super::whole::Library;
use crate::error::{Error, Result};

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
