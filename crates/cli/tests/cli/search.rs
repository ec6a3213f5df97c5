//! Private search: one program on three machines, and the parties as separate programs.

use std::fs;

use serde_json::Value;

use crate::checkpoints::sentences;
use crate::common::{Scratch, bare};

const DOCUMENTS: &str =
    "a\tthe cat sat\nb\tthe dog ran\nc\twhere is a dog\nd\tcat\ne\twhere the cat ran a dog sat\nf\tdog dog\n";

/// A model and an index of [`DOCUMENTS`].
fn world(name: &str) -> Scratch {
    let dir = Scratch::new(name);
    sentences(&dir.0.join("model"));
    fs::write(dir.path("documents"), DOCUMENTS).unwrap();
    said(&["index", &dir.path("documents"), "--model", &dir.path("model"), "--out", &dir.path("idx")]);
    dir
}

fn call(args: &[&str]) -> (Option<i32>, Value, String) {
    let out = bare(&[args, &["--json"]].concat()).output().unwrap();
    let value = serde_json::from_slice(&out.stdout).unwrap_or(Value::Null);
    (out.status.code(), value, String::from_utf8_lossy(&out.stderr).into_owned())
}

fn said(args: &[&str]) -> Value {
    let (code, value, errors) = call(args);
    assert_eq!(code, Some(0), "{args:?}: {value} {errors}");
    value
}

fn refused(args: &[&str], word: &str) {
    let (code, value, errors) = call(args);
    assert!(code == Some(2) && errors.contains(word), "{args:?}: {value} {errors}");
}

fn ids(result: &Value) -> Vec<String> {
    let rows = result["results"].as_array().unwrap().iter();
    rows.map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_search_finds_the_same_documents_on_all_machines() {
    let dir = world("search-machines");
    let index = dir.path("idx");
    let question = ["search", "--index", &index, "--query", "where is the dog", "--top", "3"];
    let clear = said(&question);
    assert_eq!((&clear["run"], ids(&clear).len()), (&"clear".into(), 3));
    for (machine, run, bits) in
        [("clear", "clear machine", 20.0), ("noise", "noise machine", 8.0), ("encrypted", "encrypted", 8.0)]
    {
        let found = said(&[&question[..], &["--machine", machine, "--insecure-ring", "10"]].concat());
        assert_eq!((&found["run"], &ids(&found)[0]), (&run.into(), &ids(&clear)[0]), "{found}");
        assert_eq!((&found["same_first"], found["documents"].as_u64()), (&1.into(), Some(6)), "{found}");
        let error = found["largest_score_error"].as_f64().unwrap();
        assert!(-error.log2() > bits && (machine == "clear" || error > 0.0), "{machine}: {error}");
        assert!(found["least_cosine_to_clear"].as_f64().unwrap() > 0.9999, "{found}");
        // A small ring has no security, and the result says so.
        assert!(found["security_bits"].as_f64().unwrap() < 128.0, "{found}");
    }
    // Several questions under one set of keys.
    fs::write(dir.path("questions"), "where is the dog\ncat\n").unwrap();
    let file = dir.path("questions");
    let questions = ["search", "--index", &index, "--queries", &file, "--encrypted", "--insecure-ring", "10"];
    let found = said(&questions);
    let rows = found["queries"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[1]["query"]), (2, &"cat".into()));
    assert!(
        rows.iter().all(|row| row["same_first"] == true && row["results"].as_array().unwrap().len() == 6)
    );
    refused(&["search", "--index", &index, "--query", " "], "empty");
    let known = said(&["inspect", &index]);
    assert_eq!((&known["documents"], &known["functions"]), (&6.into(), &"polynomial".into()), "{known}");
}

#[test]
fn a_client_asks_a_server_for_the_scores_of_its_documents() {
    let dir = world("search-files");
    let at = |name: &str| dir.path(name);
    let (model, index, keys, server) = (at("model"), at("idx"), at("keys"), at("keys/server"));
    let (prompt, answer, note) = (at("question"), at("answer"), at("question.note"));
    let with = ["--model", &model, "--index", &index];
    let small = ["--insecure-ring", "10", "--length", "8"];
    let plan = said(&[&["plan"][..], &with, &small].concat());
    let other = said(&[&["plan", "--model", &model][..], &small].concat());
    assert_ne!(plan["id"], other["id"], "an index is part of a plan");
    said(&[&["keygen", "--out", &keys][..], &with, &small].concat());
    let question = ["--prompt", "where is the dog", "--out", &prompt];
    let encrypt = [&["encrypt", "--keys", &keys][..], &question].concat();
    refused(&[&encrypt[..], &["--model", &model]].concat(), "--index");
    said(&[&encrypt[..], &with].concat());
    said(&[&["run", "--keys", &server, "--input", &prompt, "--out", &answer][..], &with].concat());
    let read = ["decrypt", "--keys", &keys, "--input", &answer, "--note", &note, "--top", "2"];
    let found = said(&[&read[..], &with, &["--check"]].concat());
    assert_eq!((&found["documents"], &found["check"]["same_first"]), (&6.into(), &true.into()), "{found}");
    let clear = said(&["search", "--index", &index, "--query", "where is the dog", "--top", "2"]);
    assert_eq!(ids(&found), ids(&clear));

    // The same client with the plan alone: it knows how many documents there are, not which.
    let client = at("client");
    said(&[&["plan", "--client", &client][..], &with, &small].concat());
    let read = [&read[..], &["--plan", &client]].concat();
    let place = DOCUMENTS.lines().position(|line| line.starts_with(&ids(&clear)[0])).unwrap();
    assert_eq!(said(&read)["results"][0]["document"], place);
    assert_eq!(ids(&said(&[&read[..], &["--index", &index]].concat())), ids(&clear));
    fs::write(at("documents"), "cat\ndog\n").unwrap();
    let few = at("few");
    said(&["index", &at("documents"), "--model", &model, "--out", &few]);
    refused(&[&read[..], &["--index", &few]].concat(), "2 documents");
    refused(&[&encrypt[..], &["--model", &model, "--index", &few, "--force"]].concat(), "--index");
}
