//! The families of public checkpoints under encryption, in a small insecure ring with bootstraps,
//! against the reference and within what the noise machine says.

use std::sync::Arc;

use crate::common::world::World;
use crate::common::{bert, certified, llama, of, polynomial, small};
use cipherlm_infer::{EncryptedLogits, Error};
use cipherlm_model::{Activation, Model, Pool, Positions, Rotary, Shape, random};

/// Runs a text through bytes and back; returns the answer at the last token beside that of the
/// circuit without errors and of one simulated encryption.
fn run(model: &Arc<Model>, text: &[u32]) -> (World, EncryptedLogits, [Vec<f64>; 2]) {
    run_in(model, text, (10, 8))
}

/// The same in a ring, and by a plan for so many tokens.
fn run_in(
    model: &Arc<Model>,
    text: &[u32],
    (log_degree, tokens): (u32, usize),
) -> (World, EncryptedLogits, [Vec<f64>; 2]) {
    let w = World::new(model, log_degree, &of(tokens));
    let prompt = w.client.encrypt(&w.plan, text).unwrap();
    assert_eq!(prompt.lengths, [text.len()]);
    let answer = w.run(&prompt).unwrap();
    let noise = w.plan.noise_machine(w.circuits.params(), w.circuits.key_request(&w.plan), 3).unwrap();
    let forecast = w.plan.forecast(&noise, text).unwrap();
    let last = text.len() - 1;
    let rows = [forecast.exact_logits(&w.plan, last), forecast.noisy_logits(&w.plan, last)];
    (w, answer, rows.map(Result::unwrap))
}

fn rms(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    (a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>() / a.len() as f64).sqrt()
}

/// Errors of single runs of a small model differ by some bits.
const ALLOWED: f64 = 8.0;

#[test]
fn a_sentence_of_five_tokens_under_encryption() {
    let shape = bert(Pool::Mean);
    let model = certified(&shape, 3);
    let text = random::windows(&shape, 5, 1, 5).swap_remove(0);
    let (w, answer, [exact, noisy]) = run(&model, &text);
    let mut runner = polynomial(&model);
    let hidden = runner.hidden(&text, None).unwrap();
    assert!(rms(&exact, &hidden[4 * shape.d_model..]) < 1e-6);
    let found = w.client.decrypt(&w.plan, &answer, 4).unwrap();
    let (error, expected) = (rms(&found, &exact), rms(&noisy, &exact));
    println!("hidden state: error {error:.1e}, forecast {expected:.1e}");
    assert!(error < ALLOWED * expected && expected < 2f64.powi(-7), "{error} {expected}");
    let sentence = w.client.sentence(&w.plan, &answer).unwrap();
    let wanted = runner.sentence(&text, None).unwrap();
    let cosine: f64 = sentence.iter().zip(&wanted).map(|(a, b)| a * b).sum();
    assert!(cosine > 0.9999, "{cosine}");
    // What fills the plan up is no part of the text.
    assert!(matches!(w.client.decrypt(&w.plan, &answer, 5), Err(Error::Position { .. })));
}

#[test]
fn a_lean_model_under_encryption() {
    let plain = small();
    let shape = Shape { frozen_norms: plain.norms(), activation: Activation::Quadratic, ..plain };
    let model = certified(&shape, 3);
    let text = random::windows(&shape, 6, 1, 5).swap_remove(0);
    let (w, answer, [exact, noisy]) = run(&model, &text);
    let clear = polynomial(&model).forward(&text, Positions::Last).unwrap();
    assert!(rms(&exact, &clear[0]) < 1e-6);
    let found = w.client.decrypt(&w.plan, &answer, 5).unwrap();
    let (error, expected) = (rms(&found, &exact), rms(&noisy, &exact));
    println!("logits: error {error:.1e}, forecast {expected:.1e}");
    assert!(error < ALLOWED * expected && expected < 2f64.powi(-7), "{error} {expected}");
}

#[test]
fn a_wide_vocabulary_behind_public_tokens_under_encryption() {
    let shape = llama();
    let model = Arc::new(Model::clone(&certified(&shape, 3)).with_prefix(vec![1, 9, 4]).unwrap());
    let text = random::windows(&shape, 6, 1, 5).swap_remove(0);
    let (w, answer, [exact, noisy]) = run(&model, &text);
    assert!(w.plan.answers_last() && answer.ciphertexts.len() == 1);
    let clear = polynomial(&model).forward(&text, Positions::Last).unwrap();
    assert!(rms(&exact, &clear[0]) < 1e-6);
    let found = w.client.decrypt(&w.plan, &answer, 5).unwrap();
    let (error, expected) = (rms(&found, &exact), rms(&noisy, &exact));
    println!("logits: error {error:.1e}, forecast {expected:.1e}");
    assert!(error < ALLOWED * expected && expected < 2f64.powi(-7), "{error} {expected}");
    let other = w.client.decrypt(&w.plan, &answer, 4);
    assert!(matches!(other, Err(Error::Position { .. })), "only the last token is answered");
    assert!(matches!(w.client.sentence(&w.plan, &answer), Err(Error::Unsupported { .. })));
}

/// SmolLM2's form: rows narrower than a token, shared key heads whose halves are one, fewer tokens
/// than a head has features, public tokens before the text.
#[test]
fn a_narrow_gated_model_with_packed_scores_under_encryption() {
    let rotary = Some(Rotary { dims: 32, base: 100.0 });
    let shape = Shape { d_model: 96, heads: 3, head_dim: 32, ffn: 200, rotary, context: 20, ..llama() };
    let model = Arc::new(Model::clone(&certified(&shape, 3)).with_prefix(vec![1, 9, 4]).unwrap());
    let text = random::windows(&shape, 13, 1, 5).swap_remove(0);
    let (w, answer, [exact, noisy]) = run_in(&model, &text, (12, 16));
    let explained = w.plan.explain();
    assert!(explained.contains("packed scores") && explained.contains("ffn.up.extend"), "{explained}");
    let clear = polynomial(&model).forward(&text, Positions::Last).unwrap();
    assert!(rms(&exact, &clear[0]) < 1e-6);
    let found = w.client.decrypt(&w.plan, &answer, 12).unwrap();
    let (error, expected) = (rms(&found, &exact), rms(&noisy, &exact));
    println!("logits: error {error:.1e}, forecast {expected:.1e}");
    assert!(error < ALLOWED * expected && expected < 2f64.powi(-7), "{error} {expected}");
}
