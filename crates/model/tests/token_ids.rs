//! Token ids are those of the Python package `tokenizers` (`peers/tokenizers/ids.py` makes the
//! expected ones).

use cipherlm_model::Tokenizer;
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
