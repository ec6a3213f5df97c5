//! What a server has in memory and on disk, and what its line shows.

use std::collections::HashSet;
use std::io::{Seek, SeekFrom};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::site::Site;
use super::*;

/// A text of eight characters that stands in no model, vocabulary or program.
const CANARY: &str = "q7#Zk!vX";
const WINDOW: usize = 8;

fn windows(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    bytes.windows(WINDOW).map(<[u8]>::to_vec)
}

/// The first of the windows that a process has in readable memory, and how much was looked through.
fn find_in_memory(process: u32, wanted: &HashSet<Vec<u8>>) -> (Option<Vec<u8>>, usize) {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let mut memory = fs::File::open(format!("/proc/{process}/mem")).unwrap();
    let first: HashSet<u8> = wanted.iter().map(|window| window[0]).collect();
    let mut seen = 0;
    for line in maps.lines().filter(|line| line.contains(" r") && !line.contains("[v")) {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        let mut bytes = vec![0; (number(end) - number(start)) as usize];
        // What is mapped and not there reads as nothing.
        if memory.seek(SeekFrom::Start(number(start))).is_err() || memory.read_exact(&mut bytes).is_err() {
            continue;
        }
        seen += bytes.len();
        let found =
            bytes.windows(WINDOW).find(|window| first.contains(&window[0]) && wanted.contains(*window));
        if let Some(found) = found {
            return (Some(found.to_vec()), seen);
        }
    }
    (None, seen)
}

#[test]
fn memory_and_disk_of_a_server_hold_no_window_of_secret_or_text() {
    let (site, keys) = Site::with_keys("windows");
    let secret = fs::read(Path::new(&keys).join("secret.key")).unwrap();
    let mut wanted: HashSet<Vec<u8>> = windows(&secret[secret.len() - 32..]).collect();
    wanted.extend(windows(CANARY.as_bytes()));
    let process = site.server.child.id();
    let prompt = site.prompt(&keys, CANARY);
    assert_eq!(site.door().submit(&id(&keys), &prompt).0, 202);
    // In the middle of the run, and after it.
    let during = find_in_memory(process, &wanted);
    assert_eq!(site.door().end(&prompt)["state"], "done");
    let asked = site.client(&["ask", "--keys", &keys, "--prompt", CANARY]);
    assert!(asked["text"].is_string());
    for (found, seen) in [during, find_in_memory(process, &wanted)] {
        assert!(found.is_none() && seen > 4 << 20, "{found:?} in {seen} bytes");
    }
    for (path, _) in site.dir.listing().iter().filter(|(path, _)| path.starts_with(site.dir.0.join("data"))) {
        let bytes = fs::read(path).unwrap_or_default();
        assert!(!bytes.windows(WINDOW).any(|window| wanted.contains(window)), "{}", path.display());
    }
    // The look itself finds what is there: the id of the secret, and this text where it is typed.
    let known: HashSet<Vec<u8>> = windows(id(&keys).as_bytes()).collect();
    assert!(find_in_memory(process, &known).0.is_some());
    let own: HashSet<Vec<u8>> = windows(CANARY.as_bytes()).collect();
    assert!(find_in_memory(std::process::id(), &own).0.is_some());
}

/// Passes a line on and counts the bytes that go up, of all connections, and the connections.
fn counted(server: &str) -> (String, Arc<[AtomicUsize; 2]>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, server) = (listener.local_addr().unwrap().to_string(), server.to_owned());
    let counts: Arc<[AtomicUsize; 2]> = Arc::default();
    let shared = Arc::clone(&counts);
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let far = TcpStream::connect(&server).unwrap();
            let (mut up, mut down) = ((near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near));
            let counts = Arc::clone(&shared);
            counts[1].fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || {
                let mut bytes = [0; 1 << 14];
                while let Ok(read @ 1..) = up.0.read(&mut bytes) {
                    counts[0].fetch_add(read, Ordering::SeqCst);
                    if up.1.write_all(&bytes[..read]).is_err() {
                        break;
                    }
                }
            });
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut down.0, &mut down.1);
                let _ = down.1.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    (address, counts)
}

#[test]
fn all_prompts_of_a_plan_look_alike_on_the_line() {
    let (site, keys) = Site::with_keys("shapes");
    let (address, counts) = counted(site.server.host());
    let (url, token) = (format!("http://{address}"), site.at("data/token"));
    let mut shapes = HashSet::new();
    for text in ["a", "One day", PROMPT, CANARY, "the the the", "zzzzzzz", "Lily", "\u{e9}\u{e9}"] {
        done(&["ask", "--keys", &keys, "--server", &url, "--token-file", &token, "--prompt", text]);
        shapes.insert([0, 1].map(|at: usize| counts[at].swap(0, Ordering::SeqCst)));
    }
    assert_eq!(shapes.len(), 1, "bytes and connections: {shapes:?}");
}
