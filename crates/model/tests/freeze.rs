//! Frozen epsilons: what `freeze_eps` writes, against row means computed from the queries and keys
//! that the pass shows.

use cipherlm_model::{Attention, Eps, Freezing, Mode, Model, Positions, Runner, Shape, freeze_eps, random};

const RATIO: f64 = 30.0;

/// Largest row mean of every layer, head and row over the windows.
fn row_maxima(model: &cipherlm_model::Model, windows: &[Vec<u32>]) -> Vec<Vec<f64>> {
    let shape = model.shape();
    let Attention::PowerSoftmax { p, c, .. } = shape.attention else { panic!("not a PowerSoftmax") };
    let (width, dh) = (shape.attention_width(), shape.head_dim);
    let mut out = vec![vec![0.0f64; shape.context]; shape.layers * shape.heads];
    let mut runner = Runner::new(model, Mode::Exact).unwrap().with_taps();
    for window in windows {
        runner.forward(window, Positions::All).unwrap();
        for l in 0..shape.layers {
            let [q, k] = ["q", "k"].map(|x| runner.tap(&format!("layers.{l}.attn.{x}")).unwrap());
            for h in 0..shape.heads {
                for (row, largest) in out[l * shape.heads + h].iter_mut().enumerate().take(window.len()) {
                    let score = |key: usize| {
                        let part = |x: &[f64], at: usize| x[at * width + h * dh..][..dh].to_vec();
                        let dot: f64 = part(q, row).iter().zip(part(k, key)).map(|(a, b)| a * b).sum();
                        (dot / (dh as f64).sqrt() + c).powi(p as i32)
                    };
                    let mean = (0..=row).map(score).sum::<f64>() / (row + 1) as f64;
                    *largest = largest.max(mean);
                }
            }
        }
    }
    out
}

#[test]
fn a_frozen_row_borrows_from_rows_near_it_and_rows_never_seen_from_the_last() {
    let absolute = Attention::PowerSoftmax { p: 4, c: 3.0, eps: Eps::Absolute { value: 0.81 } };
    // Taps show queries and keys before they are rotated.
    let test = Shape::preset("test").unwrap();
    let shape = Shape { attention: absolute, rotary: None, positions: true, ..test };
    let model = random::weights_only("freeze", &shape, 5).unwrap();
    let windows = random::windows(&shape, 11, 4, 9);
    let maxima = row_maxima(&model, &windows);
    for reach in [1.0, 2.5] {
        borrows(&model, &windows, &maxima, reach);
    }
    assert!(
        freeze_eps(&model, &windows, Freezing { reach: 0.5, ..Freezing::at(RATIO) }).is_err(),
        "a row looks at itself"
    );
}

fn borrows(model: &Model, windows: &[Vec<u32>], maxima: &[Vec<f64>], reach: f64) {
    let shape = model.shape();
    let frozen = freeze_eps(model, windows, Freezing { reach, ..Freezing::at(RATIO) }).unwrap();
    assert!(matches!(frozen.shape().attention, Attention::PowerSoftmax { eps: Eps::Frozen, p: 4, .. }));
    let mut borrowed = 0;
    for l in 0..shape.layers {
        let eps = frozen.weights().values(&format!("layers.{l}.attn.eps")).unwrap();
        for h in 0..shape.heads {
            let rows = &maxima[l * shape.heads + h][..11];
            for row in 0..shape.context {
                let at = row.min(10);
                let is_near = |other: usize| {
                    let (low, high) = (at as f64 / reach, at as f64 * reach);
                    at.abs_diff(other) <= 2 || (other as f64 <= high && other as f64 >= low.floor())
                };
                let largest = (0..11).filter(|&i| is_near(i)).map(|i| rows[i]).fold(0.0, f64::max);
                borrowed += usize::from(largest > rows[at]);
                let found = eps[h * shape.context + row] * RATIO;
                assert!(
                    // Maps in f32, to the fourth power.
                    (found / largest - 1.0).abs() < 1e-5,
                    "layer {l} head {h} row {row}: {found} against {largest}"
                );
            }
        }
    }
    assert!(borrowed > 10, "{borrowed} rows borrow: the text shows no smoothing");
}

#[test]
fn frozen_rows_can_be_raised_and_are_not_lowered() {
    let shape = Shape {
        attention: Attention::PowerSoftmax { p: 4, c: 3.0, eps: Eps::Absolute { value: 0.81 } },
        ..Shape::preset("test").unwrap()
    };
    let model = random::weights_only("raise", &shape, 6).unwrap();
    let [some, others] = [1, 2].map(|seed| random::windows(&shape, 12, 3, seed));
    let first = freeze_eps(&model, &some, Freezing::at(RATIO)).unwrap();
    let how = Freezing::at(0.9 * RATIO);
    let fresh = freeze_eps(&first, &others, how).unwrap();
    let raised = freeze_eps(&first, &others, Freezing { raise: true, ..how }).unwrap();
    let mut came = [0; 2];
    for l in 0..shape.layers {
        let name = format!("layers.{l}.attn.eps");
        let [first, fresh, raised] = [&first, &fresh, &raised].map(|m| m.weights().values(&name).unwrap());
        for ((first, fresh), raised) in first.iter().zip(fresh).zip(raised) {
            assert_eq!(*raised, first.max(*fresh));
            came[usize::from(fresh > first)] += 1;
        }
    }
    assert!(came[0] > 0 && came[1] > 0, "{came:?}: one of the two did not happen");
}
