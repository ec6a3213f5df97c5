//! `import` makes a model folder of a public checkpoint, or leaves nothing.

use std::fs;

use serde_json::Value;

use crate::common::{Scratch, bare, json};

/// A llama2.c checkpoint of one block: width 8, two heads over one key head, 300 tokens, context 8.
fn checkpoint() -> Vec<u8> {
    let (d, k, f, vocab, context) = (8, 4, 16, 300, 8);
    let header = [d, f, 1, 2, 1, vocab, context];
    let values = vocab * d + 2 * d + 2 * d * d + 2 * k * d + 3 * f * d + d + context * 4;
    let mut out: Vec<u8> = header.iter().flat_map(|v: &i32| v.to_le_bytes()).collect();
    out.extend((0..values).flat_map(|i| (0.01 * (i % 17) as f32 - 0.08).to_le_bytes()));
    out
}

/// A llama2.c tokenizer of 300 tokens.
fn tokenizer() -> Vec<u8> {
    let names = ["<unk>".to_owned(), "\n<s>\n".into(), "\n</s>\n".into()].into_iter();
    let bytes = (0..256).map(|b| format!("<0x{b:02X}>"));
    let words = (0..41).map(|i| format!(" w{i}"));
    let mut out = 8i32.to_le_bytes().to_vec();
    for token in names.chain(bytes).chain(words) {
        out.extend(0f32.to_le_bytes());
        out.extend((token.len() as i32).to_le_bytes());
        out.extend(token.as_bytes());
    }
    out
}

#[test]
fn a_checkpoint_becomes_a_folder_that_inspect_knows_the_road_of() {
    let dir = Scratch::new("import");
    fs::write(dir.path("model.bin"), checkpoint()).unwrap();
    fs::write(dir.path("tok.bin"), tokenizer()).unwrap();
    let run = |args: &[&str]| {
        let out = bare(&[&["import", "--json"], args].concat()).output().unwrap();
        let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        (out.status.code(), said)
    };
    let (source, tokens, out) = (dir.path("model.bin"), dir.path("tok.bin"), dir.path("out"));
    let before = dir.listing();
    let (code, said) = run(&[&source, "--out", &out]);
    assert_eq!((code, said.contains("--tokenizer")), (Some(2), true), "{said}");
    let (code, said) = run(&["missing.gguf", "--out", &out]);
    assert_eq!((code, said.contains("missing.gguf")), (Some(2), true), "{said}");
    assert_eq!(dir.listing(), before, "a refusal wrote something");
    let (code, said) = run(&[&source, "--out", &out, "--tokenizer", &tokens]);
    assert_eq!(code, Some(0), "{said}");
    let facts: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&facts["heads"], &facts["key_heads"], &facts["tokenizer"]),
        (&2.into(), &1.into(), &300.into())
    );
    let (said, status) = json(&["inspect", &out]);
    assert_eq!((status, &said["whole"]), (0, &true.into()), "{said}");
    assert!(said["next"].as_str().unwrap().contains("PowerSoftmax"), "{said}");
    // A second time, and over a file that ends early.
    let (code, said) = run(&[&source, "--out", &out, "--tokenizer", &tokens]);
    assert_eq!((code, said.contains("already")), (Some(2), true), "{said}");
    let whole = checkpoint();
    fs::write(&source, &whole[..whole.len() - 5]).unwrap();
    let (code, said) = run(&[&source, "--out", &dir.path("other"), "--tokenizer", &tokens]);
    assert_eq!((code, said.contains("ends within")), (Some(2), true), "{said}");
    assert!(!fs::exists(dir.path("other")).unwrap());
}
