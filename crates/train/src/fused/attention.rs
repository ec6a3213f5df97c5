//! Multi-head attention from projections to the joined heads, with softmax or PowerSoftmax weights.
//!
//! Inside, heads are separate: `[batch * heads, rows, head]`, scores `[batch * heads, rows, rows]`.
//! With `y` the unnormalised weights, `d` the normaliser of a row and `o = y v / d` its output, the
//! backward pass is `dscore = y' (g . v - g . o)` and `dv = y^T g` for `g = do / d`; epsilon counts
//! as a constant.

/// Heads of few features, each by one thread, row by row: a row's scores and weights stay in the
/// first cache, and keys that a row does not see cost nothing.
mod narrow;

use std::sync::Arc;

use burn::backend::Flex;
use burn::backend::ops::FloatTensorOps;
use rayon::prelude::*;

use cipherlm_model::Eps;

use super::primitive::{Primitive, contiguous, exp, sum, tensor, values};
use crate::arch::{Form, Operator, Power};

/// What all layers of a forward pass share.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// Sequences.
    pub(crate) batch: usize,
    /// Positions of each.
    pub(crate) rows: usize,
    /// Heads.
    pub(crate) heads: usize,
    /// Width of a head.
    pub(crate) head: usize,
    /// Softmax or PowerSoftmax.
    pub(crate) operator: Operator,
    /// Rows see themselves and what is before them.
    pub(crate) causal: bool,
    /// 1 for tokens and 0 for padding, `[batch, rows]`; all tokens when absent.
    pub(crate) keep: Option<Vec<f32>>,
    /// Cosines and sines `[rows, half]` of the rotated dimensions: dimension `i` pairs with `i +
    /// half`.
    pub(crate) rotary: Vec<(f32, f32)>,
    /// Half the number of rotated dimensions.
    pub(crate) half: usize,
}

/// Widest head that is taken row by row: below it, products over a head's features are too short
/// for the backend's matrix products, and memory decides.
const NARROW: usize = 16;

/// What the backward pass needs.
#[derive(Debug, Clone)]
pub(super) struct Saved {
    layout: Arc<Layout>,
    q: Primitive,
    k: Primitive,
    v: Primitive,
    kept: Kept,
    /// Reciprocal normaliser and slope `p / r` of each row.
    rows: Vec<(f32, f32)>,
    out: Primitive,
}

/// How the backward pass gets at the weights.
#[derive(Debug, Clone)]
enum Kept {
    /// Softmax: the weights. PowerSoftmax: the base of the power, zero where masked.
    Base(Primitive),
    /// Narrow heads make them again, with these epsilons.
    Epsilon(Arc<Vec<f32>>),
}

pub(super) fn forward(
    q: Primitive,
    k: Primitive,
    v: Primitive,
    layout: &Arc<Layout>,
    epsilon: &Arc<Vec<f32>>,
) -> (Primitive, Saved) {
    let l = layout.as_ref();
    let scale = 1.0 / (l.head as f32).sqrt();
    let [q, k, v] = [(q, scale, 1.0), (k, 1.0, 1.0), (v, 1.0, 0.0)]
        .map(|(x, scale, turn)| heads(l, l.split(values(&contiguous(x)), scale, turn), l.head));
    if l.head <= NARROW {
        let (mixed, rows) = narrow::forward(l, values(&q), values(&k), values(&v), epsilon);
        let out = tensor(l.join(&mixed, 1.0, 0.0, |row| rows[row].0), l.flat());
        let kept = Kept::Epsilon(epsilon.clone());
        return (out.clone(), Saved { layout: layout.clone(), q, k, v, kept, rows, out });
    }
    let mut base = Flex::float_matmul(q.clone(), transposed(&k));
    let mut rows = vec![(1.0f32, 0.0f32); l.batch * l.heads * l.rows];
    let scores = base.storage_mut::<f32>();
    let weights = match l.operator {
        Operator::Softmax | Operator::Pointwise { .. } => {
            scores.par_chunks_mut(l.rows).enumerate().with_min_len(16).for_each(|(at, row)| {
                let (limit, keep) = l.seen(at);
                softmax_row(row, limit, keep);
            });
            base.clone()
        }
        Operator::Power(op) => {
            let mut weights = vec![0.0f32; scores.len()];
            let outputs = weights.par_chunks_mut(l.rows).zip(&mut rows);
            scores.par_chunks_mut(l.rows).zip(outputs).enumerate().with_min_len(16).for_each(
                |(at, (z, (y, row)))| {
                    let (limit, keep) = l.seen(at);
                    *row = power_row(&op, z, y, limit, keep, l.epsilon(epsilon, at));
                },
            );
            heads(l, weights, l.rows)
        }
    };
    let mixed = Flex::float_matmul(weights, v.clone());
    let out = tensor(l.join(values(&mixed), 1.0, 0.0, |row| rows[row].0), l.flat());
    let kept = Kept::Base(base);
    let saved = Saved { layout: layout.clone(), q, k, v, kept, rows, out: out.clone() };
    (out, saved)
}

/// Gradients of the three projections.
pub(super) fn backward(saved: Saved, grad: Primitive) -> [Primitive; 3] {
    let Saved { layout, q, k, v, kept, rows, out } = saved;
    let l = layout.as_ref();
    let grad = contiguous(grad);
    // Divided by the normaliser, and its product with the output, row by row.
    let mut g = l.split(values(&grad), 1.0, 0.0);
    let joined = values(&out);
    let mut along = vec![0.0f32; rows.len()];
    g.par_chunks_mut(l.head).zip(&mut along).enumerate().with_min_len(64).for_each(|(at, (g, along))| {
        g.iter_mut().for_each(|g| *g *= rows[at].0);
        *along = sum(g, &joined[l.flat_at(at)..][..l.head], |g, o| g * o);
    });
    let scale = 1.0 / (l.head as f32).sqrt();
    let base = match kept {
        Kept::Base(base) => base,
        Kept::Epsilon(epsilon) => {
            let inputs = [&q, &k, &v].map(values);
            let [dq, dk, dv] = narrow::backward(l, inputs, &epsilon, &g, &along);
            return [(dq, scale, -1.0), (dk, 1.0, -1.0), (dv, 1.0, 0.0)]
                .map(|(x, scale, turn)| tensor(l.join(&x, scale, turn, |_| 1.0), l.flat()));
        }
    };
    let g = heads(l, g, l.head);
    let mut slope = Flex::float_matmul(g.clone(), transposed(&v));
    let inner = slope.storage_mut::<f32>().par_chunks_mut(l.rows).zip(values(&base).par_chunks(l.rows));
    let weights = match l.operator {
        Operator::Softmax | Operator::Pointwise { .. } => {
            inner.enumerate().with_min_len(16).for_each(|(at, (d, w))| {
                d.iter_mut().zip(w).for_each(|(d, w)| *d = (*d - along[at]) * w);
            });
            base
        }
        Operator::Power(op) => {
            let mut weights = vec![0.0f32; rows.len() * l.rows];
            inner.zip(weights.par_chunks_mut(l.rows)).enumerate().with_min_len(16).for_each(
                |(at, ((d, z), y))| {
                    slope_row(op.p, z, y, d, along[at], rows[at].1);
                },
            );
            heads(l, weights, l.rows)
        }
    };
    let dv = Flex::float_matmul(transposed(&weights), g);
    let dq = Flex::float_matmul(slope.clone(), k);
    let dk = Flex::float_matmul(transposed(&slope), q);
    [(dq, scale, -1.0), (dk, 1.0, -1.0), (dv, 1.0, 0.0)]
        .map(|(x, scale, turn)| tensor(l.join(values(&contiguous(x)), scale, turn, |_| 1.0), l.flat()))
}

impl Layout {
    /// How many keys a row `[batch, heads, rows]` sees at most, and the padding mask of its
    /// sequence.
    fn seen(&self, at: usize) -> (usize, Option<&[f32]>) {
        let limit = if self.causal { at % self.rows + 1 } else { self.rows };
        let sequence = at / (self.rows * self.heads);
        (limit, self.keep.as_ref().map(|keep| &keep[sequence * self.rows..][..limit]))
    }

    /// The frozen epsilon of row `[batch, heads, rows]`, if the operator has such.
    fn epsilon(&self, all: &[f32], at: usize) -> Option<f32> {
        all.get((at / self.rows % self.heads) * (all.len() / self.heads) + at % self.rows).copied()
    }

    /// Where row `[batch, heads, rows]` begins in `[batch * rows, width]`.
    fn flat_at(&self, at: usize) -> usize {
        let (head, row) = (at / self.rows % self.heads, at % self.rows);
        ((at / (self.rows * self.heads) * self.rows + row) * self.heads + head) * self.head
    }

    fn flat(&self) -> burn::tensor::Shape {
        [self.batch * self.rows, self.heads * self.head].into()
    }

    /// `[batch * rows, width]` to `[batch, heads, rows, head]`, scaled, rotated by `turn` times the
    /// position's angle.
    fn split(&self, x: &[f32], scale: f32, turn: f32) -> Vec<f32> {
        let mut out = vec![0.0f32; x.len()];
        out.par_chunks_mut(self.head).enumerate().with_min_len(256).for_each(|(at, out)| {
            self.turn(&x[self.flat_at(at)..][..self.head], out, at % self.rows, scale, turn);
        });
        out
    }

    /// The way back, with a factor for each row `[batch, heads, rows]`.
    fn join(&self, x: &[f32], scale: f32, turn: f32, factor: impl Fn(usize) -> f32 + Sync) -> Vec<f32> {
        let mut out = vec![0.0f32; x.len()];
        out.par_chunks_mut(self.head).enumerate().with_min_len(256).for_each(|(piece, out)| {
            let (token, head) = (piece / self.heads, piece % self.heads);
            let row = token % self.rows;
            let at = (token / self.rows * self.heads + head) * self.rows + row;
            self.turn(&x[at * self.head..][..self.head], out, row, scale * factor(at), turn);
        });
        out
    }

    fn turn(&self, x: &[f32], out: &mut [f32], row: usize, scale: f32, turn: f32) {
        let turned = if turn == 0.0 { 0 } else { self.half };
        let (first, rest) = out.split_at_mut(turned);
        let (second, rest) = rest.split_at_mut(turned);
        let pairs = first.iter_mut().zip(second).zip(x.iter().zip(&x[turned..]));
        for (((a, b), (&x, &y)), &(cos, sin)) in pairs.zip(&self.rotary[row * turned..]) {
            *a = (x * cos - y * sin * turn) * scale;
            *b = (y * cos + x * sin * turn) * scale;
        }
        rest.iter_mut().zip(&x[2 * turned..]).for_each(|(o, x)| *o = x * scale);
    }
}

fn heads(l: &Layout, data: Vec<f32>, last: usize) -> Primitive {
    tensor(data, [l.batch * l.heads, l.rows, last].into())
}

fn transposed(x: &Primitive) -> Primitive {
    Flex::float_swap_dims(x.clone(), 1, 2)
}

fn softmax_row(row: &mut [f32], limit: usize, keep: Option<&[f32]>) {
    let (seen, masked) = row.split_at_mut(limit);
    masked.fill(0.0);
    if let Some(keep) = keep {
        seen.iter_mut().zip(keep).filter(|(_, k)| **k == 0.0).for_each(|(x, _)| *x = f32::NEG_INFINITY);
    }
    // A row without keys keeps all weights at zero.
    let largest = seen.iter().copied().fold(f32::MIN, f32::max);
    seen.iter_mut().for_each(|x| *x = exp(*x - largest));
    if let Some(keep) = keep {
        seen.iter_mut().zip(keep).for_each(|(x, k)| *x *= k);
    }
    let factor = 1.0 / sum(seen, seen, |a, _| a).max(f32::MIN_POSITIVE);
    seen.iter_mut().for_each(|x| *x *= factor);
}

/// Scores `z` to the base of the power, `y` to the unnormalised weights; returns the reciprocal
/// normaliser and the slope `p / r`. The forms are those of [`crate::power_softmax`].
fn power_row(
    op: &Power,
    z: &mut [f32],
    y: &mut [f32],
    limit: usize,
    keep: Option<&[f32]>,
    frozen: Option<f32>,
) -> (f32, f32) {
    let shift = op.c as f32;
    let (seen, masked) = z.split_at_mut(limit);
    masked.fill(0.0);
    match keep {
        Some(keep) => seen.iter_mut().zip(keep).for_each(|(z, k)| *z = (*z + shift) * k),
        None => seen.iter_mut().for_each(|z| *z += shift),
    }
    let count = keep.map_or(limit as f32, |keep| keep.iter().sum::<f32>().max(1.0));
    let radius = match op.form {
        Form::Stable => {
            let radius = seen.iter().fold(1e-6f32, |r, z| r.max(z.abs()));
            seen.iter_mut().for_each(|z| *z /= radius);
            radius
        }
        Form::Sum | Form::Mean => 1.0,
    };
    powers(op.p, seen, y);
    let y = &y[..limit];
    let in_means = op.form == Form::Mean || op.eps == Eps::Frozen;
    let epsilon = match op.eps {
        Eps::Relative { value: fraction } => {
            let largest = y.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
            let relative = largest * fraction as f32;
            if op.form == Form::Mean { relative * count } else { relative }
        }
        Eps::Absolute { value: e } => scaled(e as f32, radius, op.p) * if in_means { count } else { 1.0 },
        Eps::Frozen => scaled(frozen.unwrap_or(1e-6), radius, op.p) * count,
    };
    (1.0 / (sum(y, y, |a, _| a) + epsilon), op.p as f32 / radius)
}

/// `e / r^p`.
fn scaled(e: f32, radius: f32, power: u32) -> f32 {
    if radius == 1.0 { e } else { (f64::from(e) / f64::from(radius).powi(power as i32)) as f32 }
}

/// `y = z^p` for even `p`.
fn powers(power: u32, z: &[f32], y: &mut [f32]) {
    let rows = y.iter_mut().zip(z);
    match power {
        2 => rows.for_each(|(y, z)| *y = z * z),
        4 => rows.for_each(|(y, z)| *y = (z * z) * (z * z)),
        6 => rows.for_each(|(y, z)| *y = (z * z) * (z * z) * (z * z)),
        8 => rows.for_each(|(y, z)| {
            let f = (z * z) * (z * z);
            *y = f * f;
        }),
        16 => rows.for_each(|(y, z)| {
            let e = (z * z) * (z * z) * (z * z) * (z * z);
            *y = e * e;
        }),
        _ => rows.for_each(|(y, z)| *y = z.powi(power as i32)),
    }
}

/// Recomputes `y = z^p` and turns `d`, the product of gradient and values, into the gradient of the
/// scores.
fn slope_row(power: u32, z: &[f32], y: &mut [f32], d: &mut [f32], along: f32, slope: f32) {
    let rows = z.iter().zip(y).zip(d);
    match power {
        2 => rows.for_each(|((&z, y), d)| (*y, *d) = (z * z, (*d - along) * (slope * z))),
        4 => rows.for_each(|((&z, y), d)| {
            let s = z * z;
            (*y, *d) = (s * s, (*d - along) * (slope * s * z));
        }),
        6 => rows.for_each(|((&z, y), d)| {
            let s = z * z;
            (*y, *d) = (s * s * s, (*d - along) * (slope * s * s * z));
        }),
        8 => rows.for_each(|((&z, y), d)| {
            let (s, f) = (z * z, (z * z) * (z * z));
            (*y, *d) = (f * f, (*d - along) * (slope * f * s * z));
        }),
        16 => rows.for_each(|((&z, y), d)| {
            let (s, f) = (z * z, (z * z) * (z * z));
            let e = f * f;
            (*y, *d) = (e * e, (*d - along) * (slope * e * f * s * z));
        }),
        _ => rows.for_each(|((&z, y), d)| {
            let odd = z.powi(power as i32 - 1);
            (*y, *d) = (odd * z, (*d - along) * (slope * odd));
        }),
    }
}
