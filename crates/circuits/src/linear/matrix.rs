//! Matrix products in the token-major layout.

use super::LinearTransform;
use crate::slots::{Error, Plain, Result};

/// Token-major packing: slot `token * features + feature`, features running fastest.
///
/// A matrix of `tokens` rows wider than `features` takes several vectors, each with its own block
/// of `features` columns. Rows beyond the last token are free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenLayout {
    slots: usize,
    features: usize,
    /// One row, repeated in every place.
    repeated: bool,
}

impl TokenLayout {
    /// A layout with `features` slots per token.
    ///
    /// # Errors
    /// [`Error::Shape`] if either number is not a power of two or a token does not fit the
    /// slots.
    pub fn new(slots: usize, features: usize) -> Result<Self> {
        for (what, have) in [("number of slots", slots), ("features per token", features)] {
            if !have.is_power_of_two() {
                let need = have.checked_next_power_of_two().unwrap_or(1);
                return Err(Error::Shape { what, have, need });
            }
        }
        if features > slots {
            return Err(Error::Shape { what: "features per token", have: features, need: slots });
        }
        Ok(Self { slots, features, repeated: features == slots })
    }

    /// The same layout where every token is the same row: a shift inside the row is then a plain
    /// rotation, and a matrix takes half the diagonals.
    #[must_use]
    pub fn repeated(self) -> Self {
        Self { repeated: true, ..self }
    }

    /// Number of slots of a vector.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Slots per token.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Tokens that fit one vector.
    pub fn tokens(&self) -> usize {
        self.slots / self.features
    }

    /// Vectors that a matrix of `width` columns takes.
    pub fn blocks(&self, width: usize) -> usize {
        width.div_ceil(self.features).max(1)
    }

    /// Packs `rows` (one per token) into vectors, zeros elsewhere.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are more rows than tokens, or rows of different lengths.
    pub fn pack(&self, rows: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        let width = rows.first().map_or(0, Vec::len);
        if rows.len() > self.tokens() {
            return Err(Error::Shape { what: "tokens", have: rows.len(), need: self.tokens() });
        }
        let mut vectors = vec![vec![0.0; self.slots]; self.blocks(width)];
        for (token, row) in rows.iter().enumerate() {
            if row.len() != width {
                return Err(Error::Shape { what: "length of a row", have: row.len(), need: width });
            }
            for (column, &value) in row.iter().enumerate() {
                vectors[column / self.features][token * self.features + column % self.features] = value;
            }
        }
        Ok(vectors)
    }

    /// The first `tokens` rows and `width` columns of packed vectors.
    ///
    /// # Errors
    /// [`Error::Shape`] if the vectors hold less than that.
    pub fn unpack(&self, vectors: &[Vec<f64>], tokens: usize, width: usize) -> Result<Vec<Vec<f64>>> {
        let need = self.blocks(width);
        if vectors.len() < need {
            return Err(Error::Shape { what: "packed vectors", have: vectors.len(), need });
        }
        if tokens > self.tokens() {
            return Err(Error::Shape { what: "tokens", have: tokens, need: self.tokens() });
        }
        if let Some(vector) = vectors.iter().find(|vector| vector.len() != self.slots) {
            return Err(Error::Shape {
                what: "slots of a packed vector",
                have: vector.len(),
                need: self.slots,
            });
        }
        let value = |token: usize, column: usize| {
            vectors[column / self.features][token * self.features + column % self.features]
        };
        Ok((0..tokens).map(|token| (0..width).map(|column| value(token, column)).collect()).collect())
    }

    /// A plaintext that is the same for every token: `row[feature]`, padded with zeros, one vector
    /// per block.
    pub fn every_token(&self, row: &[f64]) -> Vec<Plain> {
        let value = |column: usize| row.get(column).copied().unwrap_or(0.0);
        let block =
            |block: usize| (0..self.features).map(|i| value(block * self.features + i)).collect::<Vec<_>>();
        (0..self.blocks(row.len())).map(|index| Plain::real(block(index))).collect()
    }

    /// The product of every token's row with a matrix: `out[token] = in[token] * weights`, where
    /// `weights[i][o]` leads from input feature `i` to output feature `o`.
    ///
    /// A shift by `k` features inside a token runs over its end for some features. Each diagonal of
    /// the matrix is therefore split in two masked ones, shifts `k` and `k - features`, whose
    /// values have the period of one token: no level is spent on masks and a diagonal takes
    /// `features` numbers, whatever the number of slots.
    ///
    /// # Errors
    /// [`Error::Shape`] if rows of `weights` differ in length.
    pub fn matmul(&self, weights: &[Vec<f64>]) -> Result<LinearTransform> {
        let width = weights.first().map_or(0, Vec::len);
        if let Some(row) = weights.iter().find(|row| row.len() != width) {
            return Err(Error::Shape { what: "length of a weight row", have: row.len(), need: width });
        }
        let size = self.features;
        let (inputs, outputs) = (self.blocks(weights.len()), self.blocks(width));
        let weight = |input: usize, output: usize| {
            weights.get(input).and_then(|row| row.get(output)).copied().unwrap_or(0.0)
        };
        // With a single row the two halves of a diagonal are one rotation.
        if self.repeated {
            return self.cyclic(inputs, outputs, &weight);
        }
        let mut diagonals = Vec::new();
        for output in 0..outputs {
            for input in 0..inputs {
                for shift in 1 - size as i64..size as i64 {
                    let value = |feature: usize| {
                        let from = feature as i64 + shift;
                        let inside = (0..size as i64).contains(&from);
                        if inside {
                            weight(input * size + from as usize, output * size + feature)
                        } else {
                            0.0
                        }
                    };
                    let values: Vec<f64> = (0..size).map(value).collect();
                    if values.iter().any(|&value| value != 0.0) {
                        diagonals.push((output, input, shift, Plain::real(values)));
                    }
                }
            }
        }
        LinearTransform::block(self.slots, outputs, inputs, diagonals)
    }

    fn cyclic(
        &self,
        inputs: usize,
        outputs: usize,
        weight: &dyn Fn(usize, usize) -> f64,
    ) -> Result<LinearTransform> {
        let size = self.features;
        let mut diagonals = Vec::new();
        for output in 0..outputs {
            for input in 0..inputs {
                // Signed, so that the diagonals of a matrix narrower than a token are neighbours.
                for shift in -(size as i64 / 2)..(size as i64 + 1) / 2 {
                    let from = |row: usize| (row as i64 + shift).rem_euclid(size as i64) as usize;
                    let value = |row: usize| weight(input * size + from(row), output * size + row);
                    let values = (0..size).map(value).collect::<Vec<_>>();
                    diagonals.push((output, input, shift, Plain::real(values)));
                }
            }
        }
        LinearTransform::block(self.slots, outputs, inputs, diagonals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::{Chain, Clear, Machine};

    #[test]
    fn a_packed_product_is_the_matrix_product() {
        for (features, inner, outer) in [(8, 8, 8), (8, 20, 12), (8, 5, 16), (64, 30, 64)] {
            let layout = TokenLayout::new(64, features).unwrap();
            let tokens = layout.tokens();
            let weights: Vec<Vec<f64>> = (0..inner)
                .map(|i| (0..outer).map(|o| ((i * 5 + o * 3) % 7) as f64 / 7.0 - 0.4).collect())
                .collect();
            let rows: Vec<Vec<f64>> =
                (0..tokens).map(|t| (0..inner).map(|i| ((t * 3 + i) % 5) as f64 - 2.0).collect()).collect();
            let machine = Clear::new(Chain::uniform(64, 1, 40, 60).unwrap());
            let inputs: Vec<_> = layout
                .pack(&rows)
                .unwrap()
                .into_iter()
                .map(|vector| machine.input(vector, 1).unwrap())
                .collect();
            let transform = layout.matmul(&weights).unwrap();
            let outputs = machine.linear_transforms(&inputs.iter().collect::<Vec<_>>(), &transform).unwrap();
            let unpacked: Vec<_> = outputs.iter().map(|output| output.real()).collect();
            let result = layout.unpack(&unpacked, tokens, outer).unwrap();
            for (row, result) in rows.iter().zip(&result) {
                for (o, value) in result.iter().enumerate() {
                    let expected: f64 = row.iter().zip(&weights).map(|(x, w)| x * w[o]).sum();
                    assert!((value - expected).abs() < 1e-9);
                }
            }
        }
    }

    #[test]
    fn a_repeated_row_takes_half_the_diagonals() {
        let layout = TokenLayout::new(64, 8).unwrap().repeated();
        let weights: Vec<Vec<f64>> =
            (0..20).map(|i| (0..12).map(|o| ((i * 5 + o * 3) % 7) as f64 / 7.0 - 0.4).collect()).collect();
        let row: Vec<f64> = (0..20).map(|i| (i % 5) as f64 - 2.0).collect();
        let machine = Clear::new(Chain::uniform(64, 1, 40, 60).unwrap());
        let inputs = layout.pack(&vec![row.clone(); layout.tokens()]).unwrap();
        let inputs: Vec<_> = inputs.into_iter().map(|vector| machine.input(vector, 1).unwrap()).collect();
        let transform = layout.matmul(&weights).unwrap();
        // Six blocks of eight; the corner block, four by four, touches seven.
        assert_eq!(transform.diagonals().count(), 3 * 2 * 8 - 1);
        let outputs = machine.linear_transforms(&inputs.iter().collect::<Vec<_>>(), &transform).unwrap();
        let unpacked: Vec<_> = outputs.iter().map(|output| output.real()).collect();
        for found in layout.unpack(&unpacked, layout.tokens(), 12).unwrap() {
            for (o, value) in found.iter().enumerate() {
                let expected: f64 = row.iter().zip(&weights).map(|(x, w)| x * w[o]).sum();
                assert!((value - expected).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn diagonals_stay_as_short_as_a_token() {
        let layout = TokenLayout::new(1 << 12, 16).unwrap();
        let transform = layout.matmul(&vec![vec![1.0; 16]; 16]).unwrap();
        assert!(transform.diagonals().all(|(_, _, _, plain)| plain.period() == 16));
        assert_eq!(transform.diagonals().count(), 31);
        assert_eq!(transform.cost().plain_values, 31 * 16);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(TokenLayout::new(64, 12).is_err());
        assert!(TokenLayout::new(64, 128).is_err());
        let layout = TokenLayout::new(64, 16).unwrap();
        assert!(layout.pack(&vec![vec![0.0; 4]; 5]).is_err());
        assert!(layout.unpack(&[vec![0.0; 64]], 4, 17).is_err());
        assert!(layout.matmul(&[vec![0.0; 2], vec![0.0; 3]]).is_err());
    }
}
