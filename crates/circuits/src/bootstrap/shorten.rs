//! Results at a lower level for less: the user's levels above it take no part in the circuit.
//!
//! The levels of the modular reduction are the highest of the chain, so a lower result does not
//! mean a prefix of the chain but a chain with a gap. All keys serve it: a gadget key modulo some
//! of its primes is the key of what is left. Only a digit that has no prime left would take the
//! others out of step, so one level is kept in every digit of every key.

use std::ops::Range;
use std::sync::{Arc, PoisonError};

use super::Bootstrapper;
use cipherlm_ckks::keys::{EvaluationKeys, KeyPurpose, SwitchingKey};
use cipherlm_ckks::params::KeyShape;
use cipherlm_ckks::{Ciphertext, Error, Evaluator, hazmat};

/// The keys of the whole chain, asked for by levels of the shortened one.
pub(super) struct ShortKeys<'a, K> {
    keys: &'a K,
    /// Levels of the shortened chain up to here are those of the whole one.
    below: usize,
    /// Level of the whole chain for each level of the shortened one.
    whole: Vec<usize>,
}

impl<K> ShortKeys<'_, K> {
    /// The level of the shortened chain that corresponds to a level which is in it.
    pub(super) fn short(&self, level: usize) -> usize {
        self.whole.partition_point(|&whole| whole < level)
    }
}

impl<K: EvaluationKeys> EvaluationKeys for ShortKeys<'_, K> {
    fn key(&self, purpose: KeyPurpose, level: usize) -> Result<Arc<SwitchingKey>, Error> {
        let above =
            || Error::LevelOutOfRange { operation: "shortened chain", level, max: self.whole.len() - 1 };
        self.keys.key(purpose, *self.whole.get(level).ok_or_else(above)?)
    }
}

impl Bootstrapper {
    /// An evaluator whose chain has no user levels above `output` but those that keys need.
    pub(super) fn shortened<'a, K: EvaluationKeys>(
        &self,
        evaluator: &'a Evaluator<K>,
        output: usize,
    ) -> Result<Evaluator<ShortKeys<'a, K>>, Error> {
        let left_out = self.left_out(output)?;
        let whole = (0..=self.params.max_level()).filter(|level| !left_out.contains(level)).collect();
        let known = || self.shortened.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known().get(&output).cloned();
        let params = match found {
            Some(params) => params,
            None => {
                let made = hazmat::without_levels(&self.params, &left_out);
                known().entry(output).or_insert(made).clone()
            }
        };
        let below = left_out.first().map_or(usize::MAX, |first| first - 1);
        Ok(Evaluator::new(&params, ShortKeys { keys: evaluator.keys(), below, whole }))
    }

    /// A result of the shortened chain in the whole one.
    pub(super) fn restored<K: EvaluationKeys>(
        &self,
        short: &Evaluator<ShortKeys<'_, K>>,
        result: Ciphertext,
    ) -> Result<Ciphertext, Error> {
        let level = result.level().min(short.keys().below);
        let result = short.drop_to_level(&result, level)?;
        let (id, scale, slots) = (result.key_id(), result.scale(), result.slots());
        Ciphertext::from_parts(&self.params, id, result.into_parts(), level, scale, slots)
    }

    /// The user levels above `output` that can be left out: all but one for each digit that would
    /// be left without a prime.
    pub(super) fn left_out(&self, output: usize) -> Result<Vec<usize>, Error> {
        let floor = output.max(self.profile.input_level());
        let gap = floor + 1..self.output_level() + 1;
        let mut digits: Vec<Range<usize>> = Vec::new();
        let levels = self
            .key_request()
            .iter()
            .map(|(_, level)| level)
            .chain([self.raised_level()])
            .collect::<std::collections::BTreeSet<_>>();
        for level in levels {
            digits.extend(KeyShape::cheapest(&self.params, level)?.digits(&self.params));
        }
        // Limbs that a level adds; a digit is lost if all of its limbs are in the gap. The classic
        // stabbing of intervals, by their ends.
        let group = |level: usize| self.params.group_limbs(level);
        let level_of = |limb: usize| (0..=self.params.max_level()).find(|&level| group(level).contains(limb));
        digits.sort_by_key(|digit| digit.end);
        let mut kept: Vec<usize> = Vec::new();
        for digit in digits {
            let levels: Option<Vec<usize>> = digit.map(level_of).collect();
            let lost =
                levels.as_ref().is_some_and(|l| l.iter().all(|l| gap.contains(l) && !kept.contains(l)));
            if lost {
                kept.extend(levels.and_then(|l| l.last().copied()));
            }
        }
        Ok(gap.filter(|level| !kept.contains(level)).collect())
    }
}
