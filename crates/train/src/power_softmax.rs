//! PowerSoftmax: attention weights proportional to `(x + c)^p` for an even `p`.
//!
//! One function, three ways to compute it:
//!
//! | form | weight of key j | use |
//! |---|---|---|
//! | sum | `y_j / (eps + sum y)` | the definition |
//! | stable | the same with `y = ((x + c) / r)^p` and `eps / r^p`, `r` the row's largest magnitude | low precision, high p |
//! | mean | `(y_j / n) / (eps + sum y / n)` | inference: the normaliser's range does not grow with the row |
//!
//! with `y_j = m_j (x_j + c)^p`, the mask `m_j` 0 or 1 and `n` the row's number of unmasked keys.
//! The stable form is the sum form exactly, because epsilon is divided by `r^p` as well; with a
//! constant epsilon it would be another function, one whose epsilon does nothing. The mean form
//! equals the sum form with `n * eps` for `eps`.

use burn::tensor::{DType, Tensor};

use cipherlm_model::Eps;

use crate::arch::{Form, Power};

/// The two halves of the operator; the division is left to the caller, who can apply it after the
/// product with the values (one reciprocal per row instead of one per key).
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    /// Unnormalised weights `[batch, heads, rows, keys]`, zero where masked.
    pub(crate) numerator: Tensor<4>,
    /// Positive normaliser `[batch, heads, rows, 1]`.
    pub(crate) denominator: Tensor<4>,
    /// Row mean `sum y / n` before epsilon and before any row scaling, `[batch, heads, rows, 1]`.
    pub(crate) row_mean: Tensor<4>,
}

/// Evaluates a PowerSoftmax.
///
/// * `scores`: `[batch, heads, rows, keys]`, without the shift.
/// * `mask`: 0/1, broadcastable to `scores`.
/// * `counts`: unmasked keys per row, broadcastable to `[batch, heads, rows, 1]`, at least 1.
/// * `frozen`: epsilons broadcastable to `[batch, heads, rows, 1]`, read with [`Eps::Frozen`] (1e-6
///   if absent).
///
/// Half-precision scores are widened to f32 for the power and the sum.
pub(crate) fn parts(
    op: &Power,
    scores: Tensor<4>,
    mask: Tensor<4>,
    counts: Tensor<4>,
    frozen: Option<Tensor<4>>,
) -> Parts {
    let scores = widen(scores);
    let shifted = if op.c == 0.0 { scores } else { scores.add_scalar(op.c) };
    // The stable form also masks before taking the row maximum; the others mask after the power.
    let (base, radius) = match op.form {
        Form::Stable => {
            let masked = shifted.mul(mask.clone());
            let radius = masked.clone().detach().abs().max_dim(3).clamp_min(1e-6);
            (masked.div(radius.clone()), Some(radius))
        }
        Form::Sum | Form::Mean => (shifted, None),
    };
    let powered = even_power(base, op.p).mul(mask);
    let sum = powered.clone().sum_dim(3);
    let scale = radius.map(|r| even_power(r, op.p));
    let unscaled = match &scale {
        Some(scale) => sum.clone().mul(scale.clone()),
        None => sum.clone(),
    };
    let row_mean = unscaled.div(counts.clone());
    let epsilon = epsilon(op, &powered, scale, counts, frozen);
    Parts { numerator: powered, denominator: sum.add(epsilon), row_mean }
}

/// `x^p` for even `p`, by squarings and products only.
fn even_power<const D: usize>(x: Tensor<D>, power: u32) -> Tensor<D> {
    let mut square = x.clone().mul(x);
    let mut left = power / 2;
    let mut out: Option<Tensor<D>> = None;
    while left > 0 {
        if left & 1 == 1 {
            out = Some(match out {
                Some(out) => out.mul(square.clone()),
                None => square.clone(),
            });
        }
        left >>= 1;
        if left > 0 {
            square = square.clone().mul(square);
        }
    }
    out.unwrap_or(square)
}

/// What is added to `sum powered`, in the scaling of `powered`.
fn epsilon(
    op: &Power,
    powered: &Tensor<4>,
    scale: Option<Tensor<4>>,
    counts: Tensor<4>,
    frozen: Option<Tensor<4>>,
) -> Tensor<4> {
    let per_row = match (op.eps, frozen) {
        // A fraction of the largest power in the row: already in the scaling of `powered`.
        (Eps::Relative { value: fraction }, _) => {
            let largest = powered.clone().detach().max_dim(3).clamp_min(f64::from(f32::MIN_POSITIVE));
            let relative = largest.mul_scalar(fraction);
            return if op.form == Form::Mean { relative.mul(counts) } else { relative };
        }
        (Eps::Absolute { value }, _) => Tensor::full_like(&counts, value),
        (Eps::Frozen, Some(table)) => widen(table),
        (Eps::Frozen, None) => Tensor::full_like(&counts, 1e-6),
    };
    let per_row = match scale {
        Some(scale) => per_row.div(scale),
        None => per_row,
    };
    // A frozen table is always in units of the row mean.
    if op.form == Form::Mean || op.eps == Eps::Frozen { per_row.mul(counts) } else { per_row }
}

fn widen<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match x.dtype() {
        DType::F64 | DType::F32 => x,
        _ => x.cast(DType::F32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};
    use proptest::prelude::*;

    fn tensor(rows: &[Vec<f64>]) -> Tensor<4> {
        let (n, k) = (rows.len(), rows[0].len());
        let data = TensorData::new(rows.concat(), [1, 1, n, k]);
        Tensor::from_data(data, (&Device::flex(), DType::F64))
    }

    fn weights(op: Power, x: &[f64], mask: &[f64]) -> Vec<f64> {
        let count = mask.iter().sum::<f64>();
        let parts = parts(&op, tensor(&[x.to_vec()]), tensor(&[mask.to_vec()]), tensor(&[vec![count]]), None);
        parts.numerator.div(parts.denominator).into_data().iter::<f64>().collect()
    }

    fn op(p: u32, c: f64, form: Form, value: f64) -> Power {
        Power { p, c, form, eps: Eps::Absolute { value } }
    }

    fn close(a: &[f64], b: &[f64], tolerance: f64) {
        assert_eq!(a.len(), b.len());
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{a} against {b}");
        }
    }

    #[test]
    fn hand_computed_values() {
        let (x, ones) = ([2.0, 1.0, 0.0, -1.0], [1.0; 4]);
        close(
            &weights(op(4, 0.0, Form::Sum, 0.0), &x, &ones),
            &[16.0 / 18.0, 1.0 / 18.0, 0.0, 1.0 / 18.0],
            1e-15,
        );
        close(&weights(op(4, 0.0, Form::Sum, 1e-3), &x, &ones)[..1], &[16.0 / 18.001], 1e-15);
        let masked = weights(op(4, 0.0, Form::Sum, 0.0), &x, &[1.0, 0.0, 1.0, 1.0]);
        close(&masked, &[16.0 / 17.0, 0.0, 0.0, 1.0 / 17.0], 1e-15);
        // (x + 1)^2 = 9, 4, 1, 0
        close(
            &weights(op(2, 1.0, Form::Sum, 0.0), &x, &ones),
            &[9.0 / 14.0, 4.0 / 14.0, 1.0 / 14.0, 0.0],
            1e-15,
        );
    }

    #[test]
    fn stable_form_survives_what_overflows_the_sum_form_in_f32() {
        let f32_weights = |form| {
            let x = TensorData::new(vec![3e4f32, 1e4, 2e4], [1, 1, 1, 3]);
            let device = Device::flex();
            let x = Tensor::from_data(x, (&device, DType::F32));
            let n = Tensor::full_like(&x.clone().sum_dim(3), 3.0);
            let parts = parts(&op(12, 0.0, form, 1e-3), x.clone(), Tensor::full_like(&x, 1.0), n, None);
            parts.numerator.div(parts.denominator).into_data().iter::<f64>().collect::<Vec<_>>()
        };
        assert!(f32_weights(Form::Sum).iter().any(|w| !w.is_finite()));
        let total: f64 = f32_weights(Form::Stable).iter().sum();
        assert!((total - 1.0).abs() < 1e-6, "{total}");
    }

    proptest! {
        #[test]
        fn the_forms_are_one_function(
            x in prop::collection::vec(-6.0f64..6.0, 1..12),
            half in 1u32..9,
            shift in -1.0f64..4.0,
            epsilon in 1e-6f64..2.0,
            keep in prop::collection::vec(prop::bool::ANY, 12),
        ) {
            let mut mask: Vec<f64> = keep[..x.len()].iter().map(|&k| f64::from(u8::from(k))).collect();
            mask[0] = 1.0;
            let n = mask.iter().sum::<f64>();
            let p = 2 * half;
            let sum = weights(op(p, shift, Form::Sum, epsilon), &x, &mask);
            close(&weights(op(p, shift, Form::Stable, epsilon), &x, &mask), &sum, 1e-9);
            close(&weights(op(p, shift, Form::Mean, epsilon / n), &x, &mask), &sum, 1e-9);
            let powers: f64 = x.iter().zip(&mask).map(|(x, m)| m * (x + shift).powi(p as i32)).sum();
            prop_assert!((sum.iter().sum::<f64>() - powers / (powers + epsilon)).abs() < 1e-9);
        }

        #[test]
        fn without_epsilon_and_shift_scaling_changes_nothing(
            x in prop::collection::vec(0.1f64..6.0, 2..12), factor in 0.1f64..10.0, half in 1u32..5,
        ) {
            let scaled: Vec<f64> = x.iter().map(|x| x * factor).collect();
            let ones = vec![1.0; x.len()];
            for form in [Form::Sum, Form::Stable, Form::Mean] {
                let op = op(2 * half, 0.0, form, 0.0);
                close(&weights(op, &scaled, &ones), &weights(op, &x, &ones), 1e-10);
            }
        }
    }
}
