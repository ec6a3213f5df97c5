//! The 42 bad inputs of the threat list as one table: each tried on the server and on the client,
//! or with the name of the test that has it.

use super::puppet::{Puppet, answer};
use super::site::Site;
use super::*;

/// Bytes before the ciphertext of a prompt, and of an answer.
const HEADS: [usize; 2] = [88, 56];
/// Bytes of an object's header. A ciphertext has then level, parts, seeded, 2 reserved, slots,
/// scale and seed; a key has purpose, digits, 2 reserved, level, special primes, weight of the
/// secret, argument and seed.
const HEADER: usize = 112;

/// How an object is spoiled; it is told where its ciphertext begins.
type Change = fn(&mut Vec<u8>, usize);

enum Tried {
    /// In a prompt, to which the server says this.
    Prompt(Change, u16, &'static str),
    /// In an answer, which the client refuses.
    Answer(Change),
    /// In a key file, to which the server says this.
    Key(Change, u16, &'static str),
    /// By a test of this file in `crates`.
    By(&'static str, &'static str),
}
use Tried::{Answer, By, Key, Prompt};

/// Where the object ends that begins there.
fn end(bytes: &[u8], at: usize) -> usize {
    at + HEADER + u64::from_le_bytes(bytes[at + 72..at + 80].try_into().unwrap()) as usize
}

/// Makes the hash of the object right again, as whoever means harm would.
fn reseal(bytes: &mut [u8], at: usize) {
    let end = end(bytes, at);
    let object = &mut bytes[at..end];
    let mut hasher = blake3::Hasher::new_derive_key("cipherlm-ckks 1 wire object");
    hasher.update(&object[6..72]).update(&object[HEADER..]);
    let hash = *hasher.finalize().as_bytes();
    object[80..112].copy_from_slice(&hash);
}

/// Writes into the object, behind its header, and makes its hash right again.
fn body(bytes: &mut [u8], at: usize, place: usize, value: &[u8]) {
    bytes[at + HEADER + place..at + HEADER + place + value.len()].copy_from_slice(value);
    reseal(bytes, at);
}

/// Writes the length of the object's body.
fn length(bytes: &mut [u8], at: usize, of: impl Fn(u64) -> u64) {
    let place = &mut bytes[at + 72..at + 80];
    let found = u64::from_le_bytes(place.try_into().unwrap());
    place.copy_from_slice(&of(found).to_le_bytes());
}

/// A last residue above every prime.
fn last_residue(bytes: &mut [u8], at: usize) {
    let end = end(bytes, at);
    bytes[end - 7..end].fill(255);
    reseal(bytes, at);
}

/// A second part of zeros, which no secret changes.
fn transparent(bytes: &mut [u8], at: usize) {
    let (end, begin) = (end(bytes, at), at + HEADER + 28);
    bytes[end - (end - begin) / 2..end].fill(0);
    reseal(bytes, at);
}

fn flip(bytes: &mut [u8], place: usize) {
    bytes[place] ^= 1;
}

/// Objects as such: rows 1 to 12.
#[rustfmt::skip]
fn objects() -> Vec<(u8, Tried)> {
    vec![
        (1, Prompt(|b, _| b.clear(), 413, "length/mismatch")), (1, Answer(|b, _| b.clear())),
        (1, Prompt(|b, _| b.truncate(1), 413, "length/mismatch")), (1, Answer(|b, _| b.truncate(1))),
        (1, Answer(|b, at| b.truncate(at))), (1, Answer(|b, at| b.truncate(at + HEADER))),
        (1, Key(|b, _| b.truncate(HEADER), 400, "object/truncated")),
        (2, Prompt(|b, _| flip(b, 0), 400, "object/magic")), (2, Answer(|b, _| flip(b, 0))),
        (2, Prompt(|b, at| flip(b, at), 400, "object/magic")), (2, Answer(|b, at| flip(b, at))),
        (2, Prompt(|b, at| flip(b, at + 6), 400, "object/type")), (2, Answer(|b, at| flip(b, at + 6))),
        (2, Key(|b, at| flip(b, at), 400, "object/magic")),
        (2, Key(|b, at| flip(b, at + 6), 400, "object/type")),
        (3, Prompt(|b, at| b[at + 4..at + 6].fill(0), 400, "object/version")),
        (3, Prompt(|b, at| b[at + 4..at + 6].fill(255), 400, "object/version")),
        (3, Prompt(|b, at| b[at + 4] += 1, 400, "object/version")),
        (3, Answer(|b, at| b[at + 4..at + 6].fill(0))), (3, Answer(|b, at| b[at + 4] += 1)),
        (3, Key(|b, at| b[at + 4] += 1, 400, "object/version")),
        (4, Answer(|b, at| b.truncate(at / 2))), (4, Answer(|b, _| b.truncate(b.len() / 2))),
        (4, Answer(|b, _| b.truncate(b.len() - 1))),
        (4, Prompt(|b, _| b.truncate(b.len() - 1), 413, "length/mismatch")),
        (4, By("ckks/tests/prop_wire.rs", "every_truncation_flip_and_extension_is_refused")),
        (5, Prompt(|b, _| b.push(0), 413, "length/mismatch")), (5, Answer(|b, _| b.push(0))),
        (5, Key(|b, _| b.push(0), 400, "object/length")),
        (6, Prompt(|b, at| length(b, at, |_| 1 << 63), 400, "object/length")),
        (6, Prompt(|b, at| length(b, at, |_| u64::MAX), 400, "object/length")),
        (6, Answer(|b, at| length(b, at, |_| 1 << 63))), (6, Answer(|b, at| length(b, at, |_| u64::MAX))),
        (7, Prompt(|b, at| length(b, at, |n| n - 1), 400, "object/length")),
        (7, Prompt(|b, at| length(b, at, |n| n + 1), 400, "object/length")),
        (7, Answer(|b, at| length(b, at, |n| n + 1))),
        (7, Key(|b, _| b.truncate(b.len() - 1), 400, "object/length")),
        // Parameters travel as a hash: a ring or a chain of its own cannot be said.
        (8, Prompt(|b, _| b[80..84].fill(255), 422, "object/field")), (8, Answer(|b, _| b[48..52].fill(255))),
        (8, Prompt(|b, _| b[80..84].copy_from_slice(&[3, 0, 0, 0]), 422, "object/field")),
        (8, By("ckks/tests/ckks/params_table.rs", "sizes_out_of_range_are_refused_by_name")),
        (9, Prompt(|b, at| flip(b, at + 8), 409, "params/mismatch")), (9, Answer(|b, at| flip(b, at + 8))),
        (9, Key(|b, at| flip(b, at + 8), 409, "params/mismatch")),
        (10, By("ckks/tests/ckks/params_table.rs", "limbs_that_a_set_does_not_have_are_refused")),
        (11, Prompt(|b, at| last_residue(b, at), 422, "object/residue")),
        (11, Answer(|b, at| last_residue(b, at))),
        (11, By("ckks/tests/prop_wire.rs", "a_residue_out_of_range_is_numbered_through_all_polynomials")),
        // One form on the wire.
        (12, By("ckks/tests/prop_wire.rs", "what_is_accepted_is_canonical")),
    ]
}

/// The fields of objects: rows 13 to 23.
#[rustfmt::skip]
fn fields() -> Vec<(u8, Tried)> {
    vec![
        (13, Prompt(|b, at| body(b, at, 0, &[200, 0, 0, 0]), 422, "object/field")),
        (13, Prompt(|b, at| body(b, at, 0, &[255; 4]), 422, "object/field")),
        (13, Answer(|b, at| body(b, at, 0, &[255; 4]))), (13, Answer(|b, _| b[52..56].fill(255))),
        (13, Key(|b, at| body(b, at, 4, &[255; 4]), 422, "key/shape")),
        (14, Prompt(|b, at| body(b, at, 12, &0f64.to_le_bytes()), 422, "object/field")),
        (14, Prompt(|b, at| body(b, at, 12, &(-1f64).to_le_bytes()), 422, "object/field")),
        (14, Prompt(|b, at| body(b, at, 12, &f64::NAN.to_le_bytes()), 422, "object/field")),
        (14, Prompt(|b, at| body(b, at, 12, &f64::INFINITY.to_le_bytes()), 422, "object/field")),
        (14, Prompt(|b, at| body(b, at, 12, &1e-310f64.to_le_bytes()), 422, "object/field")),
        (14, Answer(|b, at| body(b, at, 12, &f64::NAN.to_le_bytes()))),
        (14, Answer(|b, at| body(b, at, 12, &0f64.to_le_bytes()))),
        (15, Prompt(|b, at| body(b, at, 4, &[1]), 422, "object/field")),
        (15, Prompt(|b, at| body(b, at, 4, &[17]), 422, "object/field")),
        (15, Answer(|b, at| body(b, at, 4, &[0]))), (15, Answer(|b, at| body(b, at, 4, &[17]))),
        // A prompt of the length that is taken has a seed for its second part.
        (16, Answer(|b, at| transparent(b, at))),
        (17, Prompt(|b, at| flip(b, at + 40), 400, "object/hash")),
        (17, Prompt(|b, _| flip(b, 40), 409, "key/mismatch")),
        (17, Prompt(|b, _| b[8] = b'?', 409, "plan/mismatch")), (17, Answer(|b, _| b[8] = b'?')),
        (17, Answer(|b, at| { flip(b, at + 40); reseal(b, at) })),
        (18, Key(|b, at| body(b, at, 16, &[2]), 422, "object/field")),
        (18, Key(|b, at| body(b, at, 16, &[255; 8]), 422, "object/field")),
        (18, Key(|b, at| body(b, at, 0, &[9]), 422, "object/field")),
        (18, By("ckks/tests/ckks/mismatch_matrix.rs",
            "a_key_that_a_source_lies_about_is_refused_by_every_operation")),
        (19, Key(|b, at| body(b, at, 1, &[77]), 422, "object/field")),
        (19, Key(|b, at| body(b, at, 8, &[0; 4]), 422, "key/shape")),
        (19, Key(|b, at| body(b, at, 8, &[255; 4]), 422, "key/shape")),
        (20, By("ckks/tests/prop_wire.rs",
            "a_sparse_key_at_a_large_modulus_is_refused_when_made_and_when_read")),
        // The length of a seed is fixed; one of zeros is a seed like any other.
        (21, By("ckks/tests/prop_wire.rs", "hostile_fields_are_named")),
        (22, Prompt(|b, at| flip(b, at + HEADER + 40), 400, "object/hash")),
        (22, Answer(|b, at| flip(b, at + HEADER + 40))),
        (22, Prompt(|b, _| { let end = b.len() - 1; flip(b, end) }, 400, "object/hash")),
        (22, Answer(|b, _| { let end = b.len() - 1; flip(b, end) })),
        (23, By("ckks/tests/prop_wire.rs", "changed_objects_with_a_correct_hash_never_panic")),
    ]
}

/// Rows that no object shows: calls of the library, the line, the program.
#[rustfmt::skip]
fn others() -> Vec<(u8, Tried)> {
    vec![
        (24, By("ckks/tests/ckks/mismatch_matrix.rs", "bad_values_are_refused_by_the_encoder")),
        (25, By("ckks/tests/ckks/mismatch_matrix.rs", "bad_values_are_refused_by_the_encoder")),
        (26, By("ckks/tests/ckks/mismatch_matrix.rs", "keys_that_are_missing_or_wrong_are_named")),
        (27, By("ckks/tests/ckks/mismatch_matrix.rs", "exhausted_levels_are_refused")),
        (28, By("ckks/tests/ckks/mismatch_matrix.rs", "levels_and_scales_that_differ_are_refused")),
        (29, By("approx/src/interval.rs", "intervals_without_a_map_onto_the_unit_interval_are_refused")),
        (30, By("cli/tests/cli/network/rows.rs", "poison_runs_to_its_end_and_is_no_answer")),
        (31, By("cli/tests/cli/network/rows.rs", "what_is_no_object_is_refused_too")),
        (32, By("cli/tests/cli/network/rows.rs", "what_is_no_object_is_refused_too")),
        (33, By("cli/tests/cli/network/rows.rs", "what_is_no_object_is_refused_too")),
        (34, By("cli/tests/cli/network/rows.rs", "what_is_no_object_is_refused_too")),
        (35, By("cli/tests/cli/network/refusals.rs", "keys_are_checked")),
        (36, By("cli/tests/cli/network/refusals.rs", "prompts_are_checked")),
        (37, By("cli/tests/cli/network/refusals.rs", "prompts_are_checked")),
        (38, By("cli/tests/cli/network/refusals.rs", "prompts_are_checked")),
        (39, By("cli/tests/cli/network/rows.rs", "poison_runs_to_its_end_and_is_no_answer")),
        (40, By("cli/tests/cli/network/rows.rs", "what_is_no_object_is_refused_too")),
        (41, By("cli/tests/cli/network/kills.rs", "damaged_checkpoints_are_computed_again")),
        (42, By("cli/tests/cli/network/operator.rs", "a_server_that_cannot_start_says_why_in_one_line")),
    ]
}

/// A command that must refuse in one line.
fn refused(args: &[&str], what: &str) -> String {
    let out = bare(args).output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(2), "{what}: {args:?}: {said}");
    assert!(said.lines().last().unwrap_or_default().starts_with("cipherlm: "), "{what}: {said}");
    assert!(!said.contains("panicked") && out.stdout.is_empty(), "{what}: {said}");
    said
}

#[test]
fn every_bad_input_is_refused_by_server_and_client() {
    let site = Site::new("rows", &json!({}));
    let keys = site.keys("keys");
    let (key, door, puppet, tiny) = (id(&keys), site.door(), Puppet::new(), model());
    let (prompt, whole) = site.sample(&keys, PROMPT);
    let (all, address) = (key_files(&keys), format!("/v1/keys/{key}"));
    // A Galois key: of a key that switches, every source is one of some secret.
    let (first, file) = all.iter().find(|(_, bytes)| bytes[HEADER] == 2).unwrap();
    site.push(&keys);
    let token = site.at("data/token");
    let ask = ["ask", "--model", &tiny, "--keys", &keys, "--prompt", PROMPT, "--token-file", &token];
    let ask = [&ask[..], &["--server", &puppet.url]].concat();
    puppet.answers(&whole);
    assert!(bare(&ask).output().unwrap().status.success(), "the answer itself is good");
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let rows = objects().into_iter().chain(fields()).chain(others());
    let mut seen = [0; 43];
    for (place, (row, tried)) in rows.enumerate() {
        let what = format!("row {row}, trial {place}");
        seen[usize::from(row)] += 1;
        match tried {
            Prompt(change, status, code) => {
                let mut bad = prompt.clone();
                change(&mut bad, HEADS[0]);
                let path = format!("/v1/jobs/{}?key={key}", hash(&bad));
                println!("{what}");
                door.refuses(("PUT", &path), &bad, status, code);
            }
            Answer(change) => {
                let mut bad = whole.clone();
                change(&mut bad, HEADS[1]);
                puppet.answers(&bad);
                refused(&ask, &what);
            }
            Key(change, status, code) => {
                let mut bad = file.clone();
                change(&mut bad, 0);
                let mut listed = all.clone();
                listed.remove(first);
                listed.insert(hash(&bad), bad.clone());
                println!("{what}");
                assert_eq!(
                    door.call("PUT", &address, manifest(&keys, &listed).to_string().as_bytes()).0,
                    200
                );
                door.refuses(("PUT", &format!("{address}/{}", hash(&bad))), &bad, status, code);
                site.push(&keys);
            }
            By(file, name) => {
                let text = fs::read_to_string(crates.join(file)).unwrap();
                assert!(name.is_empty() || text.contains(&format!("fn {name}(")), "{what}: {file}: {name}");
            }
        }
    }
    assert!(seen[1..].iter().all(|tried| *tried > 0), "{seen:?}");
    assert!(!Path::new(&site.at("data/jobs/owner")).exists(), "nothing of a refused prompt is kept");
}

/// A prompt whose residues are in range and mean nothing.
fn poison(prompt: &[u8]) -> Vec<u8> {
    let mut bad = prompt.to_vec();
    // Low bits of the first residue: by the other primes this is a multiple of all of them.
    bad[HEADS[0] + HEADER + 60] ^= 0x15;
    reseal(&mut bad, HEADS[0]);
    bad
}

#[test]
fn poison_runs_to_its_end_and_is_no_answer() {
    let (site, keys) = Site::with_keys("poison");
    let (key, door) = (id(&keys), site.door());
    let prompt = site.prompt(&keys, PROMPT);
    let names = |prompt: &[u8]| {
        assert_eq!(door.submit(&key, prompt).0, 202);
        assert_eq!(door.end(prompt)["state"], "done");
        let head = format!("GET /v1/jobs/{}/events HTTP/1.1\r\n{}", hash(prompt), door.bearer());
        let text = String::from_utf8(raw(door.host, &head, b"").2).unwrap();
        let names = text.lines().filter(|line| line.starts_with("event: ")).map(str::to_owned);
        names.filter(|name| !name.contains("loading")).collect::<Vec<_>>()
    };
    let bad = poison(&prompt);
    assert_eq!(names(&prompt), names(&bad), "a server sees no difference");
    let (puppet, tiny, token) = (Puppet::new(), model(), site.at("data/token"));
    puppet.answers(&door.answer(&bad));
    let ask = ["ask", "--model", &tiny, "--keys", &keys, "--prompt", PROMPT, "--token-file", &token];
    let said = refused(&[&ask[..], &["--server", &puppet.url]].concat(), "poison");
    assert!(said.contains("no answer"), "{said}");
}

/// Its content is in order, so it is taken; the job that needs the right one says so.
#[test]
fn a_key_that_switches_from_another_secret_is_missed_by_name() {
    let site = Site::new("switch", &json!({}));
    let keys = site.keys("keys");
    let (key, door, mut all) = (id(&keys), site.door(), key_files(&keys));
    let prompt = site.prompt(&keys, PROMPT);
    let target = |bytes: &[u8]| bytes[40..72].iter().map(|b| format!("{b:02x}")).collect::<String>();
    let own = |bytes: &[u8]| bytes[HEADER] == 3 && target(bytes) == key;
    let (name, mut bad) = all.iter().find(|(_, b)| own(b)).map(|(n, b)| (n.clone(), b.clone())).unwrap();
    all.remove(&name);
    body(&mut bad, 0, 16, &[9; 32]);
    all.insert(hash(&bad), bad);
    door.register(&keys, &all);
    assert_eq!(door.submit(&key, &prompt).0, 202);
    let view = door.end(&prompt);
    let said = view["problem"]["detail"].as_str().unwrap();
    assert!(view["state"] == "failed" && said.contains("no switching (from key "), "{view}");
}

#[test]
fn what_is_no_object_is_refused_too() {
    let site = Site::new("no-object", &json!({"head_seconds": 1, "body_bytes_per_second": 1u64 << 40}));
    let keys = site.keys("keys");
    let (door, puppet, tiny) = (site.door(), Puppet::new(), model());
    let (token, key) = (site.at("data/token"), id(&keys));
    let to = ["--server", puppet.url.as_str(), "--token-file", &token];
    let (_, whole) = site.sample(&keys, PROMPT);

    // 31: models; 32: prompts.
    let (broken, latin1) = (site.at("broken"), site.at("latin1"));
    fs::create_dir(&broken).unwrap();
    for path in fs::read_dir(&tiny).unwrap().map(|entry| entry.unwrap().path()) {
        let bytes = fs::read(&path).unwrap();
        let cut =
            if path.extension().is_some_and(|e| e == "safetensors") { bytes.len() / 2 } else { bytes.len() };
        fs::write(Path::new(&broken).join(path.file_name().unwrap()), &bytes[..cut]).unwrap();
    }
    fs::write(&latin1, b"caf\xe9").unwrap();
    let data = site.at("data2");
    refused(&["serve", "--model", &broken, "--data", &data, "--plain-http", "--length", "8"], "row 31");
    let ask = [&["ask", "--model", &tiny, "--keys", &keys][..], &to].concat();
    let long = "cat ".repeat(200);
    for prompt in [["--prompt", ""], ["--prompt", &long], ["--prompt-file", &latin1]] {
        refused(&[&ask[..], &prompt].concat(), "row 32");
    }

    // 33: bodies that end early, late or never.
    let put = format!("PUT /v1/keys/{key} HTTP/1.1\r\n{}", door.bearer());
    assert_eq!(raw(door.host, &format!("{put}\r\nContent-Length: 50"), b"{").0, 408);
    assert_eq!(raw(door.host, &format!("{put}\r\nTransfer-Encoding: chunked"), b"5\r\nhello\r\n").0, 411);
    assert_eq!(raw(door.host, &format!("{put}\r\nContent-Length: 2"), b"{}{}").0, 400);
    puppet.answers(&whole);
    let said = [&ask[..], &["--prompt", PROMPT]].concat();
    for bad in [answer(&whole[1..]), answer(&[&whole[..], &[0]].concat()), b"HTTP/1.1 200 OK\r\n".to_vec()] {
        puppet.says("GET /v1/jobs/*/result", bad);
        refused(&said, "row 33");
    }

    // 34: heads.
    let many = format!("GET /healthz HTTP/1.1{}", "\r\nA: b".repeat(3000));
    let long = format!("GET /healthz HTTP/1.1\r\nX: {}", "x".repeat(1 << 20));
    assert_eq!([raw(door.host, &many, b"").0, raw(door.host, &long, b"").0], [431; 2]);
    for name in ["..%2f..%2fetc%2fpasswd", "%00", "%ff", "x", &"g".repeat(64), &"A".repeat(64)] {
        door.refuses(("GET", &format!("/v1/jobs/{name}")), b"", 404, "not-found");
        door.refuses(("PUT", &format!("/v1/keys/{name}/{name}")), b"", 404, "not-found");
    }

    // 40: JSON.
    let deep = [b"[".repeat(40), b"]".repeat(40)].concat();
    let twice = br#"{"plan": "a", "plan": "a"}"#.to_vec();
    let large = br#"{"plan": "a", "params": "b", "keys": [{"blake3": "c", "bytes": 1e999}]}"#.to_vec();
    let address = format!("/v1/keys/{key}");
    for (bad, code) in [(&deep, "json/limit"), (&twice, "json/field"), (&large, "json/field")] {
        door.refuses(("PUT", &address), bad, 400, code);
    }
    door.refuses(("PUT", &address), &vec![b' '; 1 << 20], 413, "length/mismatch");
    let plan = [&["plan", "--client", &data][..], &to].concat();
    for bad in [deep, twice, large, vec![b' '; 1 << 20], b"\xff".to_vec(), vec![]] {
        puppet.says("GET /v1/models", answer(&bad));
        refused(&plan, "row 40");
    }
    assert!(!Path::new(&data).join("client-plan.json").exists());
}
