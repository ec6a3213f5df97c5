//! What the noise machine says of every operation, as numbers: a change of the model shows here,
//! and has to be meant. That they are right is what the comparison with encryption says.

use crate::noise::single_ops;
use crate::support::*;
use cipherlm_approx::{EvalPlan, Interval, Polynomial};
use cipherlm_circuits::linear::LinearTransform;
use cipherlm_circuits::polynomial::evaluate;
use cipherlm_circuits::slots::{
    Chain, Clear, Machine, Noise, NoiseVector, Plain, Primitives, RefreshKind, RefreshProfile,
};
use cipherlm_ckks::Complex64;
use cipherlm_ckks::noise::NoiseModel;

/// Sums over all slots, as powers of two: mean variances, their spreads, squared sampled errors.
fn summary(vector: &NoiseVector) -> [f64; 3] {
    let log = |sum: f64| (sum.log2() * 1e4).round() / 1e4;
    let squares = vector.exact().iter().zip(vector.noisy()).map(|(a, b)| (a - b).norm_sqr());
    [
        log(vector.variance().iter().map(|v| v.mean).sum()),
        log(vector.variance().iter().map(|v| v.spread).sum()),
        log(squares.sum()),
    ]
}

/// Diagonals to both sides, baby and giant steps, values that differ by slot.
fn uneven_transform(slots: usize) -> LinearTransform {
    let diagonal = |shift: i64| {
        let value = |slot: usize| ((slot as i64 * 7 + shift * 5).rem_euclid(32)) as f64 / 16.0 - 0.9;
        (0, 0, shift, Plain::real((0..32).map(value).collect::<Vec<_>>()))
    };
    LinearTransform::block(slots, 1, 1, (-24..24).map(diagonal)).unwrap()
}

/// `vector` with errors that differ by slot, through the transform.
fn uneven<M: Machine>(machine: &M, vector: &M::Vector, rescale: bool) -> M::Vector {
    let ramp: Vec<f64> = (0..machine.slots()).map(|slot| 0.05 + slot as f64 / 300.0).collect();
    let vector = machine.mul_plain(vector, &Plain::real(ramp)).unwrap();
    let transform = uneven_transform(machine.slots());
    let scale = machine.chain().scale(machine.level(&vector));
    let apply = if rescale { M::linear_transform_rescale } else { M::linear_transform_at };
    apply(machine, &[&vector], &transform, scale).unwrap().remove(0)
}

fn everything() -> Vec<(String, [f64; 3])> {
    let params = params();
    let dry = Clear::dry(Chain::of(&params).unwrap());
    let ops = single_ops();
    for op in &ops {
        step(&dry, &clear_inputs(&dry), op).unwrap();
    }
    assert!(uneven_transform(dry.slots()).cost().mod_ups > 2, "no giant steps");
    uneven(&dry, &dry.input(0.5, LEVELS).unwrap(), true);
    let coefficients = (0..=15).map(|k| 0.7f64.powi(k) * if k % 3 == 0 { -0.6 } else { 0.5 }).collect();
    let plan = EvalPlan::new(&Polynomial::chebyshev(Interval::UNIT, coefficients).unwrap()).unwrap();
    evaluate(&dry, &plan, &dry.input(0.0, LEVELS).unwrap()).unwrap();
    let model = NoiseModel::new(&params).with_keys(dry.log().key_request(&params));
    let refresh =
        RefreshProfile { kind: RefreshKind::Full, input_level: 0, output_level: 3, range: 4.0, error: 1e-6 };
    let noise = Noise::new(model, 11).unwrap().with_refresh(refresh);
    let inputs: Vec<NoiseVector> = input_values(noise.slots())
        .into_iter()
        .map(|(values, level)| noise.input(values, level).unwrap())
        .collect();
    let mut found: Vec<(String, [f64; 3])> = Vec::new();
    let mut add = |name: String, vectors: &[NoiseVector]| {
        found.extend(vectors.iter().map(|vector| (name.clone(), summary(vector))));
    };
    add("inputs".into(), &inputs);
    for op in &ops {
        add(format!("{op:?}"), &step(&noise, &inputs, op).unwrap());
    }
    let x: Vec<Complex64> = Interval::UNIT.linspace(noise.slots()).map(Complex64::from).collect();
    let x = noise.input(x, LEVELS).unwrap();
    add("polynomial".into(), &[evaluate(&noise, &plan, &x).unwrap()]);
    for rescale in [false, true] {
        add(format!("uneven, rescale {rescale}"), &[uneven(&noise, &x, rescale)]);
    }
    add("public".into(), &[noise.input_public(0.25, 2).unwrap()]);
    add("trivial".into(), &[noise.trivial(&0.3.into(), 2).unwrap()]);
    // A vector plus and minus itself, and itself times i.
    add("twice".into(), &[noise.add(&inputs[0], &inputs[0]).unwrap()]);
    add("turned".into(), &[noise.add(&inputs[0], &noise.mul_i(&inputs[0]).unwrap()).unwrap()]);
    let scale = noise.scale(&inputs[0]) * noise.scale(&inputs[0]);
    add("rescaled".into(), &[noise.with_scale(&inputs[0], scale).unwrap()]);
    let low = noise.drop_to(&inputs[0], 0).unwrap();
    add("refreshed".into(), &[noise.refresh(&low, RefreshKind::Full, None).unwrap()]);
    found
}

#[test]
fn predictions_are_those_on_record() {
    let found = everything();
    let lines: Vec<String> =
        found.iter().map(|(name, [a, b, c])| format!("{name} {a:.4} {b:.4} {c:.4}")).collect();
    let wanted: Vec<&str> = include_str!("pinned.txt").lines().collect();
    for (found, wanted) in lines.iter().zip(&wanted) {
        assert_eq!(found, wanted, "all of them:\n{}", lines.join("\n"));
    }
    assert_eq!(lines.len(), wanted.len(), "all of them:\n{}", lines.join("\n"));
}
