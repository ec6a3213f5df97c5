//! A server that says what a test wants it to say.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use super::*;

type Said = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// It answers each address with the bytes that were set for it, head and all; others with 404.
pub(super) struct Puppet {
    pub(super) url: String,
    said: Said,
}

/// A whole answer.
pub(super) fn answer(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

impl Puppet {
    pub(super) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let said = Said::default();
        let shared = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in listener.incoming().map_while(Result::ok) {
                let said = Arc::clone(&shared);
                std::thread::spawn(move || serve(line, &said));
            }
        });
        Self { url, said }
    }

    /// Sets the bytes of an address, as `GET /v1/models`; 64 digits are written as `*`.
    pub(super) fn says(&self, address: &str, bytes: Vec<u8>) {
        self.said.lock().unwrap().insert(address.to_owned(), bytes);
    }

    /// Plays a server whose jobs all end with this answer.
    pub(super) fn answers(&self, whole: &[u8]) {
        let digest = hash(whole);
        let view = json!({"job": digest, "plan": "p", "key": digest, "state": "queued"});
        let done = json!({"event": "done", "bytes": whole.len(), "blake3": digest});
        self.says("PUT /v1/jobs/*", answer(view.to_string().as_bytes()));
        self.says(
            "GET /v1/jobs/*/events",
            answer(format!("event: done\nid: 1\ndata: {done}\n\n").as_bytes()),
        );
        self.says("GET /v1/jobs/*/result", answer(whole));
    }
}

fn serve(mut line: TcpStream, said: &Said) {
    let mut reader = BufReader::new(line.try_clone().unwrap());
    let (mut first, mut length) = (String::new(), 0);
    let _ = reader.read_line(&mut first);
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).unwrap_or(0) <= 2 {
            break;
        }
        if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let _ = reader.read_exact(&mut vec![0; length]);
    let words: Vec<&str> = first.split(' ').collect();
    let [method, path, _] = words[..] else { return };
    let hidden = |part: &str| if part.len() == 64 { "*".to_owned() } else { part.to_owned() };
    let path = path.split('?').next().unwrap().split('/').map(hidden).collect::<Vec<_>>().join("/");
    let found = said.lock().unwrap().get(&format!("{method} {path}")).cloned();
    let missing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
    let _ = line.write_all(&found.unwrap_or(missing));
    let _ = line.shutdown(std::net::Shutdown::Write);
}
