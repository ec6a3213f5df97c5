//! A public prefix: tokens that the server computes in the clear.

use std::fs;

use serde_json::Value;

use crate::common::{PROMPT, Scratch, json, refuse, stories, succeed};

#[test]
fn a_public_prefix_is_computed_in_the_clear_and_part_of_the_plan() {
    let dir = Scratch::new("prefix");
    let at = |name: &str| dir.path(name);
    let (file, keys, server) = (at("prefix"), at("keys"), at("keys/server"));
    let (prompt, note, answer) = (at("prompt"), at("prompt.note"), at("answer"));
    fs::write(&file, "Once upon a time there was a girl. ").unwrap();
    let behind = ["--public-prefix", &file];
    let small = ["--insecure-ring", "10", "--length", "8"];
    let of = |more: &[&str]| json(&[&["plan"][..], &small, more].concat()).0;
    let (plan, without) = (of(&behind), of(&[]));
    let public = plan["public_prefix_tokens"].as_u64().unwrap();
    assert!(public > 3 && without["public_prefix_tokens"] == 0 && plan["length"] == without["length"]);
    assert_ne!(plan["id"], without["id"]);
    // Another text of as many tokens is another plan.
    fs::write(at("other"), "Once upon a time there was a cat. ").unwrap();
    assert_ne!(of(&["--public-prefix", &at("other")])["id"], plan["id"]);

    succeed(&[&["keygen", "--out", &keys][..], &small, &behind].concat());
    let encrypt = ["encrypt", "--keys", &keys, "--prompt", PROMPT, "--out", &prompt];
    refuse(&encrypt, &["--public-prefix"]);
    let made: Value = serde_json::from_str(&succeed(&[&encrypt[..], &behind, &["--json"]].concat())).unwrap();
    assert_eq!(made["public_prefix_tokens"], public);
    let run = ["run", "--keys", &server, "--input", &prompt, "--out", &answer];
    refuse(&run, &["--public-prefix"]);
    let ran: Value = serde_json::from_str(&succeed(&[&run[..], &behind, &["--json"]].concat())).unwrap();
    assert_eq!(ran["public_prefix_tokens"], public);
    let read = ["decrypt", "--keys", &keys, "--input", &answer, "--note", &note, "--check", "--json"];
    let said: Value = serde_json::from_str(&succeed(&[&read[..], &behind].concat())).unwrap();
    assert!(said["check"]["max_abs_error"].as_f64().unwrap() < 2f64.powi(-6), "{said}");
    // A client without the model has the prefix from its plan.
    let client = at("client");
    succeed(&[&["plan", "--client", &client][..], &small, &behind].concat());
    let alone = ["encrypt", "--plan", &client, "--keys", &keys, "--prompt", PROMPT, "--out", &at("again")];
    let out = crate::common::bare(&alone).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(String::from_utf8_lossy(&out.stdout).contains(&format!("{public} tokens")));

    fs::write(at("empty"), "").unwrap();
    refuse(&["plan", "--public-prefix", &at("empty")], &["--public-prefix", "empty"]);
    fs::write(at("long"), "Once upon a time. ".repeat(200)).unwrap();
    refuse(&["plan", "--public-prefix", &at("long")], &["--public-prefix"]);
    refuse(&["plan", "--public-prefix", &at("nothing")], &["--public-prefix", "nothing"]);
}

#[test]
fn a_conversation_behind_a_public_prefix_follows_the_clear_model() {
    let dir = Scratch::new("prefix-talk");
    let file = dir.path("prefix");
    fs::write(&file, "Once upon a time. ").unwrap();
    let talk = ["generate", "--prompt", PROMPT, "--tokens", "2", "--public-prefix", &file];
    let (clear, _) = json(&talk);
    let (found, _) = json(&[&talk[..], &["--encrypted", "--insecure-ring", "12"]].concat());
    assert_eq!(found["answer"], clear["answer"], "{found}");
    assert!(found["public_prefix_tokens"].as_u64().unwrap() > 3, "{found}");
    let demo = ["demo", "--insecure-ring", "10", "--prompt", PROMPT, "--tokens", "1", "--length", "8"];
    let (found, _) = json(&[&demo[..], &["--public-prefix", &file]].concat());
    assert!(found["public_prefix_tokens"].as_u64().unwrap() > 3, "{found}");
    assert_eq!(found["top1_agree"], 1.0, "{found}");
}

#[test]
fn a_model_that_is_certified_behind_a_public_prefix_keeps_it() {
    let dir = Scratch::new("prefix-certify");
    let at = |name: &str| dir.path(name);
    fs::write(at("prefix"), "Once upon a time. ").unwrap();
    fs::write(at("a"), stories(0, 900)).unwrap();
    fs::write(at("b"), stories(5000, 600)).unwrap();
    let (text, other, out) = (at("a"), at("b"), at("certified"));
    let certify = ["certify", "--calibration", &text, "--held-out", &other, "--windows", "60"];
    let margins = ["--held-out-windows", "30", "--margin-variance", "3", "--margin-activation", "2"];
    let (said, status) =
        json(&[&certify[..], &margins, &["--public-prefix", &at("prefix"), "--out", &out]].concat());
    assert_eq!(status, 0, "{}", said["violations"]);
    let (plan, _) = json(&["plan", "--model", &out, "--insecure-ring", "10", "--length", "8"]);
    let public = plan["public_prefix_tokens"].as_u64().unwrap();
    assert!(public > 3, "{plan}");
    // What is certified is the text behind the prefix: its room is what the prefix leaves.
    let window = said["held_out"]["window"].as_u64().unwrap();
    let context = cipherlm_model::Model::load(out.as_ref()).unwrap().shape().context as u64;
    assert_eq!(window + public, context);
}
