//! The clear machine: what a circuit computes and what it costs, without encryption.

use super::{
    Chain, KeyUse, Machine, OpKind, OpLog, Plain, RefreshKind, RefreshProfile, Scale, SlotError, SlotResult,
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
    /// As [`Machine::trivial_at`].
    pub fn input(&self, values: impl Into<Plain>, level: usize) -> SlotResult<ClearVector> {
        self.place(&values.into(), level, self.chain.scale(level))
    }

    fn place(&self, plain: &Plain, level: usize, scale: Scale) -> SlotResult<ClearVector> {
        if level > self.chain.top() {
            return Err(SlotError::LevelRaise { have: self.chain.top(), want: level });
        }
        self.check_plain("input", plain, scale)?;
        let slots =
            (!self.dry).then(|| Arc::new((0..self.chain.slots()).map(|index| plain.value(index)).collect()));
        self.checked("input", ClearVector { level, scale, slots })
    }

    fn check_plain(&self, operation: &'static str, plain: &Plain, scale: Scale) -> SlotResult<()> {
        let (have, slots) = (plain.period(), self.chain.slots());
        if have == 0 || !slots.is_multiple_of(have) {
            return Err(SlotError::Period { have, slots });
        }
        if !scale.is_usable() || scale.log2() < 0.0 {
            return Err(SlotError::ScaleTooSmall { operation, log2_scale: scale.log2() });
        }
        Ok(())
    }

    /// Refuses values that the modulus of their level cannot hold.
    fn checked(&self, operation: &'static str, vector: ClearVector) -> SlotResult<ClearVector> {
        let capacity = self.chain.capacity(vector.level, vector.scale);
        if let Some(slots) = vector.slots() {
            let value = slots.iter().fold(0.0, |max: f64, slot| max.max(slot.norm_sqr()));
            if !value.is_finite() || slots.iter().any(|slot| slot.is_nan()) {
                return Err(SlotError::NotFinite { operation });
            }
            if value.sqrt() > capacity {
                return Err(SlotError::Overflow {
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
    ) -> SlotResult<ClearVector> {
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

impl Machine for Clear {
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

    fn trivial_at(&self, plain: &Plain, level: usize, scale: Scale) -> SlotResult<ClearVector> {
        self.log.record(OpKind::Encode, level, 1);
        self.place(plain, level, scale)
    }

    fn add_aligned(&self, left: &ClearVector, right: &ClearVector) -> SlotResult<ClearVector> {
        self.add_with(left, right, |a, b| a + b)
    }

    fn sub_aligned(&self, left: &ClearVector, right: &ClearVector) -> SlotResult<ClearVector> {
        self.add_with(left, right, |a, b| a - b)
    }

    fn neg(&self, vector: &ClearVector) -> SlotResult<ClearVector> {
        self.log.record(OpKind::Add, vector.level, 1);
        Ok(map(vector, |_, slot| -slot))
    }

    fn add_plain(&self, vector: &ClearVector, plain: &Plain) -> SlotResult<ClearVector> {
        self.check_plain("add_plain", plain, vector.scale)?;
        self.log.record(OpKind::AddPlain, vector.level, 1);
        self.checked("add_plain", map(vector, |i, slot| slot + plain.value(i)))
    }

    fn mul_plain_at(
        &self,
        vector: &ClearVector,
        plain: &Plain,
        plain_scale: Scale,
    ) -> SlotResult<ClearVector> {
        self.check_plain("mul_plain", plain, plain_scale)?;
        let kind = if plain.as_constant().is_some() { OpKind::MulConst } else { OpKind::MulPlain };
        self.log.record(kind, vector.level, 1);
        let product = map(vector, |i, slot| slot * plain.value(i));
        self.checked("mul_plain", ClearVector { scale: vector.scale * plain_scale, ..product })
    }

    fn mul_sum_aligned(&self, pairs: &[(&ClearVector, &ClearVector)]) -> SlotResult<ClearVector> {
        let &(left, right) =
            pairs.first().ok_or(SlotError::OperandCount { operation: "mul", have: 0, need: 1 })?;
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

    fn rescale(&self, vector: &ClearVector) -> SlotResult<ClearVector> {
        let have = vector.level;
        require_rescale(&self.chain, have, vector.scale)?;
        self.log.record(OpKind::Rescale, have, 1);
        let scale = vector.scale / self.chain.modulus(have);
        self.checked("rescale", ClearVector { level: have - 1, scale, slots: vector.slots.clone() })
    }

    fn drop_to(&self, vector: &ClearVector, level: usize) -> SlotResult<ClearVector> {
        if level > vector.level {
            return Err(SlotError::LevelRaise { have: vector.level, want: level });
        }
        self.checked("drop_to", ClearVector { level, ..vector.clone() })
    }

    fn with_scale(&self, vector: &ClearVector, scale: Scale) -> SlotResult<ClearVector> {
        if !scale.is_usable() {
            return Err(SlotError::ScaleTooSmall { operation: "with_scale", log2_scale: scale.log2() });
        }
        let factor = (vector.scale / scale).to_f64();
        Ok(ClearVector { scale, ..map(vector, |_, slot| slot * factor) })
    }

    fn rotate_many(&self, vector: &ClearVector, steps: &[i64]) -> SlotResult<Vec<ClearVector>> {
        record_rotations(&self.log, vector.level, self.slots(), steps, Duration::ZERO);
        let rotate = |&steps: &i64| {
            let slots = vector.slots().map(|slots| Arc::new(rotated(slots, steps)));
            ClearVector { slots, ..vector.clone() }
        };
        Ok(steps.iter().map(rotate).collect())
    }

    fn rotate_add(&self, vector: &ClearVector, steps: &[i64]) -> SlotResult<ClearVector> {
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

    fn conjugate(&self, vector: &ClearVector) -> SlotResult<ClearVector> {
        self.log.record(OpKind::Conjugate, vector.level, 1);
        self.log.record_key(KeyUse::Conjugate, vector.level);
        Ok(map(vector, |_, slot| slot.conj()))
    }

    fn mul_i(&self, vector: &ClearVector) -> SlotResult<ClearVector> {
        self.log.record(OpKind::MulConst, vector.level, 1);
        Ok(map(vector, |_, slot| slot * Complex64::I))
    }

    fn linear_transform_at(
        &self,
        inputs: &[&ClearVector],
        transform: &LinearTransform,
        plain_scale: Scale,
    ) -> SlotResult<Vec<ClearVector>> {
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

    fn refresh(
        &self,
        vector: &ClearVector,
        kind: RefreshKind,
        target: Option<usize>,
    ) -> SlotResult<ClearVector> {
        let profile = self.refresh_profile(kind).ok_or(SlotError::NoRefresh { kind })?;
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
pub(super) fn check_refresh(
    profile: &RefreshProfile,
    level: usize,
    target: Option<usize>,
) -> SlotResult<usize> {
    if level < profile.input_level {
        return Err(SlotError::LevelExhausted {
            operation: "refresh",
            have: level,
            need: profile.input_level,
        });
    }
    let want = target.unwrap_or(profile.output_level);
    if want > profile.output_level {
        return Err(SlotError::RefreshTarget { reaches: profile.output_level, want });
    }
    Ok(want)
}

/// Refuses slots that break what the kind of refresh assumes: in range, real, repeating.
pub(super) fn check_shape(profile: &RefreshProfile, slots: &[Complex64]) -> SlotResult<()> {
    // Real and imaginary parts are refreshed apart. What errors of operands add does not count.
    const TOLERANCE: f64 = 1e-3;
    if slots.iter().any(|slot| slot.is_nan()) {
        return Err(SlotError::NotFinite { operation: "refresh" });
    }
    let value = slots.iter().map(|slot| slot.re.abs().max(slot.im.abs())).fold(0.0, f64::max);
    if value > (1.0 + TOLERANCE) * profile.range {
        return Err(SlotError::RefreshRange { value, limit: profile.range });
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
        return Err(SlotError::SlotShape { operation: "refresh", deviation });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Clear {
        let groups = [
            vec![(1u64 << 49) - 123],
            vec![(1 << 40) + 1],
            vec![(1 << 40) - 87],
            vec![1 << 20, (1 << 20) + 7],
        ];
        let chain = Chain::new(8, &groups, Scale::from_log2(40)).unwrap();
        let profile = RefreshProfile {
            kind: RefreshKind::Full,
            input_level: 0,
            output_level: 3,
            range: 4.0,
            error: 1e-6,
        };
        Clear::new(chain).with_refresh(profile)
    }

    #[test]
    fn operands_meet_at_one_level_and_scale() {
        let m = machine();
        let high = m.input(vec![0.5, -1.5], 3).unwrap();
        let low = m.input(2.0, 1).unwrap();
        let sum = m.add(&high, &low).unwrap();
        assert_eq!((m.level(&sum), m.is_canonical(&sum)), (1, true));
        assert_eq!(sum.slots().unwrap()[1].re, 0.5);
        let product = m.mul(&high, &low).unwrap();
        assert_eq!((m.level(&product), m.is_canonical(&product)), (0, true));
        assert_eq!(product.real()[..2], [1.0, -3.0]);
    }

    #[test]
    fn lazy_products_add_before_one_rescale() {
        let m = machine();
        let x = m.input(3.0, 3).unwrap();
        let square = m.mul_lazy(&x, &x).unwrap();
        let twice = m.mul_plain_lazy(&x, &Plain::from(2.0)).unwrap();
        assert!(m.is_product(&square) && m.is_product(&twice));
        let sum = m.add(&m.add(&square, &twice).unwrap(), &x).unwrap();
        let sum = m.settle(&sum).unwrap();
        assert_eq!((m.level(&sum), m.is_canonical(&sum), sum.real()[7]), (2, true, 18.0));
        assert_eq!(m.log().total(OpKind::Rescale).count, 1);
    }

    #[test]
    fn levels_run_out_and_come_back() {
        let m = machine();
        let x = m.input(1.25, 1).unwrap();
        let bottom = m.square(&x).unwrap();
        assert!(matches!(m.square(&bottom), Err(SlotError::LevelExhausted { have: 0, need: 1, .. })));
        assert!(matches!(m.to_level(&bottom, 2), Err(SlotError::LevelRaise { have: 0, want: 3 })));
        let fresh = m.refresh(&bottom, RefreshKind::Full, Some(2)).unwrap();
        assert_eq!((m.level(&fresh), m.is_canonical(&fresh), fresh.real()[0]), (2, true, 1.5625));
        assert!(matches!(m.refresh(&bottom, RefreshKind::Real, None), Err(SlotError::NoRefresh { .. })));
        let large = m.add_const(&bottom, 9.0.into()).unwrap();
        assert!(matches!(m.refresh(&large, RefreshKind::Full, None), Err(SlotError::RefreshRange { .. })));
    }

    #[test]
    fn a_pair_is_refreshed_in_one_go() {
        let m = machine();
        let (a, b) = (m.input(vec![0.5, -0.25], 1).unwrap(), m.input(vec![1.0, 2.0, 3.0, -1.0], 2).unwrap());
        let (a, b) = m.refresh_pair(&a, &b, None).unwrap();
        assert_eq!(a.real()[..2], [0.5, -0.25]);
        assert_eq!(b.real()[..4], [1.0, 2.0, 3.0, -1.0]);
        assert_eq!((m.level(&a), m.level(&b)), (3, 3));
        assert_eq!(m.log().total(OpKind::Refresh).count, 1);
    }

    #[test]
    fn values_that_do_not_fit_are_refused() {
        let m = machine();
        assert!(matches!(m.input(1e6, 0), Err(SlotError::Overflow { level: 0, .. })));
        assert!(matches!(m.input(f64::NAN, 2), Err(SlotError::NotFinite { .. })));
        assert!(matches!(m.input(vec![1.0; 3], 2), Err(SlotError::Period { have: 3, slots: 8 })));
        assert!(m.input(1.0, 4).is_err());
        let x = m.input(1.0, 2).unwrap();
        assert!(matches!(
            m.mul_plain_at(&x, &Plain::from(1.0), Scale::new(0.25)),
            Err(SlotError::ScaleTooSmall { .. })
        ));
        let y = m.drop_to(&x, 1).unwrap();
        assert!(matches!(m.add_aligned(&x, &y), Err(SlotError::LevelMismatch { left: 2, right: 1 })));
    }

    #[test]
    fn a_dry_run_knows_depth_and_keys() {
        let m = Clear::dry(Chain::uniform(1 << 15, 5, 40, 50).unwrap());
        let x = m.input(1.0, 5).unwrap();
        let y = m.rotate_sum(&m.square(&x).unwrap(), 4, 8).unwrap();
        assert_eq!(m.level(&y), 4);
        assert!(y.slots().is_none());
        let keys: Vec<_> = m.log().keys().into_keys().collect();
        assert_eq!(keys, [KeyUse::Relin, KeyUse::Rotate(4), KeyUse::Rotate(8), KeyUse::Rotate(16)]);
    }
}
