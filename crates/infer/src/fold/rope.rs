//! Rotary embedding of queries and keys, with what else rides on its plaintexts.

use cipherlm_circuits::linear::LinearTransform;
use cipherlm_circuits::slots::Plain;
use num_complex::Complex64;
use std::collections::BTreeMap;

use super::{Folded, Purpose};
use crate::error::{At, Result};
use crate::geometry::Geometry;

/// Output, input, shift and values.
type Diagonal = (usize, usize, i64, Plain);

impl Folded {
    /// Rotary embedding, folded score constants and the shift between copies, on queries, keys and
    /// values at once.
    ///
    /// Queries keep their token in every copy; copy `c` of the keys and values holds what stands
    /// `c` tokens earlier. What goes to the cache of a session ends after `length` tokens.
    pub(crate) fn spread(&self, l: usize, length: usize) -> Result<LinearTransform> {
        let g = self.geometry;
        let scale = self.query_scale(l, length)?;
        let mut diagonals = vec![];
        for block in 0..g.blocks {
            self.rotary_diagonals(&mut diagonals, (block, block), 0, &|token, column| {
                scale.get(column / g.head).map_or(0.0, |rows| rows[token])
            });
            for copy in 0..g.copies {
                let key = g.blocks + block;
                self.rotary_diagonals(&mut diagonals, (key, key), copy, &|_, _| 1.0);
                let value = 2 * g.blocks + block;
                let mask = copy_mask(&g, copy);
                diagonals.push((value, value, -((copy * g.features) as i64), Plain::real(mask)));
            }
        }
        let mut outputs = 3 * g.blocks;
        if self.purpose == Purpose::PromptForSession {
            // Keys and values once more, without copies: the cache.
            for block in 0..g.blocks {
                let first = diagonals.iter().filter(|d| d.1 >= g.blocks && d.1 % g.blocks == block);
                let cached = first.filter_map(|(output, input, shift, plain)| {
                    let half = self.shape().rotary.map_or(0, |r| r.dims as i64 / 2);
                    let own = shift.abs() <= half && plain.values().take(g.period()).any(|v| v.re != 0.0);
                    let kept =
                        |(slot, v): (usize, Complex64)| if g.place(slot).1 < length { v.re } else { 0.0 };
                    let kept = || Plain::real(plain.values().enumerate().map(kept).collect::<Vec<_>>());
                    own.then(|| (output + 2 * g.blocks, *input, *shift, kept()))
                });
                let cached: Vec<_> = cached.collect();
                diagonals.extend(cached);
            }
            outputs += 2 * g.blocks;
        }
        LinearTransform::block(g.slots, outputs, 3 * g.blocks, add_up(g.slots, diagonals)).at("rotary")
    }

    /// Rotary embedding of one token, the same in every slot group.
    pub(crate) fn spread_one(&self, l: usize, position: usize) -> Result<LinearTransform> {
        let g = self.geometry;
        let scale = self.query_scale(l, 1)?;
        let mut diagonals = vec![];
        for block in 0..g.blocks {
            for part in 0..3 {
                let index = part * g.blocks + block;
                let factor = |column: usize| match part {
                    0 => scale.get(column / g.head).map_or(0.0, |rows| rows[position]),
                    _ => 1.0,
                };
                let mut values = [vec![0.0; g.features], vec![0.0; g.features], vec![0.0; g.features]];
                for feature in 0..g.features {
                    let size = factor(block * g.features + feature);
                    let turned = if part < 2 {
                        self.turn(self.first() + position, feature % g.head)
                    } else {
                        [1.0, 0.0, 0.0]
                    };
                    values.iter_mut().zip(turned).for_each(|(v, t)| v[feature] = t * size);
                }
                self.push_turns(&mut diagonals, (index, index), 0, values);
            }
        }
        LinearTransform::block(g.slots, 3 * g.blocks, 3 * g.blocks, diagonals).at("rotary")
    }

    /// Rotary embedding of the queries of one block alone, scaled as in [`Folded::spread`].
    pub(crate) fn turned_queries(&self, l: usize, block: usize, length: usize) -> Result<LinearTransform> {
        let scale = self.query_scale(l, length)?;
        let mut diagonals = vec![];
        self.rotary_diagonals(&mut diagonals, (block, block), 0, &|token, column| {
            scale.get(column / self.geometry.head).map_or(0.0, |rows| rows[token])
        });
        let alone = diagonals.into_iter().map(|(_, _, shift, plain)| (shift, plain));
        LinearTransform::from_diagonals(self.geometry.slots, alone).at("rotary")
    }

    fn rotary_diagonals(
        &self,
        out: &mut Vec<Diagonal>,
        (output, input): (usize, usize),
        copy: usize,
        factor: &dyn Fn(usize, usize) -> f64,
    ) {
        let g = self.geometry;
        let block = output % g.blocks;
        // Queries are the same in every copy: one period of values is enough.
        let is_query = output < g.blocks;
        let length = if is_query { g.period() } else { g.slots };
        let mut values = [vec![0.0; length], vec![0.0; length], vec![0.0; length]];
        for slot in 0..length {
            let (here, token, feature) = g.place(slot);
            if !is_query && here != copy {
                continue;
            }
            let source = (token + g.tokens * g.copies - copy) % g.tokens;
            let size = factor(token, block * g.features + feature);
            let turned = self.turn(self.first() + source, feature % g.head);
            values.iter_mut().zip(turned).for_each(|(v, t)| v[slot] = t * size);
        }
        self.push_turns(out, (output, input), -((copy * g.features) as i64), values);
    }

    /// What a rotated feature takes of itself, of the one half a turn ahead, and of the one half a
    /// turn behind.
    pub(crate) fn turn(&self, position: usize, within: usize) -> [f64; 3] {
        match self.shape().rotary {
            Some(rotary) if within < rotary.dims => {
                let half = rotary.dims / 2;
                let (sin, cos) = rotary.angle(position, within % half).sin_cos();
                if within < half { [cos, -sin, 0.0] } else { [cos, 0.0, sin] }
            }
            _ => [1.0, 0.0, 0.0],
        }
    }

    fn push_turns(
        &self,
        out: &mut Vec<Diagonal>,
        (output, input): (usize, usize),
        base: i64,
        values: [Vec<f64>; 3],
    ) {
        let half = self.shape().rotary.map_or(0, |r| r.dims as i64 / 2);
        for (shift, values) in [0, half, -half].into_iter().zip(values) {
            if values.iter().any(|&v| v != 0.0) {
                out.push((output, input, base + shift, Plain::real(values)));
            }
        }
    }
}

/// Diagonals of one shift as one: where a head is all of a token, half a turn ahead of one copy is
/// half a turn behind the next.
fn add_up(slots: usize, diagonals: Vec<Diagonal>) -> Vec<Diagonal> {
    let mut sums: BTreeMap<(usize, usize, i64), Plain> = BTreeMap::new();
    for (output, input, shift, plain) in diagonals {
        let place = (output, input, shift.rem_euclid(slots as i64));
        let plain = match sums.remove(&place) {
            None => plain,
            Some(sum) => {
                Plain::real(sum.values().zip(plain.values()).map(|(a, b)| a.re + b.re).collect::<Vec<_>>())
            }
        };
        sums.insert(place, plain);
    }
    sums.into_iter().map(|((output, input, shift), plain)| (output, input, shift, plain)).collect()
}

fn copy_mask(g: &Geometry, copy: usize) -> Vec<f64> {
    (0..g.slots).map(|slot| f64::from(u8::from(g.place(slot).0 == copy))).collect()
}
