//! A model's description is believed only after it was checked, and dead weights make usable
//! ranges.

use cipherlm_model::{
    Attention, Eps, Error, Freezing, Margins, Mode, Model, Positions, Residual, Runner, Shape, certify,
    ensure_certified, fit, freeze_eps, random,
};
use serde_json::{Value, json};

fn test_shape() -> Shape {
    Shape::preset("test").unwrap()
}

/// Description and weights of a certified model.
fn files(shape: &Shape) -> (Value, Vec<u8>) {
    let model = random::certified("files", shape, 1).unwrap();
    (serde_json::to_value(model.spec()).unwrap(), model.weights().to_bytes())
}

fn site<'d>(description: &'d mut Value, name: &str) -> &'d mut Value {
    description["sites"].as_array_mut().unwrap().iter_mut().find(|s| s["name"] == name).unwrap()
}

#[test]
fn a_description_is_read_with_and_without_a_byte_order_mark() {
    let (description, weights) = files(&test_shape());
    let text = description.to_string();
    let plain = Model::from_parts(&text, &weights).unwrap();
    assert!(Model::from_parts(&format!("\u{feff}{text}"), &weights).unwrap() == plain);
    assert_eq!(plain.spec().format, "cipherlm-model");
}

#[test]
fn the_shipped_models_are_accepted() {
    for name in ["tiny", "stories-2x128"] {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models").join(name);
        let model = Model::load(&dir).unwrap();
        ensure_certified(&model).unwrap();
    }
}

/// Site, a word of the refusal, the change.
type Edit = (&'static str, &'static str, fn(&mut Value));

/// Every way of changing one field that would make the encrypted answer differ from the reference,
/// or a reader fail.
#[test]
fn sites_that_contradict_themselves_are_refused_by_name() {
    let (good, weights) = files(&test_shape());
    Model::from_parts(&good.to_string(), &weights).unwrap();
    let activation = "layers.0.ffn.activation";
    let edits: [Edit; 13] = [
        (activation, "its polynomial is for", |s| s["range"] = json!({"lo": -9.0, "hi": 9.0})),
        ("layers.1.norm2", "its polynomial is for", |s| s["scheme"]["range"]["hi"] = json!(77.0)),
        ("layers.0.norm1", "pole", |s| s["range"]["lo"] = json!(-1.0)),
        ("layers.0.attn.q", "empty", |s| s["range"] = json!({"lo": 1.0, "hi": 1.0})),
        ("layers.0.attn.q", "nothing to replace", |s| {
            s["scheme"] = json!({"range": {"lo": -1.0, "hi": 1.0}, "coefficients": [0.0, 1.0], "error": 0.0});
        }),
        (activation, "0 coefficients", |s| s["scheme"]["coefficients"] = json!([])),
        (activation, "5000 coefficients", |s| s["scheme"]["coefficients"] = json!(vec![1.0; 5000])),
        (activation, "error of its polynomial", |s| s["scheme"]["error"] = json!(-1.0)),
        ("embed", "calibration saw", |s| s["observed"]["count"] = json!(0)),
        ("embed", "calibration saw", |s| s["observed"]["not_finite"] = json!(3)),
        ("embed", "calibration saw", |s| s["observed"]["min"] = json!(1e9)),
        ("logits", "margin", |s| s["margin"] = json!(-2.0)),
        ("logits", "left its range", |s| s["violations"] = json!(u64::MAX)),
    ];
    for (name, word, edit) in edits {
        let mut bad = good.clone();
        edit(site(&mut bad, name));
        let error = Model::from_parts(&bad.to_string(), &weights).unwrap_err();
        let text = error.to_string();
        assert!(matches!(&error, Error::Site { site, .. } if site == name), "{name}: {text}");
        assert!(text.contains(word), "{name}: {text}");
    }
    let mut missing = good.clone();
    missing["sites"].as_array_mut().unwrap().remove(3);
    assert!(matches!(Model::from_parts(&missing.to_string(), &weights), Err(Error::Malformed { .. })));
}

#[test]
fn parallel_branches_share_one_norm() {
    let shape = Shape { residual: Residual::Parallel, ..test_shape() };
    let (good, weights) = files(&shape);
    Model::from_parts(&good.to_string(), &weights).unwrap();
    let mut bad = good.clone();
    let first = site(&mut bad, "layers.1.norm1").clone();
    let second = site(&mut bad, "layers.1.norm2");
    assert_eq!(first["range"], second["range"]);
    second["scheme"]["coefficients"][0] = json!(0.125);
    let error = Model::from_parts(&bad.to_string(), &weights).unwrap_err();
    assert!(matches!(&error, Error::Site { site, .. } if site == "layers.1.norm2"), "{error}");
    // In a sequential block they are two.
    let (mut sequential, weights) = files(&test_shape());
    site(&mut sequential, "layers.1.norm2")["scheme"]["coefficients"][0] = json!(0.125);
    Model::from_parts(&sequential.to_string(), &weights).unwrap();
}

#[test]
fn shapes_that_no_model_has_are_refused() {
    let (good, weights) = files(&test_shape());
    for (field, value) in [
        ("layers", json!(100_000)),
        ("kv_heads", json!(3)),
        ("kv_heads", json!(0)),
        ("heads", json!(0)),
        ("norm_eps", json!(-1.0)),
        ("head_dim", json!(1_000_000)),
        ("ffn", json!(u64::MAX / 2)),
    ] {
        let mut bad = good.clone();
        bad["shape"][field] = value;
        let error = Model::from_parts(&bad.to_string(), &weights).unwrap_err();
        assert!(matches!(&error, Error::Shape { field: f, .. } if *f == field), "{field}: {error}");
    }
    let mut surplus = good.clone();
    surplus["shape"]["depth"] = json!(1);
    assert!(Model::from_parts(&surplus.to_string(), &weights).unwrap_err().to_string().contains("depth"));
}

#[test]
fn denominators_of_zero_are_refused() {
    let model = random::weights_only("eps", &test_shape(), 1).unwrap();
    for value in [0.0, -1.0, 1e-60] {
        let mut weights = model.weights().clone();
        weights.insert("layers.1.attn.eps", &[2, 16], vec![value; 32]).unwrap();
        let error = Model::new("eps", test_shape(), weights).unwrap_err();
        assert!(error.to_string().contains("layers.1.attn.eps"), "{error}");
    }
}

/// Pruned heads and neurons, and a model that was never initialised.
#[test]
fn dead_weights_are_certified_to_ranges_that_can_be_divided_by() {
    let every = [".weight", ".bias"];
    let cases: [(&str, Vec<&str>); 3] = [
        ("a dead value map", vec!["layers.0.attn.v"]),
        ("a dead feed-forward layer", vec!["layers.1.ffn.up", "layers.1.ffn.down"]),
        ("nothing but zeros", vec!["embed.", "layers.", "final_norm.bias"]),
    ];
    for (what, dead) in cases {
        let model = random::weights_only("dead", &test_shape(), 1).unwrap();
        let mut weights = model.weights().clone();
        for (name, tensor) in model.weights().iter() {
            let hit = dead.iter().any(|d| name.starts_with(d))
                && !name.ends_with(".gain")
                && !name.ends_with(".eps");
            if hit && (every.iter().any(|e| name.ends_with(e)) || name.starts_with("embed.")) {
                weights.insert(name, &tensor.dims, vec![0.0; tensor.data.len()]).unwrap();
            }
        }
        let mut model = model.with(model.shape().clone(), weights).unwrap();
        let windows = random::windows(model.shape(), 16, 4, 9);
        model = freeze_eps(&model, &windows[..2], Freezing::at(30.0)).unwrap();
        // Random tokens reach further than text.
        let margins = Margins { variance: 3.0, activation: 3.0, magnitude: 3.0, denominator: 10.0 };
        certify(&mut model, &windows[..2], &windows[2..], &margins).unwrap();
        fit(&mut model, &Default::default()).unwrap();
        ensure_certified(&model).unwrap();
        for site in &model.spec().sites {
            assert!(
                site.range.magnitude() > 1e-7 || site.range.lo > 0.0,
                "{what}: {} {:?}",
                site.name,
                site.range
            );
        }
        let text = serde_json::to_string(model.spec()).unwrap();
        let again = Model::from_parts(&text, &model.weights().to_bytes()).unwrap();
        let run = |mode| {
            Runner::new(&again, mode).unwrap().forward(&windows[3], Positions::Last).unwrap()[0].clone()
        };
        let (exact, polynomial) = (run(Mode::Exact), run(Mode::Polynomial));
        assert!(
            exact.iter().zip(&polynomial).all(|(a, b)| (a - b).abs() < 0.05),
            "{what}: {exact:?} {polynomial:?}"
        );
    }
}

/// Scores of zero under a shift of zero: every row mean is zero, so are the maxima that constants
/// are frozen from.
#[test]
fn frozen_constants_of_dead_scores_are_positive() {
    let shape = Shape {
        attention: Attention::PowerSoftmax { p: 4, c: 0.0, eps: Eps::Absolute { value: 0.1 } },
        ..test_shape()
    };
    let model = random::weights_only("dead", &shape, 1).unwrap();
    let mut weights = model.weights().clone();
    weights.insert("layers.0.attn.q.weight", &[16, 16], vec![0.0; 256]).unwrap();
    weights.insert("layers.0.attn.q.bias", &[16], vec![0.0; 16]).unwrap();
    let model = model.with(shape, weights).unwrap();
    let windows = random::windows(model.shape(), 16, 3, 9);
    let mut frozen = freeze_eps(&model, &windows, Freezing::at(30.0)).unwrap();
    certify(&mut frozen, &windows[..2], &windows[2..], &Default::default()).unwrap();
    fit(&mut frozen, &Default::default()).unwrap();
}
