//! The configuration file and the forms of progress.

use std::fs;
use std::process::Output;

use serde_json::Value;

use crate::common::{PROMPT, Scratch, bare, keygen, model, succeed};

fn with_config(file: &str, args: &[&str]) -> Output {
    bare(args).env("CIPHERLM_CONFIG", file).output().unwrap()
}

#[test]
fn a_configuration_gives_options_and_its_faults_are_named() {
    let dir = Scratch::new("config");
    let file = dir.path("config.toml");
    fs::write(&file, format!("json = true\nmodel = \"{}\"\n[plan]\nlength = 8\n", model())).unwrap();
    let planned = |args: &[&str]| {
        let out = with_config(&file, &[&["plan", "--insecure-ring", "10"], args].concat());
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        let value: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
        value["length"].as_u64().unwrap()
    };
    assert_eq!(planned(&[]), 8);
    assert_eq!(planned(&["--length", "16"]), 16);
    // Where the system keeps such files.
    let home = dir.path("home");
    fs::create_dir_all(format!("{home}/cipherlm")).unwrap();
    fs::write(format!("{home}/cipherlm/config.toml"), "[plan]\nlength = 4.5\n").unwrap();
    let out = bare(&["plan", "--model", &model()]).env("XDG_CONFIG_HOME", &home).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.code() == Some(2) && said.contains("4.5"), "{said}");
    for (text, word) in [("[plan]\nlenght = 8\n", "lenght"), ("= 3", "line 1"), ("[planned]\n", "planned")] {
        fs::write(&file, text).unwrap();
        let out = with_config(&file, &["doctor"]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!((out.status.code(), said.lines().count()), (Some(2), 1), "{said}");
        assert!(said.contains(word) && said.contains("config.toml"), "{said}");
    }
    let out = with_config(&dir.path("absent.toml"), &["doctor"]);
    assert_eq!(out.status.code(), Some(2), "a file that was named has to be there");
}

#[test]
fn progress_is_json_where_it_is_asked_for_and_nothing_where_not() {
    let dir = Scratch::new("progress");
    let (keys, prompt, answer) = (dir.path("keys"), dir.path("prompt"), dir.path("answer"));
    keygen(&keys, "9", "8");
    succeed(&["encrypt", "--keys", &keys, "--prompt", PROMPT, "--out", &prompt]);
    let server = format!("{keys}/server");
    let model = model();
    let run = |how: &str| {
        let args =
            ["run", "--keys", &server, "--input", &prompt, "--out", &answer, "--force", "--model", &model];
        let out = bare(&[&args, ["--json", "--progress", how].as_slice()].concat()).output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.success(), "{said}");
        said
    };
    let said = run("json");
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps: Vec<&Value> = lines.iter().filter(|line| line["progress"] == "step").collect();
    let (last, count) = (steps.last().unwrap(), steps[0]["steps"].as_u64().unwrap());
    assert!(steps.len() as u64 + 1 >= count && last["step"].as_u64() == Some(count - 1), "{said}");
    assert!(last["left_s"].is_number() && last["memory_bytes"].as_u64() > Some(1 << 20), "{last}");
    assert!(lines.iter().any(|line| line["progress"] == "stage"), "{said}");
    assert!(run("lines").contains(&format!("/{count} ")), "lines");
    // The warning about a ring that protects nothing is no progress.
    for how in ["none", "auto"] {
        let said = run(how);
        assert!(said.lines().count() == 1 && said.contains("warning"), "{how} with --json: {said}");
    }
}
