//! Attention over copies of the tokens, and over the cache of a session.

use cipherlm_circuits::slots::{self, Machine};
use cipherlm_model::Attention;
use num_complex::Complex64;
use rayon::prelude::*;

use super::Context;
use crate::error::{At, Error, Result, broken};
use crate::lanes::{by_text, join};
use crate::prefix::{self, Place};
use crate::session::{Session, Turn};
use crate::vector::{POWER_LABEL, Value, lower, power, power_depth};

impl<M: Machine> Context<'_, M> {
    /// Hands the keys and values of a whole prompt to a session.
    pub(super) fn keep<S: Machine<Vector = M::Vector>>(
        &self,
        spread: &[M::Vector],
        layer: usize,
        session: &mut Session<S>,
    ) -> Result<()> {
        let blocks = self.folded.geometry.blocks;
        for block in 0..blocks {
            let (Some(key), Some(value)) = (spread.get(3 * blocks + block), spread.get(4 * blocks + block))
            else {
                return Err(broken(&format!("{} has no keys and values for the cache", self.node.name)));
            };
            session.cache[layer][block] = Some([key.clone(), value.clone()]);
        }
        Ok(())
    }

    /// Keys and values of a block with those of the token added.
    pub(super) fn cached<S: Machine<Vector = M::Vector>>(
        &self,
        spread: &[M::Vector],
        layer: usize,
        block: usize,
        level: usize,
        before: &Session<S>,
    ) -> Result<[M::Vector; 2]> {
        let (machine, blocks) = (self.machine, self.folded.geometry.blocks);
        let own = self.folded.token_mask(before.position);
        let (key_level, value_level) = (level + 3 + power_depth(self.power()?), level + 1);
        let run = || {
            let key = machine.mul_plain_to(&spread[blocks + block], &own, key_level)?;
            let value = machine.mul_plain_to(&spread[2 * blocks + block], &own, value_level)?;
            let Some([keys, values]) = before.cache[layer][block].as_ref() else { return Ok([key, value]) };
            let key = machine.add(&lower(machine, keys, key_level)?, &key)?;
            Ok([key, machine.add(&lower(machine, values, value_level)?, &value)?])
        };
        run().at(&self.node.name)
    }

    fn power(&self) -> Result<u32> {
        match self.folded.shape().attention {
            Attention::PowerSoftmax { p, .. } => Ok(p),
            _ => Err(Error::Unsupported { feature: "this attention", advice: "use PowerSoftmax" }),
        }
    }

    /// Attention of one token over the cache, after adding the token to it.
    pub(super) fn attend_cached<S: Machine<Vector = M::Vector>>(
        &self,
        spread: &[M::Vector],
        layer: usize,
        level: usize,
        turn: &mut Turn<'_, S>,
    ) -> Result<Value<M>> {
        let (machine, g, name) = (self.machine, self.folded.geometry, &self.node.name);
        let p = self.power()?;
        let (mut numerators, mut denominators) = (vec![], vec![]);
        for block in 0..g.blocks {
            let [key, value] = self.cached(spread, layer, block, level, turn.before)?;
            let (mask, add) = self.folded.cached_score_plains(layer, block, turn.before.position)?;
            let run = || {
                let query = lower(machine, &spread[block], machine.level(&key))?;
                let sum = machine.rotate_sum(&machine.mul(&query, &key)?, 1, g.head)?;
                let first = machine.add_plain(&machine.mul_plain(&sum, &mask)?, &add)?;
                let weight = power(machine, &machine.rotate_sum(&first, -1, g.head)?, p)?;
                let stride = g.features as i64;
                let numerator =
                    machine.rotate_sum(&machine.mul(&weight, &value)?, stride, g.slots / g.features)?;
                let sum =
                    machine.rotate_sum(&lower(machine, &weight, level)?, stride, g.slots / g.features)?;
                let offset = Complex64::new(self.folded.denominator_offset(layer), 0.0);
                Ok((numerator, machine.add_const(&sum, offset)?))
            };
            let results = run().at(name)?;
            let position = Some(turn.before.position);
            let (numerator, denominator) =
                self.with_prefix(&spread[block], layer, block, level, position, results)?;
            turn.after.cache[layer][block] = Some([key, value]);
            numerators.push(numerator);
            denominators.push(denominator);
        }
        numerators.extend(denominators);
        Ok(numerators)
    }

    pub(super) fn attend(&self, spread: &[M::Vector], layer: usize, level: usize) -> Result<Value<M>> {
        let (machine, g) = (self.machine, self.folded.geometry);
        let p = self.power()?;
        let steps: Vec<i64> = (0..g.shifts()).map(|a| -(a as i64) * g.shift_stride()).collect();
        // Product, mask and the power lie above the weights, which lie one above the output.
        let key_level = level + 3 + power_depth(p);
        let copies_stride = g.period() as i64;
        let mut numerators = vec![];
        let mut denominators = vec![];
        for block in 0..g.blocks {
            let part = |index: usize, at: usize| {
                lower(machine, &spread[index * g.blocks + block], at).at(&self.node.name)
            };
            let (query, key) = (part(0, key_level)?, part(1, key_level)?);
            let value = part(2, level + 1)?;
            let keys = machine.rotate_many(&key, &steps).at(&self.node.name)?;
            let values = machine.rotate_many(&value, &steps).at(&self.node.name)?;
            let sums = keys.par_iter().map(|key| machine.rotate_sum(&machine.mul(&query, key)?, 1, g.head));
            let sums = sums.collect::<slots::Result<Vec<_>>>().at(&self.node.name)?;
            let label = machine.log().label(&format!("{}{POWER_LABEL}", self.node.name));
            let weights = sums.par_iter().enumerate().map(|(shift, sum)| {
                let own = |length| self.folded.score_plains(layer, block, shift, length);
                let (mask, add): (Vec<_>, Vec<_>) = by_text(self.lengths, own)?.into_iter().unzip();
                let (mask, add) = (join(&mask, g.slots), join(&add, g.slots));
                let run = || {
                    let first = machine.add_plain(&machine.mul_plain(sum, &mask)?, &add)?;
                    power(machine, &machine.rotate_sum(&first, -1, g.head)?, p)
                };
                run().at(&self.node.name)
            });
            let weights = weights.collect::<Result<Vec<_>>>()?;
            drop(label);
            let run = || {
                let pairs: Vec<_> = weights.iter().zip(&values).collect();
                let numerator = machine.rotate_sum(&machine.mul_sum(&pairs)?, copies_stride, g.copies)?;
                let sum = machine.add_many(&weights.iter().collect::<Vec<_>>())?;
                let sum = machine.rotate_sum(&lower(machine, &sum, level)?, copies_stride, g.copies)?;
                let offset = Complex64::new(self.folded.denominator_offset(layer), 0.0);
                Ok((numerator, machine.add_const(&sum, offset)?))
            };
            let results = run().at(&self.node.name)?;
            let (numerator, denominator) =
                self.with_prefix(&spread[block], layer, block, level, None, results)?;
            numerators.push(numerator);
            denominators.push(denominator);
        }
        numerators.extend(denominators);
        Ok(numerators)
    }

    /// Numerators and denominators of a block with those of the public tokens before the text.
    fn with_prefix(
        &self,
        query: &M::Vector,
        layer: usize,
        block: usize,
        level: usize,
        position: Option<usize>,
        (numerator, denominator): (M::Vector, M::Vector),
    ) -> Result<(M::Vector, M::Vector)> {
        if self.folded.first() == 0 {
            return Ok((numerator, denominator));
        }
        let place = Place { layer, block, level, position };
        let more = prefix::attend(self.machine, self.folded, query, &place, self.power()?)?;
        let [numerators, weights] = more.as_slice() else { return Err(broken("two results for a prefix")) };
        let run = || {
            let machine = self.machine;
            Ok((machine.add(&numerator, numerators)?, machine.add(&denominator, weights)?))
        };
        run().at(&self.node.name)
    }
}
