//! Linear transforms of ciphertexts, double-hoisted.

use super::{Encrypted, EncryptedVector, wrap};
use crate::linear::{GiantStep, LinearTransform, Row, Schedule, Term};
use crate::slots::align::{require_level, require_rescale, require_scale};
use crate::slots::{Error, KeyUse, OpKind, Result, Scale};
use cipherlm_ckks::{
    Ciphertext, EvaluationKeys, ExtendedCiphertext, GaloisElement, Hoisted, KeyShape, LiftedPlaintext, hazmat,
};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Sums over the extended modulus, one for each number of special primes that the keys at hand use.
type Sums = BTreeMap<usize, ExtendedCiphertext>;

/// The baby rotations of all inputs of a transform.
struct Babies<'a> {
    columns: hazmat::Columns<'a>,
    /// Special primes over which each of them is taken.
    specials: Vec<usize>,
    /// Those that need a key.
    rotations: usize,
}

/// Output and giant step of a row, and its plaintexts by column.
type Line = ((usize, i64), Vec<Option<LiftedPlaintext>>);

/// Bytes of plaintexts and sums that one pass over the rotations may hold. Each pass performs the
/// rotations again, so it should have many more products than there are rotations.
const PASS_BYTES: usize = 1 << 29;

impl<K: EvaluationKeys> Encrypted<K> {
    /// Applies `transform`; with `rescale` the last division takes the prime of the level along.
    pub(super) fn transform(
        &self,
        inputs: &[&EncryptedVector],
        transform: &LinearTransform,
        plain_scale: Scale,
        rescale: bool,
    ) -> Result<Vec<EncryptedVector>> {
        self.transform_within(inputs, transform, (plain_scale, rescale), PASS_BYTES)
    }

    fn transform_within(
        &self,
        inputs: &[&EncryptedVector],
        transform: &LinearTransform,
        (plain_scale, rescale): (Scale, bool),
        bytes: usize,
    ) -> Result<Vec<EncryptedVector>> {
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
        let mut hoisted = Vec::with_capacity(inputs.len());
        for input in inputs {
            hoisted.push(self.evaluator.hoist(&input.0)?);
        }
        let columns = run.columns(&hoisted, &schedule)?;
        let rows: Vec<(usize, &Row<'_>)> = (0..)
            .zip(&schedule.outputs)
            .flat_map(|(output, rows)| rows.iter().map(move |r| (output, r)))
            .collect();
        let (mut rest, mut sums, mut results) = (rows.as_slice(), BTreeMap::new(), Vec::new());
        while results.len() < transform.outputs() {
            let (pass, after) = rest.split_at(run.fitting(rest, bytes));
            sums.extend(run.pass(&columns, pass)?);
            rest = after;
            let complete = rest.first().map_or(transform.outputs(), |row| row.0);
            for output in results.len()..complete {
                results.push(match schedule.outputs[output].as_slice() {
                    [] => run.nothing(&first.0)?,
                    _ => run.finish(schedule.giant_steps(output), |giant| {
                        sums.remove(&(output, giant)).unwrap_or_default()
                    })?,
                });
            }
        }
        Ok(results)
    }
}

impl<K: EvaluationKeys> Encrypted<K> {
    /// `vector` and its rotations, summed over the extended modulus and divided once.
    pub(super) fn sum_of_rotations(&self, vector: &Ciphertext, steps: &[i64]) -> Result<Ciphertext> {
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

    /// The baby rotations of all inputs.
    fn columns<'a>(&self, hoisted: &[Hoisted<'a>], schedule: &Schedule<'_>) -> Result<Babies<'a>> {
        let elements: Vec<Vec<GaloisElement>> =
            schedule.babies.iter().map(|steps| steps.iter().map(|&b| self.rotation(b)).collect()).collect();
        let inputs: Vec<_> = hoisted.iter().zip(&elements).map(|(h, steps)| (h, steps.as_slice())).collect();
        let (machine, start) = (self.machine, Instant::now());
        let columns = hazmat::columns(&machine.evaluator, "linear_transform", &inputs)?;
        // The input itself is brought to the special primes of its first rotation.
        let cheapest = KeyShape::cheapest(machine.params(), self.level)?.special;
        let (mut specials, mut rotations) = (Vec::new(), 0);
        let mut found = columns.specials().into_iter();
        for steps in &elements {
            let own: Vec<Option<usize>> = found.by_ref().take(steps.len()).collect();
            let first = own.iter().flatten().next().copied();
            self.machine.log.record(OpKind::ModUp, self.level, usize::from(first.is_some()));
            rotations += own.iter().flatten().count();
            specials.extend(own.into_iter().map(|special| special.or(first).unwrap_or(cheapest)));
        }
        machine.log.record_timed(OpKind::KeyProduct, self.level, rotations, start.elapsed());
        Ok(Babies { columns, specials, rotations })
    }

    /// How many of the rows one pass may take: at least one, if there is one.
    fn fitting(&self, rows: &[(usize, &Row<'_>)], bytes: usize) -> usize {
        let params = self.machine.params();
        let limb = |period: usize| params.degree().min(2 * period) * size_of::<f64>();
        let mut held = 0;
        let fits = rows.iter().take_while(|(_, row)| {
            let values: usize = row.terms.iter().map(|term| limb(term.plain.period())).sum();
            let limbs = params.limb_count(self.level) + params.special_count();
            held += limbs * (values + 2 * limb(params.slots()));
            held <= bytes
        });
        fits.count().max(1).min(rows.len())
    }

    /// The sums of some rows.
    fn pass(&self, babies: &Babies<'_>, rows: &[(usize, &Row<'_>)]) -> Result<BTreeMap<(usize, i64), Sums>> {
        let (machine, mut found) = (self.machine, BTreeMap::new());
        for special in babies.specials.iter().copied().collect::<BTreeSet<_>>() {
            let lines = self.lines(babies, rows, special)?;
            let (places, cells): (Vec<_>, Vec<_>) =
                lines.into_iter().filter(|(_, line)| line.iter().any(Option::is_some)).unzip();
            if cells.is_empty() {
                continue;
            }
            let start = Instant::now();
            let (sums, rotating) =
                hazmat::rotated_rows(&machine.evaluator, &babies.columns, special, &cells)?;
            let time = start.elapsed();
            let rotating = if babies.rotations == 0 { Duration::ZERO } else { time.mul_f64(rotating) };
            if babies.rotations > 0 {
                machine.log.add_time(OpKind::KeyProduct, self.level, rotating);
            }
            machine.log.add_time(OpKind::MulPlainExtended, self.level, time.saturating_sub(rotating));
            for (place, sum) in places.into_iter().zip(sums) {
                found.entry(place).or_insert_with(Sums::new).insert(special, sum);
            }
        }
        let terms = rows.iter().map(|(_, row)| row.terms.len()).sum();
        machine.log.record(OpKind::MulPlainExtended, self.level, terms);
        Ok(found)
    }

    /// The plaintexts of some rows that belong to so many special primes, by column of the babies.
    fn lines(&self, babies: &Babies<'_>, rows: &[(usize, &Row<'_>)], special: usize) -> Result<Vec<Line>> {
        let (machine, start) = (self.machine, Instant::now());
        let terms: Vec<(usize, &Term<'_>)> = rows
            .iter()
            .enumerate()
            .flat_map(|(at, (_, row))| row.terms.iter().map(move |term| (at, term)))
            .filter(|(_, term)| babies.specials[term.column] == special)
            .collect();
        let limbs = machine.params().extended_limbs(self.level, special);
        let lift = |&(at, term): &(usize, &Term<'_>)| -> Result<(LiftedPlaintext, bool)> {
            let (plaintext, fresh) =
                machine.encode_untimed(term.plain, -rows[at].1.giant, self.plain_scale)?;
            Ok((plaintext.lift(&limbs)?, fresh))
        };
        let lifted: Vec<(LiftedPlaintext, bool)> = terms.par_iter().map(lift).collect::<Result<_>>()?;
        let width = babies.specials.len();
        let mut lines: Vec<Line> =
            rows.iter().map(|(output, row)| ((*output, row.giant), vec![None; width])).collect();
        let mut encoded = 0;
        for ((at, term), (plaintext, fresh)) in terms.into_iter().zip(lifted) {
            lines[at].1[term.column] = Some(plaintext);
            encoded += usize::from(fresh);
        }
        // Lifting belongs to the encoding: no operation of its own, only its time.
        machine.log.record(OpKind::Encode, self.level, encoded);
        machine.log.add_time(OpKind::Encode, self.level, start.elapsed());
        Ok(lines)
    }

    /// Adds the sums of all giant steps by Horner's rule and leaves the extended modulus.
    fn finish(
        &self,
        sides: [Vec<GiantStep>; 2],
        mut sum_of: impl FnMut(i64) -> Sums,
    ) -> Result<EncryptedVector> {
        let log = &self.machine.log;
        let mut result = sum_of(0);
        for side in sides {
            let Some(first) = side.first() else { continue };
            let mut total = sum_of(first.giant);
            let mut steps = side.iter().peekable();
            while let Some(step) = steps.next() {
                let next = match steps.peek() {
                    Some(next) => sum_of(next.giant),
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
    fn rotate_and_add(&self, total: Sums, element: GaloisElement, mut next: Sums) -> Result<Sums> {
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

    fn merge(&self, total: &mut Sums, sums: Sums) -> Result<()> {
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

    fn mod_down(&self, sums: &Sums, rescale: bool) -> Result<Ciphertext> {
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
        result.ok_or(Error::OperandCount { operation: "linear_transform", have: 0, need: 1 })
    }

    /// The result of an output that no diagonal leads to.
    fn nothing(&self, like: &Ciphertext) -> Result<EncryptedVector> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::{Plain, Primitives};
    use cipherlm_ckks::{Complex64, KeyRequest, Plaintext, SecretKey, Wire, presets};

    /// Keys of two levels with different special primes, several inputs and outputs, one of them
    /// empty: results don't depend on how much one pass may hold, bit by bit.
    #[test]
    fn passes_of_one_row_give_what_one_pass_gives() {
        let params = presets::insecure::small(1 << 10, 40.0, 9).unwrap();
        let (slots, level) = (params.slots(), 3);
        let plain =
            |seed: i64| Plain::real((0..16).map(|i| ((seed + 3 * i) % 7) as f64 / 8.0).collect::<Vec<_>>());
        let diagonals = [(0usize, 0usize), (0, 1), (2, 1)].into_iter().flat_map(|(output, input)| {
            (-6..7).map(move |shift| (output, input, shift, plain(shift + 20 + (output + input) as i64)))
        });
        let transform = LinearTransform::block(slots, 3, 2, diagonals).unwrap().with_baby(4).unwrap();
        let mut request = KeyRequest::new();
        for rotation in transform.rotations() {
            let level = if rotation == 1 { 9 } else { level };
            request.rotations(&params, [rotation as i64], level);
        }
        let secret = SecretKey::generate(&params).unwrap();
        let machine = Encrypted::new(&params, secret.id(), secret.key_set(&request).unwrap()).unwrap();
        let scale = machine.chain().scale(level);
        let inputs = [1.0, -0.5].map(|value| {
            let values = vec![Complex64::from(value); slots];
            let plaintext = Plaintext::encode(&params, &values, slots, scale).unwrap();
            machine.input(secret.encrypt(&plaintext, level).unwrap()).unwrap()
        });
        let inputs: Vec<_> = inputs.iter().collect();
        let run = |rescale, bytes| {
            let plain_scale = params.rescale_factor(level);
            let results =
                machine.transform_within(&inputs, &transform, (plain_scale, rescale), bytes).unwrap();
            results.iter().map(|result| result.ciphertext().to_bytes()).collect::<Vec<_>>()
        };
        let specials: BTreeSet<usize> = transform
            .rotations()
            .into_iter()
            .map(|r| {
                let element = GaloisElement::rotation(&params, r as i64);
                hazmat::galois_special(&machine.evaluator, "test", element, level, secret.id()).unwrap()
            })
            .collect();
        assert!(specials.len() > 1, "{specials:?}");
        for rescale in [false, true] {
            let whole = run(rescale, PASS_BYTES);
            assert_eq!(whole.len(), 3);
            assert_eq!(run(rescale, 1), whole);
            assert_eq!(run(rescale, 1 << 20), whole);
        }
    }
}
