//! `inspect` says what a file is and whether it is whole, from its head and at any length.

use std::fs;
use std::path::Path;
use std::process::Command;

use cipherlm_ckks::wire::{MAGIC, VERSION};
use cipherlm_model::Model;
use cipherlm_model::difference::{self, DIFFERENCE_FILE, Difference};

use crate::common::{PROMPT, Scratch, bare, call, json, keygen, model, succeed};

fn copy_model(to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in ["model.json", "weights.safetensors", "tokenizer.json"] {
        fs::copy(Path::new(&model()).join(name), to.join(name)).unwrap();
    }
}

#[test]
fn damaged_files_and_folders_are_named_for_it() {
    let dir = Scratch::new("inspect");
    let at = |name: &str| dir.path(name);
    let weights = fs::read(Path::new(&model()).join("weights.safetensors")).unwrap();
    let not_whole = |path: &str, what: &str, reason: &str| {
        let (said, status) = json(&["inspect", path]);
        assert_eq!((status, &said["whole"]), (1, &false.into()), "{path}: {said}");
        assert!(said["what"].as_str().unwrap().contains(what), "{path}: {said}");
        assert!(said["reason"].as_str().unwrap_or_default().contains(reason), "{path}: {said}");
    };
    // Cut at every kind of place: within the length, the header, the tensors; one byte short, one
    // byte more.
    let header = u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    for (length, reason) in
        [(9, "within a header"), (8 + header / 2, "within a header"), (50_000, "50000 of")]
    {
        fs::write(at("w"), &weights[..length]).unwrap();
        not_whole(&at("w"), "safetensors", reason);
    }
    for bytes in [&weights[..weights.len() - 1], &[weights.as_slice(), &[0]].concat()] {
        fs::write(at("w"), bytes).unwrap();
        not_whole(&at("w"), "safetensors", &format!("of {} bytes", weights.len()));
    }
    fs::write(at("w"), "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 147984\n").unwrap();
    not_whole(&at("w"), "Git LFS", "git lfs pull");

    // A model folder with any of its files cut or gone.
    let folder = at("folder");
    for name in ["model.json", "weights.safetensors", "tokenizer.json"] {
        copy_model(Path::new(&folder));
        assert_eq!(json(&["inspect", &folder]).0["whole"], true);
        let file = Path::new(&folder).join(name);
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
        not_whole(&folder, "model folder", "");
        fs::remove_file(&file).unwrap();
        not_whole(&folder, "model folder", "");
    }

    // A key folder with a key cut or gone; a prompt with a byte more.
    let (keys, server, prompt) = (at("keys"), at("keys/server"), at("prompt"));
    keygen(&keys, "8", "8");
    succeed(&["encrypt", "--keys", &keys, "--prompt", PROMPT, "--out", &prompt]);
    let key = at("keys/server/0002.key");
    let whole = fs::read(&key).unwrap();
    fs::write(&key, &whole[..whole.len() - 1]).unwrap();
    not_whole(&server, "evaluation keys", "");
    not_whole(&keys, "client's key folder", "");
    not_whole(&key, "evaluation key", "ends after");
    fs::remove_file(&key).unwrap();
    not_whole(&server, "evaluation keys", "");
    let bytes = fs::read(&prompt).unwrap();
    fs::write(&prompt, [bytes.as_slice(), &[0]].concat()).unwrap();
    not_whole(&prompt, "encrypted prompt", "within a header");
}

#[test]
fn a_folder_with_a_difference_says_what_it_belongs_to() {
    let dir = Scratch::new("inspect-difference");
    let (folder, base) = (dir.0.join("folder"), dir.0.join("folder/base"));
    copy_model(&base);
    let before = Model::load(&base).unwrap();
    let mut weights = before.weights().clone();
    let gain = weights.tensor("layers.0.norm1.gain").unwrap().clone();
    weights.insert("layers.0.norm1.gain", &gain.dims, vec![0.75; gain.data.len()]).unwrap();
    let after = before.with(before.shape().clone(), weights).unwrap();
    let how = Difference {
        rank: None,
        whole: vec![],
        at_most: 1 << 20,
        folder: String::new(),
        fetch: "get the base".into(),
    };
    difference::write(&before, &after, &how, &folder).unwrap();
    let file = folder.join(DIFFERENCE_FILE);
    difference::apply(&before, &file).unwrap().save(&dir.0.join("whole")).unwrap();
    fs::copy(dir.0.join("whole/model.json"), folder.join("model.json")).unwrap();
    fs::copy(base.join("tokenizer.json"), folder.join("tokenizer.json")).unwrap();
    let path = folder.to_str().unwrap();
    let (said, status) = json(&["inspect", path]);
    assert_eq!((status, &said["whole"]), (0, &true.into()), "{said}");
    assert!(said["what"].as_str().unwrap().contains("difference") && said["layers"].is_u64(), "{said}");
    let bytes = fs::metadata(&file).unwrap().len();
    assert_eq!(
        (&said["base"], said["difference_bytes"].as_u64()),
        (&before.spec().name.as_str().into(), Some(bytes))
    );
    // Without its base it is whole, and says what to do.
    fs::rename(&base, dir.0.join("elsewhere")).unwrap();
    let (said, status) = json(&["inspect", path]);
    assert_eq!((status, &said["whole"], &said["next"]), (0, &true.into(), &"get the base".into()), "{said}");
    assert_eq!(said["base_blake3"], before.spec().weights_blake3.as_str());
    let mut damaged = fs::read(&file).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&file, damaged).unwrap();
    let (said, status) = json(&["inspect", path]);
    assert_eq!((status, &said["whole"]), (1, &false.into()), "{said}");
}

#[test]
fn endless_and_sparse_files_are_told_from_their_head_in_little_memory() {
    let dir = Scratch::new("sparse");
    let at = |name: &str| dir.path(name);
    let sparse = |name: &str, start: &[u8]| {
        let path = at(name);
        fs::write(&path, start).unwrap();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100 << 30).unwrap();
        path
    };
    let mut object = [&MAGIC[..], &VERSION.to_le_bytes(), &1u16.to_le_bytes()].concat();
    object.resize(72, 7);
    object.extend_from_slice(&((100u64 << 30) - 112).to_le_bytes());
    object.resize(112, 7);
    let safetensors = [&100_000u64.to_le_bytes()[..], b"{"].concat();
    let limited = |path: &str| {
        let program = bare(&[]).get_program().to_owned();
        let mut shell = Command::new("timeout");
        shell
            .args(["20", "sh", "-c", "ulimit -v 2000000; exec \"$0\" inspect \"$1\" --threads 1"])
            .arg(program)
            .arg(path);
        let out = shell.output().unwrap();
        (out.status.code().unwrap(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
    };
    for (path, status, word) in [
        ("/dev/zero".to_owned(), 2, "device"),
        (sparse("zeros", b""), 2, "none of our files"),
        (sparse("text", b"{\"a\":"), 2, "at most"),
        (sparse("object", &object), 1, "larger than any"),
        (
            sparse("prompt", &[b"cipherp2", [7; 64].as_slice(), &[7, 0, 0, 0], &[0; 12], &object].concat()),
            1,
            "larger than any",
        ),
        (sparse("tensors", &safetensors), 1, "no JSON"),
        (sparse("long", &[&u64::MAX.to_le_bytes()[..], b"{"].concat()), 1, "longer than the format"),
    ] {
        let (found, said) = limited(&path);
        assert_eq!(found, status, "{path}: {said}");
        assert!(said.contains(word), "{path}: {said}");
    }
}

#[test]
fn nothing_out_of_a_file_reaches_the_terminal_as_a_command() {
    let dir = Scratch::new("escapes");
    let at = |name: &str| dir.path(name);
    let evil = "x\u{1b}]0;pwned\u{7}\u{1b}[2J\u{9b}31m\u{202e}\r\nwhole true";
    let folder = at("model");
    copy_model(Path::new(&folder));
    let description = Path::new(&folder).join("model.json");
    let mut json: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&description).unwrap()).unwrap();
    json["name"] = evil.into();
    json["provenance"]["\u{1b}[31mkey"] = evil.into();
    fs::write(&description, json.to_string()).unwrap();
    let clean = |args: &[&str], status: i32| {
        for more in [&[][..], &["--json"]] {
            let out = call(&[args, more].concat());
            let said = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
            assert_eq!(out.status.code(), Some(status), "{args:?}: {said}");
            assert!(said.contains("pwned"), "{args:?} shows the name: {said}");
            let bad = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}');
            assert!(!said.contains(bad), "{args:?}: {said:?}");
            assert!(!said.contains("\nwhole true"), "a name cannot pass for a fact: {said}");
        }
    };
    clean(&["inspect", &folder], 0);
    clean(&["plan", "--model", &folder, "--length", "8", "--insecure-ring", "8", "--explain"], 0);
    let keys = at("keys");
    keygen(&keys, "8", "8");
    for field in ["model", "plan", "profile"] {
        let file = at("keys/server/keys.json");
        let text = fs::read_to_string(&file).unwrap();
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value[field] = evil.into();
        fs::write(&file, value.to_string()).unwrap();
        clean(&["inspect", &at("keys/server")], 0);
        if field != "model" {
            clean(&["run", "--keys", &at("keys/server"), "--input", &file, "--out", &at("none")], 2);
        }
        fs::write(&file, text).unwrap();
    }
    // The name of a file is somebody's text too.
    let named = dir.0.join("pwned\u{1b}[2J");
    fs::write(&named, "hello").unwrap();
    clean(&["inspect", named.to_str().unwrap()], 2);
}
