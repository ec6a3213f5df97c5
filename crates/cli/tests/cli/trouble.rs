//! Streams that close, disks that fill, processes that meet, names that are no text: nothing
//! computed is lost.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use cipherlm_files::Lock;

use crate::common::{PROMPT, Scratch, bare, call, command, json, keygen, model, refuse, succeed};

/// Keys and an encrypted prompt.
fn ready(dir: &Scratch) -> (String, String, String) {
    let (keys, server, prompt) = (dir.path("keys"), dir.path("keys/server"), dir.path("prompt"));
    keygen(&keys, "9", "8");
    succeed(&["encrypt", "--keys", &keys, "--prompt", PROMPT, "--out", &prompt]);
    (keys, server, prompt)
}

fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

#[test]
fn closed_and_full_streams_end_no_run() {
    let dir = Scratch::new("streams");
    let (keys, server, prompt) = ready(&dir);
    let at = |name: &str| dir.path(name);
    // Nobody reads standard error after its first line.
    let answer = at("a");
    let mut child = command(&["run", "--keys", &server, "--input", &prompt, "--out", &answer]);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("WARNING"), "{first}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let whole = fs::read(&answer).unwrap();
    // Standard error is full.
    let answer = at("b");
    let mut run = command(&["run", "--keys", &server, "--input", &prompt, "--out", &answer]);
    assert_eq!(run.stdout(Stdio::null()).stderr(full()).status().unwrap().code(), Some(0));
    assert_eq!(fs::read(&answer).unwrap(), whole);
    // Standard output is full: the file is there, and the status says that the words are not.
    let answer = at("c");
    let mut run = command(&["run", "--keys", &server, "--input", &prompt, "--out", &answer]);
    let out = run.stdout(full()).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains("could not be printed") && !said.contains("panicked"), "{said}");
    assert_eq!(fs::read(&answer).unwrap(), whole);
    // Nobody reads standard output: the file is there.
    let answer = at("d");
    let mut run = command(&["run", "--keys", &server, "--input", &prompt, "--out", &answer]);
    let mut child = run.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(141));
    assert_eq!(fs::read(&answer).unwrap(), whole);
    // Both closed by the shell.
    let script = "exec \"$0\" decrypt --keys \"$1\" --input \"$2\" \
                  --note \"$1/../prompt.note\" --model \"$3\" >&- 2>&-";
    let program = bare(&[]).get_program().to_owned();
    let shell =
        Command::new("sh").args(["-c", script]).arg(program).args([&keys, &answer, &model()]).status();
    assert_eq!(shell.unwrap().code(), Some(0));
}

#[test]
fn an_answer_survives_an_output_that_went_away() {
    let dir = Scratch::new("rescue");
    let (_, server, prompt) = ready(&dir);
    let whole = dir.path("whole");
    succeed(&["run", "--keys", &server, "--input", &prompt, "--out", &whole]);
    let place = dir.0.join("place");
    fs::create_dir(&place).unwrap();
    fs::create_dir(dir.0.join("here")).unwrap();
    let out = place.join("answer");
    let mut child = command(&["run", "--keys", &server, "--input", &prompt, "--out", out.to_str().unwrap()])
        .current_dir(dir.0.join("here"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("keys loaded")));
    fs::remove_dir(&place).unwrap();
    let last = lines.last().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2), "{last}");
    assert!(last.contains("the result is whole in"), "{last}");
    let kept = fs::read_dir(dir.0.join("here")).unwrap().next().unwrap().unwrap().path();
    assert!(last.contains(kept.to_str().unwrap()), "{last} names {}", kept.display());
    assert_eq!(fs::read(kept).unwrap(), fs::read(whole).unwrap());
}

#[test]
fn a_full_disk_loses_a_report_and_no_answer() {
    let dir = Scratch::new("full");
    let (file, page) = (dir.path("demo.json"), dir.path("demo.html"));
    // A limit of the shell's on the length of a file: writes past it fail as on a full disk.
    // Results go through a pipe.
    let script = "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\"";
    let out = Command::new("sh")
        .args(["-c", script])
        .arg(bare(&[]).get_program())
        .args([
            "demo",
            "--insecure-ring",
            "8",
            "--length",
            "8",
            "--prompt",
            PROMPT,
            "--json-file",
            &file,
            "--html",
            &page,
        ])
        .args(["--model", &model()])
        .output()
        .unwrap();
    let (said, why) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.status.code(), Some(2), "{why}");
    assert!(said.contains("same token as the polynomial model"), "the answer was printed first: {said}");
    assert!(why.contains("--json-file") && why.contains("limit"), "{why}");
    assert_eq!(dir.listing(), [], "nothing half written");
}

#[test]
fn a_folder_of_checkpoints_is_for_one_run() {
    let dir = Scratch::new("two");
    let (_, server, prompt) = ready(&dir);
    let at = |name: &str| dir.path(name);
    let kept = at("kept");
    let args = |out: &str| {
        [
            "run",
            "--keys",
            &server,
            "--input",
            &prompt,
            "--checkpoints",
            &kept,
            "--checkpoint-after",
            "0",
            "--out",
            out,
        ]
        .map(str::to_owned)
    };
    fs::create_dir(&kept).unwrap();
    let held = Lock::exclusive(kept.as_ref()).unwrap();
    refuse(&args(&at("a")).each_ref().map(String::as_str), &["--checkpoints", "in use"]);
    drop(held);
    // Two at once, again and again: each ends with the answer or says that the folder is in use.
    let whole = at("whole");
    succeed(&["run", "--keys", &server, "--input", &prompt, "--out", &whole]);
    let whole = fs::read(whole).unwrap();
    for round in 0..4 {
        let outs = [at(&format!("{round}-left")), at(&format!("{round}-right"))];
        let children = outs.each_ref().map(|out| {
            let args = args(out);
            command(&args.each_ref().map(String::as_str))
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        });
        let mut answers = 0;
        for (child, out) in children.into_iter().zip(&outs) {
            let ended = child.wait_with_output().unwrap();
            let said = String::from_utf8(ended.stderr).unwrap();
            match ended.status.code() {
                Some(0) => {
                    assert_eq!(fs::read(out).unwrap(), whole);
                    answers += 1;
                }
                code => assert!(code == Some(2) && said.contains("in use"), "{code:?}: {said}"),
            }
        }
        assert!(answers >= 1);
    }
    let torn =
        fs::read_dir(&kept).unwrap().flatten().filter(|e| e.path().extension().is_some_and(|x| x == "part"));
    assert_eq!(torn.count(), 0, "nothing is left aside");
}

#[test]
fn a_prompt_comes_from_standard_input_or_a_file() {
    let dir = Scratch::new("prompt");
    let at = |name: &str| dir.path(name);
    let keys = at("keys");
    keygen(&keys, "8", "8");
    let tokens = |name: &str| {
        let note: serde_json::Value = serde_json::from_str(&fs::read_to_string(at(name)).unwrap()).unwrap();
        note["tokens"].clone()
    };
    succeed(&["encrypt", "--keys", &keys, "--prompt", PROMPT, "--out", &at("a")]);
    for (name, written) in
        [("b", PROMPT.to_owned()), ("c", format!("{PROMPT}\n")), ("d", format!("\u{feff}{PROMPT}\r\n"))]
    {
        let mut child = command(&["encrypt", "--keys", &keys, "--prompt", "-", "--out", &at(name)])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(written.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(tokens(&format!("{name}.note")), tokens("a.note"), "{written:?}");
        let (file, out) = (at(&format!("{name}.txt")), at(&format!("{name}2")));
        fs::write(&file, written).unwrap();
        succeed(&["encrypt", "--keys", &keys, "--prompt-file", &file, "--out", &out]);
        assert_eq!(tokens(&format!("{name}2.note")), tokens("a.note"));
    }
    let (clear, _) = json(&["generate", "--prompt-file", &at("c.txt"), "--tokens", "3"]);
    assert_eq!(clear["prompt"], PROMPT);
}

#[test]
fn names_that_are_no_text_work_throughout() {
    let dir = Scratch::new("bytes");
    let folder = dir.0.join(OsStr::from_bytes(b"caf\xe9 \x01"));
    fs::create_dir(&folder).unwrap();
    let (keys, prompt, answer) = (folder.join("keys"), folder.join("prompt"), folder.join("answer"));
    let note = folder.join("prompt.note");
    let report = folder.join("report");
    let go = |args: &[&OsStr]| {
        let out = bare(&[]).args(args).arg("--json").output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap()
    };
    let o = OsStr::new;
    let model = model();
    let tiny = [o("--model"), o(&model)];
    let keygen =
        [o("keygen"), o("--out"), keys.as_os_str(), o("--insecure-ring"), o("8"), o("--length"), o("8")];
    assert!(go(&[&keygen[..], &tiny].concat())["secret_key"].as_str().unwrap().contains('\u{fffd}'));
    let encrypt = [
        o("encrypt"),
        o("--keys"),
        keys.as_os_str(),
        o("--prompt"),
        o(PROMPT),
        o("--out"),
        prompt.as_os_str(),
    ];
    go(&[&encrypt[..], &tiny].concat());
    let server = keys.join("server");
    let run = [o("run"), o("--keys"), server.as_os_str(), o("--input"), prompt.as_os_str(), o("--out")];
    go(&[&run[..], &[answer.as_os_str(), o("--report"), report.as_os_str()], &tiny].concat());
    let decrypt =
        [o("decrypt"), o("--keys"), keys.as_os_str(), o("--input"), answer.as_os_str(), o("--note")];
    assert_eq!(go(&[&decrypt[..], &[note.as_os_str(), o("--check")], &tiny].concat())["pass"], true);
    for path in [&keys, &server, &prompt, &note, &answer, &report] {
        go(&[o("inspect"), path.as_os_str()]);
    }
}

#[test]
fn threads_are_as_asked_for_and_help_is_no_error() {
    for count in ["1", "3"] {
        let (plan, _) =
            json(&["demo", "--insecure-ring", "8", "--length", "8", "--prompt", PROMPT, "--threads", count]);
        assert_eq!(plan["threads"].to_string(), count);
    }
    for args in [&["--help"][..], &["run", "--help"], &["--version"]] {
        let out = bare(args).output().unwrap();
        assert!(out.status.success() && !out.stdout.is_empty() && out.stderr.is_empty(), "{args:?}");
    }
    assert!(call(&["completions", "bash"]).stdout.starts_with(b"_cipherlm"));
    let nothing = bare(&[]).stdout(File::create("/dev/null").unwrap()).output().unwrap();
    assert_eq!(nothing.status.code(), Some(2));
}
