//! A server in a small ring with a folder, a port and clients.

use super::*;
use crate::common::succeed;

/// It is killed and swept away when the test ends.
pub(super) struct Site {
    pub(super) server: Listening,
    pub(super) dir: Scratch,
}

impl Site {
    /// A server with these bounds; those that are left out keep their values.
    pub(super) fn new(name: &str, limits: &Value) -> Self {
        let dir = Scratch::new(name);
        fs::write(dir.path("limits"), limits.to_string()).unwrap();
        Self { server: serve(&dir, "127.0.0.1:0"), dir }
    }

    /// A server, and keys that it has.
    pub(super) fn with_keys(name: &str) -> (Self, String) {
        let site = Self::new(name, &json!({}));
        let keys = site.keys("keys");
        site.push(&keys);
        (site, keys)
    }

    /// A proxy before it, and its token.
    pub(super) fn proxy(&self, keys: &str) -> (Listening, String) {
        let token = self.at("data/token");
        let args = ["proxy", "--keys", keys, "--listen", "127.0.0.1:0", "--token-file", &token];
        let args = [&args[..], &["--server", &self.server.address]].concat();
        let proxy = Listening::start(&args, &self.dir.0.join("log"));
        let own = fs::read_to_string(Path::new(keys).join("proxy-token")).unwrap();
        (proxy, own)
    }

    /// Kills it, and starts it again on its address.
    pub(super) fn again(&mut self) {
        let listen = self.server.host().to_owned();
        self.server.kill();
        self.again_at(&listen);
    }

    /// Starts it again after its death.
    pub(super) fn again_at(&mut self, listen: &str) {
        self.server = serve(&self.dir, listen);
    }

    pub(super) fn at(&self, name: &str) -> String {
        self.dir.path(name)
    }

    /// Its owner's way in.
    pub(super) fn door(&self) -> Door<'_> {
        Door { host: self.server.host(), token: fs::read_to_string(self.at("data/token")).unwrap() }
    }

    /// A tenant's.
    pub(super) fn tenant(&self, name: &str) -> Door<'_> {
        let asked = json!({"tenant": name, "scopes": ["keys", "jobs"]}).to_string();
        let (status, made) = self.door().call("POST", "/v1/tokens", asked.as_bytes());
        assert_eq!(status, 201, "{made}");
        Door { host: self.server.host(), token: made["token"].as_str().unwrap().to_owned() }
    }

    /// Keys of a new secret.
    pub(super) fn keys(&self, name: &str) -> String {
        let keys = self.at(name);
        done(&[&["keygen", "--model", &model(), "--out", &keys][..], &RING].concat());
        keys
    }

    /// A command of a client.
    pub(super) fn client(&self, args: &[&str]) -> Value {
        let token = self.at("data/token");
        done(&[args, &["--server", &self.server.address, "--token-file", &token]].concat())
    }

    pub(super) fn push(&self, keys: &str) -> Value {
        self.client(&["push", "--keys", keys])
    }

    /// An encrypted prompt.
    pub(super) fn prompt(&self, keys: &str, text: &str) -> Vec<u8> {
        let prompt = self.at("sample.prompt");
        succeed(&["encrypt", "--keys", keys, "--prompt", text, "--out", &prompt, "--force"]);
        fs::read(prompt).unwrap()
    }

    /// The same, and the answer of the commands on files.
    pub(super) fn sample(&self, keys: &str, text: &str) -> (Vec<u8>, Vec<u8>) {
        let bytes = self.prompt(keys, text);
        let (prompt, answer) = (self.at("sample.prompt"), self.at("sample.answer"));
        let (server, out) = (format!("{keys}/server"), ["--out", answer.as_str(), "--force"]);
        succeed(&[&["run", "--keys", &server, "--input", &prompt][..], &out].concat());
        (bytes, fs::read(answer).unwrap())
    }
}

fn serve(dir: &Scratch, listen: &str) -> Listening {
    let (tiny, data, limits) = (model(), dir.path("data"), dir.path("limits"));
    let args = ["serve", "--model", &tiny, "--data", &data, "--listen", listen, "--plain-http"];
    let more = ["--limits", &limits, "--checkpoint-after", "0"];
    Listening::start(&[&args[..], &more, &RING].concat(), &dir.0.join("log"))
}

impl Door<'_> {
    /// Submits a prompt under a key.
    pub(super) fn submit(&self, key: &str, prompt: &[u8]) -> (u16, Value) {
        self.call("PUT", &format!("/v1/jobs/{}?key={key}", hash(prompt)), prompt)
    }

    /// Waits for the end of a prompt's job.
    pub(super) fn end(&self, prompt: &[u8]) -> Value {
        let (clock, path) = (Instant::now(), format!("/v1/jobs/{}?wait=1", hash(prompt)));
        loop {
            let view = self.call("GET", &path, b"").1;
            if ["done", "failed", "cancelled"].iter().any(|state| view["state"] == *state) {
                return view;
            }
            assert!(clock.elapsed() < Duration::from_secs(120), "no end: {view}");
        }
    }

    /// The encrypted answer.
    pub(super) fn answer(&self, prompt: &[u8]) -> Vec<u8> {
        let path = format!("GET /v1/jobs/{}/result HTTP/1.1\r\n{}", hash(prompt), self.bearer());
        let (status, _, answer) = raw(self.host, &path, b"");
        assert_eq!(status, 200);
        answer
    }

    pub(super) fn bearer(&self) -> String {
        format!("Authorization: Bearer {}", self.token)
    }

    /// Registers these as all keys of a folder.
    pub(super) fn register(&self, keys: &str, all: &BTreeMap<String, Vec<u8>>) {
        let address = format!("/v1/keys/{}", id(keys));
        let list = manifest(keys, all).to_string();
        assert_eq!(self.call("PUT", &address, list.as_bytes()).0, 200);
        for (hash, bytes) in all {
            assert_eq!(self.call("PUT", &format!("{address}/{hash}"), bytes).0, 201);
        }
    }
}

/// Memory of a program: `VmRSS` or `VmHWM`, in bytes.
pub(super) fn memory(process: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}
