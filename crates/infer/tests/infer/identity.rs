//! Plans that give other answers have other identities, for whole models and for every option.

use std::sync::Arc;

use crate::common::{of, one_layer};
use cipherlm_infer::{CostModel, Options, Plan, Purpose, Target};
use cipherlm_model::{Model, Positions, Residual, Shape, Tokenizer, random};
use serde_json::{Value, json};

fn small() -> Model {
    let shape = Shape { residual: Residual::Sequential, ..one_layer() };
    random::certified("small", &shape, 1).unwrap()
}

fn target() -> Target {
    Target::uniform(256, 16, 40, 60).unwrap()
}

fn compile(model: Model, options: &Options) -> cipherlm_infer::Result<Plan> {
    Plan::compile(Arc::new(model), target(), options)
}

fn options() -> Options {
    of(8)
}

fn id(options: &Options) -> String {
    compile(small(), options).unwrap().id()
}

/// The same weights under an edited description.
fn edited(model: &Model, change: impl Fn(&mut Value)) -> Option<Model> {
    let mut description = serde_json::to_value(model.spec()).unwrap();
    change(&mut description);
    Model::from_parts(&description.to_string(), &model.weights().to_bytes()).ok()
}

#[test]
fn prices_say_how_long_a_plan_takes_and_change_nothing_in_it() {
    let plan = |kernel: &str| {
        let target = target().with_cost(CostModel::builtin(kernel));
        Plan::compile(Arc::new(small()), target, &options()).unwrap()
    };
    let (fast, slow) = (plan("avx512ifma"), plan("avx2"));
    assert_eq!(fast.id(), slow.id());
    assert!(slow.seconds() > 1.05 * fast.seconds(), "{} {}", fast.seconds(), slow.seconds());
    let sum: f64 = slow.schedule().iter().map(|step| step.seconds + step.refresh_seconds).sum();
    assert!((sum / slow.seconds() - 1.0).abs() < 1e-9, "{sum} {}", slow.seconds());
}

#[test]
fn models_of_the_same_weights_one_field_apart_have_plans_of_their_own() {
    let model = small();
    let known = compile(model.clone(), &options()).unwrap().id();
    let changes: [(&str, Value); 7] = [
        ("/shape/attention/c", json!(5.0)),
        ("/shape/attention/p", json!(2)),
        ("/shape/norm_eps", json!(1e-2)),
        ("/shape/rotary/base", json!(777.0)),
        ("/shape/rotary/dims", json!(2)),
        ("/shape/residual", json!("parallel")),
        ("/shape/tied_head", json!(false)),
    ];
    let mut compiled = 0;
    for (place, value) in changes {
        let other = edited(&model, |all| *all.pointer_mut(place).unwrap() = value.clone());
        // A field that other tensors follow from is refused with these weights, and one that no
        // circuit has by the planner.
        if let Some(plan) = other.and_then(|other| compile(other, &options()).ok()) {
            assert_ne!(plan.id(), known, "{place}");
            compiled += 1;
        }
    }
    assert!(compiled >= 5, "{compiled} of the changes compiled");
    let rename = |all: &mut Value| all["name"] = json!("other");
    assert_eq!(compile(edited(&model, rename).unwrap(), &options()).unwrap().id(), known);
}

#[test]
fn models_of_one_shape_with_other_weights_have_plans_of_their_own() {
    let model = small();
    let mut weights = model.weights().clone();
    let bias = weights.tensor("layers.0.ffn.up.bias").unwrap().clone();
    let mut data = bias.data;
    data[0] += 1e-3;
    weights.insert("layers.0.ffn.up.bias", &bias.dims, data).unwrap();
    let other = model.with(model.shape().clone(), weights).unwrap();
    // The same certified sites: nothing but one weight differs.
    let mut description = serde_json::to_value(other.spec()).unwrap();
    description["sites"] = serde_json::to_value(&model.spec().sites).unwrap();
    let other = Model::from_parts(&description.to_string(), &other.weights().to_bytes()).unwrap();
    assert_eq!(other.spec().sites, model.spec().sites);
    assert_ne!(compile(other, &options()).unwrap().id(), compile(model, &options()).unwrap().id());
}

#[test]
fn every_option_is_part_of_the_identity() {
    let of = |options: Options| id(&options);
    let mut ids = vec![
        of(options()),
        of(Options { tokens: 4, ..options() }),
        of(Options { prompts: 2, ..options() }),
        of(Options { purpose: Purpose::PromptForSession, ..options() }),
        of(Options { purpose: Purpose::Token, ..options() }),
        of(Options { levels_left: 1, ..options() }),
        of(Options { positions: Positions::All, ..options() }),
        of(options().with_tokenizer(&Tokenizer::train(&"one two three ".repeat(50), 260).unwrap()).unwrap()),
        of(options().with_tokenizer(&Tokenizer::train(&"four five six ".repeat(50), 260).unwrap()).unwrap()),
        Plan::compile(Arc::new(small()), Target::uniform(256, 16, 41, 60).unwrap(), &options()).unwrap().id(),
        Plan::compile(Arc::new(small()), Target::uniform(256, 16, 40, 61).unwrap(), &options()).unwrap().id(),
    ];
    assert_eq!(id(&options()), ids[0], "an identity does not depend on when it is made");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 11);
}
