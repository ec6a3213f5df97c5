//! Every mistake is refused before work: status 2, one line that names it, nothing written, at
//! once.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{PROMPT, Scratch, command, keygen, stories, succeed};

/// Planning the small model takes tens of milliseconds; work would take minutes at full size.
const AT_ONCE: Duration = Duration::from_secs(10);

struct Case<'a> {
    args: Vec<&'a str>,
    words: &'a [&'a str],
}

#[test]
fn mistakes_are_refused_in_one_line_before_any_work() {
    let dir = Scratch::new("misuse");
    let at = |name: &str| dir.path(name);
    let (keys, server, prompt) = (at("keys"), at("keys/server"), at("prompt"));
    keygen(&keys, "8", "8");
    succeed(&["encrypt", "--keys", &keys, "--prompt", PROMPT, "--out", &prompt]);
    fs::write(at("file"), "hello").unwrap();
    fs::write(at("latin1"), b"caf\xe9").unwrap();
    fs::write(at("empty"), "").unwrap();
    fs::write(at("gap"), "a cat\n\na dog\n").unwrap();
    fs::write(at("pair"), "a cat\na dog\n").unwrap();
    fs::create_dir(at("folder")).unwrap();
    fs::write(at("text"), stories(0, 40)).unwrap();
    fs::write(at("copy"), stories(0, 40)).unwrap();
    fs::write(at("other"), stories(1000, 40)).unwrap();
    let (file, folder, text, other) = (at("file"), at("folder"), at("text"), at("other"));
    let (none, deep, under) = (at("none"), at("missing/a.bin"), at("file/deep"));
    let (note, copy, latin1, answer) = (at("prompt.note"), at("copy"), at("latin1"), at("answer"));
    let (empty, gap, pair) = (at("empty"), at("gap"), at("pair"));
    let long = "cat ".repeat(200);

    let run = ["run", "--keys", &server, "--input", &prompt, "--out", &answer];
    let encrypt = ["encrypt", "--keys", &keys, "--out", &none];
    let decrypt = ["decrypt", "--keys", &keys, "--input", &prompt];
    let keygen = ["keygen", "--out", &none, "--insecure-ring", "8"];
    let generate = ["generate", "--prompt", PROMPT];
    let demo = ["demo", "--insecure-ring", "8", "--prompt", PROMPT];
    let eval = ["eval", "--text", &text];
    let certify = ["certify", "--calibration", &text, "--held-out", &other, "--windows", "4"];
    let mut cases: Vec<Case> = Vec::new();
    let mut bad = |args, words| cases.push(Case { args, words });
    bad(
        vec!["run", "--keys", &server, "--input", &prompt, "--out", &deep, "--force"],
        &["--out", "no folder"],
    );
    bad([&run[..], &["--report", &deep]].concat(), &["--report", "no folder"]);
    bad([&run[..], &["--report", &under]].concat(), &["--report", "not a folder"]);
    bad([&run[..], &["--report", &answer]].concat(), &["--report and --out", "both name"]);
    bad([&run[..], &["--checkpoints", &under]].concat(), &["--checkpoints", "not a folder"]);
    bad([&run[..], &["--checkpoint-after", "1e300"]].concat(), &["--checkpoint-after", "a year"]);
    bad([&run[..], &["--checkpoint-after", "-1"]].concat(), &["--checkpoint-after", "a year"]);
    bad([&run[..], &["--checkpoint-after", "NaN"]].concat(), &["--checkpoint-after"]);
    bad([&run[..], &["--key-memory", "0"]].concat(), &["--key-memory", "above 0"]);
    bad([&run[..], &["--key-memory", "1e300"]].concat(), &["--key-memory"]);
    bad([&run[..], &["--threads", "0"]].concat(), &["--threads", "1..=1024"]);
    bad([&run[..], &["--threads", "-3"]].concat(), &["--threads"]);
    bad([&run[..], &["--threads", "99999999999999999999"]].concat(), &["--threads"]);
    bad([&run[..], &["--frobnicate"]].concat(), &["--frobnicate"]);
    bad(
        vec!["run", "--keys", &server, "--input", &prompt, "--out", &folder, "--force"],
        &["--out", "a folder"],
    );
    bad(
        vec!["run", "--keys", &server, "--input", &prompt, "--out", &file],
        &["--out", "already there", "--force"],
    );
    bad(
        vec!["run", "--keys", &server, "--input", &prompt, "--out", &prompt, "--force"],
        &["--out and --input"],
    );
    bad(
        vec!["run", "--keys", &server, "--input", &prompt, "--out", "/dev/null", "--force"],
        &["--out", "device"],
    );
    bad(
        vec!["run", "--keys", &server, "--input", &prompt, "--out", "/proc/nothing"],
        &["--out", "takes no new file"],
    );
    bad(vec!["run", "--keys", &none, "--input", &prompt, "--out", &answer], &["--keys", "keygen"]);
    bad(vec!["run", "--keys", &folder, "--input", &prompt, "--out", &answer], &["--keys", "keygen"]);
    bad(vec!["run", "--keys", &server, "--input", &none, "--out", &answer], &["--input", "none"]);
    bad(vec!["run", "--keys", &server, "--input", &folder, "--out", &answer], &["--input", "a folder"]);
    bad(vec!["run", "--keys", &server, "--input", "/dev/zero", "--out", &answer], &["--input", "device"]);
    bad(vec!["run", "--keys", &server, "--input", &file, "--out", &answer], &["encrypt the prompt again"]);
    bad(vec!["run", "--keys", &server], &["--input", "--out"]);
    bad(encrypt.to_vec(), &["--prompt-file"]);
    bad([&encrypt[..], &["--prompt", ""]].concat(), &["prompt is empty"]);
    bad([&encrypt[..], &["--prompt", "-"]].concat(), &["prompt is empty"]);
    bad([&encrypt[..], &["--prompt", &long]].concat(), &["tokens", "shorten"]);
    bad([&encrypt[..], &["--prompt-file", &none]].concat(), &["--prompt-file", "none"]);
    bad([&encrypt[..], &["--prompt-file", &folder]].concat(), &["--prompt-file"]);
    bad([&encrypt[..], &["--prompt-file", "/dev/zero"]].concat(), &["--prompt-file", "at most"]);
    bad([&encrypt[..], &["--prompt-file", &latin1]].concat(), &["--prompt-file", "UTF-8", "byte 3"]);
    bad(
        [&encrypt[..], &["--prompt", "a", "--prompt-file", &file]].concat(),
        &["--prompt", "cannot be used with"],
    );
    bad([&encrypt[..], &["--prompts", &none]].concat(), &["--prompts", "none"]);
    bad([&encrypt[..], &["--prompts", &folder]].concat(), &["--prompts", "a folder"]);
    bad([&encrypt[..], &["--prompts", "/dev/zero"]].concat(), &["--prompts", "device"]);
    bad([&encrypt[..], &["--prompts", &latin1]].concat(), &["--prompts", "UTF-8", "byte 3"]);
    bad([&encrypt[..], &["--prompts", &empty]].concat(), &["--prompts", "empty", "one prompt a line"]);
    bad([&encrypt[..], &["--prompts", &gap]].concat(), &["--prompts", "line 2 is empty"]);
    bad([&encrypt[..], &["--prompts", &pair]].concat(), &["2 prompts", "for 1 in one pass", "--prompts 2"]);
    bad([&encrypt[..], &["--prompt", "a", "--prompts", &pair]].concat(), &["--prompts", "cannot be used"]);
    bad(vec!["encrypt", "--keys", &keys, "--prompt", "a", "--out", &deep], &["--out", "no folder"]);
    bad(vec!["encrypt", "--keys", &keys, "--prompt", "a", "--out", &prompt], &["--out", "already there"]);
    bad(vec!["encrypt", "--keys", &folder, "--prompt", "a", "--out", &none], &["--keys", "keygen"]);
    bad(decrypt.to_vec(), &["--note"]);
    bad([&decrypt[..], &["--note", &none]].concat(), &["--note", "none"]);
    bad([&decrypt[..], &["--note", &file]].concat(), &["--note", "no note"]);
    bad([&decrypt[..], &["--note", "/dev/zero"]].concat(), &["--note", "device"]);
    bad([&decrypt[..], &["--position", "99999999999"]].concat(), &["--position"]);
    bad([&decrypt[..], &["--position", "-1"]].concat(), &["--position"]);
    bad([&decrypt[..], &["--note", &note, "--top", "0"]].concat(), &["--top"]);
    bad([&decrypt[..], &["--position", "0", "--check"]].concat(), &["--note"]);
    bad([&decrypt[..], &["--position", "0"]].concat(), &["ask the server"]);
    bad([&keygen[..], &["--length", "0"]].concat(), &["--length"]);
    bad([&keygen[..], &["--length", "1000"]].concat(), &["--length", "64 tokens"]);
    bad([&keygen[..], &["--length", "99999999999999999999"]].concat(), &["--length"]);
    bad([&keygen[..], &["--length", "1e3"]].concat(), &["--length"]);
    bad([&keygen[..], &["--length", "8", "--prompts", "0"]].concat(), &["--prompts"]);
    bad([&keygen[..], &["--length", "8", "--prompts", "65537"]].concat(), &["--prompts", "65536"]);
    bad([&keygen[..], &["--length", "8", "--prompts", "many"]].concat(), &["--prompts"]);
    bad([&keygen[..], &["--length", "8", "--prompts", "64"]].concat(), &["64 needed", "fewer prompts"]);
    bad(vec!["keygen", "--out", &none, "--insecure-ring", "7"], &["--insecure-ring", "8 to 15"]);
    bad(vec!["keygen", "--out", &none, "--insecure-ring", "4294967304"], &["--insecure-ring"]);
    bad(vec!["keygen", "--out", &under, "--insecure-ring", "8"], &["--out", "not a folder"]);
    bad(
        vec!["keygen", "--out", &keys, "--insecure-ring", "8", "--length", "8"],
        &["already there", "--resume"],
    );
    bad(
        vec!["keygen", "--out", &keys, "--insecure-ring", "8", "--length", "16", "--resume"],
        &["plan", "another --out"],
    );
    bad(vec!["plan", "--length", "0"], &["--length"]);
    bad(vec!["plan", "--length", "-5"], &["--length"]);
    bad(vec!["plan", "--length", "65"], &["--length", "64 tokens"]);
    bad(vec!["plan", "--model", &none], &["--model", "none"]);
    bad(vec!["plan", "--model", &file], &["model"]);
    bad(vec!["plan", "--profile", "n17"], &["--profile", "n16-fast"]);
    bad([&demo[..], &["--tokens", "0"]].concat(), &["--tokens"]);
    bad([&demo[..], &["--tokens", "200"]].concat(), &["--tokens 200", "at most"]);
    bad([&demo[..], &["--tokens", "18446744073709551615"]].concat(), &["--tokens"]);
    bad([&demo[..], &["--length", "2"]].concat(), &["--length 2", "too short"]);
    bad([&demo[..], &["--html", &deep]].concat(), &["--html", "no folder"]);
    bad([&demo[..], &["--json-file", &folder]].concat(), &["--json-file", "a folder"]);
    bad([&demo[..], &["--json-file", &none, "--html", &none]].concat(), &["--html and --json-file"]);
    bad(vec!["profile", "--length", "0"], &["--length"]);
    bad(vec!["profile", "--length", "65"], &["--length", "64 tokens"]);
    bad(vec!["profile", "--length", "8", "--prompts", "0"], &["--prompts"]);
    bad(
        vec!["profile", "--insecure-ring", "8", "--length", "8", "--prompts", "1000"],
        &["1024 needed", "fewer prompts"],
    );
    bad(vec!["profile", "--length", "8", "--html", &under], &["--html", "not a folder"]);
    bad([&generate[..], &["--tokens", "0"]].concat(), &["--tokens"]);
    bad([&generate[..], &["--tokens", "200"]].concat(), &["--tokens 200", "64 tokens", "at most"]);
    bad([&generate[..], &["--temperature", "-1"]].concat(), &["--temperature"]);
    bad([&generate[..], &["--temperature", "inf"]].concat(), &["--temperature"]);
    bad([&generate[..], &["--top-k", "0"]].concat(), &["--top-k"]);
    bad([&generate[..], &["--seed", "-1"]].concat(), &["--seed"]);
    bad([&generate[..], &["--alone", "2"]].concat(), &["--encrypted"]);
    bad([&generate[..], &["--encrypted", "--exact"]].concat(), &["--exact", "cannot be used with"]);
    bad([&generate[..], &["--encrypted", "--tokens", "2", "--alone", "2"]].concat(), &["--alone 2"]);
    bad([&eval[..], &["--windows", "0"]].concat(), &["--windows"]);
    bad([&eval[..], &["--windows", "99999999999999999"]].concat(), &["--windows"]);
    bad([&eval[..], &["--window", "1"]].concat(), &["--window"]);
    bad([&eval[..], &["--window", "65"]].concat(), &["64 tokens"]);
    bad(vec!["eval", "--text", &none], &["none"]);
    bad(vec!["eval", "--text", &latin1], &["UTF-8"]);
    bad(vec!["eval", "--text", &file], &["longer text"]);
    bad(vec!["eval", "--text", "/dev/zero"], &["device"]);
    bad([&certify[..], &["--freeze", "0"]].concat(), &["--freeze"]);
    bad([&certify[..], &["--margin-variance", "0.5"]].concat(), &["--margin-variance"]);
    bad([&certify[..], &["--error-reciprocal", "0"]].concat(), &["--error-reciprocal"]);
    bad([&certify[..], &["--max-degree", "0"]].concat(), &["--max-degree"]);
    bad([&certify[..], &["--out", &keys]].concat(), &["--out", "already there", "--force"]);
    bad([&certify[..], &["--out", &under]].concat(), &["--out", "not a folder"]);
    bad([&certify[..], &["--held-out-windows", "5000"]].concat(), &["--held-out", "longer text"]);
    bad(vec!["certify", "--calibration", &text, "--held-out", &text, "--windows", "4"], &["one file"]);
    bad(
        vec!["certify", "--calibration", &text, "--held-out", &copy, "--windows", "4"],
        &["--held-out", "stands in the calibration"],
    );
    bad(vec!["certify", "--calibration", &text, "--held-out", &other], &["--windows asks for 1024"]);
    bad(vec!["experiment", "division"], &["cargo xtask experiment division"]);
    bad(vec!["experiment", "nothing"], &["choose latency, length or one of"]);
    bad(vec!["experiment", "length", "--out", &under], &["--out", "not a folder"]);
    bad(vec!["inspect", &none], &["none"]);
    bad(vec!["inspect", &file], &["none of our files"]);
    bad(vec!["inspect", "/dev/zero"], &["device"]);
    // A build without the feature says how to get it, one with it reads the run.
    let reason = if cfg!(feature = "train") { "No such file" } else { "cargo xtask train" };
    let reasons = [reason];
    bad(vec!["train", &none], &reasons);
    bad(vec!["completions", "cmd"], &["bash"]);
    bad(vec!["nothing"], &["nothing"]);
    assert!(cases.len() >= 60, "{} cases", cases.len());
    let before = dir.listing();
    for case in &cases {
        let args = case.args.as_slice();
        let clock = Instant::now();
        let out = command(args).output().unwrap();
        let (said, took) = (String::from_utf8(out.stderr).unwrap(), clock.elapsed());
        assert_eq!(out.status.code(), Some(2), "{args:?}: {said}");
        assert!(
            case.words.iter().all(|word| said.contains(word)),
            "{args:?} said: {said}without one of {:?}",
            case.words
        );
        assert_eq!(
            said.trim_end().lines().filter(|line| !line.starts_with("WARNING")).count(),
            1,
            "{args:?}: {said}"
        );
        assert!(said.starts_with("cipherlm: ") || said.starts_with("WARNING"), "{args:?}: {said}");
        assert!(out.stdout.is_empty(), "{args:?} printed a result");
        assert!(took < AT_ONCE, "{args:?} took {took:?}");
        assert_eq!(dir.listing(), before, "{args:?} wrote something");

        let out = command(&[args, &["--json"]].concat()).output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        let last: Value = serde_json::from_str(said.lines().last().unwrap())
            .unwrap_or_else(|e| panic!("{args:?}: {e}: {said}"));
        assert_eq!((last["code"].as_i64(), out.status.code()), (Some(2), Some(2)), "{args:?}: {said}");
        assert!(matches!(last["kind"].as_str(), Some("usage" | "refused")), "{args:?}: {said}");
        assert!(
            last["error"].as_str().is_some_and(|text| !text.is_empty()) && out.stdout.is_empty(),
            "{args:?}: {said}"
        );
    }
}
