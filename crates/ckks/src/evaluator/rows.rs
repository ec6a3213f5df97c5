//! Rows of plaintexts times rotations, limb by limb: the baby-step half of linear transforms.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use cipherlm_ring::{Eval, Poly, par};

use super::fused::{BLOCK, Pair, Step, Turn, Workspace, limbs_of, source_pair};
use super::{Evaluator, ExtendedCiphertext, Hoisted, check_scales};
use crate::encode::LiftedPlaintext;
use crate::keys::{EvaluationKeys, GaloisElement, KeyPurpose};
use crate::{Ciphertext, Error};

/// Rotations of one ciphertext at most whose blocks are in the cache at once.
const WIDEST: usize = 32;

/// Rotations of hoisted ciphertexts that are about to be multiplied by plaintexts; see
/// [`columns`](crate::hazmat::columns).
pub struct Columns<'a> {
    pub(super) groups: Vec<(&'a Ciphertext, Vec<Option<Step>>)>,
}

impl Columns<'_> {
    /// Special primes of the key of each rotation; `None` for the identity, which takes any number.
    pub fn specials(&self) -> Vec<Option<usize>> {
        let steps = self.groups.iter().flat_map(|group| &group.1);
        steps.map(|step| step.as_ref().map(|step| step.turn.key.shape().special)).collect()
    }
}

/// Some rotations of one ciphertext, each with its place in a row; `None` for the identity.
struct Piece<'a> {
    a: &'a Ciphertext,
    steps: Vec<(usize, Option<&'a Step>)>,
}

/// One limb of the products of a piece with all rows; `first`: the sums are not begun yet.
struct RowsOfLimb<'a> {
    limb: usize,
    special: usize,
    piece: &'a Piece<'a>,
    rows: &'a [Vec<Option<LiftedPlaintext>>],
    first: bool,
    spent: &'a Spent,
}

/// Nanoseconds of all threads.
#[derive(Default)]
struct Spent {
    rotations: AtomicU64,
    products: AtomicU64,
}

impl Spent {
    fn add(&self, part: &AtomicU64, start: Instant) {
        part.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }

    /// The part of the time that went into rotations.
    fn rotating(&self) -> f64 {
        let [rotations, products] =
            [&self.rotations, &self.products].map(|part| part.load(Ordering::Relaxed) as f64);
        rotations / (rotations + products).max(1.0)
    }
}

impl<K: EvaluationKeys> Evaluator<K> {
    /// Rotations of hoisted ciphertexts, each with its key, digits and permutation at hand: those
    /// of the first ciphertext, then those of the next. Ciphertexts share level, scale and secret;
    /// each key is asked for once.
    pub(crate) fn columns<'a>(
        &self,
        operation: &'static str,
        inputs: &[(&Hoisted<'a>, &[GaloisElement])],
    ) -> Result<Columns<'a>, Error> {
        let mut keys: BTreeMap<GaloisElement, Turn> = BTreeMap::new();
        let mut columns = Columns { groups: Vec::with_capacity(inputs.len()) };
        for (hoisted, elements) in inputs {
            let a = hoisted.ciphertext;
            self.check_linear(operation, a)?;
            if let Some((first, _)) = columns.groups.first() {
                self.check_pair(operation, first, a)?;
                check_scales(operation, first.scale, a.scale)?;
            }
            let mut steps = Vec::with_capacity(elements.len());
            for &element in *elements {
                if element.is_identity() {
                    steps.push(None);
                    continue;
                }
                let turn = match keys.entry(element) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(new) => {
                        let key = self.key_for(operation, KeyPurpose::Galois(element), a)?;
                        new.insert(Turn { key, automorphism: self.permutation(element)? })
                    }
                };
                let digits = hoisted.digits(&self.params.decomposition(a.level, turn.key.shape())?)?;
                steps.push(Some(Step { digits, turn: turn.clone() }));
            }
            columns.groups.push((a, steps));
        }
        Ok(columns)
    }

    /// For each row of plaintexts the sum of `plaintext * rotation` over the pairs that are
    /// present, one place in the row for each of `columns`: the baby-step half of a linear
    /// transform, all giant steps at once.
    ///
    /// All rotations with a plaintext must have keys of `special` special primes, and every row at
    /// least one plaintext.
    pub(crate) fn rotated_rows(
        &self,
        columns: &Columns<'_>,
        special: usize,
        rows: &[Vec<Option<LiftedPlaintext>>],
    ) -> Result<(Vec<ExtendedCiphertext>, f64), Error> {
        const OPERATION: &str = "rotated_rows";
        let pieces = self.pieces(columns, special, rows)?;
        let Some(a) = columns.groups.first().map(|group| group.0) else {
            return Err(Error::OperandCount { operation: OPERATION, left: 0, right: rows.len() });
        };
        let mut sums = Vec::with_capacity(rows.len());
        for row in rows {
            let present = || row.iter().flatten();
            let Some(first) = present().next() else {
                return Err(Error::OperandCount { operation: OPERATION, left: row.len(), right: 0 });
            };
            let mut slots = columns.groups.iter().map(|group| group.0.slots).fold(1, usize::max);
            for plaintext in present() {
                self.params.check_same(OPERATION, plaintext.params())?;
                check_scales(OPERATION, first.scale(), plaintext.scale())?;
                slots = slots.max(plaintext.slots());
            }
            sums.push(ExtendedCiphertext {
                scale: a.scale * first.scale(),
                slots,
                ..self.extended(a, self.pair(a.level, special)?, special)
            });
        }
        let (workspace, spent) = (Workspace::default(), Spent::default());
        let widest = pieces.iter().map(|piece| piece.steps.len()).max().unwrap_or(0);
        par::try_for_each(limbs_of(&mut sums), |(limb, mut outputs)| {
            workspace.with(self, widest, |work| {
                for (number, piece) in pieces.iter().enumerate() {
                    let task = RowsOfLimb { limb, special, piece, rows, first: number == 0, spent: &spent };
                    self.rows_of_limb(&task, work, &mut outputs)?;
                }
                Ok(())
            })
        })?;
        Ok((sums, spent.rotating()))
    }

    /// The rotations with a plaintext in some row, in pieces whose blocks stay in the cache.
    fn pieces<'c>(
        &self,
        columns: &'c Columns<'_>,
        special: usize,
        rows: &[Vec<Option<LiftedPlaintext>>],
    ) -> Result<Vec<Piece<'c>>, Error> {
        let (mut pieces, mut place) = (Vec::new(), 0);
        for (a, steps) in &columns.groups {
            let mut used = Vec::with_capacity(steps.len());
            for step in steps {
                if rows.iter().any(|row| row.get(place).is_some_and(Option::is_some)) {
                    if let Some(step) = step {
                        self.check_special(&step.turn.key, special)?;
                    }
                    used.push((place, step.as_ref()));
                }
                place += 1;
            }
            pieces.extend(used.chunks(WIDEST).map(|steps| Piece { a, steps: steps.to_vec() }));
        }
        if let Some(row) = rows.iter().find(|row| row.len() != place) {
            return Err(Error::OperandCount { operation: "rotated_rows", left: place, right: row.len() });
        }
        Ok(pieces)
    }

    /// Adds the products of a piece, of one limb, to the sums of the rows.
    fn rows_of_limb(
        &self,
        task: &RowsOfLimb<'_>,
        work: &mut [[Poly<Eval>; 2]],
        outputs: &mut [Pair<'_>],
    ) -> Result<(), Error> {
        let (ring, degree) = (self.params.ring(), self.params.degree());
        let &RowsOfLimb { limb, special, piece: Piece { a, steps }, rows, .. } = task;
        let (modulus, kernel) = (ring.modulus(limb)?, ring.kernel());
        let start = Instant::now();
        for ((_, step), work) in steps.iter().zip(work.iter_mut()) {
            if let Some(step) = step {
                self.rotated_limb(a, limb, special, step, work)?;
            }
        }
        task.spent.add(&task.spent.rotations, start);
        let length = BLOCK.min(degree);
        // A block of every rotation, both halves, and of every plaintext of a row.
        let mut values = vec![0.0; 2 * steps.len() * length];
        let mut spread = vec![0.0; steps.len() * length];
        for block in (0..degree).step_by(length).map(|start| start..start + length) {
            let start = Instant::now();
            let pairs = values.chunks_exact_mut(2 * length).map(|pair| pair.split_at_mut(length));
            for (((_, step), work), (value0, value1)) in steps.iter().zip(work.iter()).zip(pairs) {
                match step {
                    Some(step) => {
                        let index = &step.turn.automorphism.index()[block.clone()];
                        let [u0, u1] = source_pair(work)?;
                        (kernel.permute)(value0, u0, index);
                        (kernel.permute)(value1, u1, index);
                    }
                    None => self.times_p(a, limb, special, &block, [value0, value1])?,
                }
            }
            task.spent.add(&task.spent.rotations, start);
            let start = Instant::now();
            for ([out0, out1], row) in outputs.iter_mut().zip(rows) {
                let mut digits = Vec::with_capacity(steps.len());
                let (mut first, mut second) =
                    (Vec::with_capacity(steps.len()), Vec::with_capacity(steps.len()));
                let places = values.chunks_exact(2 * length).zip(spread.chunks_exact_mut(length));
                for (&(place, _), (value, spread)) in steps.iter().zip(places) {
                    let Some(plaintext) = row.get(place).and_then(Option::as_ref) else { continue };
                    digits.push(plaintext.block(limb, block.clone(), spread)?);
                    first.push(&value[..length]);
                    second.push(&value[length..]);
                }
                let (out0, out1) = (&mut out0[block.clone()], &mut out1[block.clone()]);
                if task.first {
                    out0.fill(0.0);
                    out1.fill(0.0);
                }
                (kernel.inner_product2)(modulus, out0, out1, &digits, &first, &second);
            }
            task.spent.add(&task.spent.products, start);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
