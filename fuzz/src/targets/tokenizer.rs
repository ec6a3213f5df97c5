//! Tokenizer files: our own, GPT-2's two, Hugging Face's one, and that of llama2.c.

use cipherlm_model::{Result, Tokenizer};
use serde_json::json;

use super::{Target, Verdict, binary_ceiling, json_ceiling};
use crate::engine::Probe;
use crate::mutate::{join, json as edit, split};
use crate::rng::Rng;

const TEXTS: [&str; 4] = ["the cat sat", "  é🦀 \n1234", "<|endoftext|>th<|endoftext|>", "\u{1b}[2J\u{0}"];

/// What every tokenizer promises: known ids, and the same ids after saving. One that holds all
/// bytes and changes no text (`whole`) also gives the text again.
fn check(found: Result<Tokenizer>, whole: bool) -> Verdict {
    let tokenizer = match found {
        Ok(tokenizer) => tokenizer,
        Err(error) => return Verdict::Refused(error.to_string()),
    };
    let again = match tokenizer.to_json().and_then(|text| Tokenizer::from_json(&text)) {
        Ok(again) => again,
        Err(error) => return Verdict::Wrong(format!("accepted; saved, it is refused: {error}")),
    };
    for text in TEXTS {
        let (ids, other) = (tokenizer.encode(text), again.encode(text));
        let Ok(ids) = ids else { continue };
        if other.ok().as_ref() != Some(&ids) {
            return Verdict::Wrong(format!("saved and loaded, it encodes {text:?} otherwise"));
        }
        match tokenizer.decode(&ids) {
            Ok(back) if back == text || !whole => {}
            Ok(back) => return Verdict::Wrong(format!("{text:?} comes back as {back:?}")),
            Err(error) => return Verdict::Wrong(format!("its own ids are refused: {error}")),
        }
    }
    Verdict::Accepted
}

fn trained() -> anyhow::Result<Tokenizer> {
    Ok(Tokenizer::train(&"the cat sat on the mat; it's 1234. ".repeat(8), 262)?)
}

/// A scored vocabulary with all bytes and a few words.
fn scored() -> Vec<u8> {
    let mut out = 8i32.to_le_bytes().to_vec();
    let mut push = |score: f32, token: &[u8]| {
        out.extend(score.to_le_bytes());
        out.extend((token.len() as u32).to_le_bytes());
        out.extend_from_slice(token);
    };
    ["<unk>", "\n<s>\n", "\n</s>\n"].iter().for_each(|t| push(0.0, t.as_bytes()));
    (0..256).for_each(|byte| push(0.0, format!("<0x{byte:02X}>").as_bytes()));
    let words =
        [(-1.0, " t"), (-2.0, "he"), (-3.0, " the"), (-9.0, " "), (-9.0, "t"), (-9.0, "h"), (-9.0, "e")];
    words.iter().for_each(|(score, token)| push(*score, token.as_bytes()));
    out
}

/// GPT-2's character for each byte: itself where it prints, else one from U+0100 on.
fn byte_names() -> Vec<String> {
    let prints = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut hidden = 0x100u32..;
    let name = |b| if prints(b) { Some(char::from(b)) } else { hidden.next().and_then(char::from_u32) };
    (0..=255u8).filter_map(name).map(String::from).collect()
}

fn vocabulary() -> serde_json::Map<String, serde_json::Value> {
    let mut names = byte_names();
    names.extend(["th".into(), "the".into(), "<|endoftext|>".into()]);
    names.into_iter().enumerate().map(|(id, name)| (name, json!(id))).collect()
}

/// Memory of the `tokenizers` crate, whose tables take more than a value tree.
fn library_ceiling(length: usize) -> usize {
    4 * json_ceiling(length)
}

/// `tokenizer.json` of a model folder.
pub(crate) struct Own;

impl Target for Own {
    fn seeds(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        Ok(vec![
            trained()?.to_json()?.into_bytes(),
            Tokenizer::from_llama2c(&scored())?.to_json()?.into_bytes(),
        ])
    }

    fn mutate(&self, input: &mut Vec<u8>, pool: &[Vec<u8>], rng: &mut Rng) {
        edit(input, pool, rng);
    }

    fn run(&self, input: &[u8], probe: &mut Probe) -> Verdict {
        let Ok(text) = str::from_utf8(input) else { return Verdict::Refused("not UTF-8".into()) };
        check(probe.parse(|| Tokenizer::from_json(text)), false)
    }

    fn ceiling(&self, length: usize) -> usize {
        library_ceiling(length)
    }
}

/// `vocab.json` and `merges.txt`.
pub(crate) struct Gpt2;

impl Target for Gpt2 {
    fn seeds(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        let merges = b"#version: 0.2\nt h\nth e\n".to_vec();
        Ok(vec![join(&[serde_json::to_vec(&vocabulary())?, merges])])
    }

    fn mutate(&self, input: &mut Vec<u8>, pool: &[Vec<u8>], rng: &mut Rng) {
        let mut parts = split(input, 2);
        if rng.one_in(3) {
            crate::mutate::bytes(&mut parts[1], &[], rng)
        } else {
            edit(&mut parts[0], &[], rng)
        }
        let other = rng.pick(pool).filter(|_| rng.one_in(16)).map(|other| split(other, 2));
        if let Some(other) = other {
            parts[1].clone_from(&other[1]);
        }
        *input = join(&parts);
    }

    fn run(&self, input: &[u8], probe: &mut Probe) -> Verdict {
        let parts = split(input, 2);
        let (Ok(vocab), Ok(merges)) = (str::from_utf8(&parts[0]), str::from_utf8(&parts[1])) else {
            return Verdict::Refused("not UTF-8".into());
        };
        check(probe.parse(|| Tokenizer::from_gpt2(vocab, merges)), true)
    }

    fn ceiling(&self, length: usize) -> usize {
        library_ceiling(length)
    }
}

/// `tokenizer.json` of Hugging Face.
pub(crate) struct HuggingFace;

impl Target for HuggingFace {
    fn seeds(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        let level =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        let file = |merges: serde_json::Value| -> anyhow::Result<Vec<u8>> {
            Ok(serde_json::to_vec(&json!({
                "version": "1.0", "truncation": null, "padding": null,
                "added_tokens": [{"id": 258, "content": "<|endoftext|>", "single_word": false,
                "lstrip": false,
                    "rstrip": false, "normalized": false, "special": true}],
                "normalizer": null, "pre_tokenizer": level, "post_processor": null, "decoder": level,
                "model": {"type": "BPE", "dropout": null, "unk_token": null,
                    "continuing_subword_prefix": null,
                    "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                    "ignore_merges": false,
                    "vocab": vocabulary(), "merges": merges},
            }))?)
        };
        Ok(vec![file(json!(["t h", "th e"]))?, file(json!([["t", "h"], ["th", "e"]]))?])
    }

    fn mutate(&self, input: &mut Vec<u8>, pool: &[Vec<u8>], rng: &mut Rng) {
        edit(input, pool, rng);
    }

    fn run(&self, input: &[u8], probe: &mut Probe) -> Verdict {
        let Ok(text) = str::from_utf8(input) else { return Verdict::Refused("not UTF-8".into()) };
        check(probe.parse(|| Tokenizer::from_json(text)), false)
    }

    fn ceiling(&self, length: usize) -> usize {
        library_ceiling(length)
    }
}

/// `tokenizer.bin` of llama2.c.
pub(crate) struct Llama2c;

impl Target for Llama2c {
    fn seeds(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        Ok(vec![scored()])
    }

    fn run(&self, input: &[u8], probe: &mut Probe) -> Verdict {
        check(probe.parse(|| Tokenizer::from_llama2c(input)), true)
    }

    fn ceiling(&self, length: usize) -> usize {
        // Each token of nine bytes or more becomes a vector and an entry of a table.
        binary_ceiling(length) + 24 * length
    }
}
