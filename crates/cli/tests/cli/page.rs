//! The page's files as a browser gets them, and the server's word about who may read its answers.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::common::{Scratch, bare, model};
use crate::network::{Listening, RING, raw};

/// A page of two files with their hashes.
fn page(dir: &Scratch) -> String {
    let folder = dir.path("page");
    fs::create_dir(&folder).unwrap();
    let mut sums = String::new();
    for (name, text) in [("index.html", "<p>page</p>"), ("main.js", "export const one = 1;")] {
        fs::write(Path::new(&folder).join(name), text).unwrap();
        let hash: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        sums.push_str(&format!("{hash}  {name}\n"));
    }
    fs::write(Path::new(&folder).join("SHA256SUMS"), sums).unwrap();
    // Not in the list, so no part of the page.
    fs::write(Path::new(&folder).join("other.js"), "").unwrap();
    folder
}

#[test]
fn a_page_is_served_on_loopback_under_a_policy_that_names_its_server() {
    let dir = Scratch::new("page");
    let folder = page(&dir);
    let args =
        ["page", "--dir", &folder, "--server", "https://models.example:8443", "--listen", "127.0.0.1:0"];
    let door = Listening::start(&args, Path::new(&dir.path("log")));
    let get = |path: &str| raw(door.host(), &format!("GET {path} HTTP/1.1"), b"");
    for (path, kind, body) in [
        ("/", "text/html; charset=utf-8", "<p>page</p>"),
        ("/main.js", "text/javascript; charset=utf-8", "export const one = 1;"),
        ("/settings.json", "application/json", r#"{"server":"https://models.example:8443"}"#),
    ] {
        let (status, head, found) = get(path);
        let head = head.to_lowercase();
        assert_eq!((status, String::from_utf8(found).unwrap().as_str()), (200, body), "{path}");
        let policy = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; \
                      connect-src 'self' https://models.example:8443; base-uri 'none';";
        assert!(head.contains(&format!("content-security-policy: {policy}")), "{head}");
        assert!(head.contains(&format!("content-type: {kind}\r")), "{head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    }
    for path in ["/other.js", "/SHA256SUMS", "/../page/index.html", "/%2e%2e/page/index.html", "//"] {
        assert_eq!(get(path).0, 404, "{path}");
    }
    assert_eq!(raw(door.host(), "POST / HTTP/1.1\r\nContent-Length: 0", b"").0, 405);
    // A name of another machine that leads here.
    let rebound = raw(door.host(), "GET / HTTP/1.0\r\nHost: rebound.example", b"");
    assert!(rebound.0 == 400 || rebound.0 == 421, "{rebound:?}");
}

#[test]
fn a_page_that_was_changed_or_leaves_this_machine_is_refused() {
    let dir = Scratch::new("page-refused");
    let folder = page(&dir);
    let refused = |dir: &str, more: &[&str], words: &str| {
        let line = [&["page", "--dir", dir, "--server", "https://models.example"][..], more].concat();
        let out = bare(&line).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.code() == Some(2) && said.contains(words), "{line:?}: {said}");
    };
    refused(&folder, &["--listen", "0.0.0.0:0"], "loopback alone");
    refused(&dir.path("nowhere"), &[], "cargo xtask page");
    fs::write(Path::new(&folder).join("main.js"), "export const one = 2;").unwrap();
    refused(&folder, &[], "main.js has SHA-256");
    for line in ["0000  ../secret", "0000  .hidden.js", "nonsense"] {
        fs::write(Path::new(&folder).join("SHA256SUMS"), line).unwrap();
        refused(&folder, &[], "no hash and file");
    }
    fs::write(Path::new(&folder).join("SHA256SUMS"), "").unwrap();
    refused(&folder, &[], "is no page");
    let out = bare(&["page", "--dir", &folder, "--server", "http://models.example"]).output().unwrap();
    assert!(String::from_utf8_lossy(&out.stderr).contains("--server"), "tokens travel under TLS");
}

#[test]
fn a_browser_is_told_which_pages_may_read_answers() {
    let dir = Scratch::new("origins");
    let (data, log, tiny) = (dir.path("data"), dir.path("log"), model());
    let args = ["serve", "--model", &tiny, "--data", &data, "--listen", "127.0.0.1:0", "--plain-http"];
    let ask = |server: &Listening, request: &str, origin: &str| {
        let (status, head, _) = raw(server.host(), &format!("{request} HTTP/1.1\r\nOrigin: {origin}"), b"");
        (status, head.to_lowercase())
    };
    const ASKED: &str =
        "\r\nAccess-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: authorization";
    let preflight =
        |server: &Listening, origin: &str| ask(server, "OPTIONS /v1/jobs/0", &format!("{origin}{ASKED}"));
    let own = "http://127.0.0.1:8081";
    let with =
        [&args[..], &["--allow-origin", own, "--allow-origin", "https://page.example"], &RING].concat();
    let mut server = Listening::start(&with, Path::new(&log));
    for origin in [own, "https://page.example"] {
        let (status, head) = preflight(&server, origin);
        assert_eq!(status, 204, "{head}");
        assert!(head.contains(&format!("access-control-allow-origin: {origin}\r")), "{head}");
        assert!(head.contains("access-control-allow-methods: get, put, delete"), "{head}");
        assert!(head.contains("access-control-allow-headers: authorization"), "{head}");
        // The token is needed all the same, and the page may read why it was refused.
        let (status, head) = ask(&server, "GET /v1/models", origin);
        assert!(
            status == 401 && head.contains(&format!("access-control-allow-origin: {origin}\r")),
            "{head}"
        );
    }
    for origin in ["http://127.0.0.1:8082", "https://page.example.org", "null", "https://page.example/"] {
        let ((refused, first), (_, second)) =
            (preflight(&server, origin), ask(&server, "GET /v1/models", origin));
        assert_eq!(refused, 405, "{origin}");
        assert!(![first, second].iter().any(|head| head.contains("access-control")), "{origin}");
    }
    server.kill();
    // Off by default.
    let server = Listening::start(&[&args[..], &RING].concat(), Path::new(&log));
    let (status, head) = preflight(&server, own);
    assert!(status == 405 && !head.contains("access-control"), "{head}");
    for bad in ["*", "page.example", "https://page.example/", "https://Page.example", "https://"] {
        let out = bare(&[&args[..], &["--allow-origin", bad]].concat()).output().unwrap();
        assert_eq!(out.status.code(), Some(2), "{bad}");
    }
}
