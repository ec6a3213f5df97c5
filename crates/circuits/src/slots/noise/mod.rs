//! The noise machine: what a circuit computes, and how far encryption would be off.

mod input;
mod name;
mod transform;
mod variance;
mod vector;

use super::clear::ClearVector;
use super::{
    Chain, Clear, Combination, Error, OpLog, Plain, Primitives, RefreshKind, RefreshProfile, Result, Scale,
};
use crate::linear::LinearTransform;
use cipherlm_ckks::noise::{NoiseModel, SlotVariance};
use cipherlm_ckks::{GaloisElement, KeyPurpose, SecretKey, hazmat};
use cipherlm_ring::{Seed, Stream, Wiped};
use name::{Name, plain_name, scale_bits};
use num_complex::Complex64;
use std::collections::BTreeSet;
use std::f64::consts::TAU;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
pub use vector::NoiseVector;
use vector::carried;

/// Slots in double precision together with the error that encryption would add to each of them.
///
/// Two things are kept beside the exact slots: what is known of each slot's error
/// ([`SlotVariance`]), propagated as if errors of different operands were independent; and a
/// sample, the slots of a run in which each operation's error was really drawn and added, which
/// knows all correlations (of a power and the argument it comes from, say) but is one draw.
/// [`Prediction`](cipherlm_ckks::noise::Prediction) joins them.
///
/// In slots where the secret itself happens to be large, every division rounds badly. The sample
/// draws such a secret once per machine, as a key is drawn once; [`Noise::with_secret`] takes that
/// of a key there is.
pub struct Noise {
    clear: Clear,
    shadow: Clear,
    model: NoiseModel,
    seed: Seed,
    draws: AtomicU64,
    /// Squared slot values of the sampled secret, relative to their mean.
    profile: Wiped<f64>,
}

/// Error added by an operation to each slot.
#[derive(Clone, Default)]
struct Added {
    /// In every slot.
    all: SlotVariance,
    /// The part of `all` that follows the sampled secret.
    secret: f64,
    /// One per slot, besides.
    slots: Option<Vec<SlotVariance>>,
}

impl Added {
    fn plain(variance: f64) -> Self {
        Self { all: SlotVariance::plain(variance), ..Self::default() }
    }

    fn and(self, variance: SlotVariance) -> Self {
        Self { all: self.all.plus_apart(variance), ..self }
    }
}

impl Noise {
    /// A machine for the model's parameters; `seed` fixes every draw of a run on one thread.
    ///
    /// # Errors
    /// As [`Chain::of`].
    pub fn new(model: NoiseModel, seed: u64) -> Result<Self> {
        let chain = Chain::of(model.params())?;
        let slots = chain.slots();
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let seed = Seed::from_bytes(bytes);
        let mut stream = Stream::new(&seed, "secret profile", 0);
        let profile = (0..slots).map(|_| gaussian(&mut stream).norm_sqr()).collect();
        Ok(Self {
            clear: Clear::new(chain.clone()),
            shadow: Clear::new(chain),
            model,
            seed,
            draws: AtomicU64::new(0),
            profile,
        })
    }

    /// The same machine with the slots of one secret instead of drawn ones: what is to be expected
    /// under that key. Samples then tell something of the secret, as decryptions do, so the machine
    /// belongs to the owner of the key.
    ///
    /// # Errors
    /// A secret for other parameters than the model's.
    pub fn with_secret(self, secret: &SecretKey) -> Result<Self> {
        hazmat::check_same(self.model.params(), "noise machine", secret.params())?;
        Ok(Self { profile: hazmat::slot_profile(secret)?, ..self })
    }

    /// The same machine, without refreshes, on another chain of the same parameters, such as that
    /// of [`Chain::above`].
    #[must_use]
    pub fn on_chain(self, chain: Chain) -> Self {
        Self { clear: Clear::new(chain.clone()), shadow: Clear::new(chain), ..self }
    }

    /// The same machine with one more kind of refresh.
    #[must_use]
    pub fn with_refresh(self, profile: RefreshProfile) -> Self {
        Self { clear: self.clear.with_refresh(profile), shadow: self.shadow.with_refresh(profile), ..self }
    }

    /// A vector as fresh encryption under the public key gives it, canonical at `level`.
    ///
    /// ```
    /// use cipherlm_circuits::slots::Noise;
    /// use cipherlm_ckks::noise::NoiseModel;
    /// let params = cipherlm_ckks::presets::levels3_scale40()?;
    /// let machine = Noise::new(NoiseModel::new(&params), 7)?;
    /// let (secret, public) = (machine.input(0.5, 3)?, machine.input_public(0.5, 3)?);
    /// assert!(public.prediction().rms > 4.0 * secret.prediction().rms);
    /// # Ok::<(), cipherlm_circuits::slots::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Clear::input`].
    pub fn input_public(&self, values: impl Into<Plain>, level: usize) -> Result<NoiseVector> {
        let added = Added { all: self.model.fresh_public(self.chain().scale(level)), ..Added::default() };
        self.enter(&values.into(), level, added)
    }

    /// The noise model.
    pub fn model(&self) -> &NoiseModel {
        &self.model
    }

    fn enter(&self, plain: &Plain, level: usize, added: Added) -> Result<NoiseVector> {
        let exact = self.clear.input(plain.clone(), level)?;
        let name = Name::fresh(self.draws.fetch_add(1, Ordering::Relaxed));
        let vector = carried(name, exact.clone(), exact, vec![SlotVariance::default(); self.slots()]);
        Ok(self.noisier(vector, &added))
    }

    /// Adds the error of one operation to the variance and draws it into the sample.
    fn noisier(&self, mut vector: NoiseVector, added: &Added) -> NoiseVector {
        let own = |slot: usize| added.slots.as_ref().map_or_else(SlotVariance::default, |slots| slots[slot]);
        let variance = Arc::make_mut(&mut vector.variance);
        for (slot, variance) in variance.iter_mut().enumerate() {
            *variance = variance.plus(added.all.plus_apart(own(slot)));
        }
        let (name, unit) = (vector.name, vector.name.unit());
        vector.error = name;
        let mut stream = Stream::new(&self.seed, "operation", name.base());
        let other = added.all.mean - added.secret;
        vector.noisy.map_in_place(|slot, value| {
            let deviation = (other + added.secret * self.profile[slot] + own(slot).mean).sqrt();
            value + gaussian(&mut stream) * deviation * unit
        });
        vector
    }

    /// One draw of errors of the given variance.
    fn draw(&self, name: Name, variance: f64) -> Vec<Complex64> {
        let mut stream = Stream::new(&self.seed, "operation", name.base());
        let deviation = variance.sqrt() * name.unit();
        (0..self.slots()).map(|_| gaussian(&mut stream) * deviation).collect()
    }

    fn galois(&self, element: GaloisElement, level: usize, scale: Scale) -> Result<Added> {
        if element.is_identity() {
            return Ok(Added::default());
        }
        let key = self.model.key_product(KeyPurpose::Galois(element), level, scale)?;
        Ok(self.rounding(scale).and(key))
    }

    /// Special primes of the key for an element. Sums over different ones are divided apart, each
    /// with its rounding.
    fn special(&self, element: GaloisElement, level: usize) -> Result<usize> {
        Ok(self.model.key_shape(KeyPurpose::Galois(element), level)?.special)
    }

    fn rounding(&self, scale: Scale) -> Added {
        let all = self.model.rounding(scale);
        // What is spread is multiplied by the secret.
        Added { all, secret: all.spread, slots: None }
    }
}

fn gaussian(stream: &mut Stream) -> Complex64 {
    let mut uniform = || ((stream.next_u64() >> 11) as f64 + 0.5) * (-53f64).exp2();
    // A complex Gaussian of unit variance: squared modulus exponential, angle uniform.
    let radius = (-uniform().ln()).sqrt();
    Complex64::from_polar(radius, TAU * uniform())
}

fn rotated<T: Copy>(values: &[T], steps: i64) -> Vec<T> {
    let shift = steps.rem_euclid(values.len() as i64) as usize;
    [&values[shift..], &values[..shift]].concat()
}

impl Primitives for Noise {
    type Vector = NoiseVector;

    fn chain(&self) -> &Chain {
        self.clear.chain()
    }

    fn log(&self) -> &OpLog {
        self.clear.log()
    }

    fn level(&self, vector: &NoiseVector) -> usize {
        self.clear.level(&vector.exact)
    }

    fn scale(&self, vector: &NoiseVector) -> Scale {
        self.clear.scale(&vector.exact)
    }

    fn trivial_at(&self, plain: &Plain, level: usize, scale: Scale) -> Result<NoiseVector> {
        let exact = self.clear.trivial_at(plain, level, scale)?;
        let (values, turn) = plain_name(plain, scale);
        let name = Name::of("trivial", [], (values, level)).turned(turn);
        let vector = carried(name, exact.clone(), exact, vec![SlotVariance::default(); self.slots()]);
        Ok(self.noisier(vector, &Added::plain(self.model.encoding(plain.period(), scale))))
    }

    fn add_aligned(&self, left: &NoiseVector, right: &NoiseVector) -> Result<NoiseVector> {
        let exact = self.clear.add_aligned(&left.exact, &right.exact)?;
        let noisy = self.shadow.add_aligned(&left.noisy, &right.noisy)?;
        let (name, error, variance) = Self::sum(left, right, 0);
        Ok(NoiseVector { error, ..carried(name, exact, noisy, variance) })
    }

    fn sub_aligned(&self, left: &NoiseVector, right: &NoiseVector) -> Result<NoiseVector> {
        let exact = self.clear.sub_aligned(&left.exact, &right.exact)?;
        let noisy = self.shadow.sub_aligned(&left.noisy, &right.noisy)?;
        let (name, error, variance) = Self::sum(left, right, 2);
        Ok(NoiseVector { error, ..carried(name, exact, noisy, variance) })
    }

    fn neg(&self, vector: &NoiseVector) -> Result<NoiseVector> {
        let (exact, noisy) = (self.clear.neg(&vector.exact)?, self.shadow.neg(&vector.noisy)?);
        Ok(vector.turned(2, exact, noisy))
    }

    fn add_plain(&self, vector: &NoiseVector, plain: &Plain) -> Result<NoiseVector> {
        let exact = self.clear.add_plain(&vector.exact, plain)?;
        let noisy = self.shadow.add_plain(&vector.noisy, plain)?;
        let added = Added::plain(self.plain_error(plain, self.scale(vector)));
        let name = Name::of("plus", [vector.name], plain_name(plain, self.scale(vector)));
        Ok(self.noisier(carried(name, exact, noisy, vector.variance.to_vec()), &added))
    }

    fn mul_plain_at(&self, vector: &NoiseVector, plain: &Plain, plain_scale: Scale) -> Result<NoiseVector> {
        let exact = self.clear.mul_plain_at(&vector.exact, plain, plain_scale)?;
        let noisy = self.shadow.mul_plain_at(&vector.noisy, plain, plain_scale)?;
        let squares: Vec<f64> = plain.values().map(|value| value.norm_sqr()).collect();
        let variance =
            vector.variance.iter().enumerate().map(|(i, v)| v.times(squares[i % squares.len()])).collect();
        let error = self.plain_error(plain, plain_scale);
        let slots =
            Some(vector.exact().iter().map(|slot| SlotVariance::plain(slot.norm_sqr() * error)).collect());
        let (values, turn) = plain_name(plain, plain_scale);
        let name = Name::linear("times", [vector.name], values).turned(turn);
        Ok(self.noisier(carried(name, exact, noisy, variance), &Added { slots, ..Added::default() }))
    }

    fn mul_sum_aligned(&self, pairs: &[(&NoiseVector, &NoiseVector)]) -> Result<NoiseVector> {
        let exact: Vec<_> = pairs.iter().map(|(a, b)| (&a.exact, &b.exact)).collect();
        let noisy: Vec<_> = pairs.iter().map(|(a, b)| (&a.noisy, &b.noisy)).collect();
        let (exact, noisy) = (self.clear.mul_sum_aligned(&exact)?, self.shadow.mul_sum_aligned(&noisy)?);
        let name = Name::product(pairs.iter().map(|(left, right)| (left.name, right.name)));
        let vector = carried(name, exact, noisy, Self::product_variance(pairs));
        let (level, scale) = (self.level(&vector), self.scale(&vector));
        let key = self.model.key_product(KeyPurpose::Relinearise, level, scale)?;
        Ok(self.noisier(vector, &self.rounding(scale).and(key)))
    }

    fn rescale(&self, vector: &NoiseVector) -> Result<NoiseVector> {
        let (exact, noisy) = (self.clear.rescale(&vector.exact)?, self.shadow.rescale(&vector.noisy)?);
        let name = Name::linear("rescale", [vector.name], ());
        let result = carried(name, exact, noisy, vector.variance.to_vec());
        let added = self.rounding(self.scale(&result));
        Ok(self.noisier(result, &added))
    }

    fn drop_to(&self, vector: &NoiseVector, level: usize) -> Result<NoiseVector> {
        let exact = self.clear.drop_to(&vector.exact, level)?;
        let noisy = self.shadow.drop_to(&vector.noisy, level)?;
        let name = Name::linear("level", [vector.name], level);
        Ok(NoiseVector { exact, noisy, variance: vector.variance.clone(), name, error: vector.error })
    }

    fn with_scale(&self, vector: &NoiseVector, scale: Scale) -> Result<NoiseVector> {
        let factor = (self.scale(vector) / scale).to_f64();
        let exact = self.clear.with_scale(&vector.exact, scale)?;
        let noisy = self.shadow.with_scale(&vector.noisy, scale)?;
        if factor == 1.0 {
            return Ok(NoiseVector { exact, noisy, ..vector.clone() });
        }
        let name = Name::linear("scale", [vector.name], scale_bits(scale));
        Ok(carried(name, exact, noisy, vector.variance.iter().map(|v| v.times(factor * factor)).collect()))
    }

    fn rotate_many(&self, vector: &NoiseVector, steps: &[i64]) -> Result<Vec<NoiseVector>> {
        let exact = self.clear.rotate_many(&vector.exact, steps)?;
        let noisy = self.shadow.rotate_many(&vector.noisy, steps)?;
        let (level, scale) = (self.level(vector), self.scale(vector));
        let one = |((exact, noisy), &steps): ((ClearVector, ClearVector), &i64)| {
            let element = GaloisElement::rotation(self.model.params(), steps);
            let name = Name::linear("automorphism", [vector.name], element.element());
            let result = carried(name, exact, noisy, rotated(&vector.variance, steps));
            Ok(self.noisier(result, &self.galois(element, level, scale)?))
        };
        exact.into_iter().zip(noisy).zip(steps).map(one).collect()
    }

    fn rotate_add(&self, vector: &NoiseVector, steps: &[i64]) -> Result<NoiseVector> {
        let exact = self.clear.rotate_add(&vector.exact, steps)?;
        let noisy = self.shadow.rotate_add(&vector.noisy, steps)?;
        let (level, scale) = (self.level(vector), self.scale(vector));
        let mut variance = vector.variance.to_vec();
        let (mut added, mut specials) = (Added::default(), BTreeSet::new());
        for &steps in steps {
            variance
                .iter_mut()
                .zip(rotated(&vector.variance, steps))
                .for_each(|(sum, v)| *sum = sum.plus_apart(v));
            let element = GaloisElement::rotation(self.model.params(), steps);
            if !element.is_identity() {
                added = added.and(self.model.key_product(KeyPurpose::Galois(element), level, scale)?);
                specials.insert(self.special(element, level)?);
            }
        }
        let rounding = self.model.rounding(scale).times(specials.len() as f64);
        added = Added { secret: rounding.spread, ..added.and(rounding) };
        let name = Name::linear("rotated sum", [vector.name], steps);
        Ok(self.noisier(carried(name, exact, noisy, variance), &added))
    }

    fn conjugate(&self, vector: &NoiseVector) -> Result<NoiseVector> {
        let (exact, noisy) = (self.clear.conjugate(&vector.exact)?, self.shadow.conjugate(&vector.noisy)?);
        let element = GaloisElement::conjugation(self.model.params());
        let added = self.galois(element, self.level(vector), self.scale(vector))?;
        let name = Name::linear("automorphism", [vector.name], element.element()).conjugated();
        Ok(self.noisier(carried(name, exact, noisy, vector.variance.to_vec()), &added))
    }

    fn twice_real(&self, vector: &NoiseVector) -> Result<NoiseVector> {
        let conjugate = self.conjugate(vector)?;
        let mut sum = self.add_aligned(vector, &conjugate)?;
        // The error that both have is doubled in its real part; that of the conjugation is left
        // over.
        let sums = Arc::make_mut(&mut sum.variance).iter_mut().zip(vector.variance.iter());
        for ((sum, own), conjugate) in sums.zip(conjugate.variance.iter()) {
            let added = SlotVariance {
                mean: conjugate.mean - own.mean,
                spread: (conjugate.spread - own.spread).max(0.0),
            };
            *sum = own.twice_real().plus(added);
        }
        Ok(sum)
    }

    fn mul_i(&self, vector: &NoiseVector) -> Result<NoiseVector> {
        let (exact, noisy) = (self.clear.mul_i(&vector.exact)?, self.shadow.mul_i(&vector.noisy)?);
        Ok(vector.turned(1, exact, noisy))
    }

    fn linear_transform_at(
        &self,
        inputs: &[&NoiseVector],
        transform: &LinearTransform,
        plain_scale: Scale,
    ) -> Result<Vec<NoiseVector>> {
        self.transform(inputs, transform, plain_scale, false)
    }

    fn linear_transform_rescale(
        &self,
        inputs: &[&NoiseVector],
        transform: &LinearTransform,
        plain_scale: Scale,
    ) -> Result<Vec<NoiseVector>> {
        self.transform(inputs, transform, plain_scale, true)
    }

    fn combine(&self, sum: &Combination<'_, NoiseVector>) -> Result<NoiseVector> {
        let exact = self.clear.combine(&sum.each(|vector| &vector.exact))?;
        let noisy = self.shadow.combine(&sum.each(|vector| &vector.noisy))?;
        let level = self.clear.level(&exact) + 1;
        // What the products are counted with: their scale read as that of the sum, times the
        // integer weight.
        let counted = sum.pairs.first().map_or(1.0, |(left, right)| {
            (self.scale(left) * self.scale(right) / sum.scale).to_f64() * f64::from(sum.weight)
        });
        let mut variance: Vec<SlotVariance> = if sum.pairs.is_empty() {
            vec![SlotVariance::default(); self.slots()]
        } else {
            Self::product_variance(&sum.pairs).iter().map(|v| v.times(counted * counted)).collect()
        };
        let mut own = vec![SlotVariance::default(); self.slots()];
        for (vector, plain) in &sum.terms {
            let squares: Vec<f64> = plain.values().map(|value| value.norm_sqr()).collect();
            let error = self.plain_error(plain, sum.scale / self.scale(vector));
            for (slot, variance) in variance.iter_mut().enumerate() {
                *variance = variance.plus(vector.variance[slot].times(squares[slot % squares.len()]));
                own[slot] = own[slot].plus(SlotVariance::plain(vector.exact()[slot].norm_sqr() * error));
            }
        }
        let mut added = self.rounding(self.clear.scale(&exact));
        added.slots = Some(own);
        if let Some(constant) = &sum.constant {
            added = added.and(SlotVariance::plain(self.plain_error(constant, sum.scale)));
        }
        if !sum.pairs.is_empty() {
            added = added.and(self.model.key_product(KeyPurpose::Relinearise, level, sum.scale)?);
        }
        let pairs = sum.pairs.iter().flat_map(|(left, right)| [left.name, right.name]);
        let plains: Vec<_> = sum.terms.iter().map(|(_, plain)| plain).chain(&sum.constant).collect();
        let plains: Vec<_> = plains.into_iter().map(|plain| plain_name(plain, sum.scale)).collect();
        let detail = (sum.pairs.len(), sum.weight, plains, scale_bits(sum.scale));
        let name =
            Name::of("combination", pairs.chain(sum.terms.iter().map(|(vector, _)| vector.name)), detail);
        Ok(self.noisier(carried(name, exact, noisy, variance), &added))
    }

    fn refresh_profile(&self, kind: RefreshKind) -> Option<RefreshProfile> {
        self.clear.refresh_profile(kind)
    }

    fn refresh(&self, vector: &NoiseVector, kind: RefreshKind, target: Option<usize>) -> Result<NoiseVector> {
        let profile = self.refresh_profile(kind).ok_or(Error::NoRefresh { kind })?;
        let exact = self.clear.refresh(&vector.exact, kind, target)?;
        let noisy = self.shadow.refresh(&vector.noisy, kind, target)?;
        // What is left of a refresh are roundings, which are multiplied by the secret.
        let all = SlotVariance::multiplied(profile.error * profile.error);
        let added = Added { all, secret: all.spread, slots: None };
        let name = Name::of("refresh", [vector.name], (kind, target));
        Ok(self.noisier(carried(name, exact, noisy, vector.variance.to_vec()), &added))
    }
}
