//! Workers in processes of their own, over NATS: whatever is killed, damaged or full, every job
//! ends once, and with the bytes of an undisturbed run.

mod disk;
mod slow;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{PROMPT, Scratch, model, succeed};
use crate::network::{Door, Listening, RING, done, hash, id, raw};

/// Seconds after which a silent worker has lost its job.
const LEASE: &str = "1";

/// The NATS server, from where `cargo xtask nats` puts it.
struct Nats {
    program: PathBuf,
    folder: PathBuf,
    port: u16,
    /// What its configuration says besides, or the address on which it listens.
    more: String,
    child: Child,
}

impl Nats {
    /// None where there is no such program: the test says so and ends.
    fn find() -> Option<PathBuf> {
        let target = Path::new(env!("CARGO_BIN_EXE_cipherlm")).ancestors().nth(2).unwrap();
        let found = target.join("nats/nats-server");
        if !found.is_file() {
            println!("skipped: no {}: `cargo xtask nats` gets it", found.display());
        }
        found.is_file().then_some(found)
    }

    fn start(program: &Path, folder: &Path, port: u16, more: &str) -> Self {
        fs::create_dir_all(folder).unwrap();
        let config = folder.join("nats.conf");
        let store = folder.join("store").display().to_string();
        let host = if more.is_empty() || more.contains("cluster") { "127.0.0.1" } else { more };
        let rest = if host == more { "" } else { more };
        let text = format!(
            "listen: \"{host}:{port}\"\njetstream {{ store_dir: {store:?}, sync_interval: always }}\n{rest}"
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(folder.join("log")).unwrap();
        let child = Command::new(program).arg("-c").arg(&config).stdin(Stdio::null()).stderr(log).spawn();
        let clock = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(clock.elapsed() < Duration::from_secs(20), "no NATS on port {port}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let (program, folder, more) = (program.into(), folder.into(), more.into());
        Self { program, folder, port, more, child: child.unwrap() }
    }

    /// Three that know each other.
    fn cluster(program: &Path, folder: &Path) -> Vec<Self> {
        let ports: Vec<(u16, u16)> = (0..3).map(|_| (free_port(), free_port())).collect();
        let routes: Vec<String> =
            ports.iter().map(|(_, route)| format!("nats-route://127.0.0.1:{route}")).collect();
        let node = |(number, (port, route)): (usize, &(u16, u16))| {
            let more = format!(
                "server_name: n{number}\ncluster {{ name: c, listen: 127.0.0.1:{route}, routes: [{}] }}\n",
                routes.join(", ")
            );
            Self::start(program, &folder.join(number.to_string()), *port, &more)
        };
        ports.iter().enumerate().map(node).collect()
    }

    fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Killed, its disk wiped if that is wanted, and started again.
    fn again(&mut self, wiped: bool) {
        self.kill();
        if wiped {
            fs::remove_dir_all(self.folder.join("store")).unwrap();
        }
        *self = Self::start(&self.program, &self.folder, self.port, &self.more);
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A prompt, its key, and the answer of an undisturbed run.
struct Sample {
    key: String,
    prompt: Vec<u8>,
    answer: Vec<u8>,
}

impl Sample {
    fn job(&self) -> String {
        hash(&self.prompt)
    }
}

/// A server, its NATS and its workers. What is dropped first is killed first.
struct World {
    workers: Vec<Listening>,
    server: Listening,
    nats: Vec<Nats>,
    token: String,
    dir: Scratch,
}

impl World {
    /// A server without workers.
    fn new(name: &str) -> Option<Self> {
        Self::on(name, 1, None)
    }

    /// The same with as many NATS servers, and another folder for what the server keeps.
    fn on(name: &str, servers: usize, data: Option<&Path>) -> Option<Self> {
        let program = Nats::find()?;
        let dir = Scratch::new(name);
        if let Some(data) = data {
            std::os::unix::fs::symlink(data, dir.0.join("data")).unwrap();
        }
        let nats = match servers {
            1 => vec![Nats::start(&program, &dir.0.join("nats"), free_port(), "")],
            _ => Nats::cluster(&program, &dir.0.join("nats")),
        };
        fs::write(dir.path("limits"), r#"{"jobs_per_tenant": 64, "queue": 64}"#).unwrap();
        let server = Self::serve(&dir, &nats, "127.0.0.1:0");
        let token = fs::read_to_string(dir.path("data/token")).unwrap();
        Some(Self { workers: vec![], server, nats, token, dir })
    }

    fn serve(dir: &Scratch, nats: &[Nats], listen: &str) -> Listening {
        let (data, limits, model) = (dir.path("data"), dir.path("limits"), model());
        let (url, replicas) = (urls(nats), nats.len().to_string());
        let args = ["serve", "--model", &model, "--data", &data, "--listen", listen, "--plain-http"];
        let more = ["--nats", &url, "--lease", LEASE, "--limits", &limits, "--nats-replicas", &replicas];
        Listening::start(&[&args[..], &more, &RING].concat(), &dir.0.join("server.log"))
    }

    /// The server is killed and started again on its address.
    fn server_again(&mut self) {
        let listen = self.server.host().to_owned();
        self.server.kill();
        self.server = Self::serve(&self.dir, &self.nats, &listen);
    }

    /// One more worker, with more options.
    fn hire(&mut self, more: &[&str]) {
        let url = urls(&self.nats);
        self.hire_at(&url, &[], more);
    }

    /// One more worker, with words before its command.
    fn hire_at(&mut self, url: &str, before: &[&str], more: &[&str]) {
        let (data, model) = (self.dir.path("data"), model());
        let args = ["worker", "--model", &model, "--data", &data, "--nats", url];
        let keep = ["--checkpoint-after", "0"];
        let keep = if more.contains(&keep[0]) { &[][..] } else { &keep };
        let args = [&args[..], &RING, &["--threads", "1"], keep, more].concat();
        let log = self.dir.0.join("worker.log");
        self.workers.push(Listening::start_behind(before, &args, &log));
    }

    fn door(&self) -> Door<'_> {
        Door { host: self.server.host(), token: self.token.clone() }
    }

    /// Keys of a new secret, registered.
    fn client(&self, name: &str) -> String {
        let keys = self.dir.path(name);
        done(&["keygen", "--model", &model(), "--out", &keys, "--insecure-ring", "9", "--length", "8"]);
        self.push(&keys);
        keys
    }

    fn push(&self, keys: &str) -> Value {
        let token = self.dir.path("data/token");
        done(&["push", "--keys", keys, "--server", &self.server.address, "--token-file", &token])
    }

    fn sample(&self, keys: &str, text: &str) -> Sample {
        let (prompt, answer) = (self.dir.path("prompt"), self.dir.path("answer"));
        let args = ["encrypt", "--model", &model(), "--keys", keys, "--prompt", text, "--out", &prompt];
        done(&[&args[..], &["--force"]].concat());
        succeed(&[
            "run",
            "--keys",
            &format!("{keys}/server"),
            "--input",
            &prompt,
            "--out",
            &answer,
            "--force",
        ]);
        Sample { key: id(keys), prompt: fs::read(prompt).unwrap(), answer: fs::read(answer).unwrap() }
    }

    fn submit(&self, sample: &Sample) {
        let path = format!("/v1/jobs/{}?key={}", sample.job(), sample.key);
        let (status, said) = self.door().call("PUT", &path, &sample.prompt);
        assert!(matches!(status, 200 | 202), "{status} {said}");
    }

    /// What the server says of a job.
    fn view(&self, sample: &Sample) -> Value {
        self.door().call("GET", &format!("/v1/jobs/{}", sample.job()), b"").1
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.dir.0.join(name)).unwrap_or_default()
    }

    /// Waits for the end of a job: its state.
    fn end(&self, sample: &Sample) -> Value {
        let clock = Instant::now();
        loop {
            let view = self.view(sample);
            if ["done", "failed", "cancelled"].iter().any(|state| view["state"] == *state) {
                return view;
            }
            let logs = || format!("{}\n{}", self.log("server.log"), self.log("worker.log"));
            assert!(clock.elapsed() < Duration::from_secs(90), "no end: {view}\n{}", logs());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The job is done, once, and with the right bytes; then it is forgotten.
    fn check(&self, sample: &Sample) {
        let view = self.end(sample);
        assert_eq!(view["state"], "done", "{view}");
        let (job, door) = (sample.job(), self.door());
        let get = |rest: &str| {
            let head = format!("GET /v1/jobs/{job}/{rest} HTTP/1.1\r\nAuthorization: Bearer {}", door.token);
            raw(door.host, &head, b"").2
        };
        assert!(get("result") == sample.answer, "other bytes than an undisturbed run");
        assert_eq!(terminals(&String::from_utf8_lossy(&get("events"))), 1, "ends");
        assert_eq!(door.call("DELETE", &format!("/v1/jobs/{job}"), b"").0, 204);
    }
}

fn urls(nats: &[Nats]) -> String {
    nats.iter().map(Nats::url).collect::<Vec<_>>().join(",")
}

/// Events that end a job.
fn terminals(stream: &str) -> usize {
    ["done", "failed", "cancelled"].iter().map(|end| stream.matches(&format!("event: {end}\n")).count()).sum()
}

#[test]
fn workers_answer_over_nats_and_only_for_keys_that_are_theirs() {
    let Some(mut world) = World::new("workers") else { return };
    let keys = [world.client("keys1"), world.client("keys2")];
    let first = world.sample(&keys[0], PROMPT);
    let second = world.sample(&keys[1], PROMPT);
    world.hire(&["--key", &second.key]);
    world.submit(&first);
    world.submit(&second);
    world.check(&second);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(world.view(&first)["state"], "queued", "a worker without the key has it");
    world.hire(&[]);
    world.check(&first);
    // What is given up ends as that.
    let third = world.sample(&keys[0], "One day a dog");
    world.workers.clear();
    world.submit(&third);
    assert_eq!(world.door().call("DELETE", &format!("/v1/jobs/{}", third.job()), b"").0, 204);
    assert_eq!(world.end(&third)["state"], "cancelled");
    let log = world.log("worker.log") + &world.log("server.log");
    assert!(!log.contains("panicked"), "{log}");
    assert_eq!(json!(log.matches("\"end\":\"done\"").count()), 2);
}

/// Fractions that look random and are the same in every run.
fn fractions(seed: u64) -> impl Iterator<Item = f64> {
    (1u64..).map(move |n| {
        let mixed = (seed + n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed >> 11) as f64 / (1u64 << 53) as f64
    })
}

fn sleep(seconds: f64) {
    std::thread::sleep(Duration::from_secs_f64(seconds));
}

impl World {
    /// Seconds of an undisturbed job, keys in memory.
    fn measure(&self, sample: &Sample) -> f64 {
        self.submit(sample);
        self.check(sample);
        let clock = Instant::now();
        self.submit(sample);
        self.check(sample);
        clock.elapsed().as_secs_f64()
    }

    /// Checkpoints of a job.
    fn steps(&self, sample: &Sample) -> Vec<PathBuf> {
        let folder = self.dir.0.join("data/jobs/owner").join(sample.job()).join("steps");
        crate::network::files(&folder, "step")
    }

    fn wait(&self, what: &str, done: impl Fn() -> bool) {
        let clock = Instant::now();
        while !done() {
            assert!(clock.elapsed() < Duration::from_secs(60), "no {what}\n{}", self.log("worker.log"));
            sleep(0.002);
        }
    }
}

#[test]
fn a_worker_may_be_killed_at_any_moment() {
    let Some(mut world) = World::new("killed-worker") else { return };
    let keys = world.client("keys");
    let samples = [PROMPT, "One day a dog", "Tom saw"].map(|text| world.sample(&keys, text));
    world.hire(&[]);
    let seconds = world.measure(&samples[0]);
    for (at, sample) in fractions(1).zip(samples.iter().cycle()).take(20) {
        world.submit(sample);
        sleep(at * seconds);
        world.workers.clear();
        world.hire(&[]);
        world.check(sample);
    }
    // In the middle of its steps for certain.
    world.submit(&samples[1]);
    world.wait("checkpoints", || world.steps(&samples[1]).len() > 4);
    world.workers.clear();
    world.hire(&[]);
    world.check(&samples[1]);
}

#[test]
fn server_and_nats_may_be_killed_and_nats_may_lose_its_disk() {
    let Some(mut world) = World::new("killed-server") else { return };
    let keys = world.client("keys");
    let sample = world.sample(&keys, PROMPT);
    world.hire(&[]);
    let seconds = world.measure(&sample);
    for at in [0.0, 0.3, 0.6, 0.9] {
        world.submit(&sample);
        sleep(at * seconds);
        world.server_again();
        world.check(&sample);
        for wiped in [false, true] {
            world.submit(&sample);
            sleep(at * seconds);
            world.nats[0].again(wiped);
            world.check(&sample);
        }
        // Before anybody has heard of it.
        world.workers.clear();
        world.submit(&sample);
        sleep(at);
        world.nats[0].again(true);
        world.hire(&[]);
        world.check(&sample);
    }
}

#[test]
fn three_nats_servers_do_without_one_and_may_all_lose_their_disks() {
    let Some(mut world) = World::on("cluster", 3, None) else { return };
    let keys = world.client("keys");
    let sample = world.sample(&keys, PROMPT);
    world.hire(&[]);
    let seconds = world.measure(&sample);
    for node in 0..3 {
        world.submit(&sample);
        sleep(0.3 * seconds);
        world.nats[node].kill();
        world.check(&sample);
        world.submit(&sample);
        world.check(&sample);
        world.nats[node].again(false);
    }
    world.submit(&sample);
    sleep(0.3 * seconds);
    world.nats.iter_mut().for_each(Nats::kill);
    for node in &mut world.nats {
        fs::remove_dir_all(node.folder.join("store")).unwrap();
    }
    world.nats.iter_mut().for_each(|node| node.again(false));
    world.check(&sample);
    world.submit(&sample);
    world.check(&sample);
}

#[test]
fn a_job_that_ends_three_workers_is_dead_and_others_are_not() {
    let Some(mut world) = World::new("poison") else { return };
    let keys = world.client("keys");
    let [poison, other] = [PROMPT, "One day a dog"].map(|text| world.sample(&keys, text));
    world.submit(&poison);
    for _ in 0..3 {
        assert_eq!(world.view(&poison)["state"], "queued");
        // Without checkpoints it gets no further.
        world.hire(&["--checkpoint-after", "1000"]);
        world.wait("run", || world.view(&poison)["state"] == "running");
        world.workers.clear();
        world.wait("lapse", || world.view(&poison)["state"] != "running");
    }
    let view = world.end(&poison);
    assert!(
        view["state"] == "failed" && view["problem"]["type"].as_str().unwrap().ends_with("job/dead"),
        "{view}"
    );
    world.wait("dead letter", || world.log("server.log").contains("\"what\":\"dead\""));
    world.hire(&[]);
    world.submit(&other);
    world.check(&other);
    assert_eq!(world.view(&poison)["state"], "failed", "it is not tried again");
    // Whoever sends it again has it tried again.
    world.submit(&poison);
    world.check(&poison);
}

/// Changes one bit in the middle of a file.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn damaged_files_are_made_again_or_refused_by_name() {
    let Some(mut world) = World::new("flipped") else { return };
    let keys = world.client("keys");
    let sample = world.sample(&keys, PROMPT);
    world.hire(&[]);
    // Checkpoints are computed again.
    world.submit(&sample);
    world.wait("checkpoints", || world.steps(&sample).len() > 4);
    world.workers.clear();
    world.steps(&sample).iter().for_each(|path| flip(path));
    world.hire(&[]);
    world.check(&sample);
    // A prompt is asked for again.
    let code = |view: &Value| {
        view["problem"]["type"].as_str().unwrap_or_default().rsplit("problems/").next().unwrap().to_owned()
    };
    world.workers.clear();
    world.submit(&sample);
    flip(&world.dir.0.join("data/jobs/owner").join(sample.job()).join("prompt"));
    world.hire(&[]);
    let view = world.end(&sample);
    assert_eq!((&view["state"], code(&view).as_str()), (&json!("failed"), "object/hash"), "{view}");
    world.submit(&sample);
    world.check(&sample);
    // So is a key.
    world.workers.clear();
    flip(&crate::network::files(&world.dir.0.join("data/keys/owner").join(&sample.key), "key")[5]);
    world.submit(&sample);
    world.hire(&[]);
    let view = world.end(&sample);
    assert_eq!((&view["state"], code(&view).as_str()), (&json!("failed"), "key/damaged"), "{view}");
    assert_eq!(world.push(&keys)["sent"], 1);
    world.submit(&sample);
    world.check(&sample);
}
