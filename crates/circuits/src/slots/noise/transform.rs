//! Linear transforms on the noise machine.

use super::{Added, Name, Noise, NoiseVector, carried as vector_of, plain_name};
use crate::linear::{LinearTransform, giant_steps};
use crate::slots::clear::{Clear, ClearVector};
use crate::slots::{Machine, Scale, SlotResult};
use cipherlm_ckks::noise::SlotVariance;
use cipherlm_ckks::{GaloisElement, KeyPurpose};
use num_complex::Complex64;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

impl Noise {
    pub(super) fn transform(
        &self,
        inputs: &[&NoiseVector],
        transform: &LinearTransform,
        plain_scale: Scale,
        rescale: bool,
    ) -> SlotResult<Vec<NoiseVector>> {
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
        let (level, scale, slots) = (self.level(first), self.scale(first), self.slots());
        let product_scale = scale * plain_scale;
        let mut carried = vec![vec![SlotVariance::default(); slots]; transform.outputs()];
        let mut added = carried.clone();
        // Outputs share the babies of an input and so their errors, which may add up when outputs
        // meet again.
        let mut babies: BTreeMap<(usize, i64), (SlotVariance, Vec<Complex64>)> = BTreeMap::new();
        let mut drawn = vec![vec![Complex64::ZERO; slots]; transform.outputs()];
        let mut keys: BTreeMap<i64, SlotVariance> = BTreeMap::new();
        // Stored for the scale of the input; others follow by the square of the ratio.
        let mut key_product = |steps: i64, at: Scale| -> SlotResult<SlotVariance> {
            let element = GaloisElement::rotation(self.model.params(), steps);
            if element.is_identity() {
                return Ok(SlotVariance::default());
            }
            let known = match keys.get(&steps) {
                Some(&known) => known,
                None => self.model.key_product(KeyPurpose::Galois(element), level, scale)?,
            };
            keys.insert(steps, known);
            Ok(known.times((scale / at).to_f64().powi(2)))
        };
        for (output, input, shift, plain) in transform.diagonals() {
            let (giant, baby) = transform.split(shift);
            // Baby rotations stay over the extended modulus: their key error, but no rounding.
            let (baby_error, errors) = match babies.entry((input, baby)) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    let variance = key_product(baby, scale)?;
                    let name = Name::linear("baby", [inputs[input].name], baby);
                    new.insert((variance, self.draw(name, variance.mean)))
                }
            };
            let encoding = self.model.encoding(plain.period(), plain_scale);
            let values: Vec<Complex64> = plain.values().collect();
            let vector = inputs[input];
            let [shift, giant] = [shift, giant].map(|steps| steps.rem_euclid(slots as i64) as usize);
            for slot in 0..slots {
                let (from, value) = ((slot + shift) & (slots - 1), values[slot % values.len()]);
                let error = vector.variance[from].plus_apart(*baby_error).times(value.norm_sqr());
                carried[output][slot] = carried[output][slot].plus_apart(error);
                drawn[output][slot] += errors[(slot + giant) & (slots - 1)] * value;
                let encoding = SlotVariance::plain(vector.exact()[from].norm_sqr() * encoding);
                added[output][slot] = added[output][slot].plus(encoding);
            }
        }
        // Each giant step divides before its rotation and adds the error of its key; the sum of all
        // is divided in the end.
        let specials = self.baby_specials(transform, level)?;
        let mut giants = vec![(Added::default(), BTreeSet::new()); transform.outputs()];
        for (output, sums) in transform.schedule() {
            let (added, last) = &mut giants[output];
            let divided = |giant: i64| {
                sums.get(&giant).into_iter().flatten().map(|term| specials[&(term.input, term.baby)])
            };
            last.extend(divided(0));
            for side in giant_steps(sums.keys().copied()) {
                let mut total = BTreeSet::new();
                for step in side {
                    total.extend(divided(step.giant));
                    let element = GaloisElement::rotation(self.model.params(), step.rotation);
                    if element.is_identity() {
                        continue;
                    }
                    let rounding = self.model.rounding(product_scale).times(total.len() as f64);
                    added.all =
                        added.all.plus_apart(key_product(step.rotation, product_scale)?).plus_apart(rounding);
                    added.secret += rounding.spread;
                    total = BTreeSet::from([self.special(element, level)?]);
                }
                last.extend(total);
            }
        }
        let noisy = noisy.into_iter().zip(drawn).map(|(mut noisy, drawn)| {
            noisy.map_in_place(|slot, value| value + drawn[slot]);
            noisy
        });
        let results = exact.into_iter().zip(noisy).zip(carried).zip(added).zip(giants);
        // Outputs of the same diagonals are the same ciphertext.
        let mut names = vec![(Vec::new(), Vec::new()); transform.outputs()];
        for (output, input, shift, plain) in transform.diagonals() {
            names[output].0.push(inputs[input].name);
            names[output].1.push((shift, plain_name(plain, plain_scale)));
        }
        let finish =
            |((operands, diagonals), ((((exact, noisy), variance), own), (giants, last))): (Terms, Parts)| {
                let divisions = last.len().max(usize::from(rescale)) as f64;
                let end = self.model.rounding(self.clear.scale(&exact)).times(divisions);
                let added = Added { secret: giants.secret + end.spread, slots: Some(own), ..giants.and(end) };
                let name = Name::linear("transform", operands, (diagonals, transform.baby(), rescale));
                self.noisier(vector_of(name, exact, noisy, variance), &added)
            };
        Ok(names.into_iter().zip(results).map(finish).collect())
    }

    /// Special primes over which each baby rotation of each input stays; the input itself is
    /// brought to those of the first.
    fn baby_specials(
        &self,
        transform: &LinearTransform,
        level: usize,
    ) -> SlotResult<BTreeMap<(usize, i64), usize>> {
        let mut specials = BTreeMap::new();
        for (_, input, shift, _) in transform.diagonals() {
            let baby = transform.split(shift).1;
            specials.insert(
                (input, baby),
                self.special(GaloisElement::rotation(self.model.params(), baby), level)?,
            );
        }
        for input in 0..transform.inputs() {
            let first = specials.range((input, 1)..(input + 1, 0)).next().map(|(_, &special)| special);
            if let (Some(own), Some(first)) = (specials.get_mut(&(input, 0)), first) {
                *own = first;
            }
        }
        Ok(specials)
    }
}

/// Operands of an output, and the shift and plaintext of each.
type Terms = (Vec<Name>, Vec<(i64, (u64, u8))>);
type Parts = ((((ClearVector, ClearVector), Vec<SlotVariance>), Vec<SlotVariance>), (Added, BTreeSet<usize>));
