//! Public tokenizer files.

use std::collections::HashMap;

use serde_json::Value;

use super::Tokenizer;
use crate::error::{Result, SpecError};

/// GPT-2's printable character for a byte: the byte itself where it prints, else one from U+0100 on.
fn printable(byte: u8) -> char {
    let prints = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if prints(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&b| !prints(b)).count() as u32;
    char::from_u32(256 + before).unwrap_or('\u{fffd}')
}

pub(super) fn bytes_to_printable(bytes: &[u8]) -> String {
    bytes.iter().map(|&b| printable(b)).collect()
}

pub(super) fn printable_to_bytes(text: &str) -> Result<Vec<u8>> {
    let unknown = |c: char| SpecError::malformed("tokenizer", format!("character {c:?} stands for no byte"));
    text.chars()
        .map(|c| match c as u32 {
            0x100..=0x143 => (0..=255u8).find(|&b| printable(b) == c).ok_or_else(|| unknown(c)),
            code => u8::try_from(code).ok().filter(|&b| printable(b) == c).ok_or_else(|| unknown(c)),
        })
        .collect()
}

pub(super) fn gpt2(vocab_json: &str, merges: &str) -> Result<Tokenizer> {
    let vocab: HashMap<String, u32> =
        serde_json::from_str(vocab_json).map_err(|e| SpecError::malformed("vocab.json", e))?;
    let pairs = merges.lines().filter(|line| !line.starts_with("#version") && !line.is_empty());
    let pairs: Vec<&str> = pairs.collect();
    build(&vocab, &pairs, &[])
}

pub(super) fn hugging_face(json: &str) -> Result<Tokenizer> {
    let what = "tokenizer.json";
    let root: Value = serde_json::from_str(json).map_err(|e| SpecError::malformed(what, e))?;
    let model = &root["model"];
    if model["type"].as_str().is_some_and(|kind| kind != "BPE") || !model["vocab"].is_object() {
        return Err(SpecError::malformed(what, "the model is not a byte-level BPE"));
    }
    let vocab: HashMap<String, u32> =
        serde_json::from_value(model["vocab"].clone()).map_err(|e| SpecError::malformed(what, e))?;
    let pairs = model["merges"].as_array().map(Vec::as_slice).unwrap_or_default();
    // Older files write "a b", newer ones ["a", "b"].
    let pairs: Vec<String> = pairs
        .iter()
        .map(|pair| match (pair.as_str(), pair.as_array().map(Vec::as_slice)) {
            (Some(text), _) => Ok(text.to_owned()),
            (None, Some([Value::String(a), Value::String(b)])) => Ok(format!("{a} {b}")),
            _ => Err(SpecError::malformed(what, "a merge is neither text nor a pair")),
        })
        .collect::<Result<_>>()?;
    let mut added = vec![];
    for token in root["added_tokens"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let (Some(id), Some(content)) = (token["id"].as_u64(), token["content"].as_str()) else {
            return Err(SpecError::malformed(what, "an added token lacks its id or content"));
        };
        added.push((content.to_owned(), id as u32));
    }
    build(&vocab, &pairs.iter().map(String::as_str).collect::<Vec<_>>(), &added)
}

pub(super) fn llama2c(bytes: &[u8]) -> Result<Tokenizer> {
    let short = || SpecError::malformed("llama2.c tokenizer", "the file ends inside a token");
    let mut rest = bytes.get(4..).ok_or_else(short)?;
    let (mut tokens, mut scores) = (vec![], vec![]);
    while !rest.is_empty() {
        let (head, tail) = rest.split_at_checked(8).ok_or_else(short)?;
        let score = f32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let (token, tail) = tail.split_at_checked(length).ok_or_else(short)?;
        rest = tail;
        // Single bytes are written <0xHH>.
        let byte = std::str::from_utf8(token).ok().and_then(|t| t.strip_prefix("<0x")?.strip_suffix('>'));
        let byte = byte.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        tokens.push(byte.map_or_else(|| token.to_vec(), |b| vec![b]));
        scores.push(score);
    }
    Tokenizer::from_scores(tokens, scores, vec![])
}

fn build(vocab: &HashMap<String, u32>, merges: &[&str], added: &[(String, u32)]) -> Result<Tokenizer> {
    let size = vocab.values().chain(added.iter().map(|(_, id)| id)).max().map_or(0, |&m| m as usize + 1);
    if size > 1 << 22 {
        return Err(SpecError::malformed("tokenizer", format!("largest id {}, at most 2^22 tokens", size - 1)));
    }
    let mut tokens = vec![Vec::new(); size];
    let mut special: Vec<u32> = added.iter().map(|(_, id)| *id).collect();
    for (text, &id) in vocab {
        let marked = text.starts_with("<|") && text.ends_with("|>");
        if marked && !special.contains(&id) {
            special.push(id);
        }
        tokens[id as usize] = if marked { text.clone().into_bytes() } else { printable_to_bytes(text)? };
    }
    for (text, id) in added {
        tokens[*id as usize] = text.clone().into_bytes();
    }
    special.sort_unstable();
    let pair = |line: &&str| {
        let parts = line.split_once(' ').and_then(|(a, b)| Some((*vocab.get(a)?, *vocab.get(b)?)));
        parts.ok_or_else(|| SpecError::malformed("merges", format!("`{line}` is not a pair of known tokens")))
    };
    let merges = merges.iter().map(pair).collect::<Result<Vec<_>>>()?;
    Tokenizer::from_merges(tokens, &merges, special)
}
