//! What the kernels share: slices of tensors, sums in a fixed order, an exponential.

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{Shape, TensorData};
use rayon::prelude::*;

/// A tensor of the CPU backend.
pub(super) type Primitive = FloatTensor<Flex>;

pub(super) fn tensor(data: Vec<f32>, shape: Shape) -> Primitive {
    Primitive::from_data(TensorData::new(data, shape))
}

/// Elements that one thread takes at a time.
pub(super) const CHUNK: usize = 1 << 14;

/// Rows whose partial sums are added up by one thread; fixed, so that results do not depend on the
/// number of threads.
pub(super) const ROWS: usize = 128;

/// The values of a tensor that is contiguous.
pub(super) fn values(x: &Primitive) -> &[f32] {
    let start = x.layout().start_offset();
    &x.storage::<f32>()[start..start + x.layout().num_elements()]
}

pub(super) fn contiguous(x: Primitive) -> Primitive {
    if x.is_contiguous() { x } else { x.to_contiguous() }
}

/// Sum of `f(a, b)` over two equal slices, in eight lanes.
pub(super) fn sum(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (heads, tail) = (a.chunks_exact(8).zip(b.chunks_exact(8)), a.len() / 8 * 8);
    for (a, b) in heads {
        for i in 0..8 {
            lanes[i] += f(a[i], b[i]);
        }
    }
    let rest: f32 = a[tail..].iter().zip(&b[tail..]).map(|(&a, &b)| f(a, b)).sum();
    lanes.iter().sum::<f32>() + rest
}

/// Sums over rows: `f` adds the rows of its chunk (given by its first row) to `width` accumulators.
pub(super) fn column_sums(
    rows: usize,
    width: usize,
    f: impl Fn(std::ops::Range<usize>, &mut [f32]) + Sync,
) -> Vec<f32> {
    let starts: Vec<usize> = (0..rows).step_by(ROWS).collect();
    let parts: Vec<Vec<f32>> = starts
        .par_iter()
        .map(|&start| {
            let mut part = vec![0.0; width];
            f(start..(start + ROWS).min(rows), &mut part);
            part
        })
        .collect();
    let mut total = vec![0.0; width];
    for part in parts {
        total.iter_mut().zip(part).for_each(|(t, p)| *t += p);
    }
    total
}

/// `e^x` to about an f32 rounding, for the compiler to vectorise: no calls, no branches.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let t = x * std::f32::consts::LOG2_E + ROUND;
    let k = t - ROUND;
    // ln 2 in two parts, the first exact in few bits.
    let r = (x - k * 0.693_359_4) + k * 2.121_944_4e-4;
    let tail = 1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0));
    let poly = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * tail))));
    poly * f32::from_bits((t.to_bits() << 23).wrapping_add(127 << 23))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_is_accurate_over_its_whole_range() {
        for i in -870..880 {
            let x = i as f32 / 10.0 + 0.037;
            let x = x.clamp(-87.0, 88.0);
            let relative = (f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs();
            assert!(relative < 3e-7, "{x}: {relative:e}");
        }
        assert!(exp(-1e9) < 1e-37 && exp(0.0) == 1.0);
    }

    #[test]
    fn sums_do_not_lose_rows_or_lanes() {
        let a: Vec<f32> = (0..19).map(|i| i as f32).collect();
        assert_eq!(sum(&a, &a, |a, b| a * b), (0..19).map(|i| (i * i) as f32).sum::<f32>());
        let columns = column_sums(300, 2, |rows, out| rows.for_each(|r| out[r % 2] += r as f32));
        assert_eq!(
            columns,
            [(0..300).step_by(2).sum::<usize>() as f32, (1..300).step_by(2).sum::<usize>() as f32]
        );
    }
}
