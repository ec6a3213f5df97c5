//! Models from elsewhere: the tutorial's commands, scores of tasks, vectors and search, and bad
//! checkpoints.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::checkpoints::{bert, llama, sentences};
use crate::common::{Scratch, model, stories};

fn in_folder(dir: &Path, args: &[String]) -> std::process::Output {
    let program = env!("CARGO_BIN_EXE_cipherlm");
    Command::new(program).args(args).current_dir(dir).stdin(Stdio::null()).output().unwrap()
}

/// The command's exit status, what it printed as JSON, and its errors.
fn run(dir: &Path, line: &str) -> (Option<i32>, Value, String) {
    let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let out = in_folder(dir, &args);
    let value = serde_json::from_slice(&out.stdout).unwrap_or(Value::Null);
    (out.status.code(), value, String::from_utf8_lossy(&out.stderr).into_owned())
}

/// The commands after `$` in the tutorial's blocks.
fn commands() -> Vec<Vec<String>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/tutorials/bring-a-model.md");
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("$ cipherlm "));
    let words = |line: &str| -> Vec<String> {
        let quoted = line.split('"').enumerate();
        quoted
            .flat_map(|(i, part)| match i % 2 {
                1 => vec![part.to_owned()],
                _ => part.split_whitespace().map(str::to_owned).collect(),
            })
            .collect()
    };
    lines.map(words).collect()
}

/// What the conversion of step 3 leaves: the same weights under another attention.
fn convert(dir: &Path) {
    let (from, to) = (dir.join("my-model"), dir.join("converted"));
    fs::create_dir_all(&to).unwrap();
    for name in ["weights.safetensors", "tokenizer.json"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
    let mut model: Value =
        serde_json::from_str(&fs::read_to_string(from.join("model.json")).unwrap()).unwrap();
    model["shape"]["attention"] =
        json!({"kind": "power_softmax", "p": 4, "c": 3.0, "eps": {"kind": "absolute", "value": 1.0}});
    fs::write(to.join("model.json"), model.to_string()).unwrap();
}

#[test]
fn the_tutorial_works_as_written() {
    let dir = Scratch::new("models-tutorial");
    llama(&dir.0.join("checkpoint"));
    bert(&dir.0.join("encoder"));
    fs::write(dir.path("calibration.txt"), stories(0, 900)).unwrap();
    fs::write(dir.path("held-out.txt"), stories(5000, 600)).unwrap();
    fs::write(dir.path("code.txt"), "fn main() { let x = [0u8; 32]; println!(\"{x:?}\"); }\n".repeat(100))
        .unwrap();
    fs::write(dir.path("questions.txt"), "where is the cat\nthe dog ran\n").unwrap();
    fs::write(dir.path("documents.tsv"), "a\tthe cat sat\nb\tthe dog ran\nc\twhere is a dog\nd\tcat\n")
        .unwrap();
    let commands = commands();
    let names: Vec<&str> = commands.iter().map(|args| args[0].as_str()).collect();
    let want = "inspect import inspect eval certify inspect eval plan import embed index search";
    assert_eq!(names.join(" "), want);
    for args in &commands {
        if args[0] == "certify" {
            convert(&dir.0);
        }
        let out = in_folder(&dir.0, args);
        let said = String::from_utf8_lossy(&[out.stdout.clone(), out.stderr].concat()).into_owned();
        assert_eq!(out.status.code(), Some(0), "{args:?}: {said}");
        let stdout = String::from_utf8(out.stdout).unwrap();
        match args.join(" ").as_str() {
            "inspect checkpoint" => {
                assert!(stdout.contains("import open, convert open, certify open"), "{stdout}")
            }
            "inspect my-model" => assert!(stdout.contains("import done, convert open"), "{stdout}"),
            "inspect certified" => assert!(stdout.contains("convert done, certify done"), "{stdout}"),
            line if line.starts_with("certify") => {
                assert!(stdout.contains("code.txt") && stdout.contains("95 % bound"), "{stdout}");
            }
            _ => {}
        }
    }
    let vectors: Value =
        serde_json::from_str(&fs::read_to_string(dir.path("vectors.json")).unwrap()).unwrap();
    assert_eq!(vectors["vectors"].as_array().unwrap().len(), 2);
}

#[test]
fn a_sentence_is_its_own_best_match_and_its_vector_has_length_1() {
    let dir = Scratch::new("search");
    bert(&dir.0.join("encoder"));
    let texts = ["the cat sat", "the dog ran", "where is a dog", "cat", "a dog sat where the cat ran"];
    fs::write(dir.path("documents"), texts.join("\n")).unwrap();
    let done = run(&dir.0, "import encoder --out model");
    assert_eq!(done.0, Some(0), "{}", done.2);
    let (code, found, said) = run(&dir.0, "embed --model model --text documents --json");
    assert_eq!(code, Some(0), "{said}");
    let vectors: Vec<Vec<f64>> = serde_json::from_value(found["vectors"].clone()).unwrap();
    assert!(found["seconds"].as_f64().is_some() && found["machine"].as_str().is_some());
    assert_eq!(vectors.len(), texts.len());
    for vector in &vectors {
        assert!((vector.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-12);
    }
    assert_eq!(run(&dir.0, "index documents --model model --out idx").0, Some(0));
    // A second time the folder is taken.
    assert_eq!(run(&dir.0, "index documents --model model --out idx").0, Some(2));
    for (at, text) in texts.iter().enumerate() {
        let args = ["search", "--index", "idx", "--top", "2", "--json", "--query", text].map(str::to_owned);
        let out = in_folder(&dir.0, &args);
        let found: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(found["results"].as_array().unwrap().len(), 2, "{found}");
        let first = &found["results"][0];
        assert_eq!((&first["id"], &first["text"]), (&at.to_string().into(), &(*text).into()));
        assert!((first["score"].as_f64().unwrap() - 1.0).abs() < 1e-6, "{found}");
    }
    // Vectors of other weights, and a damaged index, are refused.
    let description = fs::read_to_string(dir.path("idx/index.json")).unwrap();
    let other = description.replacen("\"weights_blake3\":\"", "\"weights_blake3\":\"0", 1);
    fs::write(dir.path("idx/index.json"), other).unwrap();
    let (code, _, said) = run(&dir.0, "search --index idx --query cat");
    assert_eq!((code, said.contains("make the index again")), (Some(2), true), "{said}");
    fs::write(dir.path("idx/index.json"), description.replacen("{\"id\":\"0\"", "{\"id\":\"0\",\"x\":1", 1))
        .unwrap();
    assert_eq!(run(&dir.0, "search --index idx --query cat").0, Some(2));
}

/// Two sentences through client and server, in a small ring without security.
#[test]
fn an_encrypted_vector_is_that_of_the_polynomials() {
    let dir = Scratch::new("embed-encrypted");
    sentences(&dir.0.join("model"));
    fs::write(dir.path("text"), "where is the cat\na dog\n").unwrap();
    let (code, found, said) =
        run(&dir.0, "embed --model model --text text --encrypted --insecure-ring 10 --json");
    assert_eq!(code, Some(0), "{found} {said}");
    let vectors =
        |found: &Value| -> Vec<Vec<f64>> { serde_json::from_value(found["vectors"].clone()).unwrap() };
    let (_, clear, _) = run(&dir.0, "embed --model model --text text --polynomial --json");
    assert_eq!((&found["run"], &clear["run"]), (&"encrypted".into(), &"clear".into()));
    for (a, b) in vectors(&found).iter().zip(&vectors(&clear)) {
        assert_ne!(a, b);
        let cosine: f64 = a.iter().zip(b).map(|(x, y)| x * y).sum();
        assert!(cosine > 0.9999, "{cosine}");
    }
    assert!(found["least_cosine_to_clear"].as_f64().unwrap() > 0.9999, "{found}");
    // A small ring has no security, and the result says so.
    assert!(found["security_bits"].as_f64().unwrap() < 128.0, "{found}");
}

#[test]
fn tasks_have_scores_that_can_be_checked_by_hand() {
    let dir = Scratch::new("tasks");
    llama(&dir.0.join("checkpoint"));
    bert(&dir.0.join("encoder"));
    assert_eq!(run(&dir.0, "import checkpoint --out lm").0, Some(0));
    assert_eq!(run(&dir.0, "import encoder --out em").0, Some(0));
    let write = |name: &str, text: &str| fs::write(dir.path(name), text).unwrap();
    // Pairs of equal sentences are judged highest, so the correlation is positive.
    write(
        "sts",
        "5\tx\tthe cat\tthe cat\n4\tx\ta dog ran\ta dog ran\n1\ty\tthe cat\tdog ran\n0\ty\tis a\tcat sat\n",
    );
    for columns in ["1,3,4", "0,2,3"] {
        let (code, found, said) =
            run(&dir.0, &format!("eval --model em --task sts --data sts --columns {columns} --json"));
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(
            (&found["metric"], &found["items"], &found["operator"]),
            (&"spearman".into(), &4.into(), &"softmax".into())
        );
        assert!(found["score"].as_f64().unwrap() > 0.7, "{found}");
    }
    fs::create_dir_all(dir.path("trec")).unwrap();
    write("trec/corpus.tsv", "x\tthe cat sat\ny\tthe dog ran\nz\twhere is a dog\n");
    write("trec/queries.tsv", "y\tthe dog ran\nz x\twhere is a dog\n");
    let (_, found, said) = run(&dir.0, "eval --model em --task retrieval --data trec --json");
    assert_eq!((&found["score"], &found["metric"]), (&json!(1.0), &"mrr_at_10".into()), "{said}");
    // One of two answers is the likelier one: with both answers right in turn, exactly one item is.
    let arc = |right: usize| {
        format!("{{\"question\":\"q\",\"choices\":[\"a cat\",\"the dog\"],\"answer\":{right}}}\n")
    };
    write("arc", &(arc(0) + &arc(1)));
    let (code, found, said) = run(&dir.0, "eval --model lm --task arc --data arc --json out.json");
    assert_eq!((code, found), (Some(0), Value::Null), "{said}");
    let found: Value = serde_json::from_str(&fs::read_to_string(dir.path("out.json")).unwrap()).unwrap();
    assert_eq!((&found["score"], &found["task"]), (&json!(0.5), &"arc".into()));
    let (_, found, said) = run(&dir.0, "eval --model lm --task arc --data arc --shots 1 --json");
    assert_eq!(found["items"], json!(1), "the last one is an example: {said}");
    for (more, reason) in
        [("arc --data arc --shots 2", "2 questions in all"), ("sts --data sts --shots 1", "--shots")]
    {
        let (code, _, said) = run(&dir.0, &format!("eval --model lm --task {more}"));
        assert!(code == Some(2) && said.contains(reason), "{said}");
    }
    write("piqa.jsonl", &"{\"goal\":\"g\",\"sol1\":\"a cat\",\"sol2\":\"the dog\"}\n".repeat(2));
    write("piqa-labels.lst", "0\n1\n");
    let (_, found, said) = run(&dir.0, "eval --model lm --task piqa --data piqa.jsonl --json");
    assert_eq!(found["score"], json!(0.5), "{said}");
    let gap = |right| {
        format!(
            "{{\"sentence\":\"cat _ ran\",\"option1\":\"a\",\"option2\":\"the\",\"answer\":\"{right}\"}}\n"
        )
    };
    write("wino", &(gap(1) + &gap(2)));
    let (_, found, said) = run(&dir.0, "eval --model lm --task winogrande --data wino --json");
    assert_eq!(found["score"], json!(0.5), "{said}");
    let long = format!("{{\"goal\":\"g\",\"sol1\":\"a cat\",\"sol2\":\"{}\"}}\n", "the dog ".repeat(200));
    let two = fs::read_to_string(dir.0.join("piqa.jsonl")).unwrap();
    write("long.jsonl", &format!("{two}{long}"));
    write("long-labels.lst", "0\n1\n0\n");
    let (_, without, said) = run(&dir.0, "eval --model lm --task piqa --data long.jsonl --json");
    assert_eq!((&without["items"], &without["items_too_long"]), (&2.into(), &json!(1.0)), "{said}");
    assert_eq!(without["score"], found["score"]);
    write("long.jsonl", &long);
    let (code, _, said) = run(&dir.0, "eval --model lm --task piqa --data long.jsonl --json");
    assert!(code == Some(2) && said.contains("each of 1 items"), "{said}");
    write("lambada", "{\"text\":\"One day a cat saw a red ball\"}\n");
    let (_, found, said) = run(&dir.0, "eval --model lm --task lambada --data lambada --prefix x --json");
    assert_eq!((&found["items"], found["perplexity"].as_f64().unwrap() > 1.0), (&1.into(), true), "{said}");
    write("text", &stories(0, 90));
    let (_, found, said) =
        run(&dir.0, "eval --model lm --task perplexity --data text --limit 3 --window 16 --json");
    assert_eq!((&found["items"], &found["tokens"]), (&3.into(), &json!(45.0)), "{said}");
    let (_, again, _) =
        run(&dir.0, "eval --model lm --task perplexity --data text --limit 3 --window 16 --json --threads 1");
    assert_eq!(found["score"], again["score"], "the score depends on the threads");
    let line = "eval --model lm --task perplexity --data text --limit 3 --window 16 --teacher lm --json";
    let (_, itself, said) = run(&dir.0, line);
    assert_eq!(itself["score"], found["score"]);
    assert!(itself["divergence"].as_f64().unwrap().abs() < 1e-9, "{said}");
    let teacher =
        format!("{line} --operator polynomial").replace("--model lm", &format!("--model {}", model()));
    let (code, _, said) = run(&dir.0, &teacher);
    assert!(code == Some(2) && said.contains("--teacher: it chooses among"), "{said}");
    for (line, words) in [
        ("eval --model lm --task lambada --data lambada --teacher lm", "--teacher goes with"),
        ("eval --model lm --task sts --data sts", "takes a model of sentence vectors"),
        ("eval --model em --task lambada --data lambada", "use `embed`"),
        ("eval --model lm --task lambada --data lambada --operator polynomial", "softmax attention"),
        ("eval --model em --task sts --data sts", "--columns"),
        ("eval --model lm --task arc --data lambada", "line 1: field `question`"),
        ("eval --model lm --task arc --data nothing", "nothing"),
        ("eval --model lm --task arc", "--data"),
    ] {
        let (code, _, said) = run(&dir.0, line);
        assert_eq!((code, said.contains(words)), (Some(2), true), "{line}: {said}");
        assert!(said.trim_end().lines().count() == 1, "{line}: {said}");
    }
}

/// One line that names the culprit, status 2, nothing written, and no more memory than a small
/// program takes: the address space is limited.
#[test]
fn bad_checkpoints_are_refused_in_one_line_and_little_memory() {
    let dir = Scratch::new("bad-checkpoints");
    let good = dir.0.join("good");
    llama(&good);
    let weights = fs::read(good.join("model.safetensors")).unwrap();
    let config = fs::read_to_string(good.join("config.json")).unwrap();
    let header = |from: &str, to: &str| {
        let length = u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
        let text = std::str::from_utf8(&weights[8..8 + length]).unwrap();
        assert!(text.contains(from));
        let text = text.replacen(from, to, 1);
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &weights[8 + length..]].concat()
    };
    let huge = [&10_000_000_000u64.to_le_bytes()[..], &weights[8..]].concat();
    let zip = [&b"PK\x03\x04"[..], &[0; 64]].concat();
    let mut bomb = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    bomb.extend(1_000_000_000u64.to_le_bytes());
    let index = json!({"weight_map": {"model.norm.weight": "model-2.safetensors"}}).to_string();
    let nested = "[".repeat(500_000);
    let other = config.replace("\"llama\"", "\"mamba\"");
    let more = config.replace("\"vocab_size\":300", "\"vocab_size\":301");
    let table: [(&str, &[u8], &str); 12] = [
        ("model.safetensors", &weights[..weights.len() - 1000], "cut short"),
        ("model.safetensors", &header("\"F32\"", "\"F8_E5M2\""), "F8_E5M2"),
        ("model.safetensors", &header("\"F32\"", "\"I32\""), "whole numbers"),
        ("model.safetensors", &huge, "header of 10000000000 bytes"),
        ("model.safetensors", &zip, "zip archive"),
        ("model.safetensors.index.json", index.as_bytes(), "model-2.safetensors"),
        ("config.json", nested.as_bytes(), "config.json"),
        ("config.json", other.as_bytes(), "mamba"),
        ("config.json", more.as_bytes(), "[300, 16]"),
        ("tokenizer.json", nested.as_bytes(), "tokenizer"),
        ("x.gguf", &bomb, "1000000000 fields"),
        ("x.gguf", &zip, "zip archive"),
    ];
    for (name, bytes, word) in table {
        let bad = dir.0.join("bad");
        fs::create_dir_all(&bad).unwrap();
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            fs::copy(good.join(file), bad.join(file)).unwrap();
        }
        fs::write(bad.join(name), bytes).unwrap();
        let source = if name.ends_with(".gguf") { "bad/x.gguf" } else { "bad" };
        // 1 GiB, most of which threads and allocator reserve and never touch.
        let line = format!("ulimit -v 1048576; exec \"$0\" --threads 1 import {source} --out out");
        let mut command = Command::new("sh");
        let out =
            command.args(["-c", &line, env!("CARGO_BIN_EXE_cipherlm")]).current_dir(&dir.0).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(
            (out.status.code(), said.trim_end().lines().count()),
            (Some(2), 1),
            "{name} {word}: {said}"
        );
        assert!(said.contains(word), "{name} {word}: {said}");
        assert!(!dir.0.join("out").exists(), "{name} {word}: something was written");
        let (code, found, _) = run(&dir.0, &format!("inspect {source} --json"));
        assert_eq!(
            (code == Some(0), found["whole"] == json!(true)),
            (false, false),
            "{name} {word}: {found}"
        );
        fs::remove_dir_all(&bad).unwrap();
    }
}
