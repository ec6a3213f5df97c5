//! Answers at one position alone: every group of slots holds the same row, so each can be turned
//! into other columns of the answer, and a vocabulary takes as many vectors as it fills.

use cipherlm_circuits::linear::LinearTransform;
use cipherlm_circuits::slots::Plain;
use cipherlm_model::{Kind, Positions};

use super::Folded;
use super::affine::Affine;
use crate::error::{At, Result};
use crate::geometry::Geometry;

/// Vectors of an answer at every position up to which picking one of them does not pay: it takes a
/// level.
const FEW: usize = 4;

/// Columns of an answer at one position: groups of slots side by side, then vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wide {
    /// Slots until the columns repeat.
    pub(crate) period: usize,
    /// Vectors.
    pub(crate) vectors: usize,
}

impl Wide {
    /// The layout for `results` columns, if answers at one position are enough and it pays.
    pub(super) fn choose(
        kind: Kind,
        positions: Positions,
        geometry: &Geometry,
        results: usize,
    ) -> Option<Self> {
        let groups = results.div_ceil(geometry.features);
        if kind != Kind::Decoder || positions == Positions::All || groups <= FEW {
            return None;
        }
        Some(Self::of(geometry, results))
    }

    /// The layout for `results` columns.
    pub(super) fn of(geometry: &Geometry, results: usize) -> Self {
        let groups = results.div_ceil(geometry.features);
        let period = (geometry.features * groups.next_power_of_two()).min(geometry.slots);
        Self { period, vectors: results.div_ceil(period) }
    }

    /// Columns as plaintexts.
    pub(super) fn plains(&self, row: &[f64]) -> Vec<Plain> {
        let value = |column: usize| row.get(column).copied().unwrap_or(0.0);
        let vector = |v: usize| (v * self.period..(v + 1) * self.period).map(value).collect::<Vec<_>>();
        (0..self.vectors).map(|v| Plain::real(vector(v))).collect()
    }
}

impl Folded {
    /// The map from a row that every group of slots holds to the columns of the answer, and the
    /// bias.
    pub(super) fn wide_transform(
        &self,
        affine: &Affine,
        wide: Wide,
    ) -> Result<(LinearTransform, Vec<Plain>)> {
        let g = self.geometry;
        let width = affine.bias.len();
        let inputs = affine.weights.len().div_ceil(g.features);
        let mut diagonals = vec![];
        for output in 0..wide.vectors {
            for input in 0..inputs {
                for shift in 0..g.features {
                    let value = |slot: usize| {
                        let row = input * g.features + (slot + shift) % g.features;
                        let column = output * wide.period + slot;
                        let inside = row < affine.weights.len() && column < width;
                        if inside { affine.weights[row][column] } else { 0.0 }
                    };
                    let values: Vec<f64> = (0..wide.period).map(value).collect();
                    if values.iter().any(|&v| v != 0.0) {
                        diagonals.push((output, input, shift as i64, Plain::real(values)));
                    }
                }
            }
        }
        let transform = LinearTransform::block(g.slots, wide.vectors, inputs, diagonals).at("head")?;
        Ok((transform, wide.plains(&affine.bias)))
    }
}
