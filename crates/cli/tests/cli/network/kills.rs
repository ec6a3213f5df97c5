//! `kill -9` at every point of an upload and of a job: nothing torn is ever seen, nothing is lost.

use super::site::Site;
use super::*;

/// Uploads that one kill cuts off: as many as a tenant may have on their way.
const AT_ONCE: usize = 4;

/// Cuts uploads off after `points` different shares of their files.
fn cut_uploads(name: &str, points: usize) {
    let mut site = Site::new(name, &json!({}));
    let keys = site.keys("keys");
    let (key, all) = (id(&keys), key_files(&keys));
    let list = manifest(&keys, &all).to_string();
    let address = format!("/v1/keys/{key}");
    let folder = PathBuf::from(site.at("data/keys/owner")).join(&key);
    assert_eq!(site.door().call("PUT", &address, list.as_bytes()).0, 200);
    let mut files = all.iter().cycle();
    // From nothing but the head of the request to all but its last byte.
    let share = |point: usize, length: usize| match point {
        0 => 0,
        1 => 1,
        point if point + 1 == points => length - 1,
        point => length * (point - 1) / (points - 1),
    };
    for batch in (0..points).collect::<Vec<_>>().chunks(AT_ONCE) {
        let door = site.door();
        let lines: Vec<(TcpStream, &String)> = batch
            .iter()
            .map(|&point| {
                let (hash, bytes) = files.next().unwrap();
                let mut line = TcpStream::connect(door.host).unwrap();
                let head =
                    format!("PUT {address}/{hash} HTTP/1.1\r\nHost: {}\r\n{}", door.host, door.bearer());
                write!(line, "{head}\r\nContent-Length: {}\r\n\r\n", bytes.len()).unwrap();
                line.write_all(&bytes[..share(point, bytes.len())]).unwrap();
                (line, hash)
            })
            .collect();
        // The bytes arrive.
        std::thread::sleep(Duration::from_millis(20));
        drop(door);
        site.again();
        let seen: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(seen.is_empty(), "after {batch:?}: {seen:?}");
        let missing = site.door().call("PUT", &address, list.as_bytes()).1;
        assert_eq!(missing["missing"].as_array().unwrap().len(), all.len(), "{batch:?}");
        drop(lines);
    }
    assert_eq!(site.push(&keys)["sent"], all.len());
    for (hash, bytes) in &all {
        assert!(fs::read(folder.join(format!("{hash}.key"))).unwrap() == *bytes, "{hash}");
    }
}

#[test]
fn an_upload_may_be_cut_off_at_any_byte() {
    cut_uploads("cut", 2 * AT_ONCE);
}

#[test]
#[ignore = "fifty points: a minute on a busy machine"]
fn slow_an_upload_may_be_cut_off_at_fifty_points() {
    cut_uploads("cut-slow", 50);
}

/// Kills a server so often in the middle of one job, each time further on.
fn kill_a_job(name: &str, kills: usize) {
    let (mut site, keys) = Site::with_keys(name);
    let (prompt, whole) = site.sample(&keys, PROMPT);
    let folder = PathBuf::from(site.at("data/jobs/owner")).join(hash(&prompt));
    assert_eq!(site.door().submit(&id(&keys), &prompt).0, 202);
    let (mut killed, mut seen) = (0, 0);
    while killed < kills {
        let clock = Instant::now();
        let steps = loop {
            let steps = files(&folder.join("steps"), "step").len();
            if steps > seen || folder.join("answer.json").exists() {
                break steps;
            }
            assert!(clock.elapsed() < Duration::from_secs(60), "{seen} steps, and no more");
            std::thread::sleep(Duration::from_millis(1));
        };
        if folder.join("answer.json").exists() {
            break;
        }
        seen = steps;
        site.again();
        killed += 1;
    }
    assert!(killed == kills, "the job ended after {killed} kills");
    assert_eq!(site.door().end(&prompt)["state"], "done");
    assert!(site.door().answer(&prompt) == whole, "the same bytes after {killed} kills");
    // The journal is behind what is told.
    assert!(site.server.stop().1);
    let log = fs::read_to_string(site.at("log")).unwrap();
    assert_eq!(log.matches("\"end\":\"done\"").count(), 1, "one end");
    assert!(!folder.join("steps").exists(), "checkpoints go with the job");
}

#[test]
fn a_job_may_be_killed_between_any_steps() {
    kill_a_job("killed", 16);
}

#[test]
#[ignore = "twenty points: a minute on a busy machine"]
fn slow_a_job_may_be_killed_at_twenty_points() {
    kill_a_job("killed-slow", 20);
}

#[test]
fn damaged_checkpoints_are_computed_again() {
    let (mut site, keys) = Site::with_keys("damaged");
    let (prompt, whole) = site.sample(&keys, PROMPT);
    let steps = PathBuf::from(site.at("data/jobs/owner")).join(hash(&prompt)).join("steps");
    assert_eq!(site.door().submit(&id(&keys), &prompt).0, 202);
    let clock = Instant::now();
    while files(&steps, "step").len() < 4 {
        assert!(clock.elapsed() < Duration::from_secs(60), "no steps");
        std::thread::sleep(Duration::from_millis(1));
    }
    let listen = site.server.host().to_owned();
    site.server.kill();
    // A flipped bit, a short file, an empty one, and another step's.
    let found = files(&steps, "step");
    let first = fs::read(&found[0]).unwrap();
    let mut flipped = first.clone();
    flipped[first.len() / 2] ^= 1;
    fs::write(&found[0], flipped).unwrap();
    fs::write(&found[1], &first[..first.len() / 2]).unwrap();
    fs::write(&found[2], b"").unwrap();
    fs::write(&found[3], first).unwrap();
    site.again_at(&listen);
    assert_eq!(site.door().end(&prompt)["state"], "done");
    assert!(site.door().answer(&prompt) == whole);
}
