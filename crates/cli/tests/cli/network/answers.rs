//! A prompt to a server and back: over TLS, through the server's death, as the tutorial says.

use std::collections::HashSet;

use super::*;
use crate::common::succeed;

#[test]
fn a_server_answers_over_tls_and_survives_its_own_death() {
    let dir = Scratch::new("network");
    let at = |name: &str| dir.path(name);
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (cert, key, data, log) = (at("cert.pem"), at("key.pem"), at("data"), at("log"));
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tiny = model();
    let serve = |listen: &str| {
        let args = ["serve", "--model", &tiny, "--data", &data, "--listen", listen, "--tls-cert", &cert];
        let more = ["--tls-key", &key, "--checkpoint-after", "0"];
        Listening::start(&[&args[..], &more, &RING].concat(), Path::new(&log))
    };
    let mut server = serve("127.0.0.1:0");
    let (token, address) = (at("data/token"), server.address.clone());
    let to = ["--server", &address, "--token-file", &token, "--ca", &cert];
    let with = |args: &[&str]| done(&[args, &to].concat());

    // A client without the model: plan, keys, registration, once.
    let (client, keys) = (at("client"), at("keys"));
    with(&["plan", "--client", &client]);
    done(&["keygen", "--plan", &client, "--out", &keys, "--insecure-ring", "9"]);
    let first = with(&["push", "--keys", &keys]);
    assert_eq!((&first["sent"], first["sent"].as_u64().unwrap() > 20), (&first["keys"], true), "{first}");
    assert_eq!(with(&["push", "--keys", &keys])["sent"], 0, "keys are sent once");
    fs::remove_file(&files(&PathBuf::from(at("data/keys/owner")).join(id(&keys)), "key")[3]).unwrap();
    assert_eq!(with(&["push", "--keys", &keys])["sent"], 1, "what is missing is sent again");

    // The answer is that of the commands on files.
    let (prompt, answer, again) = (at("prompt"), at("answer"), at("again"));
    let asked = with(&["ask", "--keys", &keys, "--prompt", PROMPT, "--top", "3", "--keep", &prompt, &answer]);
    succeed(&["run", "--keys", &at("keys/server"), "--input", &prompt, "--out", &again]);
    assert!(fs::read(&answer).unwrap() == fs::read(&again).unwrap(), "the same bytes");
    let read = ["decrypt", "--plan", &client, "--keys", &keys, "--input", &again, "--position"];
    let position = (tokens(PROMPT) - 1).to_string();
    let opened = done(&[&read[..], &[position.as_str(), "--top", "3"]].concat());
    assert_eq!(asked["top"], opened["top"]);

    // Killed in the middle of a job, a server goes on from its checkpoints; the asking client
    // waits.
    let (second, third, fourth) = (at("prompt2"), at("answer2"), at("again2"));
    let ask = ["ask", "--keys", &keys, "--prompt", "One day a dog", "--keep", &second, &third];
    let mut asking = bare(&[&ask[..], &to].concat()).stdout(Stdio::null()).spawn().unwrap();
    let steps = || {
        let jobs = fs::read_dir(at("data/jobs/owner")).into_iter().flatten().flatten();
        jobs.map(|job| files(&job.path().join("steps"), "step").len()).max().unwrap_or(0)
    };
    let clock = Instant::now();
    while steps() < 5 && clock.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(2));
    }
    let before = steps();
    server.kill();
    assert!(before >= 5, "no checkpoints were seen");
    let mut server = serve(address.split('/').nth(2).unwrap());
    assert!(asking.wait().unwrap().success());
    succeed(&["run", "--keys", &at("keys/server"), "--input", &second, "--out", &fourth]);
    assert!(fs::read(&third).unwrap() == fs::read(&fourth).unwrap(), "the same bytes after a kill");

    // A server that is asked to stop does.
    let (seconds, well) = server.stop();
    assert!(well && seconds < 30.0, "{seconds}");
    no_canary(&dir, &keys, &[data.as_str(), &log]);
    denied(&[&["ask", "--keys", &keys, "--prompt", "x"][..], &to[..4]].concat(), &["is the server running"]);
}

fn tokens(text: &str) -> usize {
    let path = Path::new(&model()).join("tokenizer.json");
    cipherlm_model::Tokenizer::load(&path).unwrap().encode(text).unwrap().len()
}

/// Nothing on the server's side holds a window of the secret's seed or of a prompt.
fn no_canary(dir: &Scratch, keys: &str, places: &[&str]) {
    let secret = fs::read(Path::new(keys).join("secret.key")).unwrap();
    let mut canaries: HashSet<Vec<u8>> = secret[secret.len() - 32..].windows(8).map(<[u8]>::to_vec).collect();
    canaries.extend(
        [PROMPT, "One day a dog"].iter().flat_map(|text| text.as_bytes().windows(8).map(<[u8]>::to_vec)),
    );
    let mut seen = 0;
    for (path, _) in dir.listing().iter().filter(|(p, _)| places.iter().any(|place| p.starts_with(place))) {
        if let Ok(bytes) = fs::read(path) {
            seen += bytes.len();
            let found = bytes.windows(8).find(|window| canaries.contains(*window));
            assert!(found.is_none(), "{}: {found:?}", path.display());
        }
    }
    assert!(seen > 1 << 20, "{seen} bytes were looked through");
}

/// The commands of the tutorial, as it prints them, on a port that is free.
#[test]
fn the_tutorial_does_what_it_says_over_the_network() {
    let dir = Scratch::new("tutorial");
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/service.md")).unwrap();
    let part = text.split("## For real").next().unwrap();
    let commands = crate::tutorial::find(part, "cipherlm");
    assert!(commands.len() >= 5, "{}", commands.len());
    let (mut server, tiny) = (None, model());
    for command in commands {
        let place = |word: &str| match word {
            "served" | "client" | "keys" => dir.path(word),
            "served/token" => dir.path("served/token"),
            "127.0.0.1:8443" => "127.0.0.1:0".into(),
            "tiny" => tiny.clone(),
            "http://127.0.0.1:8443" => {
                server.as_ref().map_or(String::new(), |s: &Listening| s.address.clone())
            }
            word => word.to_owned(),
        };
        let args: Vec<String> = command.args.iter().map(|word| place(word)).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        if args[0] == "serve" {
            server = Some(Listening::start(&args, Path::new(&dir.path("log"))));
        } else if args.len() > 3 {
            let said = done(&args);
            assert!(args[0] != "ask" || said["text"].is_string(), "line {}: {said}", command.line);
        }
    }
    assert!(server.is_some());
}
