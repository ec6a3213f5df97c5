//! Frozen norms and quadratic activations: as data, and in the reference pass.

use cipherlm_model::{
    Activation, Error, Mode, Model, ModelSpec, Norm, Positions, Residual, Runner, Shape, random,
};

fn lean(shape: Shape) -> Shape {
    Shape { frozen_norms: shape.norms(), activation: Activation::Quadratic, ..shape }
}

fn test_shape() -> Shape {
    Shape::preset("test").unwrap()
}

#[test]
fn descriptions_of_before_read_and_write_the_same() {
    let text = serde_json::to_string(&test_shape()).unwrap();
    assert!(!text.contains("frozen_norms"), "an unchanged model's description is as it was");
    assert_eq!(serde_json::from_str::<Shape>(&text).unwrap().function(), "unchanged");
    let model = random::certified("lean", &lean(test_shape()), 1).unwrap();
    let text = serde_json::to_string(model.spec()).unwrap();
    let read = serde_json::from_str::<ModelSpec>(&text).unwrap();
    assert_eq!((&read, read.shape.function()), (model.spec(), "lean"));
}

#[test]
fn a_lean_pass_is_the_same_in_one_piece_and_in_many() {
    for shape in [
        lean(test_shape()),
        lean(Shape { residual: Residual::Parallel, tied_head: false, ..test_shape() }),
        lean(Shape { norm: Norm::RmsNorm, bias: false, gated: true, ..test_shape() }),
        Shape { frozen_norms: vec!["layers.1.norm1".into()], ..test_shape() },
    ] {
        let model = random::certified("lean", &shape, 3).unwrap();
        let tokens = &random::windows(&shape, 12, 1, 9)[0];
        let run = |mode| Runner::new(&model, mode).unwrap().forward(tokens, Positions::All).unwrap();
        let exact = run(Mode::Exact);
        let worst = |other: Vec<Vec<f64>>| {
            let pairs = exact.iter().flatten().zip(other.iter().flatten());
            pairs.map(|(a, b)| (a - b).abs()).fold(0.0f64, f64::max)
        };
        let error = worst(run(Mode::Polynomial));
        assert!(error > 0.0 && error < 0.02, "{error}");
        let mut runner = Runner::new(&model, Mode::Exact).unwrap();
        let steps = tokens.iter().flat_map(|&t| runner.append(&[t], Positions::Last).unwrap()).collect();
        assert_eq!(worst(steps), 0.0);
    }
}

#[test]
fn a_frozen_norm_and_a_quadratic_are_what_they_say() {
    let shape = lean(Shape { layers: 1, ..test_shape() });
    let model = random::weights_only("lean", &shape, 3).unwrap();
    let mut runner = Runner::new(&model, Mode::Exact).unwrap().with_taps();
    runner.forward(&[1, 2, 3], Positions::All).unwrap();
    let tap = |name: &str| runner.tap(name).unwrap()[..].to_vec();
    let values = |name: &str| model.weights().values(name).unwrap();
    let (row, out) = (tap("embed"), tap("layers.0.norm1"));
    let mean = row[..16].iter().sum::<f64>() / 16.0;
    let (gain, bias) = (values("layers.0.norm1.gain"), values("layers.0.norm1.bias"));
    let expected = (row[5] - mean) * values("layers.0.norm1.root")[0] * gain[5] + bias[5];
    assert!((out[5] - expected).abs() < 1e-12);
    let (x, y) = (tap("layers.0.ffn.up")[7], tap("layers.0.ffn.activation")[7]);
    let [a, b] = ["square", "linear"].map(|part| values(&format!("layers.0.ffn.activation.{part}"))[7]);
    assert!((y - (a * x * x + b * x)).abs() < 1e-12);
}

#[test]
fn a_root_that_is_no_root_is_named() {
    let shape = lean(test_shape());
    let model = random::weights_only("lean", &shape, 3).unwrap();
    let mut weights = model.weights().clone();
    weights.insert("final_norm.root", &[1], vec![-1.0]).unwrap();
    let error = Model::new("lean", shape, weights).unwrap_err();
    assert!(matches!(&error, Error::Malformed { what, .. } if what == "final_norm.root"), "{error}");
}
