//! Parameters: an immutable, checked description of the modulus chain that travels with every
//! object as a hash.

mod builder;
mod chain;
mod gadget;
pub mod presets;
mod security;
mod subring;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use cipherlm_ring::{Decomposition, Limbs, NttTable, Ring, eval_exponent};

pub use crate::ids::{ParamsHash, SecretDistribution};
pub use builder::ParamsBuilder;
pub use gadget::KeyShape;
pub use security::{SecurityLimit, SecurityReport, check_security, security_limit};

use crate::embedding::Embedding;
use crate::{Error, Scale};

/// A validated parameter set. Cloning is cheap; two sets are equal when their hashes are.
///
/// The chain is `q0 | group 1 | ... | group L` followed by the special primes used only inside key
/// switching. A ciphertext at level `l` lives modulo `q0 * group 1 * ... * group l` and can be
/// rescaled `l` times.
///
/// What describes a level saturates: a level above the highest is read as the highest, a count of
/// special primes above theirs as all of them. Whatever makes or changes an object refuses such a
/// level with [`Error::LevelOutOfRange`]. An index of a limb or prime that is not there is always
/// an error.
#[derive(Clone)]
pub struct Params(Arc<Inner>);

struct Inner {
    ring: Arc<Ring>,
    /// Pool indices of the primes of each level's group.
    groups: Vec<Range<usize>>,
    group_bits: Vec<f64>,
    scales: Vec<Scale>,
    special: Range<usize>,
    primes: Vec<u64>,
    /// `log2` of each prime of the pool.
    logs: Vec<f64>,
    security: SecurityReport,
    insecure: bool,
    hash: ParamsHash,
    q_limbs: Vec<Limbs>,
    embeddings: Mutex<HashMap<usize, Arc<Embedding>>>,
    decompositions: Mutex<HashMap<(usize, KeyShape), Arc<Decomposition>>>,
    small_tables: Mutex<HashMap<(usize, usize), Arc<NttTable>>>,
    subring_orders: Mutex<HashMap<usize, Arc<Vec<u32>>>>,
    /// Digits of each shape of key.
    cuts: Mutex<HashMap<KeyShape, Arc<Vec<Range<usize>>>>>,
    /// The whole chain, if this is a view without some of its levels.
    whole: Option<Params>,
}

impl Params {
    /// Starts a parameter set; [`ParamsBuilder::build`] refuses anything below 128-bit security.
    pub fn builder() -> ParamsBuilder {
        ParamsBuilder::default()
    }

    /// Builds without the security check. **For tests only**: the result protects nothing, and says
    /// so wherever it is reported ([`Params::is_insecure`]).
    ///
    /// # Errors
    /// As [`ParamsBuilder::build`], except for [`Error::Insecure`] and
    /// [`Error::NoSecurityEstimate`].
    pub fn insecure_for_tests(builder: ParamsBuilder) -> Result<Self, Error> {
        builder.build_insecure()
    }

    /// Ring degree N.
    pub fn degree(&self) -> usize {
        self.0.ring.degree()
    }

    /// log2 of the ring degree.
    pub fn log_degree(&self) -> u32 {
        self.degree().trailing_zeros()
    }

    /// Number of complex slots of a full ciphertext, N/2.
    pub fn slots(&self) -> usize {
        self.degree() / 2
    }

    /// The highest level: how many rescales a fresh ciphertext allows.
    pub fn max_level(&self) -> usize {
        self.0.groups.len() - 1
    }

    /// The ring over all primes: the chain bottom first, then the special primes.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.0.ring
    }

    /// Limbs of a ciphertext at `level`; saturates.
    pub fn limbs(&self, level: usize) -> &Limbs {
        &self.0.q_limbs[level.min(self.max_level())]
    }

    /// Number of limbs of a ciphertext at `level`; saturates.
    pub fn limb_count(&self, level: usize) -> usize {
        self.limbs(level).len()
    }

    /// The first `count` special limbs; saturates.
    pub fn special_limbs(&self, count: usize) -> Limbs {
        let start = self.0.special.start;
        Limbs::range(start..start + count.min(self.special_count()))
    }

    /// Number of special primes.
    pub fn special_count(&self) -> usize {
        self.0.special.len()
    }

    /// Limbs of a ciphertext at `level` together with the first `special` special limbs; both
    /// saturate.
    pub fn extended_limbs(&self, level: usize, special: usize) -> Limbs {
        self.limbs(level).union(&self.special_limbs(special))
    }

    /// Limbs that a rescale from `level` drops (those of the group of that level); saturates.
    pub fn group_limbs(&self, level: usize) -> Limbs {
        Limbs::range(self.0.groups[level.min(self.max_level())].clone())
    }

    /// Nominal size in bits of the group that a rescale from `level` drops; for level 0, of the
    /// base `q0`. Saturates.
    pub fn group_bits(&self, level: usize) -> f64 {
        self.0.group_bits[level.min(self.max_level())]
    }

    /// Exactly what a rescale from `level` divides by: the product of the primes of that level.
    /// Saturates.
    pub fn rescale_factor(&self, level: usize) -> Scale {
        let primes = self.primes_of(&self.group_limbs(level));
        primes.into_iter().map(Scale::from_u64).fold(Scale::ONE, |a, b| a * b)
    }

    /// The scale to encode at on `level`: within a run of equal groups, what squaring and rescaling
    /// from the level above gives; at the top of a run, 2^bits of the group. At level 0, the scale
    /// arriving from level 1. Saturates.
    pub fn default_scale(&self, level: usize) -> Scale {
        self.0.scales[level.min(self.max_level())]
    }

    /// log2 of the ciphertext modulus at `level`; saturates.
    pub fn log_q(&self, level: usize) -> f64 {
        self.log_of(self.limbs(level))
    }

    /// log2 of the whole modulus, special primes included: the figure that security depends on.
    pub fn log_qp(&self) -> f64 {
        self.0.logs.iter().sum()
    }

    /// log2 of the product of some limbs.
    ///
    /// # Errors
    /// [`Error::Ring`] for a limb that the ring does not have.
    pub fn log2_of(&self, limbs: &Limbs) -> Result<f64, Error> {
        limbs.iter().map(|limb| Ok((self.prime(limb)? as f64).log2())).sum()
    }

    /// The prime of a limb.
    ///
    /// # Errors
    /// [`Error::Ring`] for a limb that the ring does not have.
    pub fn prime(&self, limb: usize) -> Result<u64, Error> {
        let missing = cipherlm_ring::Error::LimbOutOfRange { index: limb, count: self.0.primes.len() };
        self.0.primes.get(limb).copied().ok_or(missing.into())
    }

    /// Bits that hold every residue of a limb of this set; 0 for a limb that it does not have.
    pub(crate) fn prime_bits(&self, limb: usize) -> u32 {
        self.0.ring.modulus(limb).map_or(0, cipherlm_ring::Modulus::bits)
    }

    /// The primes of limbs that this set made itself.
    pub(crate) fn primes_of(&self, limbs: &Limbs) -> Vec<u64> {
        limbs.iter().filter_map(|limb| self.0.primes.get(limb).copied()).collect()
    }

    /// log2 of the product of limbs that this set made itself.
    pub(crate) fn log_of(&self, limbs: &Limbs) -> f64 {
        limbs.iter().filter_map(|limb| self.0.logs.get(limb)).sum()
    }

    /// What the security check found.
    pub fn security(&self) -> SecurityReport {
        self.0.security
    }

    /// True for sets built by [`Params::insecure_for_tests`] that would not have passed the check.
    pub fn is_insecure(&self) -> bool {
        self.0.insecure
    }

    /// The hash that identifies the set.
    pub fn hash(&self) -> ParamsHash {
        self.0.hash
    }

    /// Refuses an object of another parameter set.
    pub(crate) fn check_same(&self, operation: &'static str, other: &Self) -> Result<(), Error> {
        if Arc::ptr_eq(&self.0, &other.0) || self.hash() == other.hash() {
            return Ok(());
        }
        Err(Error::ParamsMismatch { operation, left: self.hash(), right: other.hash() })
    }

    /// Refuses an object of another parameter set, or one whose levels are counted on another view
    /// of the chain ([`Params::without_levels`]): the hash is the same, level numbers mean other
    /// primes.
    pub(crate) fn check_same_levels(&self, operation: &'static str, other: &Self) -> Result<(), Error> {
        self.check_same(operation, other)?;
        if !Arc::ptr_eq(&self.0, &other.0) && self.0.groups != other.0.groups {
            return Err(Error::Internal { what: "levels of a shortened chain met those of the whole one" });
        }
        Ok(())
    }

    /// Refuses a level above the chain.
    pub(crate) fn check_level(&self, operation: &'static str, level: usize) -> Result<(), Error> {
        if level > self.max_level() {
            return Err(Error::LevelOutOfRange { operation, level, max: self.max_level() });
        }
        Ok(())
    }

    /// Refuses a slot count that is not a power of two up to N/2.
    pub(crate) fn check_slots(&self, slots: usize) -> Result<(), Error> {
        if !slots.is_power_of_two() || slots > self.slots() {
            return Err(Error::BadSlots { slots, min: 1, max: self.slots() });
        }
        Ok(())
    }

    pub(crate) fn embedding(&self, slots: usize) -> Arc<Embedding> {
        cached(&self.0.embeddings, slots, || Ok(Embedding::new(slots)))
            .unwrap_or_else(|_: Error| Embedding::new(slots).into())
    }

    /// The digits of a shape, from `build` the first time.
    pub(crate) fn cut(
        &self,
        shape: KeyShape,
        build: impl Fn() -> Vec<Range<usize>>,
    ) -> Arc<Vec<Range<usize>>> {
        cached(&self.0.cuts, shape, || Ok(build())).unwrap_or_else(|_: Error| build().into())
    }

    /// How a polynomial at `level` is cut into digits for a key of this shape.
    pub(crate) fn decomposition(&self, level: usize, shape: KeyShape) -> Result<Arc<Decomposition>, Error> {
        cached(&self.0.decompositions, (level, shape), || {
            // The digits of a key are those of the whole chain.
            let digits = shape.digits(self.0.whole.as_ref().unwrap_or(self));
            let digits: Vec<Limbs> = digits.into_iter().map(Limbs::range).collect();
            let in_use = |digit: &Limbs| !digit.is_disjoint(self.limbs(level));
            if digits.iter().skip_while(|d| in_use(d)).any(in_use) {
                let reason = "a digit of the key has no prime left in the shortened chain";
                return Err(Error::BadKeyShape { level: shape.level, special: shape.special, reason });
            }
            Ok(Decomposition::new(
                self.ring(),
                self.limbs(level),
                &digits,
                &self.special_limbs(shape.special),
            )?)
        })
    }

    /// The set seen without some levels, for circuits that pass from the levels above them to those
    /// below: higher levels move down, everything else stays, the hash too, so that keys of the
    /// whole chain serve it. Objects at levels above the lowest one left out must not leave the
    /// circuit.
    pub(crate) fn without_levels(&self, left_out: &[usize]) -> Self {
        if left_out.is_empty() {
            return self.clone();
        }
        let levels: Vec<usize> = (0..=self.max_level()).filter(|level| !left_out.contains(level)).collect();
        let groups: Vec<Range<usize>> = levels.iter().map(|&level| self.0.groups[level].clone()).collect();
        let mut limbs = Limbs::range(0..0);
        let q_limbs = groups.iter().map(|group| {
            limbs = limbs.union(&Limbs::range(group.clone()));
            limbs.clone()
        });
        Self(Arc::new(Inner {
            ring: Arc::clone(self.ring()),
            q_limbs: q_limbs.collect(),
            group_bits: levels.iter().map(|&level| self.0.group_bits[level]).collect(),
            scales: levels.iter().map(|&level| self.0.scales[level]).collect(),
            groups,
            special: self.0.special.clone(),
            primes: self.0.primes.clone(),
            logs: self.0.logs.clone(),
            security: self.0.security,
            insecure: self.0.insecure,
            hash: self.0.hash,
            embeddings: Mutex::default(),
            decompositions: Mutex::default(),
            small_tables: Mutex::default(),
            subring_orders: Mutex::default(),
            cuts: Mutex::default(),
            whole: Some(self.clone()),
        }))
    }

    /// The product of the first `special` special primes modulo each prime of `limbs`.
    pub(crate) fn special_residues(&self, limbs: &Limbs, special: usize) -> Vec<u64> {
        limbs.iter().map(|limb| self.special_residue(limb, special)).collect()
    }

    /// The product of the first `special` special primes modulo the prime of a limb of this set.
    pub(crate) fn special_residue(&self, limb: usize, special: usize) -> u64 {
        let prime = |limb: usize| u128::from(self.0.primes[limb]);
        let q = prime(limb);
        self.special_limbs(special).iter().fold(1, |product, j| product * prime(j) % q) as u64
    }

    /// NTT table of one prime for a subring degree.
    pub(crate) fn small_table(&self, limb: usize, degree: usize) -> Result<Arc<NttTable>, Error> {
        cached(&self.0.small_tables, (limb, degree), || {
            Ok(NttTable::new(*self.ring().modulus(limb)?, degree)?)
        })
    }

    /// For a polynomial of the subring of `degree`: which of its values each run of `N / degree`
    /// full values repeats.
    pub(crate) fn subring_order(&self, degree: usize) -> Result<Arc<Vec<u32>>, Error> {
        cached(&self.0.subring_orders, degree, || {
            let (log_small, run) = (degree.trailing_zeros(), self.degree() / degree);
            let mut index_of = vec![0u32; degree];
            for index in 0..degree {
                index_of[eval_exponent(log_small, index) / 2] = index as u32;
            }
            let at = |r: usize| index_of[eval_exponent(self.log_degree(), r * run) % (2 * degree) / 2];
            Ok((0..degree).map(at).collect())
        })
    }
}

impl PartialEq for Params {
    fn eq(&self, other: &Self) -> bool {
        self.hash() == other.hash()
    }
}

impl Eq for Params {}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Params")
            .field("degree", &self.degree())
            .field("group_bits", &self.0.group_bits)
            .field("special", &self.special_count())
            .field("log_qp", &self.log_qp())
            .field("security_bits", &self.0.security.bits)
            .field("insecure", &self.0.insecure)
            .field("hash", &self.0.hash)
            .finish()
    }
}

/// Looks `key` up, building the value outside of the lock if it is missing.
fn cached<K: Eq + std::hash::Hash, V>(
    cache: &Mutex<HashMap<K, Arc<V>>>,
    key: K,
    build: impl FnOnce() -> Result<V, Error>,
) -> Result<Arc<V>, Error> {
    if let Some(value) = cache.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return Ok(value.clone());
    }
    let value = Arc::new(build()?);
    Ok(cache.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_insert(value).clone())
}
