//! Vectors that share the slots of one go through a circuit as each of them does alone.

use super::support::*;
use cipherlm_circuits::linear::LinearTransform;
use cipherlm_circuits::slots::{
    self, Chain, Clear, ClearVector, Interleaved, KeyUse, Machine, Plain, Primitives, RefreshKind,
    RefreshProfile,
};
use cipherlm_ckks::Complex64;
use proptest::prelude::*;

const LANES: usize = 4;

/// A chain of the same levels with `factor` times as many slots.
fn wider(chain: &Chain, factor: usize) -> Chain {
    let levels = || 0..=chain.top();
    let moduli = levels().map(|level| chain.modulus(level)).collect();
    let scales = levels().map(|level| chain.scale(level)).collect();
    Chain::with_scales(factor * chain.slots(), moduli, scales).unwrap()
}

/// The inputs of a circuit as vector `lane` has them.
fn values_of(slots: usize, lane: usize) -> Vec<(Vec<Complex64>, usize)> {
    let turned = |(mut values, level): (Vec<Complex64>, usize)| {
        values.rotate_left(37 * lane);
        (values, level)
    };
    input_values(slots).into_iter().map(turned).collect()
}

fn lane(vector: &ClearVector, lane: usize, lanes: usize) -> Vec<Complex64> {
    vector.slots().unwrap().iter().copied().skip(lane).step_by(lanes).collect()
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn circuits_run_in_every_lane_as_they_do_alone(ops in prop::collection::vec(any_op(), 1..24)) {
        let params = params();
        let (chain, ops) = (Chain::of(&params).unwrap(), tame(&params, &ops));
        let slots = chain.slots();
        let below = Clear::new(wider(&chain, LANES));
        let together = Interleaved::new(&below, LANES).unwrap();
        prop_assert_eq!(together.slots(), slots);
        let own: Vec<_> = (0..LANES).map(|lane| values_of(slots, lane)).collect();
        let inputs = (0..own[0].len()).map(|input| {
            let values: Vec<_> = (0..slots * LANES).map(|i| own[i % LANES][input].0[i / LANES]).collect();
            below.input(values, own[0][input].1).unwrap()
        });
        let (found, found_trace) = run(&together, inputs.collect(), &ops);
        for (number, own) in own.into_iter().enumerate() {
            let alone = Clear::new(chain.clone());
            let inputs = own.into_iter().map(|(values, level)| alone.input(values, level).unwrap());
            let (expected, trace) = run(&alone, inputs.collect(), &ops);
            prop_assert_eq!(&trace, &found_trace);
            for (found, expected) in found.iter().zip(&expected) {
                prop_assert_eq!(lane(found, number, LANES), expected.slots().unwrap());
            }
            prop_assert_eq!(counts(&below), counts(&alone));
            let farther = |(key, levels)| match key {
                KeyUse::Rotate(steps) => (KeyUse::Rotate(steps * LANES), levels),
                other => (other, levels),
            };
            prop_assert_eq!(keys(&below), keys(&alone).into_iter().map(farther).collect::<Vec<_>>());
        }
    }
}

#[test]
fn lanes_differ_in_what_is_laid_out_for_the_slots_below() {
    let chain = Chain::uniform(8, 3, 40, 50).unwrap();
    let below = Clear::new(wider(&chain, 2));
    let together = Interleaved::new(&below, 2).unwrap();
    let alone = Clear::new(chain);
    let values = |seed: usize| (0..8).map(|i| value(seed, i)).collect::<Vec<_>>();
    let own = [values(1), values(2)];
    let plains = [Plain::real(values(3)), Plain::real(vec![0.5, -0.25])];
    // Neither lane has all of the diagonals.
    let transform = |shifts: [i64; 2], plain: &Plain| {
        LinearTransform::from_diagonals(8, shifts.map(|shift| (shift, plain.clone()))).unwrap()
    };
    let transforms = [transform([-1, 2], &plains[0]), transform([0, 2], &plains[1])];
    let joined = LinearTransform::interleaved(&[&transforms[0], &transforms[1]]).unwrap();
    let plain = Plain::interleaved(&plains, 8);
    let input = below.input((0..16).map(|i| own[i % 2][i / 2]).collect::<Vec<_>>(), 3).unwrap();
    let found = together.mul_plain(&together.linear_transform(&input, &joined).unwrap(), &plain).unwrap();
    for number in 0..2 {
        let input = alone.input(own[number].clone(), 3).unwrap();
        let expected = alone.linear_transform(&input, &transforms[number]).unwrap();
        let expected = alone.mul_plain(&expected, &plains[number]).unwrap();
        let error = distance(&lane(&found, number, 2), expected.slots().unwrap());
        assert!(error < 1e-12, "lane {number}: {error}");
    }
}

#[test]
fn what_does_not_fit_the_lanes_is_refused() {
    let below = Clear::new(Chain::uniform(32, 3, 40, 50).unwrap()).with_refresh(RefreshProfile {
        kind: RefreshKind::Sparse(16),
        input_level: 0,
        output_level: 3,
        range: 1.0,
        error: 0.0,
    });
    for lanes in [0, 3, 64] {
        let refused = Interleaved::new(&below, lanes).map(drop);
        assert!(matches!(refused, Err(slots::Error::Shape { have, .. }) if have == lanes), "{refused:?}");
    }
    let together = Interleaved::new(&below, 4).unwrap();
    let x = below.input(0.5, 3).unwrap();
    // More values than a lane has slots, and fewer than there are below.
    let long = Plain::real(vec![1.0; 16]);
    assert_eq!(together.mul_plain(&x, &long).unwrap_err(), slots::Error::Period { have: 16, slots: 8 });
    let other = LinearTransform::from_diagonals(16, [(1, Plain::from(1.0))]).unwrap();
    let refused = together.linear_transform(&x, &other).unwrap_err();
    assert!(matches!(refused, slots::Error::Shape { have: 16, need: 8, .. }), "{refused:?}");
    let own = LinearTransform::from_diagonals(8, [(1, Plain::from(1.0))]).unwrap();
    assert!(
        LinearTransform::interleaved(&[&own, &other]).is_err() && LinearTransform::interleaved(&[]).is_err()
    );
    // What repeats with four slots of a lane repeats with sixteen below.
    assert_eq!(together.refresh_profile(RefreshKind::Sparse(4)).unwrap().kind, RefreshKind::Sparse(4));
    assert!(together.refresh(&x, RefreshKind::Sparse(4), None).is_ok());
    assert!(matches!(
        together.refresh(&x, RefreshKind::Sparse(16), None),
        Err(slots::Error::NoRefresh { .. })
    ));
}
