//! Attention over packed scores: one vector holds as many token distances as a head has features.
//!
//! The score of token `t` against the token `d` before it goes into feature `j = d mod h` of its
//! head (`h` features), so that the `h` distances of a *group* share a vector, and two groups share
//! a complex one. With keys skewed once, `k'[t, f] = k[t - f, f]`,
//!
//! `s[t, j] = sum_r q[t, j + r] k'[t + r, j + r]`,  `-h < r < h`
//!
//! (of a text of `T < h` tokens, which has distances up to `T` alone, `-T < r < h`):
//!
//! both factors are plain rotations, and one relinearisation serves a whole run of `r`. The same
//! holds for the values, `out[t, f] = sum_r w[t, f + r] v'[t - r, f]`, `-h < r < T` there. What is
//! not inside the head is masked on the side that has a level to spare, and the rotary embedding,
//! which only depends on the distance, rides on that mask: `R(t) q . R(s) k = R(j) q . R(-g h) k`
//! in group `g`.
//!
//! Where there is one group alone, the halves of a head take the place of two groups: with
//! `q + i rot(q, h/2)` and `k - i rot(k, h/2)` a turn is a product with a complex number, the score
//! the real part of a sum over `h/2` features, and the values come out as `v + i rot(v, h/2)`.
//!
//! Against one product, two sums over the head and a power for every distance this needs a seventh
//! of the key switches, and no more levels. All plaintexts but the causal masks repeat with every
//! token.

use cipherlm_circuits::linear::LinearTransform;
use cipherlm_circuits::slots::{self, Machine, Plain};
use cipherlm_model::{Attention, Kind};
use num_complex::Complex64;
use rayon::prelude::*;
use std::collections::BTreeMap;

use crate::error::{At, Error, Result};
use crate::fold::{Folded, Purpose};
use crate::lanes::{by_text, join, join_maps};
use crate::prefix::{self, Place};
use crate::vector::{POWER_LABEL, Value, lower, power, power_depth, spread};

/// Rotations that share a decomposition, and the stride of those before them.
const RUN: usize = 16;

/// Fewest distances for which packing pays: below, copies of the tokens do better.
const FEWEST: usize = 16;

impl Folded {
    /// Whether scores are packed in this circuit.
    pub(crate) fn packs_scores(&self) -> bool {
        let g = self.geometry;
        // Distances count modulo the tokens, which a causal mask or no angle can stand.
        let cyclic = self.shape().kind == Kind::Decoder || self.shape().rotary.is_none();
        self.purpose == Purpose::Prompt && cyclic && g.shifts() >= FEWEST
    }

    /// Groups of `head` distances; the only one of a text shorter than a head is not full.
    fn groups(&self) -> usize {
        self.geometry.tokens.div_ceil(self.geometry.head)
    }

    /// Distances in a group.
    pub(crate) fn distances(&self) -> usize {
        self.geometry.head.min(self.geometry.tokens)
    }

    /// Whether the second half of a head is the imaginary part of the first: where no second group
    /// of distances is, and a turn turns one half into the other.
    fn halves(&self) -> bool {
        let head = self.geometry.head;
        self.groups() == 1 && head > 1 && self.shape().rotary.is_none_or(|rotary| rotary.dims == head)
    }

    /// Features of a head that a query and a key meet in.
    pub(crate) fn meeting(&self) -> usize {
        if self.halves() { self.geometry.head / 2 } else { self.geometry.head }
    }

    /// A plaintext of one token, by feature within the head.
    fn by_feature(&self, value: impl Fn(usize) -> Complex64) -> Plain {
        self.every_head(&(0..self.geometry.head).map(value).collect::<Vec<_>>())
    }

    fn every_head(&self, head: &[Complex64]) -> Plain {
        let all = head.iter().copied().cycle().take(self.geometry.features);
        if head.iter().all(|v| v.im == 0.0) {
            Plain::real(all.map(|v| v.re).collect::<Vec<_>>())
        } else {
            Plain::complex(all.collect::<Vec<_>>())
        }
    }

    /// Skews one block, the second half of each head as imaginary part of the first, times
    /// `second`.
    fn skew_halves(&self, scale: f64, second: Complex64) -> Result<LinearTransform> {
        let g = self.geometry;
        let half = g.head / 2;
        let diagonal = |distance: usize, ahead: usize, part: Complex64| {
            let own = |f: usize| f < half && f % self.distances() == distance;
            let plain = self.by_feature(|f| if own(f) { scale * part } else { Complex64::ZERO });
            (ahead as i64 - (distance * g.features) as i64, plain)
        };
        let distances = 0..self.distances().min(half);
        let diagonals = distances
            .flat_map(|distance| [diagonal(distance, 0, Complex64::ONE), diagonal(distance, half, second)]);
        LinearTransform::from_diagonals(g.slots, diagonals).at("skew")
    }

    /// Skews one block for a pair of groups, the second as imaginary part times `second`; keys are
    /// also turned back by the angle of their group's first distance.
    fn skew(&self, pair: usize, scale: f64, second: Complex64, turned: bool) -> Result<LinearTransform> {
        let g = self.geometry;
        let half = self.shape().rotary.filter(|_| turned).map_or(0, |r| r.dims as i64 / 2);
        // Where a head is all of a token, half a turn ahead is half a turn behind the next token.
        let mut diagonals: BTreeMap<i64, Vec<Complex64>> = BTreeMap::new();
        for (group, factor) in (2 * pair..self.groups().min(2 * pair + 2)).zip([Complex64::ONE, second]) {
            for feature in 0..g.head {
                let back = ((group * g.head + feature % self.distances()) * g.features) as i64;
                let [own, ahead, behind] =
                    if turned { self.turn(group * g.head, feature) } else { [1.0, 0.0, 0.0] };
                // The inverse turn has the opposite sine.
                for (offset, value) in [(0, own), (half, -ahead), (-half, -behind)] {
                    let shift = (offset - back).rem_euclid(g.slots as i64);
                    let head = diagonals.entry(shift).or_insert_with(|| vec![Complex64::ZERO; g.head]);
                    head[feature] += factor * scale * value;
                }
            }
        }
        let diagonals = diagonals.into_iter().map(|(shift, head)| (shift, self.every_head(&head)));
        LinearTransform::from_diagonals(g.slots, diagonals).at("skew")
    }

    /// What the queries rotated by `r`, `r + half` and `r - half` are multiplied by, with the
    /// offsets from `r`.
    fn query_plains(&self, r: i64) -> Vec<(i64, Plain)> {
        let head = self.meeting() as i64;
        if self.halves() {
            // A turn is a product with a complex number.
            let turn = self.by_feature(|j| {
                let feature = j as i64 + r;
                let inside = (0..head).contains(&feature) && j < self.distances();
                let [own, ahead, _] = if inside { self.turn(j, feature as usize) } else { [0.0; 3] };
                Complex64::new(own, -ahead)
            });
            return vec![(0, turn)];
        }
        let half = self.shape().rotary.map_or(0, |rotary| rotary.dims as i64 / 2);
        let plain = |part: usize| {
            self.by_feature(|j| {
                let feature = j as i64 + r;
                let inside = (0..head).contains(&feature) && j < self.distances();
                Complex64::new(if inside { self.turn(j, feature as usize)[part] } else { 0.0 }, 0.0)
            })
        };
        let parts = [(0, plain(0)), (half, plain(1)), (-half, plain(2))];
        parts.into_iter().filter(|(_, plain)| !plain.is_zero()).collect()
    }

    /// The mask of a group with the folded scale, times `factor`, and the folded shift `c` under
    /// the same mask.
    fn group_plains(
        &self,
        (l, length): (usize, usize),
        block: usize,
        group: usize,
        factor: f64,
    ) -> Result<(Plain, Plain)> {
        let g = self.geometry;
        let Attention::PowerSoftmax { c, .. } = self.shape().attention else {
            return Err(Error::Unsupported { feature: "this attention", advice: "use PowerSoftmax" });
        };
        let scale = self.query_scale(l, length)?;
        let root = (self.shape().head_dim as f64).sqrt();
        let (mut mask, mut add) = (vec![0.0; g.period()], vec![0.0; g.period()]);
        for slot in 0..g.period() {
            let (_, token, feature) = g.place(slot);
            let head = block * (g.features / g.head) + feature / g.head;
            let distance = group * g.head + feature % g.head;
            let causal = self.shape().kind == Kind::Decoder;
            let key = (token + g.tokens - distance % g.tokens) % g.tokens;
            let admitted = (distance <= token || !causal) && self.admits(token, key, length);
            if head < self.shape().heads && distance < g.tokens && admitted {
                mask[slot] = factor * scale[head][token];
                add[slot] = c * root * scale[head][token];
            }
        }
        Ok((Plain::real(mask), Plain::real(add)))
    }
}

/// Scores, power, weighted values and denominators out of queries, keys and values:
/// `[numerators.., denominators..]`.
pub(crate) fn attend<M: Machine>(
    machine: &M,
    folded: &Folded,
    name: &str,
    qkv: &[M::Vector],
    layer: usize,
    level: usize,
    lengths: &[usize],
) -> Result<Value<M>> {
    let Attention::PowerSoftmax { p, .. } = folded.shape().attention else {
        return Err(Error::Unsupported { feature: "this attention", advice: "use PowerSoftmax" });
    };
    let blocks = folded.geometry.blocks;
    let part = |index: usize, block: usize| {
        qkv.get(index * blocks + block)
            .ok_or_else(|| Error::Malformed { what: name.to_owned(), reason: "too few vectors".into() })
    };
    let attention = Packed { machine, folded, name, layer, level, lengths, p };
    let (mut numerators, mut denominators) = (vec![], vec![]);
    for block in 0..blocks {
        let scores = attention.scores(part(0, block)?, part(1, block)?)?;
        let label = machine.log().label(&format!("{name}{POWER_LABEL}"));
        let weights = attention.weights(block, scores)?;
        let mut denominator = attention.denominator(&weights).at(name)?;
        drop(label);
        let mut numerator = attention.mix(&weights, part(2, block)?)?;
        if folded.first() > 0 {
            let more = attention.prefix(block, part(0, block)?)?;
            for (result, more) in [&mut numerator, &mut denominator].into_iter().zip(&more) {
                *result = machine.add(result, more).at(name)?;
            }
        }
        numerators.push(numerator);
        denominators.push(denominator);
    }
    numerators.extend(denominators);
    Ok(numerators)
}

/// Levels from queries, keys and values to the result.
pub(crate) fn depth(p: u32) -> usize {
    4 + power_depth(p)
}

struct Packed<'a, M> {
    machine: &'a M,
    folded: &'a Folded,
    name: &'a str,
    layer: usize,
    level: usize,
    /// Tokens of each text, without what fills it up.
    lengths: &'a [usize],
    p: u32,
}

impl<M: Machine> Packed<'_, M> {
    /// What the public tokens before the text add to numerators and denominators of a block: their
    /// distance to a query is no help, so the queries are turned for them.
    fn prefix(&self, block: usize, query: &M::Vector) -> Result<Vec<M::Vector>> {
        let (machine, layer, level) = (self.machine, self.layer, self.level);
        let own = |length| self.folded.turned_queries(layer, block, length);
        let turn = join_maps(by_text(self.lengths, own)?).at(self.name)?;
        let top = level + 2 + power_depth(self.p);
        let query = machine.linear_transforms_to(&[query], &turn, top).at(self.name)?.swap_remove(0);
        let place = Place { layer, block, level, position: None };
        prefix::attend(machine, self.folded, &query, &place, self.p)
    }

    /// All `r` between `-before` and `after`, powers of two, in runs that start `RUN` apart.
    fn runs(before: usize, after: usize) -> Vec<(i64, Vec<i64>)> {
        let run = RUN.min(before).min(after);
        let (before, after) = (before as i64, after as i64);
        let one = |from: i64| (from, (from..from + run as i64).filter(|&r| r > -before).collect());
        (-before..after).step_by(run).map(one).collect()
    }

    /// Rotations of a vector by `unit r` for all `r` of a run.
    fn rotations(
        &self,
        vector: &M::Vector,
        unit: i64,
        run: &(i64, Vec<i64>),
    ) -> slots::Result<Vec<M::Vector>> {
        let first = if run.0 == 0 { vector.clone() } else { self.machine.rotate(vector, unit * run.0)? };
        let steps: Vec<i64> = run.1.iter().map(|r| unit * (r - run.0)).collect();
        self.machine.rotate_many(&first, &steps)
    }

    /// Packed scores of each pair of groups, before scale and mask.
    fn scores(&self, query: &M::Vector, key: &M::Vector) -> Result<Vec<M::Vector>> {
        let (machine, g) = (self.machine, self.folded.geometry);
        let top = self.level + depth(self.p);
        let mut query = lower(machine, query, top).at(self.name)?;
        if self.folded.halves() {
            let second = machine.rotate(&query, g.head as i64 / 2).and_then(|second| machine.mul_i(&second));
            query = second.and_then(|second| machine.add(&query, &second)).at(self.name)?;
        }
        let distances = self.folded.distances();
        let runs = Self::runs(distances, self.folded.meeting());
        let queries = runs.par_iter().map(|run| self.rotations(&query, 1, run));
        let queries = queries.collect::<slots::Result<Vec<_>>>().at(self.name)?.concat();
        let rotated = |r: i64| &queries[(r + distances as i64 - 1) as usize];
        let turned = |r: i64| {
            let mut sum: Option<M::Vector> = None;
            for (offset, plain) in self.folded.query_plains(r) {
                let term = machine.mul_plain_lazy(rotated(r + offset), &plain)?;
                sum = Some(match sum {
                    Some(sum) => machine.add_aligned(&sum, &term)?,
                    None => term,
                });
            }
            // Every r leaves at least one feature of the head inside, for one distance.
            let sum = sum.map_or_else(|| machine.mul_plain_lazy(rotated(r), &Plain::from(0.0)), Ok)?;
            machine.rescale(&sum)
        };
        let keys = (0..self.folded.groups().div_ceil(2)).map(|pair| {
            let skew = match self.folded.halves() {
                true => self.folded.skew_halves(1.0, -Complex64::I),
                false => self.folded.skew(pair, 1.0, Complex64::I, true),
            }?;
            let mut keys = machine.linear_transforms_to(&[key], &skew, top - 1).at(self.name)?;
            Ok(keys.swap_remove(0))
        });
        let keys = keys.collect::<Result<Vec<_>>>()?;
        let along = 1 + g.features as i64;
        let of_run = |run: &(i64, Vec<i64>)| {
            let queries = run.1.iter().map(|&r| turned(r)).collect::<slots::Result<Vec<_>>>()?;
            let product = |key: &M::Vector| {
                let keys = self.rotations(key, along, run)?;
                machine.mul_sum_lazy(&queries.iter().zip(&keys).collect::<Vec<_>>())
            };
            keys.iter().map(product).collect::<slots::Result<Vec<_>>>()
        };
        self.total(runs.par_iter().map(of_run).collect::<slots::Result<Vec<_>>>().at(self.name)?)
    }

    /// Adds the partial products of all runs, by position, and rescales.
    fn total(&self, parts: Vec<Vec<M::Vector>>) -> Result<Vec<M::Vector>> {
        let machine = self.machine;
        let add = |sums: Vec<M::Vector>, part: Vec<M::Vector>| {
            sums.iter().zip(&part).map(|(a, b)| machine.add_aligned(a, b)).collect::<slots::Result<Vec<_>>>()
        };
        let mut parts = parts.into_iter();
        let first = parts.next().unwrap_or_default();
        let sums = parts.try_fold(first, add).at(self.name)?;
        sums.iter().map(|sum| machine.rescale(sum).at(self.name)).collect()
    }

    /// Weights of each group: the masked power of the scores.
    fn weights(&self, block: usize, scores: Vec<M::Vector>) -> Result<Vec<M::Vector>> {
        let (machine, g, groups) = (self.machine, self.folded.geometry, self.folded.groups());
        let mut parts = vec![];
        for (pair, score) in scores.iter().enumerate() {
            if self.folded.halves() {
                parts.push((machine.twice_real(score).at(self.name)?, 0.5));
                continue;
            }
            if 2 * pair + 1 == groups {
                parts.push((score.clone(), 1.0));
                continue;
            }
            let run = || {
                let conjugate = machine.conjugate(score)?;
                let second = machine.mul_i(&machine.sub_aligned(&conjugate, score)?)?;
                Ok([machine.add_aligned(score, &conjugate)?, second])
            };
            parts.extend(run().at(self.name)?.map(|part| (part, 0.5)));
        }
        let weigh = |(group, (score, factor)): (usize, &(M::Vector, f64))| {
            let own = |length| self.folded.group_plains((self.layer, length), block, group, *factor);
            let (mask, add): (Vec<_>, Vec<_>) = by_text(self.lengths, own)?.into_iter().unzip();
            let (mask, add) = (join(&mask, g.slots), join(&add, g.slots));
            let run = || power(machine, &machine.add_plain(&machine.mul_plain(score, &mask)?, &add)?, self.p);
            run().at(self.name)
        };
        parts.par_iter().enumerate().map(weigh).collect()
    }

    /// The sum of all weights of a head in each of its features, mapped onto the denominator's
    /// range.
    fn denominator(&self, weights: &[M::Vector]) -> slots::Result<M::Vector> {
        let (machine, head) = (self.machine, self.folded.geometry.head);
        let sum = machine.rotate_sum(&machine.add_many(&weights.iter().collect::<Vec<_>>())?, 1, head)?;
        let only = self.folded.by_feature(|f| Complex64::new(f64::from(u8::from(f == 0)), 0.0));
        let everywhere = spread(machine, &machine.mul_plain(&sum, &only)?, head)?;
        machine.add_const(&everywhere, Complex64::new(self.folded.denominator_offset(self.layer), 0.0))
    }

    /// The values of all earlier tokens, weighted and summed.
    fn mix(&self, weights: &[M::Vector], value: &M::Vector) -> Result<M::Vector> {
        let (machine, g, halves) = (self.machine, self.folded.geometry, self.folded.halves());
        let masked = self.masks_values();
        let paired = weights.chunks(2).enumerate().map(|(pair, weights)| {
            let weight = match weights {
                [first, second] => machine.add_aligned(first, &machine.mul_i(second).at(self.name)?),
                _ => Ok(weights[0].clone()),
            };
            let skew = match (halves, weights.len()) {
                (true, _) => self.folded.skew_halves(0.5, Complex64::I),
                // Real already where a group is alone.
                (false, 1) => self.folded.skew(pair, 1.0, Complex64::ZERO, false),
                // Re((w + i w') (v - i v')) = w v + w' v', taken as a value plus its conjugate.
                (false, _) => self.folded.skew(pair, 0.5, -Complex64::I, false),
            };
            let level = self.level + 1 + usize::from(masked);
            let mut values = machine.linear_transforms_to(&[value], &skew?, level).at(self.name)?;
            Ok((weight.at(self.name)?, values.swap_remove(0)))
        });
        let paired = paired.collect::<Result<Vec<_>>>()?;
        let back = -(g.features as i64);
        let inside = |f: usize, r: i64| (0..g.head as i64).contains(&(f as i64 + r));
        let of_run = |run: &(i64, Vec<i64>)| {
            let product = |(weight, value): &(M::Vector, M::Vector)| {
                let weights = self.rotations(weight, 1, run)?;
                let values = self.rotations(value, back, run)?.into_iter().zip(&run.1).map(|(value, &r)| {
                    if !masked {
                        return Ok(value);
                    }
                    let mask =
                        self.folded.by_feature(|f| Complex64::new(f64::from(u8::from(inside(f, r))), 0.0));
                    machine.mul_plain(&value, &mask)
                });
                let values = values.collect::<slots::Result<Vec<_>>>()?;
                machine.mul_sum_lazy(&weights.iter().zip(&values).collect::<Vec<_>>())
            };
            paired.iter().map(product).collect::<slots::Result<Vec<_>>>()
        };
        // Weights of distances that are none are zero.
        let runs = Self::runs(self.folded.meeting(), self.folded.distances());
        let sums =
            self.total(runs.par_iter().map(of_run).collect::<slots::Result<Vec<_>>>().at(self.name)?)?;
        let real = |(pair, sum): (usize, &M::Vector)| {
            if halves {
                let conjugate = machine.conjugate(sum)?;
                let second = machine.mul_i(&machine.sub(&conjugate, sum)?)?;
                let second = machine.rotate(&second, -(g.head as i64) / 2)?;
                return machine.add(&machine.add(sum, &conjugate)?, &second);
            }
            let alone = 2 * pair + 1 == weights.len();
            if alone { Ok(sum.clone()) } else { machine.twice_real(sum) }
        };
        let real = sums.iter().enumerate().map(real).collect::<slots::Result<Vec<_>>>().at(self.name)?;
        machine.add_many(&real.iter().collect::<Vec<_>>()).at(self.name)
    }

    /// Whether values are masked where a rotated weight is of another head. Between halves that
    /// are no shorter than the text, all weights that come from there are of no distance.
    fn masks_values(&self) -> bool {
        self.folded.distances() > self.folded.meeting() || !self.folded.halves()
    }
}
