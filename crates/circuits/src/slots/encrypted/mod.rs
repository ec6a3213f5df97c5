//! The encrypted machine: ciphertexts, public keys, and nothing secret.

mod plain_cache;
mod refresher;
mod transform;

pub use refresher::Refresher;

use super::align::{require_level, require_rescale, require_scale};
use super::clear::{check_refresh, record_rotate_add, record_rotations};
use super::{
    Chain, Combination, Error, KeyUse, OpKind, OpLog, Plain, Primitives, RefreshKind, RefreshProfile, Result,
    Scale,
};
use crate::linear::LinearTransform;
use cipherlm_ckks::{
    Ciphertext, Error as Ckks, EvaluationKeys, Evaluator, KeyId, KeyRequest, KeySet, Params, Plaintext,
    hazmat,
};
use cipherlm_ring::Poly;
use num_complex::Complex64;
use plain_cache::PlainCache;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// Slots under encryption, by an [`Evaluator`] and the public keys of their owner. The type cannot
/// hold a secret key.
pub struct Encrypted<K = KeySet> {
    evaluator: Evaluator<K>,
    key_id: KeyId,
    chain: Arc<Chain>,
    log: Arc<OpLog>,
    plains: PlainCache,
    refresher: Option<Arc<dyn Refresher>>,
}

/// A ciphertext of an [`Encrypted`] machine; clones share it.
#[derive(Clone)]
pub struct EncryptedVector(Arc<Ciphertext>);

impl EncryptedVector {
    /// The ciphertext, for its owner to decrypt.
    pub fn ciphertext(&self) -> &Ciphertext {
        &self.0
    }
}

impl fmt::Debug for EncryptedVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedVector")
            .field("level", &self.0.level())
            .field("scale", &self.0.scale())
            .finish()
    }
}

impl Chain {
    /// The chain of a parameter set. Over the longest run of levels of equal size (the circuit's
    /// own levels, where others belong to bootstrapping) canonical scales are those of
    /// [`Params::default_scale`]; from there they continue by the chain's rule in both directions.
    ///
    /// # Errors
    /// [`Error::Chain`] if the parameters have no usable chain.
    pub fn of(params: &Params) -> Result<Self> {
        let top = params.max_level();
        let moduli: Vec<Scale> = (0..=top).map(|level| params.rescale_factor(level)).collect();
        let same = |a: usize, b: usize| (params.group_bits(a) - params.group_bits(b)).abs() < 1.0;
        let run = |from: usize| from + (from..top).take_while(|&l| same(l, l + 1)).count();
        let starts = (1..=top).filter(|&l| l == 1 || !same(l - 1, l));
        let Some(bottom) = starts.max_by_key(|&from| (run(from) - from, from)) else {
            return Self::from_moduli(params.slots(), moduli, params.default_scale(0));
        };
        let mut scales = vec![Scale::ONE; top + 1];
        scales[run(bottom)] = params.default_scale(run(bottom));
        for level in (0..run(bottom)).rev() {
            scales[level] = scales[level + 1].square() / moduli[level + 1];
        }
        for level in run(bottom)..top {
            scales[level + 1] = super::chain::square_root(scales[level] * moduli[level + 1]);
        }
        Self::with_scales(params.slots(), moduli, scales)
    }

    /// The chain of a parameter set with refreshes that take their inputs at level `floor`:
    /// canonical scales start there, from the default scale of the first level above.
    ///
    /// # Errors
    /// As [`Chain::of`] and [`Chain::with_floor`].
    pub fn above(params: &Params, floor: usize) -> Result<Self> {
        Self::of(params)?.with_floor(floor, params.default_scale(floor + 1))
    }
}

impl OpLog {
    /// The keys recorded so far as a request for key generation, each at the highest level of its
    /// use.
    pub fn key_request(&self, params: &Params) -> KeyRequest {
        let mut request = KeyRequest::new();
        for (key, levels) in self.keys() {
            let Some(&level) = levels.last() else { continue };
            match key {
                KeyUse::Relin => request.relin(level),
                KeyUse::Conjugate => request.conjugation(params, level),
                KeyUse::Rotate(steps) => request.rotations(params, [steps as i64], level),
            };
        }
        request
    }
}

impl<K: EvaluationKeys> Encrypted<K> {
    /// A machine for ciphertexts of the secret `key_id`, with its evaluation keys.
    ///
    /// # Errors
    /// As [`Chain::of`].
    pub fn new(params: &Params, key_id: KeyId, keys: K) -> Result<Self> {
        Ok(Self {
            evaluator: Evaluator::new(params, keys),
            key_id,
            chain: Arc::new(Chain::of(params)?),
            log: Arc::new(OpLog::new()),
            plains: PlainCache::new(0),
            refresher: None,
        })
    }

    /// Keeps up to `bytes` of encoded plaintexts for their next use. Worth it when a circuit is run
    /// again and again; without it each plaintext is encoded where it is used.
    #[must_use]
    pub fn with_plain_cache(self, bytes: usize) -> Self {
        Self { plains: PlainCache::new(bytes), ..self }
    }

    /// Adds bootstrapping. Circuits then stay at or above its input level, with the scales of
    /// [`Chain::above`].
    ///
    /// # Errors
    /// As [`Refresher::check`], and as [`Chain::above`] if the parameters have no level above the
    /// refresher's input.
    pub fn with_refresher(self, refresher: Arc<dyn Refresher>) -> Result<Self> {
        refresher.check(self.params())?;
        let chain = Arc::new(Chain::above(self.params(), refresher.floor())?);
        Ok(Self { chain, refresher: Some(refresher), ..self })
    }

    /// Takes in a ciphertext that its owner encrypted.
    ///
    /// # Errors
    /// [`Error::Ciphertext`]: other parameters, or the key of another secret.
    pub fn input(&self, ciphertext: Ciphertext) -> Result<EncryptedVector> {
        hazmat::check_same(self.params(), "input", ciphertext.params())?;
        if ciphertext.key_id() != self.key_id {
            let (left, right) = (self.key_id, ciphertext.key_id());
            return Err(Ckks::KeyMismatch { operation: "input", left, right }.into());
        }
        Ok(wrap(ciphertext))
    }

    /// The parameter set.
    pub fn params(&self) -> &Params {
        self.evaluator.params()
    }

    /// The secret that its vectors are encrypted under.
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The evaluator, for operations below the level of slots.
    pub fn evaluator(&self) -> &Evaluator<K> {
        &self.evaluator
    }

    /// `plain`, rotated to the left by `steps`, encoded at `scale`.
    fn encode(&self, plain: &Plain, steps: i64, scale: Scale, level: usize) -> Result<Arc<Plaintext>> {
        let start = Instant::now();
        let (plaintext, fresh) = self.encode_untimed(plain, steps, scale)?;
        if fresh {
            self.log.record_timed(OpKind::Encode, level, 1, start.elapsed());
        }
        Ok(plaintext)
    }

    /// The same for one of many at a time, and whether it was not at hand.
    fn encode_untimed(&self, plain: &Plain, steps: i64, scale: Scale) -> Result<(Arc<Plaintext>, bool)> {
        let (have, slots) = (plain.period(), self.chain.slots());
        if have == 0 || !slots.is_multiple_of(have) {
            return Err(Error::Period { have, slots });
        }
        let mut fresh = false;
        let plaintext = self.plains.find(plain, steps, scale, || {
            fresh = true;
            let rotated = plain.rotated(steps);
            let values: Vec<Complex64> = rotated.values().collect();
            Ok(Plaintext::encode(self.params(), &values, have, scale)?)
        })?;
        Ok((plaintext, fresh))
    }

    fn timed<T>(
        &self,
        kind: OpKind,
        level: usize,
        count: usize,
        work: impl FnOnce() -> Result<T, Ckks>,
    ) -> Result<T> {
        let start = Instant::now();
        let result = work()?;
        self.log.record_timed(kind, level, count, start.elapsed());
        Ok(result)
    }

    fn times_plain(&self, vector: &Ciphertext, plain: &Plain, scale: Scale) -> Result<Ciphertext> {
        let level = vector.level();
        if let Some(constant) = plain.as_constant() {
            return self.timed(OpKind::MulConst, level, 1, || {
                hazmat::mul_const_rounded(&self.evaluator, vector, constant, scale)
            });
        }
        let plaintext = self.encode(plain, 0, scale, level)?;
        self.timed(OpKind::MulPlain, level, 1, || self.evaluator.mul_plain(vector, &plaintext))
    }

    fn plus_plain(&self, vector: &Ciphertext, plain: &Plain) -> Result<Ciphertext> {
        let plaintext = self.encode(plain, 0, vector.scale(), vector.level())?;
        self.timed(OpKind::AddPlain, vector.level(), 1, || self.evaluator.add_plain(vector, &plaintext))
    }

    /// The sum of products, not yet relinearised.
    fn quadratic(&self, pairs: &[(&EncryptedVector, &EncryptedVector)]) -> Result<Ciphertext> {
        let (&(left, right), rest) =
            pairs.split_first().ok_or(Error::OperandCount { operation: "mul", have: 0, need: 1 })?;
        self.timed(OpKind::Mul, left.0.level(), pairs.len(), || {
            let square = Arc::ptr_eq(&left.0, &right.0);
            let first = if square {
                self.evaluator.square(&left.0)?
            } else {
                self.evaluator.mul(&left.0, &right.0)?
            };
            rest.iter().try_fold(first, |mut sum, (left, right)| {
                self.evaluator.mul_add(&mut sum, &left.0, &right.0)?;
                Ok(sum)
            })
        })
    }

    /// `total + vector * constant`, the constant encoded at `scale`, in one pass over the residues.
    fn plus_multiple(
        &self,
        total: Ciphertext,
        vector: &Ciphertext,
        constant: f64,
        scale: Scale,
    ) -> Result<Ciphertext> {
        require_level(total.level(), vector.level())?;
        require_scale(total.scale(), vector.scale() * scale)?;
        if !constant.is_finite() || scale.log2() < 0.0 || scale.log2() + constant.abs().log2() > 100.0 {
            let log2 = scale.log2() + constant.abs().log2().max(0.0);
            return Err(Ckks::BadScale { operation: "combine", log2, min: 0.0, max: 100.0 }.into());
        }
        let level = total.level();
        let (id, scaled, slots) = (total.key_id(), total.scale(), total.slots().max(vector.slots()));
        let result = self.timed(OpKind::MulConst, level, 1, || {
            let ((high, low), limbs) = (scale.round_times(constant), self.params().limbs(level));
            let integer = high as i128 + low as i128;
            let residue = |limb: usize| Ok(integer.rem_euclid(i128::from(self.params().prime(limb)?)) as u64);
            let residues = limbs.iter().map(residue).collect::<Result<Vec<u64>, Ckks>>()?;
            let mut parts = total.into_parts();
            for (sum, part) in parts.iter_mut().zip(vector.parts()) {
                sum.add_scaled_assign(part, limbs, &residues)?;
            }
            Ciphertext::from_parts(self.params(), id, parts, level, scaled, slots)
        })?;
        self.log.record(OpKind::Add, level, 1);
        Ok(result)
    }

    fn note_relin(&self, level: usize) {
        self.log.record_key(KeyUse::Relin, level);
    }
}

fn wrap(ciphertext: Ciphertext) -> EncryptedVector {
    EncryptedVector(Arc::new(ciphertext))
}

impl<K: EvaluationKeys> Primitives for Encrypted<K> {
    type Vector = EncryptedVector;

    fn chain(&self) -> &Chain {
        &self.chain
    }

    fn log(&self) -> &OpLog {
        &self.log
    }

    fn level(&self, vector: &EncryptedVector) -> usize {
        vector.0.level()
    }

    fn scale(&self, vector: &EncryptedVector) -> Scale {
        vector.0.scale()
    }

    fn trivial_at(&self, plain: &Plain, level: usize, scale: Scale) -> Result<EncryptedVector> {
        if level > self.chain.top() {
            return Err(Error::LevelRaise { have: self.chain.top(), want: level });
        }
        let plaintext = self.encode(plain, 0, scale, level)?;
        let limbs = self.params().limbs(level);
        let zero = || Poly::zero(self.params().ring(), limbs).map_err(Ckks::from);
        let zero = Ciphertext::from_parts(
            self.params(),
            self.key_id,
            vec![zero()?, zero()?],
            level,
            scale,
            self.chain.slots(),
        )?;
        Ok(wrap(self.evaluator.add_plain(&zero, &plaintext)?))
    }

    fn add_aligned(&self, left: &EncryptedVector, right: &EncryptedVector) -> Result<EncryptedVector> {
        require_level(left.0.level(), right.0.level())?;
        self.timed(OpKind::Add, left.0.level(), 1, || self.evaluator.add(&left.0, &right.0)).map(wrap)
    }

    fn sub_aligned(&self, left: &EncryptedVector, right: &EncryptedVector) -> Result<EncryptedVector> {
        require_level(left.0.level(), right.0.level())?;
        self.timed(OpKind::Add, left.0.level(), 1, || self.evaluator.sub(&left.0, &right.0)).map(wrap)
    }

    fn neg(&self, vector: &EncryptedVector) -> Result<EncryptedVector> {
        self.timed(OpKind::Add, vector.0.level(), 1, || self.evaluator.neg(&vector.0)).map(wrap)
    }

    fn add_plain(&self, vector: &EncryptedVector, plain: &Plain) -> Result<EncryptedVector> {
        self.plus_plain(&vector.0, plain).map(wrap)
    }

    fn mul_plain_at(
        &self,
        vector: &EncryptedVector,
        plain: &Plain,
        plain_scale: Scale,
    ) -> Result<EncryptedVector> {
        self.times_plain(&vector.0, plain, plain_scale).map(wrap)
    }

    fn mul_sum_aligned(&self, pairs: &[(&EncryptedVector, &EncryptedVector)]) -> Result<EncryptedVector> {
        let sum = self.quadratic(pairs)?;
        self.note_relin(sum.level());
        self.timed(OpKind::Relin, sum.level(), 1, || self.evaluator.relinearise(&sum)).map(wrap)
    }

    fn rescale(&self, vector: &EncryptedVector) -> Result<EncryptedVector> {
        require_rescale(&self.chain, vector.0.level(), vector.0.scale())?;
        self.timed(OpKind::Rescale, vector.0.level(), 1, || self.evaluator.rescale(&vector.0)).map(wrap)
    }

    fn drop_to(&self, vector: &EncryptedVector, level: usize) -> Result<EncryptedVector> {
        let have = vector.0.level();
        if level > have {
            return Err(Error::LevelRaise { have, want: level });
        }
        Ok(if level == have { vector.clone() } else { wrap(self.evaluator.drop_to_level(&vector.0, level)?) })
    }

    fn with_scale(&self, vector: &EncryptedVector, scale: Scale) -> Result<EncryptedVector> {
        if vector.0.scale() == scale {
            return Ok(vector.clone());
        }
        Ok(wrap(Ciphertext::clone(&vector.0).with_scale(scale)?))
    }

    fn rotate_many(&self, vector: &EncryptedVector, steps: &[i64]) -> Result<Vec<EncryptedVector>> {
        let slots = self.slots() as i64;
        let start = Instant::now();
        let results = match steps {
            [steps] => vec![self.evaluator.rotate(&vector.0, *steps)?],
            steps if steps.iter().filter(|steps| *steps % slots != 0).count() < 2 => steps
                .iter()
                .map(|&steps| self.evaluator.rotate(&vector.0, steps))
                .collect::<Result<_, _>>()?,
            steps => self.evaluator.rotate_many(&vector.0, steps)?,
        };
        record_rotations(&self.log, vector.0.level(), self.slots(), steps, start.elapsed());
        Ok(results.into_iter().map(wrap).collect())
    }

    fn rotate_add(&self, vector: &EncryptedVector, steps: &[i64]) -> Result<EncryptedVector> {
        let start = Instant::now();
        let sum = self.sum_of_rotations(&vector.0, steps)?;
        record_rotate_add(&self.log, vector.0.level(), self.slots(), steps, start.elapsed());
        Ok(wrap(sum))
    }

    fn conjugate(&self, vector: &EncryptedVector) -> Result<EncryptedVector> {
        self.log.record_key(KeyUse::Conjugate, vector.0.level());
        self.timed(OpKind::Conjugate, vector.0.level(), 1, || self.evaluator.conjugate(&vector.0)).map(wrap)
    }

    fn mul_i(&self, vector: &EncryptedVector) -> Result<EncryptedVector> {
        self.timed(OpKind::MulConst, vector.0.level(), 1, || self.evaluator.mul_i(&vector.0)).map(wrap)
    }

    fn linear_transform_at(
        &self,
        inputs: &[&EncryptedVector],
        transform: &LinearTransform,
        plain_scale: Scale,
    ) -> Result<Vec<EncryptedVector>> {
        self.transform(inputs, transform, plain_scale, false)
    }

    fn linear_transform_rescale(
        &self,
        inputs: &[&EncryptedVector],
        transform: &LinearTransform,
        plain_scale: Scale,
    ) -> Result<Vec<EncryptedVector>> {
        self.transform(inputs, transform, plain_scale, true)
    }

    fn combine(&self, sum: &Combination<'_, EncryptedVector>) -> Result<EncryptedVector> {
        let mut total = match sum.pairs.as_slice() {
            [] => None,
            pairs => {
                let mut products = self.quadratic(pairs)?;
                if sum.weight != 1 {
                    let weight = i64::from(sum.weight);
                    let level = products.level();
                    products = self.timed(OpKind::MulConst, level, 1, || {
                        self.evaluator.mul_integer(&products, weight)
                    })?;
                }
                Some(products.with_scale(sum.scale)?)
            }
        };
        for (vector, plain) in &sum.terms {
            let plain_scale = sum.scale / vector.0.scale();
            total = Some(match (total, plain.as_constant()) {
                (Some(total), Some(constant)) if constant.im == 0.0 => {
                    self.plus_multiple(total, &vector.0, constant.re, plain_scale)?
                }
                (Some(mut total), _) => {
                    let term = self.times_plain(&vector.0, plain, plain_scale)?;
                    self.timed(OpKind::Add, total.level(), 1, || {
                        self.evaluator.add_assign(&mut total, &term)?;
                        Ok(total)
                    })?
                }
                (None, _) => self.times_plain(&vector.0, plain, plain_scale)?,
            });
        }
        let mut total = total.ok_or(Error::OperandCount { operation: "combine", have: 0, need: 1 })?;
        if let Some(constant) = &sum.constant {
            total = self.plus_plain(&total, constant)?;
        }
        let level = total.level();
        if total.is_linear() {
            return self.rescale(&wrap(total));
        }
        require_rescale(&self.chain, level, total.scale())?;
        // One division does both; its time goes to the relinearisation.
        self.note_relin(level);
        let result = self.timed(OpKind::Relin, level, 1, || self.evaluator.relinearise_rescale(&total))?;
        self.log.record(OpKind::Rescale, level, 1);
        Ok(wrap(result))
    }

    fn refresh_profile(&self, kind: RefreshKind) -> Option<RefreshProfile> {
        self.refresher.as_ref().and_then(|refresher| refresher.profile(kind))
    }

    fn refresh(
        &self,
        vector: &EncryptedVector,
        kind: RefreshKind,
        target: Option<usize>,
    ) -> Result<EncryptedVector> {
        let refresher = self.refresher.as_ref().ok_or(Error::NoRefresh { kind })?;
        let profile = refresher.profile(kind).ok_or(Error::NoRefresh { kind })?;
        let level = check_refresh(&profile, vector.0.level(), target)?;
        let start = Instant::now();
        let fresh = refresher.refresh(&vector.0, kind, level, self.chain.scale(level))?;
        self.log.record_timed(OpKind::Refresh, level, 1, start.elapsed());
        Ok(wrap(fresh))
    }
}
