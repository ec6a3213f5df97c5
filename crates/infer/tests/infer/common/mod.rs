//! What the tests share: small models, their plans on the clear machine beside the reference, and
//! the two sides of an encrypted run.

pub(crate) mod decoding;
pub(crate) mod parties;
pub(crate) mod world;

use std::sync::Arc;

use cipherlm_infer::{Options, Plan, Progress, Target};
use cipherlm_model::{
    Activation, Kind, Mode, Model, Norm, Placement, Pool, Positions, Runner, Shape, random,
};

/// Two layers.
pub(crate) fn small() -> Shape {
    Shape::preset("test").unwrap()
}

pub(crate) fn one_layer() -> Shape {
    Shape { layers: 1, ..small() }
}

/// BERT's blocks, with the last hidden state as the answer.
pub(crate) fn bert(pool: Pool) -> Shape {
    Shape {
        kind: Kind::Embedder { pool },
        placement: Placement::Post,
        norm_eps: 1e-12,
        rotary: None,
        positions: true,
        embed_norm: true,
        tied_head: false,
        ..small()
    }
}

/// Llama's blocks, with a vocabulary of many vectors.
pub(crate) fn llama() -> Shape {
    Shape {
        norm: Norm::RmsNorm,
        activation: Activation::Silu,
        gated: true,
        bias: false,
        kv_heads: Some(1),
        vocab: 200,
        ..small()
    }
}

/// Random weights and certified ranges.
pub(crate) fn certified(shape: &Shape, seed: u64) -> Arc<Model> {
    Arc::new(random::certified("random", shape, seed).unwrap())
}

pub(crate) fn of(tokens: usize) -> Options {
    Options { tokens, ..Options::default() }
}

/// A plan for the clear machine, with the levels of a real parameter set.
pub(crate) fn plan(model: &Arc<Model>, slots: usize, options: &Options) -> Plan {
    Plan::compile(Arc::clone(model), Target::uniform(slots, 14, 40, 60).unwrap(), options).unwrap()
}

/// Largest difference.
pub(crate) fn far(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

pub(crate) fn polynomial(model: &Model) -> Runner<'_> {
    Runner::new(model, Mode::Polynomial).unwrap()
}

/// What the reference answers to a text on its own, at each position that has an answer.
pub(crate) fn answers(model: &Model, tokens: &[u32]) -> Vec<Vec<f64>> {
    let mut runner = polynomial(model);
    match model.shape().kind {
        Kind::Decoder => runner.forward(tokens, Positions::All).unwrap(),
        Kind::Encoder { .. } => vec![runner.classify(tokens, None).unwrap()],
        Kind::Embedder { .. } => {
            let hidden = runner.hidden(tokens, None).unwrap();
            hidden.chunks(model.shape().d_model).map(<[f64]>::to_vec).collect()
        }
    }
}

/// What the clear machine puts out for a text that its plan is told the length of.
pub(crate) fn run(plan: &Plan, tokens: &[u32], length: usize) -> Vec<Vec<f64>> {
    let machine = plan.clear_machine();
    let enter = |v| machine.input(v, plan.input_level()).unwrap();
    let input = plan.pack(tokens).unwrap().into_iter().map(enter).collect();
    let outputs = plan.run_text(&machine, input, length, &mut |_: &Progress<'_>| true).unwrap();
    outputs.iter().map(|v| v.real()).collect()
}

/// Largest difference of any answer to a text from the reference's.
pub(crate) fn worst(plan: &Plan, tokens: &[u32]) -> f64 {
    worst_of(plan, tokens, tokens.len())
}

/// The same where the plan is told another length.
pub(crate) fn worst_of(plan: &Plan, tokens: &[u32], length: usize) -> f64 {
    let (outputs, rows) = (run(plan, tokens, length), answers(plan.model(), tokens));
    let of_position = |(position, row): (usize, &Vec<f64>)| {
        let answered = !plan.answers_last() || position + 1 == rows.len();
        if answered { far(row, &plan.logits(&outputs, position).unwrap()) } else { 0.0 }
    };
    rows.iter().enumerate().map(of_position).fold(0.0, f64::max)
}
