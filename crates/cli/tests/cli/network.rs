//! Server, client and proxy as programs on this machine, in a small insecure ring.

mod answers;
mod crowd;
mod kills;
mod memory;
mod openai;
mod operator;
mod puppet;
mod refusals;
mod rows;
mod site;
mod tenants;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{PROMPT, Scratch, bare, model};

/// A program that listens; killed when the test ends.
pub(crate) struct Listening {
    pub(crate) child: Child,
    pub(crate) address: String,
}

impl Listening {
    /// Starts it and waits for its line of JSON.
    pub(crate) fn start(args: &[&str], log: &Path) -> Self {
        Self::start_behind(&[], args, log)
    }

    /// The same with words before the command.
    pub(crate) fn start_behind(before: &[&str], args: &[&str], log: &Path) -> Self {
        let log = fs::OpenOptions::new().append(true).create(true).open(log).unwrap();
        let mut command = bare(args);
        if let [first, rest @ ..] = before {
            let mut outer = Command::new(first);
            outer.args(rest).arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
            outer.env("CIPHERLM_PRICES", "builtin");
            command = outer;
        }
        let mut child = command.arg("--json").stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{args:?}: {e}: {line}"));
        // A worker listens on no address of its own.
        Self { child, address: said["listening"].as_str().unwrap_or_default().to_owned() }
    }

    pub(crate) fn host(&self) -> &str {
        self.address.split('/').nth(2).unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop: the seconds that took, and whether it ended well.
    pub(crate) fn stop(&mut self) -> (f64, bool) {
        let clock = Instant::now();
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        let status = self.child.wait().unwrap();
        (clock.elapsed().as_secs_f64(), status.success())
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn done(args: &[&str]) -> Value {
    let out = bare(args).arg("--json").output().unwrap();
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

fn denied(args: &[&str], words: &[&str]) {
    let out = bare(args).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(2), "{args:?}: {said}");
    assert!(words.iter().all(|word| said.contains(word)), "{args:?} said {said}, without one of {words:?}");
}

/// Bodies from this length on are sent when the server asks for them.
const LARGE: usize = 4096;

/// One request as it is written, and status, head and body of its answer.
pub(crate) fn raw(host: &str, head: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let expect = if body.len() < LARGE { "" } else { "\r\nExpect: 100-continue" };
    let text = format!("{head}\r\nHost: {host}\r\nConnection: close{expect}\r\n\r\n");
    let _ = stream.write_all(text.as_bytes());
    let mut answer = if body.len() < LARGE { vec![] } else { first_head(&mut stream) };
    if answer.is_empty() || answer.starts_with(b"HTTP/1.1 100 ") {
        answer.clear();
        let _ = stream.write_all(body);
    } else {
        // It refuses by the head alone, and would wait for the body before it closes the line.
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    let _ = stream.read_to_end(&mut answer);
    let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") else {
        return (0, String::new(), answer);
    };
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    (status, head, answer[end + 4..].to_vec())
}

/// What comes up to the end of a head, byte by byte: nothing behind it is taken.
fn first_head(stream: &mut TcpStream) -> Vec<u8> {
    let (mut head, mut byte) = (vec![], [0]);
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    head
}

/// A server to try requests on.
pub(crate) struct Door<'a> {
    pub(crate) host: &'a str,
    pub(crate) token: String,
}

impl Door<'_> {
    pub(crate) fn call(&self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nAuthorization: Bearer {}\r\nContent-Length: {length}",
            self.token
        );
        let (status, _, answer) = raw(self.host, &head, body);
        (status, serde_json::from_slice(&answer).unwrap_or(Value::Null))
    }

    /// The request is refused with this status and code, and its answer names the next step.
    fn refuses(&self, (method, path): (&str, &str), body: &[u8], status: u16, code: &str) -> Value {
        let (found, problem) = self.call(method, path, body);
        let kind = problem["type"].as_str().unwrap_or_default();
        assert!(
            found == status && kind.ends_with(&format!("/problems/{code}")),
            "{method} {path}: {found} {problem}"
        );
        assert!(problem["next"].as_str().is_some_and(|next| next.len() > 3), "{problem}");
        problem
    }
}

pub(crate) fn hash(bytes: &[u8]) -> String {
    cipherlm_protocol::Digest::of(bytes).to_string()
}

pub(crate) fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = all.filter(|p| p.extension().is_some_and(|e| e == extension)).collect();
    found.sort();
    found
}

pub(crate) const RING: [&str; 4] = ["--insecure-ring", "9", "--length", "8"];

/// Id of the secret in a client's folder.
pub(crate) fn id(keys: &str) -> String {
    let text = fs::read_to_string(Path::new(keys).join("keys.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["key_id"].as_str().unwrap().to_owned()
}

/// Evaluation keys as a server gets them: files by their hash.
fn key_files(keys: &str) -> BTreeMap<String, Vec<u8>> {
    let whole = files(&Path::new(keys).join("server"), "key").into_iter().map(|path| fs::read(path).unwrap());
    whole.map(|bytes| (hash(&bytes), bytes)).collect()
}

/// The list of such files.
fn manifest(keys: &str, all: &BTreeMap<String, Vec<u8>>) -> Value {
    let about = fs::read_to_string(Path::new(keys).join("server/keys.json")).unwrap();
    let about: Value = serde_json::from_str(&about).unwrap();
    let list: Vec<Value> = all.iter().map(|(h, b)| json!({"blake3": h, "bytes": b.len()})).collect();
    json!({"plan": about["plan"], "params": about["params"], "keys": list})
}
