//! Tokenizers of public checkpoints with the marks that their descriptions name.

use std::path::Path;

use serde_json::{Value, json};

use super::config::Config;
use crate::error::{Error, Result};
use crate::tokenizer::{GgufVocabulary, Tokenizer};

/// Largest text file beside a checkpoint, bytes: the largest public tokenizers have about 30 MB.
const MAX_TEXT: u64 = 1 << 26;

/// The tokenizer of a Hugging Face folder, if it has one.
pub(super) fn of_folder(dir: &Path, config: &Config) -> Result<Option<Tokenizer>> {
    let read = |name: &str| -> Result<Option<String>> {
        let path = dir.join(name);
        if path.exists() { Ok(Some(cipherlm_files::read_text(&path, MAX_TEXT)?)) } else { Ok(None) }
    };
    let parsed = |name: &'static str| -> Result<Value> {
        let Some(text) = read(name)? else { return Ok(json!({})) };
        serde_json::from_str(&text).map_err(|e| Error::malformed(name, e))
    };
    let settings = parsed("tokenizer_config.json")?;
    let tokenizer =
        match (read("tokenizer.json")?, read("vocab.json")?, read("merges.txt")?, read("vocab.txt")?) {
            (Some(json), ..) => Tokenizer::from_json(&json)?,
            (None, Some(vocab), Some(merges), _) => Tokenizer::from_gpt2(&vocab, &merges)?,
            (None, _, _, Some(vocab)) => {
                let lower = settings.get("do_lower_case").and_then(Value::as_bool).unwrap_or(true);
                Tokenizer::from_word_pieces(&vocab, lower)?
            }
            _ if dir.join("tokenizer.model").exists() => {
                let reason = "SentencePiece files are not read: save the tokenizer as `tokenizer.json`";
                return Err(Error::malformed("tokenizer.model", reason));
            }
            _ => return Ok(None),
        };
    if config.text("model_type") == Some("bert") {
        return tokenizer.with_marks(None, vec![]).map(Some);
    }
    let generation = parsed("generation_config.json")?;
    let numbered = |field: &str| -> Vec<u32> {
        let one = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
        let all = |v: &Value| {
            v.as_array()
                .map_or_else(|| one(v).into_iter().collect(), |list| list.iter().filter_map(one).collect())
        };
        let found: Vec<Vec<u32>> =
            [generation.get(field), config.get(field)].into_iter().flatten().map(all).collect();
        found.concat()
    };
    let spelled = |field: &str| {
        let token = settings.get(field)?;
        tokenizer.id(token.as_str().or_else(|| token.get("content")?.as_str())?)
    };
    let mut ends: Vec<u32> = numbered("eos_token_id").into_iter().chain(spelled("eos_token")).collect();
    if ends.is_empty() {
        ends = tokenizer.ends().to_vec();
    }
    ends.sort_unstable();
    ends.dedup();
    // A begin mark counts where the tokenizer itself puts it.
    let begin = spelled("bos_token").or_else(|| numbered("bos_token_id").first().copied());
    let first = tokenizer.encode("")?.first().copied();
    tokenizer.with_marks(begin.filter(|id| first == Some(*id)), ends).map(Some)
}

/// The tokenizer inside a GGUF file.
pub(super) fn of_gguf(config: &Config) -> Result<Option<Tokenizer>> {
    let of = |field: &str| format!("tokenizer.ggml.{field}");
    let list = |field: &str| config.get(&of(field)).and_then(Value::as_array);
    let Some(tokens) = list("tokens") else { return Ok(None) };
    let texts = |values: &[Value]| -> Vec<String> {
        values.iter().map(|v| v.as_str().unwrap_or_default().to_owned()).collect()
    };
    let id =
        |field: &str| config.get(&of(field)).and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
    let scored = config.text(&of("model")) == Some("llama");
    let mut ends: Vec<u32> = ["eos_token_id", "eot_token_id"].into_iter().filter_map(id).collect();
    ends.sort_unstable();
    ends.dedup();
    let vocabulary = GgufVocabulary {
        tokens: texts(tokens),
        kinds: list("token_type")
            .map(|v| v.iter().map(|k| k.as_u64().unwrap_or(1)).collect())
            .unwrap_or_default(),
        begin: id("bos_token_id").filter(|_| config.flag(&of("add_bos_token"), scored)),
        ends,
    };
    match config.text(&of("model")) {
        Some("gpt2") => {
            let merges = texts(list("merges").map(Vec::as_slice).unwrap_or_default());
            let pre = config.text(&of("pre")).unwrap_or("default");
            Tokenizer::from_gguf_merges(vocabulary, &merges, pre).map(Some)
        }
        Some("llama") => {
            let scores = list("scores").map(|v| v.iter().map(|s| s.as_f64().unwrap_or(0.0) as f32).collect());
            let space = config.flag(&of("add_space_prefix"), true);
            Tokenizer::from_gguf_scores(vocabulary, scores.unwrap_or_default(), space).map(Some)
        }
        other => {
            let reason = format!("is {other:?}; this program reads gpt2 and llama");
            Err(config.refuse(&of("model"), reason))
        }
    }
}
