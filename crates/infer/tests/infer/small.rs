//! Small answers: one position in a ring of its own, with the same results, the same refusals, and
//! nothing else in it.

use crate::common::world::World;
use crate::common::{certified, far, of, one_layer, polynomial};
use cipherlm_ckks::{Ciphertext, Complex64, Evaluator, NoKeys, Plaintext, Scale};
use cipherlm_infer::{Asked, Client, ClientSide, EncryptedLogits, EncryptedPrompt, Error, Options, Progress};
use cipherlm_model::{Kind, Positions, Shape, random};

fn world(shape: &Shape) -> World {
    World::new(&certified(shape, 4), 11, &of(8))
}

fn tokens(w: &World) -> Vec<u32> {
    random::windows(w.model().shape(), 8, 1, 5).swap_remove(0)
}

fn run(w: &World, tokens: &[u32], asked: Asked) -> cipherlm_infer::Result<EncryptedLogits> {
    w.run(&EncryptedPrompt { asked, ..w.client.encrypt(&w.plan, tokens).unwrap() })
}

#[test]
fn a_small_answer_has_the_logits_of_the_whole_one_in_a_fraction_of_the_bytes() {
    let w = world(&one_layer());
    let (client_plan, embedding) = w.client_plan();
    let side = ClientSide::new(client_plan.clone(), &w.profile, &embedding).unwrap();
    let answers = client_plan.answers;
    assert!(answers.degree >= 128 && answers.vectors > 1, "{answers:?}");
    let tokens = &tokens(&w)[..6];
    let whole = run(&w, tokens, Asked::All).unwrap();
    assert!(whole.to_bytes().len() as u64 <= client_plan.costs.whole_answer_bytes);
    let unit = w.model().site("logits").unwrap().range.magnitude();
    for position in [5, 0, 3] {
        let small = run(&w, tokens, Asked::Position(position)).unwrap();
        assert_eq!(small.asked, Asked::Position(position));
        assert_eq!(small.to_bytes().len() as u64, client_plan.costs.answer_bytes);
        assert!(8 * client_plan.costs.answer_bytes < client_plan.costs.whole_answer_bytes);
        let found = w.client.decrypt(&w.plan, &small, position).unwrap();
        assert_eq!(side.decrypt(&w.client, &small, position).unwrap(), found);
        // The error of making it small alone, in units of the certified range.
        let reference = w.client.decrypt(&w.plan, &whole, position).unwrap();
        let bits = -(far(&found, &reference) / unit).log2();
        println!("position {position}: {bits:.1} bits of the whole answer are kept");
        assert!(bits > 19.0, "position {position}: {bits}");
        let clear = polynomial(w.model()).forward(tokens, Positions::All).unwrap();
        assert!(far(&found, &clear[position]) < 2f64.powi(-7));
        let shown = side.decrypt_public(&w.client, &small, position, 8.0, 2f64.powi(-12)).unwrap();
        assert!(far(&shown, &found) <= unit / 256.0);
        let refused = w.client.decrypt(&w.plan, &small, 1);
        assert!(matches!(refused, Err(Error::Position { position: 1, .. })), "{refused:?}");
    }
    let refused = run(&w, tokens, Asked::Position(6)).map(drop);
    assert!(matches!(refused, Err(Error::Position { position: 6, .. })), "{refused:?}");
    // Who has another secret reads nothing.
    let stranger = Client::generate(w.circuits.params()).unwrap();
    let small = run(&w, tokens, Asked::Position(5)).unwrap();
    assert!(stranger.decrypt(&w.plan, &small, 5).is_err());
}

#[test]
fn what_a_forecast_says_holds_for_small_answers() {
    let w = world(&one_layer());
    let tokens = tokens(&w);
    let keys = w.circuits.key_request(&w.plan);
    let forecast = w.plan.forecast_steps(&w.client, &keys, &[&tokens]).unwrap();
    let small = run(&w, &tokens, w.plan.asked(8)).unwrap();
    let found = w.client.decrypt(&w.plan, &small, 7).unwrap();
    let exact = forecast.exact_logits(&w.plan, 7).unwrap();
    let mse = exact.iter().zip(&found).map(|(a, b)| (a - b) * (a - b)).sum::<f64>() / exact.len() as f64;
    let ratio = (mse / forecast.logits_mse(&w.plan, 7).unwrap()).log2();
    assert!(ratio < 4.0, "found over predicted mean square error 2^{ratio:.1}");
    let clear = polynomial(w.model()).forward(&tokens, Positions::Last).unwrap();
    assert!(far(&exact, &clear[0]) < 1e-6, "the circuit itself is exact");
}

#[test]
fn a_small_answer_that_is_none_is_seen() {
    let w = world(&one_layer());
    let (client_plan, _) = w.client_plan();
    let answers = client_plan.answers;
    let ring = w.circuits.answer_ring(&w.plan).unwrap().unwrap();
    let secret = w.client.secret().in_subring(&ring).unwrap();
    let position = 7;
    let start = position * answers.features;
    let used = answers.vectors * answers.features;
    let answer = |change: &dyn Fn(&mut [Complex64]), count: usize| {
        let mut slots = vec![Complex64::ZERO; ring.slots()];
        for column in 0..answers.results {
            slots[(start + column) % ring.slots()] = Complex64::new(0.5, 0.0);
        }
        change(&mut slots);
        let scale = Scale::from_log2(33);
        let plain = Plaintext::encode(&ring, &slots, slots.len(), scale).unwrap();
        let ciphertext = secret.encrypt(&plain, 0).unwrap();
        // As after a run: without a seed.
        let evaluator = Evaluator::new(&ring, NoKeys);
        let ciphertext: Ciphertext = evaluator.neg(&evaluator.neg(&ciphertext).unwrap()).unwrap();
        EncryptedLogits {
            plan: w.plan.id(),
            lengths: vec![8],
            asked: Asked::Position(position),
            ciphertexts: vec![ciphertext; count],
        }
    };
    let read = |change: &dyn Fn(&mut [Complex64])| w.client.decrypt(&w.plan, &answer(change, 1), position);
    let unit = w.model().site("logits").unwrap().range.magnitude();
    assert!(read(&|_| ()).unwrap().iter().all(|x| (x / unit - 0.5).abs() < 1e-5));
    let what = |change: &dyn Fn(&mut [Complex64])| match read(change) {
        Err(Error::NotAnAnswer { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    let n = ring.slots();
    assert_eq!(what(&|slots| slots[(start + used) % n].re = 0.1), "a slot that holds nothing");
    assert_eq!(what(&|slots| slots[(start + n - 1) % n].im = 0.1), "a slot that holds nothing");
    assert_eq!(what(&|slots| slots[start % n].im = -0.2), "an imaginary part");
    assert_eq!(what(&|slots| slots[(start + 1) % n].re = 1.2), "a logit, in units of its certified range,");
    let garbage = what(&|slots| {
        slots
            .iter_mut()
            .enumerate()
            .for_each(|(i, slot)| *slot = Complex64::new((i as f64).sin(), (i as f64).cos()))
    });
    assert_eq!(garbage, "a slot that holds nothing");
    for count in [0, 2] {
        let found = w.client.decrypt(&w.plan, &answer(&|_| (), count), position);
        assert!(matches!(found, Err(Error::Malformed { .. })), "{found:?}");
        let bytes = answer(&|_| (), count).to_bytes();
        assert!(EncryptedLogits::from_bytes(w.circuits.params(), &w.rings(), &bytes).is_err());
    }
    // A ring of another size or number of positions: none is made because a message names it.
    let good = answer(&|_| (), 1).to_bytes();
    let mut other = good.clone();
    other[48..52].copy_from_slice(&64u32.to_le_bytes());
    let refused = EncryptedLogits::from_bytes(w.circuits.params(), &w.rings(), &other).map(drop);
    assert!(matches!(refused, Err(Error::Mismatch { .. })), "{refused:?}");
    for (at, value) in [(44, u32::MAX), (48, 0), (48, 3), (48, 1 << 30), (48, 64)] {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        assert!(
            EncryptedLogits::from_bytes(w.circuits.params(), &w.rings(), &bytes).is_err(),
            "{at}: {value}"
        );
    }
}

#[test]
fn classes_and_wide_vocabularies_have_small_answers_too() {
    let classes = Shape { kind: Kind::Encoder { classes: 3 }, rotary: None, ..one_layer() };
    let words = Shape { vocab: 150, ..one_layer() };
    for (shape, asked) in [(classes, 0), (words, 5)] {
        let w = world(&shape);
        let tokens = &tokens(&w)[..6];
        assert_eq!(w.plan.asked(6), Asked::Position(asked));
        let small = run(&w, tokens, w.plan.asked(6)).unwrap();
        assert_eq!(small.ciphertexts.len(), 1);
        assert!(small.ciphertexts[0].params().degree() < 1 << 11);
        let found = w.client.decrypt(&w.plan, &small, asked).unwrap();
        let whole = run(&w, tokens, Asked::All).unwrap();
        let reference = w.client.decrypt(&w.plan, &whole, asked).unwrap();
        assert_eq!(found.len(), reference.len());
        let unit = reference.iter().fold(1.0, |m: f64, x| m.max(x.abs()));
        assert!(far(&found, &reference) / unit < 2f64.powi(-16), "{}", far(&found, &reference));
    }
}

/// Prompts lie in the smallest ring that holds them; refreshed on entry, they come in at the floor.
#[test]
fn a_small_prompt_has_the_answer_of_a_whole_one() {
    let model = certified(&one_layer(), 4);
    let mut bytes = vec![];
    for refresh_input in [false, true] {
        let w = World::new(&model, 11, &Options { refresh_input, ..of(8) });
        let (client_plan, embedding) = w.client_plan();
        let side = ClientSide::new(client_plan.clone(), &w.profile, &embedding).unwrap();
        let layout = &client_plan.layout;
        let period = layout.tokens * layout.features;
        assert!(layout.degree >= 2 * period && layout.degree < 1 << 11, "{layout:?}");
        assert_eq!(layout.level == layout.floor, refresh_input);
        let tokens = &tokens(&w)[..6];
        let prompt = side.encrypt(&w.client, tokens).unwrap();
        assert_eq!(prompt.to_bytes().len() as u64, client_plan.costs.prompt_bytes);
        bytes.push(client_plan.costs.prompt_bytes);
        assert_eq!(prompt.key_id, w.client.key_id());
        assert!(prompt.ciphertexts.iter().all(|c| c.key_id() != w.client.key_id()));
        let answer = run(&w, tokens, Asked::Position(5)).unwrap();
        let found = side.decrypt(&w.client, &answer, 5).unwrap();
        let clear = polynomial(w.model()).forward(tokens, Positions::Last).unwrap();
        assert!(far(&found, &clear[0]) < 2f64.powi(-7), "{}", far(&found, &clear[0]));
        // Under another root's secret, or in the ring of the circuit, it is refused.
        let stranger = Client::generate(w.circuits.params()).unwrap();
        let go = |prompt: EncryptedPrompt| w.server().run(&w.plan, prompt, &mut |_: &Progress<'_>| true);
        let foreign = stranger.encrypt(&w.plan, tokens).unwrap();
        assert!(go(foreign).is_err());
        let plain = Plaintext::encode_real(w.circuits.params(), &[0.0], 1, Scale::from_log2(40)).unwrap();
        let level = w.plan.input_level();
        let whole = w.client.secret().encrypt(&plain, level).unwrap();
        let whole = EncryptedPrompt { ciphertexts: vec![whole; layout.vectors], ..prompt };
        let whole = EncryptedPrompt::from_bytes(w.circuits.params(), &w.rings(), &whole.to_bytes()).unwrap();
        let refused = go(whole).map(drop);
        assert!(matches!(refused, Err(Error::Mismatch { what: "ring of the prompt", .. })), "{refused:?}");
    }
    assert!(3 * bytes[1] < bytes[0], "{bytes:?}");
}
