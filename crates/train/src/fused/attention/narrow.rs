//! The passes of [`super`] without matrix products. Weights are made again in the backward pass.

use rayon::prelude::*;

use super::{Layout, power_row, slope_row, softmax_row};
use crate::arch::Operator;
use crate::fused::primitive::sum;

/// One head of one sequence, features first where rows are long.
struct Head<'a> {
    layout: &'a Layout,
    /// Number of its first row.
    first: usize,
    q: &'a [f32],
    k: Vec<f32>,
    v: Vec<f32>,
    epsilon: &'a [f32],
}

/// Unnormalised outputs, and reciprocal normaliser and slope of each row.
pub(super) fn forward(
    l: &Layout,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    epsilon: &[f32],
) -> (Vec<f32>, Vec<(f32, f32)>) {
    let mut mixed = vec![0.0f32; q.len()];
    let mut rows = vec![(1.0f32, 0.0f32); l.batch * l.heads * l.rows];
    let size = l.rows * l.head;
    mixed.par_chunks_mut(size).zip(rows.par_chunks_mut(l.rows)).enumerate().for_each(|(at, (out, rows))| {
        let head = Head::new(l, at, [q, k, v], epsilon);
        let (mut z, mut y) = (vec![0.0f32; l.rows], vec![0.0f32; l.rows]);
        for (i, (out, row)) in out.chunks_exact_mut(l.head).zip(rows).enumerate() {
            let limit;
            (limit, *row) = head.weights(i, &mut z, &mut y);
            for (out, v) in out.iter_mut().zip(head.v.chunks_exact(l.rows)) {
                *out = sum(&y[..limit], &v[..limit], |y, v| y * v);
            }
        }
    });
    (mixed, rows)
}

/// Gradients of scaled and rotated queries and keys and of values, from the gradient of the outputs
/// over the normaliser and its product with the output.
pub(super) fn backward(
    l: &Layout,
    [q, k, v]: [&[f32]; 3],
    epsilon: &[f32],
    g: &[f32],
    along: &[f32],
) -> [Vec<f32>; 3] {
    let mut grads = [(); 3].map(|()| vec![0.0f32; q.len()]);
    let size = l.rows * l.head;
    let [dq, dk, dv] = &mut grads;
    let outputs = dq.par_chunks_mut(size).zip(dk.par_chunks_mut(size)).zip(dv.par_chunks_mut(size));
    outputs.enumerate().for_each(|(at, ((dq, dk), dv))| {
        let head = Head::new(l, at, [q, k, v], epsilon);
        let g = &g[at * size..][..size];
        let along = &along[at * l.rows..][..l.rows];
        let (mut z, mut y, mut d) = (vec![0.0f32; l.rows], vec![0.0f32; l.rows], vec![0.0f32; l.rows]);
        let (mut keys, mut values) = (vec![0.0f32; size], vec![0.0f32; size]);
        for (i, dq) in dq.chunks_exact_mut(l.head).enumerate() {
            let (limit, (_, slope)) = head.weights(i, &mut z, &mut y);
            let (z, y, d) = (&z[..limit], &mut y[..limit], &mut d[..limit]);
            let g = &g[i * l.head..][..l.head];
            products(g, &head.v, l.rows, d);
            match l.operator {
                Operator::Power(op) => slope_row(op.p, z, y, d, along[i], slope),
                _ => d.iter_mut().zip(&*y).for_each(|(d, w)| *d = (*d - along[i]) * w),
            }
            let q = &head.q[i * l.head..][..l.head];
            for (feature, dq) in dq.iter_mut().enumerate() {
                let at = feature * l.rows;
                *dq = sum(d, &head.k[at..][..limit], |d, k| d * k);
                add(&mut keys[at..][..limit], d, q[feature]);
                add(&mut values[at..][..limit], y, g[feature]);
            }
        }
        turn(&keys, l.rows, dk);
        turn(&values, l.rows, dv);
    });
    grads
}

impl<'a> Head<'a> {
    fn new(layout: &'a Layout, at: usize, [q, k, v]: [&'a [f32]; 3], epsilon: &'a [f32]) -> Self {
        let size = layout.rows * layout.head;
        let of = |x: &'a [f32]| &x[at * size..][..size];
        let [k, v] = [k, v].map(|x| {
            let mut turned = vec![0.0f32; size];
            turn(of(x), layout.head, &mut turned);
            turned
        });
        Self { layout, first: at * layout.rows, q: of(q), k, v, epsilon }
    }

    /// Scores of row `i` to `z` and its weights to `y`, over as many keys as it sees; with its
    /// reciprocal normaliser and slope. Softmax weights are normalised.
    fn weights(&self, i: usize, z: &mut [f32], y: &mut [f32]) -> (usize, (f32, f32)) {
        let l = self.layout;
        let (limit, keep) = l.seen(self.first + i);
        let (z, y) = (&mut z[..limit], &mut y[..limit]);
        products(&self.q[i * l.head..][..l.head], &self.k, l.rows, z);
        let row = match l.operator {
            Operator::Power(op) => power_row(&op, z, y, limit, keep, l.epsilon(self.epsilon, self.first + i)),
            Operator::Softmax | Operator::Pointwise { .. } => {
                softmax_row(z, limit, keep);
                y.copy_from_slice(z);
                (1.0, 0.0)
            }
        };
        (limit, row)
    }
}

/// `out[j] = sum over features of row[f] * columns[f][j]`.
fn products(row: &[f32], columns: &[f32], rows: usize, out: &mut [f32]) {
    out.fill(0.0);
    for (x, column) in row.iter().zip(columns.chunks_exact(rows)) {
        add(out, column, *x);
    }
}

/// `out += factor * x`, over as many as `out` has.
fn add(out: &mut [f32], x: &[f32], factor: f32) {
    out.iter_mut().zip(x).for_each(|(o, x)| *o += factor * x);
}

/// The transpose of a matrix with `columns` columns.
fn turn(x: &[f32], columns: usize, out: &mut [f32]) {
    let rows = x.len() / columns;
    for (at, out) in out.iter_mut().enumerate() {
        *out = x[at % rows * columns + at / rows];
    }
}
