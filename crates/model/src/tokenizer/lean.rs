//! Byte-level BPE with GPT-2's cutting rule, and nothing else of the Hugging Face format: what runs
//! in browsers, where the `tokenizers` crate would be three quarters of the program. Ids are those
//! of the crate; a file that asks for anything else is refused.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::added::added_tokens;
use super::bytes::{from_printable, to_printable};
use super::classes::{is_letter, is_number};
use crate::error::{Error, Result};

#[derive(Clone)]
pub(super) struct Library {
    /// The file.
    root: Value,
    /// Ids of texts in GPT-2's printable characters.
    ids: HashMap<String, u32>,
    /// Texts of ids.
    texts: HashMap<u32, String>,
    /// Rank and outcome of each pair that is merged.
    merges: HashMap<(u32, u32), (usize, u32)>,
    /// Whether a word that is a token is taken as it is.
    whole_words: bool,
    /// Tokens that are found in a text before it is cut, as they are written.
    added: Vec<(u32, String, bool)>,
    size: usize,
}

fn refuse(reason: impl ToString) -> Error {
    Error::malformed("tokenizer.json", reason)
}

/// A field that is absent, null or empty.
fn is_nothing(value: &Value) -> bool {
    value.is_null() || *value == false || *value == ""
}

impl Library {
    /// Reads a `tokenizer.json`. Its truncation and padding are dropped.
    pub(super) fn from_value(root: Value) -> Result<Self> {
        check_rules(&root)?;
        let model = &root["model"];
        let vocab = model["vocab"].as_object().ok_or_else(|| refuse("its model has no vocabulary"))?;
        let mut ids = ids_of(vocab)?;
        let mut texts = HashMap::new();
        for (text, &id) in &ids {
            if texts.insert(id, text.clone()).is_some() {
                return Err(refuse(format!("the id {id} of {text:?} stands twice")));
            }
        }
        if let Some(byte) = (0..=255u8).find(|&byte| !ids.contains_key(&to_printable(&[byte]))) {
            return Err(refuse(format!("byte {byte} has no token")));
        }
        let merges = merges_of(model, &ids)?;
        let flags = root["added_tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut added = vec![];
        for ((id, text), flags) in added_tokens(&root)?.into_iter().zip(flags) {
            if *ids.entry(text.clone()).or_insert(id) != id
                || *texts.entry(id).or_insert(text.clone()) != text
            {
                return Err(refuse(format!(
                    "added token {text:?} has id {id}, and the vocabulary says another"
                )));
            }
            added.push((id, text, flags["special"] == true));
        }
        let size = texts.keys().max().map_or(0, |&id| id as usize + 1);
        let whole_words = model["ignore_merges"] == true;
        Ok(Self { ids, texts, merges, whole_words, added, size, root })
    }

    pub(super) fn to_value(&self) -> Result<Value> {
        Ok(self.root.clone())
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// Ids of the special added tokens with their text.
    pub(super) fn special(&self) -> impl Iterator<Item = (u32, String)> {
        self.added.iter().filter(|(_, _, special)| *special).map(|(id, text, _)| (*id, text.clone()))
    }

    /// The ids of a text. This format puts no marks around it.
    pub(super) fn encode(&self, text: &str, _marks: bool) -> Result<Vec<u32>> {
        let (mut out, mut rest) = (vec![], text);
        while !rest.is_empty() {
            let (before, token) = self.next_added(rest);
            let mut plain = &rest[..before];
            while !plain.is_empty() {
                let (word, after) = plain.split_at(word_length(plain));
                self.encode_word(word, &mut out);
                plain = after;
            }
            let Some((id, length)) = token else { break };
            out.push(id);
            rest = &rest[before + length..];
        }
        Ok(out)
    }

    /// Where the next added token begins, or the end; which one it is, and its length: of those
    /// that begin there the longest.
    fn next_added(&self, text: &str) -> (usize, Option<(u32, usize)>) {
        let found =
            self.added.iter().filter_map(|(id, content, _)| Some((text.find(content)?, *id, content.len())));
        let first = found.min_by_key(|&(at, _, length)| (at, usize::MAX - length));
        first.map_or((text.len(), None), |(at, id, length)| (at, Some((id, length))))
    }

    /// Merges a word's bytes, of the pairs that can be merged always the first of the lowest rank.
    fn encode_word(&self, word: &str, out: &mut Vec<u32>) {
        if let Some(&id) = self.ids.get(&to_printable(word.as_bytes())).filter(|_| self.whole_words) {
            return out.push(id);
        }
        // Every byte has a token.
        let mut ids: Vec<u32> =
            word.bytes().filter_map(|byte| self.ids.get(&to_printable(&[byte])).copied()).collect();
        let pair = |pair: &[u32]| self.merges.get(&(pair[0], pair[1])).copied();
        loop {
            let ranked =
                ids.windows(2).enumerate().filter_map(|(at, two)| pair(two).map(|(rank, id)| (rank, at, id)));
            let Some((_, at, id)) = ranked.min() else { break };
            ids.splice(at..at + 2, [id]);
        }
        out.extend(ids);
    }

    /// Bytes of a token.
    pub(super) fn bytes(&self, token: u32) -> Option<Vec<u8>> {
        let text = self.texts.get(&token)?;
        // Added tokens are plain text.
        let added = self.added.iter().any(|(id, ..)| *id == token);
        if added { Some(text.clone().into_bytes()) } else { from_printable(text).ok() }
    }

    pub(super) fn decode(&self, tokens: &[u32]) -> Result<String> {
        let texts = tokens.iter().filter_map(|token| self.texts.get(token));
        let bytes: Vec<u8> = texts
            .flat_map(|text| from_printable(text).unwrap_or_else(|_| text.clone().into_bytes()))
            .collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Refuses rules that this code does not have.
fn check_rules(root: &Value) -> Result<()> {
    let (cut, model) = (&root["pre_tokenizer"], &root["model"]);
    let level = |rule: &Value| rule["type"] == "ByteLevel";
    let plain = |token: &Value| {
        let rules = ["single_word", "lstrip", "rstrip"];
        rules.iter().all(|rule| is_nothing(&token[rule])) && token["content"] != ""
    };
    let added = root["added_tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
    let options =
        ["dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"];
    for (wanted, what) in [
        (is_nothing(&root["normalizer"]), "a normaliser"),
        (level(cut) && cut["add_prefix_space"] == false && cut["use_regex"] != false, "another cutting rule"),
        (root["post_processor"].is_null() || level(&root["post_processor"]), "marks around a text"),
        (level(&root["decoder"]), "another decoder"),
        (model["type"] == "BPE", "another model than BPE"),
        (options.iter().all(|option| is_nothing(&model[option])), "options of BPE"),
        (added.iter().all(plain), "added tokens with rules"),
        (
            added.windows(2).all(|two| two[0]["normalized"] == two[1]["normalized"]),
            "two kinds of added tokens",
        ),
    ] {
        if !wanted {
            let advice = "in a browser byte-level BPE runs alone: use the `cipherlm` command with this model";
            return Err(refuse(format!("it has {what}, and {advice}")));
        }
    }
    Ok(())
}

fn ids_of(vocab: &Map<String, Value>) -> Result<HashMap<String, u32>> {
    let entry = |(text, id): (&String, &Value)| {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|&id| id < 1 << 22);
        id.map(|id| (text.clone(), id))
            .ok_or_else(|| refuse(format!("the id of {text:?} is no small number")))
    };
    vocab.iter().map(entry).collect()
}

fn merges_of(model: &Value, ids: &HashMap<String, u32>) -> Result<HashMap<(u32, u32), (usize, u32)>> {
    let list = model["merges"].as_array().ok_or_else(|| refuse("its model has no merges"))?;
    let merge = |(rank, entry): (usize, &Value)| {
        let pair = match entry.as_str() {
            Some(text) => text.split_once(' '),
            None => entry[0].as_str().zip(entry[1].as_str()),
        };
        let id = |text: &str| ids.get(text).copied();
        let found = pair.and_then(|(a, b)| Some(((id(a)?, id(b)?), (rank, id(&format!("{a}{b}"))?))));
        found.ok_or_else(|| refuse(format!("merge {rank} is not of two known tokens that make one")))
    };
    list.iter().enumerate().map(merge).collect()
}

/// Length of the first word of a text that is not empty, by GPT-2's rule:
/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
fn word_length(text: &str) -> usize {
    let endings = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];
    if let Some(ending) = endings.iter().find(|ending| text.starts_with(**ending)) {
        return ending.len();
    }
    let body = text.strip_prefix(' ').unwrap_or(text);
    let space = text.len() - body.len();
    let other = |c: char| !c.is_whitespace() && !is_letter(c) && !is_number(c);
    for class in [is_letter as fn(char) -> bool, is_number, other] {
        let length = body.find(|c| !class(c)).unwrap_or(body.len());
        if length > 0 {
            return space + length;
        }
    }
    let blank = text.find(|c: char| !c.is_whitespace()).unwrap_or(text.len());
    let last = text[..blank].chars().next_back().map_or(0, char::len_utf8);
    // The last one of several goes to the word behind it.
    if blank < text.len() && blank > last { blank - last } else { blank }
}

#[cfg(test)]
mod tests {
    use super::super::whole::Library as Whole;
    use super::*;
    use serde_json::json;

    const SHIPPED: [&str; 2] = [
        include_str!("../../../../models/tiny/tokenizer.json"),
        include_str!("../../../../models/stories-2x128/tokenizer.json"),
    ];

    /// A shipped tokenizer as both sides read it: as the server hands it on.
    fn both(text: &str) -> (Whole, Library) {
        let json = super::super::Tokenizer::from_json(text).unwrap().to_json().unwrap();
        let root = serde_json::from_str::<Value>(&json).unwrap()["hugging_face"].take();
        (Whole::from_value(root.clone()).unwrap(), Library::from_value(root).unwrap())
    }

    fn agree(whole: &Whole, lean: &Library, text: &str) {
        let ids = whole.encode(text, true).unwrap();
        assert_eq!(lean.encode(text, true).unwrap(), ids, "{text:?}");
        assert_eq!(lean.decode(&ids).unwrap(), whole.decode(&ids).unwrap(), "{text:?}");
    }

    #[test]
    fn texts_have_the_ids_that_the_whole_library_gives_them() {
        let pieces = [
            " ",
            "  ",
            "\n",
            "\t",
            "\u{a0}",
            "\u{3000}",
            "'s",
            "'ll",
            "'S",
            "'",
            "the",
            "Once",
            " upon",
            "a",
            "12",
            "\u{0663}",
            "\u{2160}",
            "é",
            "e\u{301}",
            "中文",
            "🙂",
            "!?",
            "...",
            "<|endoftext|>",
            "<|end",
            "|>",
            "\0",
            "ß",
        ];
        let mut state = 7u64;
        let mut draw = |below: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % below
        };
        for text in SHIPPED {
            let (whole, lean) = both(text);
            assert_eq!((lean.size(), lean.id("a")), (whole.size(), whole.id("a")));
            for id in 0..whole.size() as u32 + 2 {
                assert_eq!(lean.bytes(id), whole.bytes(id), "{id}");
            }
            let special: Vec<_> = whole.special().collect();
            assert_eq!(lean.special().collect::<Vec<_>>(), special);
            for _ in 0..3000 {
                let text: String = (0..draw(9)).map(|_| pieces[draw(pieces.len())]).collect();
                agree(&whole, &lean, &text);
            }
        }
    }

    /// Merges would join what the rule cuts: a letter, a number and a space on each side show it.
    fn agree_on(characters: impl Iterator<Item = char>) {
        let (whole, lean) = both(SHIPPED[0]);
        let characters: Vec<char> = characters.collect();
        for some in characters.chunks(512) {
            let text: String = some.iter().map(|c| format!("a{c}b 1{c}2 {c}{c} ,{c}.")).collect();
            agree(&whole, &lean, &text);
        }
    }

    #[test]
    fn characters_are_cut_as_the_whole_library_cuts_them() {
        let near = |c: &char| {
            let class = |c: u32| char::from_u32(c).map(|c| (is_letter(c), is_number(c)));
            let own = *c as u32;
            class(own) != class(own + 1) || class(own) != class(own.saturating_sub(1))
        };
        agree_on(('\0'..='\u{3100}').chain(('\u{3101}'..=char::MAX).filter(near)));
        agree_on(('\0'..=char::MAX).step_by(151));
    }

    #[test]
    #[ignore = "a minute and a half"]
    fn slow_every_character_is_cut_as_the_whole_library_cuts_it() {
        agree_on('\0'..=char::MAX);
    }

    #[test]
    fn rules_that_it_does_not_have_are_refused() {
        let (_, lean) = both(SHIPPED[0]);
        let root = lean.to_value().unwrap();
        assert!(Library::from_value(root.clone()).is_ok());
        for (place, other) in [
            ("/normalizer", json!({"type": "NFC"})),
            ("/pre_tokenizer/add_prefix_space", json!(true)),
            ("/pre_tokenizer/use_regex", json!(false)),
            ("/pre_tokenizer", json!({"type": "Whitespace"})),
            ("/post_processor", json!({"type": "BertProcessing"})),
            ("/decoder", json!(null)),
            ("/model/type", json!("WordPiece")),
            ("/model/unk_token", json!("?")),
            ("/model/byte_fallback", json!(true)),
            ("/model/merges/0", json!(["?!", "a"])),
            ("/model/vocab/a", json!(-1)),
            ("/model/vocab/a", json!(5)),
            ("/model/vocab", json!({"a": 0})),
            ("/added_tokens/0/id", json!(1)),
            ("/added_tokens/0/lstrip", json!(true)),
        ] {
            let mut edited = root.clone();
            *edited.pointer_mut(place).unwrap_or_else(|| panic!("{place}")) = other;
            assert!(Library::from_value(edited).is_err(), "{place}");
        }
    }
}
