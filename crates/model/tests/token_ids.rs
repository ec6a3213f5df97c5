//! Token ids are those of the Python package `tokenizers` (`peers/tokenizers/ids.py` makes the
//! expected ones).

use std::path::{Path, PathBuf};

use cipherlm_model::Tokenizer;
use cipherlm_model::import::Checkpoint;
use serde_json::Value;

#[test]
fn ids_and_texts_are_those_of_the_python_package() {
    let file: Value = serde_json::from_str(include_str!("data/token_ids.json")).unwrap();
    let families = file.as_array().unwrap();
    assert_eq!(families.len(), 3);
    for family in families {
        let name = family["name"].as_str().unwrap();
        let tokenizer = Tokenizer::from_json(&family["tokenizer"].to_string()).unwrap();
        // The own format carries the whole rule.
        let again = Tokenizer::from_json(&tokenizer.to_json().unwrap()).unwrap();
        for case in family["cases"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let want: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            assert_eq!(tokenizer.encode(text).unwrap(), want, "{name}: {text:?}");
            assert_eq!(again.encode(text).unwrap(), want, "{name}: {text:?}");
            assert_eq!(again.decode(&want).unwrap(), case["decoded"].as_str().unwrap(), "{name}: {text:?}");
        }
    }
}

/// As `made_lines` of the script.
fn made_lines(words: &[Value], count: usize) -> Vec<String> {
    let mut state = 20_261_129u64;
    let mut below = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let list = |kind: &Value, field: &str| kind[field].as_array().unwrap().clone();
    let mut line = || {
        let kind = &words[below(words.len())];
        let (own, between) = (list(kind, "words"), list(kind, "between"));
        let mut out = String::new();
        for _ in 0..1 + below(14) {
            out.push_str(own[below(own.len())].as_str().unwrap());
            if below(5) == 0 {
                let other = list(&words[below(words.len())], "words");
                out.push_str(other[below(other.len())].as_str().unwrap());
            }
            if below(6) == 0 {
                out.push_str(&below(100_000).to_string());
            }
            out.push_str(between[below(between.len())].as_str().unwrap());
        }
        out
    };
    (0..count).map(|_| line()).collect()
}

/// FNV-1a of ids as four bytes each, a row ended by `u32::MAX`.
fn fnv(rows: impl Iterator<Item = Vec<u32>>) -> String {
    let ids = rows.flat_map(|row| row.into_iter().chain([u32::MAX]));
    let bytes = ids.flat_map(u32::to_le_bytes);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}

/// 2,000 lines of eight scripts, code and emoji under public tokenizers, where they are at hand:
/// below the folder that `CIPHERLM_BASE` names, or `models/base`.
#[test]
fn public_tokenizers_give_the_ids_of_the_python_package() {
    let words: Vec<Value> = serde_json::from_str(include_str!("data/token_words.json")).unwrap();
    let want: Value = serde_json::from_str(include_str!("data/token_hashes.json")).unwrap();
    let lines = made_lines(&words, 2000);
    let bytes = lines.iter().map(|line| line.bytes().map(u32::from).collect());
    assert_eq!(fnv(bytes), want["text"].as_str().unwrap(), "the lines are not those of the script");
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/base");
    let base = std::env::var_os("CIPHERLM_BASE").map_or(here, PathBuf::from);
    for (place, want) in want["tokenizers"].as_object().unwrap() {
        let path = base.join(place);
        if !path.exists() {
            println!("{place}: skipped, not below CIPHERLM_BASE (see cargo xtask fetch)");
            continue;
        }
        let tokenizer = if place.ends_with(".gguf") {
            Checkpoint::open(&path).unwrap().tokenizer().unwrap().clone()
        } else if path.is_dir() {
            let read = |name: &str| std::fs::read_to_string(path.join(name)).unwrap();
            Tokenizer::from_gpt2(&read("vocab.json"), &read("merges.txt")).unwrap()
        } else {
            Tokenizer::load(&path).unwrap()
        };
        let ids: Vec<Vec<u32>> = lines.iter().map(|line| tokenizer.encode(line).unwrap()).collect();
        let count: usize = ids.iter().map(Vec::len).sum();
        println!("{place}: {} lines, {count} ids", lines.len());
        assert_eq!(count as u64, want["ids"].as_u64().unwrap(), "{place}");
        assert_eq!(fnv(ids.into_iter()), want["hash"].as_str().unwrap(), "{place}");
    }
}

/// Any folder of tokenizers against ids of `peers/tokenizers/ids.py lines`, where both are at hand:
/// `TOKENIZER=… TEXT=… IDS=… cargo test -p cipherlm-model --test token_ids -- --ignored`.
#[test]
#[ignore = "needs a public tokenizer and its ids"]
fn ids_of_a_public_tokenizer() {
    let path = |name: &str| std::env::var(name).unwrap();
    let file = path("TOKENIZER");
    let tokenizer = if file.ends_with(".txt") {
        Tokenizer::from_word_pieces(&std::fs::read_to_string(&file).unwrap(), true).unwrap()
    } else {
        Tokenizer::load(file.as_ref()).unwrap()
    };
    let (text, ids) =
        (std::fs::read_to_string(path("TEXT")).unwrap(), std::fs::read_to_string(path("IDS")).unwrap());
    let mut count = 0;
    for (line, want) in text.trim_end_matches('\n').split('\n').zip(ids.split('\n')) {
        let found: Vec<String> = tokenizer.encode(line).unwrap().iter().map(u32::to_string).collect();
        assert_eq!(found.join(" "), want, "{line:?}");
        count += 1;
    }
    println!("{count} lines, all ids equal");
    assert!(count > 0);
}
