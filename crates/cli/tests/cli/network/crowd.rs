//! Clients that are slow, half there, or do not listen: they are left, and nobody waits for them.

use super::site::{Site, memory};
use super::*;

/// Bounds that such clients meet within a second.
fn hasty() -> Value {
    json!({"connections": 48, "head_seconds": 1, "stall_seconds": 1, "body_bytes_per_second": 1u64 << 40})
}

fn healthy(host: &str) -> bool {
    raw(host, "GET /healthz HTTP/1.1", b"").0 == 200
}

/// Whether the server ends the line within some seconds.
fn is_left(line: &mut TcpStream) -> bool {
    line.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut rest = vec![];
    match line.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn slow_and_half_open_clients_are_left_and_keep_nobody_waiting() {
    let site = Site::new("crowd", &hasty());
    let keys = site.keys("keys");
    let (key, all) = (id(&keys), key_files(&keys));
    let other = site.tenant("other");
    other.register(&keys, &key_files(&keys));
    let prompt = site.prompt(&keys, PROMPT);
    let door = site.door();
    let address = format!("/v1/keys/{key}");
    assert_eq!(door.call("PUT", &address, manifest(&keys, &all).to_string().as_bytes()).0, 200);
    let line = |text: &str| {
        let mut line = TcpStream::connect(door.host).unwrap();
        line.write_all(text.as_bytes()).unwrap();
        line
    };
    let (hash, bytes) = all.first_key_value().unwrap();
    let half = format!(
        "PUT {address}/{hash} HTTP/1.1\r\nHost: x\r\n{}\r\nContent-Length: {}\r\n\r\nCLMK",
        door.bearer(),
        bytes.len()
    );
    // Nothing, half a head, and more halves of bodies than a tenant has turns.
    let mut lines: Vec<TcpStream> = (0..12).map(|_| line("")).collect();
    lines.extend((0..12).map(|_| line("GET /healthz HTTP/1.1\r\nX-Slow: ")));
    lines.extend((0..8).map(|_| line(&half)));
    assert!(healthy(door.host));
    assert_eq!(other.submit(&key, &prompt).0, 202, "another tenant sends meanwhile");
    assert_eq!(other.end(&prompt)["state"], "done");
    for mut line in lines {
        assert!(is_left(&mut line));
    }
    // More lines than are taken: the last are closed at once, and others soon have room.
    let mut idle: Vec<TcpStream> = (0..60).map(|_| line("")).collect();
    assert!(idle.iter_mut().rev().take(8).all(is_left));
    assert!(idle.iter_mut().all(is_left) && healthy(door.host));
    let limits = Path::new("/proc").join(site.server.child.id().to_string()).join("fd");
    assert!(fs::read_dir(limits).unwrap().count() < 40, "no line is kept");
}

#[test]
fn a_reader_that_takes_nothing_is_left() {
    let site = Site::new("stalled", &hasty());
    let mut line = TcpStream::connect(site.server.host()).unwrap();
    let asked = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50);
    // Answers of more than all buffers between the two hold.
    line.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let sent = (0..200).take_while(|_| line.write_all(asked.as_bytes()).is_ok()).count();
    std::thread::sleep(Duration::from_secs(2));
    let before = memory(site.server.child.id(), "VmRSS");
    line.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut taken = vec![];
    let _ = line.read_to_end(&mut taken);
    let whole = 50 * sent * 15_000;
    assert!(taken.len() < whole, "{} of {whole} bytes: it waited for its reader", taken.len());
    assert!(before < 200 << 20, "{before} bytes for one reader");
    assert!(healthy(site.server.host()));
}

#[test]
fn a_refused_body_does_not_hide_its_refusal() {
    let site = Site::new("linger", &json!({}));
    // Far more than a line holds on its way: who is cut off while it sends reads no answer.
    let body = vec![7; 24 << 20];
    for (token, status) in [("x".repeat(64), 401), (site.door().token, 413)] {
        let mut line = TcpStream::connect(site.server.host()).unwrap();
        let head =
            format!("PUT /v1/jobs/{0}?key={0} HTTP/1.1\r\nHost: x\r\nConnection: close", "0".repeat(64));
        let length = body.len();
        write!(line, "{head}\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n").unwrap();
        line.write_all(&body).unwrap();
        let mut answer = String::new();
        line.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}

#[test]
fn open_streams_of_events_end_with_the_server() {
    let (mut site, keys) = Site::with_keys("streams");
    let prompt = site.prompt(&keys, PROMPT);
    let door = site.door();
    assert_eq!(door.submit(&id(&keys), &prompt).0, 202);
    let path = format!("/v1/jobs/{}/events", hash(&prompt));
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{}\r\n\r\n", door.bearer());
    let mut lines: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut line = TcpStream::connect(door.host).unwrap();
            line.write_all(head.as_bytes()).unwrap();
            line
        })
        .collect();
    let (seconds, well) = site.server.stop();
    assert!(well && seconds < 30.0, "{seconds}");
    assert!(lines.iter_mut().all(is_left));
}

#[test]
fn an_idle_server_is_small_and_answers_while_a_job_runs() {
    let site = Site::new("idle", &json!({}));
    let idle = memory(site.server.child.id(), "VmRSS");
    assert!(idle <= 60 << 20, "{idle} bytes");
    let keys = site.keys("keys");
    site.push(&keys);
    let prompt = site.prompt(&keys, PROMPT);
    assert_eq!(site.door().submit(&id(&keys), &prompt).0, 202);
    let mut answered = 0;
    while site.door().call("GET", &format!("/v1/jobs/{}", hash(&prompt)), b"").1["state"] != "done" {
        assert!(healthy(site.server.host()));
        answered += 1;
    }
    assert!(answered > 3, "{answered}");
}

#[test]
fn a_server_that_rests_gives_back_what_jobs_took_and_answers_again() {
    let (dir, tiny) = (Scratch::new("rest"), model());
    let data = dir.path("data");
    let args = ["serve", "--model", &tiny, "--data", &data, "--listen", "127.0.0.1:0", "--plain-http"];
    let args = [&args[..], &["--rest-after", "0.2"], &RING].concat();
    let server = Listening::start(&args, &dir.0.join("log"));
    let site = Site { server, dir };
    let of = |field| memory(site.server.child.id(), field);
    let idle = of("VmRSS");
    assert!(idle <= 40 << 20, "{idle} bytes at the start");
    let keys = site.keys("keys");
    site.push(&keys);
    for text in [PROMPT, "One day a dog"] {
        let (prompt, whole) = site.sample(&keys, text);
        assert_eq!(site.door().submit(&id(&keys), &prompt).0, 202);
        assert_eq!(site.door().end(&prompt)["state"], "done");
        assert!(site.door().answer(&prompt) == whole, "the bytes of a run by itself");
        let clock = Instant::now();
        while of("VmRSS") > idle + (8 << 20) {
            assert!(clock.elapsed() < Duration::from_secs(60), "{} of {idle} bytes", of("VmRSS"));
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    assert!(of("VmHWM") > idle + (32 << 20), "the jobs took {} bytes", of("VmHWM"));
}

#[test]
#[ignore = "the server asks for twelve free GiB, which it does not take"]
fn full_an_idle_server_of_the_shipped_model_is_small() {
    let dir = Scratch::new("shipped");
    let data = dir.path("data");
    let args = ["serve", "--data", &data, "--listen", "127.0.0.1:0", "--plain-http", "--profile", "n16-15"];
    let server = Listening::start(&args, &dir.0.join("log"));
    let idle = memory(server.child.id(), "VmRSS");
    assert!(idle <= 60 << 20, "{idle} bytes");
}

#[test]
#[ignore = "a measurement: it prints milliseconds, on a quiet machine"]
fn slow_health_is_answered_within_milliseconds_while_jobs_run() {
    let site = Site::new("health", &json!({"connections": 512, "jobs_per_tenant": 64, "queue": 64}));
    let keys = site.keys("keys");
    site.push(&keys);
    let prompts: Vec<Vec<u8>> = (0..16).map(|_| site.prompt(&keys, PROMPT)).collect();
    let door = site.door();
    // Half-open lines beside it.
    let lines: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(door.host).unwrap()).collect();
    prompts.iter().for_each(|prompt| assert_eq!(door.submit(&id(&keys), prompt).0, 202));
    let mut took = vec![];
    while door.call("GET", "/v1/usage", b"").1["queued"].as_u64().unwrap() > 0 {
        let clock = Instant::now();
        assert!(healthy(door.host));
        took.push(clock.elapsed().as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    let (p50, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    let idle = memory(site.server.child.id(), "VmHWM") >> 20;
    println!(
        "{} answers, {} half-open lines: median {p50:.2} ms, p99 {p99:.2} ms; {idle} MiB",
        took.len(),
        lines.len()
    );
    assert!(p99 < 10.0, "{p99}");
}
