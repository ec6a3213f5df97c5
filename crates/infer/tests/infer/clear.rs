//! The circuit on the clear machine against the reference in polynomial mode.

use std::sync::Arc;

use crate::common::{certified, of, plan, small, worst_of};
use cipherlm_infer::{Options, Plan, Target};
use cipherlm_model::{
    Activation, Attention, Eps, FitOptions, Freezing, Margins, Model, Norm, Placement, Positions, Residual,
    Rotary, Shape, certify, fit, freeze_eps, random,
};

/// Largest difference of any logit where the plan takes every text for one of its own length.
fn worst(plan: &Plan, tokens: &[u32]) -> f64 {
    worst_of(plan, tokens, plan.tokens())
}

/// All norms frozen, all activations quadratic.
fn lean(shape: &Shape) -> Shape {
    Shape { frozen_norms: shape.norms(), activation: Activation::Quadratic, ..shape.clone() }
}

#[test]
fn every_family_matches_the_reference() {
    let power = |p, c| Attention::PowerSoftmax { p, c, eps: Eps::Frozen };
    let shapes = [
        small(),
        Shape { residual: Residual::Parallel, tied_head: false, ..small() },
        Shape { norm: Norm::RmsNorm, bias: false, rotary: None, ..small() },
        Shape { gated: true, activation: Activation::Silu, ..small() },
        lean(&small()),
        lean(&Shape { residual: Residual::Parallel, tied_head: false, ..small() }),
        lean(&Shape { norm: Norm::RmsNorm, bias: false, gated: true, ..small() }),
        Shape { frozen_norms: vec!["layers.0.norm2".into(), "layers.1.norm1".into()], ..small() },
        Shape {
            frozen_norms: vec!["layers.0.norm2".into()],
            residual: Residual::Parallel,
            activation: Activation::Quadratic,
            ..small()
        },
        Shape { attention: power(2, 1.0), ..small() },
        Shape { attention: power(6, 3.0), ..small() },
        Shape {
            attention: Attention::PowerSoftmax { p: 4, c: 3.0, eps: Eps::Absolute { value: 20.0 } },
            ..small()
        },
        Shape { d_model: 12, heads: 3, head_dim: 3, ffn: 20, rotary: None, vocab: 37, ..small() },
        // Half a turn ahead of one copy is half a turn behind the next.
        Shape { heads: 1, head_dim: 16, rotary: Some(Rotary { dims: 16, base: 100.0 }), ..small() },
    ];
    for (index, shape) in shapes.into_iter().enumerate() {
        let model = certified(&shape, index as u64);
        let tokens = &random::windows(&shape, 8, 1, 5)[0];
        let plan = plan(&model, 512, &of(8));
        let error = worst(&plan, tokens);
        assert!(error < 1e-6, "shape {index}: {error}");
    }
}

#[test]
fn every_geometry_matches_the_reference() {
    let model = certified(&small(), 1);
    // From many copies of a short prompt to several blocks of a long one.
    for (slots, tokens, blocks, copies) in
        [(1024, 2, 1, 32), (512, 16, 1, 2), (256, 16, 1, 1), (128, 16, 2, 1), (64, 4, 1, 1)]
    {
        let plan = plan(&model, slots, &of(tokens));
        assert_eq!((plan.geometry().blocks, plan.geometry().copies), (blocks, copies));
        for length in [tokens, tokens - 1, 1] {
            let prompt = &random::windows(model.shape(), length, 1, 5)[0];
            let error = worst(&plan, prompt);
            assert!(error < 1e-6, "{slots} slots, {length} tokens: {error}");
        }
    }
}

#[test]
fn packed_scores_match_the_reference() {
    let heads = |heads, head_dim, dims| Shape {
        heads,
        head_dim,
        rotary: (dims > 0).then_some(Rotary { dims, base: 100.0 }),
        context: 32,
        ..small()
    };
    // One group of distances alone, two groups, four in two pairs; copies of the tokens, several
    // blocks, padding.
    for (shape, slots, tokens) in [
        (heads(1, 16, 8), 256, 16),
        (heads(2, 8, 8), 256, 16),
        (heads(4, 4, 4), 256, 16),
        (heads(4, 4, 0), 256, 16),
        (heads(2, 8, 4), 1024, 32),
        (heads(2, 8, 4), 256, 32),
        // A head that is all of a token; texts of fewer tokens than a head has features.
        (heads(1, 16, 16), 256, 16),
        (heads(1, 32, 32), 512, 16),
        (heads(2, 32, 8), 1024, 16),
        (heads(1, 64, 0), 1024, 16),
        // Both halves of a head as one, with and without an angle, half or all of the distances.
        (heads(2, 32, 32), 1024, 16),
        (heads(2, 16, 0), 512, 16),
    ] {
        let model = certified(&shape, 3);
        let plan = plan(&model, slots, &of(tokens));
        assert!(
            plan.geometry().shifts() >= 16 && plan.explain().contains("packed scores"),
            "{}",
            plan.explain()
        );
        for length in [tokens, tokens - 3] {
            let error = worst(&plan, &random::windows(&shape, length, 1, 5)[0]);
            assert!(error < 1e-6, "{shape:?}, {slots} slots, {length} tokens: {error}");
        }
    }
}

/// Rows narrower than a token are read with their beginning behind them, the feed-forward layer has
/// blocks of one width.
#[test]
fn rows_that_leave_slots_free_match_the_reference() {
    let narrow = Shape {
        d_model: 80,
        heads: 5,
        head_dim: 16,
        ffn: 200,
        rotary: Some(Rotary { dims: 8, base: 100.0 }),
        ..small()
    };
    let shapes = [
        narrow.clone(),
        Shape {
            norm: Norm::RmsNorm,
            bias: false,
            gated: true,
            activation: Activation::Silu,
            ..narrow.clone()
        },
        Shape { residual: Residual::Parallel, ..narrow.clone() },
        Shape {
            frozen_norms: vec!["layers.1.norm1".into()],
            activation: Activation::Quadratic,
            ..narrow.clone()
        },
        Shape { placement: Placement::Post, ..narrow.clone() },
    ];
    for (index, shape) in shapes.into_iter().enumerate() {
        let model = certified(&shape, index as u64);
        for (slots, copies) in [(1024, 1), (2048, 2)] {
            let plan = plan(&model, slots, &of(8));
            assert_eq!((plan.geometry().features, plan.geometry().copies), (128, copies));
            assert!(plan.explain().contains("attn.qkv.extend"), "{}", plan.explain());
            let error = worst(&plan, &random::windows(&shape, 7, 1, 5)[0]);
            assert!(error < 1e-6, "shape {index}, {slots} slots: {error}");
        }
    }
}

/// Its layers take a refresh at most, where those of the same shape take several.
#[test]
fn a_lean_shape_plans_a_refresh_a_layer() {
    let shape = lean(&Shape::preset("2x128").unwrap());
    let mut model = random::certified("2x128-lean", &shape, 1).unwrap();
    fit(&mut model, &FitOptions { reciprocal: 0.1, ..FitOptions::default() }).unwrap();
    let model = Arc::new(model);
    for (levels, most) in [(13, 4), (17, 2)] {
        let target = Target::uniform(1 << 15, levels, 40, 60).unwrap();
        let plan = Plan::compile(Arc::clone(&model), target, &of(32)).unwrap();
        println!("{}", plan.explain());
        assert!(plan.refreshes().0 <= most, "{levels} levels: {:?}", plan.refreshes_by_layer());
    }
}

#[test]
fn the_shipped_shape_plans_few_refreshes() {
    let shape = Shape::preset("2x128").unwrap();
    let model = certified(&shape, 1);
    let plan = plan(&model, 1 << 15, &of(32));
    println!("{}", plan.explain());
    assert!(plan.refreshes_by_layer().iter().all(|&n| n <= 6), "{:?}", plan.refreshes_by_layer());
    let greedy = plan.greedy_seconds().unwrap();
    assert!(greedy >= plan.seconds() && greedy < 3.0 * plan.seconds(), "{greedy}");
    let prompt = &random::windows(&shape, 32, 1, 5)[0];
    let error = worst(&plan, prompt);
    assert!(error < 1e-6, "{error}");
}

#[test]
fn too_few_levels_are_refused_by_name() {
    let model = certified(&small(), 1);
    let target = Target::uniform(256, 5, 40, 60).unwrap();
    let error = Plan::compile(model, target, &of(8)).err().unwrap();
    assert!(matches!(error, cipherlm_infer::Error::NoPlacement { .. }), "{error}");
}

#[test]
fn bad_prompts_are_refused() {
    let model = certified(&small(), 1);
    let plan = plan(&model, 256, &of(8));
    assert!(plan.pack(&[]).is_err());
    assert!(plan.pack(&[0; 9]).is_err());
    assert!(plan.pack(&[99]).is_err());
    let uncertified = Arc::new(random::weights_only("raw", &small(), 1).unwrap());
    let target = Target::uniform(256, 14, 40, 60).unwrap();
    assert!(Plan::compile(uncertified, target, &of(8)).is_err());
}

#[test]
fn a_plan_says_what_it_takes_and_why_it_refreshes() {
    let model = certified(&small(), 1);
    let small_vocabulary = plan(&model, 512, &of(8));
    for step in small_vocabulary.schedule() {
        assert_eq!(step.reason.is_some(), step.refreshed_to.is_some(), "{}", step.name);
        let Some(reason) = step.reason else { continue };
        assert!(
            reason.contains("takes") && reason.contains(&format!("it lands with {}", step.level_out)),
            "{reason}"
        );
        assert!(small_vocabulary.explain().contains(&reason));
    }
    // A vocabulary of hundreds of vectors is on the bill, and so are its weights.
    let shape = Shape { vocab: 4000, ..small() };
    let large = certified(&shape, 1);
    let narrow = plan(&large, 512, &of(8));
    let large = plan(&large, 512, &Options { positions: Positions::All, ..of(8) });
    let (less, more) = (small_vocabulary.memory(7), large.memory(7));
    assert!(less.vectors == 0 && more.vectors > 4 << 20, "{less:?} {more:?}");
    assert!(more.weights > 10 * less.weights, "{less:?} {more:?}");
    assert_eq!(more.total(), 7 + more.working());
    assert_eq!(more.working(), large.working_bytes());
    // Answered at one position it takes no more vectors than it fills.
    assert!(narrow.memory(7).vectors == 0, "{:?}", narrow.memory(7));
}

#[test]
fn layers_whose_polynomials_differ_have_prices_of_their_own() {
    let model = random::certified("small", &small(), 1).unwrap();
    let mut spec = model.spec().clone();
    let site = spec.sites.iter_mut().find(|s| s.name == "layers.1.ffn.activation").unwrap();
    // One depth, forty coefficients instead of sixty-four.
    let fit =
        |degree| cipherlm_model::Scheme::interpolate("gelu", site.function, site.range, degree).unwrap();
    let (short, long, range) = (fit(40), fit(63), site.range);
    site.scheme = Some(short);
    let other = spec.sites.iter_mut().find(|s| s.name == "layers.0.ffn.activation").unwrap();
    other.scheme = Some(long);
    other.range = range;
    let description = serde_json::to_string(&spec).unwrap();
    let model = Model::from_parts(&description, &model.weights().to_bytes()).unwrap();
    let plan = plan(&Arc::new(model), 512, &of(8));
    let seconds = |layer: usize| {
        let steps = plan.schedule();
        let step = steps.iter().find(|s| s.name == format!("layers.{layer}.ffn.activation")).unwrap().clone();
        (step.level_in - step.level_out, step.seconds / (step.level_out + 3) as f64)
    };
    assert_eq!(seconds(0).0, seconds(1).0, "one depth");
    assert!(seconds(0).1 > 1.1 * seconds(1).1, "{:?} {:?}", seconds(0), seconds(1));
}

/// A model whose residual stream is a hundred times as large at its end as at its beginning.
fn growing(shape: &Shape) -> Arc<Model> {
    let model = random::weights_only("growing", shape, 3).unwrap();
    let mut weights = model.weights().clone();
    for (name, dims) in shape.tensors() {
        let factor = match &name[..] {
            "embed.tokens" => 0.1,
            "layers.0.attn.out.weight" => 12.0,
            "layers.1.ffn.down.weight" => 80.0,
            _ => continue,
        };
        let values = model.weights().values(&name).unwrap().iter().map(|x| x * factor).collect();
        weights.insert(name, &dims, values).unwrap();
    }
    let model = model.with(shape.clone(), weights).unwrap();
    let windows = random::windows(shape, shape.context, 24, 3);
    let mut model = freeze_eps(&model, &windows, Freezing::at(30.0)).unwrap();
    certify(&mut model, &windows, &[], &Margins { variance: 3.0, activation: 2.0, ..Margins::default() })
        .unwrap();
    fit(&mut model, &FitOptions::default()).unwrap();
    Arc::new(model)
}

#[test]
fn a_stream_that_grows_changes_its_unit_on_the_way() {
    let shapes = [
        small(),
        Shape { residual: Residual::Parallel, ..small() },
        Shape { norm: Norm::RmsNorm, gated: true, ..small() },
    ];
    for shape in shapes {
        let model = growing(&shape);
        let plan = plan(&model, 512, &of(8));
        let steps = plan.explain();
        assert!(steps.contains("layers.0.mid.unit") && steps.contains("layers.1.hidden.unit"), "{steps}");
        assert!(!steps.contains("layers.0.hidden.unit"), "{steps}");
        let error = worst(&plan, &random::windows(&shape, 8, 1, 5)[0]);
        assert!(error < 1e-6, "{:?}: {error}", shape.residual);
    }
}
