//! What an operator does wrong, or is done to: one clear line, and the exit status of the table.

use std::os::unix::fs::PermissionsExt;

use super::puppet::{Puppet, answer};
use super::site::Site;
use super::*;

/// A command line, and words of its one line.
type Case<'a> = (Vec<&'a str>, &'a [&'a str]);

fn all_are_refused(cases: &[Case<'_>]) {
    for (args, words) in cases {
        let clock = Instant::now();
        let out = bare(args).output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{args:?}: {said}");
        assert!(
            words.iter().all(|word| said.contains(word)),
            "{args:?} said: {said}without one of {words:?}"
        );
        let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("cipherlm: ")).collect();
        assert!(lines.len() == 1 && said.lines().last() == lines.last().copied(), "{args:?}: {said}");
        assert!(!said.contains("panicked") && clock.elapsed() < Duration::from_secs(20), "{args:?}: {said}");
    }
}

/// Certificate and key of a server, and a certificate that is no longer valid.
fn certificates(dir: &Scratch) {
    let write = |name: &str, text: &str| fs::write(dir.path(name), text).unwrap();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    write("cert", &made.cert.pem());
    write("key", &made.signing_key.serialize_pem());
    write("other-key", &rcgen::KeyPair::generate().unwrap().serialize_pem());
    let key = rcgen::KeyPair::generate().unwrap();
    write("old-key", &key.serialize_pem());
    for (name, host, year) in [("old", "127.0.0.1", 2001), ("strange", "other.example", 2900)] {
        let mut params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        (params.not_before, params.not_after) =
            (rcgen::date_time_ymd(2000, 1, 1), rcgen::date_time_ymd(year, 1, 1));
        write(name, &params.self_signed(&key).unwrap().pem());
    }
    // Of an authority, as `openssl req -x509` makes them.
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    write("authority", &params.self_signed(&key).unwrap().pem());
    write("text", "no certificate");
    write("zero", r#"{"connections": 0}"#);
    write("negative", r#"{"queue": -1}"#);
    write("unknown", r#"{"qeue": 1}"#);
    write("twice", r#"{"queue": 1, "queue": 2}"#);
    write("large", r#"{"head_seconds": 18446744073709551615}"#);
}

#[test]
fn a_server_that_cannot_start_says_why_in_one_line() {
    let dir = Scratch::new("operator");
    certificates(&dir);
    let at = |name: &str| dir.path(name);
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (taken, tiny, data) = (busy.local_addr().unwrap().to_string(), model(), at("data"));
    let (cert, key, text, none, other) = (at("cert"), at("key"), at("text"), at("none"), at("other-key"));
    let (zero, negative, unknown, twice, large) =
        (at("zero"), at("negative"), at("unknown"), at("twice"), at("large"));
    fs::create_dir(at("spoiled")).unwrap();
    fs::write(at("spoiled/records.redb"), vec![7; 1 << 16]).unwrap();
    let (spoiled, under) = (at("spoiled"), at("text/deep"));
    let base = [&["serve", "--model", &tiny, "--data", &data][..], &RING].concat();
    let plain = [&base[..], &["--plain-http", "--listen", "127.0.0.1:0"]].concat();
    let with = |more: &[&'static str]| [&base[..], more].concat();
    let tls = |chain, key| {
        [&base[..], &["--listen", "127.0.0.1:0", "--tls-cert", chain, "--tls-key", key]].concat()
    };
    let limits = |file| [&plain[..], &["--limits", file]].concat();
    let in_folder = |folder| {
        let args = ["serve", "--model", &tiny, "--data", folder, "--plain-http", "--listen", "127.0.0.1:0"];
        [&args[..], &RING].concat()
    };
    all_are_refused(&[
        (with(&[]), &["no TLS", "--tls-cert", "--plain-http"]),
        (with(&["--plain-http", "--listen", "0.0.0.0:0"]), &["loopback"]),
        (with(&["--plain-http", "--listen", "localhost"]), &["--listen", "localhost"]),
        (with(&["--plain-http", "--listen", "127.0.0.1:99999"]), &["--listen"]),
        (with(&["--plain-http", "--threads", "0"]), &["--threads", "1..=1024"]),
        (with(&["--tls-cert", "x"]), &["--tls-key"]),
        (with(&["--nats", "nats://x", "--lease", "0"]), &["--lease"]),
        (
            [&base[..], &["--plain-http", "--listen", &taken]].concat(),
            &["--listen", &taken, "in use", "another port"],
        ),
        (
            [&base[..], &["--plain-http", "--listen", "127.0.0.1:0", "--client-ca", &cert]].concat(),
            &["--tls-cert"],
        ),
        (tls(&none, &key), &["--tls-cert", "No such file"]),
        (tls(&text, &key), &["--tls-cert", "holds no certificate"]),
        (tls(&cert, &none), &["--tls-key", "No such file"]),
        (tls(&cert, &text), &["--tls-key", "no private key"]),
        (tls(&cert, &other), &["--tls-key"]),
        (limits(&none), &["--limits", "No such file"]),
        (limits(&text), &["--limits", "text"]),
        (limits(&zero), &["--limits", "connections is 0: 1 to 65536"]),
        (limits(&negative), &["--limits"]),
        (limits(&unknown), &["--limits"]),
        (limits(&twice), &["--limits"]),
        (limits(&large), &["--limits", "head_seconds is 18446744073709551615"]),
        (in_folder(&under), &["--data"]),
        (in_folder(&text), &["--data", "not a folder"]),
        (in_folder(&spoiled), &["--data", "records.redb", "put back a copy"]),
    ]);
    assert!(!Path::new(&under).exists());
}

#[test]
fn a_client_that_is_not_let_in_says_why_in_one_line() {
    let dir = Scratch::new("client-errors");
    certificates(&dir);
    let at = |name: &str| dir.path(name);
    let (tiny, data, log) = (model(), at("data"), at("log"));
    let secure = |cert: &str, key: &str, data: &str| {
        let args = ["serve", "--model", &tiny, "--data", data, "--listen", "127.0.0.1:0"];
        let (cert, key) = (at(cert), at(key));
        Listening::start(
            &[&args[..], &["--tls-cert", &cert, "--tls-key", &key], &RING].concat(),
            Path::new(&log),
        )
    };
    let (server, old, strange, authority) = (
        secure("cert", "key", &data),
        secure("old", "old-key", &at("data2")),
        secure("strange", "old-key", &at("data3")),
        secure("authority", "old-key", &at("data4")),
    );
    let site = Site::new("client-errors-plain", &json!({}));
    let (token, ca, client) = (at("data/token"), at("cert"), at("client"));
    for (name, text) in [("stranger", "0".repeat(64)), ("empty", "\n".into()), ("words", "two words".into())]
    {
        fs::write(at(name), text).unwrap();
    }
    let (stranger, empty, words, none) = (at("stranger"), at("empty"), at("words"), at("none"));
    let (ca2, ca3, ca4, plain) = (at("old"), at("strange"), at("authority"), site.at("data/token"));
    let plan = |url, token, ca| {
        vec!["plan", "--client", &client, "--server", url, "--token-file", token, "--ca", ca]
    };
    let swapped = server.address.replace("https", "http");
    let unsafe_url = site.server.address.replace("http", "https");
    let closed =
        format!("https://{}", std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let mut without = plan(&server.address, &token, &ca);
    without.truncate(7);
    all_are_refused(&[
        (plan(&server.address, &stranger, &ca), &["No valid token", "--token-file"]),
        (plan(&server.address, &empty, &ca), &["token is empty", "--token-file"]),
        (plan(&server.address, &words, &ca), &["plain word", "--token-file"]),
        (plan(&server.address, &none, &ca), &["--token-file", "No such file"]),
        (without, &["UnknownIssuer", "--ca"]),
        (plan(&server.address, &token, &words), &["--ca", "holds no certificate"]),
        (plan(&old.address, &token, &ca2), &["expired", "clock"]),
        (plan(&strange.address, &token, &ca3), &["other.example", "--server"]),
        (plan(&authority.address, &token, &ca4), &["CA:FALSE"]),
        (plan(&unsafe_url, &plain, &ca), &["no TLS there", "http://"]),
        (plan(&swapped, &token, &ca), &["http://127.0.0.1", "https://"]),
        (plan(&closed, &token, &ca), &[&closed, "is the server running"]),
        (plan("http://models.example", &token, &ca), &["no address of a server", "https://"]),
        (plan("https://127.0.0.1/path", &token, &ca), &["no address of a server"]),
    ]);
    assert!(!Path::new(&client).exists());
}

#[test]
fn programs_of_other_versions_are_told_apart() {
    let site = Site::new("versions", &json!({}));
    let (keys, client) = (site.at("keys"), site.at("client"));
    site.client(&["plan", "--client", &client]);
    done(&["keygen", "--plan", &client, "--out", &keys, "--insecure-ring", "9"]);
    // Keys of another plan, as an older server had it.
    let wider = site.at("wider");
    done(&["keygen", "--model", &model(), "--out", &wider, "--insecure-ring", "9", "--length", "16"]);
    let token = site.at("data/token");
    let to = |url| ["--server", url, "--token-file", token.as_str()];
    let own = to(&site.server.address);
    let puppet = Puppet::new();
    let strange = to(&puppet.url);
    let (fetched, tiny) = (site.at("fetched"), model());
    let plan = [&["plan", "--client", &fetched][..], &strange].concat();
    all_are_refused(&[
        ([&["push", "--keys", &wider][..], &own].concat(), &["another plan", "make keys for it"]),
        ([&["ask", "--keys", &wider, "--prompt", "a"][..], &own].concat(), &["plan"]),
        // No server of ours, or one without these addresses.
        (plan.clone(), &["status 404", "of this version"]),
        ([&["push", "--keys", &keys][..], &strange].concat(), &["status 404", "of this version"]),
        (
            [&["ask", "--model", &tiny, "--keys", &keys, "--prompt", "a"][..], &strange].concat(),
            &["status 404"],
        ),
    ]);
    puppet
        .says("GET /v1/models", answer(br#"{"models": [{"name": "m", "plans": ["p"], "profile": "n16"}]}"#));
    let about = fs::read_to_string(Path::new(&client).join("client-plan.json")).unwrap();
    let newer = about.replace("cipherlm client plan 2", "cipherlm client plan 3");
    assert_ne!(about, newer);
    puppet.says("GET /v1/plans/p", answer(newer.as_bytes()));
    all_are_refused(&[(plan, &["client plan", "format"])]);
}

#[test]
fn a_proxy_or_page_whose_port_is_taken_says_so() {
    let site = Site::new("doors", &json!({}));
    let keys = site.keys("keys");
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (taken, token) = (busy.local_addr().unwrap().to_string(), site.at("data/token"));
    let to = ["--server", site.server.address.as_str(), "--token-file", &token, "--listen", &taken];
    all_are_refused(&[(
        [&["proxy", "--keys", &keys][..], &to].concat(),
        &["--listen", &taken, "in use", "another port"],
    )]);
    // The token that the proxy made is its user's alone.
    let made = fs::metadata(Path::new(&keys).join("proxy-token")).unwrap();
    assert_eq!(made.permissions().mode() & 0o777, 0o600);
}
