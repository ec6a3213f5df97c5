//! Token by token over a cache, on the clear machine, against incremental decoding by the
//! reference.

use std::path::Path;
use std::sync::Arc;

use crate::common::decoding::Decoding;
use crate::common::{of, plan};
use cipherlm_circuits::bootstrap::Profile;
use cipherlm_circuits::slots::{Clear, ClearVector, Noise, Primitives, RefreshKind, RefreshProfile};
use cipherlm_ckks::Params;
use cipherlm_ckks::noise::NoiseModel;
use cipherlm_infer::{Error, Options, Plan, Progress, Purpose, Target};
use cipherlm_model::{Mode, Model, Positions, Runner, TOKENIZER_FILE, Tokenizer};

/// Token by token from nothing, and token by token after a prompt as long as its plan.
#[test]
fn tokens_over_a_cache_match_incremental_decoding() {
    let decoding = Decoding::new();
    let mut session = decoding.token.session();
    decoding.go_on(&mut session, 0);
    let mut session = decoding.token.session();
    decoding.begin(&mut session, 8);
    assert_eq!(session.position(), 8);
    decoding.go_on(&mut session, 8);
}

#[test]
fn padding_of_a_prompt_stays_out_of_the_cache() {
    let decoding = Decoding::new();
    for start in [1, 5, 8] {
        let mut session = decoding.prompt.session_of(start);
        decoding.begin(&mut session, start);
        assert_eq!(session.position(), start);
        let input = decoding.prompt_input(start);
        let again =
            decoding.prompt.run_session(&decoding.machine, input, &mut session, &mut |_: &Progress<'_>| true);
        assert!(matches!(again, Err(Error::Prompt { .. })), "a prompt in the middle of a session");
        decoding.go_on(&mut session, start);
    }
}

/// The shipped model with logits of its own greedy stories: one list of rows for each beginning.
fn stories(beginnings: &[&str], length: usize) -> (Arc<Model>, Vec<Vec<u32>>, Vec<Vec<f64>>) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/stories-2x128");
    let model = Arc::new(Model::load(&dir).unwrap());
    let tokenizer = Tokenizer::load(&dir.join(TOKENIZER_FILE)).unwrap();
    let (mut texts, mut rows) = (vec![], vec![]);
    for beginning in beginnings {
        let mut text = tokenizer.encode(beginning).unwrap();
        let mut runner = Runner::new(&model, Mode::Polynomial).unwrap();
        let mut fresh = text.clone();
        while text.len() < length {
            let row = runner.append(&fresh, Positions::Last).unwrap().swap_remove(0);
            fresh = vec![best(&row)];
            text.push(fresh[0]);
            rows.push(row);
        }
        texts.push(text);
    }
    (model, texts, rows)
}

fn best(row: &[f64]) -> u32 {
    (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap() as u32
}

/// Distance of the two largest logits.
fn gap(row: &[f64]) -> f64 {
    let top = row[best(row) as usize];
    let second = row.iter().filter(|x| **x < top).fold(f64::NEG_INFINITY, |m: f64, x| m.max(*x));
    top - second
}

fn feedback_plan(model: &Arc<Model>, target: Target, rows: &[Vec<f64>]) -> Plan {
    let profile = |period| RefreshProfile {
        kind: RefreshKind::SparseReal(period),
        input_level: target.chain.floor(),
        output_level: target.input_level,
        range: 1.0,
        error: 2f64.powf(-23.7),
    };
    let profiles = [profile(128), profile(512)];
    let target = profiles.into_iter().fold(target, Target::with_refresh);
    let options = Options { purpose: Purpose::Token, levels_left: 1, ..Options::default() };
    Plan::compile(Arc::clone(model), target, &options).unwrap().with_feedback(rows).unwrap()
}

const BEGINNINGS: [&str; 4] = [
    "Once upon a time, there was a little girl named Lily.",
    "Tom and Mia were friends. One day they went to the park",
    "The big dog was sad because",
    "One day, a boy found a red ball. He",
];

/// Logits as a plan returns them: blocks of one token each, in units of their certified range.
fn blocks(model: &Model, row: &[f64]) -> Vec<Vec<f64>> {
    let unit = model.site("logits").unwrap().range.magnitude();
    row.chunks(128).map(|block| block.iter().map(|x| x / unit).collect()).collect()
}

#[test]
fn choices_on_text_are_the_clear_ones() {
    let (model, _, rows) = stories(&BEGINNINGS, 30);
    let (teach, test): (Vec<_>, Vec<_>) = rows.iter().cloned().enumerate().partition(|(i, _)| i % 2 == 0);
    let teach: Vec<_> = teach.into_iter().map(|(_, row)| row).collect();
    let plan = feedback_plan(&model, Target::uniform(1 << 14, 13, 40, 60).unwrap(), &teach);
    let machine: Clear = plan.clear_machine();
    for (index, row) in test {
        let inputs: Vec<_> = blocks(&model, &row).into_iter().map(|v| machine.input(v, 1).unwrap()).collect();
        let (choice, next) = plan.feed_back(&machine, &inputs, 40).unwrap();
        let choice = choice.real();
        assert_eq!(best(&choice[..512]), best(&row), "row {index}, gap {}", gap(&row));
        if gap(&row) < 0.02 {
            continue;
        }
        assert!(choice[best(&row) as usize] > 0.99, "row {index}: {}", choice[best(&row) as usize]);
        // What comes back is the embedding of that token as a client would encrypt it.
        let expected = plan.pack_at(&[best(&row)], 40).unwrap();
        let error = expected[0].iter().zip(next[0].real()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(error < 1e-2, "row {index}: {error}");
    }
}

/// More than a hundred tokens without the client on the clear machine, token for token those of the
/// reference.
#[test]
#[ignore = "minutes"]
fn slow_a_story_without_the_client_is_the_clear_one() {
    let (model, texts, rows) = stories(&BEGINNINGS, 60);
    let plan = feedback_plan(&model, Target::uniform(1 << 14, 13, 40, 60).unwrap(), &rows);
    let machine = plan.clear_machine();
    let mut go = |_: &Progress<'_>| true;
    let (mut tokens, mut smallest, mut lightest) = (0, f64::INFINITY, f64::INFINITY);
    for text in &texts {
        let mut session = plan.session();
        let place = |position: usize| -> Vec<ClearVector> {
            let packed = plan.pack_at(&text[position..=position], position).unwrap();
            packed.into_iter().map(|v| machine.input(v, plan.input_level()).unwrap()).collect()
        };
        let alone = 20;
        for position in 0..alone {
            plan.run_session(&machine, place(position), &mut session, &mut go).unwrap();
        }
        let mut input = place(alone);
        let mut runner = Runner::new(&model, Mode::Polynomial).unwrap();
        runner.append(&text[..alone], Positions::Last).unwrap();
        for position in alone..text.len() - 1 {
            let row = runner.append(&text[position..=position], Positions::Last).unwrap().swap_remove(0);
            let logits = plan.run_session(&machine, input, &mut session, &mut go).unwrap();
            let (choice, next) = plan.feed_back(&machine, &logits, session.position()).unwrap();
            let choice = choice.real();
            assert_eq!(best(&choice[..512]), text[position + 1], "position {position}, gap {}", gap(&row));
            smallest = smallest.min(gap(&row));
            lightest = lightest.min(choice[text[position + 1] as usize]);
            tokens += 1;
            input = next;
        }
    }
    println!("{tokens} tokens alone, smallest gap {smallest:.4}, lightest choice {lightest:.4}");
    assert!(tokens > 100);
}

/// The choice with the error that encryption at the real parameters adds.
#[test]
#[ignore = "minutes"]
fn slow_choices_survive_the_noise() {
    let (model, _, rows) = stories(&BEGINNINGS[..2], 40);
    // The user's part of the profile's chain: 13 levels of 40 bits in the same ring.
    let profile = Profile::n16();
    let builder = Params::builder().degree(1 << profile.log_degree).base(profile.bottom + 4.0);
    let params =
        builder.levels(profile.scale, profile.user_levels).special(50, profile.special).build().unwrap();
    let target = Target::of(&params).unwrap();
    let plan = feedback_plan(&model, target, &rows);
    let mut noise = Noise::new(NoiseModel::new(&params), 7).unwrap();
    for period in [128, 512] {
        let kind = RefreshKind::SparseReal(period);
        noise = noise.with_refresh(RefreshProfile {
            kind,
            input_level: 0,
            output_level: profile.user_levels,
            range: 1.0,
            error: (-profile.error_bits).exp2(),
        });
    }
    let mut lightest = f64::INFINITY;
    for row in rows.iter().filter(|row| gap(row) > 0.02).take(12) {
        let inputs: Vec<_> = blocks(&model, row).into_iter().map(|v| noise.input(v, 1).unwrap()).collect();
        let (choice, _) = plan.feed_back(&noise, &inputs, 40).unwrap();
        let weights: Vec<f64> = choice.noisy().iter().map(|v| v.re).collect();
        assert_eq!(best(&weights[..512]), best(row));
        lightest = lightest.min(weights[best(row) as usize]);
        assert!(noise.level(&choice) >= 1);
    }
    println!("noise machine: lightest choice {lightest:.5}");
    assert!(lightest > 0.99);
}

#[test]
fn a_plan_without_a_cache_takes_no_session() {
    let decoding = Decoding::new();
    let plan = plan(&Arc::new(decoding.prompt.model().clone()), 512, &of(8));
    let mut session = plan.session_of(3);
    let input = decoding.prompt_input(3);
    let refused = plan.run_session(&decoding.machine, input, &mut session, &mut |_: &Progress<'_>| true);
    let refused = refused.err().unwrap();
    assert!(matches!(refused, Error::Unsupported { .. }) && session.position() == 0, "{refused}");
}
