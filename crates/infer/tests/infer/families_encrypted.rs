//! The families of public checkpoints under encryption, in a small insecure ring with bootstraps,
//! against the reference and within what the noise machine says.

use std::sync::Arc;

use cipherlm_circuits::bootstrap::Profile;
use cipherlm_circuits::slots::Encrypted;
use cipherlm_infer::{
    Circuits, Client, EncryptedLogits, EncryptedPrompt, Error, Options, Plan, Progress, Server,
};
use cipherlm_model::{Activation, Mode, Model, Norm, Pool, Positions, Runner, Shape, random};

/// Runs a text through bytes and back; returns the decrypted answer at the last token beside that
/// of the circuit without errors and of one simulated encryption.
fn run(model: &Arc<Model>, text: &[u32]) -> (Plan, Client, EncryptedLogits, [Vec<f64>; 2]) {
    let circuits = Circuits::new(&Profile { user_levels: 13, ..Profile::insecure(10) }).unwrap();
    let options = Options { tokens: 8, ..Options::default() };
    let plan = Plan::compile(Arc::clone(model), circuits.target().unwrap(), &options).unwrap();
    let (params, rings) = (circuits.params(), circuits.small_rings(&plan).unwrap());
    let client = Client::generate(params).unwrap();
    let keys = circuits.keys(client.secret(), &plan).unwrap();
    let machine = Encrypted::new(params, client.key_id(), Arc::clone(&keys)).unwrap();
    let server = Server::new(machine.with_refresher(circuits.refresher(&keys).unwrap()).unwrap());
    let prompt = client.encrypt(&plan, text).unwrap();
    let prompt = EncryptedPrompt::from_bytes(params, &rings, &prompt.to_bytes()).unwrap();
    assert_eq!(prompt.lengths, [text.len()]);
    let answer = server.run(&plan, prompt, &mut |_: &Progress<'_>| true).unwrap();
    let answer = EncryptedLogits::from_bytes(params, &rings, &answer.to_bytes()).unwrap();
    let noise = plan.noise_machine(params, circuits.key_request(&plan), 3).unwrap();
    let forecast = plan.forecast(&noise, text).unwrap();
    let last = text.len() - 1;
    let rows = [forecast.exact_logits(&plan, last), forecast.noisy_logits(&plan, last)];
    (plan, client, answer, rows.map(Result::unwrap))
}

fn rms(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    (a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>() / a.len() as f64).sqrt()
}

/// Errors of single runs of a small model differ by some bits.
const ALLOWED: f64 = 8.0;

#[test]
fn a_sentence_of_five_tokens_under_encryption() {
    let shape = crate::common::bert(Pool::Mean);
    let model = Arc::new(random::certified("bert", &shape, 3).unwrap());
    let text = random::windows(&shape, 5, 1, 5).swap_remove(0);
    let (plan, client, answer, [exact, noisy]) = run(&model, &text);
    let mut runner = Runner::new(&model, Mode::Polynomial).unwrap();
    let hidden = runner.hidden(&text, None).unwrap();
    assert!(rms(&exact, &hidden[4 * shape.d_model..]) < 1e-6);
    let found = client.decrypt(&plan, &answer, 4).unwrap();
    let (error, expected) = (rms(&found, &exact), rms(&noisy, &exact));
    println!("hidden state: error {error:.1e}, forecast {expected:.1e}");
    assert!(error < ALLOWED * expected && expected < 2f64.powi(-7), "{error} {expected}");
    let sentence = client.sentence(&plan, &answer).unwrap();
    let wanted = runner.sentence(&text, None).unwrap();
    let cosine: f64 = sentence.iter().zip(&wanted).map(|(a, b)| a * b).sum();
    assert!(cosine > 0.9999, "{cosine}");
    // What fills the plan up is no part of the text.
    assert!(matches!(client.decrypt(&plan, &answer, 5), Err(Error::Position { .. })));
}

#[test]
fn a_lean_model_under_encryption() {
    let plain = Shape::preset("test").unwrap();
    let shape = Shape { frozen_norms: plain.norms(), activation: Activation::Quadratic, ..plain };
    let model = Arc::new(random::certified("lean", &shape, 3).unwrap());
    let text = random::windows(&shape, 6, 1, 5).swap_remove(0);
    let (plan, client, answer, [exact, noisy]) = run(&model, &text);
    let clear = Runner::new(&model, Mode::Polynomial).unwrap().forward(&text, Positions::Last).unwrap();
    assert!(rms(&exact, &clear[0]) < 1e-6);
    let found = client.decrypt(&plan, &answer, 5).unwrap();
    let (error, expected) = (rms(&found, &exact), rms(&noisy, &exact));
    println!("logits: error {error:.1e}, forecast {expected:.1e}");
    assert!(error < ALLOWED * expected && expected < 2f64.powi(-7), "{error} {expected}");
}

#[test]
fn a_wide_vocabulary_behind_public_tokens_under_encryption() {
    let shape = Shape {
        norm: Norm::RmsNorm,
        activation: Activation::Silu,
        gated: true,
        bias: false,
        kv_heads: Some(1),
        vocab: 200,
        ..Shape::preset("test").unwrap()
    };
    let model = random::certified("llama", &shape, 3).unwrap().with_prefix(vec![1, 9, 4]).unwrap();
    let model = Arc::new(model);
    let text = random::windows(&shape, 6, 1, 5).swap_remove(0);
    let (plan, client, answer, [exact, noisy]) = run(&model, &text);
    assert!(plan.answers_last() && answer.ciphertexts.len() == 1);
    let clear = Runner::new(&model, Mode::Polynomial).unwrap().forward(&text, Positions::Last).unwrap();
    assert!(rms(&exact, &clear[0]) < 1e-6);
    let found = client.decrypt(&plan, &answer, 5).unwrap();
    let (error, expected) = (rms(&found, &exact), rms(&noisy, &exact));
    println!("logits: error {error:.1e}, forecast {expected:.1e}");
    assert!(error < ALLOWED * expected && expected < 2f64.powi(-7), "{error} {expected}");
    let other = client.decrypt(&plan, &answer, 4);
    assert!(matches!(other, Err(Error::Position { .. })), "only the last token is answered");
    assert!(matches!(client.sentence(&plan, &answer), Err(Error::Unsupported { .. })));
}
