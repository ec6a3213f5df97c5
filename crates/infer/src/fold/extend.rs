//! Rows that begin again behind their last feature.
//!
//! A row of `w` features that is narrower than a token has free slots behind it. With its beginning
//! once more in them a weight can be met in either place, and of the two diagonals `k` and `k - w`
//! of a matrix most outputs need one: `w` and a few instead of `2 w - 1`.

use cipherlm_circuits::slots::Plain;

use super::Folded;

impl Folded {
    /// Features that stand once more behind a row.
    pub(super) fn tail(&self) -> usize {
        let width = self.shape().d_model;
        width.min(self.geometry.features.saturating_sub(width))
    }

    /// The mask of the features that stand once more behind a row.
    pub(crate) fn beginning(&self) -> Plain {
        let tail = self.tail();
        Plain::real((0..self.geometry.features).map(|f| f64::from(u8::from(f < tail))).collect::<Vec<_>>())
    }
}

/// The same product with extended rows of at most `features` slots: each weight where the shift to
/// its output is the least that is not negative, if the row has its input there, else before that.
pub(super) fn extend(weights: &[Vec<f64>], features: usize) -> Vec<Vec<f64>> {
    let (width, columns) = (weights.len(), weights.first().map_or(0, Vec::len));
    let mut out = vec![vec![0.0; columns]; features.min(2 * width)];
    for (input, row) in weights.iter().enumerate() {
        for (column, &weight) in row.iter().enumerate() {
            let output = column % features;
            let mut place = output + (input + width - output % width) % width;
            while place >= out.len() {
                place -= width;
            }
            out[place][column] = weight;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use cipherlm_circuits::linear::TokenLayout;

    fn products(weights: &[Vec<f64>], features: usize) -> usize {
        let layout = TokenLayout::new(16 * features, features).unwrap();
        layout.matmul(weights).unwrap().diagonals().count()
    }

    #[test]
    fn a_weight_stands_in_one_place_of_its_input_for_fewer_diagonals() {
        // Width, features, columns: the shapes of SmolLM2-135M and of MiniLM by an eighth, rows
        // of less than half a token, outputs in several blocks.
        for (width, features, columns, most) in
            [(72, 128, 72, 88), (72, 128, 96, 112), (48, 64, 48, 80), (24, 64, 24, 24), (12, 16, 32, 2 * 23)]
        {
            let weights: Vec<Vec<f64>> =
                (0..width).map(|i| (0..columns).map(|o| (1 + i * columns + o) as f64).collect()).collect();
            let extended = extend(&weights, features);
            assert!(extended.len() <= features);
            for (input, row) in weights.iter().enumerate() {
                for (column, &weight) in row.iter().enumerate() {
                    let places = (input..extended.len()).step_by(width);
                    let found: Vec<f64> = places.map(|place| extended[place][column]).collect();
                    assert!(found.iter().all(|&w| w == 0.0 || w == weight), "{input} {column}: {found:?}");
                    assert_eq!(found.iter().sum::<f64>(), weight, "{input} {column}");
                }
            }
            let (before, after) = (products(&weights, features), products(&extended, features));
            assert!(after < before && after <= most, "{width} of {features}: {before} to {after}");
        }
    }
}
