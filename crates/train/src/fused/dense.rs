//! The linear layer `x w + b`.

use burn::backend::Flex;
use burn::backend::ops::FloatTensorOps;
use rayon::prelude::*;

use super::primitive::{Primitive, column_sums, contiguous, tensor, values};

pub(super) fn forward(x: &Primitive, w: &Primitive, b: &Primitive) -> Primitive {
    let mut out = Flex::float_matmul(x.clone(), w.clone());
    let bias = contiguous(b.clone());
    let bias = values(&bias);
    out.storage_mut::<f32>().par_chunks_mut(64 * bias.len()).for_each(|rows| {
        for row in rows.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
        }
    });
    out
}

/// Gradients of the input, the weight and the bias, each only if asked for.
pub(super) fn backward(
    x: &Primitive,
    w: &Primitive,
    grad: Primitive,
    wanted: [bool; 3],
) -> [Option<Primitive>; 3] {
    let grad = contiguous(grad);
    let transposed = |t: &Primitive| Flex::float_swap_dims(t.clone(), 0, 1);
    let dx = wanted[0].then(|| Flex::float_matmul(grad.clone(), transposed(w)));
    let dw = wanted[1].then(|| Flex::float_matmul(transposed(x), grad.clone()));
    let db = wanted[2].then(|| {
        let shape = grad.layout().shape();
        let (rows, width) = (shape[0], shape[1]);
        let g = values(&grad);
        let sums = column_sums(rows, width, |rows, out| {
            for row in g[rows.start * width..rows.end * width].chunks_exact(width) {
                out.iter_mut().zip(row).for_each(|(s, g)| *s += g);
            }
        });
        tensor(sums, [width].into())
    });
    [dx, dw, db]
}
