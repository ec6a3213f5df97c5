//! The client's half as the page drives it, against a server that runs the plan in a small insecure
//! ring: buffers in, buffers out.

use std::sync::Arc;

use cipherlm_circuits::bootstrap::Profile;
use cipherlm_infer::{Circuits, Client, EncryptedPrompt, Options, Plan, Progress, Server};
use cipherlm_model::{Mode, Model, Positions, Runner, Tokenizer};
use cipherlm_protocol::{ClientPlan, Digest};
use cipherlm_web::{Desk, Offer};
use serde_json::Value;

const PROMPT: &str = "One day a cat";

struct World {
    plan: Plan,
    circuits: Circuits,
    client: Client,
    client_plan: ClientPlan,
    tokenizer: Vec<u8>,
    embedding: Vec<u8>,
}

fn world() -> World {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny");
    let model = Arc::new(Model::load(&folder).unwrap());
    let tokenizer = Tokenizer::load(&folder.join("tokenizer.json")).unwrap();
    let profile = Profile { user_levels: 13, ..Profile::insecure(9) };
    let circuits = Circuits::new(&profile).unwrap();
    let options = Options { tokens: 8, ..Options::default() };
    let plan = Plan::compile(model, circuits.target().unwrap(), &options).unwrap();
    let (client_plan, [tokenizer, embedding]) =
        plan.client_plan(&circuits, profile.name, &tokenizer).unwrap();
    let client = Client::generate(circuits.params()).unwrap();
    World { plan, circuits, client, client_plan, tokenizer, embedding }
}

/// Hands inputs in and runs a command: its results, or what it says.
fn call(desk: &mut Desk, command: fn(&mut Desk) -> bool, inputs: &[&[u8]]) -> Result<Vec<Vec<u8>>, String> {
    for input in inputs {
        desk.input(input.len()).unwrap().copy_from_slice(input);
    }
    let done = command(desk);
    let results: Vec<Vec<u8>> = (0..).map_while(|part| desk.result(part).map(<[u8]>::to_vec)).collect();
    if done { Ok(results) } else { Err(String::from_utf8(results[0].clone()).unwrap()) }
}

fn open(w: &World) -> (Desk, Value, String) {
    let mut desk = Desk::default();
    let json = w.client_plan.to_json().unwrap();
    let facts = call(&mut desk, Desk::offer, &[json.as_bytes()]).unwrap();
    let secret = w.client.secret().to_secret_bytes();
    let key = call(&mut desk, Desk::open, &[&secret, &w.tokenizer, &w.embedding]).unwrap();
    let facts = serde_json::from_slice(&facts[0]).unwrap();
    (desk, facts, String::from_utf8(key[0].clone()).unwrap())
}

#[test]
fn a_page_continues_a_text_as_the_model_in_the_clear_does() {
    let w = world();
    let (mut desk, facts, key) = open(&w);
    assert_eq!(
        (&facts["insecure"], &facts["continues"], &facts["tokens"]),
        (&true.into(), &true.into(), &8.into())
    );
    assert_eq!(key, Digest::from(*w.client.key_id().as_bytes()).to_string());
    let keys = w.circuits.keys(w.client.secret(), &w.plan).unwrap();
    let server = Server::open(&w.circuits, w.client.key_id(), &keys).unwrap();
    let rings = &cipherlm_infer::KeyOrder::of(&w.circuits, &w.plan).unwrap().small;
    let tokenizer = Tokenizer::from_json(std::str::from_utf8(&w.tokenizer).unwrap()).unwrap();
    let mut tokens = tokenizer.encode(PROMPT).unwrap();
    let before = tokens.len();
    let mut jobs = vec![];
    for number in 0..2 {
        let sealed = if number == 0 {
            call(&mut desk, Desk::begin, &[PROMPT.as_bytes()]).unwrap()
        } else {
            call(&mut desk, Desk::go_on, &[]).unwrap()
        };
        assert_eq!(sealed[0], Digest::of(&sealed[1]).to_string().as_bytes());
        assert_eq!(sealed[1].len() as u64, w.client_plan.costs.prompt_bytes);
        jobs.push(sealed[0].clone());
        let prompt = EncryptedPrompt::from_bytes(w.circuits.params(), rings, &sealed[1]).unwrap();
        assert_eq!(prompt.lengths, [tokens.len()]);
        let answer = server.run(&w.plan, prompt, &mut |_: &Progress<'_>| true).unwrap().to_bytes();
        let hash = Digest::of(&answer).to_string();
        let read = call(&mut desk, Desk::read, &[&answer, hash.as_bytes()]).unwrap();
        let read: Value = serde_json::from_slice(&read[0]).unwrap();
        let clear = Runner::new(w.plan.model(), Mode::Polynomial).unwrap().forward(&tokens, Positions::Last);
        let clear = clear.unwrap().pop().unwrap();
        let clear = &clear[..tokenizer.vocab()];
        let best = (0..clear.len()).max_by(|a, b| clear[*a].total_cmp(&clear[*b])).unwrap();
        assert_eq!((&read["token"], &read["end"]), (&best.into(), &false.into()), "{read}");
        let top = read["top"].as_array().unwrap();
        assert!(top.len() == 5 && top[0]["token"] == best, "{read}");
        let step = w.client_plan.answers.unit / 128.0;
        for choice in top {
            let (token, logit) = (choice["token"].as_u64().unwrap(), choice["logit"].as_f64().unwrap());
            assert!(
                (logit - clear[token as usize]).abs() < step,
                "{choice} beside {}",
                clear[token as usize]
            );
        }
        tokens.push(best as u32);
        let text = tokenizer.decode_continuation(&tokens[..before], &tokens[before..]).unwrap();
        assert_eq!((&read["text"], &read["room"]), (&text.into(), &(9 - tokens.len()).into()));
    }
    assert_ne!(jobs[0], jobs[1]);
    let again = call(&mut desk, Desk::begin, &[PROMPT.as_bytes()]).unwrap();
    assert_ne!(again[0], jobs[0], "the same text is never the same ciphertext");
}

#[test]
fn what_does_not_belong_together_is_refused_with_its_reason() {
    let w = world();
    let json = w.client_plan.to_json().unwrap();
    let secret = w.client.secret().to_secret_bytes();
    let refused = |inputs: [&[u8]; 3], words: &str| {
        let mut desk = Desk::default();
        call(&mut desk, Desk::offer, &[json.as_bytes()]).unwrap();
        let said = call(&mut desk, Desk::open, &inputs).unwrap_err();
        assert!(said.contains(words), "{said}");
        assert!(call(&mut desk, Desk::begin, &[b"a"]).unwrap_err().contains("a secret"));
    };
    let stranger = Client::generate(&Profile::insecure(8).params().unwrap()).unwrap();
    let other = stranger.secret().to_secret_bytes();
    let mut damaged = secret.to_vec();
    damaged[80] ^= 1;
    refused([&other, &w.tokenizer, &w.embedding], "secret.key");
    refused([&damaged, &w.tokenizer, &w.embedding], "secret.key");
    refused([&[], &w.tokenizer, &w.embedding], "secret.key");
    refused([&secret, &w.embedding, &w.embedding], "the tokenizer has hash");
    refused([&secret, &w.tokenizer, &w.tokenizer], "embedding of the client plan");
    for (place, bad) in [("/profile", "n17"), ("/profile", "n16"), ("/format", "other")] {
        let mut plan: Value = serde_json::from_str(&json).unwrap();
        *plan.pointer_mut(place).unwrap() = bad.into();
        assert!(Offer::read(plan.to_string().as_bytes()).is_err(), "{place} {bad}");
    }
}

#[test]
fn calls_out_of_turn_and_bad_texts_are_refused_and_the_session_goes_on() {
    let w = world();
    let mut desk = Desk::default();
    assert!(call(&mut desk, Desk::open, &[b"", b"", b""]).unwrap_err().contains("a client plan"));
    assert!(call(&mut desk, Desk::open, &[b""]).unwrap_err().contains("every input"));
    let (mut desk, ..) = open(&w);
    assert!(call(&mut desk, Desk::go_on, &[]).unwrap_err().contains("an answer"));
    assert!(call(&mut desk, Desk::begin, &[b""]).unwrap_err().contains("empty"));
    assert!(call(&mut desk, Desk::begin, &[&[0xff]]).unwrap_err().contains("UTF-8"));
    let long = "a cat and ".repeat(60);
    assert!(call(&mut desk, Desk::begin, &[long.as_bytes()]).unwrap_err().contains("shorten it"));
    let hash = Digest::of(b"").to_string();
    assert!(call(&mut desk, Desk::read, &[b"", hash.as_bytes()]).unwrap_err().contains("a prompt"));
    let sealed = call(&mut desk, Desk::begin, &[PROMPT.as_bytes()]).unwrap();
    assert!(call(&mut desk, Desk::read, &[b"", b"no hash"]).unwrap_err().contains("hash"));
    assert!(call(&mut desk, Desk::read, &[b"x", hash.as_bytes()]).unwrap_err().contains("was named"));
    // A prompt is no answer.
    let hash = Digest::of(&sealed[1]).to_string();
    assert!(call(&mut desk, Desk::read, &[&sealed[1], hash.as_bytes()]).unwrap_err().contains("other bytes"));
    assert!(call(&mut desk, Desk::begin, &[PROMPT.as_bytes()]).is_ok());
    desk.close();
    assert!(call(&mut desk, Desk::begin, &[b"a"]).unwrap_err().contains("a secret"));
    assert!(desk.input(usize::MAX).is_none(), "no memory is no panic");
}
