//! Server, client and proxy as programs on this machine, in a small insecure ring.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{PROMPT, Scratch, bare, model, succeed};

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
    fn stop(&mut self) -> (f64, bool) {
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

/// One request as it is written, and status, head and body of its answer.
pub(crate) fn raw(host: &str, head: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(host).unwrap();
    let text = format!("{head}\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(text.as_bytes());
    // A server that refuses by the head alone closes the line on a body that is on its way.
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    if body.len() < 4096 || stream.peek(&mut [0]).is_err() {
        let _ = stream.write_all(body);
    }
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") else {
        return (0, String::new(), answer);
    };
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    (status, head, answer[end + 4..].to_vec())
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

#[test]
fn a_server_answers_over_tls_and_survives_its_own_death() {
    let dir = Scratch::new("network");
    let at = |name: &str| dir.path(name);
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (cert, key, data, log) = (at("cert.pem"), at("key.pem"), at("data"), at("log"));
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tiny = model();
    let serve = |listen: &str| {
        let args = ["serve", "--model", &tiny, "--data", &data, "--listen", listen, "--tls-cert", &cert];
        let more = ["--tls-key", &key, "--checkpoint-after", "0"];
        Listening::start(&[&args[..], &more, &RING].concat(), Path::new(&log))
    };
    let mut server = serve("127.0.0.1:0");
    let (token, address) = (at("data/token"), server.address.clone());
    let to = ["--server", &address, "--token-file", &token, "--ca", &cert];
    let with = |args: &[&str]| done(&[args, &to].concat());

    // A client without the model: plan, keys, registration, once.
    let (client, keys) = (at("client"), at("keys"));
    with(&["plan", "--client", &client]);
    done(&["keygen", "--plan", &client, "--out", &keys, "--insecure-ring", "9"]);
    let first = with(&["push", "--keys", &keys]);
    assert_eq!((&first["sent"], first["sent"].as_u64().unwrap() > 20), (&first["keys"], true), "{first}");
    assert_eq!(with(&["push", "--keys", &keys])["sent"], 0, "keys are sent once");
    fs::remove_file(&files(&PathBuf::from(at("data/keys/owner")).join(id(&keys)), "key")[3]).unwrap();
    assert_eq!(with(&["push", "--keys", &keys])["sent"], 1, "what is missing is sent again");

    // The answer is that of the commands on files.
    let (prompt, answer, again) = (at("prompt"), at("answer"), at("again"));
    let asked = with(&["ask", "--keys", &keys, "--prompt", PROMPT, "--top", "3", "--keep", &prompt, &answer]);
    succeed(&["run", "--keys", &at("keys/server"), "--input", &prompt, "--out", &again]);
    assert!(fs::read(&answer).unwrap() == fs::read(&again).unwrap(), "the same bytes");
    let read = ["decrypt", "--plan", &client, "--keys", &keys, "--input", &again, "--position"];
    let position = (tokens(PROMPT) - 1).to_string();
    let opened = done(&[&read[..], &[position.as_str(), "--top", "3"]].concat());
    assert_eq!(asked["top"], opened["top"]);

    // Killed in the middle of a job, a server goes on from its checkpoints; the asking client
    // waits.
    let (second, third, fourth) = (at("prompt2"), at("answer2"), at("again2"));
    let ask = ["ask", "--keys", &keys, "--prompt", "One day a dog", "--keep", &second, &third];
    let mut asking = bare(&[&ask[..], &to].concat()).stdout(Stdio::null()).spawn().unwrap();
    let steps = || {
        let jobs = fs::read_dir(at("data/jobs/owner")).into_iter().flatten().flatten();
        jobs.map(|job| files(&job.path().join("steps"), "step").len()).max().unwrap_or(0)
    };
    let clock = Instant::now();
    while steps() < 5 && clock.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(2));
    }
    let before = steps();
    server.kill();
    assert!(before >= 5, "no checkpoints were seen");
    let mut server = serve(address.split('/').nth(2).unwrap());
    assert!(asking.wait().unwrap().success());
    succeed(&["run", "--keys", &at("keys/server"), "--input", &second, "--out", &fourth]);
    assert!(fs::read(&third).unwrap() == fs::read(&fourth).unwrap(), "the same bytes after a kill");

    // A server that is asked to stop does.
    let (seconds, well) = server.stop();
    assert!(well && seconds < 30.0, "{seconds}");
    no_canary(&dir, &keys, &[data.as_str(), &log]);
    denied(&[&["ask", "--keys", &keys, "--prompt", "x"][..], &to[..4]].concat(), &["is the server running"]);
}

/// Id of the secret in a client's folder.
pub(crate) fn id(keys: &str) -> String {
    let text = fs::read_to_string(Path::new(keys).join("keys.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["key_id"].as_str().unwrap().to_owned()
}

fn tokens(text: &str) -> usize {
    let path = Path::new(&model()).join("tokenizer.json");
    cipherlm_model::Tokenizer::load(&path).unwrap().encode(text).unwrap().len()
}

/// Nothing on the server's side holds a window of the secret's seed or of a prompt.
fn no_canary(dir: &Scratch, keys: &str, places: &[&str]) {
    let secret = fs::read(Path::new(keys).join("secret.key")).unwrap();
    let mut canaries: HashSet<Vec<u8>> = secret[secret.len() - 32..].windows(8).map(<[u8]>::to_vec).collect();
    canaries.extend(
        [PROMPT, "One day a dog"].iter().flat_map(|text| text.as_bytes().windows(8).map(<[u8]>::to_vec)),
    );
    let mut seen = 0;
    for (path, _) in dir.listing().iter().filter(|(p, _)| places.iter().any(|place| p.starts_with(place))) {
        if let Ok(bytes) = fs::read(path) {
            seen += bytes.len();
            let found = bytes.windows(8).find(|window| canaries.contains(*window));
            assert!(found.is_none(), "{}: {found:?}", path.display());
        }
    }
    assert!(seen > 1 << 20, "{seen} bytes were looked through");
}

#[test]
fn bad_requests_are_refused_by_name_and_leave_nothing() {
    let dir = Scratch::new("refusals");
    let at = |name: &str| dir.path(name);
    let (data, log, keys, other) = (at("data"), at("log"), at("keys"), at("other"));
    let tiny = model();
    denied(&["serve", "--model", &tiny, "--data", &data], &["no TLS", "--plain-http"]);
    let open = ["serve", "--model", &tiny, "--data", &data, "--plain-http", "--listen", "0.0.0.0:0"];
    denied(&open, &["loopback"]);
    let open = ["serve", "--model", &tiny, "--data", &data, "--plain-http", "--listen", "127.0.0.1:0"];
    let server = Listening::start(&[&open[..], &RING].concat(), Path::new(&log));
    denied(&[&open[..], &RING].concat(), &["in use", "--data"]);
    for out in [&keys, &other] {
        let made = ["keygen", "--model", &tiny, "--out", out, "--insecure-ring", "9", "--length", "8"];
        done(&made);
    }
    let token = fs::read_to_string(at("data/token")).unwrap();
    let door = Door { host: server.host(), token };

    // Who asks.
    let stranger = Door { host: server.host(), token: "0".repeat(64) };
    stranger.refuses(("GET", "/v1/models"), b"", 401, "auth");
    let (status, made) = door.call("POST", "/v1/tokens", br#"{"tenant":"other","scopes":["jobs"]}"#);
    assert_eq!(status, 201);
    let narrow = Door { host: server.host(), token: made["token"].as_str().unwrap().to_owned() };
    door.refuses(("POST", "/v1/tokens"), br#"{"tenant":"../x","scopes":[]}"#, 400, "json/field");
    door.refuses(("POST", "/v1/tokens"), br#"{"tenant":"x","scopes":[],"y":1}"#, 400, "json/field");
    narrow.refuses(("GET", "/metrics"), b"", 403, "scope");

    // Addresses.
    door.refuses(("GET", "/v2"), b"", 404, "not-found");
    door.refuses(("POST", "/v1/models"), b"", 405, "method");
    door.refuses(("GET", "/v1/jobs/..%2f..%2fetc%2fpasswd"), b"", 404, "not-found");
    door.refuses(("GET", "/v1/plans/other"), b"", 404, "plan/unknown");
    let long = format!("GET /v1/models HTTP/1.1\r\nX-Long: {}", "x".repeat(40 << 10));
    assert_eq!(raw(server.host(), &long, b"").0, 431);

    keys_are_checked(&door, &narrow, &data, &keys, &other);
    prompts_are_checked(&door, &narrow, &dir, &keys, &other);
    assert_eq!(raw(server.host(), "GET /healthz HTTP/1.1", b"").0, 200);
    assert_eq!(raw(server.host(), "GET /openapi.json HTTP/1.1", b"").0, 200);
    let length = "GET /metrics HTTP/1.1\r\nAuthorization: Bearer ".to_owned() + &door.token;
    let (_, _, text) = raw(server.host(), &length, b"");
    assert!(String::from_utf8_lossy(&text).contains("refused_total{problem=\"key/mismatch\"}"));
    assert!(!fs::read_to_string(&log).unwrap().contains(&door.token), "no token in the journal");
    openapi_names_every_address(server.host());
}

/// Every address of the text answers something other than 404 `not-found`.
fn openapi_names_every_address(host: &str) {
    let (_, _, text) = raw(host, "GET /openapi.json HTTP/1.1", b"");
    let text: Value = serde_json::from_slice(&text).unwrap();
    let paths = text["paths"].as_object().unwrap();
    assert!(paths.len() >= 12, "{}", paths.len());
    for (path, methods) in paths {
        let path = ["{key}", "{hash}", "{job}"]
            .iter()
            .fold(path.clone(), |p, name| p.replace(name, &"0".repeat(64)));
        let path = path.replace("{plan}", "p");
        for method in methods.as_object().unwrap().keys() {
            let (status, _, body) =
                raw(host, &format!("{} {path} HTTP/1.1\r\nContent-Length: 0", method.to_uppercase()), b"");
            let body = String::from_utf8_lossy(&body).into_owned();
            assert!(
                status != 405 && !body.contains("problems/not-found"),
                "{method} {path}: {status} {body}"
            );
        }
    }
}

fn keys_are_checked(door: &Door<'_>, narrow: &Door<'_>, data: &str, keys: &str, other: &str) {
    let key = id(keys);
    let address = format!("/v1/keys/{key}");
    let about: Value =
        serde_json::from_str(&fs::read_to_string(Path::new(keys).join("server/keys.json")).unwrap()).unwrap();
    let mut all: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for path in files(&Path::new(keys).join("server"), "key") {
        let bytes = fs::read(path).unwrap();
        all.insert(hash(&bytes), bytes);
    }
    let manifest = |all: &BTreeMap<String, Vec<u8>>| {
        let list: Vec<Value> = all.iter().map(|(h, b)| json!({"blake3": h, "bytes": b.len()})).collect();
        json!({"plan": about["plan"], "params": about["params"], "keys": list})
    };
    let text = |value: &Value| value.to_string().into_bytes();
    let whole = manifest(&all);
    let put = ("PUT", address.as_str());
    narrow.refuses(put, &text(&whole), 403, "scope");
    door.refuses(put, &vec![b' '; 65 << 10], 413, "length/mismatch");
    door.refuses(put, "[".repeat(40).as_bytes(), 400, "json/limit");
    let edited = |field: &str, value: Value| {
        let mut edited = whole.clone();
        edited[field] = value;
        text(&edited)
    };
    door.refuses(put, &edited("extra", 1.into()), 400, "json/field");
    door.refuses(put, &edited("params", "0".repeat(64).into()), 409, "params/mismatch");
    let problem = door.refuses(put, &edited("plan", "another".into()), 409, "plan/superseded");
    assert_eq!(problem["plan"], about["plan"]);
    let mut fewer = all.clone();
    fewer.pop_first();
    door.refuses(put, &text(&manifest(&fewer)), 409, "key/incomplete");
    door.refuses(("PUT", "/v1/keys/xyz"), &text(&whole), 404, "not-found");

    // Files that do not belong: each stands in a manifest, so only its content is wrong.
    let (first, bytes) = all.first_key_value().map(|(h, b)| (h.clone(), b.clone())).unwrap();
    let file = |hash: &str| format!("{address}/{hash}");
    door.refuses(("PUT", &file(&first)), &bytes, 404, "key/unknown");
    let foreign = fs::read(&files(&Path::new(other).join("server"), "key")[0]).unwrap();
    let mut nonsense = bytes.clone();
    nonsense[..4].fill(0);
    for (wrong, status, code) in [(foreign, 409, "key/mismatch"), (nonsense, 400, "object/magic")] {
        let mut listed = all.clone();
        listed.remove(&first);
        listed.insert(hash(&wrong), wrong.clone());
        assert_eq!(door.call("PUT", &address, &text(&manifest(&listed))).0, 200);
        door.refuses(("PUT", &file(&hash(&wrong))), &wrong, status, code);
    }
    let (status, missing) = door.call("PUT", &address, &text(&whole));
    assert_eq!((status, missing["missing"].as_array().unwrap().len()), (200, all.len()));
    door.refuses(("PUT", &file(&"0".repeat(64))), &bytes, 404, "blob/unlisted");
    door.refuses(("PUT", &file(&first)), &bytes[1..], 413, "length/mismatch");
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    door.refuses(("PUT", &file(&first)), &flipped, 422, "blob/hash");
    let head = format!("PUT {} HTTP/1.1\r\nAuthorization: Bearer {}", file(&first), door.token);
    let chunked = format!("{head}\r\nTransfer-Encoding: chunked");
    assert_eq!(raw(door.host, &chunked, b"0\r\n\r\n").0, 411);
    let short = format!("{head}\r\nContent-Length: {}", bytes.len());
    let mut stream = TcpStream::connect(door.host).unwrap();
    stream.write_all(format!("{short}\r\nHost: {}\r\n\r\n", door.host).as_bytes()).unwrap();
    stream.write_all(&bytes[..bytes.len() / 2]).unwrap();
    drop(stream);
    std::thread::sleep(Duration::from_millis(200));
    let folder = Path::new(data).join("keys/owner").join(&key);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "nothing of a refused file is kept");
    assert_eq!(door.call("PUT", &file(&first), &bytes).0, 201);
    assert_eq!(door.call("PUT", &file(&first), &bytes).0, 200, "again");
}

fn prompts_are_checked(door: &Door<'_>, narrow: &Door<'_>, dir: &Scratch, keys: &str, other: &str) {
    let token_file = dir.path("data/token");
    let url = format!("http://{}", door.host);
    let to = ["--server", &url, "--token-file", &token_file];
    let encrypt = |keys: &str, out: &str| {
        let out = dir.path(out);
        done(&["encrypt", "--model", &model(), "--keys", keys, "--prompt", PROMPT, "--out", &out]);
        fs::read(out).unwrap()
    };
    let (good, foreign) = (encrypt(keys, "good"), encrypt(other, "foreign"));
    let (key, name) = (id(keys), hash(&good));
    let job = |bytes: &[u8]| format!("/v1/jobs/{}?key={key}", hash(bytes));
    let problem = door.refuses(("PUT", &job(&good)), &good, 409, "key/incomplete");
    assert!(problem["missing"].as_array().unwrap().len() > 10);
    done(&[&["push", "--keys", keys][..], &to].concat());
    let unknown = format!("/v1/jobs/{name}?key={}", "0".repeat(64));
    door.refuses(("PUT", &unknown), &good, 404, "key/unknown");
    narrow.refuses(("PUT", &job(&good)), &good, 404, "key/unknown");
    door.refuses(("PUT", &job(&good)), &good[1..], 413, "length/mismatch");
    let change = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    // Head of a prompt: magic, plan, key, length, position, degree, level; then an object: magic,
    // version, type, parameters, key, length.
    for (bad, status, code) in [
        (change(0, 0), 400, "object/magic"),
        (change(8, b'?'), 409, "plan/mismatch"),
        (change(40, good[40] ^ 1), 409, "key/mismatch"),
        (change(72, 99), 422, "object/field"),
        (change(76, 8), 422, "object/field"),
        (change(80, good[80] ^ 1), 422, "object/field"),
        (change(88, 0), 400, "object/magic"),
        (change(92, 99), 400, "object/version"),
        (change(94, 7), 400, "object/type"),
        (change(98, good[98] ^ 1), 409, "params/mismatch"),
        (change(161, good[161] ^ 1), 400, "object/length"),
        (change(good.len() - 1, good[good.len() - 1] ^ 1), 400, "object/hash"),
        (foreign, 409, "key/mismatch"),
    ] {
        door.refuses(("PUT", &job(&bad)), &bad, status, code);
    }
    door.refuses(("PUT", &format!("/v1/jobs/{}?key={key}", "0".repeat(64))), &good, 422, "job/hash");
    let superseded = format!("{}&plan=older", job(&good));
    door.refuses(("PUT", &superseded), &good, 409, "plan/superseded");
    door.refuses(("GET", &format!("/v1/jobs/{name}/result")), b"", 404, "job/unknown");
    assert_eq!(door.call("PUT", &job(&good), &good).0, 202);
    assert_eq!(door.call("PUT", &job(&good), &good).0, 200, "the same prompt is the same job");
    narrow.refuses(("GET", &format!("/v1/jobs/{name}")), b"", 404, "job/unknown");
    let clock = Instant::now();
    let (mut state, address) = (Value::Null, format!("/v1/jobs/{name}?wait=5"));
    while state != "done" && clock.elapsed() < Duration::from_secs(120) {
        state = door.call("GET", &address, b"").1["state"].clone();
    }
    assert_eq!(state, "done");
    let events = format!("GET /v1/jobs/{name}/events HTTP/1.1\r\nAuthorization: Bearer {}", door.token);
    let (_, _, text) = raw(door.host, &events, b"");
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.matches("event: step").count() > 10 && text.matches("event: done").count() == 1, "{text}");
    assert_eq!(door.call("DELETE", &format!("/v1/jobs/{name}"), b"").0, 204);
    door.refuses(("GET", &format!("/v1/jobs/{name}")), b"", 404, "job/unknown");
}

#[test]
fn programs_that_speak_openai_are_answered() {
    let dir = Scratch::new("proxy");
    let at = |name: &str| dir.path(name);
    let (data, log, keys, tiny) = (at("data"), at("log"), at("keys"), model());
    let open = ["serve", "--model", &tiny, "--data", &data, "--plain-http", "--listen", "127.0.0.1:0"];
    let server = Listening::start(&[&open[..], &RING].concat(), Path::new(&log));
    done(&["keygen", "--model", &tiny, "--out", &keys, "--insecure-ring", "9", "--length", "8"]);
    let token = at("data/token");
    let to = ["--server", &server.address, "--token-file", &token];
    done(&[&["push", "--keys", &keys][..], &to].concat());
    let asked = done(&[&["ask", "--keys", &keys, "--prompt", PROMPT][..], &to].concat());
    denied(&[&["proxy", "--keys", &keys, "--listen", "0.0.0.0:0"][..], &to].concat(), &["loopback"]);
    let args = [&["proxy", "--keys", &keys, "--listen", "127.0.0.1:0"][..], &to].concat();
    let proxy = Listening::start(&args, Path::new(&log));
    let own = fs::read_to_string(at("keys/proxy-token")).unwrap();
    let door = Door { host: proxy.host(), token: own };
    let stranger = Door { host: proxy.host(), token: "x".into() };
    assert_eq!(stranger.call("GET", "/v1/models", b"").0, 401);
    let elsewhere =
        format!("GET /v1/models HTTP/1.1\r\nAuthorization: Bearer {}\r\nHost: evil.example", door.token);
    assert!(matches!(raw(proxy.host(), &elsewhere, b"").0, 400 | 421), "another host's name");
    let name = door.call("GET", "/v1/models", b"").1["data"][0]["id"].clone();
    assert!(name.is_string());
    let request = |more: Value| {
        let mut all = json!({"model": name, "prompt": PROMPT, "max_tokens": 2, "temperature": 0});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all.to_string().into_bytes()
    };
    for (bad, status) in
        [(json!({"model": "gpt"}), 400), (json!({"temperature": 9}), 400), (json!({"prompt": ""}), 400)]
    {
        assert_eq!(door.call("POST", "/v1/completions", &request(bad)).0, status);
    }
    assert_eq!(door.call("POST", "/v1/chat/completions", b"{}").0, 400);
    let (status, answer) = chunked(&door, &request(json!({"logprobs": 2})));
    let answer: Value = serde_json::from_str(answer.trim()).unwrap_or_else(|e| panic!("{e}: {answer}"));
    assert_eq!(status, 200);
    let text = answer["choices"][0]["text"].as_str().unwrap().to_owned();
    assert!(text.trim_start().starts_with(asked["text"].as_str().unwrap().trim()), "{text:?} {asked}");
    assert_eq!(answer["usage"]["completion_tokens"], 2);
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len(), 2);
    let (_, stream) = chunked(&door, &request(json!({"stream": true})));
    let parts: String = stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: ").filter(|data| *data != "[DONE]"))
        .map(|data| {
            serde_json::from_str::<Value>(data).unwrap()["choices"][0]["text"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(parts, text, "the stream says the same");
    assert!(stream.trim_end().ends_with("data: [DONE]"));
}

/// A completion's status and its body without the marks of the chunks.
fn chunked(door: &Door<'_>, body: &[u8]) -> (u16, String) {
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nAuthorization: Bearer {}\r\nContent-Length: {}",
        door.token,
        body.len()
    );
    let (status, head, answer) = raw(door.host, &head, body);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    if !head.to_lowercase().contains("transfer-encoding: chunked") {
        return (status, answer);
    }
    let (mut rest, mut out) = (answer.as_str(), String::new());
    while let Some((length, tail)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).unwrap_or(0);
        if length == 0 || tail.len() < length {
            break;
        }
        out.push_str(&tail[..length]);
        rest = tail[length..].trim_start_matches("\r\n");
    }
    (status, out)
}

/// The commands of the tutorial, as it prints them, on a port that is free.
#[test]
fn the_tutorial_does_what_it_says_over_the_network() {
    let dir = Scratch::new("tutorial");
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/service.md")).unwrap();
    let part = text.split("## For real").next().unwrap();
    let commands = crate::tutorial::find(part, "cipherlm");
    assert!(commands.len() >= 5, "{}", commands.len());
    let (mut server, tiny) = (None, model());
    for command in commands {
        let place = |word: &str| match word {
            "served" | "client" | "keys" => dir.path(word),
            "served/token" => dir.path("served/token"),
            "127.0.0.1:8443" => "127.0.0.1:0".into(),
            "tiny" => tiny.clone(),
            "http://127.0.0.1:8443" => {
                server.as_ref().map_or(String::new(), |s: &Listening| s.address.clone())
            }
            word => word.to_owned(),
        };
        let args: Vec<String> = command.args.iter().map(|word| place(word)).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        if args[0] == "serve" {
            server = Some(Listening::start(&args, Path::new(&dir.path("log"))));
        } else if args.len() > 3 {
            let said = done(&args);
            assert!(args[0] != "ask" || said["text"].is_string(), "line {}: {said}", command.line);
        }
    }
    assert!(server.is_some());
}
