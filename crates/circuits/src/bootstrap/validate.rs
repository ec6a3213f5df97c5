//! What a profile must satisfy before anything is built from it, and what parameters must satisfy
//! to be its own.

use std::f64::consts::TAU;
use std::ops::RangeInclusive;

use super::eval_mod::EvalMod;
use super::profile::{DftLevel, Profile};
use cipherlm_ckks::params::check_security;
use cipherlm_ckks::{Error, Params, SecretDistribution};

/// Refuses a value outside of `range`; NaN is in none.
fn within(
    field: &'static str,
    value: f64,
    range: RangeInclusive<f64>,
    allowed: &'static str,
) -> Result<(), Error> {
    if range.contains(&value) { Ok(()) } else { Err(Error::InvalidParams { field, value, allowed }) }
}

impl Profile {
    /// Refuses a profile that no circuit can follow, or whose circuit would not deliver what the
    /// profile says: fields out of range, transforms that do not cover the ring, a modular
    /// reduction of another depth than its levels, a polynomial that does not cover every overflow,
    /// an error below what the circuit leaves.
    ///
    /// [`Profile::params`] and [`super::Bootstrapper::new`] call it.
    ///
    /// # Errors
    /// [`Error::InvalidParams`] with the field, its value and what is allowed; [`Error::Insecure`]
    /// or [`Error::NoSecurityEstimate`] if the ephemeral secret is not 128-bit secure at the bottom
    /// modulus.
    pub fn validate(&self) -> Result<(), Error> {
        self.check_sizes()?;
        self.check_transforms()?;
        self.check_reduction()?;
        self.check_ephemeral()
    }

    fn check_sizes(&self) -> Result<(), Error> {
        within(
            "log2 of the ring degree",
            f64::from(self.log_degree),
            4.0..=17.0,
            "4 to 17: 8 slots and more",
        )?;
        let transforms = self.slots_to_coeffs.iter().chain(&self.coeffs_to_slots).map(|level| level.bits);
        let levels = self.eval_mod.iter().copied().chain(transforms).chain([self.bottom, self.scale]);
        for bits in levels {
            within("level bits", bits, 20.0..=100.0, "20 to 100 bits a level")?;
        }
        within("user levels", self.user_levels as f64, 1.0..=190.0, "1 to 190")?;
        within("levels", self.levels() as f64, 1.0..=199.0, "at most 199 with those of the circuit")?;
        within("special primes", self.special as f64, 1.0..=100.0, "1 to 100")?;
        within("special bits", f64::from(self.special_bits), 20.0..=50.0, "20 to 50")?;
        // The polynomial's interval has room for 2^-5 beside an overflow.
        within(
            "message ratio",
            self.ratio,
            5.5..=20.0,
            "5.5 to 20 bits: half a bit more than the polynomial needs",
        )?;
        let below = "the bottom modulus must exceed the message ratio by 20 bits, which carry the message";
        within("bottom bits beyond the message ratio", self.bottom - self.ratio, 20.0..=100.0, below)?;
        within("input scale", self.input_scale, 20.0..=60.0, "20 to 60 bits")?;
        within("headroom", self.headroom, 0.0..=20.0, "0 to 20 bits")?;
        within("error bits", self.error_bits, 1.0..=60.0, "1 to 60")
    }

    fn check_transforms(&self) -> Result<(), Error> {
        let stages = |levels: &[DftLevel]| {
            let layers: u64 = levels.iter().map(|level| u64::from(level.layers)).sum();
            let most = f64::from(self.log_degree) - 1.0;
            let allowed = "1 or more in each stage, log2 N - 1 in all stages of a transform";
            for level in levels {
                within("butterfly layers of a stage", f64::from(level.layers), 1.0..=most, allowed)?;
            }
            within("butterfly layers of a transform", layers as f64, most..=most, allowed)
        };
        stages(&self.slots_to_coeffs)?;
        stages(&self.coeffs_to_slots)
    }

    fn check_reduction(&self) -> Result<(), Error> {
        let circuit = self.circuit()?;
        let depth = circuit.depth() as f64;
        let allowed = "as many as its depth: polynomial_depth + doublings + 1";
        within("levels of the modular reduction", self.eval_mod.len() as f64, depth..=depth, allowed)?;
        let [sine, polynomial] = self.errors_of(&circuit);
        let allowed = "at most that of the sine (-log2): smaller weight, more polynomial depth or doublings";
        within(
            "precision of the polynomial in bits",
            -polynomial.log2(),
            -sine.log2()..=f64::INFINITY,
            allowed,
        )?;
        if self.insecure {
            return Ok(());
        }
        let linear = [
            (self.rounding() / self.scale.exp2()).powi(2),
            self.slots_to_coeffs_error().powi(2),
            (self.coeffs_to_slots_error() * self.ratio.exp2()).powi(2),
        ];
        // Real and imaginary part of a slot pass the modular reduction apart.
        let variance = linear.iter().sum::<f64>() + 2.0 * (sine * sine + polynomial * polynomial);
        let delivers = -variance.log2() / 2.0;
        let allowed = "at most what rounding, the transforms and the modular reduction leave";
        within("error bits", self.error_bits, 1.0..=delivers, allowed)
    }

    fn check_ephemeral(&self) -> Result<(), Error> {
        let degree = 1usize << self.log_degree;
        let weight = self.ephemeral_weight;
        within("ephemeral weight", weight as f64, 1.0..=degree as f64, "1 to the ring degree")?;
        if self.insecure {
            return Ok(());
        }
        let modulus = self.bottom + f64::from(self.special_bits);
        check_security("key to the ephemeral secret", degree, SecretDistribution::Sparse { weight }, modulus)
            .map(drop)
    }

    /// The largest errors of the modular reduction, relative to a message of size 1: what the fifth
    /// power leaves of the sine, and what the polynomial adds on the whole range of overflows.
    ///
    /// The first grows with the fifth power of the message and pulls every part of a slot towards
    /// zero, always the same way: ten bootstraps in a row have ten times of it.
    ///
    /// # Errors
    /// As [`Profile::circuit`].
    pub fn reduction_errors(&self) -> Result<[f64; 2], Error> {
        Ok(self.errors_of(&self.circuit()?))
    }

    fn errors_of(&self, circuit: &EvalMod) -> [f64; 2] {
        let angle = TAU * (-self.ratio).exp2();
        let polynomial = circuit.polynomial_error() * f64::from(self.doublings).exp2() / angle;
        // A polynomial better than the arithmetic is as good as the arithmetic.
        [angle.powi(4) / 30.0, polynomial.max(f64::EPSILON)]
    }

    /// Refuses parameters that are not those that the profile builds.
    pub(super) fn check(&self, params: &Params) -> Result<(), Error> {
        const BUILD: &str = "that of the bootstrapping profile; build the parameters with Profile::params";
        let equal = |field, value: f64, want: f64| within(field, value, want..=want, BUILD);
        equal("ring degree", params.degree() as f64, f64::from(self.log_degree).exp2())?;
        if params.max_level() < self.levels() {
            return Err(Error::LevelExhausted {
                operation: "bootstrapping profile",
                have: params.max_level(),
                need: self.levels(),
            });
        }
        let expected = std::iter::once(self.bottom)
            .chain(self.slots_to_coeffs.iter().rev().map(|l| l.bits))
            .chain(std::iter::repeat_n(self.scale, self.user_levels))
            .chain(self.eval_mod.iter().rev().copied())
            .chain(self.coeffs_to_slots.iter().rev().map(|l| l.bits));
        for (level, bits) in expected.enumerate() {
            within("level bits", params.group_bits(level), bits - 0.1..=bits + 0.1, BUILD)?;
        }
        equal("special primes", params.special_count() as f64, self.special as f64)?;
        let bits = f64::from(self.special_bits);
        for limb in params.special_limbs(self.special).iter() {
            within("special bits", (params.prime(limb)? as f64).log2(), bits - 1.0..=bits + 0.1, BUILD)?;
        }
        Ok(())
    }
}
