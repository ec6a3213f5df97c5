//! From bit sizes to a checked parameter set.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use cipherlm_ring::{Limbs, Ring};

use super::{
    Inner, Params, ParamsHash, SecretDistribution, SecurityReport, chain, check_security, gadget, security,
};
use crate::{Error, Scale};

/// Collects the sizes of a modulus chain, bottom first. See [`Params::builder`].
///
/// ```
/// use cipherlm_ckks::Params;
/// let chain = Params::builder().degree(1 << 14).base(50.0).levels(45.0, 5);
/// let params = chain.special(47, 3).build()?;
/// assert_eq!(params.max_level(), 5);
/// assert!(params.security().bits >= 128.0);
/// # Ok::<(), cipherlm_ckks::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ParamsBuilder {
    degree: usize,
    base: f64,
    levels: Vec<f64>,
    special_bits: u32,
    special: Special,
}

/// Levels of a chain, level 0 included.
const MAX_LEVELS: usize = 200;
/// Special primes of a set.
const MAX_SPECIAL: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Special {
    Count(usize),
    Digits(usize),
}

impl Default for ParamsBuilder {
    fn default() -> Self {
        Self {
            degree: 1 << 16,
            base: 50.0,
            levels: Vec::new(),
            special_bits: 50,
            special: Special::Digits(3),
        }
    }
}

impl ParamsBuilder {
    /// Ring degree N, a power of two; default 2^16.
    pub fn degree(mut self, degree: usize) -> Self {
        self.degree = degree;
        self
    }

    /// Size in bits of the base modulus `q0` that is left at level 0; above 50 bits it is a pair of
    /// primes. Default 50.
    pub fn base(mut self, bits: f64) -> Self {
        self.base = bits;
        self
    }

    /// Adds `count` levels of `bits` bits on top of those already there; above 50 bits a level is a
    /// pair of primes.
    pub fn levels(mut self, bits: f64, count: usize) -> Self {
        // More than there may be are refused by `build`: no memory for them.
        self.levels.extend(std::iter::repeat_n(bits, count.min(MAX_LEVELS + 1)));
        self
    }

    /// `count` special primes just below 2^`bits`.
    pub fn special(mut self, bits: u32, count: usize) -> Self {
        self.special_bits = bits;
        self.special = Special::Count(count);
        self
    }

    /// As many special primes as it takes for a switching key of the highest level to have at most
    /// `count` digits. Default 3.
    pub fn digits(mut self, count: usize) -> Self {
        self.special = Special::Digits(count);
        self
    }

    /// Checks everything and chooses the primes.
    ///
    /// # Errors
    /// [`Error::InvalidParams`] for sizes out of range, [`Error::Insecure`] or
    /// [`Error::NoSecurityEstimate`] when the whole modulus is not known to be 128-bit secure with
    /// a dense ternary secret, [`Error::Ring`] if there are too few primes.
    pub fn build(self) -> Result<Params, Error> {
        self.assemble()?.checked()
    }

    pub(super) fn build_insecure(self) -> Result<Params, Error> {
        self.assemble()?.insecure()
    }

    fn assemble(self) -> Result<Assembled, Error> {
        let group_bits: Vec<f64> = std::iter::once(self.base).chain(self.levels.iter().copied()).collect();
        for &value in &group_bits {
            if !(20.0..=100.0).contains(&value) {
                return Err(Error::InvalidParams {
                    field: "level bits",
                    value,
                    allowed: "20 to 100 bits a level",
                });
            }
        }
        if group_bits.len() > MAX_LEVELS {
            let value = group_bits.len() as f64;
            return Err(Error::InvalidParams { field: "levels", value, allowed: "at most 200 levels" });
        }
        let bits = f64::from(self.special_bits);
        if !(20..=50).contains(&self.special_bits) {
            return Err(Error::InvalidParams { field: "special bits", value: bits, allowed: "20 to 50" });
        }
        let special_count = match self.special {
            Special::Count(count) => count,
            Special::Digits(digits) if digits >= 1 => {
                let limbs = gadget::limb_sizes(&group_bits);
                let fits = |count: &usize| gadget::digits_needed(&limbs, bits * *count as f64) <= digits;
                (1..=MAX_SPECIAL).find(fits).unwrap_or(MAX_SPECIAL + 1)
            }
            Special::Digits(_) => 0,
        };
        if !(1..=MAX_SPECIAL).contains(&special_count) {
            let value = special_count as f64;
            return Err(Error::InvalidParams { field: "special primes", value, allowed: "1 to 100" });
        }
        // A digit is at least one prime, and must not exceed the special modulus.
        let largest = gadget::limb_sizes(&group_bits).into_iter().fold(0.0, f64::max);
        if largest > bits * special_count as f64 {
            let allowed = "all special primes together must be as large as the largest prime of the chain";
            return Err(Error::InvalidParams { field: "special bits", value: bits, allowed });
        }
        let chain = chain::choose(self.degree, &group_bits, self.special_bits, special_count)?;
        Ok(Assembled { degree: self.degree, group_bits, chain })
    }
}

/// A set that has not been checked.
pub(super) struct Assembled {
    pub(super) degree: usize,
    pub(super) group_bits: Vec<f64>,
    pub(super) chain: chain::Chain,
}

impl Assembled {
    /// The set, if it is 128-bit secure.
    pub(super) fn checked(self) -> Result<Params, Error> {
        let report = check_security("parameters", self.degree, SecretDistribution::Ternary, self.log_qp())?;
        if report.is_warning() {
            tracing::warn!(
                log_qp = report.log_qp,
                bits = report.bits,
                "parameters are within 4 bits of the 128-bit limit"
            );
        }
        self.finish(report, false)
    }

    /// The set, which says whether it is secure.
    pub(super) fn insecure(self) -> Result<Params, Error> {
        let log_qp = self.log_qp();
        match check_security("parameters", self.degree, SecretDistribution::Ternary, log_qp) {
            Ok(report) => self.finish(report, false),
            Err(_) => {
                let limit = security::security_limit(self.degree, SecretDistribution::Ternary);
                let bits = limit.map_or(0.0, |l| security::estimate_bits(l, log_qp));
                self.finish(SecurityReport { log_qp, limit, bits }, true)
            }
        }
    }

    fn log_qp(&self) -> f64 {
        self.chain.groups.iter().flatten().chain(&self.chain.special).map(|&q| (q as f64).log2()).sum()
    }

    fn finish(self, security: SecurityReport, insecure: bool) -> Result<Params, Error> {
        let mut primes: Vec<u64> = Vec::new();
        let mut groups = Vec::new();
        for group in &self.chain.groups {
            groups.push(primes.len()..primes.len() + group.len());
            primes.extend(group);
        }
        let special = primes.len()..primes.len() + self.chain.special.len();
        primes.extend(&self.chain.special);
        let scales = default_scales(&self.group_bits, &self.chain.groups);
        let mut text = format!("cipherlm-ckks 2; degree {}; groups", self.degree);
        for (group, bits) in self.chain.groups.iter().zip(&self.group_bits) {
            text += &format!(" {:016x}:{group:?}", bits.to_bits());
        }
        text += &format!("; special {:?}", self.chain.special);
        let inner = Inner {
            ring: Ring::new(self.degree, &primes)?,
            q_limbs: groups.iter().map(|g| Limbs::range(0..g.end)).collect(),
            groups,
            group_bits: self.group_bits,
            scales,
            special,
            logs: primes.iter().map(|&q| (q as f64).log2()).collect(),
            primes,
            security,
            insecure,
            hash: ParamsHash(*blake3::hash(text.as_bytes()).as_bytes()),
            embeddings: Mutex::new(HashMap::new()),
            decompositions: Mutex::new(HashMap::new()),
            small_tables: Mutex::new(HashMap::new()),
            subring_orders: Mutex::new(HashMap::new()),
            cuts: Mutex::new(HashMap::new()),
            whole: None,
        };
        Ok(Params(Arc::new(inner)))
    }
}

/// See [`Params::default_scale`].
fn default_scales(bits: &[f64], groups: &[Vec<u64>]) -> Vec<Scale> {
    let mut scales = vec![Scale::ONE; bits.len()];
    let nominal = |bits: f64| Scale::new(bits.exp2());
    for level in (0..bits.len()).rev() {
        let above = level + 1;
        let follows = above < bits.len() && (level == 0 || bits[above] == bits[level]);
        scales[level] = if follows {
            let factor = groups[above].iter().map(|&q| Scale::from_u64(q)).fold(Scale::ONE, |a, b| a * b);
            scales[above].square() / factor
        } else if level == 0 {
            // No level to multiply on: leave 10 bits of room for the integer part.
            nominal(bits[0] - 10.0)
        } else {
            nominal(bits[level])
        };
    }
    scales
}
