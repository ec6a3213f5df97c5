//! What the tests of the program share.

use std::path::Path;
use std::process::{Command, Output, Stdio};

pub(crate) use cipherlm_testing::Scratch;
use serde_json::Value;

pub(crate) const PROMPT: &str = "One day a cat";

/// The folder of the small shipped model.
pub(crate) fn model() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny").to_str().unwrap().to_owned()
}

/// The program without any default.
pub(crate) fn bare(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cipherlm"));
    // Measured prices would be kept in the user's own cache folder.
    command.args(args).stdin(Stdio::null()).env("CIPHERLM_PRICES", "builtin");
    // So would their configuration be read.
    command.env("XDG_CONFIG_HOME", "/nonexistent").env_remove("CIPHERLM_CONFIG");
    command
}

/// The program on the small model, unless the arguments name another or take none.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = bare(args);
    if !matches!(args[0], "inspect" | "completions" | "experiment" | "train") && !args.contains(&"--model") {
        command.args(["--model", &model()]);
    }
    command
}

pub(crate) fn call(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

pub(crate) fn succeed(args: &[&str]) -> String {
    let out = call(args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// The JSON that a command prints, and its exit status.
pub(crate) fn json(args: &[&str]) -> (Value, i32) {
    let out = call(&[args, &["--json"]].concat());
    let value = serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|e| panic!("{args:?}: {e}: {}", String::from_utf8_lossy(&out.stderr)));
    (value, out.status.code().unwrap())
}

/// The command must refuse with status 2 and say each of `words`.
pub(crate) fn refuse(args: &[&str], words: &[&str]) {
    let out = call(args);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(2), "{args:?}: {said}");
    assert!(words.iter().all(|word| said.contains(word)), "{args:?} said: {said}\nwithout one of {words:?}");
    assert!(!said.contains("panicked"), "{said}");
}

pub(crate) fn keygen(out: &str, ring: &str, length: &str) -> String {
    succeed(&["keygen", "--out", out, "--insecure-ring", ring, "--length", length, "--json"])
}

/// Little stories: `count` sentences that differ, of the kind that the small model was trained on.
pub(crate) fn stories(first: usize, count: usize) -> String {
    const WHO: [&str; 7] = ["a cat", "a girl", "Tom", "Lily", "a dog", "the bird", "her friend"];
    const DID: [&str; 5] = ["saw", "liked", "found", "wanted", "took"];
    const WHAT: [&str; 11] = [
        "a red ball",
        "the tree",
        "a big box",
        "her mom",
        "a flower",
        "the park",
        "a toy",
        "some cake",
        "a fish",
        "the sun",
        "a book",
    ];
    (first..first + count)
        .map(|i| format!("One day {} {} {}. ", WHO[i % 7], DID[i / 2 % 5], WHAT[(i * i + 3 * i) % 11]))
        .collect()
}
