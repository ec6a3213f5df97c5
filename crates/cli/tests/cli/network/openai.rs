//! The proxy, as programs see it that speak OpenAI's API.

use super::site::Site;
use super::*;

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

/// Passes lines on to a proxy and cuts each on which nothing comes down for so long, as gateways
/// do.
fn impatient(proxy: &str, silence: Duration) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, proxy) = (listener.local_addr().unwrap().to_string(), proxy.to_owned());
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let far = TcpStream::connect(&proxy).unwrap();
            let (mut up, mut down) = ((near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near));
            std::thread::spawn(move || std::io::copy(&mut up.0, &mut up.1));
            std::thread::spawn(move || {
                down.0.set_read_timeout(Some(silence)).unwrap();
                let _ = std::io::copy(&mut down.0, &mut down.1);
                let _ = down.1.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    address
}

/// Asks through a gateway that cuts silence, while the server stands still for longer.
fn through_silence(name: &str, silence: u64, still: u64) {
    let (site, keys) = Site::with_keys(name);
    let (proxy, own) = site.proxy(&keys);
    let gateway = impatient(proxy.host(), Duration::from_secs(silence));
    let host = format!("127.0.0.1:{}", gateway.rsplit(':').next().unwrap());
    let signal = |name: &str| {
        let process = site.server.child.id().to_string();
        assert!(Command::new("kill").args([name, &process]).status().unwrap().success());
    };
    for stream in [false, true] {
        signal("-STOP");
        let asked =
            json!({"prompt": PROMPT, "max_tokens": 1, "temperature": 0, "stream": stream}).to_string();
        let (status, said) = std::thread::scope(|scope| {
            let door = Door { host: &host, token: own.clone() };
            let asking = scope.spawn(move || chunked(&door, asked.as_bytes()));
            std::thread::sleep(Duration::from_secs(still));
            signal("-CONT");
            asking.join().unwrap()
        });
        let whole = if stream { said.trim_end().ends_with("[DONE]") } else { said.trim_end().ends_with('}') };
        assert!(
            status == 200 && whole && said.contains("text_completion"),
            "stream {stream}: {status} {said}"
        );
    }
}

#[test]
#[ignore = "half a minute of waiting"]
fn slow_signs_of_life_come_before_a_gateway_cuts_silence() {
    through_silence("silence", 12, 15);
}

#[test]
#[ignore = "minutes of waiting"]
fn slow_a_gateway_that_cuts_a_minute_of_silence_is_outlived() {
    through_silence("minute", 60, 75);
}

#[test]
fn a_program_that_goes_away_gives_its_job_up() {
    let (site, keys) = Site::with_keys("gone");
    let (proxy, own) = site.proxy(&keys);
    let asked = json!({"prompt": PROMPT, "max_tokens": 100, "stream": true}).to_string();
    let mut line = TcpStream::connect(proxy.host()).unwrap();
    let head = format!("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {own}");
    write!(line, "{head}\r\nContent-Length: {}\r\n\r\n{asked}", asked.len()).unwrap();
    let busy = || {
        let usage = site.door().call("GET", "/v1/usage", b"").1;
        usage["running"].as_u64().unwrap() + usage["queued"].as_u64().unwrap() > 0
    };
    let wait = |wanted: bool| {
        let clock = Instant::now();
        while busy() != wanted {
            assert!(clock.elapsed() < Duration::from_secs(60), "running: {}", !wanted);
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    wait(true);
    line.shutdown(std::net::Shutdown::Both).unwrap();
    drop(line);
    wait(false);
    // No next token is asked for.
    std::thread::sleep(Duration::from_millis(300));
    assert!(!busy());
}
