//! The circuit under encryption, in small insecure rings, against the reference in polynomial mode.

use std::sync::Arc;

use cipherlm_circuits::bootstrap::Profile;
use cipherlm_circuits::slots::Encrypted;
use cipherlm_ckks::{KeySet, Params};
use cipherlm_infer::{
    Asked, Audit, Circuits, Client, Closeness, EncryptedPrompt, Error, Errors, Options, Plan, Progress,
    Server, StepError, Target,
};
use cipherlm_model::{
    FitOptions, Margins, Mode, Model, Positions, Residual, Runner, Shape, certify, fit, freeze_eps, random,
};

fn one_layer(residual: Residual) -> Arc<Model> {
    let shape = Shape { layers: 1, residual, ..Shape::preset("test").unwrap() };
    Arc::new(random::certified("one layer", &shape, 4).unwrap())
}

/// Deep enough for a layer without any refresh.
fn deep_params() -> Params {
    Params::insecure_for_tests(Params::builder().degree(1 << 10).base(50.0).levels(40.0, 48).special(50, 8))
        .unwrap()
}

#[test]
fn a_layer_under_encryption_matches_the_reference() {
    for residual in [Residual::Sequential, Residual::Parallel] {
        let model = one_layer(residual);
        let params = deep_params();
        let target = Target::of(&params).unwrap();
        let plan =
            Plan::compile(Arc::clone(&model), target, &Options { tokens: 8, ..Options::default() }).unwrap();
        let client = Client::generate(&params).unwrap();
        let keys: KeySet = client.secret().key_set(&plan.key_request(&params)).unwrap();
        let server = Server::new(Encrypted::new(&params, client.key_id(), keys).unwrap());
        let tokens = &random::windows(model.shape(), 8, 1, 5)[0];
        let prompt = client.encrypt(&plan, tokens).unwrap();
        let logits = server.run(&plan, prompt, &mut |_: &Progress<'_>| true).unwrap();
        let reference =
            Runner::new(&model, Mode::Polynomial).unwrap().forward(tokens, Positions::All).unwrap();
        let mut worst = 0f64;
        for (position, row) in reference.iter().enumerate() {
            let found = client.decrypt(&plan, &logits, position).unwrap();
            worst = row.iter().zip(&found).fold(worst, |m, (a, b)| m.max((a - b).abs()));
        }
        // 40-bit scales leave about 22 bits after this many levels of a logit range of about ten.
        assert!(worst < 2f64.powi(-11), "{residual:?}: {worst}");
        println!("{residual:?}: worst logit error 2^{:.1}", worst.log2());
    }
}

#[test]
fn a_whole_model_with_bootstraps_matches_the_reference() {
    let model = Arc::new(random::certified("two layers", &Shape::preset("test").unwrap(), 4).unwrap());
    let profile = Profile { user_levels: 13, ..Profile::insecure(10) };
    let circuits = Circuits::new(&profile).unwrap();
    let options = Options { tokens: 8, ..Options::default() };
    let plan = Plan::compile(Arc::clone(&model), circuits.target().unwrap(), &options).unwrap();
    println!("{}", plan.explain());
    let client = Client::generate(circuits.params()).unwrap();
    let keys = circuits.keys(client.secret(), &plan).unwrap();
    let machine = Encrypted::new(circuits.params(), client.key_id(), Arc::clone(&keys)).unwrap();
    let server = Server::new(machine.with_refresher(circuits.refresher(&keys).unwrap()).unwrap());
    let tokens = &random::windows(model.shape(), 8, 1, 5)[0];
    let prompt = EncryptedPrompt { asked: Asked::All, ..client.encrypt(&plan, tokens).unwrap() };
    let logits = server.run(&plan, prompt, &mut |_: &Progress<'_>| true).unwrap();
    let reference = Runner::new(&model, Mode::Polynomial).unwrap().forward(tokens, Positions::All).unwrap();
    let mut worst = 0f64;
    for (position, row) in reference.iter().enumerate() {
        let found = client.decrypt(&plan, &logits, position).unwrap();
        worst = row.iter().zip(&found).fold(worst, |m, (a, b)| m.max((a - b).abs()));
    }
    println!("worst logit error 2^{:.1}", worst.log2());
    assert!(worst < 2f64.powi(-7), "{worst}");
}

/// Errors of six prompts under one key against their forecasts. In models this small the
/// reciprocals' errors come from one to four independent rows, and those of a single prompt can all
/// be small by chance: pooled over two prompts the best prediction there can be fails in one run of
/// ten, over three in one of 25, over six in one of 300. Smaller rings have an error floor of their
/// own in their refreshes.
#[test]
#[ignore = "slow: a minute; twelve encrypted passes"]
fn slow_the_error_of_every_step_is_predicted() {
    const PROMPTS: usize = 6;
    let model = Arc::new(random::certified("two layers", &Shape::preset("test").unwrap(), 4).unwrap());
    let profile = Profile { user_levels: 13, ..Profile::insecure(13) };
    let circuits = Circuits::new(&profile).unwrap();
    for tokens in [8, 16] {
        let options = Options { tokens, ..Options::default() };
        let plan = Plan::compile(Arc::clone(&model), circuits.target().unwrap(), &options).unwrap();
        let client = Client::generate(circuits.params()).unwrap();
        let keys = circuits.keys(client.secret(), &plan).unwrap();
        let machine = Encrypted::new(circuits.params(), client.key_id(), Arc::clone(&keys)).unwrap();
        let server = Server::new(machine.with_refresher(circuits.refresher(&keys).unwrap()).unwrap());
        let prompts = random::windows(model.shape(), tokens, PROMPTS, 5);
        let mut steps: Vec<Vec<StepError>> = vec![vec![]; plan.steps() - 1];
        let mut mse = 0.0;
        for prompt in &prompts {
            let forecast = plan.forecast_steps(&client, &circuits.key_request(&plan), &[prompt]).unwrap();
            let mut go = |_: &Progress<'_>| true;
            let mut audit = Audit::new(&client, &forecast, &mut go);
            let logits = server.run(&plan, client.encrypt(&plan, prompt).unwrap(), &mut audit).unwrap();
            let rows = audit.finish();
            assert_eq!(rows.len(), steps.len());
            rows.into_iter().zip(&mut steps).for_each(|(row, step)| step.push(row));
            let exact = forecast.exact_logits(&plan, tokens - 1).unwrap();
            let found = Closeness::of(&exact, &client.decrypt(&plan, &logits, tokens - 1).unwrap());
            assert!(found.same_top && found.kl < 1e-3, "{found:?}");
            let ratio = found.mse / forecast.logits_mse(&plan, tokens - 1).unwrap();
            assert!(ratio.log2() < 4.0, "{ratio}");
            mse += ratio / PROMPTS as f64;
        }
        // The encrypted answers are as far from the exact ones as the simulated ones are. The few
        // independent errors behind the logits of one position can all be small by chance; those of
        // several prompts hardly.
        println!("logits: found over predicted mean square error {mse:.2}");
        assert!(mse.log2().abs() < 4.0, "{mse}");
        for rows in &steps {
            let pooled = |of: fn(&Errors) -> f64, predicted: fn(&StepError) -> &Errors| {
                let squares = rows.iter().map(|row| (of(&row.measured) / of(predicted(row))).powi(2));
                -0.5 * (squares.sum::<f64>() / rows.len() as f64).log2()
            };
            let rms = pooled(|errors| errors.rms, |row| &row.predicted);
            let worst = rows.iter().map(|row| row.margin().1).fold(f64::INFINITY, f64::min);
            let ceiling = pooled(|errors| errors.rms, |row| &row.ceiling);
            let (name, bits) = (&rows[0].name, rows[0].measured.bits().0);
            println!("{name:<34} {bits:>6.2} bits, margins {rms:.2} {worst:.2}, ceiling {ceiling:.2}");
            assert!((0.0..=2.0).contains(&rms), "{name}: rms {rms:.2}");
            assert!((0.0..=3.0).contains(&worst), "{name}: worst {worst:.2}");
            assert!(ceiling >= 0.0, "{name}: ceiling {ceiling:.2}");
        }
    }
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let model = one_layer(Residual::Sequential);
    let params = deep_params();
    let target = Target::of(&params).unwrap();
    let options = Options { tokens: 8, ..Options::default() };
    let plan = Plan::compile(Arc::clone(&model), target.clone(), &options).unwrap();
    let other = Plan::compile(model, target, &Options { tokens: 4, ..options }).unwrap();
    let client = Client::generate(&params).unwrap();
    let stranger = Client::generate(&params).unwrap();
    let server = Server::new(Encrypted::new(&params, client.key_id(), KeySet::new()).unwrap());
    let mut go = |_: &Progress<'_>| true;
    let run = |prompt, go: &mut dyn cipherlm_infer::Observer<_>| server.run(&plan, prompt, go).err().unwrap();
    let mismatch = run(client.encrypt(&other, &[1, 2]).unwrap(), &mut go);
    assert!(matches!(mismatch, Error::Mismatch { what: "plan of the ciphertexts", .. }), "{mismatch}");
    let foreign = run(stranger.encrypt(&plan, &[1, 2]).unwrap(), &mut go);
    assert!(matches!(foreign, Error::Slots { .. }), "{foreign}");
    let missing = run(client.encrypt(&plan, &[1, 2]).unwrap(), &mut go);
    assert!(missing.to_string().contains("key"), "{missing}");
    let stopped = run(client.encrypt(&plan, &[1, 2]).unwrap(), &mut |_: &Progress<'_>| false);
    assert!(matches!(stopped, Error::Stopped { step: 1, .. }), "{stopped}");
}

/// A model certified for one word, over and over, takes no other text.
#[test]
fn a_prompt_that_leaves_the_ranges_is_refused() {
    let shape = Shape { layers: 1, ..Shape::preset("test").unwrap() };
    let known = vec![vec![1; shape.context]; 3];
    let mut model = freeze_eps(&random::weights_only("one word", &shape, 4).unwrap(), &known, 30.0).unwrap();
    certify(&mut model, &known, &known, &Margins::default()).unwrap();
    fit(&mut model, &FitOptions::default()).unwrap();
    let params = deep_params();
    let options = Options { tokens: 8, ..Options::default() };
    let plan = Plan::compile(Arc::new(model), Target::of(&params).unwrap(), &options).unwrap();
    let client = Client::generate(&params).unwrap();
    client.encrypt(&plan, &[1, 1, 1]).unwrap();
    let refused = client.encrypt(&plan, &[1, 2, 3]).err().unwrap();
    assert!(
        matches!(&refused, Error::LeavesRange { min, max, lo, hi, .. } if min < lo || max > hi),
        "{refused}"
    );
    assert!(refused.to_string().contains("rephrase the prompt"), "{refused}");
}
