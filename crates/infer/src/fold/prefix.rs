//! Public tokens before the text: their keys and values are known in the clear, so the scores
//! against them are a plain map of the queries, and what they give a plain map of the weights.

use cipherlm_circuits::linear::LinearTransform;
use cipherlm_circuits::slots::Plain;
use cipherlm_model::Attention;

use super::{Folded, public::Prefix};
use crate::error::{At, Error, Result};

impl Folded {
    /// Public tokens before the text.
    pub(crate) fn first(&self) -> usize {
        self.prefix.as_ref().map_or(0, |prefix| prefix.tokens)
    }

    /// Vectors of scores against the public tokens: as many fit one as a head has features.
    fn prefix_vectors(&self) -> usize {
        self.first().div_ceil(self.geometry.head)
    }

    /// From the turned queries of a block to the scores against the public tokens: that of token
    /// `j` lands in feature `j` of its head.
    pub(crate) fn prefix_scores(&self, l: usize, block: usize) -> Result<LinearTransform> {
        let (g, vectors) = (self.geometry, self.prefix_vectors());
        let mut weights = vec![vec![0.0; vectors * g.features]; g.features];
        self.each_entry(block, |prefix, head, local, token| {
            for feature in 0..self.shape().head_dim {
                let column = token / g.head * g.features + local * g.head + token % g.head;
                weights[local * g.head + feature][column] =
                    prefix.feature(self.shape(), l, 0, (token, head, feature));
            }
        });
        g.layout()?.matmul(&weights).at("prefix")
    }

    /// The public shift of those scores, in the queries' scale, by token of the text (`position`:
    /// of one alone).
    pub(crate) fn prefix_shifts(
        &self,
        l: usize,
        block: usize,
        position: Option<usize>,
    ) -> Result<Vec<Plain>> {
        let (g, scale) = (self.geometry, self.query_scale(l, 1)?);
        let Attention::PowerSoftmax { c, .. } = self.shape().attention else {
            return Err(Error::Unsupported { feature: "this attention", advice: "use PowerSoftmax" });
        };
        let factor = c * (self.shape().head_dim as f64).sqrt();
        let mut shifts = vec![vec![0.0; g.period()]; self.prefix_vectors()];
        self.each_entry(block, |_, head, local, token| {
            for row in 0..g.tokens {
                let slot = row * g.features + local * g.head + token % g.head;
                shifts[token / g.head][slot] = factor * scale[head][position.unwrap_or(row)];
            }
        });
        Ok(shifts.into_iter().map(Plain::real).collect())
    }

    /// From the weights of the public tokens to what they add to the numerators of a block, and to
    /// its denominators.
    pub(crate) fn prefix_values(&self, l: usize, block: usize) -> Result<LinearTransform> {
        let (g, unit) = (self.geometry, 2.0 * self.units.layers[l].value);
        let mut weights = vec![vec![0.0; 2 * g.features]; self.prefix_vectors() * g.features];
        self.each_entry(block, |prefix, head, local, token| {
            let row = &mut weights[token / g.head * g.features + local * g.head + token % g.head];
            for feature in 0..self.shape().head_dim {
                row[local * g.head + feature] =
                    prefix.feature(self.shape(), l, 1, (token, head, feature)) / unit;
            }
            row[g.features + local * g.head..][..g.head].fill(1.0);
        });
        g.layout()?.matmul(&weights).at("prefix")
    }

    /// Every head of a block, with its place there, and every public token.
    fn each_entry(&self, block: usize, mut entry: impl FnMut(&Prefix, usize, usize, usize)) {
        let (g, Some(prefix)) = (self.geometry, &self.prefix) else { return };
        let heads = g.features / g.head;
        for local in (0..heads).filter(|local| block * heads + local < self.shape().heads) {
            for token in 0..prefix.tokens {
                entry(prefix, block * heads + local, local, token);
            }
        }
    }
}
