//! Linear transforms of slot vectors by generalised diagonals.
//!
//! A transform is a set of diagonals: output slot `i` is the sum over diagonals `k` of
//! `diagonal_k[i] * input[i + k]`. A block transform has several input and output vectors and a set
//! of diagonals for each pair of them.
//!
//! Evaluation splits each shift into a *baby* and a *giant* part (baby-step giant-step). The baby
//! rotations of an input share one digit decomposition and are left over the extended modulus, the
//! plaintext products are summed there, and each giant step divides by the special modulus once
//! ("double hoisting", Bossuat, Mouchet, Troncoso-Pastoriza and Hubaux, "Efficient Bootstrapping
//! for Approximate Homomorphic Encryption with Non-Sparse Keys", 2020/1203). Inputs share their
//! babies among all outputs, outputs sum their giants over all inputs. Giant steps follow Horner's
//! rule, from the farthest inwards: the sum so far is rotated by one baby-step range and the next
//! sum added, so that all giant steps in one direction share one key.

mod matrix;
mod schedule;

pub use matrix::TokenLayout;
pub use schedule::{GiantStep, Row, Schedule, Term};

use crate::slots::{Error, KeyUse, OpKind, OpLog, Plain, Result};
use num_complex::Complex64;
use std::collections::{BTreeMap, BTreeSet};

/// Slots of the largest ring.
const MAX_SLOTS: usize = cipherlm_ring::MAX_DEGREE / 2;

/// A linear map between lists of slot vectors, known by its nonzero diagonals.
///
/// ```
/// use cipherlm_circuits::linear::LinearTransform;
/// use cipherlm_circuits::slots::{Chain, Clear, Encrypted, Machine, Primitives};
/// use cipherlm_ckks::{Complex64, Plaintext, SecretKey, presets};
/// let params = presets::levels3_scale40()?;
/// let turn = [[0.0, -1.0], [1.0, 0.0]].map(|row| row.map(|x| Complex64::new(x, 0.0)).to_vec());
/// let turn = LinearTransform::from_matrix(params.slots(), &turn)?;
/// // A dry run says which keys the circuit takes.
/// let dry = Clear::dry(Chain::of(&params)?);
/// dry.linear_transform(&dry.input(0.0, 3)?, &turn)?;
/// let secret = SecretKey::generate(&params)?;
/// let keys = secret.key_set(&dry.log().key_request(&params))?;
/// // The same matrix again and again: its plaintexts are kept.
/// let machine = Encrypted::new(&params, secret.id(), keys)?.with_plain_cache(1 << 20);
/// let point = Plaintext::encode_real(&params, &[3.0, 4.0], 2, machine.chain().scale(3))?;
/// let mut point = machine.input(secret.encrypt(&point, 3)?)?;
/// for _ in 0..2 {
///     point = machine.linear_transform(&point, &turn)?;
/// }
/// let found = secret.decrypt(point.ciphertext())?.decode().real();
/// assert!((found[0] + 3.0).abs() < 1e-3 && (found[1] + 4.0).abs() < 1e-3);
/// # Ok::<(), cipherlm_circuits::slots::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LinearTransform {
    slots: usize,
    inputs: usize,
    outputs: usize,
    /// (output, signed shift, input) to the diagonal.
    diagonals: BTreeMap<(usize, i64, usize), Plain>,
    baby: i64,
}

/// Primitive operations of one evaluation, whatever the level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransformCost {
    /// Digit decompositions.
    pub mod_ups: usize,
    /// Key products (hoisted rotations).
    pub key_products: usize,
    /// Plaintext products.
    pub plain_products: usize,
    /// Divisions by the special modulus.
    pub mod_downs: usize,
    /// Numbers stored in all diagonals.
    pub plain_values: usize,
}

impl LinearTransform {
    /// A map of one vector to one from its diagonals: `(shift, values)`, where output slot `i`
    /// gains `values[i] * input[i + shift]`. Shifts are taken modulo `slots`; zero diagonals are
    /// dropped, equal shifts are refused.
    ///
    /// # Errors
    /// [`cipherlm_ckks::Error::BadSlots`] for a number of slots that no parameters have,
    /// [`Error::Period`] if a diagonal does not repeat evenly over the slots,
    /// [`Error::Shape`] for a repeated shift.
    pub fn from_diagonals(slots: usize, diagonals: impl IntoIterator<Item = (i64, Plain)>) -> Result<Self> {
        Self::block(slots, 1, 1, diagonals.into_iter().map(|(shift, plain)| (0, 0, shift, plain)))
    }

    /// A map between lists of vectors from `(output, input, shift, values)`.
    ///
    /// # Errors
    /// As [`LinearTransform::from_diagonals`], and [`Error::Shape`] for an output or input
    /// index out of range.
    pub fn block(
        slots: usize,
        outputs: usize,
        inputs: usize,
        diagonals: impl IntoIterator<Item = (usize, usize, i64, Plain)>,
    ) -> Result<Self> {
        check_slots(slots)?;
        let mut map = BTreeMap::new();
        for (output, input, shift, plain) in diagonals {
            let have = plain.period();
            if have == 0 || !slots.is_multiple_of(have) {
                return Err(Error::Period { have, slots });
            }
            if output >= outputs {
                return Err(Error::Shape {
                    what: "output index of a block transform",
                    have: output,
                    need: outputs,
                });
            }
            if input >= inputs {
                return Err(Error::Shape {
                    what: "input index of a block transform",
                    have: input,
                    need: inputs,
                });
            }
            if plain.is_zero() {
                continue;
            }
            if map.insert((output, signed(shift, slots), input), plain).is_some() {
                return Err(Error::Shape { what: "diagonals of one shift", have: 2, need: 1 });
            }
        }
        let mut transform = Self { slots, inputs, outputs, diagonals: map, baby: 1 };
        transform.baby = transform.best_baby();
        Ok(transform)
    }

    /// The product with a dense `rows.len()` by `rows[0].len()` matrix. The input repeats with the
    /// next power of two `d` of the larger side (pad it with zeros); so does the output.
    ///
    /// # Errors
    /// [`Error::Shape`] if rows differ in length or do not fit the slots.
    pub fn from_matrix(slots: usize, rows: &[Vec<Complex64>]) -> Result<Self> {
        let columns = rows.first().map_or(0, Vec::len);
        if let Some(row) = rows.iter().find(|row| row.len() != columns) {
            return Err(Error::Shape { what: "length of a matrix row", have: row.len(), need: columns });
        }
        let size = rows.len().max(columns).next_power_of_two();
        if size > slots {
            return Err(Error::Shape { what: "matrix size", have: size, need: slots });
        }
        let entry = |row: usize, column: usize| {
            rows.get(row).and_then(|row| row.get(column)).copied().unwrap_or(Complex64::ZERO)
        };
        let diagonal = |shift: usize| {
            let values: Vec<_> = (0..size).map(|row| entry(row, (row + shift) % size)).collect();
            let real = values.iter().all(|value| value.im == 0.0);
            let plain = if real {
                Plain::real(values.iter().map(|value| value.re).collect::<Vec<_>>())
            } else {
                Plain::complex(values)
            };
            (shift as i64, plain)
        };
        Self::from_diagonals(slots, (0..size).map(diagonal))
    }

    /// The maps of several vectors that share the slots of one, as [`Plain::interleaved`] lays them
    /// out: every rotation goes `parts.len()` times as far.
    ///
    /// # Errors
    /// [`Error::OperandCount`] for none, [`Error::Shape`] for maps of other slots or
    /// between other numbers of vectors, [`cipherlm_ckks::Error::BadSlots`] for more slots than
    /// there are.
    pub fn interleaved(parts: &[&Self]) -> Result<Self> {
        let Some(first) = parts.first() else {
            return Err(Error::OperandCount { operation: "interleaved transforms", have: 0, need: 1 });
        };
        for part in parts {
            for (what, have, need) in [
                ("slots of an interleaved transform", part.slots, first.slots),
                ("inputs of an interleaved transform", part.inputs, first.inputs),
                ("outputs of an interleaved transform", part.outputs, first.outputs),
            ] {
                if have != need {
                    return Err(Error::Shape { what, have, need });
                }
            }
        }
        let (slots, lanes) = (first.slots * parts.len(), parts.len() as i64);
        check_slots(slots)?;
        let zero = Plain::from(0.0);
        let places: BTreeSet<_> = parts.iter().flat_map(|part| part.diagonals.keys().copied()).collect();
        let diagonal = |place: (usize, i64, usize)| {
            let own = parts.iter().map(|part| part.diagonals.get(&place).unwrap_or(&zero).clone());
            let own: Vec<Plain> = own.collect();
            let period = own.iter().map(Plain::period).max().unwrap_or(1);
            ((place.0, place.1 * lanes, place.2), Plain::interleaved(&own, period))
        };
        let diagonals = places.into_iter().map(diagonal).collect();
        let (inputs, outputs, baby) = (first.inputs, first.outputs, first.baby * lanes);
        Ok(Self { slots, inputs, outputs, diagonals, baby })
    }

    /// The same map with another baby-step range: shifts are split into a multiple of `baby` and a
    /// rest in `0 .. baby`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `baby` is zero or above the number of slots.
    #[cfg(test)]
    pub(crate) fn with_baby(mut self, baby: usize) -> Result<Self> {
        if baby == 0 || baby > self.slots {
            return Err(Error::Shape { what: "baby-step range", have: baby, need: self.slots });
        }
        self.baby = baby as i64;
        Ok(self)
    }

    /// Number of slots of every vector.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Number of input vectors.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Number of output vectors.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Levels consumed.
    pub fn depth(&self) -> usize {
        1
    }

    /// The baby-step range.
    pub fn baby(&self) -> usize {
        self.baby as usize
    }

    /// All nonzero diagonals as (output, input, shift, values), shifts in `-slots/2 .. slots/2`.
    pub fn diagonals(&self) -> impl Iterator<Item = (usize, usize, i64, &Plain)> {
        self.diagonals.iter().map(|(&(output, shift, input), plain)| (output, input, shift, plain))
    }

    /// Rotations whose keys an evaluation needs, each in `1 .. slots`: the babies and the giant
    /// steps.
    pub fn rotations(&self) -> BTreeSet<usize> {
        let slots = self.slots as i64;
        let schedule = self.schedule();
        let giants = (0..self.outputs).flat_map(|output| schedule.giant_steps(output)).flatten();
        let rotations = schedule.babies.iter().flatten().copied().chain(giants.map(|step| step.rotation));
        rotations
            .map(|rotation| rotation.rem_euclid(slots) as usize)
            .filter(|&rotation| rotation != 0)
            .collect()
    }

    /// What one evaluation does.
    pub fn cost(&self) -> TransformCost {
        self.cost_with(self.baby)
    }

    /// How it is evaluated.
    pub fn schedule(&self) -> Schedule<'_> {
        let diagonals: Vec<_> = self.diagonals().collect();
        Schedule::new(self.inputs, self.outputs, self.baby, &diagonals)
    }

    /// Checks that the transform fits a machine's slots and the number of operands.
    pub(crate) fn check(&self, slots: usize, inputs: usize) -> Result<()> {
        if self.slots != slots {
            return Err(Error::Shape { what: "slots of a linear transform", have: self.slots, need: slots });
        }
        if self.inputs != inputs {
            return Err(Error::OperandCount {
                operation: "linear_transform",
                have: inputs,
                need: self.inputs,
            });
        }
        Ok(())
    }

    /// Records the operations and keys of one evaluation.
    pub(crate) fn record(&self, log: &OpLog, level: usize) {
        let cost = self.cost();
        log.record(OpKind::ModUp, level, cost.mod_ups);
        log.record(OpKind::KeyProduct, level, cost.key_products);
        log.record(OpKind::MulPlainExtended, level, cost.plain_products);
        log.record(OpKind::ModDown, level, cost.mod_downs);
        for rotation in self.rotations() {
            log.record_key(KeyUse::Rotate(rotation), level);
        }
    }

    fn cost_with(&self, baby: i64) -> TransformCost {
        let mut babies = BTreeSet::new();
        let mut giants = BTreeSet::new();
        for &(output, shift, input) in self.diagonals.keys() {
            let (giant, baby) = schedule::split(shift, baby);
            babies.insert((input, baby));
            giants.insert((output, giant));
        }
        let rotated_inputs: BTreeSet<_> =
            babies.iter().filter(|(_, baby)| *baby != 0).map(|(input, _)| input).collect();
        let outputs: BTreeSet<_> = giants.iter().map(|(output, _)| output).collect();
        let baby_products = babies.iter().filter(|(_, baby)| *baby != 0).count();
        let giant_products = giants.iter().filter(|(_, giant)| *giant != 0).count();
        TransformCost {
            mod_ups: rotated_inputs.len() + giant_products,
            key_products: baby_products + giant_products,
            plain_products: self.diagonals.len(),
            // The half of a total that is decomposed comes down before each giant step, each output
            // once at the end.
            mod_downs: giant_products + outputs.len(),
            plain_values: self.diagonals.values().map(Plain::period).sum(),
        }
    }

    /// The baby range with the least estimated work: a decomposition or a division costs about
    /// three key products.
    fn best_baby(&self) -> i64 {
        let shifts: BTreeSet<i64> = self.diagonals.keys().map(|&(_, shift, _)| shift).collect();
        let stride = shifts.iter().fold(0, |stride, &shift| gcd(stride, shift.unsigned_abs())).max(1) as i64;
        let work = |baby: i64| {
            let cost = self.cost_with(baby);
            3 * (cost.mod_ups + cost.mod_downs) + cost.key_products
        };
        let candidates = (0..).map(|bit| stride << bit).take_while(|&baby| baby <= self.slots as i64);
        candidates.min_by_key(|&baby| work(baby)).unwrap_or(1)
    }
}

fn check_slots(slots: usize) -> Result<()> {
    if slots.is_power_of_two() && slots <= MAX_SLOTS {
        return Ok(());
    }
    Err(cipherlm_ckks::Error::BadSlots { slots, min: 1, max: MAX_SLOTS }.into())
}

/// The representative of a shift in `-slots/2 .. slots/2`.
fn signed(shift: i64, slots: usize) -> i64 {
    let slots = slots as i64;
    let shift = shift.rem_euclid(slots);
    if 2 * shift >= slots { shift - slots } else { shift }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::{Chain, Clear, Machine, Primitives};

    fn entry(row: usize, column: usize) -> f64 {
        ((row * 7 + column * 3) % 11) as f64 - 5.0
    }

    #[test]
    fn a_matrix_of_diagonals_is_the_dense_product() {
        let rows: Vec<Vec<_>> =
            (0..6).map(|r| (0..8).map(|c| Complex64::new(entry(r, c), 0.5)).collect()).collect();
        let transform = LinearTransform::from_matrix(32, &rows).unwrap();
        let machine = Clear::new(Chain::uniform(32, 2, 40, 50).unwrap());
        let input: Vec<f64> = (0..8).map(|i| i as f64 * 0.25 - 1.0).collect();
        let result = machine.linear_transform(&machine.input(input.clone(), 2).unwrap(), &transform).unwrap();
        assert_eq!(machine.level(&result), 1);
        for (slot, value) in result.slots().unwrap().iter().enumerate() {
            let row = slot % 8;
            let expected: Complex64 = if row < 6 {
                rows[row].iter().zip(&input).map(|(a, b)| a * b).sum()
            } else {
                Complex64::ZERO
            };
            assert!((value - expected).norm() < 1e-12, "slot {slot}");
        }
    }

    #[test]
    fn baby_and_giant_steps_cover_every_shift() {
        let shifts = [-15, -8, -3, 0, 1, 5, 14];
        let diagonals = shifts.map(|shift| (shift, Plain::from(1.0)));
        for baby in [1, 4, 8, 32] {
            let transform =
                LinearTransform::from_diagonals(32, diagonals.clone()).unwrap().with_baby(baby).unwrap();
            let schedule = transform.schedule();
            let rebuilt: BTreeSet<i64> = schedule.outputs[0]
                .iter()
                .flat_map(|row| row.terms.iter().map(move |term| row.giant + term.baby))
                .collect();
            assert_eq!(rebuilt, BTreeSet::from(shifts));
            let cost = transform.cost();
            assert_eq!(cost.plain_products, shifts.len());
            assert!(transform.rotations().len() <= cost.key_products);
            // Every sum ends where its giant step says.
            for side in schedule.giant_steps(0) {
                let mut total: Vec<(i64, i64)> = Vec::new();
                for step in side {
                    total.push((step.giant, 0));
                    total.iter_mut().for_each(|(_, at)| *at += step.rotation);
                }
                assert!(total.iter().all(|(giant, at)| giant == at), "{total:?}");
            }
        }
    }

    #[test]
    fn dense_transforms_get_a_square_root_of_keys() {
        let transform =
            LinearTransform::from_diagonals(1024, (0..256).map(|k| (k, Plain::from(1.0)))).unwrap();
        // One key for all giant steps.
        assert!(transform.rotations().len() <= transform.baby(), "{}", transform.rotations().len());
        assert!(transform.baby() <= 32, "{}", transform.baby());
        let both = LinearTransform::from_diagonals(1024, (-127..128).map(|k| (k, Plain::from(1.0)))).unwrap();
        assert_eq!(both.rotations().len(), both.baby() + 1);
        let strided =
            LinearTransform::from_diagonals(1024, (0..16).map(|k| (k * 64, Plain::from(1.0)))).unwrap();
        assert!(strided.rotations().len() < 10);
        assert!(strided.rotations().iter().all(|rotation| rotation % 64 == 0));
    }

    #[test]
    fn slots_that_no_ring_has_are_refused() {
        for slots in [0, 3, 24, MAX_SLOTS * 2, 1 << 40, usize::MAX, (1 << 63) + 1] {
            let one = LinearTransform::from_diagonals(slots, [(1, Plain::from(1.0))]);
            let none = LinearTransform::from_diagonals(slots, []);
            let block = LinearTransform::block(slots, 1, 1, [(0, 0, i64::MIN, Plain::from(1.0))]);
            for refused in [one, none, block] {
                let refused = refused.map(drop);
                assert!(
                    matches!(refused, Err(Error::Ciphertext(cipherlm_ckks::Error::BadSlots { .. }))),
                    "{refused:?}"
                );
            }
        }
        // Shifts at the ends of their type are shifts like others.
        for shift in [i64::MIN, i64::MAX, -1] {
            let transform = LinearTransform::from_diagonals(16, [(shift, Plain::from(1.0))]).unwrap();
            let (_, _, found, _) = transform.diagonals().next().unwrap();
            assert_eq!(found.rem_euclid(16), shift.rem_euclid(16));
        }
    }

    #[test]
    fn bad_shapes_are_refused() {
        let one = || Plain::from(1.0);
        assert!(matches!(
            LinearTransform::from_diagonals(8, [(1, Plain::real(vec![1.0; 3]))]),
            Err(Error::Period { have: 3, slots: 8 })
        ));
        assert!(LinearTransform::from_diagonals(8, [(1, one()), (9, one())]).is_err());
        assert!(LinearTransform::block(8, 1, 1, [(1, 0, 0, one())]).is_err());
        assert!(LinearTransform::from_matrix(2, &vec![vec![Complex64::ONE; 4]; 4]).is_err());
    }
}
