//! The noise machine against encryption: never below, within two bits, op by op and over circuits.

use crate::support::*;
use cipherlm_approx::{EvalPlan, Interval, Polynomial};
use cipherlm_circuits::polynomial::evaluate;
use cipherlm_circuits::slots::{
    Chain, Clear, Encrypted, EncryptedVector, Machine, Noise, NoiseVector, Primitives, RefreshKind,
    RefreshProfile,
};
use cipherlm_ckks::noise::NoiseModel;
use cipherlm_ckks::{Complex64, KeyRequest, Params, Plaintext, presets};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Errors below this are those of double precision in the measurement itself.
const FLOOR: f64 = 1.0 / (1u64 << 46) as f64;

fn measured(setup: &Setup, vector: &EncryptedVector, exact: &[Complex64]) -> (f64, f64) {
    let slots = setup.decrypt(vector);
    let squares: Vec<f64> = slots.iter().zip(exact).map(|(a, b)| (a - b).norm_sqr()).collect();
    let rms = (squares.iter().sum::<f64>() / squares.len() as f64).sqrt();
    (rms, squares.into_iter().fold(0.0, f64::max).sqrt())
}

/// Asserts that the prediction is not below the measurement and within two bits of it.
fn assert_predicted(what: &str, setup: &Setup, vector: &EncryptedVector, noise: &NoiseVector) {
    assert_bounded(what, setup, vector, noise, 2.0);
}

/// Asserts that the prediction is not below the measurement, and above it by at most `limit` bits;
/// returns by how many it is, for all slots together and for the worst.
fn assert_bounded(
    what: &str,
    setup: &Setup,
    vector: &EncryptedVector,
    noise: &NoiseVector,
    limit: f64,
) -> [f64; 2] {
    let (rms, worst) = measured(setup, vector, noise.exact());
    let predicted = noise.prediction();
    let bits = |x: f64| x.max(FLOOR).log2();
    [("rms", rms, predicted.rms), ("worst", worst, predicted.worst)].map(|(name, measured, predicted)| {
        let over = bits(predicted) - bits(measured);
        assert!(
            (0.0..=limit).contains(&over) || measured < FLOOR && predicted < 2.0 * FLOOR,
            "{what}: {name} measured 2^{:.2}, predicted 2^{:.2}",
            bits(measured),
            bits(predicted)
        );
        over
    })
}

/// Secrets under which a circuit runs. No run may show more than is predicted; the one that shows
/// most must come within two bits. (The worst slot of a single run is sometimes a lucky one.)
const RUNS: usize = 4;

struct Bench {
    setup: Setup,
    noise: Noise,
}

impl Bench {
    fn new(params: &Params, request: &KeyRequest, seed: u64) -> Self {
        let model = NoiseModel::new(params).with_keys(request.clone());
        Self { setup: Setup::new(params, request), noise: Noise::new(model, seed).unwrap() }
    }

    fn inputs(&self) -> (Vec<EncryptedVector>, Vec<NoiseVector>) {
        self.enter(input_values(self.noise.slots()).into())
    }

    fn enter(&self, inputs: Vec<(Vec<Complex64>, usize)>) -> (Vec<EncryptedVector>, Vec<NoiseVector>) {
        let encrypted = inputs.iter().map(|(values, level)| self.setup.encrypt(values, *level)).collect();
        (
            encrypted,
            inputs.into_iter().map(|(values, level)| self.noise.input(values, level).unwrap()).collect(),
        )
    }
}

pub(crate) fn single_ops() -> Vec<Op> {
    vec![
        Op::Add(0, 0),
        Op::Add(0, 1),
        Op::Sub(0, 2),
        Op::Neg(1),
        Op::AddPlain(0, 7),
        Op::MulPlain(0, 7),
        Op::MulPlain(0, 9),
        Op::MulPlainLazy(1, 8),
        Op::MulConst(0, 3),
        Op::Mul(0, 1),
        Op::MulLazy(1, 1),
        Op::Square(0),
        Op::MulSum([0, 1, 2, 0]),
        Op::ToLevel(0, 2),
        Op::Rotate(0, 1),
        Op::Rotate(2, -5),
        Op::RotateMany(0, [1, -3, 700]),
        Op::RotateSum(0),
        Op::RotateAdd(0, [3, -700]),
        Op::Conjugate(1),
        Op::MulI(0),
        Op::TwiceReal(0),
        Op::Linear(0, 8),
        Op::Linear(1, 33),
        Op::Block([0, 1], 17),
    ]
}

#[test]
fn every_operation_is_predicted() {
    predict_every_operation(0);
}

/// The same under forty secrets: a prediction that fails once in a hundred runs shows here.
#[test]
#[ignore = "slow"]
fn slow_every_operation_is_predicted_under_forty_secrets() {
    let mut extremes: BTreeMap<String, [f64; 4]> = BTreeMap::new();
    for round in 0..40 {
        for (name, [rms, worst]) in predict_every_operation(round) {
            let [a, b, c, d] = extremes.get(&name).copied().unwrap_or([9.0, -9.0, 9.0, -9.0]);
            extremes.insert(name, [a.min(rms), b.max(rms), c.min(worst), d.max(worst)]);
        }
    }
    for (name, [a, b, c, d]) in extremes {
        println!("{name:<40} rms over by {a:.2} to {b:.2} bits, worst slot by {c:.2} to {d:.2}");
    }
}

fn predict_every_operation(round: u64) -> Vec<(String, [f64; 2])> {
    let mut over = Vec::new();
    for (degree, bits) in [(1 << 11, 40.0), (1 << 12, 45.0)] {
        let params = presets::insecure::small(degree, bits, LEVELS).unwrap();
        for (index, op) in single_ops().into_iter().enumerate() {
            let dry = Clear::dry(Chain::of(&params).unwrap());
            step(&dry, &clear_inputs(&dry), &op).unwrap();
            let bench = Bench::new(&params, &dry.log().key_request(&params), round << 8 | index as u64);
            let (encrypted, noise) = bench.inputs();
            let results = step(&bench.setup.machine, &encrypted, &op).unwrap();
            let predicted = step(&bench.noise, &noise, &op).unwrap();
            for (result, predicted) in results.iter().zip(&predicted) {
                let what = format!("{op:?} at degree {degree}");
                let bits = assert_bounded(&what, &bench.setup, result, predicted, 2.0);
                over.push((what, bits));
            }
        }
    }
    over
}

#[test]
fn fresh_encryptions_are_predicted() {
    let params = params();
    let bench = Bench::new(&params, &KeyRequest::new(), 1);
    let (encrypted, noise) = bench.inputs();
    for (vector, noise) in encrypted.iter().zip(&noise) {
        assert_predicted("secret-key encryption", &bench.setup, vector, noise);
    }
    let values = input_values(params.slots())[0].0.clone();
    let machine: &Encrypted = &bench.setup.machine;
    let plaintext = Plaintext::encode(&params, &values, params.slots(), machine.chain().scale(4)).unwrap();
    let public = bench.setup.secret.public_key().unwrap().encrypt(&plaintext, 4).unwrap();
    let noise = bench.noise.input_public(values, 4).unwrap();
    assert_predicted("public-key encryption", &bench.setup, &machine.input(public).unwrap(), &noise);
}

#[test]
fn a_polynomial_is_predicted() {
    let params = params();
    for degree in [3, 7, 15, 31] {
        let coefficients =
            (0..=degree).map(|k| 0.7f64.powi(k) * if k % 3 == 0 { -0.6 } else { 0.5 }).collect();
        let plan = EvalPlan::new(&Polynomial::chebyshev(Interval::UNIT, coefficients).unwrap()).unwrap();
        let dry = Clear::dry(Chain::of(&params).unwrap());
        evaluate(&dry, &plan, &dry.input(0.0, LEVELS).unwrap()).unwrap();
        let bench = Bench::new(&params, &dry.log().key_request(&params), degree as u64);
        let x: Vec<Complex64> = Interval::UNIT.linspace(params.slots()).map(Complex64::from).collect();
        let result = evaluate(&bench.setup.machine, &plan, &bench.setup.encrypt(&x, LEVELS)).unwrap();
        let predicted = evaluate(&bench.noise, &plan, &bench.noise.input(x, LEVELS).unwrap()).unwrap();
        assert_predicted(&format!("degree {degree}"), &bench.setup, &result, &predicted);
    }
}

#[test]
fn a_refresh_adds_the_error_of_its_profile() {
    let profile =
        RefreshProfile { kind: RefreshKind::Full, input_level: 0, output_level: 5, range: 2.0, error: 1e-6 };
    let noise = Noise::new(NoiseModel::new(&params()), 3).unwrap().with_refresh(profile);
    let x = noise.input(vec![0.5, -0.5], 1).unwrap();
    let y = noise.refresh(&x, RefreshKind::Full, None).unwrap();
    assert_eq!(noise.level(&y), 5);
    assert!((1e-6..2e-6).contains(&y.prediction().rms));
    let sample: f64 = y.noisy().iter().zip(y.exact()).map(|(a, b)| (a - b).norm_sqr()).sum();
    let rms = (sample / y.exact().len() as f64).sqrt();
    assert!((0.8e-6..1.2e-6).contains(&rms), "{rms}");
}

#[test]
fn a_seed_fixes_the_sample() {
    let run = |seed| {
        let noise = Noise::new(NoiseModel::new(&params()), seed).unwrap();
        let x = noise.input(0.75, 3).unwrap();
        noise.square(&x).unwrap().noisy().to_vec()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

proptest! {
    #![proptest_config(cases(12))]

    #[test]
    fn random_circuits_are_predicted(ops in prop::collection::vec(any_op(), 1..16), seed in any::<u64>()) {
        let params = params();
        let ops = tame(&params, &ops);
        let dry = Clear::dry(Chain::of(&params).unwrap());
        let (_, dry_trace) = run(&dry, clear_inputs(&dry), &ops);
        let bench = Bench::new(&params, &dry.log().key_request(&params), seed);
        let (encrypted, noise) = bench.inputs();
        let (vectors, _) = run(&bench.setup.machine, encrypted, &ops);
        let (predicted, trace) = run(&bench.noise, noise, &ops);
        prop_assert_eq!(trace, dry_trace);
        prop_assert_eq!(counts(&bench.noise), counts(&dry));
        for (vector, predicted) in vectors.iter().zip(&predicted) {
            // Operands of a random circuit share errors, which may cancel (x - x): no prediction
            // from variances can follow.
            assert_bounded("circuit", &bench.setup, vector, predicted, f64::INFINITY);
        }
    }

    #[test]
    fn random_circuits_of_independent_operands_are_predicted_within_two_bits(
        ops in prop::collection::vec(any_op(), 1..24),
        seed in any::<u64>(),
    ) {
        let params = params();
        let inputs = many_inputs(params.slots());
        let ops = apart(&params, &inputs, &ops);
        let dry = Clear::dry(Chain::of(&params).unwrap());
        let enter = |(values, level): &(_, _)| dry.input(Vec::clone(values), *level).unwrap();
        run(&dry, inputs.iter().map(enter).collect(), &ops);
        let request = dry.log().key_request(&params);
        let bench = Bench::new(&params, &request, seed);
        let (_, noise) = bench.enter(inputs.clone());
        let (predicted, _) = run(&bench.noise, noise, &ops);
        let mut over = vec![[f64::INFINITY; 2]; predicted.len()];
        for _ in 0..RUNS {
            let setup = Setup::new(&params, &request);
            let encrypted = inputs.iter().map(|(values, level)| setup.encrypt(values, *level)).collect();
            let (vectors, _) = run(&setup.machine, encrypted, &ops);
            for (index, (vector, predicted)) in vectors.iter().zip(&predicted).enumerate() {
                let what = format!("vector {index} of {ops:?}");
                let bits = assert_bounded(&what, &setup, vector, predicted, f64::INFINITY);
                over[index] = [0, 1].map(|i| over[index][i].min(bits[i]));
            }
        }
        for (index, over) in over.iter().enumerate() {
            prop_assert!(over.iter().all(|&bits| bits <= 2.0), "vector {} of {:?}: above by {:?} \
                bits", index, ops, over);
        }
    }
}
