//! Several prompts in one pass: each is answered as if it were alone, on the clear machine and
//! under encryption, with the same keys farther apart.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::common::world::World;
use crate::common::{answers, certified, far, of, one_layer, plan, polynomial, small};
use cipherlm_circuits::slots::KeyUse;
use cipherlm_infer::{
    Asked, Audit, EncryptedLogits, EncryptedPrompt, Error, Options, Plan, Progress, Purpose, Target,
};
use cipherlm_model::{Kind, Model, Placement, Pool, Rotary, Shape, random};

fn encoder(kind: Kind) -> Shape {
    Shape {
        kind,
        placement: Placement::Post,
        rotary: None,
        positions: true,
        embed_norm: true,
        tied_head: false,
        ..small()
    }
}

fn options(tokens: usize, prompts: usize) -> Options {
    Options { prompts, ..of(tokens) }
}

/// For four prompts at most.
fn world(shape: &Shape) -> World {
    World::new(&certified(shape, 3), 11, &options(8, 4))
}

/// Prompts that differ, of `tokens` tokens and less.
fn texts(shape: &Shape, tokens: usize, count: usize) -> Vec<Vec<u32>> {
    let window = |(number, text): (usize, Vec<u32>)| text[..tokens - number * 3 % tokens].to_vec();
    random::windows(shape, tokens, count, 5).into_iter().enumerate().map(window).collect()
}

fn slices(texts: &[Vec<u32>]) -> Vec<&[u32]> {
    texts.iter().map(Vec::as_slice).collect()
}

/// Largest difference of any answer to any of the prompts.
fn worst(plan: &Plan, texts: &[Vec<u32>]) -> f64 {
    let machine = plan.clear_machine();
    let enter = |v| machine.input(v, plan.input_level()).unwrap();
    let input = plan.pack_each(&slices(texts)).unwrap().into_iter().map(enter).collect();
    let last = texts.last().unwrap();
    let lengths: Vec<usize> =
        (0..plan.prompts()).map(|place| texts.get(place).unwrap_or(last).len()).collect();
    let outputs = plan.run_texts(&machine, input, &lengths, &mut |_: &Progress<'_>| true).unwrap();
    let outputs: Vec<Vec<f64>> = outputs.iter().map(|v| v.real()).collect();
    let of_prompt = |(prompt, tokens): (usize, &Vec<u32>)| {
        let of_position = |(position, row): (usize, &Vec<f64>)| {
            let answered = !plan.answers_last() || position + 1 == tokens.len();
            if answered { far(row, &plan.logits_of(&outputs, prompt, position).unwrap()) } else { 0.0 }
        };
        answers(plan.model(), tokens).iter().enumerate().map(of_position).fold(0.0, f64::max)
    };
    texts.iter().enumerate().map(of_prompt).fold(0.0, f64::max)
}

#[test]
fn every_prompt_is_answered_as_if_it_were_answers() {
    let heads = |heads, head_dim, rotary| Shape { heads, head_dim, rotary, context: 32, ..small() };
    let pooled = |pool| encoder(Kind::Embedder { pool });
    // Shape, slots, tokens, prompts, copies that are left.
    let cases = [
        (small(), 1024, 8, 2, 4),
        (small(), 1024, 8, 8, 1),
        (small(), 1024, 1, 16, 4),
        (Shape { vocab: 200, ..small() }, 512, 8, 4, 1),
        (heads(4, 4, Some(Rotary { dims: 4, base: 100.0 })), 1024, 16, 4, 1),
        // Rows that begin again behind their end, heads whose halves are one.
        (
            Shape { d_model: 80, ffn: 200, ..heads(5, 16, Some(Rotary { dims: 16, base: 100.0 })) },
            4096,
            16,
            2,
            1,
        ),
        (encoder(Kind::Encoder { classes: 3 }), 1024, 8, 4, 2),
        (pooled(Pool::Mean), 1024, 8, 4, 2),
        (pooled(Pool::Mean), 1024, 16, 4, 1),
        (pooled(Pool::First), 512, 8, 2, 2),
    ];
    let mut packed = 0;
    for (index, (shape, slots, tokens, prompts, copies)) in cases.into_iter().enumerate() {
        let model = certified(&shape, 3);
        let plan = plan(&model, slots, &options(tokens, prompts));
        assert_eq!((plan.prompts(), plan.geometry().copies), (prompts, copies), "case {index}");
        packed += usize::from(plan.explain().contains("packed scores"));
        let error = worst(&plan, &texts(&shape, tokens, prompts));
        assert!(error < 1e-6, "case {index}: {error}");
        // Prompts of one length, and a place that is left.
        let error = worst(&plan, &random::windows(&shape, tokens, prompts - 1, 6));
        assert!(error < 1e-6, "case {index}, one place left: {error}");
    }
    assert_eq!(packed, 3, "cases with packed scores");
}

#[test]
fn prompts_behind_public_tokens_are_answered_too() {
    let rotary = Some(Rotary { dims: 4, base: 100.0 });
    let packed = Shape { heads: 4, head_dim: 4, rotary, context: 32, ..small() };
    for (shape, tokens) in [(small(), 8), (packed, 16)] {
        let model = Arc::new(Model::clone(&certified(&shape, 3)).with_prefix(vec![1, 9, 4]).unwrap());
        let plan = plan(&model, 1024, &options(tokens, 4));
        let error = worst(&plan, &texts(&shape, tokens, 4));
        assert!(error < 1e-6, "{tokens} tokens: {error}");
    }
}

#[test]
fn keys_are_those_of_one_prompt_farther_apart() {
    let model = certified(&small(), 3);
    let names = |plan: &Plan| plan.keys().keys().copied().collect::<BTreeSet<KeyUse>>();
    for prompts in [2, 4] {
        let one = plan(&model, 256, &options(8, 1));
        let several = plan(&model, 256 * prompts, &options(8, prompts));
        let farther = |key: KeyUse| key.rotation().map_or(key, |steps| KeyUse::Rotate(prompts * steps));
        assert_eq!(names(&several), names(&one).into_iter().map(farther).collect::<BTreeSet<_>>());
        assert!(names(&one).iter().any(|key| key.rotation() == Some(1)), "the keys are not one another's");
    }
}

#[test]
fn what_a_pass_has_no_place_for_is_refused() {
    let model = certified(&small(), 3);
    let target = || Target::uniform(1024, 14, 40, 60).unwrap();
    let refused = |options: Options| Plan::compile(Arc::clone(&model), target(), &options).err().unwrap();
    let found = refused(options(8, 9));
    assert!(matches!(found, Error::DoesNotFit { need: 16, have: 8, .. }), "{found}");
    assert!(matches!(refused(options(8, usize::MAX)), Error::DoesNotFit { have: 8, .. }));
    for purpose in [Purpose::PromptForSession, Purpose::Token] {
        let found = refused(Options { purpose, ..options(8, 2) });
        assert!(matches!(found, Error::Unsupported { .. }), "{found}");
    }
    // Three prompts take the places of four.
    let plan = plan(&model, 1024, &options(8, 3));
    assert_eq!(plan.prompts(), 4);
    for given in [0, 5] {
        let found = plan.pack_each(&slices(&texts(&small(), 8, given))).err().unwrap();
        assert!(matches!(found, Error::Prompts { given: g, capacity: 4 } if g == given), "{found}");
    }
    let found = plan.pack_each(&[&[1], &[2; 9]]).err().unwrap();
    assert!(matches!(found, Error::OfPrompt { prompt: 2, .. }), "{found}");
    assert!(found.to_string().starts_with("prompt 2: the prompt has 9 tokens"), "{found}");
    assert!(plan.logits_of(&[], 4, 0).is_err() && plan.logits_of(&[], usize::MAX, 0).is_err());
    for lengths in [vec![8; 3], vec![8; 5], vec![8, 8, 0, 8], vec![8, 8, 8, 9], vec![]] {
        assert!(plan.check_texts(&lengths).is_err(), "{lengths:?}");
    }
}

#[test]
fn prompts_of_one_pass_are_answered_under_encryption() {
    let w = world(&one_layer());
    let (side, costs) = (w.side(), w.client_plan().0.costs);
    let texts = texts(w.model().shape(), 8, 3);
    assert_eq!(texts.iter().map(Vec::len).collect::<Vec<_>>(), [8, 5, 2]);
    let prompt = side.encrypt_each(&w.client, &slices(&texts)).unwrap();
    // The last one fills the place that is left.
    assert_eq!((prompt.lengths.as_slice(), prompt.asked), (&[8, 5, 2, 2][..], Asked::Each));
    assert_eq!(prompt.to_bytes().len() as u64, costs.prompt_bytes);
    let answer = w.run(&prompt).unwrap();
    assert_eq!((answer.lengths.as_slice(), answer.asked), (&[8, 5, 2, 2][..], Asked::Each));
    assert_eq!(answer.ciphertexts.len(), 1, "small answers");
    assert_eq!(answer.to_bytes().len() as u64, costs.answer_bytes);
    let positions = side.positions(&answer);
    assert_eq!(positions, [7, 4, 1, 1]);
    let found = w.client.decrypt_each(&w.plan, &answer, &positions).unwrap();
    assert_eq!(side.decrypt_each(&w.client, &answer, &positions).unwrap(), found);
    for ((found, text), &position) in found.iter().zip(&texts).zip(&positions) {
        let error = far(&answers(w.model(), text)[position], found);
        println!("{} tokens: worst logit error 2^{:.1}", text.len(), error.log2());
        assert!(error < 2f64.powi(-7), "{} tokens: {error}", text.len());
    }
    assert!(far(&found[2], &found[3]) < 2f64.powi(-7), "one prompt in two places");
    assert!(far(&found[0], &found[1]) > 0.01, "two prompts are told apart");
    // Every position of every prompt, in a whole answer.
    let whole = w.run(&EncryptedPrompt { asked: Asked::All, ..prompt.clone() }).unwrap();
    assert_eq!(side.positions(&whole), positions);
    for (prompt, text) in texts.iter().enumerate() {
        for (position, row) in answers(w.model(), text).iter().enumerate() {
            let mut at = positions.clone();
            at[prompt] = position;
            let found = w.client.decrypt_each(&w.plan, &whole, &at).unwrap();
            assert!(far(row, &found[prompt]) < 2f64.powi(-7), "prompt {prompt}, position {position}");
        }
    }
    // One position of all of them, which each has to have.
    let same = w.run(&EncryptedPrompt { asked: Asked::Position(1), ..prompt.clone() }).unwrap();
    let found = w.client.decrypt_each(&w.plan, &same, &[1; 4]).unwrap();
    assert!(far(&answers(w.model(), &texts[0])[1], &found[0]) < 2f64.powi(-7));
    let refused = w.run(&EncryptedPrompt { asked: Asked::Position(2), ..prompt.clone() }).map(drop);
    assert!(matches!(refused, Err(Error::Position { position: 2, length: 2, .. })), "{refused:?}");
    // Answers and messages that are not of four prompts.
    for wrong in [vec![0; 4], vec![7, 4, 1, 0], vec![7; 4], vec![7, 4, 1, 1, 1], vec![]] {
        assert!(w.client.decrypt_each(&w.plan, &answer, &wrong).is_err(), "{wrong:?}");
    }
    for lengths in [vec![8], vec![8, 5, 2], vec![8, 5, 2, 9], vec![8, 5, 2, 0]] {
        let refused = w.run(&EncryptedPrompt { lengths: lengths.clone(), ..prompt.clone() }).map(drop);
        assert!(refused.is_err(), "{lengths:?}");
        let other = EncryptedLogits { lengths: lengths[..1].to_vec(), ..answer.clone() };
        assert!(w.client.decrypt(&w.plan, &other, 7).is_err());
    }
}

#[test]
fn the_error_of_a_pass_is_within_its_forecast() {
    let w = world(&one_layer());
    let texts = texts(w.model().shape(), 8, 4);
    let keys = w.circuits.key_request(&w.plan);
    let forecast = w.plan.forecast_steps(&w.client, &keys, &slices(&texts)).unwrap();
    let mut go = |_: &Progress<'_>| true;
    let mut audit = Audit::new(&w.client, &forecast, &mut go);
    let prompt = w.client.encrypt_each(&w.plan, &slices(&texts)).unwrap();
    w.server().run(&w.plan, prompt, &mut audit).unwrap();
    let rows = audit.finish();
    assert_eq!(rows.len(), w.plan.steps() - 1);
    for row in rows {
        // As of one prompt: refreshes in rings this small have an error floor of their own.
        let (rms, worst) = row.margin();
        assert!(rms > -1.0 && worst > 0.0, "{}: {rms:.2} {worst:.2}", row.name);
    }
}

#[test]
fn sentences_of_one_pass_have_vectors_of_their_own() {
    let w = world(&Shape { layers: 1, ..encoder(Kind::Embedder { pool: Pool::Mean }) });
    // Random weights take some texts out of their ranges.
    let inside = |text: &Vec<u32>| w.plan.ensure_in_range(text).is_ok();
    let texts: Vec<_> = texts(w.model().shape(), 8, 16).into_iter().filter(inside).take(4).collect();
    assert!(texts.iter().any(|text| text.len() != texts[0].len()), "one length");
    let prompt = w.client.encrypt_each(&w.plan, &slices(&texts)).unwrap();
    assert_eq!(prompt.asked, Asked::All);
    let found = w.client.sentences(&w.plan, &w.run(&prompt).unwrap()).unwrap();
    for (text, found) in texts.iter().zip(&found) {
        let wanted = polynomial(w.model()).sentence(text, None).unwrap();
        assert!(far(&wanted, found) < 2f64.powi(-7), "{} tokens: {}", text.len(), far(&wanted, found));
    }
    assert_eq!(found.len(), 4);
}

#[test]
fn messages_of_several_prompts_are_read_back_and_nothing_else_is() {
    let w = world(&one_layer());
    let texts = texts(w.model().shape(), 8, 4);
    let prompt = w.client.encrypt_each(&w.plan, &slices(&texts)).unwrap();
    let (params, rings) = (w.circuits.params(), w.rings());
    let bytes = prompt.to_bytes();
    let read = |bytes: &[u8]| EncryptedPrompt::from_bytes(params, &rings, bytes);
    for asked in [Asked::All, Asked::Each, Asked::Position(1)] {
        let found = read(&EncryptedPrompt { asked, ..prompt.clone() }.to_bytes()).unwrap();
        assert_eq!((found.lengths, found.asked), (prompt.lengths.clone(), asked));
    }
    for length in (0..bytes.len().min(200)).chain([bytes.len() - 1]) {
        assert!(read(&bytes[..length]).is_err(), "{length} bytes");
    }
    // Magic, plan, secret; then how many prompts there are.
    let count = 8 + 32 + 32;
    assert_eq!(bytes[count..count + 4], 4u32.to_le_bytes());
    for other in [0, 1, 3, 5, 1 << 20, u32::MAX] {
        let mut bytes = bytes.clone();
        bytes[count..count + 4].copy_from_slice(&other.to_le_bytes());
        assert!(read(&bytes).is_err(), "{other} prompts");
    }
    // Whatever stands in the head, a message that is read is written as it was.
    for at in (0..8).chain(count..count + 4 * 8) {
        for change in [1, 0x80, 0xff] {
            let mut bytes = bytes.clone();
            bytes[at] ^= change;
            if let Ok(found) = read(&bytes) {
                assert_eq!(found.to_bytes(), bytes, "byte {at}");
            }
        }
    }
    // A single prompt of before there were several is still one.
    let one = EncryptedPrompt { lengths: vec![8], ..prompt };
    assert_eq!(one.to_bytes()[..8], *b"cipherp2");
    assert_eq!(read(&one.to_bytes()).unwrap().lengths, [8]);
}
