//! Where records, queries, payloads and answers lie in slots.
//!
//! **Scores.** `C` records share the complex slots with the `C` after them, one real and one
//! imaginary. The dimensions are cut into groups of `parts`, one database vector each; a slot holds
//! one part of every group, and which one follows from the slot. In the vectors of shift `r`, slot
//! `i` holds the record of slot `i - r`: with the products of a group's query vector summed over
//! all groups, and the sums rotated back by their shifts, each slot has met all parts of its own
//! record. Every slot of every vector is in use, and no mask and no level is spent. Where there are
//! fewer records than slots, they repeat, each copy with other parts, and are folded together
//! instead.
//!
//! **The query** comes as one vector of `dim` slots whose polynomial in `Y = X^(N / 2 dim)` holds
//! group `j` as the coefficients of `Y^j` (times powers of `Y^groups`). The automorphism that takes
//! `Y` to `-Y` splits even from odd groups, and so on: `groups - 1` rotations make one vector a
//! group.
//!
//! **Answers.** A record's seven numbers and a marker are four complex values. Indicator times
//! payload, summed over all records of a bucket, is the payload of the bucket's only match. Two
//! tables, in which no two records share both buckets, are decoded by peeling (Goodrich and
//! Mitzenmacher, "Invertible Bloom lookup tables", arXiv 1101.2245). Buckets of table A are slots
//! modulo a quarter of the vector, turned by an amount of the vector's own; those of table B are
//! four neighbouring slots.

use cipherlm_ckks::Complex64;
use peer_fhe_benchmarking::{Error, Result};
use std::f64::consts::PI;

/// Numbers of a payload.
pub const PAYLOAD: usize = 7;
/// Complex values of a record in an answer: its payload and a marker.
pub const VALUES: usize = 4;
/// Rotations of table B: from three slots back to three on.
pub const TURNS: usize = 2 * VALUES - 1;
/// Payloads are carried in this unit, so that sums of some fit the lowest level.
pub const UNIT: f64 = 16384.0;
/// Shifts of a full vector: a relinearisation each for a vector of scores, against query rotations.
const SHIFTS: usize = 4;

/// The places of one instance; see the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// Complex slots of a vector.
    pub slots: usize,
    /// Numbers of a record and of the query.
    pub dim: usize,
    /// Records.
    pub records: usize,
    /// Records in real parts; the others are in imaginary ones.
    half: usize,
    /// Slots after which records repeat.
    pub period: usize,
    /// Vectors of one group with different shifts.
    pub shifts: usize,
    /// Copies of a record in one vector.
    pub folds: usize,
    /// Groups of dimensions.
    pub groups: usize,
    /// Vectors of scores, complex.
    pub blocks: usize,
}

/// One of the two tables of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Buckets of distant slots.
    A,
    /// Buckets of neighbouring slots.
    B,
}

impl Table {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// Payload vectors of a vector of records.
    pub fn turns(self) -> usize {
        match self {
            Self::A => VALUES,
            Self::B => TURNS,
        }
    }
}

impl Layout {
    /// The layout of `records` records of `dim` numbers in vectors of `slots` slots.
    ///
    /// # Errors
    /// [`Error::Shape`] for dimensions or slots that are no powers of two or too few.
    pub fn new(slots: usize, dim: usize, records: usize) -> Result<Self> {
        let shape = |what, have, need: String| Err(Error::Shape { what, have, need });
        if !slots.is_power_of_two() || slots < 16 {
            return shape("number of slots", slots, "a power of two from 16".into());
        }
        if !dim.is_power_of_two() || dim < SHIFTS || dim > slots {
            return shape("dimension", dim, format!("a power of two from {SHIFTS} to {slots}"));
        }
        if records == 0 {
            return shape("number of records", records, "at least 1".into());
        }
        let half = records.div_ceil(2);
        let period = half.next_power_of_two().clamp(slots / dim, slots);
        let folds = slots / period;
        let shifts = if folds == 1 { SHIFTS } else { 1 };
        let groups = dim / (shifts * folds);
        let layout =
            Self { slots, dim, records, half, period, shifts, folds, groups, blocks: half.div_ceil(period) };
        // Turns of table A at least as far apart as a bucket of table B is wide.
        if layout.turn() < VALUES {
            return shape("number of records", records, format!("at most {}", slots * slots / 16));
        }
        Ok(layout)
    }

    /// Numbers of a record in one group.
    pub fn parts(&self) -> usize {
        self.shifts * self.folds
    }

    /// Real vectors of scores: two of each block.
    pub fn vectors(&self) -> usize {
        2 * self.blocks
    }

    /// Whether the query is one vector to be expanded.
    pub fn expands(&self) -> bool {
        self.folds == 1
    }

    fn part(&self, slot: usize) -> usize {
        if self.folds == 1 { slot % self.shifts } else { slot / self.period }
    }

    /// The record whose score the slot of a real vector has, in its first copy.
    pub fn record(&self, vector: usize, slot: usize) -> Option<usize> {
        let place = vector / 2 * self.period + slot;
        let record = if vector.is_multiple_of(2) { place } else { place + self.half };
        (slot < self.period && place < self.half && record < self.records).then_some(record)
    }

    /// The database vector of a block, shift and group.
    pub fn database(&self, records: &[f32], block: usize, shift: usize, group: usize) -> Vec<Complex64> {
        let number = |vector: usize, slot: usize, dim: usize| {
            self.record(vector, slot).map_or(0.0, |record| f64::from(records[record * self.dim + dim]))
        };
        (0..self.slots)
            .map(|slot| {
                let dim = self.parts() * group + self.part(slot);
                let home = (slot + self.slots - shift) % self.period;
                Complex64::new(number(2 * block, home, dim), number(2 * block + 1, home, dim))
            })
            .collect()
    }

    /// The vectors of a query, each as long as its period. Half of the query: the sum of a score
    /// and its conjugate is then the real score.
    pub fn query(&self, query: &[f32]) -> Vec<Vec<Complex64>> {
        if self.expands() {
            let factor = 0.5 / self.groups as f64;
            let slot = |slot: usize| {
                let value = |group| f64::from(query[self.shifts * group + slot % self.shifts]);
                (0..self.groups).map(|group| self.power(slot, group) * value(group)).sum::<Complex64>()
                    * factor
            };
            return vec![(0..self.dim).map(slot).collect()];
        }
        let value =
            |group: usize, slot: usize| f64::from(query[self.parts() * group + self.part(slot)]) / 2.0;
        let vector = |group| (0..self.slots).map(|slot| Complex64::new(value(group, slot), 0.0)).collect();
        (0..self.groups).map(vector).collect()
    }

    /// Slot `slot` of `Y^exponent`, a root of unity.
    fn power(&self, slot: usize, exponent: usize) -> Complex64 {
        // Slot i of X is exp(pi i 5^i / N).
        let order = 4 * self.dim;
        let five = (0..slot % self.dim).fold(1, |power, _| power * 5 % order);
        let turn = five * (exponent % order) % order;
        Complex64::from_polar(1.0, PI * turn as f64 / (2 * self.dim) as f64)
    }

    /// The rotation that takes `Y^(2^stage)` to its negative.
    pub fn stage_rotation(&self, stage: u32) -> i64 {
        (self.dim >> (stage + 1)) as i64
    }

    /// `Y^(-2^stage)`, one period.
    pub fn stage_monomial(&self, stage: u32) -> Vec<Complex64> {
        (0..self.dim).map(|slot| self.power(slot, 4 * self.dim - (1 << stage))).collect()
    }

    /// Buckets of a table.
    pub fn buckets(&self) -> usize {
        self.slots / VALUES
    }

    /// By how much table A turns each vector of records more than the one before it.
    pub fn turn(&self) -> usize {
        self.buckets() / self.vectors().next_power_of_two()
    }

    /// What markers count from: more than there are codes, so that two of them are no third.
    pub fn marker_base(&self) -> i64 {
        (VALUES * self.vectors()).next_power_of_two() as i64
    }

    /// Bucket and marker of the slot of a real vector.
    pub fn bucket(&self, table: Table, vector: usize, slot: usize) -> (usize, i64) {
        let (bucket, code) = match table {
            Table::A => {
                let turned = (slot + self.slots - vector * self.turn() % self.slots) % self.slots;
                (turned % self.buckets(), slot / self.buckets())
            }
            Table::B => (slot / VALUES, slot % VALUES),
        };
        (bucket, self.marker_base() + (VALUES * vector + code) as i64)
    }

    /// The vector and slot of a bucket's only match, from its marker.
    pub fn place(&self, table: Table, bucket: usize, marker: i64) -> Option<(usize, usize)> {
        let code = usize::try_from(marker - self.marker_base()).ok()?;
        let (vector, code) = (code / VALUES, code % VALUES);
        if vector >= self.vectors() {
            return None;
        }
        let slot = match table {
            Table::A => code * self.buckets() + (bucket + vector * self.turn()) % self.buckets(),
            Table::B => VALUES * bucket + code,
        };
        Some((vector, slot))
    }

    /// The slot of an answer that value `value` of a bucket lies in.
    pub fn answer_slot(&self, table: Table, bucket: usize, value: usize) -> usize {
        match table {
            Table::A => value * self.buckets() + bucket,
            // The last rotation of the circuit is left to the reader.
            Table::B => (VALUES * bucket + value + self.slots - (VALUES - 1)) % self.slots,
        }
    }

    /// The payload vector of a real vector of records for one turn of a table.
    pub fn payload(&self, payloads: &[i16], table: Table, vector: usize, turn: usize) -> Vec<Complex64> {
        (0..self.slots)
            .map(|slot| {
                let value = match table {
                    Table::A => {
                        let shift = turn * self.buckets() + vector * self.turn();
                        Some((slot + self.slots - shift % self.slots) % self.slots / self.buckets())
                    }
                    Table::B => {
                        (slot % VALUES + VALUES - 1).checked_sub(turn).filter(|value| *value < VALUES)
                    }
                };
                let Some((value, record)) = value.zip(self.record(vector, slot)) else {
                    return Complex64::ZERO;
                };
                let numbers = &payloads[record * PAYLOAD..][..PAYLOAD];
                let (_, marker) = self.bucket(table, vector, slot);
                let number =
                    |index: usize| numbers.get(index).map_or(marker as f64, |x| f64::from(*x)) / UNIT;
                Complex64::new(number(2 * value), number(2 * value + 1))
            })
            .collect()
    }
}
