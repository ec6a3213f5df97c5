//! The four commands as four programs, in a small insecure ring: what belongs together works,
//! everything else is refused with the next step.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use crate::common::{PROMPT, Scratch, bare, call, command, json, keygen, model, refuse, succeed};

fn mode(path: &str) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn change(path: &str, edit: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    edit(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn four_programs_answer_a_prompt_and_refuse_what_does_not_belong() {
    let dir = Scratch::new("files");
    let at = |name: &str| dir.path(name);
    let (keys, server) = (at("keys"), at("keys/server"));

    // keygen: the bill first, nothing replaced, an interruption completed with the same keys.
    let bill: serde_json::Value = serde_json::from_str(&keygen(&keys, "10", "8")).unwrap();
    assert!(
        bill["stored_bytes"].as_u64().unwrap() > 1 << 20 && bill["security_bits"].as_f64().unwrap() < 128.0
    );
    assert_eq!(mode(&at("keys/secret.key")), 0o600);
    let again = ["keygen", "--out", &keys, "--insecure-ring", "10", "--length", "8"];
    refuse(&again, &["already there", "--resume"]);
    let lost = [at("keys/server/0003.key"), at("keys/server/0007.key")];
    let before = lost.each_ref().map(|file| fs::read(file).unwrap());
    lost.iter().for_each(|file| fs::remove_file(file).unwrap());
    fs::rename(at("keys/server/keys.json"), at("keys/server/keys.unfinished.json")).unwrap();
    let (prompt, note, answer) = (at("prompt"), at("prompt.note"), at("answer"));
    succeed(&["encrypt", "--keys", &keys, "--prompt", PROMPT, "--out", &prompt]);
    assert_eq!(mode(&note), 0o600);
    let go = ["run", "--keys", &server, "--input", &prompt, "--out", &answer];
    refuse(&go, &["not all there", "keygen"]);
    succeed(&[again.as_slice(), &["--resume"]].concat());
    assert_eq!(lost.each_ref().map(|file| fs::read(file).unwrap()), before, "keys follow from the secret");

    // The way of one token.
    succeed(&go);
    refuse(&go, &["already there", "--force"]);
    let read = ["decrypt", "--keys", &keys, "--input", &answer, "--note", &note];
    let said: serde_json::Value =
        serde_json::from_str(&succeed(&[read.as_slice(), &["--check", "--top", "3", "--json"]].concat()))
            .unwrap();
    let error = said["check"]["max_abs_error"].as_f64().unwrap();
    assert_eq!(said["pass"], true, "{said}");
    assert!(error < 2f64.powi(-6), "{error}");
    assert_eq!(said["top"].as_array().unwrap().len(), 3);

    // Each file says what it is.
    let plan = at("plan.json");
    fs::write(&plan, succeed(&["plan", "--length", "8", "--json"])).unwrap();
    for (file, what) in [
        (keys.as_str(), "client's key folder"),
        (&server, "evaluation keys"),
        (&at("keys/secret.key"), "SECRET key"),
        (&at("keys/server/0001.key"), "evaluation key"),
        (&at("keys/server/keys.json"), "description of a key folder"),
        (&prompt, "encrypted prompt"),
        (&note, "client's note"),
        (&answer, "encrypted answer"),
        (&plan, "plan"),
        (&model(), "model folder"),
        (&format!("{}/run.json", model()), "training run"),
        (&format!("{}/tokenizer.json", model()), "tokenizer"),
        (&format!("{}/weights.safetensors", model()), "tensors"),
    ] {
        let said: serde_json::Value = serde_json::from_str(&succeed(&["inspect", file, "--json"])).unwrap();
        assert!(said["what"].as_str().unwrap().starts_with(what), "{file}: {said}");
        assert_ne!(said["whole"], false, "{file}: {said}");
        assert!(!said.to_string().contains("tokens\":["), "the prompt stays in its note: {said}");
    }

    // Killed in the middle, the run goes on and gives the same bytes; so does one that may hold few
    // keys.
    let kept = at("kept");
    let (first, second) = (at("answer2"), at("answer3"));
    let slow = ["run", "--keys", &server, "--input", &prompt, "--out", &first, "--checkpoints", &kept];
    let slow = [slow.as_slice(), &["--checkpoint-after", "0"]].concat();
    let steps = || {
        fs::read_dir(&kept)
            .map_or(0, |d| d.flatten().filter(|e| e.path().extension().is_some_and(|x| x == "step")).count())
    };
    let mut child = command(&slow).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while steps() < 5 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!Path::new(&first).exists(), "it was killed in the middle");
    succeed(&slow);
    assert_eq!(fs::read(&first).unwrap(), fs::read(&answer).unwrap(), "resumed");
    succeed(&["run", "--keys", &server, "--input", &prompt, "--out", &second, "--key-memory", "0.001"]);
    assert_eq!(fs::read(&second).unwrap(), fs::read(&answer).unwrap(), "with few keys in memory");

    // Others' keys, plans and parameters.
    let (other, longer, wider) = (at("other"), at("longer"), at("wider"));
    keygen(&other, "10", "8");
    keygen(&longer, "10", "16");
    keygen(&wider, "11", "8");
    let foreign = at("foreign");
    for (keys, words) in [
        (&other, ["under key", "encrypt it again"]),
        (&longer, ["plan", "encrypt it again"]),
        (&wider, ["parameter", "encrypt the prompt again"]),
    ] {
        succeed(&["encrypt", "--keys", keys, "--prompt", PROMPT, "--out", &foreign, "--force"]);
        refuse(&["run", "--keys", &server, "--input", &foreign, "--out", &at("none")], &words);
    }
    refuse(
        &["decrypt", "--keys", &other, "--input", &answer, "--position", "0"],
        &["key", "no answer to a prompt under these keys"],
    );
    refuse(&["decrypt", "--keys", &longer, "--input", &answer, "--position", "0"], &["plan"]);
    refuse(&["decrypt", "--keys", &wider, "--input", &answer, "--position", "0"], &["parameter"]);
    refuse(&["decrypt", "--keys", &other, "--input", &answer, "--note", &note], &["note", "other keys"]);
    fs::copy(at("other/server/0000.key"), at("keys/server/0000.key")).unwrap();
    refuse(
        &["run", "--keys", &server, "--input", &prompt, "--out", &at("none")],
        &["evaluation keys", "key"],
    );
    fs::copy(at("other/secret.key"), at("keys/secret.key")).unwrap();
    refuse(&["decrypt", "--keys", &keys, "--input", &answer, "--note", &note], &["key"]);
}

#[test]
fn a_client_needs_no_model() {
    let dir = Scratch::new("client");
    let at = |name: &str| dir.path(name);
    let (client, keys, server) = (at("client"), at("keys"), at("keys/server"));
    succeed(&["plan", "--client", &client, "--insecure-ring", "9", "--length", "8"]);
    let mut files: Vec<_> = fs::read_dir(&client).unwrap().map(|e| e.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["client-plan.json", "embedding.safetensors", "tokenizer.json"]);
    assert!(fs::metadata(at("client/client-plan.json")).unwrap().len() <= 64 << 10);
    let own = |args: &[&str]| bare(args).output().unwrap();
    let done = |args: &[&str]| {
        let out = own(args);
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let denied = |args: &[&str], word: &str| {
        let out = own(args);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(2) && said.contains(word), "{args:?}: {said}");
    };

    // A plan of another party does not lead into a small ring unless its user says so.
    denied(&["keygen", "--plan", &client, "--out", &keys], "--insecure-ring");
    denied(&["keygen", "--plan", &client, "--out", &keys, "--insecure-ring", "10"], "2^9");
    done(&["keygen", "--plan", &client, "--out", &keys, "--insecure-ring", "9"]);
    let (prompt, note, answer) = (at("prompt"), at("prompt.note"), at("answer"));
    done(&["encrypt", "--plan", &client, "--keys", &keys, "--prompt", PROMPT, "--out", &prompt]);
    succeed(&["run", "--keys", &server, "--input", &prompt, "--out", &answer]);
    let read = ["decrypt", "--keys", &keys, "--input", &answer, "--note", &note, "--top", "3", "--json"];
    let said = done(&[read.as_slice(), &["--plan", &client]].concat());
    let (said, whole): (serde_json::Value, serde_json::Value) =
        (serde_json::from_str(&said).unwrap(), serde_json::from_str(&succeed(&read)).unwrap());
    assert_eq!(said, whole, "the model changes nothing that is read");
    assert!(said["top"].as_array().unwrap().len() == 3);
    denied(&[read.as_slice(), &["--plan", &client, "--check"]].concat(), "--check");

    // Files that do not belong together.
    change(&at("client/embedding.safetensors"), |b| *b.last_mut().unwrap() ^= 1);
    denied(&[read.as_slice(), &["--plan", &client]].concat(), "embedding");
    denied(&[read.as_slice(), &["--plan", &at("nowhere")]].concat(), "plan --client");
    succeed(&["plan", "--client", &client, "--insecure-ring", "9", "--length", "16"]);
    denied(&[read.as_slice(), &["--plan", &client]].concat(), "plan");
}

#[test]
fn damaged_files_are_refused_with_the_next_step() {
    let dir = Scratch::new("damage");
    let at = |name: &str| dir.path(name);
    let (keys, server, prompt, none) = (at("keys"), at("keys/server"), at("prompt"), at("none"));
    keygen(&keys, "9", "8");
    succeed(&["encrypt", "--keys", &keys, "--prompt", PROMPT, "--out", &prompt]);
    let go = ["run", "--keys", &server, "--input", &prompt, "--out", &none];
    let whole = fs::read(&prompt).unwrap();
    change(&prompt, |b| b.truncate(b.len() / 2));
    assert_eq!(call(&["inspect", &prompt]).status.code(), Some(1), "a damaged file does not pass");
    refuse(&go, &["malformed", "encrypt the prompt again"]);
    fs::write(&prompt, &whole).unwrap();
    change(&prompt, |b| *b.last_mut().unwrap() ^= 1);
    refuse(&go, &["malformed", "encrypt the prompt again"]);
    fs::write(&prompt, b"hello").unwrap();
    refuse(&go, &["malformed", "encrypt the prompt again"]);
    fs::write(&prompt, &whole).unwrap();
    refuse(
        &["decrypt", "--keys", &keys, "--input", &prompt, "--position", "0"],
        &["malformed", "ask the server"],
    );
    refuse(&["run", "--keys", &keys, "--input", &prompt, "--out", &none], &["not", "key"]);
    refuse(&["run", "--keys", &at("nowhere"), "--input", &prompt, "--out", &none], &["keygen"]);
    refuse(&["encrypt", "--keys", &keys, "--prompt", "", "--out", &none], &["prompt is empty"]);
    refuse(
        &["encrypt", "--keys", &keys, "--prompt", &"cat ".repeat(200), "--out", &none],
        &["tokens", "shorten"],
    );

    // A key with a flipped bit, then a missing one.
    let key = at("keys/server/0002.key");
    let good = fs::read(&key).unwrap();
    change(&key, |b| *b.last_mut().unwrap() ^= 1);
    refuse(&go, &["evaluation key is damaged", "copy the folder"]);
    fs::remove_file(&key).unwrap();
    refuse(&go, &["copy the folder again"]);
    fs::write(&key, good).unwrap();

    // A place that takes no files, of which there is always one.
    let full = "/proc/nothing";
    refuse(
        &["keygen", "--out", full, "--insecure-ring", "9", "--length", "8"],
        &["--out", "takes no new file"],
    );
    refuse(&[go.as_slice(), &["--checkpoints", full]].concat(), &["--checkpoints", "takes no new file"]);

    // Checkpoints with a flipped bit are told, and their steps computed again: no wrong answer is
    // made of them.
    let kept = at("kept");
    let slow = [go.as_slice(), &["--checkpoints", &kept, "--checkpoint-after", "0"]].concat();
    succeed(&slow);
    let (said, status) = json(&["inspect", &kept]);
    assert_eq!((status, &said["whole"]), (0, &true.into()), "{said}");
    let answer = fs::read(&none).unwrap();
    fs::remove_file(&none).unwrap();
    fs::read_dir(&kept)
        .unwrap()
        .flatten()
        .for_each(|e| change(e.path().to_str().unwrap(), |b| *b.last_mut().unwrap() ^= 1));
    let (said, status) = json(&["inspect", &kept]);
    assert_eq!((status, &said["damaged"]), (1, &said["steps"]), "{said}");
    succeed(&slow);
    assert_eq!(fs::read(&none).unwrap(), answer, "computed again");
    fs::remove_file(&none).unwrap();

    // A secret that others may read, or that is damaged.
    let secret = at("keys/secret.key");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let encrypt = ["encrypt", "--keys", &keys, "--prompt", PROMPT, "--out", &at("again")];
    refuse(&encrypt, &["chmod 600"]);
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    change(&secret, |b| *b.last_mut().unwrap() ^= 1);
    refuse(&encrypt, &["is not the secret key", "make new keys"]);
}
