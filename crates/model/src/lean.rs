//! Conversions to cheaper functions, from what text shows of a model: constants in the place of a
//! norm's statistics, and a quadratic in that of an activation.
//!
//! Both compute something else than the model they begin with. They are starts for training, which
//! wins most of the difference back, not approximations that could be used as they are.

use crate::error::{Error, Result};
use crate::forward::{Mode, Positions, Prepared};
use crate::model::Model;
use crate::program::{Op, Program};
use crate::shape::{Activation, Kind, Norm, Shape};

/// Least square of a channel, as a part of its linear term: a channel that is nearly linear would
/// cost precision under encryption.
const LEAST_SQUARE: f64 = 1.0 / 512.0;

/// Freezes the norms that are named ([`Shape::norms`]) at the constant that is closest, in least
/// squares of the rows that a norm gives back, to the inverse roots on the windows: `sum of s / sum
/// of s^2`, with `s` a row's standard deviation, eps included. Norms that are frozen already and
/// are named again get a new constant.
///
/// The result is a new model without certified sites.
///
/// # Errors
/// [`Error::Shape`] for a name that is none; bad windows; a model that is no decoder.
pub fn freeze_norms(model: &Model, windows: &[Vec<u32>], names: &[String]) -> Result<Model> {
    if names.is_empty() {
        return Ok(model.clone());
    }
    let (old, program) = (model.shape(), model.shape().program());
    let added = names.iter().filter(|name| !old.freezes(name)).cloned();
    let shape =
        Shape { frozen_norms: old.frozen_norms.iter().cloned().chain(added).collect(), ..old.clone() };
    shape.validate()?;
    let mut sums = vec![[0.0f64; 2]; names.len()];
    let inputs: Vec<&str> = names.iter().map(|name| input(&program, name)).collect::<Result<_>>()?;
    watch(model, windows, |tap| {
        for (sums, at) in sums.iter_mut().zip(&inputs) {
            for row in tap(at)?.chunks_exact(old.d_model) {
                let deviation = deviation(row, old);
                *sums = [sums[0] + deviation, sums[1] + deviation * deviation];
            }
        }
        Ok(())
    })?;
    let mut weights = model.weights().clone();
    for (name, [sum, squares]) in names.iter().zip(sums) {
        weights.insert(format!("{name}.root"), &[1], vec![sum / squares])?;
    }
    model.with(shape, weights)
}

/// Puts a quadratic in the place of every activation, fitted to it channel by channel, in least
/// squares over the windows. Where maps have a bias the fit has a constant too, which goes into
/// that of the next map.
///
/// The result is a new model without certified sites; one that has quadratics is returned as it is.
///
/// # Errors
/// Bad windows; a model that is no decoder; a gated one.
pub fn with_quadratics(model: &Model, windows: &[Vec<u32>]) -> Result<Model> {
    let old = model.shape();
    let Some(function) = old.activation.function() else { return Ok(model.clone()) };
    if old.gated {
        return Err(Error::Unsupported { operation: "a quadratic activation", model: "a gated model" });
    }
    let mut moments = vec![Moments::default(); old.layers * old.ffn];
    watch(model, windows, |tap| {
        for l in 0..old.layers {
            let (inner, moments) =
                (tap(&format!("layers.{l}.ffn.up"))?, &mut moments[l * old.ffn..][..old.ffn]);
            for row in inner.chunks_exact(old.ffn) {
                row.iter().zip(&mut *moments).for_each(|(&x, m)| m.add(x, function.eval(x)));
            }
        }
        Ok(())
    })?;
    let mut weights = model.weights().clone();
    for (l, moments) in moments.chunks_exact(old.ffn).enumerate() {
        let fits: Vec<[f64; 3]> = moments.iter().map(|m| m.fit(old.bias)).collect();
        for (part, at) in [("square", 0), ("linear", 1)] {
            let values = fits.iter().map(|fit| fit[at]).collect();
            weights.insert(format!("layers.{l}.ffn.activation.{part}"), &[old.ffn], values)?;
        }
        let [down, bias] = ["weight", "bias"].map(|part| format!("layers.{l}.ffn.down.{part}"));
        let (Some(down), Some(old_bias)) = (model.weights().values(&down), model.weights().values(&bias))
        else {
            continue;
        };
        let mut shifted = old_bias.to_vec();
        for (fit, row) in fits.iter().zip(down.chunks_exact(old.d_model)) {
            shifted.iter_mut().zip(row).for_each(|(b, w)| *b += fit[2] * w);
        }
        weights.insert(bias, &[old.d_model], shifted)?;
    }
    model.with(Shape { activation: Activation::Quadratic, ..old.clone() }, weights)
}

/// The value that a norm reads, by the name of its stage.
fn input<'p>(program: &'p Program, norm: &str) -> Result<&'p str> {
    let stage = program.stages.iter().find(|stage| stage.name == norm).map(|stage| stage.op);
    match stage {
        Some(Op::Norm { of } | Op::FrozenNorm { of }) => Ok(&program.stages[of].name),
        _ => Err(Error::MissingTensor { name: format!("{norm}.gain"), expected: vec![] }),
    }
}

/// Runs windows and looks at the values of each.
fn watch(
    model: &Model,
    windows: &[Vec<u32>],
    mut look: impl FnMut(&dyn Fn(&str) -> Result<Vec<f64>>) -> Result<()>,
) -> Result<()> {
    if model.shape().kind != Kind::Decoder {
        return Err(Error::Unsupported { operation: "a lean conversion", model: "an encoder" });
    }
    if windows.is_empty() {
        return Err(Error::Empty);
    }
    let prepared = Prepared::new(model)?;
    let mut runner = prepared.runner(Mode::Exact)?.with_taps();
    for window in windows {
        runner.forward(window, Positions::All)?;
        look(&|name| {
            let missing = || Error::MissingTensor { name: name.to_owned(), expected: vec![] };
            runner.tap(name).map(<[f64]>::to_vec).ok_or_else(missing)
        })?;
    }
    Ok(())
}

/// Root of a row's variance (mean square under RMSNorm) and the shape's eps.
fn deviation(row: &[f64], shape: &Shape) -> f64 {
    let count = row.len() as f64;
    let mean = if shape.norm == Norm::LayerNorm { row.iter().sum::<f64>() / count } else { 0.0 };
    (row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / count + shape.norm_eps).sqrt()
}

/// Sums over the arguments of one channel.
#[derive(Clone, Copy, Default)]
struct Moments {
    /// Of `x^0` to `x^4`.
    powers: [f64; 5],
    /// Of `f x^2`, `f x`, `f`.
    values: [f64; 3],
}

impl Moments {
    fn add(&mut self, x: f64, f: f64) {
        let square = x * x;
        let powers = [1.0, x, square, square * x, square * square];
        self.powers.iter_mut().zip(powers).for_each(|(sum, p)| *sum += p);
        self.values.iter_mut().zip([f * square, f * x, f]).for_each(|(sum, v)| *sum += v);
    }

    /// `[a, b, c]` of the closest `a x^2 + b x + c`, `c` zero without a constant; a square smaller
    /// than [`LEAST_SQUARE`] of `b` takes that size.
    fn fit(&self, constant: bool) -> [f64; 3] {
        let n = if constant { 3 } else { 2 };
        // Entry (i, j) is the sum of x^(2 - i) x^(2 - j); a little of a unit matrix keeps a channel
        // that never moves from a division by zero.
        let mut m: Vec<Vec<f64>> = (0..n)
            .map(|i| (0..n).map(|j| self.powers[4 - i - j] + f64::from(u8::from(i == j)) * 1e-9).collect())
            .collect();
        let mut v = self.values[..n].to_vec();
        for i in 0..n {
            for j in i + 1..n {
                let factor = m[j][i] / m[i][i];
                let above = m[i].clone();
                m[j].iter_mut().zip(above).for_each(|(x, y)| *x -= factor * y);
                v[j] -= factor * v[i];
            }
        }
        let mut out = [0.0; 3];
        for i in (0..n).rev() {
            let known: f64 = (i + 1..n).map(|j| m[i][j] * out[j]).sum();
            out[i] = (v[i] - known) / m[i][i];
        }
        out[0] = out[0].abs().max(LEAST_SQUARE * out[1].abs()).copysign(out[0]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    #[test]
    fn a_fit_finds_the_quadratic_that_made_the_values() {
        let mut moments = Moments::default();
        (0..100).map(|i| 0.07 * f64::from(i) - 2.0).for_each(|x| moments.add(x, 0.3 * x * x - 0.5 * x + 0.1));
        let found = moments.fit(true);
        for (found, expected) in found.iter().zip([0.3, -0.5, 0.1]) {
            assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
        }
        // A straight line keeps a little curvature.
        let mut line = Moments::default();
        (0..100).map(|i| 0.07 * f64::from(i) - 2.0).for_each(|x| line.add(x, 2.0 * x));
        assert!((line.fit(true)[0].abs() - 2.0 * LEAST_SQUARE).abs() < 1e-6);
    }

    #[test]
    fn a_frozen_root_is_the_closest_constant() {
        let shape = Shape::preset("test").unwrap();
        let model = random::weights_only("lean", &shape, 3).unwrap();
        let windows = random::windows(&shape, 12, 6, 1);
        let frozen = freeze_norms(&model, &windows, &["layers.0.norm1".into()]).unwrap();
        assert_eq!(frozen.shape().function(), "lean");
        // Distance of the norm's rows from those of the live norm, for the constant and its
        // neighbours.
        let rows = |model: &Model| {
            let mut out = vec![];
            watch(model, &windows, |tap| {
                out.extend(tap("layers.0.norm1")?);
                Ok(())
            })
            .unwrap();
            out
        };
        let wanted = rows(&model);
        let distance = |factor: f64| {
            let mut weights = frozen.weights().clone();
            let root = weights.values("layers.0.norm1.root").unwrap()[0];
            weights.insert("layers.0.norm1.root", &[1], vec![factor * root]).unwrap();
            let changed = frozen.with(frozen.shape().clone(), weights).unwrap();
            rows(&changed).iter().zip(&wanted).map(|(a, b)| (a - b) * (a - b)).sum::<f64>()
        };
        let here = distance(1.0);
        // Gains near one, not all one, move the minimum a little.
        assert!(here < distance(0.95) && here < distance(1.05), "{here}");
        assert!(freeze_norms(&model, &windows, &["embed.norm".into()]).is_err());
    }

    #[test]
    fn quadratics_come_close_to_the_activation_on_the_text_they_were_fitted_to() {
        let shape = Shape::preset("test").unwrap();
        let model = random::weights_only("lean", &shape, 3).unwrap();
        let windows = random::windows(&shape, 12, 6, 1);
        let lean = with_quadratics(&model, &windows).unwrap();
        assert_eq!(lean.shape().activation, Activation::Quadratic);
        let hidden = |model: &Model| {
            let mut out = vec![];
            watch(model, &windows, |tap| {
                out.extend(tap("layers.1.hidden")?);
                Ok(())
            })
            .unwrap();
            out
        };
        let (a, b) = (hidden(&model), hidden(&lean));
        let error: f64 = a.iter().zip(&b).map(|(x, y)| (x - y) * (x - y)).sum();
        let size: f64 = a.iter().map(|x| x * x).sum();
        assert!(error < 0.02 * size, "{error} of {size}");
    }
}
