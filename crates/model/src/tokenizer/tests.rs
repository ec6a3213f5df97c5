use super::*;
use bytes::to_printable;

fn sample() -> Tokenizer {
    let text =
        "the cat sat on the mat; the cat's hat is that.\n\nIt's 1234 O'clock — naïve café. ".repeat(20);
    Tokenizer::train(&text, 290).unwrap()
}

/// Vocabulary of all bytes with a few merges, as a Hugging Face file with some part added to it.
fn hugging_face(extra: &str) -> String {
    let mut vocab: Vec<String> = (0u8..=255).map(|b| to_printable(&[b])).collect();
    vocab.extend(["12", "Ġh", "he", "Ġhe"].map(String::from));
    let entries: Vec<String> = vocab
        .iter()
        .enumerate()
        .map(|(i, t)| format!("{}: {i}", serde_json::to_string(t).unwrap()))
        .collect();
    format!(
        r#"{{"version": "1.0", {extra} "decoder": {BYTE_LEVEL},
        "model": {{"type": "BPE", "vocab": {{{}}}, "merges": ["1 2", "h e", "Ġ he", "Ġ h"]}}}}"#,
        entries.join(", ")
    )
}

const BYTE_LEVEL: &str = r#"{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false}"#;

fn llama2c_file() -> Vec<u8> {
    let mut bytes = 8i32.to_le_bytes().to_vec();
    let mut push = |score: f32, token: &[u8]| {
        bytes.extend(score.to_le_bytes());
        bytes.extend((token.len() as i32).to_le_bytes());
        bytes.extend(token);
    };
    for token in ["<unk>", "\n<s>\n", "\n</s>\n"] {
        push(0.0, token.as_bytes());
    }
    (0..256).for_each(|b| push(0.0, format!("<0x{b:02X}>").as_bytes()));
    let words = [
        (-1.0, " a"),
        (-2.0, "ab"),
        (-3.0, " ab"),
        (-9.0, " "),
        (-9.0, "a"),
        (-9.0, "b"),
        (-4.0, "aa"),
        (-5.0, "aaa"),
    ];
    for (score, token) in words {
        push(score, token.as_bytes());
    }
    bytes
}

#[test]
fn any_text_round_trips_and_files_do_too() {
    let tokenizer = sample();
    let again = Tokenizer::from_json(&tokenizer.to_json().unwrap()).unwrap();
    assert_eq!(again.to_json().unwrap(), tokenizer.to_json().unwrap());
    for text in [
        "",
        "the cat",
        "  two  spaces \n\t x",
        "日本語 emoji 🦀",
        "<|endoftext|>a<|endoftext|>",
        "\u{0}\u{7f}",
    ] {
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        assert_eq!(again.encode(text).unwrap(), ids);
    }
    assert_eq!((tokenizer.vocab(), tokenizer.ends(), tokenizer.begin()), (290, &[289][..], None));
    assert_eq!(tokenizer.encode("<|endoftext|>").unwrap(), [289]);
    assert!(tokenizer.encode("the cat").unwrap().len() <= 3);
    assert!(matches!(tokenizer.decode(&[300]), Err(Error::UnknownToken { token: 300, .. })));
    assert_eq!(tokenizer.bytes(u32::from(b' ')), Some(b" ".to_vec()));
    assert_eq!(tokenizer.bytes(290), None);
}

#[test]
fn training_refuses_what_it_cannot_do() {
    assert!(matches!(Tokenizer::train("", 300), Err(Error::Empty)));
    assert!(Tokenizer::train("abc", 100).is_err());
    assert!(Tokenizer::train("abc", 400).is_err());
}

#[test]
fn gpt2_format() {
    // Ids in GPT-2's byte order, then two merges and the mark.
    let mut vocab: Vec<String> = (0u8..=255).map(|b| to_printable(&[b])).collect();
    vocab.extend(["th".into(), "the".into(), END_OF_TEXT.into()]);
    let entries: Vec<String> = vocab
        .iter()
        .enumerate()
        .map(|(i, t)| format!("{}: {i}", serde_json::to_string(t).unwrap()))
        .collect();
    let json = format!("{{{}}}", entries.join(", "));
    let tokenizer = Tokenizer::from_gpt2(&json, "#version: 0.2\nt h\nth e\n").unwrap();
    assert_eq!(tokenizer.encode("the<|endoftext|>th").unwrap(), [257, 258, 256]);
    assert_eq!(tokenizer.ends(), [258]);
    assert!(Tokenizer::from_gpt2(&json, "x y\n").is_err());
}

#[test]
fn version_1_files_keep_their_ids() {
    let mut tokens: Vec<String> = (0u8..=255).map(|b| to_printable(&[b])).collect();
    tokens.extend(["th".into(), "the".into(), END_OF_TEXT.into()]);
    let file = serde_json::json!({
        "format": "cipherlm-tokenizer", "version": 1, "tokens": tokens,
        "merges": [[116, 104], [256, 101]], "scores": [], "special": [258],
    });
    let tokenizer = Tokenizer::from_json(&file.to_string()).unwrap();
    assert_eq!(tokenizer.encode("the<|endoftext|> th").unwrap(), [257, 258, 32, 256]);
    assert!(tokenizer.is_end(258) && !tokenizer.is_end(257));
    let newer = file.to_string().replace("\"version\":1", "\"version\":3");
    assert!(Tokenizer::from_json(&newer).unwrap_err().to_string().contains("version 3"));
    let lost = file.to_string().replace("[256,101]", "[256,102]");
    assert!(Tokenizer::from_json(&lost).unwrap_err().to_string().contains("merge 1"));
}

#[test]
fn a_pre_tokenizer_of_the_file_is_used() {
    let digits = format!(
        r#""pre_tokenizer": {{"type":"Sequence",
        "pretokenizers":[{{"type":"Digits","individual_digits":true}},{BYTE_LEVEL}]}},"#
    );
    let ids =
        |extra: &str, text: &str| Tokenizer::from_json(&hugging_face(extra)).unwrap().encode(text).unwrap();
    assert_eq!(ids(&digits, "12"), [49, 50]);
    assert_eq!(ids(&format!(r#""pre_tokenizer": {BYTE_LEVEL},"#), "12"), [256]);
    let split = r#""pre_tokenizer": {"type":"Sequence",
        "pretokenizers":[{"type":"Split","behavior":"Isolated","invert":false,
        "pattern":{"Regex":"\\p{N}{1,1}| ?\\p{L}+|\\s+(?!\\S)|\\s+"}},
        {"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false,"use_regex":false}]},"#;
    assert_eq!(ids(split, "12 he"), [49, 50, 259]);
    let prefixed = BYTE_LEVEL.replacen("false", "true", 1);
    assert_eq!(ids(&format!(r#""pre_tokenizer": {prefixed},"#), "he"), [259]);
    let composed = format!(r#""normalizer": {{"type":"NFC"}}, "pre_tokenizer": {BYTE_LEVEL},"#);
    assert_eq!(ids(&composed, "e\u{301}"), [0xc3, 0xa9]);
}

#[test]
fn marks_of_a_post_processor_and_ends_by_name() {
    let added = |id: u32, text: &str| {
        format!(
            r#"{{"id":{id},"content":"{text}","single_word":false,"lstrip":false,"rstrip":false,
            "normalized":false,"special":true}}"#
        )
    };
    let file = hugging_face(&format!(
        r#""added_tokens": [{}, {}], "pre_tokenizer": {BYTE_LEVEL},
        "post_processor": {{"type":"TemplateProcessing",
        "single":[{{"SpecialToken":{{"id":"<s>","type_id":0}}}},{{"Sequence":{{"id":"A","type_id":0}}}}],
        "pair":[],
        "special_tokens":{{"<s>":{{"id":"<s>","ids":[260],"tokens":["<s>"]}}}}}},"#,
        added(260, "<s>"),
        added(261, "</s>")
    ));
    let tokenizer = Tokenizer::from_json(&file).unwrap();
    assert_eq!(tokenizer.encode("he").unwrap(), [260, 258]);
    assert_eq!(tokenizer.encode_continuation("he").unwrap(), [258]);
    assert_eq!((tokenizer.ends(), tokenizer.vocab()), (&[261][..], 262));
    let marked = tokenizer.with_marks(Some(260), vec![261]).unwrap();
    let again = Tokenizer::from_json(&marked.to_json().unwrap()).unwrap();
    assert_eq!((again.begin(), again.ends()), (Some(260), &[261][..]));
    assert_eq!(again.decode(&again.encode("he </s>").unwrap()).unwrap(), "he </s>");
    assert!(matches!(again.with_marks(None, vec![262]), Err(Error::UnknownToken { token: 262, .. })));
    // A number that the vocabulary does not give would be another token without a word.
    let wrong = file.replacen("\"id\":261", "\"id\":300", 1);
    assert!(Tokenizer::from_json(&wrong).unwrap_err().to_string().contains("</s>"));
}

#[test]
fn word_pieces_lower_strip_accents_and_mark_both_ends() {
    let vocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\nwor\n##ld\n!\ncafe\n";
    let tokenizer = Tokenizer::from_word_pieces(vocab, true).unwrap();
    assert_eq!(tokenizer.encode("Hello WORLD! Café 東").unwrap(), [2, 5, 6, 7, 8, 9, 1, 3]);
    assert_eq!(tokenizer.decode(&[5, 6, 7, 8]).unwrap(), "hello world!");
    assert!(Tokenizer::from_word_pieces("[PAD]\nhello\n", true).unwrap_err().to_string().contains("[UNK]"));
}

#[test]
fn malformed_files_are_refused_not_panicked_on() {
    let good = hugging_face("");
    for (from, to) in
        [("\"BPE\"", "\"Quantum\""), ("\"1 2\"", "\"1 3x\""), ("\"version\": \"1.0\"", "\"version\": \"9\"")]
    {
        assert!(
            matches!(Tokenizer::from_json(&good.replacen(from, to, 1)), Err(Error::Malformed { .. })),
            "{to}"
        );
    }
    for text in ["", "{", "[]", "{\"model\": {}}", "{\"format\": 3}", "\u{feff}{}"] {
        assert!(matches!(Tokenizer::from_json(text), Err(Error::Malformed { .. })), "{text:?}");
    }
    let pairs =
        good.replacen(r#"["1 2", "h e", "Ġ he", "Ġ h"]"#, r#"[["1","2"],["h","e"],["Ġ","he"],["Ġ","h"]]"#, 1);
    assert!(
        Tokenizer::from_json(&pairs).unwrap().to_json().unwrap()
            == Tokenizer::from_json(&good).unwrap().to_json().unwrap()
    );
    assert!(
        Tokenizer::from_json(&format!("\u{feff}{good}")).is_ok(),
        "a byte-order mark before JSON is no fault"
    );
    let unknown = good.replacen("\"type\": \"BPE\"", "\"type\": \"BPE\", \"unk_token\": \"<none>\"", 1);
    assert!(Tokenizer::from_json(&unknown).unwrap_err().to_string().contains("<none>"));
}

#[test]
fn scored_format() {
    let bytes = llama2c_file();
    let tokenizer = Tokenizer::from_llama2c(&bytes).unwrap();
    assert_eq!(tokenizer.encode("ab").unwrap(), [1, 261]);
    assert_eq!(tokenizer.encode("aé").unwrap(), [1, 259, 3 + 0xc3, 3 + 0xa9]);
    assert_eq!(tokenizer.encode_continuation("ab").unwrap(), [260]);
    assert_eq!(tokenizer.decode(&[1, 259, 3 + 0xc3, 3 + 0xa9]).unwrap(), "aé");
    assert_eq!(tokenizer.encode_continuation("aaaaa").unwrap(), [265, 266]);
    let again = Tokenizer::from_json(&tokenizer.to_json().unwrap()).unwrap();
    assert_eq!(again.encode("ab aaaa").unwrap(), tokenizer.encode("ab aaaa").unwrap());
    assert_eq!((again.begin(), again.ends()), (Some(1), &[1, 2][..]), "generation stops at both marks");
    assert!(Tokenizer::from_llama2c(&bytes[..bytes.len() - 1]).is_err());
}

/// The rule as llama2.c writes it: scan all pairs, merge the best, again.
fn by_scanning(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let Rule::Scored { rule, .. } = &tokenizer.rule else { panic!("not scored") };
    let mut parts: Vec<Vec<u8>> = text.chars().map(|c| c.to_string().into_bytes()).collect();
    loop {
        let mut best: Option<(f32, usize)> = None;
        for i in 1..parts.len() {
            if let Some(id) = rule.id(&[&parts[i - 1][..], &parts[i]].concat())
                && best.is_none_or(|(score, _)| rule.scores[id as usize] > score)
            {
                best = Some((rule.scores[id as usize], i));
            }
        }
        let Some((_, i)) = best else { break };
        let right = parts.remove(i);
        parts[i - 1].extend(right);
    }
    parts.iter().map(|p| rule.id(p).unwrap()).collect()
}

#[test]
fn scored_merging_is_that_of_a_full_scan_and_fast() {
    let tokenizer = Tokenizer::from_llama2c(&llama2c_file()).unwrap();
    let mut state = 7u32;
    for length in 0..60 {
        let text: String = (0..length)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                ['a', 'b', ' ', 'a'][(state >> 28) as usize % 4]
            })
            .collect();
        assert_eq!(tokenizer.encode_continuation(&text).unwrap(), by_scanning(&tokenizer, &text), "{text:?}");
    }
    // The scan would take 10^10 steps here.
    let ids = tokenizer.encode(&"ab a ".repeat(40_000)).unwrap();
    assert_eq!(ids.len(), 1 + 40_000 * 2 + 1, "the mark, the words, the last space");
}

#[test]
fn a_stream_gives_whole_characters() {
    for tokenizer in [sample(), Tokenizer::from_llama2c(&llama2c_file()).unwrap()] {
        let text = "ab é🦀 b";
        let ids = tokenizer.encode_continuation(text).unwrap();
        let mut stream = tokenizer.stream(&[]).unwrap();
        let parts: Vec<String> = ids.iter().map(|&t| stream.push(t).unwrap()).collect();
        assert!(
            parts.iter().all(|p| !p.contains('\u{fffd}')) && parts.iter().any(String::is_empty),
            "{parts:?}"
        );
        assert_eq!(parts.concat(), text);
        assert!(matches!(stream.push(9999), Err(Error::UnknownToken { .. })));
        let mut cut = tokenizer.stream(&[]).unwrap();
        let half = (0..290).find(|&id| tokenizer.bytes(id) == Some(vec![0xc3])).unwrap();
        assert_eq!(cut.push(half).unwrap(), "");
        assert_eq!(cut.finish(), "\u{fffd}");
    }
    // Word pieces have no bytes of their own: the decoder's spaces must come all the same.
    let words = Tokenizer::from_word_pieces("[UNK]\n[CLS]\n[SEP]\nhello\nwor\n##ld\n", true).unwrap();
    let mut stream = words.stream(&[]).unwrap();
    let ids = [3, 4, 5].repeat(20);
    let text: String = ids.iter().map(|&t| stream.push(t).unwrap()).collect();
    assert_eq!(text, words.decode(&ids).unwrap());
    assert_eq!(words.decode_continuation(&[3], &[4, 5, 3]).unwrap(), " world hello");
}

#[test]
fn a_padded_vocabulary_is_accepted_and_a_short_one_is_not() {
    let tokenizer = sample();
    let shape = |vocab| Shape { vocab, ..Shape::preset("test").unwrap() };
    tokenizer.check_shape(&shape(290)).unwrap();
    tokenizer.check_shape(&shape(320)).unwrap();
    let error = tokenizer.check_shape(&shape(289)).unwrap_err();
    assert!(matches!(error, Error::Vocabulary { tokenizer: 290, model: 289 }), "{error}");
}

#[test]
fn vocabularies_that_would_change_a_text_are_refused() {
    let name = |b: usize| (to_printable(&[b as u8]), b);
    let names = |skip: usize| (0..256usize).filter(move |b| *b != skip).map(name);
    let file = |list: Vec<(String, usize)>| {
        let entries = list.into_iter().map(|(text, id)| (text, id.into()));
        let map: serde_json::Map<String, serde_json::Value> = entries.collect();
        serde_json::to_string(&map).unwrap()
    };
    assert!(Tokenizer::from_gpt2(&file(names(256).collect()), "").is_ok());
    assert!(Tokenizer::from_gpt2(&file(names(0xc3).collect()), "").is_err(), "a byte without a token");
    let twice = names(256).map(|(t, i)| (t, if i == 7 { 8 } else { i })).collect();
    assert!(Tokenizer::from_gpt2(&file(twice), "").is_err(), "an id twice");
    assert!(Tokenizer::from_gpt2(&file(names(256).collect()), "t h").is_err(), "a merge without its token");
    let json = |second: u32| {
        let model = format!(r#"{{"type":"BPE","vocab":{{"a":0,"b":{second}}},"merges":[]}}"#);
        Tokenizer::from_json(&format!(r#"{{"version":"1.0","model":{model}}}"#))
    };
    assert!(json(1).is_ok() && json(0).is_err(), "an id twice");
    // llama2.c: the token that stands for a byte must read as that byte.
    let scored = |wrong: u8| {
        let mut bytes = 8i32.to_le_bytes().to_vec();
        let marks = ["<unk>".to_owned(), "<s>".into(), "</s>".into()];
        let names = (0..=255u8).map(|b| format!("<0x{:02X}>", if b == b'a' { wrong } else { b }));
        for name in marks.into_iter().chain(names) {
            bytes.extend(0f32.to_le_bytes());
            bytes.extend((name.len() as u32).to_le_bytes());
            bytes.extend(name.bytes());
        }
        Tokenizer::from_llama2c(&bytes)
    };
    assert!(scored(b'a').is_ok() && scored(b'b').is_err());
}
