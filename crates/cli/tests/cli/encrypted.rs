//! `plan`, `demo`, `profile`, `generate --encrypted` and an encoder, in small rings.

use std::fs;
use std::path::Path;

use cipherlm_model::{Kind, Mode, Runner, Shape, TOKENIZER_FILE, Tokenizer, random};

use crate::common::{PROMPT, Scratch, json, model, refuse, succeed};

#[test]
fn a_plan_says_memory_error_and_why_it_bootstraps() {
    let small = ["plan", "--insecure-ring", "10", "--length", "9"];
    let (plan, status) = json(&small);
    assert_eq!(status, 0);
    assert_eq!(plan["length"], 16);
    let (memory, resident) =
        (plan["memory_bytes"].as_u64().unwrap(), plan["key_bytes_resident"].as_u64().unwrap());
    assert!(memory > resident && resident > 0, "{memory} {resident}");
    let mse = plan["predicted_mse"].as_f64().unwrap();
    assert!(mse > 0.0 && mse < 0.005, "{mse}");
    let steps = plan["steps"].as_array().unwrap();
    let refreshed = steps.iter().filter(|s| !s["refreshed_to"].is_null());
    assert!(refreshed.clone().count() > 0);
    assert!(
        steps.iter().all(|s| s["refreshed_to"].is_null() == s["reason"].is_null()),
        "a reason for each, and no other"
    );
    let text = succeed(&[small.as_slice(), &["--explain"]].concat());
    assert!(text.contains("16 tokens (the power of two that holds 9)"), "{text}");
    assert!(text.contains("GiB for a run") && text.contains("mean square of a logit"), "{text}");
    assert!(!text.contains("-0.0"), "{text}");
    for step in refreshed {
        assert!(text.contains(step["reason"].as_str().unwrap()), "{step}");
    }
}

#[test]
fn a_demo_in_a_small_ring_agrees_and_does_not_pass_for_secure() {
    let dir = Scratch::new("demo");
    let (file, page) = (dir.path("demo.json"), dir.path("demo.html"));
    let args = ["demo", "--insecure-ring", "10", "--prompt", PROMPT, "--tokens", "2", "--length", "8"];
    let (said, status) =
        json(&[args.as_slice(), &["--json-file", &file, "--html", &page, "--precision"]].concat());
    assert_eq!((status, &said["pass"]), (1, &false.into()), "a ring without security does not pass: {said}");
    assert_eq!((&said["tokens"], &said["top1_agree"]), (&2.into(), &1.0.into()), "{said}");
    let (mse, error) = (said["mse"].as_f64().unwrap(), said["max_abs_error"].as_f64().unwrap());
    assert!(mse < 1e-5 && error > 0.0, "{mse} {error}");
    for field in ["seconds_total", "seconds_keygen", "bootstraps", "peak_rss_bytes", "key_bytes", "log_qp"] {
        assert!(said[field].as_f64().unwrap() > 0.0, "{field}");
    }
    let total =
        |field: &str| -> f64 { said[field].as_object().unwrap().values().filter_map(|v| v.as_f64()).sum() };
    let seconds = said["seconds_total"].as_f64().unwrap();
    for split in ["by_operator", "bootstrap_attributed", "by_primitive"] {
        assert!((total(split) / seconds - 1.0).abs() < 0.2, "{split}: {} of {seconds}", total(split));
    }
    assert!(said["precision_bits"].as_object().unwrap().len() > 10);
    let written: serde_json::Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(written, said);
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.starts_with("<!doctype html>") && html.contains(PROMPT) && !html.contains("<script"));
    for (path, what) in [(&file, "result of a demo"), (&page, "report page")] {
        assert!(json(&["inspect", path]).0["what"].as_str().unwrap().starts_with(what));
    }
}

#[test]
fn a_profile_splits_the_time_of_one_pass() {
    let (said, status) = json(&["profile", "--insecure-ring", "9", "--length", "8"]);
    assert_eq!(status, 1);
    assert_eq!((&said["tokens"], &said["length"], &said["top1_agree"]), (&1.into(), &8.into(), &1.0.into()));
    assert!(said["by_operator"]["bootstrap"].as_f64().unwrap() > 0.0, "{said}");
    let steps = said["steps"].as_array().unwrap();
    let seconds: f64 =
        steps.iter().map(|s| s["seconds"].as_f64().unwrap() + s["refresh_seconds"].as_f64().unwrap()).sum();
    assert!((seconds / said["seconds_total"].as_f64().unwrap() - 1.0).abs() < 0.1, "{seconds}");
}

#[test]
fn a_conversation_under_encryption_follows_the_clear_model() {
    // In the smaller ring keys and values of a context fit no vector: each token is a pass.
    for (ring, over_cache) in [("12", true), ("10", false)] {
        let args = ["generate", "--encrypted", "--insecure-ring", ring, "--prompt", PROMPT, "--tokens", "2"];
        let (said, _) = json(&args);
        let tokens = said["tokens"].as_array().unwrap();
        assert_eq!((tokens.len(), &said["over_cache"]), (2, &over_cache.into()), "{said}");
        assert!(
            tokens.iter().all(|t| t["same_polynomial"] == true && t["mse"].as_f64().unwrap() < 1e-4),
            "{said}"
        );
        let (clear, _) = json(&["generate", "--prompt", PROMPT, "--tokens", "2"]);
        assert_eq!(said["answer"], clear["answer"]);
    }
    let alone = ["generate", "--encrypted", "--insecure-ring", "10", "--prompt", PROMPT];
    refuse(&[&alone[..], &["--tokens", "3", "--alone", "1"]].concat(), &["--alone", "leave it out"]);
}

#[test]
fn a_classifier_is_read_at_its_class_and_refused_where_text_is_continued() {
    let dir = Scratch::new("encoder");
    let folder = dir.path("encoder");
    let tiny = Path::new(&model()).to_owned();
    let tokenizer = Tokenizer::load(&tiny.join(TOKENIZER_FILE)).unwrap();
    let base = Shape::preset("test").unwrap();
    let shape =
        Shape { kind: Kind::Encoder { classes: 3 }, vocab: tokenizer.vocab(), tied_head: false, ..base };
    let encoder = random::certified("three classes", &shape, 1).unwrap();
    encoder.save(Path::new(&folder)).unwrap();
    tokenizer.save(&Path::new(&folder).join(TOKENIZER_FILE)).unwrap();
    let with = ["--model", folder.as_str()];
    for args in [["demo", "--prompt", "a"], ["generate", "--prompt", "a"], ["eval", "--text", "/dev/null"]] {
        crate::common::refuse(&[args.as_slice(), &with].concat(), &["classifies text", "decrypt"]);
    }
    // A text of exactly as many tokens as the plan has.
    let text = (1..200)
        .map(|n| "a cat ".repeat(n))
        .map(|t| t.trim_end().to_owned())
        .find(|t| tokenizer.encode(t).unwrap().len() == 8);
    let text = text
        .or_else(|| (1..40).map(|n| "zq".repeat(n)).find(|t| tokenizer.encode(t).unwrap().len() == 8))
        .unwrap();
    let at = |name: &str| dir.path(name);
    let (keys, prompt, note, answer) = (at("keys"), at("prompt"), at("prompt.note"), at("answer"));
    let go = |args: &[&str]| succeed(&[args, &with].concat());
    go(&["keygen", "--out", &keys, "--insecure-ring", "10", "--length", "8"]);
    go(&["encrypt", "--keys", &keys, "--prompt", &text, "--out", &prompt]);
    go(&["run", "--keys", &at("keys/server"), "--input", &prompt, "--out", &answer]);
    let said = go(&[
        "decrypt", "--keys", &keys, "--input", &answer, "--note", &note, "--check", "--top", "9", "--json",
    ]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let logits = Runner::new(&encoder, Mode::Polynomial)
        .unwrap()
        .classify(&tokenizer.encode(&text).unwrap(), None)
        .unwrap();
    let class = (0..3).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
    assert_eq!((&said["position"], &said["token"]), (&0.into(), &class.into()), "{said}");
    assert_eq!(
        (said["text"].as_str().unwrap(), &said["pass"]),
        (format!("class {class}").as_str(), &true.into())
    );
    assert_eq!(said["top"].as_array().unwrap().len(), 3, "three classes and no more");
    assert!(said["check"]["max_abs_error"].as_f64().unwrap() < 2f64.powi(-6), "{said}");
}

#[test]
fn a_padded_vocabulary_is_never_sampled() {
    let dir = Scratch::new("padded");
    let folder = dir.path("padded");
    let tiny = Path::new(&model()).to_owned();
    let tokenizer = Tokenizer::load(&tiny.join(TOKENIZER_FILE)).unwrap();
    let base = Shape::preset("test").unwrap();
    let shape = Shape { vocab: tokenizer.vocab() + 64, context: 64, ..base };
    random::certified("padded", &shape, 1).unwrap().save(Path::new(&folder)).unwrap();
    tokenizer.save(&Path::new(&folder).join(TOKENIZER_FILE)).unwrap();
    let args = ["generate", "--prompt", PROMPT, "--tokens", "40", "--temperature", "50", "--top-k", "9999"];
    let (said, status) = json(&[args.as_slice(), &["--model", &folder]].concat());
    assert_eq!(status, 0);
    let tokens = said["tokens"].as_array().unwrap();
    assert!(
        tokens.len() > 10 && tokens.iter().all(|t| t.as_u64().unwrap() < tokenizer.vocab() as u64),
        "{said}"
    );
}
