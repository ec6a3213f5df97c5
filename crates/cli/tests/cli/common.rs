//! What the tests of the program share.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

pub(crate) const PROMPT: &str = "One day a cat";

/// A folder that goes when the test ends.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cipherlm-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// Every file and folder below, with its length.
    pub(crate) fn listing(&self) -> Vec<(PathBuf, u64)> {
        let (mut found, mut folders) = (Vec::new(), vec![self.0.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                found.push((entry.path(), entry.metadata().unwrap().len()));
                if entry.path().is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        found.sort();
        found
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

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
