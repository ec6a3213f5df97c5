//! Linear transforms on the noise machine: the rows of a schedule, with the errors they add.

use super::{Added, Name, Noise, NoiseVector, carried as vector_of, plain_name};
use crate::linear::{LinearTransform, Row, Schedule};
use crate::slots::clear::{Clear, ClearVector};
use crate::slots::{Primitives, Result, Scale};
use cipherlm_ckks::noise::SlotVariance;
use cipherlm_ckks::{GaloisElement, KeyPurpose};
use num_complex::Complex64;
use std::collections::{BTreeMap, BTreeSet};

impl Noise {
    pub(super) fn transform(
        &self,
        inputs: &[&NoiseVector],
        transform: &LinearTransform,
        plain_scale: Scale,
        rescale: bool,
    ) -> Result<Vec<NoiseVector>> {
        let apply = |machine: &Clear, inputs: &[&ClearVector]| {
            if rescale {
                machine.linear_transform_rescale(inputs, transform, plain_scale)
            } else {
                machine.linear_transform_at(inputs, transform, plain_scale)
            }
        };
        let exact = apply(&self.clear, &inputs.iter().map(|input| &input.exact).collect::<Vec<_>>())?;
        let noisy = apply(&self.shadow, &inputs.iter().map(|input| &input.noisy).collect::<Vec<_>>())?;
        let Some(first) = inputs.first() else { return Ok(Vec::new()) };
        let (level, scale) = (self.level(first), self.scale(first));
        let schedule = transform.schedule();
        let mut keys = KeyErrors { noise: self, level, scale, known: BTreeMap::new() };
        let babies = keys.babies(inputs, &schedule)?;
        let specials = self.baby_specials(&schedule, level)?;
        let mut results = Vec::with_capacity(transform.outputs());
        for (output, (exact, mut noisy)) in exact.into_iter().zip(noisy).enumerate() {
            let rows = &schedule.outputs[output];
            let products = self.products(inputs, rows, &babies, plain_scale);
            noisy.map_in_place(|slot, value| value + products.drawn[slot]);
            let (giants, divisions) =
                keys.giants(&schedule, output, &specials, scale * plain_scale, usize::from(rescale))?;
            let end = self.model.rounding(self.clear.scale(&exact)).times(divisions as f64);
            let (secret, slots) = (giants.secret + end.spread, Some(products.encoding));
            let added = Added { secret, slots, ..giants.and(end) };
            // Outputs of the same diagonals are the same ciphertext.
            let terms = || rows.iter().flat_map(|row| row.terms.iter().map(move |term| (row.giant, term)));
            let operands: Vec<Name> = terms().map(|(_, term)| inputs[term.input].name).collect();
            let diagonals: Vec<(i64, (u64, u8))> = terms()
                .map(|(giant, term)| (giant + term.baby, plain_name(term.plain, plain_scale)))
                .collect();
            let name = Name::linear("transform", operands, (diagonals, transform.baby(), rescale));
            results.push(self.noisier(vector_of(name, exact, noisy, products.carried), &added));
        }
        Ok(results)
    }

    /// The errors of the products of one output.
    fn products(
        &self,
        inputs: &[&NoiseVector],
        rows: &[Row<'_>],
        babies: &[(SlotVariance, Vec<Complex64>)],
        plain_scale: Scale,
    ) -> Products {
        let slots = self.slots();
        let none = vec![SlotVariance::default(); slots];
        let mut sum = Products { carried: none.clone(), encoding: none, drawn: vec![Complex64::ZERO; slots] };
        for (row, term) in rows.iter().flat_map(|row| row.terms.iter().map(move |term| (row, term))) {
            let (baby_error, errors) = &babies[term.column];
            let encoding = self.model.encoding(term.plain.period(), plain_scale);
            let values: Vec<Complex64> = term.plain.values().collect();
            let vector = inputs[term.input];
            let [shift, giant] =
                [row.giant + term.baby, row.giant].map(|steps| steps.rem_euclid(slots as i64) as usize);
            for slot in 0..slots {
                let (from, value) = ((slot + shift) & (slots - 1), values[slot % values.len()]);
                let error = vector.variance[from].plus_apart(*baby_error).times(value.norm_sqr());
                sum.carried[slot] = sum.carried[slot].plus_apart(error);
                sum.drawn[slot] += errors[(slot + giant) & (slots - 1)] * value;
                let encoding = SlotVariance::plain(vector.exact()[from].norm_sqr() * encoding);
                sum.encoding[slot] = sum.encoding[slot].plus(encoding);
            }
        }
        sum
    }

    /// Special primes over which each column stays; the input itself is brought to those of its
    /// first rotation.
    fn baby_specials(&self, schedule: &Schedule<'_>, level: usize) -> Result<Vec<usize>> {
        let special = |&baby: &i64| self.special(GaloisElement::rotation(self.model.params(), baby), level);
        let mut specials = Vec::new();
        for steps in &schedule.babies {
            let own = steps.iter().map(special).collect::<Result<Vec<_>>>()?;
            let first = steps.iter().position(|&baby| baby != 0).map(|at| own[at]);
            let taken = steps.iter().zip(own).map(|(&baby, own)| match first {
                Some(first) if baby == 0 => first,
                _ => own,
            });
            specials.extend(taken);
        }
        Ok(specials)
    }
}

/// What the products of an output carry on and add, slot by slot.
struct Products {
    /// Errors of the inputs and of their baby rotations.
    carried: Vec<SlotVariance>,
    /// Errors of the encodings.
    encoding: Vec<SlotVariance>,
    /// The drawn errors of the baby rotations.
    drawn: Vec<Complex64>,
}

/// The errors of key products at one level.
struct KeyErrors<'a> {
    noise: &'a Noise,
    level: usize,
    scale: Scale,
    /// By rotation, for the scale of the input; others follow by the square of the ratio.
    known: BTreeMap<i64, SlotVariance>,
}

impl KeyErrors<'_> {
    fn of(&mut self, steps: i64, at: Scale) -> Result<SlotVariance> {
        let model = &self.noise.model;
        let element = GaloisElement::rotation(model.params(), steps);
        if element.is_identity() {
            return Ok(SlotVariance::default());
        }
        let known = match self.known.get(&steps) {
            Some(&known) => known,
            None => model.key_product(KeyPurpose::Galois(element), self.level, self.scale)?,
        };
        self.known.insert(steps, known);
        Ok(known.times((self.scale / at).to_f64().powi(2)))
    }

    /// Variance and drawn error of each column. Baby rotations stay over the extended modulus:
    /// their key error, but no rounding. Outputs share the babies of an input and so their errors,
    /// which may add up when outputs meet again.
    fn babies(
        &mut self,
        inputs: &[&NoiseVector],
        schedule: &Schedule<'_>,
    ) -> Result<Vec<(SlotVariance, Vec<Complex64>)>> {
        let mut babies = Vec::new();
        for (input, steps) in inputs.iter().zip(&schedule.babies) {
            for &baby in steps {
                let variance = self.of(baby, self.scale)?;
                let name = Name::linear("baby", [input.name], baby);
                babies.push((variance, self.noise.draw(name, variance.mean)));
            }
        }
        Ok(babies)
    }

    /// What the giant steps of an output add, and how many divisions are left to the end, at least
    /// `least`: each giant step divides before its rotation and adds the error of its key.
    fn giants(
        &mut self,
        schedule: &Schedule<'_>,
        output: usize,
        specials: &[usize],
        product_scale: Scale,
        least: usize,
    ) -> Result<(Added, usize)> {
        let rows = &schedule.outputs[output];
        let divided = |giant: i64| {
            let row = rows.iter().filter(move |row| row.giant == giant);
            row.flat_map(|row| row.terms.iter().map(|term| specials[term.column]))
        };
        let mut added = Added::default();
        let mut last: BTreeSet<usize> = divided(0).collect();
        for side in schedule.giant_steps(output) {
            let mut total = BTreeSet::new();
            for step in side {
                total.extend(divided(step.giant));
                let element = GaloisElement::rotation(self.noise.model.params(), step.rotation);
                if element.is_identity() {
                    continue;
                }
                let rounding = self.noise.model.rounding(product_scale).times(total.len() as f64);
                let key = self.of(step.rotation, product_scale)?;
                added.all = added.all.plus_apart(key).plus_apart(rounding);
                added.secret += rounding.spread;
                total = BTreeSet::from([self.noise.special(element, self.level)?]);
            }
            last.extend(total);
        }
        Ok((added, last.len().max(least)))
    }
}
