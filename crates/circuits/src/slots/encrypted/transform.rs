//! Linear transforms of ciphertexts, double-hoisted.

use super::{Encrypted, EncryptedVector, wrap};
use crate::linear::{LinearTransform, Term, giant_steps};
use crate::slots::align::{require_level, require_rescale, require_scale};
use crate::slots::{KeyUse, OpKind, Scale, SlotError, SlotResult};
use cipherlm_ckks::{Ciphertext, EvaluationKeys, ExtendedCiphertext, GaloisElement, LiftedPlaintext, hazmat};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Sums over the extended modulus, one for each number of special primes that the keys at hand use.
type Sums = BTreeMap<usize, ExtendedCiphertext>;

/// Baby rotations of one input.
type Babies = BTreeMap<i64, ExtendedCiphertext>;

impl<K: EvaluationKeys> Encrypted<K> {
    /// Applies `transform`; with `rescale` the last division takes the prime of the level along.
    pub(super) fn transform(
        &self,
        inputs: &[&EncryptedVector],
        transform: &LinearTransform,
        plain_scale: Scale,
        rescale: bool,
    ) -> SlotResult<Vec<EncryptedVector>> {
        transform.check(self.chain.slots(), inputs.len())?;
        let Some(first) = inputs.first() else { return Ok(Vec::new()) };
        for input in inputs {
            require_level(first.0.level(), input.0.level())?;
            require_scale(first.0.scale(), input.0.scale())?;
        }
        let level = first.0.level();
        if rescale {
            require_rescale(&self.chain, level, first.0.scale() * plain_scale)?;
        }
        for rotation in transform.rotations() {
            self.log.record_key(KeyUse::Rotate(rotation), level);
        }
        let run = Run { machine: self, plain_scale, level, rescale };
        let schedule = transform.schedule();
        let babies = transform.babies();
        // Either all babies are held at once, or all giant sums: whichever is less memory.
        let held: usize = babies.iter().map(BTreeSet::len).sum();
        let sums: usize = schedule.values().map(BTreeMap::len).sum();
        let widest = babies.iter().map(BTreeSet::len).max().unwrap_or(0);
        let outputs = (0..transform.outputs()).map(|output| schedule.get(&output));
        if held <= widest + sums {
            let babies: Vec<Babies> = inputs
                .iter()
                .zip(&babies)
                .map(|(input, steps)| run.babies(&input.0, steps))
                .collect::<SlotResult<_>>()?;
            let one = |giants: Option<&BTreeMap<i64, Vec<Term<'_>>>>| {
                let Some(giants) = giants else { return run.nothing(&first.0) };
                run.finish(giants.keys().copied(), |giant| {
                    let mut sums = Sums::new();
                    for term in giants.get(&giant).into_iter().flatten() {
                        run.accumulate(&mut sums, giant, term, &babies[term.input])?;
                    }
                    Ok(sums)
                })
            };
            return outputs.map(one).collect();
        }
        let mut groups: BTreeMap<(usize, i64), Sums> = BTreeMap::new();
        for (index, (input, steps)) in inputs.iter().zip(&babies).enumerate() {
            let babies = run.babies(&input.0, steps)?;
            for (&output, giants) in &schedule {
                for (&giant, terms) in giants {
                    for term in terms.iter().filter(|term| term.input == index) {
                        run.accumulate(groups.entry((output, giant)).or_default(), giant, term, &babies)?;
                    }
                }
            }
        }
        let one = |output: usize| {
            let Some(giants) = schedule.get(&output) else { return run.nothing(&first.0) };
            run.finish(giants.keys().copied(), |giant| {
                Ok(groups.remove(&(output, giant)).unwrap_or_default())
            })
        };
        (0..transform.outputs()).map(one).collect()
    }
}

impl<K: EvaluationKeys> Encrypted<K> {
    /// `vector` and its rotations, summed over the extended modulus and divided once.
    pub(super) fn sum_of_rotations(&self, vector: &Ciphertext, steps: &[i64]) -> SlotResult<Ciphertext> {
        let slots = self.chain.slots() as i64;
        let copies = 1 + steps.iter().filter(|steps| *steps % slots == 0).count() as i64;
        let own = if copies == 1 { vector.clone() } else { self.evaluator.mul_integer(vector, copies)? };
        let hoisted = self.evaluator.hoist(vector)?;
        let mut sums = Sums::new();
        for &steps in steps.iter().filter(|steps| *steps % slots != 0) {
            let element = GaloisElement::rotation(self.params(), steps);
            let rotated = self.evaluator.rotate_hoisted_qp(&hoisted, element)?;
            match sums.get_mut(&rotated.special()) {
                Some(sum) => self.evaluator.add_qp_assign(sum, &rotated)?,
                None => {
                    sums.insert(rotated.special(), rotated);
                }
            }
        }
        let mut total = own;
        for sum in sums.values() {
            self.evaluator.add_assign(&mut total, &self.evaluator.mod_down(sum)?)?;
        }
        Ok(total)
    }
}

/// One evaluation of one transform.
struct Run<'m, K> {
    machine: &'m Encrypted<K>,
    plain_scale: Scale,
    level: usize,
    rescale: bool,
}

impl<K: EvaluationKeys> Run<'_, K> {
    fn rotation(&self, steps: i64) -> GaloisElement {
        GaloisElement::rotation(self.machine.params(), steps)
    }

    /// All baby rotations of one input, sharing its decomposition.
    fn babies(&self, input: &Ciphertext, steps: &BTreeSet<i64>) -> SlotResult<Babies> {
        let (machine, log) = (self.machine, &self.machine.log);
        let mut babies = Babies::new();
        let hoisted = machine.evaluator.hoist(input)?;
        let mut special = None;
        let rotations: Vec<i64> = steps.iter().copied().filter(|&steps| steps != 0).collect();
        let start = Instant::now();
        for &steps in &rotations {
            let baby = machine.evaluator.rotate_hoisted_qp(&hoisted, self.rotation(steps))?;
            special.get_or_insert(baby.special());
            babies.insert(steps, baby);
        }
        if steps.contains(&0) {
            let baby = match special {
                Some(special) => machine.evaluator.extend(input, special)?,
                None => machine.evaluator.rotate_hoisted_qp(&hoisted, self.rotation(0))?,
            };
            babies.insert(0, baby);
        }
        log.record(OpKind::ModUp, self.level, usize::from(!rotations.is_empty()));
        log.record_timed(OpKind::KeyProduct, self.level, rotations.len(), start.elapsed());
        Ok(babies)
    }

    /// Adds one plaintext product to the sums of its giant step.
    fn accumulate(&self, sums: &mut Sums, giant: i64, term: &Term<'_>, babies: &Babies) -> SlotResult<()> {
        let Some(baby) = babies.get(&term.baby) else {
            return Err(SlotError::OperandCount { operation: "linear_transform", have: 0, need: 1 });
        };
        let plaintext = self.lifted(term, giant, baby.special())?;
        let start = Instant::now();
        let evaluator = &self.machine.evaluator;
        match sums.get_mut(&baby.special()) {
            Some(sum) => evaluator.mul_plain_qp_accumulate(sum, baby, &plaintext)?,
            None => {
                sums.insert(baby.special(), evaluator.mul_plain_qp(baby, &plaintext)?);
            }
        }
        self.machine.log.record_timed(OpKind::MulPlainExtended, self.level, 1, start.elapsed());
        Ok(())
    }

    fn lifted(&self, term: &Term<'_>, giant: i64, special: usize) -> SlotResult<LiftedPlaintext> {
        let plaintext = self.machine.encode(term.plain, -giant, self.plain_scale, self.level)?;
        let start = Instant::now();
        let lifted = plaintext.lift(&self.machine.params().extended_limbs(self.level, special))?;
        // Lifting belongs to the encoding: no operation of its own, only its time.
        self.machine.log.add_time(OpKind::Encode, self.level, start.elapsed());
        Ok(lifted)
    }

    /// Adds the sums of all giant steps by Horner's rule and leaves the extended modulus.
    fn finish(
        &self,
        giants: impl Iterator<Item = i64> + Clone,
        mut sum_of: impl FnMut(i64) -> SlotResult<Sums>,
    ) -> SlotResult<EncryptedVector> {
        let log = &self.machine.log;
        let mut result = if giants.clone().any(|giant| giant == 0) { sum_of(0)? } else { Sums::new() };
        for side in giant_steps(giants) {
            let Some(first) = side.first() else { continue };
            let mut total = sum_of(first.giant)?;
            let mut steps = side.iter().peekable();
            while let Some(step) = steps.next() {
                let next = match steps.peek() {
                    Some(next) => sum_of(next.giant)?,
                    None => std::mem::take(&mut result),
                };
                let start = Instant::now();
                total = self.rotate_and_add(total, self.rotation(step.rotation), next)?;
                log.record_timed(OpKind::ModDown, self.level, 1, Duration::ZERO);
                log.record_timed(OpKind::ModUp, self.level, 1, Duration::ZERO);
                log.record_timed(OpKind::KeyProduct, self.level, 1, start.elapsed());
            }
            result = total;
        }
        let start = Instant::now();
        let result = self.mod_down(&result, self.rescale)?;
        log.record_timed(OpKind::ModDown, self.level, 1, start.elapsed());
        log.record(OpKind::Rescale, self.level, usize::from(self.rescale));
        Ok(wrap(result))
    }

    /// One rotation of a total, and the next sum added. Where the key has as many special primes as
    /// both, only the half of the total that is decomposed is divided.
    fn rotate_and_add(&self, total: Sums, element: GaloisElement, mut next: Sums) -> SlotResult<Sums> {
        if element.is_identity() {
            self.merge(&mut next, total)?;
            return Ok(next);
        }
        let evaluator = &self.machine.evaluator;
        let special =
            hazmat::galois_special(evaluator, "linear_transform", element, self.level, self.machine.key_id)?;
        if let (1, Some(sum), true) = (total.len(), total.get(&special), next.contains_key(&special)) {
            if let Some(own) = next.remove(&special) {
                next.insert(special, hazmat::rotate_qp_add(evaluator, sum, element, own)?);
            }
            return Ok(next);
        }
        let inner = self.mod_down(&total, false)?;
        let rotated = evaluator.rotate_hoisted_qp(&evaluator.hoist(&inner)?, element)?;
        self.merge(&mut next, Sums::from([(special, rotated)]))?;
        Ok(next)
    }

    fn merge(&self, total: &mut Sums, sums: Sums) -> SlotResult<()> {
        for (special, sum) in sums {
            match total.get_mut(&special) {
                Some(total) => self.machine.evaluator.add_qp_assign(total, &sum)?,
                None => {
                    total.insert(special, sum);
                }
            }
        }
        Ok(())
    }

    fn mod_down(&self, sums: &Sums, rescale: bool) -> SlotResult<Ciphertext> {
        let evaluator = &self.machine.evaluator;
        let mut result: Option<Ciphertext> = None;
        for sum in sums.values() {
            let part = if rescale { evaluator.mod_down_rescale(sum)? } else { evaluator.mod_down(sum)? };
            result = Some(match result {
                Some(mut total) => {
                    evaluator.add_assign(&mut total, &part)?;
                    total
                }
                None => part,
            });
        }
        result.ok_or(SlotError::OperandCount { operation: "linear_transform", have: 0, need: 1 })
    }

    /// The result of an output that no diagonal leads to.
    fn nothing(&self, like: &Ciphertext) -> SlotResult<EncryptedVector> {
        let machine = self.machine;
        let zero = machine.evaluator.mul_integer(like, 0)?;
        let zero = wrap(zero.with_scale(like.scale() * self.plain_scale)?);
        self.machine.log.record(OpKind::ModDown, self.level, 0);
        if self.rescale {
            machine.log.record(OpKind::Rescale, self.level, 1);
            return Ok(wrap(machine.evaluator.rescale(&zero.0)?));
        }
        Ok(zero)
    }
}
