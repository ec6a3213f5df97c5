//! Ranges: the circuit and the reference agree on them, every way to encrypt looks at them, and
//! what broke them is no answer.

use std::sync::Arc;

use crate::common::parties::Parties;
use crate::common::{certified, far, of, one_layer, polynomial, worst};
use cipherlm_ckks::{Complex64, Plaintext};
use cipherlm_infer::{Asked, EncryptedLogits, Error, Options, Plan, Progress, Purpose, Target};
use cipherlm_model::{
    Activation, FitOptions, Freezing, Kind, Margins, Model, Positions, Range, Residual, Scheme, Shape,
    certify, fit, freeze_eps, random,
};

fn compile(model: &Arc<Model>) -> cipherlm_infer::Result<Plan> {
    let target = Target::uniform(512, 16, 40, 60).unwrap();
    Plan::compile(Arc::clone(model), target, &of(8))
}

/// Largest difference between the circuit on the clear machine and the reference.
fn error(model: &Arc<Model>) -> f64 {
    worst(&compile(model).unwrap(), &random::windows(model.shape(), 8, 1, 5)[0])
}

/// The model with another range at a site, and a polynomial on that range unless it is to keep the
/// old one.
fn with_range(model: &Model, site: &str, change: impl Fn(Range) -> Range, refit: bool) -> Arc<Model> {
    Arc::new(changed(model, site, change, refit).unwrap())
}

fn changed(
    model: &Model,
    site: &str,
    change: impl Fn(Range) -> Range,
    refit: bool,
) -> Result<Model, cipherlm_model::Error> {
    let mut spec = model.spec().clone();
    let found = spec.sites.iter_mut().find(|s| s.name == site).unwrap();
    found.range = change(found.range);
    if refit {
        found.scheme = Some(Scheme::interpolate(site, found.function, found.range, 63).unwrap());
    }
    let description = serde_json::to_string(&spec).unwrap();
    Model::from_parts(&description, &model.weights().to_bytes())
}

#[test]
fn ranges_that_are_not_symmetric_match_the_reference() {
    let lopsided = |r: Range| Range { lo: 1.4 * r.lo, hi: 0.9 * r.hi };
    let encoder = Shape { kind: Kind::Encoder { classes: 3 }, tied_head: false, ..one_layer() };
    for (shape, site) in [
        (one_layer(), "layers.0.ffn.activation"),
        (Shape { gated: true, activation: Activation::Silu, ..one_layer() }, "layers.0.ffn.activation"),
        (encoder, "pool.activation"),
    ] {
        let model = random::certified("small", &shape, 1).unwrap();
        let error = error(&with_range(&model, site, lopsided, true));
        assert!(error < 1e-6, "{site}: {error}");
    }
}

#[test]
fn parallel_blocks_match_the_reference() {
    let model =
        random::certified("small", &Shape { residual: Residual::Parallel, ..one_layer() }, 1).unwrap();
    let error = error(&Arc::new(model));
    assert!(error < 1e-6, "{error}");
}

#[test]
fn sites_that_contradict_themselves_are_refused_by_name() {
    let model = random::certified("small", &one_layer(), 1).unwrap();
    let wider = |r: Range| Range { lo: r.lo, hi: 1.1 * r.hi };
    for site in ["layers.0.norm1", "layers.0.attn.reciprocal", "layers.0.ffn.activation", "final_norm"] {
        let refused = changed(&model, site, wider, false).err().unwrap();
        assert!(
            matches!(&refused, cipherlm_model::Error::Site { site: named, .. } if named == site),
            "{refused}"
        );
    }
    let reversed = changed(&model, "layers.0.attn.v", |r| Range { lo: r.hi, hi: r.lo }, false);
    assert!(matches!(reversed, Err(cipherlm_model::Error::Site { .. })));
    let zero = changed(&model, "layers.0.norm2", |r| Range { lo: 0.0, hi: r.hi }, false);
    assert!(matches!(zero, Err(cipherlm_model::Error::Site { .. })));
}

/// The model with a tensor of zeros, certified anew.
fn dead(shape: &Shape, tensors: &[&str]) -> Arc<Model> {
    let model = random::certified("dead", shape, 1).unwrap();
    let mut weights = model.weights().clone();
    for &tensor in tensors {
        let dims = weights.tensor(tensor).unwrap().dims.clone();
        weights.insert(tensor, &dims, vec![0.0; dims.iter().product()]).unwrap();
    }
    let mut model = model.with(shape.clone(), weights).unwrap();
    let windows = random::windows(shape, shape.context, 6, 5);
    let margins = Margins { variance: 2.0, activation: 1.5, ..Margins::default() };
    certify(&mut model, &windows, &windows, &margins).unwrap();
    fit(&mut model, &FitOptions::default()).unwrap();
    Arc::new(model)
}

#[test]
fn tensors_of_zeros_give_the_right_answer() {
    let both = |name: &str| [format!("layers.0.{name}.weight"), format!("layers.0.{name}.bias")];
    for name in ["attn.v", "attn.q", "attn.out", "ffn.up", "ffn.down"] {
        let tensors = both(name);
        let model = dead(&one_layer(), &[&tensors[0], &tensors[1]]);
        let error = error(&model);
        assert!(error < 1e-6, "{name}: {error}");
    }
    let gated = dead(&Shape { gated: true, ..one_layer() }, &both("ffn.gate").each_ref().map(String::as_str));
    assert!(error(&gated) < 1e-6);
    assert!(error(&dead(&one_layer(), &["final_norm.gain", "final_norm.bias"])) < 1e-6);
}

#[test]
fn dead_values_under_encryption_give_the_right_answer() {
    for name in ["attn.v", "ffn.up"] {
        let tensors = [format!("layers.0.{name}.weight"), format!("layers.0.{name}.bias")];
        let model = dead(&one_layer(), &[&tensors[0], &tensors[1]]);
        let parties = Parties::new(&model, &[of(8)]);
        let tokens = &random::windows(model.shape(), 8, 1, 5)[0];
        let clear = polynomial(&model).forward(tokens, Positions::Last).unwrap();
        let error = far(&clear[0], &parties.ask(0, tokens, 7));
        assert!(error < 2f64.powi(-11), "{name}: {error}");
    }
}

/// A model with learned positions of which only the first three are small, certified on texts of
/// three tokens.
fn three_positions() -> Arc<Model> {
    let shape = Shape { positions: true, rotary: None, ..one_layer() };
    let raw = random::weights_only("three", &shape, 4).unwrap();
    let mut weights = raw.weights().clone();
    let mut table = weights.tensor("embed.positions").unwrap().clone();
    table.data[3 * shape.d_model..].iter_mut().for_each(|x| *x *= 50.0);
    weights.insert("embed.positions", &table.dims, table.data).unwrap();
    let raw = raw.with(shape.clone(), weights).unwrap();
    let windows = random::windows(&shape, 3, 40, 5);
    let mut model = freeze_eps(&raw, &windows, Freezing::at(30.0)).unwrap();
    let margins = Margins { variance: 3.0, activation: 3.0, ..Margins::default() };
    certify(&mut model, &windows, &windows, &margins).unwrap();
    fit(&mut model, &FitOptions::default()).unwrap();
    Arc::new(model)
}

#[test]
fn every_way_to_encrypt_looks_at_the_ranges_and_says_whose_tokens_leave_them() {
    let model = three_positions();
    let of = |tokens, purpose| Options { purpose, ..of(tokens) };
    let options = [
        of(4, Purpose::Prompt),
        of(2, Purpose::Prompt),
        of(1, Purpose::Token),
        of(4, Purpose::PromptForSession),
    ];
    let parties = Parties::new(&model, &options);
    let [four, two, token, session] = &parties.plans[..] else { unreachable!() };
    let text = random::windows(model.shape(), 4, 1, 5).remove(0);
    // The fourth position is wild: two tokens repeated to four reach it.
    for plan in [four, session] {
        let padded = parties.client.encrypt(plan, &text[..2]).err().unwrap();
        assert!(
            matches!(padded, Error::LeavesRange { position: Some(3), repeated: Some(4), .. }),
            "{padded}"
        );
        assert!(padded.to_string().contains("repeated to 4 tokens"), "{padded}");
        let own = parties.client.encrypt(plan, &text).err().unwrap();
        assert!(matches!(own, Error::LeavesRange { position: Some(3), repeated: None, .. }), "{own}");
        assert!(own.to_string().contains("at token 4"), "{own}");
    }
    // What a clear run has seen says the same.
    let mut runner = polynomial(&model);
    runner.forward(&text[..2], Positions::Last).unwrap();
    cipherlm_infer::ensure_in_range(&model, &runner).unwrap();
    runner.forward(&text, Positions::Last).unwrap();
    let seen = cipherlm_infer::ensure_in_range(&model, &runner).unwrap_err();
    assert!(matches!(seen, Error::LeavesRange { position: None, repeated: None, .. }), "{seen}");
    parties.client.encrypt(two, &text[..2]).unwrap();
    // Token by token: what came before counts.
    for position in 0..3 {
        parties.client.encrypt_after(token, &text[..position], &text[position..=position]).unwrap();
    }
    let fourth = parties.client.encrypt_after(token, &text[..3], &text[3..]).err().unwrap();
    assert!(matches!(fourth, Error::LeavesRange { position: Some(3), repeated: None, .. }), "{fourth}");
}

#[test]
fn what_is_no_answer_is_not_decrypted() {
    let shape = Shape { vocab: 37, ..one_layer() };
    let model = certified(&shape, 4);
    let parties = Parties::new(&model, &[of(8)]);
    let plan = &parties.plans[0];
    let features = plan.geometry().features;
    // An answer of 0.5 at every logit, and zero in the slots behind the vocabulary; then one slot
    // of it is changed.
    let answer = |change: Option<(usize, usize, Complex64)>| {
        let ciphertexts = (0..3).map(|block| {
            let inside = |slot: usize| block * features + slot % features < 37;
            let value = |slot: usize| Complex64::new(if inside(slot) { 0.5 } else { 0.0 }, 0.0);
            let mut slots: Vec<Complex64> = (0..plan.geometry().slots).map(value).collect();
            if let Some((_, slot, value)) = change.filter(|change| change.0 == block) {
                slots[slot] = value;
            }
            let scale = cipherlm_ckks::Scale::from_log2(40);
            let plain = Plaintext::encode(&parties.params, &slots, slots.len(), scale).unwrap();
            parties.client.secret().encrypt(&plain, 2).unwrap()
        });
        EncryptedLogits {
            plan: plan.id(),
            lengths: vec![8],
            asked: Asked::All,
            ciphertexts: ciphertexts.collect(),
        }
    };
    let refusal = |answer: &EncryptedLogits| match parties.client.decrypt(plan, answer, 2) {
        Err(Error::NotAnAnswer { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    let unit = model.site("logits").unwrap().range.magnitude();
    let logits = parties.client.decrypt(plan, &answer(None), 2).unwrap();
    assert!(logits.len() == 37 && logits.iter().all(|x| (x / unit - 0.5).abs() < 1e-6));
    let real = |x: f64| Complex64::new(x, 0.0);
    let row = 2 * features;
    assert_eq!(refusal(&answer(Some((2, row + 6, real(0.1))))), "a slot that holds nothing");
    assert_eq!(refusal(&answer(Some((0, 5 * features + 3, Complex64::new(0.5, -0.2))))), "an imaginary part");
    assert_eq!(refusal(&answer(Some((1, row + 3, real(-1.2))))), "a logit, in units of its certified range,");
    let shown = parties.client.decrypt_public(plan, &answer(Some((1, row, real(3.0)))), 2, 8.0, 1.0 / 4096.0);
    assert!(matches!(shown, Err(Error::NotAnAnswer { .. })));
    let mut short = answer(None);
    short.ciphertexts.pop();
    assert!(matches!(parties.client.decrypt(plan, &short, 2), Err(Error::Malformed { .. })));

    // A client that encrypts what no model takes gets no answer for it.
    let tokens = &random::windows(&shape, 8, 1, 5)[0];
    let mut prompt = parties.client.encrypt(plan, tokens).unwrap();
    let scale = prompt.ciphertexts[0].scale();
    let wild = |vector: &Vec<f64>| {
        let slots = vector.iter().cycle().take(plan.geometry().slots).map(|x| Complex64::new(30.0 * x, 0.0));
        let slots: Vec<_> = slots.collect();
        let plain = Plaintext::encode(&parties.params, &slots, slots.len(), scale).unwrap();
        parties.client.secret().encrypt(&plain, plan.input_level()).unwrap()
    };
    prompt.ciphertexts = plan.pack(tokens).unwrap().iter().map(wild).collect();
    let answer = parties.server.run(plan, prompt, &mut |_: &Progress<'_>| true).unwrap();
    let refused = parties.client.decrypt(plan, &answer, 7).err().unwrap();
    assert!(matches!(refused, Error::NotAnAnswer { .. }), "{refused}");
}
