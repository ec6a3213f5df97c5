//! The server's circuit, written once for every machine.

use cipherlm_circuits::polynomial::SlotArith;
use cipherlm_circuits::slots::{KeyUse, Machine, OpLog, Plain, Scale};
use cipherlm_ckks::{GaloisElement, KeyPurpose, KeyRequest, Params};
use peer_fhe_benchmarking::Result;
use rayon::prelude::*;

use crate::layout::{Layout, Table};
use crate::threshold::Threshold;

/// Level of the indicators: one product above the answer.
pub const INDICATOR_LEVEL: usize = 1;

/// What the client sent once.
pub trait Database<V>: Sync {
    /// The vectors of all groups of a block and shift, at the top level.
    ///
    /// # Errors
    /// If they cannot be had.
    fn records(&self, block: usize, shift: usize) -> Result<Vec<V>>;

    /// A payload vector, at [`INDICATOR_LEVEL`].
    ///
    /// # Errors
    /// If it cannot be had.
    fn payload(&self, table: Table, vector: usize, turn: usize) -> Result<V>;
}

/// One query vector a group from what the client sent. No level: all products are with monomials.
///
/// # Errors
/// Those of the machine.
pub fn expand<M: Machine>(machine: &M, layout: &Layout, query: Vec<M::Vector>) -> Result<Vec<M::Vector>> {
    let mut vectors = query;
    if !layout.expands() {
        return Ok(vectors);
    }
    for stage in 0..layout.groups.ilog2() {
        let monomial = Plain::complex(layout.stage_monomial(stage));
        let split = |vector: &M::Vector| -> Result<[M::Vector; 2]> {
            let turned = machine.rotate(vector, layout.stage_rotation(stage))?;
            let odd = machine.sub_aligned(vector, &turned)?;
            Ok([machine.add_aligned(vector, &turned)?, machine.mul_plain_at(&odd, &monomial, Scale::ONE)?])
        };
        let pairs: Vec<[M::Vector; 2]> = vectors.par_iter().map(split).collect::<Result<_>>()?;
        // Group j of a vector that holds j, j + 2^stage, ... goes to the one or the other.
        let (even, odd): (Vec<_>, Vec<_>) = pairs.into_iter().map(|[even, odd]| (even, odd)).unzip();
        vectors = even.into_iter().chain(odd).collect();
    }
    Ok(vectors)
}

/// The real vectors of scores, one level below the query.
///
/// # Errors
/// Those of the machine and the database.
pub fn scores<M: Machine>(
    machine: &M,
    layout: &Layout,
    query: &[M::Vector],
    database: &impl Database<M::Vector>,
) -> Result<Vec<M::Vector>> {
    let mut scores = Vec::with_capacity(layout.vectors());
    for block in 0..layout.blocks {
        let mut sum: Option<M::Vector> = None;
        for shift in (0..layout.shifts).rev() {
            let records = database.records(block, shift)?;
            let pairs: Vec<_> = query.iter().zip(&records).collect();
            let products = machine.rescale(&machine.mul_sum_aligned(&pairs)?)?;
            // Horner's rule: all shifts by one key.
            sum = Some(match sum {
                Some(sum) => machine.add_aligned(&products, &machine.rotate(&sum, 1)?)?,
                None => products,
            });
        }
        let Some(sum) = sum else { continue };
        let sum = machine.rotate_sum(&sum, layout.period as i64, layout.folds)?;
        let conjugate = machine.conjugate(&sum)?;
        scores.push(machine.add_aligned(&sum, &conjugate)?);
        scores.push(machine.mul_i(&machine.sub_aligned(&conjugate, &sum)?)?);
    }
    Ok(scores)
}

/// One where a score is above the threshold, zero where it is below, at [`INDICATOR_LEVEL`].
///
/// # Errors
/// Those of the machine.
pub fn indicators<M: Machine>(
    machine: &M,
    threshold: &Threshold,
    scores: &[M::Vector],
) -> Result<Vec<M::Vector>> {
    let indicator = |score: &M::Vector| -> Result<M::Vector> {
        let mut arith = SlotArith::new(machine);
        let target = arith.canonical(INDICATOR_LEVEL);
        Ok(threshold.circuit().eval_mapped(&mut arith, score, Some(&target))?)
    };
    scores.par_iter().map(indicator).collect()
}

/// The two tables of the matches' payloads, at level 0.
///
/// # Errors
/// Those of the machine and the database.
pub fn retrieve<M: Machine>(
    machine: &M,
    layout: &Layout,
    indicators: &[M::Vector],
    database: &impl Database<M::Vector>,
) -> Result<[M::Vector; 2]> {
    let product = |table, vector: usize, turn| -> Result<M::Vector> {
        let payload = database.payload(table, vector, turn)?;
        Ok(machine.rescale(&machine.mul_sum_aligned(&[(&indicators[vector], &payload)])?)?)
    };
    let joined = |sum: Option<M::Vector>, next: M::Vector, steps: usize| -> Result<Option<M::Vector>> {
        let Some(sum) = sum else { return Ok(Some(next)) };
        Ok(Some(machine.add_aligned(&next, &machine.rotate(&sum, steps as i64)?)?))
    };
    let turn_of_a = |turn: usize| -> Result<Option<M::Vector>> {
        let mut inner = None;
        for vector in (0..layout.vectors()).rev() {
            inner = joined(inner, product(Table::A, vector, turn)?, layout.turn())?;
        }
        Ok(inner)
    };
    let turn_of_b = |turn: usize| -> Result<Option<M::Vector>> {
        let payloads: Vec<M::Vector> = (0..layout.vectors())
            .map(|vector| database.payload(Table::B, vector, turn))
            .collect::<Result<_>>()?;
        let pairs: Vec<_> = indicators.iter().zip(&payloads).collect();
        Ok(Some(machine.rescale(&machine.mul_sum_aligned(&pairs)?)?))
    };
    let table = |table: Table| -> Result<M::Vector> {
        let turns = (0..table.turns()).into_par_iter();
        let (turns, step): (Vec<_>, _) = match table {
            Table::A => (turns.map(&turn_of_a).collect::<Result<_>>()?, layout.buckets()),
            Table::B => (turns.map(&turn_of_b).collect::<Result<_>>()?, 1),
        };
        let mut outer = None;
        for turn in turns.into_iter().flatten().rev() {
            outer = joined(outer, turn, step)?;
        }
        let empty = cipherlm_circuits::slots::Error::OperandCount { operation: "retrieve", have: 0, need: 1 };
        Ok(outer.ok_or(empty)?)
    };
    Ok([table(Table::A)?, table(Table::B)?])
}

/// The number of matches in every slot, times the copies of each record.
///
/// # Errors
/// Those of the machine.
pub fn count<M: Machine>(machine: &M, indicators: &[M::Vector]) -> Result<M::Vector> {
    let sum = machine.add_many(&indicators.iter().collect::<Vec<_>>())?;
    Ok(machine.rotate_sum(&sum, 1, machine.slots())?)
}

/// The keys that a machine noted, each at the highest level of its use; one that low levels use too
/// is made again for those, where it is a tenth of the size and of the time.
pub fn key_request(log: &OpLog, params: &Params) -> KeyRequest {
    let mut request = KeyRequest::new();
    for (key, levels) in log.keys() {
        let purpose = match key {
            KeyUse::Relin => KeyPurpose::Relinearise,
            KeyUse::Conjugate => KeyPurpose::Galois(GaloisElement::conjugation(params)),
            KeyUse::Rotate(steps) => KeyPurpose::Galois(GaloisElement::rotation(params, steps as i64)),
            _ => continue,
        };
        // The highest level of every three.
        let mut lowest = usize::MAX;
        for &level in levels.iter().rev() {
            if lowest == usize::MAX || level + 3 <= lowest {
                request.also(purpose, level);
                lowest = level;
            }
        }
    }
    request
}
