//! The nearest matrix of a low rank.

/// Passes of the subspace iteration; the singular values beyond the rank are small, or the rank is
/// too low.
const PASSES: usize = 24;

/// Factors `[rows, rank]` with orthonormal columns and `[rank, columns]` of the nearest matrix of
/// that rank, by subspace iteration.
pub(super) fn factors(x: &[f32], rows: usize, columns: usize, rank: usize) -> (Vec<f32>, Vec<f32>) {
    let back = transposed(x, rows, columns);
    // Columns of the matrix itself as a start: any that are not orthogonal to the largest
    // directions do.
    let start: Vec<f32> = (0..columns * rank).map(|i| (1.0 + 0.7 * i as f32).sin()).collect();
    let mut q = orthonormal(product(x, &start, rows, columns, rank), rows, rank);
    for _ in 0..PASSES {
        let p = orthonormal(product(&back, &q, columns, rows, rank), columns, rank);
        q = orthonormal(product(x, &p, rows, columns, rank), rows, rank);
    }
    let b = product(&transposed(&q, rows, rank), x, rank, rows, columns);
    (q, b)
}

/// Gram-Schmidt on the columns of `[rows, rank]`, twice for accuracy; columns that vanish become
/// zero.
fn orthonormal(x: Vec<f32>, rows: usize, rank: usize) -> Vec<f32> {
    let mut columns: Vec<Vec<f64>> =
        (0..rank).map(|j| (0..rows).map(|i| f64::from(x[i * rank + j])).collect()).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for j in 0..rank {
        let (done, rest) = columns.split_at_mut(j);
        let column = &mut rest[0];
        let before = dot(column, column).sqrt();
        for other in done.iter().chain(done.iter()) {
            let along = dot(column, other);
            column.iter_mut().zip(other).for_each(|(x, o)| *x -= along * o);
        }
        let norm = dot(column, column).sqrt();
        let factor = if norm > 1e-10 * before { 1.0 / norm } else { 0.0 };
        column.iter_mut().for_each(|x| *x *= factor);
    }
    (0..rows * rank).map(|at| columns[at % rank][at / rank] as f32).collect()
}

/// `a b` for row-major `a` of `[m, n]` and `b` of `[n, k]`.
pub(super) fn product(a: &[f32], b: &[f32], m: usize, n: usize, k: usize) -> Vec<f32> {
    let mut out = vec![0.0f32; m * k];
    for (out, a) in out.chunks_mut(k).zip(a.chunks(n)) {
        for (&x, b) in a.iter().zip(b.chunks_exact(k)) {
            out.iter_mut().zip(b).for_each(|(o, b)| *o += x * b);
        }
    }
    out
}

/// The transpose of `[rows, columns]`.
fn transposed(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns).map(|at| x[at % rows * columns + at / rows]).collect()
}
