//! A linear map in f32, laid out once for many rows at a time.
//!
//! Every output is one chain of fused multiply-adds over the inputs in order, whatever the
//! processor, the number of rows or the place of a row among them: results are the same bits
//! everywhere.

use pulp::{Arch, Simd, WithSimd};

/// Columns that lie together, input after input.
const PANEL: usize = 16;
/// Rows that share one reading of a panel. With panels of two vectors of eight values, twelve sums
/// fit the sixteen registers of AVX2.
const ROWS: usize = 6;

/// `x W + b` over rows.
pub(super) struct Matrix {
    /// For each panel, for each input, [`PANEL`] values; zeros behind the last column.
    panels: Vec<[f32; PANEL]>,
    bias: Option<Vec<f32>>,
    inputs: usize,
    outputs: usize,
}

impl Matrix {
    /// From the weight of each input and output.
    pub(super) fn new(
        inputs: usize,
        outputs: usize,
        weight: impl Fn(usize, usize) -> f64,
        bias: Option<&[f64]>,
    ) -> Self {
        let line = |from: usize, input: usize| {
            std::array::from_fn(|i| {
                let output = from + i;
                if output < outputs { weight(input, output) as f32 } else { 0.0 }
            })
        };
        let panels = (0..outputs).step_by(PANEL).flat_map(|from| (0..inputs).map(move |i| (from, i)));
        Self {
            panels: panels.map(|(from, input)| line(from, input)).collect(),
            bias: bias.map(|bias| bias.iter().map(|&b| b as f32).collect()),
            inputs,
            outputs,
        }
    }

    /// Applies the map to each row.
    pub(super) fn apply(&self, x: &[f64]) -> Vec<f64> {
        let rows = x.len() / self.inputs;
        let mut out = vec![0.0; rows * self.outputs];
        Arch::new().dispatch(Product { matrix: self, x, out: &mut out });
        out
    }
}

struct Product<'a> {
    matrix: &'a Matrix,
    x: &'a [f64],
    out: &'a mut [f64],
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (inputs, outputs) = (self.matrix.inputs, self.matrix.outputs);
        // Groups of rows with their values of one input side by side.
        let groups: Vec<Vec<[f32; ROWS]>> = self
            .x
            .chunks(ROWS * inputs)
            .map(|rows| {
                let value = |row: usize, i: usize| rows.get(row * inputs + i).map_or(0.0, |x| *x as f32);
                (0..inputs).map(|i| std::array::from_fn(|row| value(row, i))).collect()
            })
            .collect();
        for (at, panel) in self.matrix.panels.chunks_exact(inputs.max(1)).enumerate() {
            let from = at * PANEL;
            let width = PANEL.min(outputs - from);
            let bias = self.matrix.bias.as_ref().map(|bias| &bias[from..from + width]);
            for (group, rows) in groups.iter().zip(self.out.chunks_mut(ROWS * outputs)) {
                let count = rows.len() / outputs;
                // A lone row, as generation appends it, need not pay for six.
                let sums = if count == 1 {
                    few::<S, 1>(simd, panel, group)
                } else {
                    few::<S, ROWS>(simd, panel, group)
                };
                for (row, sums) in rows.chunks_exact_mut(outputs).zip(&sums) {
                    for (i, (y, sum)) in row[from..from + width].iter_mut().zip(sums).enumerate() {
                        *y = f64::from(sum + bias.map_or(0.0, |bias| bias[i]));
                    }
                }
            }
        }
    }
}

/// The first `R` rows of a group through one panel.
#[inline(always)]
fn few<S: Simd, const R: usize>(
    simd: S,
    panel: &[[f32; PANEL]],
    group: &[[f32; ROWS]],
) -> [[f32; PANEL]; ROWS] {
    match PANEL / S::F32_LANES {
        1 => sums::<S, R, 1>(simd, panel, group),
        2 => sums::<S, R, 2>(simd, panel, group),
        4 => sums::<S, R, 4>(simd, panel, group),
        _ => sums::<S, R, PANEL>(simd, panel, group),
    }
}

#[inline(always)]
fn sums<S: Simd, const R: usize, const V: usize>(
    simd: S,
    panel: &[[f32; PANEL]],
    group: &[[f32; ROWS]],
) -> [[f32; PANEL]; ROWS] {
    let mut sums = [[simd.splat_f32s(0.0); V]; R];
    for (weights, inputs) in panel.iter().zip(group) {
        let (weights, _) = S::as_simd_f32s(weights);
        for row in 0..R {
            let x = simd.splat_f32s(inputs[row]);
            for v in 0..V {
                sums[row][v] = simd.mul_add_f32s(x, weights[v], sums[row][v]);
            }
        }
    }
    let mut out = [[0.0; PANEL]; ROWS];
    for (out, sums) in out.iter_mut().zip(&sums) {
        let (out, _) = S::as_mut_simd_f32s(out);
        out.copy_from_slice(sums);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(i: usize) -> f64 {
        ((i * 7919 + 13) % 101) as f64 / 50.0 - 1.0
    }

    #[test]
    fn every_size_gives_the_product_and_rows_do_not_depend_on_neighbours() {
        for (inputs, outputs) in [(1, 1), (3, 16), (40, 17), (64, 95)] {
            let bias: Vec<f64> = (0..outputs).map(|i| value(i + 5)).collect();
            let weight = |i: usize, o: usize| value(i * outputs + o);
            let matrix = Matrix::new(inputs, outputs, weight, Some(&bias));
            let plain = Matrix::new(inputs, outputs, weight, None);
            for rows in [1, 2, 5, 6, 7, 13] {
                let x: Vec<f64> = (0..rows * inputs).map(|i| value(3 * i)).collect();
                let y = matrix.apply(&x);
                assert_eq!(y.len(), rows * outputs);
                for (row, y) in x.chunks_exact(inputs).zip(y.chunks_exact(outputs)) {
                    assert_eq!(matrix.apply(row), y);
                    let bare = plain.apply(row);
                    for (o, y) in y.iter().enumerate() {
                        let want: f64 = row.iter().enumerate().map(|(i, x)| x * weight(i, o)).sum();
                        assert!((bare[o] - want).abs() < 1e-5, "{inputs} {outputs} {rows}: {y} {want}");
                        assert!((y - want - bias[o]).abs() < 1e-5);
                    }
                }
            }
        }
    }

    /// One chain of fused multiply-adds, written out.
    #[test]
    fn the_order_of_a_sum_is_fixed() {
        let matrix = Matrix::new(37, 5, |i, o| value(i * 5 + o), None);
        let x: Vec<f64> = (0..37).map(|i| value(11 * i)).collect();
        for (o, y) in matrix.apply(&x).into_iter().enumerate() {
            let want = x
                .iter()
                .enumerate()
                .fold(0f32, |sum, (i, x)| (*x as f32).mul_add(value(i * 5 + o) as f32, sum));
            assert_eq!(y, f64::from(want));
        }
    }
}
