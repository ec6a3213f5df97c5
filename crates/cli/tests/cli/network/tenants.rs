//! Fifty tenants: each sees its own, quotas are exact, and a full queue says when to come again.

use super::site::Site;
use super::*;

const TENANTS: usize = 50;
const QUEUE: usize = 8;

#[test]
fn fifty_tenants_share_a_server_and_nothing_else() {
    let site = Site::new("tenants", &json!({"queue": QUEUE, "jobs_per_tenant": 2}));
    let keys = site.keys("keys");
    let (key, list) = (id(&keys), manifest(&keys, &key_files(&keys)).to_string());
    let prompts: Vec<Vec<u8>> = ["a cat", "a dog", PROMPT].map(|text| site.prompt(&keys, text)).into();
    let doors: Vec<Door<'_>> = (0..TENANTS).map(|n| site.tenant(&format!("tenant-{n}"))).collect();
    // All under one key id: names are apart by tenant even so.
    for door in &doors {
        assert_eq!(door.call("GET", "/v1/usage", b"").1["key_bytes"], 0);
        door.refuses(
            ("PUT", &format!("/v1/jobs/{}?key={key}", hash(&prompts[0]))),
            &prompts[0],
            404,
            "key/unknown",
        );
        door.refuses(("DELETE", &format!("/v1/keys/{key}")), b"", 404, "key/unknown");
        assert_eq!(door.call("PUT", &format!("/v1/keys/{key}"), list.as_bytes()).1["ready"], false);
    }
    // Two of them have keys. One has used up its jobs; the other, and the queue, have room.
    doors[0].register(&keys, &key_files(&keys));
    doors[1].register(&keys, &key_files(&keys));
    let said: Vec<_> = prompts.iter().map(|prompt| doors[0].submit(&key, prompt)).collect();
    assert!(said[..2].iter().all(|said| said.0 == 202), "{said:?}");
    // The first job may have ended by now.
    match &said[2] {
        (202, _) => {}
        (429, problem) => {
            assert!(problem["type"].as_str().unwrap().ends_with("quota/jobs"), "{problem}");
            assert!(problem["retry_after"].as_u64().unwrap() >= 1, "{problem}");
        }
        other => panic!("{other:?}"),
    }
    for prompt in &prompts {
        let address = format!("/v1/jobs/{}", hash(prompt));
        for (method, more) in [("GET", ""), ("GET", "/events"), ("GET", "/result"), ("DELETE", "")] {
            doors[1].refuses((method, &format!("{address}{more}")), b"", 404, "job/unknown");
        }
    }
    assert_eq!(doors[1].submit(&key, &prompts[0]).0, 202, "the same prompt is another tenant's own job");
    for door in &doors[..2] {
        assert_eq!(door.end(&prompts[0])["state"], "done");
    }
    assert!(doors[0].answer(&prompts[0]) == doors[1].answer(&prompts[0]));
    assert_eq!(doors[1].call("DELETE", &format!("/v1/jobs/{}", hash(&prompts[0])), b"").0, 204);
    doors[0].answer(&prompts[0]);
    assert_eq!(doors[1].call("DELETE", &format!("/v1/keys/{key}"), b"").0, 204);
    assert!(doors[0].call("GET", "/v1/usage", b"").1["key_bytes"].as_u64().unwrap() > 1 << 20);
}

#[test]
fn a_quota_of_keys_is_exact() {
    let probe = Scratch::new("quota-probe");
    let keys = probe.path("keys");
    done(&[&["keygen", "--model", &model(), "--out", &keys][..], &RING].concat());
    let all = key_files(&keys);
    let bytes: u64 = all.values().map(|bytes| bytes.len() as u64).sum();
    let list = manifest(&keys, &all).to_string();
    for (quota, status) in [(bytes, 200), (bytes - 1, 429)] {
        let site = Site::new("quota", &json!({"key_bytes_per_tenant": quota}));
        let (found, said) = site.door().call("PUT", &format!("/v1/keys/{}", id(&keys)), list.as_bytes());
        assert_eq!(found, status, "{said}");
        if found == 200 {
            assert_eq!(said["bytes_left"], 0);
            // Another secret has no room, and the same one has.
            let other = format!("/v1/keys/{}", "a".repeat(64));
            site.door().refuses(("PUT", &other), list.as_bytes(), 429, "quota/keys");
            assert_eq!(site.door().call("PUT", &format!("/v1/keys/{}", id(&keys)), list.as_bytes()).0, 200);
        }
    }
}

#[test]
fn a_full_queue_says_when_to_come_again() {
    let site = Site::new("queue", &json!({"queue": 3, "jobs_per_tenant": 64}));
    let keys = site.keys("keys");
    site.push(&keys);
    let (key, door) = (id(&keys), site.door());
    let prompts: Vec<Vec<u8>> = (0..12).map(|_| site.prompt(&keys, PROMPT)).collect();
    let mut refused = None;
    for prompt in &prompts {
        match door.submit(&key, prompt) {
            (202, _) => {}
            (429, problem) => {
                assert!(problem["type"].as_str().unwrap().ends_with("/busy"), "{problem}");
                refused = Some((prompt, problem["retry_after"].as_u64().unwrap()));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    let (prompt, mut seconds) = refused.expect("twelve at once are more than a queue of three");
    let queued = door.call("GET", "/v1/usage", b"").1["queued"].as_u64().unwrap();
    assert!(queued <= 3, "{queued}");
    // Whoever waits as told is let in. On a busy machine jobs take longer than the last ones did.
    let begin = Instant::now();
    loop {
        assert!((1..600).contains(&seconds), "{seconds}");
        std::thread::sleep(Duration::from_secs(seconds));
        let (status, said) = door.submit(&key, prompt);
        if status == 202 {
            break;
        }
        assert!(status == 429 && begin.elapsed() < Duration::from_secs(120), "{status}: {said}");
        seconds = said["retry_after"].as_u64().unwrap();
    }
    assert_eq!(door.end(prompt)["state"], "done");
}
