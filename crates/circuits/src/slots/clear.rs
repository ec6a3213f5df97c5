//! The clear machine: what a circuit computes and what it costs, without encryption.

use super::{
    Chain, Error, KeyUse, OpKind, OpLog, Plain, Primitives, RefreshKind, RefreshProfile, Result, Scale,
    align::{require_level, require_rescale, require_scale},
};
use crate::linear::LinearTransform;
use num_complex::Complex64;
use std::sync::Arc;
use std::time::Duration;

/// Slots in double precision, with the levels and scales that ciphertexts would have.
///
/// A *dry* machine carries no slots at all: it only keeps the accounts, so that a circuit's depth,
/// operations and keys are known within microseconds per operation.
#[derive(Debug)]
pub struct Clear {
    chain: Arc<Chain>,
    log: Arc<OpLog>,
    refreshes: Vec<RefreshProfile>,
    dry: bool,
}

/// A vector of a [`Clear`] machine.
#[derive(Clone, Debug)]
pub struct ClearVector {
    level: usize,
    scale: Scale,
    slots: Option<Arc<Vec<Complex64>>>,
}

impl ClearVector {
    /// The slots; `None` on a dry machine.
    pub fn slots(&self) -> Option<&[Complex64]> {
        self.slots.as_ref().map(|slots| slots.as_slice())
    }

    /// The real parts of the slots, empty on a dry machine.
    pub fn real(&self) -> Vec<f64> {
        self.slots().unwrap_or_default().iter().map(|slot| slot.re).collect()
    }

    /// Replaces every slot.
    pub(super) fn map_in_place(&mut self, mut f: impl FnMut(usize, Complex64) -> Complex64) {
        if let Some(slots) = &mut self.slots {
            Arc::make_mut(slots).iter_mut().enumerate().for_each(|(i, slot)| *slot = f(i, *slot));
        }
    }
}

impl Clear {
    /// A machine that computes.
    pub fn new(chain: Chain) -> Self {
        Self { chain: Arc::new(chain), log: Arc::new(OpLog::new()), refreshes: Vec::new(), dry: false }
    }

    /// A machine that only keeps accounts.
    pub fn dry(chain: Chain) -> Self {
        Self { dry: true, ..Self::new(chain) }
    }

    /// The same machine with one more kind of refresh (replacing the profile of that kind).
    #[must_use]
    pub fn with_refresh(mut self, profile: RefreshProfile) -> Self {
        self.refreshes.retain(|known| known.kind != profile.kind);
        self.refreshes.push(profile);
        self
    }

    /// A vector of slots at the canonical scale of `level`, as encrypting it would give. Fewer
    /// values than slots repeat.
    ///
    /// # Errors
    /// As [`Primitives::trivial_at`].
    pub fn input(&self, values: impl Into<Plain>, level: usize) -> Result<ClearVector> {
        self.place(&values.into(), level, self.chain.scale(level))
    }

    fn place(&self, plain: &Plain, level: usize, scale: Scale) -> Result<ClearVector> {
        if level > self.chain.top() {
            return Err(Error::LevelRaise { have: self.chain.top(), want: level });
        }
        self.check_plain("input", plain, scale)?;
        let slots =
            (!self.dry).then(|| Arc::new((0..self.chain.slots()).map(|index| plain.value(index)).collect()));
        self.checked("input", ClearVector { level, scale, slots })
    }

    fn check_plain(&self, operation: &'static str, plain: &Plain, scale: Scale) -> Result<()> {
        let (have, slots) = (plain.period(), self.chain.slots());
        if have == 0 || !slots.is_multiple_of(have) {
            return Err(Error::Period { have, slots });
        }
        if !scale.is_usable() || scale.log2() < 0.0 {
            return Err(Error::ScaleTooSmall { operation, log2_scale: scale.log2() });
        }
        Ok(())
    }

    /// Refuses values that the modulus of their level cannot hold.
    fn checked(&self, operation: &'static str, vector: ClearVector) -> Result<ClearVector> {
        let capacity = self.chain.capacity(vector.level, vector.scale);
        if let Some(slots) = vector.slots() {
            let value = slots.iter().fold(0.0, |max: f64, slot| max.max(slot.norm_sqr()));
            if !value.is_finite() || slots.iter().any(|slot| slot.is_nan()) {
                return Err(Error::NotFinite { operation });
            }
            if value.sqrt() > capacity {
                return Err(Error::Overflow {
                    operation,
                    value: value.sqrt(),
                    capacity,
                    level: vector.level,
                });
            }
        }
        Ok(vector)
    }

    fn zip(
        left: &ClearVector,
        right: &ClearVector,
        f: impl Fn(Complex64, Complex64) -> Complex64,
    ) -> Option<Arc<Vec<Complex64>>> {
        let (left, right) = (left.slots()?, right.slots()?);
        Some(Arc::new(left.iter().zip(right).map(|(&a, &b)| f(a, b)).collect()))
    }

    fn add_with(
        &self,
        left: &ClearVector,
        right: &ClearVector,
        f: impl Fn(Complex64, Complex64) -> Complex64,
    ) -> Result<ClearVector> {
        require_level(left.level, right.level)?;
        require_scale(left.scale, right.scale)?;
        self.log.record(OpKind::Add, left.level, 1);
        self.checked("add", ClearVector { slots: Self::zip(left, right, f), ..left.clone() })
    }
}

fn map(vector: &ClearVector, f: impl Fn(usize, Complex64) -> Complex64) -> ClearVector {
    let slots =
        vector.slots().map(|slots| Arc::new(slots.iter().enumerate().map(|(i, &slot)| f(i, slot)).collect()));
    ClearVector { slots, ..vector.clone() }
}

fn rotated(slots: &[Complex64], steps: i64) -> Vec<Complex64> {
    let shift = steps.rem_euclid(slots.len() as i64) as usize;
    [&slots[shift..], &slots[..shift]].concat()
}

impl Primitives for Clear {
    type Vector = ClearVector;

    fn chain(&self) -> &Chain {
        &self.chain
    }

    fn log(&self) -> &OpLog {
        &self.log
    }

    fn level(&self, vector: &ClearVector) -> usize {
        vector.level
    }

    fn scale(&self, vector: &ClearVector) -> Scale {
        vector.scale
    }

    fn trivial_at(&self, plain: &Plain, level: usize, scale: Scale) -> Result<ClearVector> {
        self.log.record(OpKind::Encode, level, 1);
        self.place(plain, level, scale)
    }

    fn add_aligned(&self, left: &ClearVector, right: &ClearVector) -> Result<ClearVector> {
        self.add_with(left, right, |a, b| a + b)
    }

    fn sub_aligned(&self, left: &ClearVector, right: &ClearVector) -> Result<ClearVector> {
        self.add_with(left, right, |a, b| a - b)
    }

    fn neg(&self, vector: &ClearVector) -> Result<ClearVector> {
        self.log.record(OpKind::Add, vector.level, 1);
        Ok(map(vector, |_, slot| -slot))
    }

    fn add_plain(&self, vector: &ClearVector, plain: &Plain) -> Result<ClearVector> {
        self.check_plain("add_plain", plain, vector.scale)?;
        self.log.record(OpKind::AddPlain, vector.level, 1);
        self.checked("add_plain", map(vector, |i, slot| slot + plain.value(i)))
    }

    fn mul_plain_at(&self, vector: &ClearVector, plain: &Plain, plain_scale: Scale) -> Result<ClearVector> {
        self.check_plain("mul_plain", plain, plain_scale)?;
        let kind = if plain.as_constant().is_some() { OpKind::MulConst } else { OpKind::MulPlain };
        self.log.record(kind, vector.level, 1);
        let product = map(vector, |i, slot| slot * plain.value(i));
        self.checked("mul_plain", ClearVector { scale: vector.scale * plain_scale, ..product })
    }

    fn mul_sum_aligned(&self, pairs: &[(&ClearVector, &ClearVector)]) -> Result<ClearVector> {
        let &(left, right) =
            pairs.first().ok_or(Error::OperandCount { operation: "mul", have: 0, need: 1 })?;
        let (level, scale) = (left.level, left.scale * right.scale);
        let mut sum: Option<Vec<Complex64>> = None;
        for (left, right) in pairs {
            require_level(level, left.level)?;
            require_level(level, right.level)?;
            require_scale(scale, left.scale * right.scale)?;
            let Some((left, right)) = left.slots().zip(right.slots()) else { continue };
            let sum = sum.get_or_insert_with(|| vec![Complex64::ZERO; left.len()]);
            for (sum, (a, b)) in sum.iter_mut().zip(left.iter().zip(right)) {
                *sum += a * b;
            }
        }
        self.log.record(OpKind::Mul, level, pairs.len());
        self.log.record(OpKind::Relin, level, 1);
        self.log.record_key(KeyUse::Relin, level);
        self.checked("mul", ClearVector { level, scale, slots: sum.map(Arc::new) })
    }

    fn rescale(&self, vector: &ClearVector) -> Result<ClearVector> {
        let have = vector.level;
        require_rescale(&self.chain, have, vector.scale)?;
        self.log.record(OpKind::Rescale, have, 1);
        let scale = vector.scale / self.chain.modulus(have);
        self.checked("rescale", ClearVector { level: have - 1, scale, slots: vector.slots.clone() })
    }

    fn drop_to(&self, vector: &ClearVector, level: usize) -> Result<ClearVector> {
        if level > vector.level {
            return Err(Error::LevelRaise { have: vector.level, want: level });
        }
        self.checked("drop_to", ClearVector { level, ..vector.clone() })
    }

    fn with_scale(&self, vector: &ClearVector, scale: Scale) -> Result<ClearVector> {
        if !scale.is_usable() {
            return Err(Error::ScaleTooSmall { operation: "with_scale", log2_scale: scale.log2() });
        }
        let factor = (vector.scale / scale).to_f64();
        Ok(ClearVector { scale, ..map(vector, |_, slot| slot * factor) })
    }

    fn rotate_many(&self, vector: &ClearVector, steps: &[i64]) -> Result<Vec<ClearVector>> {
        record_rotations(&self.log, vector.level, self.slots(), steps, Duration::ZERO);
        let rotate = |&steps: &i64| {
            let slots = vector.slots().map(|slots| Arc::new(rotated(slots, steps)));
            ClearVector { slots, ..vector.clone() }
        };
        Ok(steps.iter().map(rotate).collect())
    }

    fn rotate_add(&self, vector: &ClearVector, steps: &[i64]) -> Result<ClearVector> {
        record_rotate_add(&self.log, vector.level, self.slots(), steps, Duration::ZERO);
        let shifts: Vec<usize> =
            steps.iter().map(|steps| steps.rem_euclid(self.slots() as i64) as usize).collect();
        let sum = vector.slots().map(|slots| {
            let rotated = |i: usize| {
                shifts.iter().map(|shift| slots[(i + shift) & (slots.len() - 1)]).sum::<Complex64>()
            };
            Arc::new(slots.iter().enumerate().map(|(i, slot)| slot + rotated(i)).collect())
        });
        self.checked("rotate_add", ClearVector { slots: sum, ..vector.clone() })
    }

    fn conjugate(&self, vector: &ClearVector) -> Result<ClearVector> {
        self.log.record(OpKind::Conjugate, vector.level, 1);
        self.log.record_key(KeyUse::Conjugate, vector.level);
        Ok(map(vector, |_, slot| slot.conj()))
    }

    fn mul_i(&self, vector: &ClearVector) -> Result<ClearVector> {
        self.log.record(OpKind::MulConst, vector.level, 1);
        Ok(map(vector, |_, slot| slot * Complex64::I))
    }

    fn linear_transform_at(
        &self,
        inputs: &[&ClearVector],
        transform: &LinearTransform,
        plain_scale: Scale,
    ) -> Result<Vec<ClearVector>> {
        transform.check(self.slots(), inputs.len())?;
        let Some(first) = inputs.first() else { return Ok(Vec::new()) };
        for input in inputs {
            require_level(first.level, input.level)?;
            require_scale(first.scale, input.scale)?;
        }
        transform.record(&self.log, first.level);
        let scale = first.scale * plain_scale;
        let mut sums = vec![(!self.dry).then(|| vec![Complex64::ZERO; self.slots()]); transform.outputs()];
        for (output, input, shift, plain) in transform.diagonals() {
            let (Some(sum), Some(slots)) = (sums[output].as_mut(), inputs[input].slots()) else { continue };
            let shift = shift.rem_euclid(slots.len() as i64) as usize;
            for (i, sum) in sum.iter_mut().enumerate() {
                *sum += plain.value(i) * slots[(i + shift) & (slots.len() - 1)];
            }
        }
        let finish = |slots: Option<Vec<Complex64>>| {
            self.checked(
                "linear_transform",
                ClearVector { level: first.level, scale, slots: slots.map(Arc::new) },
            )
        };
        sums.into_iter().map(finish).collect()
    }

    fn refresh_profile(&self, kind: RefreshKind) -> Option<RefreshProfile> {
        self.refreshes.iter().find(|profile| profile.kind == kind).copied()
    }

    fn refresh(&self, vector: &ClearVector, kind: RefreshKind, target: Option<usize>) -> Result<ClearVector> {
        let profile = self.refresh_profile(kind).ok_or(Error::NoRefresh { kind })?;
        let level = check_refresh(&profile, vector.level, target)?;
        if let Some(slots) = vector.slots() {
            check_shape(&profile, slots)?;
        }
        self.log.record(OpKind::Refresh, level, 1);
        self.checked(
            "refresh",
            ClearVector { level, scale: self.chain.scale(level), slots: vector.slots.clone() },
        )
    }
}

/// Records the primitives and keys of hoisted rotations of one vector.
pub(super) fn record_rotations(log: &OpLog, level: usize, slots: usize, steps: &[i64], time: Duration) {
    let reduced =
        steps.iter().map(|steps| steps.rem_euclid(slots as i64) as usize).filter(|&steps| steps != 0);
    let mut count = 0;
    for steps in reduced {
        log.record_key(KeyUse::Rotate(steps), level);
        count += 1;
    }
    if count == 1 {
        log.record_timed(OpKind::Rotate, level, 1, time);
    } else if count > 1 {
        log.record(OpKind::ModUp, level, 1);
        log.record_timed(OpKind::KeyProduct, level, count, time);
        log.record(OpKind::ModDown, level, count);
    }
}

/// Records the primitives and keys of a hoisted sum of rotations.
pub(super) fn record_rotate_add(log: &OpLog, level: usize, slots: usize, steps: &[i64], time: Duration) {
    let reduced = steps.iter().map(|steps| steps.rem_euclid(slots as i64) as usize);
    let rotations: Vec<usize> = reduced.filter(|&steps| steps != 0).collect();
    if rotations.is_empty() {
        return log.record_timed(OpKind::Add, level, steps.len(), time);
    }
    for &steps in &rotations {
        log.record_key(KeyUse::Rotate(steps), level);
    }
    log.record(OpKind::ModUp, level, 1);
    log.record_timed(OpKind::KeyProduct, level, rotations.len(), time);
    log.record(OpKind::ModDown, level, 1);
}

/// The level that a refresh of an input at `level` gives.
pub(super) fn check_refresh(profile: &RefreshProfile, level: usize, target: Option<usize>) -> Result<usize> {
    if level < profile.input_level {
        return Err(Error::LevelExhausted { operation: "refresh", have: level, need: profile.input_level });
    }
    let want = target.unwrap_or(profile.output_level);
    if want > profile.output_level {
        return Err(Error::RefreshTarget { reaches: profile.output_level, want });
    }
    Ok(want)
}

/// Refuses slots that break what the kind of refresh assumes: in range, real, repeating.
pub(super) fn check_shape(profile: &RefreshProfile, slots: &[Complex64]) -> Result<()> {
    // Real and imaginary parts are refreshed apart. What errors of operands add does not count.
    const TOLERANCE: f64 = 1e-3;
    if slots.iter().any(|slot| slot.is_nan()) {
        return Err(Error::NotFinite { operation: "refresh" });
    }
    let value = slots.iter().map(|slot| slot.re.abs().max(slot.im.abs())).fold(0.0, f64::max);
    if value > (1.0 + TOLERANCE) * profile.range {
        return Err(Error::RefreshRange { value, limit: profile.range });
    }
    let (real, period) = match profile.kind {
        RefreshKind::Full => (false, slots.len()),
        RefreshKind::Real => (true, slots.len()),
        RefreshKind::Sparse(period) => (false, period),
        RefreshKind::SparseReal(period) => (true, period),
    };
    let imaginary = if real { slots.iter().map(|slot| slot.im.abs()).fold(0.0, f64::max) } else { 0.0 };
    let unequal = slots.iter().skip(period).zip(slots).map(|(a, b)| (a - b).norm()).fold(0.0, f64::max);
    let deviation = imaginary.max(unequal);
    if deviation > TOLERANCE * profile.range {
        return Err(Error::SlotShape { operation: "refresh", deviation });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
