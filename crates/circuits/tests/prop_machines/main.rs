//! The three machines agree: on levels, scales, operations, keys and refusals exactly, on values to
//! a stated precision.

mod interleaved;
mod noise;
mod pinned;
mod support;

use cipherlm_approx::{EvalPlan, Interval, Polynomial};
use cipherlm_circuits::linear::{LinearTransform, TokenLayout};
use cipherlm_circuits::polynomial::{evaluate, evaluate_all};
use cipherlm_circuits::slots::{self, Chain, Clear, Combination, Machine, Noise, Plain, Primitives};
use cipherlm_ckks::noise::NoiseModel;
use cipherlm_ckks::{Complex64, KeyRequest};
use proptest::prelude::*;
use support::*;

proptest! {
    #![proptest_config(cases(12))]

    #[test]
    fn random_circuits_run_alike(ops in prop::collection::vec(any_op(), 1..24)) {
        let params = params();
        let clear = Clear::new(Chain::of(&params).unwrap());
        let ops = tame(&params, &ops);
        let (expected, clear_trace) = run(&clear, clear_inputs(&clear), &ops);

        // A dry run knows everything but the values, and asks for the keys.
        let dry = Clear::dry(Chain::of(&params).unwrap());
        let (_, dry_trace) = run(&dry, clear_inputs(&dry), &ops);
        prop_assert_eq!(&dry_trace, &clear_trace);
        let setup = Setup::new(&params, &dry.log().key_request(&params));

        let inputs = input_values(params.slots());
        let inputs = inputs.iter().map(|(values, level)| setup.encrypt(values, *level)).collect();
        let (vectors, trace) = run(&setup.machine, inputs, &ops);
        prop_assert_eq!(&trace, &clear_trace);
        prop_assert_eq!(counts(&setup.machine), counts(&clear));
        prop_assert_eq!(keys(&setup.machine), keys(&clear));
        for (vector, expected) in vectors.iter().zip(&expected) {
            let error = distance(&setup.decrypt(vector), expected.slots().unwrap());
            // 45-bit scale, 2^11 coefficients: 26 bits leave room for the error growth of depth-6
            // circuits on values below 4.
            prop_assert!(error < (-26f64).exp2(), "error 2^{:.1}", error.log2());
        }
    }

    #[test]
    fn refusals_are_alike(ops in prop::collection::vec(any_op(), 1..40)) {
        // Without keys and without filtering: everything that can be refused before a key is needed
        // is, the same way.
        let params = params();
        let clear = Clear::dry(Chain::of(&params).unwrap());
        let (_, clear_trace) = run(&clear, clear_inputs(&clear), &ops);
        let setup = Setup::new(&params, &clear.log().key_request(&params));
        let inputs = input_values(params.slots());
        let inputs = inputs.iter().map(|(values, level)| setup.encrypt(values, *level)).collect();
        let (_, trace) = run(&setup.machine, inputs, &ops);
        prop_assert_eq!(trace, clear_trace);
    }
}

#[test]
fn a_missing_key_is_named() {
    let params = params();
    let setup = Setup::new(&params, &KeyRequest::new());
    let x = setup.encrypt(&[Complex64::ONE], 3);
    let error = setup.machine.rotate(&x, 5).unwrap_err();
    assert!(
        matches!(error, slots::Error::Ciphertext(cipherlm_ckks::Error::MissingKey { level: 3, .. })),
        "{error}"
    );
}

/// A constant below a unit of the scale is refused as a factor of its own, by every machine alike;
/// as a coefficient of a sum it is rounded like the others.
#[test]
fn what_would_round_to_nothing_is_refused_alike_and_rounded_in_sums() {
    fn product<M: Machine>(machine: &M, x: &M::Vector, plain: &Plain) -> Option<slots::Error> {
        let whole = machine.mul_plain(x, plain).err();
        assert_eq!(whole.is_some(), machine.mul_plain_to(x, plain, 1).is_err());
        assert_eq!(machine.mul_plain_lazy(x, plain).err(), None, "a term of a sum");
        whole
    }
    let params = params();
    let setup = Setup::new(&params, &KeyRequest::new());
    let (clear, noise) =
        (Clear::new(Chain::of(&params).unwrap()), Noise::new(NoiseModel::new(&params), 1).unwrap());
    let (one, ones) = (Plain::from(1.0), vec![Complex64::ONE; params.slots()]);
    let (x, y, z) = (clear.input(1.0, 3).unwrap(), noise.input(1.0, 3).unwrap(), setup.encrypt(&ones, 3));
    for plain in [Plain::from(1e-16), Plain::from(Complex64::new(0.0, -1e-15)), Plain::real(vec![1e-15, 0.0])]
    {
        let refused = product(&clear, &x, &plain);
        assert!(matches!(refused, Some(slots::Error::ValueTooSmall { .. })), "{refused:?}");
        assert_eq!(product(&noise, &y, &plain), refused);
        assert_eq!(product(&setup.machine, &z, &plain), refused);
        let sum = |scale| Combination {
            terms: vec![(&z, plain.clone()), (&z, one.clone())],
            ..Combination::at(scale)
        };
        let scale = setup.machine.scale(&z) * params.rescale_factor(3);
        let found = setup.decrypt(&setup.machine.combine(&sum(scale)).unwrap());
        assert!(distance(&found, &ones) < (-26f64).exp2());
    }
    assert_eq!(product(&setup.machine, &z, &Plain::from(0.0)), None);
}

#[test]
fn a_foreign_ciphertext_is_refused() {
    let params = params();
    let (ours, theirs) = (Setup::new(&params, &KeyRequest::new()), Setup::new(&params, &KeyRequest::new()));
    let foreign = theirs.encrypt(&[Complex64::ONE], 3).ciphertext().clone();
    assert!(matches!(
        ours.machine.input(foreign),
        Err(slots::Error::Ciphertext(cipherlm_ckks::Error::KeyMismatch { .. }))
    ));
}

#[test]
fn a_polynomial_of_a_ciphertext_has_its_bits() {
    let params = params();
    let interval = Interval::new(-2.0, 3.0).unwrap();
    let coefficients: Vec<f64> =
        (0..=23).map(|k| 0.8f64.powi(k) * if k % 3 == 0 { -0.5 } else { 0.4 }).collect();
    let polynomial = Polynomial::chebyshev(interval, coefficients.clone()).unwrap();
    let other = Polynomial::chebyshev(interval, coefficients.into_iter().rev().collect()).unwrap();
    let plan = EvalPlan::several(&[polynomial.clone(), other.clone()]).unwrap();
    assert_eq!(plan.depth() as usize, LEVELS);
    let dry = Clear::dry(Chain::of(&params).unwrap());
    evaluate_all(&dry, &plan, &dry.input(0.0, LEVELS).unwrap()).unwrap();
    let setup = Setup::new(&params, &dry.log().key_request(&params));
    let x: Vec<f64> = interval.linspace(params.slots()).collect();
    let slots: Vec<Complex64> = x.iter().map(|&x| Complex64::new(x, 0.0)).collect();
    let values = evaluate_all(&setup.machine, &plan, &setup.encrypt(&slots, LEVELS)).unwrap();
    for (value, polynomial) in values.iter().zip([polynomial, other]) {
        assert_eq!((setup.machine.level(value), setup.machine.is_canonical(value)), (0, true));
        let expected: Vec<_> = x.iter().map(|&x| Complex64::new(polynomial.eval(x), 0.0)).collect();
        let error = distance(&setup.decrypt(value), &expected);
        assert!(error < (-27f64).exp2(), "error 2^{:.1}", error.log2());
    }
    assert_eq!(counts(&setup.machine), counts(&dry));
}

#[test]
fn dense_and_packed_matrix_products_have_their_bits() {
    let params = params();
    let slots = params.slots();
    let size = 64;
    let rows: Vec<Vec<Complex64>> = (0..size)
        .map(|r| (0..size).map(|c| Complex64::new(value(r, c), value(c, r)) / size as f64).collect())
        .collect();
    let dense = LinearTransform::from_matrix(slots, &rows).unwrap();
    let layout = TokenLayout::new(slots, 32).unwrap();
    let weights: Vec<Vec<f64>> = (0..64).map(|i| (0..96).map(|o| value(i + 3, o) / 8.0).collect()).collect();
    let packed = layout.matmul(&weights).unwrap();

    let mut request = KeyRequest::new();
    for transform in [&dense, &packed] {
        request.rotations(&params, transform.rotations().into_iter().map(|k| k as i64), 2);
    }
    let setup = Setup::new(&params, &request);
    let input: Vec<Complex64> = (0..size).map(|i| Complex64::new(value(9, i), value(10, i))).collect();
    let repeated: Vec<Complex64> = (0..slots).map(|i| input[i % size]).collect();
    let result = setup.machine.linear_transform(&setup.encrypt(&repeated, 2), &dense).unwrap();
    let product: Vec<Complex64> =
        rows.iter().map(|row| row.iter().zip(&input).map(|(a, b)| a * b).sum()).collect();
    let expected: Vec<Complex64> = (0..slots).map(|i| product[i % size]).collect();
    let error = distance(&setup.decrypt(&result), &expected);
    assert!(error < (-31f64).exp2(), "error 2^{:.1}", error.log2());

    let tokens: Vec<Vec<f64>> =
        (0..layout.tokens()).map(|t| (0..64).map(|i| value(t, i)).collect()).collect();
    let inputs: Vec<_> = layout
        .pack(&tokens)
        .unwrap()
        .iter()
        .map(|v| setup.encrypt(&v.iter().map(|&x| Complex64::new(x, 0.0)).collect::<Vec<_>>(), 2))
        .collect();
    let outputs = setup.machine.linear_transforms(&inputs.iter().collect::<Vec<_>>(), &packed).unwrap();
    let decrypted: Vec<Vec<f64>> =
        outputs.iter().map(|v| setup.decrypt(v).iter().map(|slot| slot.re).collect()).collect();
    let result = layout.unpack(&decrypted, layout.tokens(), 96).unwrap();
    for (token, row) in tokens.iter().enumerate() {
        for o in 0..96 {
            let expected: f64 = row.iter().zip(&weights).map(|(x, w)| x * w[o]).sum();
            let error = (result[token][o] - expected).abs();
            assert!(error < (-28f64).exp2(), "token {token}, output {o}: error 2^{:.1}", error.log2());
        }
    }
}

#[test]
fn trivial_vectors_and_cached_plaintexts_work() {
    let params = params();
    let setup = Setup::new(&params, &KeyRequest::new());
    let machine = setup.machine.with_plain_cache(1 << 20);
    let x = machine.trivial(&vec![0.5, -0.25].into(), 3).unwrap();
    let plain = vec![2.0, 4.0, 1.0, 8.0].into();
    let (first, second) = (machine.mul_plain(&x, &plain).unwrap(), machine.mul_plain(&x, &plain).unwrap());
    for y in [first, second] {
        let slots = setup.secret.decrypt(y.ciphertext()).unwrap().decode().real();
        for (i, expected) in [1.0, -1.0, 0.5, -2.0].into_iter().enumerate() {
            assert!((slots[i] - expected).abs() < (-30f64).exp2());
        }
    }
    // Two uses, one encoding of the multiplier and one of the vector itself.
    assert_eq!(machine.log().total(cipherlm_circuits::slots::OpKind::Encode).count, 2);
}

#[test]
fn a_single_polynomial_matches_the_clear_machine() {
    let params = params();
    let polynomial = Polynomial::chebyshev(Interval::UNIT, vec![0.1, 0.3, -0.2, 0.05]).unwrap();
    let plan = EvalPlan::new(&polynomial).unwrap();
    let mut request = KeyRequest::new();
    request.relin(4);
    let setup = Setup::new(&params, &request);
    let values = vec![Complex64::new(0.25, 0.0); params.slots()];
    let y = evaluate(&setup.machine, &plan, &setup.encrypt(&values, 4)).unwrap();
    let expected = vec![Complex64::new(polynomial.eval(0.25), 0.0); params.slots()];
    assert_eq!(setup.machine.level(&y), 2);
    let error = distance(&setup.decrypt(&y), &expected);
    assert!(error < (-31f64).exp2(), "error 2^{:.1}", error.log2());
}
