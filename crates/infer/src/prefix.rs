//! Attention to the public tokens before a text, whose keys and values are plaintexts.

use cipherlm_circuits::slots::{self, Machine};

use crate::error::{At, Result};
use crate::fold::Folded;
use crate::vector::{power, power_depth};

/// Where in a circuit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) layer: usize,
    pub(crate) block: usize,
    /// Level of the results.
    pub(crate) level: usize,
    /// Position of a token that is run alone.
    pub(crate) position: Option<usize>,
}

/// What the public tokens add to the numerators and to the denominators of a block. The queries are
/// turned and scaled; two plain maps and the power between them lie above the result.
pub(crate) fn attend<M: Machine>(
    machine: &M,
    folded: &Folded,
    query: &M::Vector,
    place: &Place,
    p: u32,
) -> Result<Vec<M::Vector>> {
    let &Place { layer, block, level, position } = place;
    let scores = folded.prefix_scores(layer, block)?;
    let top = level + 1 + power_depth(p);
    let scores = machine.linear_transforms_to(&[query], &scores, top).at("prefix")?;
    let shifts = folded.prefix_shifts(layer, block, position)?;
    let weigh = |(score, shift): (&M::Vector, _)| power(machine, &machine.add_plain(score, shift)?, p);
    let weights = scores.iter().zip(&shifts).map(weigh).collect::<slots::Result<Vec<_>>>().at("prefix")?;
    let weights: Vec<&M::Vector> = weights.iter().collect();
    machine.linear_transforms_to(&weights, &folded.prefix_values(layer, block)?, level).at("prefix")
}
