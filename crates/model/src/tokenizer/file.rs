//! Tokenizer files: the own format in both versions, Hugging Face's, llama2.c's.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bytes::{from_printable, to_printable};
use super::library::{self, Library};
use super::scored::{Scored, byte_of};
use super::{END_OF_TEXT, Rule, Tokenizer};
use crate::error::{Error, Result};

const FORMAT: &str = "cipherlm-tokenizer";
const VERSION: u32 = 2;

/// Version 1: tokens with bytes as printable characters, merges as pairs of ids or scores.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileV1 {
    #[serde(rename = "format")]
    _format: String,
    #[serde(rename = "version")]
    _version: u32,
    tokens: Vec<String>,
    #[serde(default)]
    merges: Vec<(u32, u32)>,
    #[serde(default)]
    scores: Vec<f32>,
    #[serde(default)]
    special: Vec<u32>,
}

/// Version 2: marks, and exactly one of the two rules.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    version: u32,
    begin: Option<u32>,
    ends: Vec<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hugging_face: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scored: Option<ScoredFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScoredFile {
    tokens: Vec<String>,
    scores: Vec<f32>,
    /// Token of each byte.
    bytes: Vec<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    special: Vec<u32>,
    /// A space goes before a text.
    space: bool,
}

fn refuse(reason: impl ToString) -> Error {
    Error::malformed("tokenizer", reason)
}

pub(super) fn parse(text: &str) -> Result<Tokenizer> {
    let root: Value = serde_json::from_str(crate::error::without_mark(text)).map_err(refuse)?;
    let Some(format) = root.get("format") else {
        if root["model"].is_object() {
            return Tokenizer::from_library(Library::from_value(root)?, None, None);
        }
        return Err(refuse("neither a `format` nor a `model`: not a tokenizer file"));
    };
    let version = root["version"].as_u64().unwrap_or(0);
    if format != FORMAT || !(1..=u64::from(VERSION)).contains(&version) {
        let found = format.as_str().unwrap_or_default();
        return Err(refuse(format!(
            "format {found} version {version}, expected {FORMAT}, version 1 to {VERSION}"
        )));
    }
    if version == 1 { version_1(root) } else { version_2(root) }
}

fn version_1(root: Value) -> Result<Tokenizer> {
    let file: FileV1 = serde_json::from_value(root).map_err(refuse)?;
    let tokens = file.tokens.iter().map(|t| from_printable(t)).collect::<Result<Vec<_>>>()?;
    if file.special.iter().any(|&id| id as usize >= tokens.len()) {
        return Err(refuse("a special id is outside the vocabulary"));
    }
    if file.scores.is_empty() {
        return from_merges(&tokens, &file.merges, &file.special);
    }
    from_llama2c_tokens(tokens, file.scores)
}

/// A byte-level BPE of this project's own training. The end-of-text mark ends a text.
pub(super) fn from_merges(tokens: &[Vec<u8>], merges: &[(u32, u32)], special: &[u32]) -> Result<Tokenizer> {
    let end = tokens.iter().position(|t| t == END_OF_TEXT.as_bytes()).map(|id| id as u32);
    let rule = library::byte_bpe(tokens, merges, special)?;
    Tokenizer::from_library(rule, None, Some(end.into_iter().collect()))
}

fn version_2(root: Value) -> Result<Tokenizer> {
    let file: File = serde_json::from_value(root).map_err(refuse)?;
    let tokenizer = match (file.hugging_face, file.scored) {
        (Some(value), None) => Tokenizer::from_library(Library::from_value(value)?, None, Some(vec![]))?,
        (None, Some(scored)) => {
            let tokens = scored.tokens.iter().map(|t| from_printable(t)).collect::<Result<Vec<_>>>()?;
            let bytes: Box<[u32; 256]> =
                scored.bytes.into_boxed_slice().try_into().map_err(|found: Box<[u32]>| {
                    refuse(format!("{} byte tokens, expected 256", found.len()))
                })?;
            let rule = Box::new(Scored::new(tokens, scored.scores, bytes, scored.special)?);
            Tokenizer { rule: Rule::Scored { rule, space: scored.space }, begin: None, ends: vec![] }
        }
        (a, b) => {
            let rules = usize::from(a.is_some()) + usize::from(b.is_some());
            return Err(refuse(format!("{rules} rules, expected `hugging_face` or `scored`")));
        }
    };
    tokenizer.with_marks(file.begin, file.ends)
}

pub(super) fn write(tokenizer: &Tokenizer) -> Result<String> {
    let (hugging_face, scored) = match &tokenizer.rule {
        Rule::Library(library) => (Some(library.to_value()?), None),
        Rule::Scored { rule, space } => {
            let tokens = rule.tokens.iter().map(|t| to_printable(t)).collect();
            let (scores, bytes, special) = (rule.scores.clone(), rule.bytes.to_vec(), rule.special.clone());
            let file = ScoredFile { tokens, scores, bytes, special, space: *space };
            (None, Some(file))
        }
    };
    let (begin, ends) = (tokenizer.begin, tokenizer.ends.clone());
    let file = File { format: FORMAT.into(), version: VERSION, begin, ends, hugging_face, scored };
    serde_json::to_string(&file).map_err(refuse)
}

pub(super) fn llama2c(bytes: &[u8]) -> Result<Tokenizer> {
    let short = || Error::malformed("llama2.c tokenizer", "the file ends inside a token");
    let mut rest = bytes.get(4..).ok_or_else(short)?;
    let (mut tokens, mut scores) = (vec![], vec![]);
    while !rest.is_empty() {
        let (head, tail) = rest.split_at_checked(8).ok_or_else(short)?;
        let score = f32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let (token, tail) = tail.split_at_checked(length).ok_or_else(short)?;
        rest = tail;
        tokens.push(byte_of(token).map_or_else(|| token.to_vec(), |b| vec![b]));
        scores.push(score);
    }
    from_llama2c_tokens(tokens, scores)
}

/// llama2.c's layout: unknown, begin, end, then the 256 bytes. Its generator stops at the begin
/// mark too.
fn from_llama2c_tokens(tokens: Vec<Vec<u8>>, scores: Vec<f32>) -> Result<Tokenizer> {
    if tokens.len() < 259 {
        return Err(refuse(format!("{} tokens, at least 259: three marks and the bytes", tokens.len())));
    }
    if let Some(byte) = (0..=255u8).find(|&b| tokens[usize::from(b) + 3] != [b]) {
        let id = usize::from(byte) + 3;
        return Err(refuse(format!("token {id} stands for byte {byte} and reads otherwise")));
    }
    let bytes = Box::new(std::array::from_fn(|b| b as u32 + 3));
    let rule = Box::new(Scored::new(tokens, scores, bytes, vec![])?);
    Tokenizer { rule: Rule::Scored { rule, space: true }, begin: None, ends: vec![] }
        .with_marks(Some(1), vec![1, 2])
}
