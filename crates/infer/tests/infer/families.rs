//! The families of public checkpoints on the clear machine, against the reference: norms behind the
//! branches, texts shorter than their plan, wide vocabularies, gated layers with shared key heads,
//! public tokens before the text.

use std::sync::Arc;

use crate::common::{bert, certified, far, llama, of, plan, polynomial, run, small, worst};
use cipherlm_infer::{Options, Plan, Progress, Purpose, Session, Target};
use cipherlm_model::{Kind, Model, Norm, Placement, Pool, Positions, Shape, random};

#[test]
fn norms_behind_the_branches_match_the_reference() {
    let shapes = [
        bert(Pool::Mean),
        Shape { norm: Norm::RmsNorm, bias: false, ..bert(Pool::Mean) },
        Shape { kind: Kind::Encoder { classes: 3 }, ..bert(Pool::Mean) },
        Shape { kind: Kind::Decoder, ..bert(Pool::Mean) },
        Shape { kind: Kind::Decoder, vocab: 200, ..bert(Pool::Mean) },
        Shape { d_model: 12, heads: 3, head_dim: 3, ffn: 20, vocab: 37, ..bert(Pool::Mean) },
        // The same answer from norms before the branches.
        Shape { placement: Placement::Pre, embed_norm: false, ..bert(Pool::Mean) },
        Shape { placement: Placement::Pre, norm: Norm::RmsNorm, gated: true, ..bert(Pool::Mean) },
    ];
    for (index, shape) in shapes.iter().enumerate() {
        let model = certified(shape, 3);
        let plan = plan(&model, 512, &of(8));
        for length in [8, 5, 1] {
            let error = worst(&plan, &random::windows(shape, length, 1, 5)[0]);
            assert!(error < 1e-6, "shape {index}, {length} tokens: {error}");
        }
    }
}

#[test]
fn a_sentence_vector_does_not_depend_on_the_plans_length() {
    let model = certified(&bert(Pool::Mean), 3);
    // Copies of the tokens; several score vectors; packed scores.
    for (slots, tokens, packed) in [(512, 8, false), (512, 16, false), (256, 16, true)] {
        let plan = plan(&model, slots, &of(tokens));
        assert_eq!(plan.explain().contains("packed scores"), packed);
        for length in [2, 7, 8] {
            let text = &random::windows(model.shape(), length, 1, 5)[0];
            assert!(worst(&plan, text) < 1e-6, "{tokens} tokens, {length} of them text");
            plan.ensure_in_range(text).unwrap();
        }
    }
    // An angle between tokens is no matter of distances modulo the text.
    let turned = Shape { rotary: small().rotary, ..bert(Pool::Mean) };
    let plan = plan(&certified(&turned, 3), 256, &of(16));
    assert!(!plan.explain().contains("packed scores"));
    assert!(worst(&plan, &random::windows(&turned, 11, 1, 5)[0]) < 1e-6);
}

#[test]
fn gated_layers_with_shared_key_heads_match_the_reference() {
    for kv_heads in [None, Some(1), Some(2)] {
        let shape = Shape { heads: 4, head_dim: 4, kv_heads, ..llama() };
        let model = certified(&shape, 3);
        let plan = plan(&model, 512, &Options { positions: Positions::All, ..of(8) });
        let error = worst(&plan, &random::windows(&shape, 8, 1, 5)[0]);
        assert!(error < 1e-6, "{kv_heads:?}: {error}");
    }
    // Both factors of a gated layer are certified, so a refresh may stand between them.
    let shape = llama();
    let bounded =
        ["layers.0.ffn.up", "layers.0.ffn.product"].map(|site| certified(&shape, 3).site(site).is_some());
    assert_eq!(bounded, [true, true]);
}

#[test]
fn a_wide_vocabulary_is_answered_at_the_last_token() {
    let model = certified(&llama(), 3);
    let everywhere = plan(&model, 512, &Options { positions: Positions::All, ..of(8) });
    // One period of 256 columns; then one of 128 slots, twice.
    for (slots, vectors) in [(512, 1), (128, 2)] {
        let last = plan(&model, slots, &of(8));
        assert!(last.answers_last() && !everywhere.answers_last());
        for length in [8, 3, 1] {
            let text = &random::windows(model.shape(), length, 1, 5)[0];
            let outputs = run(&last, text, length);
            assert_eq!(outputs.len(), vectors);
            let error = far(
                &polynomial(&model).forward(text, Positions::Last).unwrap()[0],
                &last.logits(&outputs, length - 1).unwrap(),
            );
            assert!(error < 1e-6, "{slots} slots, {length} tokens: {error}");
            assert!(worst(&everywhere, text) < 1e-6);
        }
        let outputs = run(&everywhere, &random::windows(model.shape(), 8, 1, 5)[0], 8);
        assert_eq!(outputs.len(), 13);
    }
    // A narrow one costs nothing to answer everywhere.
    assert!(!plan(&certified(&small(), 3), 512, &of(8)).answers_last());
}

/// One token after another over a cache, and the answer to each.
fn over_a_cache(model: &Arc<Model>, tokens: &[u32], prompt: usize) -> f64 {
    let begin = plan(model, 512, &Options { purpose: Purpose::PromptForSession, ..of(8) });
    let token = plan(model, 512, &Options { purpose: Purpose::Token, ..of(1) });
    let machine = token.clear_machine();
    let mut go = |_: &Progress<'_>| true;
    let mut session: Session<_> = begin.session_of(prompt);
    let reference = polynomial(model).forward(tokens, Positions::All).unwrap();
    let mut error = 0f64;
    let mut step = |plan: &Plan, from: usize, count: usize| {
        let packed = plan.pack_at(&tokens[from..from + count], from).unwrap();
        let input = packed.into_iter().map(|v| machine.input(v, plan.input_level()).unwrap()).collect();
        let outputs = plan.run_session(&machine, input, &mut session, &mut go).unwrap();
        let outputs: Vec<Vec<f64>> = outputs.iter().map(|v| v.real()).collect();
        let found = plan.logits(&outputs, count - 1).unwrap();
        error = error.max(far(&reference[from + count - 1], &found));
    };
    step(&begin, 0, prompt);
    (prompt..tokens.len()).for_each(|at| step(&token, at, 1));
    error
}

#[test]
fn public_tokens_before_the_text_match_the_reference() {
    let heads = Shape { context: 24, ..small() };
    let packed = Shape { heads: 2, head_dim: 8, context: 32, ..small() };
    let shapes = [
        heads,
        Shape { context: 24, ..llama() },
        Shape { norm: Norm::RmsNorm, rotary: None, ..packed.clone() },
        packed,
    ];
    for (index, shape) in shapes.iter().enumerate() {
        let alone = certified(shape, 3);
        let tokens = random::windows(shape, 8, 1, 5).swap_remove(0);
        // Fewer public tokens than a head has features, and more.
        for public in [vec![1, 9, 4], (1..12).collect()] {
            let model = Arc::new(Model::clone(&alone).with_prefix(public.clone()).unwrap());
            let prompt = plan(&model, 512, &of(8));
            assert_eq!(prompt.public_prefix(), public);
            let error = worst(&prompt, &tokens);
            assert!(error < 1e-6, "shape {index}, {} public tokens: {error}", public.len());
            assert_eq!(prompt.input_width(), plan(&alone, 512, &of(8)).input_width());
            assert_ne!(prompt.id(), plan(&alone, 512, &of(8)).id());
            // They change the answer.
            let without = polynomial(&alone).forward(&tokens, Positions::Last).unwrap();
            let with = polynomial(&model).forward(&tokens, Positions::Last).unwrap();
            assert!(far(&without[0], &with[0]) > 1e-3);
            if index < 2 {
                let error = over_a_cache(&model, &tokens, 5);
                assert!(error < 1e-6, "shape {index} over a cache: {error}");
            }
        }
        let packs = plan(&alone, 256, &of(16));
        if index >= 2 {
            assert!(packs.explain().contains("packed scores"));
            let model = Arc::new(Model::clone(&alone).with_prefix(vec![1, 9, 4]).unwrap());
            let error = worst(&plan(&model, 256, &of(16)), &random::windows(shape, 13, 1, 5)[0]);
            assert!(error < 1e-6, "shape {index}, packed: {error}");
        }
    }
    // They take room in the context.
    let model = Arc::new(Model::clone(&certified(&small(), 3)).with_prefix(vec![1; 9]).unwrap());
    let target = Target::uniform(512, 14, 40, 60).unwrap();
    assert!(Plan::compile(model, target, &of(8)).is_err());
}
