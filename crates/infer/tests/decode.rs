//! Token by token over a cache, on the clear machine, against incremental decoding by the reference.

use std::sync::Arc;

use cipherlm_ckks::slots::ClearVector;
use cipherlm_infer::{InferError, Options, Plan, Progress, Purpose, Target};
use cipherlm_spec::{Mode, Positions, Runner, Shape, random};

fn small() -> Shape {
    Shape::preset("test").unwrap()
}

#[test]
fn padding_of_a_prompt_stays_out_of_the_cache() {
    let model = Arc::new(random::certified("small", &small(), 1).unwrap());
    let tokens = &random::windows(model.shape(), 12, 1, 5)[0];
    let compile = |purpose, tokens| {
        let target = Target::uniform(512, 14, 40, 60).unwrap();
        Plan::compile(Arc::clone(&model), target, &Options { tokens, purpose, ..Options::default() }).unwrap()
    };
    let (prompt, token) = (compile(Purpose::PromptForSession, 8), compile(Purpose::Token, 1));
    let machine = token.clear_machine();
    let whole = Runner::new(&model, Mode::Polynomial).unwrap().forward(tokens, Positions::All).unwrap();
    let place = |plan: &Plan, packed: Vec<Vec<f64>>| -> Vec<_> {
        packed.into_iter().map(|v| machine.input(v, plan.input_level()).unwrap()).collect()
    };
    let check = |plan: &Plan, outputs: &[ClearVector], position: usize, row: usize| {
        let outputs: Vec<Vec<f64>> = outputs.iter().map(|v| v.real()).collect();
        let logits = plan.logits(&outputs, row).unwrap();
        let error = whole[position].iter().zip(logits).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(error < 1e-6, "position {position}: {error}");
    };
    let mut go = |_: &Progress<'_>| true;
    for start in [1, 5, 8] {
        let mut session = prompt.session_of(start);
        let input = place(&prompt, prompt.pack(&tokens[..start]).unwrap());
        let outputs = prompt.run_session(&machine, input.clone(), &mut session, &mut go).unwrap();
        check(&prompt, &outputs, start - 1, start - 1);
        assert_eq!(session.position(), start);
        let again = prompt.run_session(&machine, input, &mut session, &mut go);
        assert!(matches!(again, Err(InferError::Prompt { .. })), "a prompt in the middle of a session");
        for position in start..tokens.len() {
            let input = place(&token, token.pack_at(&tokens[position..=position], position).unwrap());
            let outputs = token.run_session(&machine, input, &mut session, &mut go).unwrap();
            check(&token, &outputs, position, 0);
        }
    }
}
