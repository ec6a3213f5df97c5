//! Several prompts of one client in one pass, from keys to answers, in a small ring.

use std::fs;

use serde_json::Value;

use crate::common::{PROMPT, Scratch, json, refuse, succeed};

const PROMPTS: &str = "One day a cat\nThe dog\na girl\n";

#[test]
fn every_prompt_of_a_pass_gets_its_own_answer() {
    let dir = Scratch::new("batch");
    let at = |name: &str| dir.path(name);
    let (keys, server, prompts) = (at("keys"), at("keys/server"), at("prompts.txt"));
    let keygen = ["keygen", "--out", &keys, "--insecure-ring", "11", "--length", "8", "--prompts"];
    let (made, _) = json(&[keygen.as_slice(), &["3"]].concat());
    assert_eq!(made["prompts"], 4, "the next power of two: {made}");
    refuse(&[keygen.as_slice(), &["2", "--resume"]].concat(), &["4 prompt(s) a pass", "another --out"]);

    fs::write(&prompts, PROMPTS).unwrap();
    let (prompt, note, answer) = (at("prompt"), at("prompt.note"), at("answer"));
    let encrypt = ["encrypt", "--keys", &keys, "--force", "--out", &prompt];
    let (said, _) = json(&[encrypt.as_slice(), &["--prompts", &prompts]].concat());
    assert_eq!(said["prompts"], 3, "{said}");
    let run = ["run", "--keys", &server, "--input", &prompt, "--force", "--out", &answer];
    let (ran, _) = json(&run);
    let (all, each) =
        (ran["report"]["seconds_total"].as_f64().unwrap(), ran["seconds_per_prompt"].as_f64().unwrap());
    assert!(ran["prompts"] == 4 && (4.0 * each / all - 1.0).abs() < 1e-9, "{ran}");
    for (file, what) in [(&prompt, "encrypted prompts"), (&answer, "encrypted answers")] {
        let (said, status) = json(&["inspect", file]);
        assert!(said["what"].as_str().unwrap().starts_with(what) && status == 0, "{said}");
        assert_eq!((&said["whole"], &said["plan"]), (&true.into(), &made["plan"]), "{said}");
    }

    let decrypt = ["decrypt", "--keys", &keys, "--input", &answer];
    let (read, status) = json(&[decrypt.as_slice(), &["--note", &note, "--check", "--top", "2"]].concat());
    assert_eq!((status, &read["pass"]), (0, &true.into()), "{read}");
    let rows = read["prompts"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    for row in rows {
        assert!(row["check"]["max_abs_error"].as_f64().unwrap() < 2f64.powi(-6), "{row}");
        assert_eq!((row["top"].as_array().unwrap().len(), &row["top"][0]["token"]), (2, &row["token"]));
    }
    let positions: Vec<&Value> = rows.iter().map(|row| &row["position"]).collect();
    assert!(positions[0] != positions[2], "each at its own last token: {positions:?}");
    let text = succeed(&[decrypt.as_slice(), &["--note", &note]].concat());
    assert!(text.contains("prompt 3") && text.matches("next token").count() == 3, "{text}");

    // One prompt under the same keys fills all places.
    succeed(&[encrypt.as_slice(), &["--prompt", PROMPT]].concat());
    succeed(&run);
    let (one, _) = json(&[decrypt.as_slice(), &["--note", &note, "--check"]].concat());
    assert_eq!((&one["pass"], one["prompts"].as_array().unwrap().len()), (&true.into(), 1), "{one}");
    assert_eq!(one["prompts"][0]["token"], rows[0]["token"]);

    // What has no place is refused with both numbers, and by the number of the prompt.
    fs::write(&prompts, "a\n".repeat(5)).unwrap();
    let none = at("none");
    let encrypt = ["encrypt", "--keys", &keys, "--out", &none, "--prompts", &prompts];
    refuse(&encrypt, &["5 prompts", "for 4 in one pass", "--prompts 8"]);
    fs::write(&prompts, format!("a cat\n{}\n", "cat ".repeat(20))).unwrap();
    refuse(&encrypt, &["prompt 2", "1 to 8"]);
    fs::write(&prompts, "a cat\n\na dog\n").unwrap();
    refuse(&encrypt, &["line 2 is empty"]);
}

#[test]
fn a_client_plan_says_how_many_prompts_a_pass_takes() {
    let dir = Scratch::new("batch-client");
    let (client, keys, prompts) = (dir.path("client"), dir.path("keys"), dir.path("prompts.txt"));
    let plan = ["plan", "--insecure-ring", "11", "--length", "8", "--prompts", "4"];
    succeed(&[plan.as_slice(), &["--client", &client]].concat());
    let (said, _) = json(&plan);
    let seconds = |field: &str| said[field].as_f64().unwrap();
    assert_eq!(said["prompts"], 4);
    assert!(seconds("predicted_seconds_per_prompt") * 4.0 == seconds("predicted_seconds"), "{said}");
    assert!(succeed(&plan).contains("8 tokens for each of 4 prompts"));
    let keygen = ["keygen", "--plan", &client, "--out", &keys, "--insecure-ring", "11"];
    let keygen = |more: &[&str]| crate::common::bare(&[keygen.as_slice(), more].concat()).output().unwrap();
    let refused = keygen(&["--prompts", "4"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("leave out --prompts"), "{refused:?}");
    assert!(keygen(&[]).status.success());
    fs::write(&prompts, PROMPTS).unwrap();
    let encrypt = ["encrypt", "--plan", &client, "--keys", &keys, "--prompts", &prompts, "--json", "--out"];
    let out = crate::common::bare(&[encrypt.as_slice(), &[&dir.path("prompt")]].concat()).output().unwrap();
    let said: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&said["prompts"], &said["plan"]), (&3.into(), &json(&plan).0["id"]), "{said}");
}

#[test]
fn a_profile_of_several_prompts_says_what_each_takes() {
    let (said, status) = json(&["profile", "--insecure-ring", "11", "--length", "8", "--prompts", "4"]);
    assert_eq!(status, 1, "a ring without security does not pass: {said}");
    assert_eq!((&said["prompts"], &said["tokens"], &said["top1_agree"]), (&4.into(), &4.into(), &1.0.into()));
    let (all, each) = (said["seconds_total"].as_f64().unwrap(), said["seconds_per_answer"].as_f64().unwrap());
    assert!((4.0 * each / all - 1.0).abs() < 1e-9, "{said}");
}
