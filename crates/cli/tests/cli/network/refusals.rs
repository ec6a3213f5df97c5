//! What a server refuses, by the name of what is wrong, and that it keeps nothing of it.

use super::*;

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
    let all = key_files(keys);
    let manifest = |all: &BTreeMap<String, Vec<u8>>| manifest(keys, all);
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
    assert_eq!(problem["plan"], whole["plan"]);
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
