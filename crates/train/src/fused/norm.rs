//! LayerNorm over the last dimension.

use rayon::prelude::*;

use super::primitive::{Primitive, column_sums, contiguous, sum, tensor, values};

/// What the backward pass needs: the normalised rows and the reciprocal deviation of each.
#[derive(Debug, Clone)]
pub(super) struct Saved {
    normalised: Primitive,
    gamma: Primitive,
    scale: Vec<f32>,
}

pub(super) fn forward(x: Primitive, gamma: Primitive, beta: Primitive, epsilon: f32) -> (Primitive, Saved) {
    let (x, gamma, beta) = (contiguous(x), contiguous(gamma), contiguous(beta));
    let shape = x.layout().shape().clone();
    let (rows, width) = (shape[0], shape[1]);
    let mut normalised = vec![0.0f32; rows * width];
    let mut out = vec![0.0f32; rows * width];
    let mut scale = vec![0.0f32; rows];
    let (g, b) = (values(&gamma), values(&beta));
    let outputs = out.par_chunks_mut(width).zip(normalised.par_chunks_mut(width));
    outputs.zip(values(&x).par_chunks(width)).zip(&mut scale).with_min_len(64).for_each(
        |(((y, n), x), scale)| {
            let mean = sum(x, x, |a, _| a) / width as f32;
            let variance = sum(x, x, |a, _| (a - mean) * (a - mean)) / width as f32;
            let s = 1.0 / (variance + epsilon).sqrt();
            *scale = s;
            for i in 0..width {
                n[i] = (x[i] - mean) * s;
                y[i] = n[i] * g[i] + b[i];
            }
        },
    );
    let saved = Saved { normalised: tensor(normalised, shape.clone()), gamma: gamma.clone(), scale };
    (tensor(out, shape), saved)
}

/// Gradients of input, scale and offset.
pub(super) fn backward(saved: &Saved, grad: Primitive) -> [Primitive; 3] {
    let grad = contiguous(grad);
    let shape = grad.layout().shape().clone();
    let (rows, width) = (shape[0], shape[1]);
    let (gamma, normalised, dy) = (values(&saved.gamma), values(&saved.normalised), values(&grad));
    let mut dx = vec![0.0f32; rows * width];
    let inputs = dy.par_chunks(width).zip(normalised.par_chunks(width)).zip(&saved.scale);
    dx.par_chunks_mut(width).zip(inputs).with_min_len(64).for_each(|(dx, ((dy, n), &scale))| {
        // dx doubles as the gradient of the normalised row.
        for i in 0..width {
            dx[i] = dy[i] * gamma[i];
        }
        let mean = sum(dx, dx, |a, _| a) / width as f32;
        let along = sum(dx, n, |a, n| a * n) / width as f32;
        for i in 0..width {
            dx[i] = scale * (dx[i] - mean - n[i] * along);
        }
    });
    let range = |rows: &std::ops::Range<usize>| rows.start * width..rows.end * width;
    let dgamma = column_sums(rows, width, |rows, out| {
        let at = range(&rows);
        for (dy, n) in dy[at.clone()].chunks_exact(width).zip(normalised[at].chunks_exact(width)) {
            for i in 0..width {
                out[i] += dy[i] * n[i];
            }
        }
    });
    let dbeta = column_sums(rows, width, |rows, out| {
        for dy in dy[range(&rows)].chunks_exact(width) {
            out.iter_mut().zip(dy).for_each(|(s, g)| *s += g);
        }
    });
    [tensor(dx, shape), tensor(dgamma, [width].into()), tensor(dbeta, [width].into())]
}
