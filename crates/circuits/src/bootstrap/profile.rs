//! Modulus chains for bootstrapping, with what each delivers.

use super::eval_mod::EvalMod;
use cipherlm_ckks::{Error, Params};

/// One level of a homomorphic DFT.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DftLevel {
    /// log2 of the level's primes.
    pub bits: f64,
    /// Butterfly layers it does on a full ciphertext.
    pub layers: u32,
}

pub(super) const fn dft(bits: f64, layers: u32) -> DftLevel {
    DftLevel { bits, layers }
}

/// A modulus chain for bootstrapping, in the order in which a refreshed ciphertext consumes it:
///
/// `special | coefficients to slots | modular reduction | user | slots to coefficients | bottom`
///
/// All sizes are log2. What a profile delivers is settled by [`super::simulate`] and asserted by
/// encrypted tests. The fields are free to change; [`Profile::validate`] refuses what does not fit
/// together before anything is built.
///
/// | profile | log2 N | log QP | user levels | ephemeral weight | worst slot |
/// |---|---|---|---|---|---|
/// | `n16-13`, [`Profile::n16`] | 16 | 1692 | 13 x 40 | 48 | 20.7 bits |
/// | `n16-14`, also `n16-fast` | 16 | 1682 | 14 x 40 | 30 | 21.2 bits |
/// | `n16-15` | 16 | 1686 | 15 x 37 | 48 | 18.6 bits |
/// | `n16-16` | 16 | 1694 | 16 x 36 | 48 | 18.1 bits |
/// | `n16-17` | 16 | 1695 | 17 x 35 | 48 | 17.1 bits |
/// | `n16-18` | 16 | 1684 | 18 x 35 | 30 | 17.4 bits |
/// | [`Profile::n15`] | 15 | 841 | 4 x 35 | 30 | 17.0 bits |
///
/// The failure probability is zero in all of them: see [`Profile::overflow`].
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Its name.
    pub name: &'static str,
    /// log2 of the ring degree.
    pub log_degree: u32,
    /// The bottom modulus, at which the ciphertext is raised.
    pub bottom: f64,
    /// The levels of the transform before the raise, the first used first.
    pub slots_to_coeffs: Vec<DftLevel>,
    /// The user's scale.
    pub scale: f64,
    /// Levels left to the user, at least one.
    pub user_levels: usize,
    /// The modular reduction's levels, the first used first.
    pub eval_mod: Vec<f64>,
    /// The levels of the transform after the raise, the first used first.
    pub coeffs_to_slots: Vec<DftLevel>,
    /// Number of special primes.
    pub special: usize,
    /// Size of a special prime.
    pub special_bits: u32,
    /// Bottom modulus over the scale of the coefficients: the message ratio.
    pub ratio: f64,
    /// Scale of the modular reduction's input.
    pub input_scale: f64,
    /// By how much the scale between the stages of the transform after the raise exceeds that of
    /// its result.
    pub headroom: f64,
    /// Weight of the ephemeral secret.
    pub ephemeral_weight: usize,
    /// Depth of the exponential's polynomial.
    pub polynomial_depth: u32,
    /// Squarings after it.
    pub doublings: u32,
    /// Root mean square of a slot's complex error, `-log2`: that of the worst family of inputs,
    /// from encrypted runs. In insecure rings that of uniform inputs.
    pub error_bits: f64,
    /// Waives the security check: small rings, tests only.
    pub insecure: bool,
}

impl Profile {
    /// N = 2^15: 4 levels of 35 bits, for latency.
    pub fn n15() -> Self {
        Self {
            name: "n15",
            log_degree: 15,
            bottom: 41.0,
            slots_to_coeffs: vec![dft(31.0, 7), dft(33.0, 7)],
            scale: 35.0,
            user_levels: 4,
            eval_mod: vec![45.0; 9],
            coeffs_to_slots: vec![dft(46.0, 7), dft(45.0, 7)],
            special: 2,
            special_bits: 50,
            ratio: 6.75,
            input_scale: 45.0,
            headroom: 2.5,
            ephemeral_weight: 30,
            polynomial_depth: 5,
            doublings: 3,
            error_bits: 19.5,
            insecure: false,
        }
    }

    /// [`Profile::n16`] in a small ring: see [`Profile::in_insecure_ring`].
    pub fn insecure(log_degree: u32) -> Self {
        Self::n16().in_insecure_ring(log_degree)
    }

    /// The same circuit with two user levels in a ring of degree `2^log_degree`. **No security**:
    /// for tests and examples.
    pub fn in_insecure_ring(self, log_degree: u32) -> Self {
        let levels = |bits: &[f64]| {
            let layers = super::dft::even_layers(log_degree.saturating_sub(1), bits.len() as u32);
            bits.iter().zip(layers).map(|(&bits, layers)| dft(bits, layers)).collect()
        };
        Self {
            name: "insecure",
            log_degree,
            slots_to_coeffs: levels(&[32.0, 34.0]),
            coeffs_to_slots: levels(&[45.0, 45.0]),
            user_levels: 2,
            special: 4,
            // Measured on uniform slots: 27.2 bits at 2^11, 25.8 at 2^13. At full amplitude the
            // fifth power of the sine leaves more than that: `reduction_errors`.
            error_bits: self.error_bits + 0.8 * (f64::from(self.log_degree) - f64::from(log_degree)),
            insecure: true,
            ..self
        }
    }

    /// Builds the parameter set.
    ///
    /// # Errors
    /// As [`Profile::validate`] and [`cipherlm_ckks::ParamsBuilder::build`].
    pub fn params(&self) -> Result<Params, Error> {
        self.validate()?;
        let mut builder = Params::builder().degree(1 << self.log_degree).base(self.bottom);
        for level in self.slots_to_coeffs.iter().rev() {
            builder = builder.levels(level.bits, 1);
        }
        builder = builder.levels(self.scale, self.user_levels);
        for &bits in self.eval_mod.iter().rev() {
            builder = builder.levels(bits, 1);
        }
        for level in self.coeffs_to_slots.iter().rev() {
            builder = builder.levels(level.bits, 1);
        }
        builder = builder.special(self.special_bits, self.special);
        if self.insecure { Params::insecure_for_tests(builder) } else { builder.build() }
    }

    /// log2 of the whole modulus, special primes included.
    pub fn log_qp(&self) -> f64 {
        let dft = |levels: &[DftLevel]| levels.iter().map(|l| l.bits).sum::<f64>();
        self.bottom
            + dft(&self.slots_to_coeffs)
            + self.scale * self.user_levels as f64
            + self.eval_mod.iter().sum::<f64>()
            + dft(&self.coeffs_to_slots)
            + f64::from(self.special_bits) * self.special as f64
    }

    /// Levels of the chain.
    pub fn levels(&self) -> usize {
        self.slots_to_coeffs.len() + self.user_levels + self.eval_mod.len() + self.coeffs_to_slots.len()
    }

    /// The level at which [`super::Bootstrapper::bootstrap`] takes a full ciphertext.
    pub fn input_level(&self) -> usize {
        self.slots_to_coeffs.len()
    }

    /// The level of the result.
    pub fn output_level(&self) -> usize {
        self.slots_to_coeffs.len() + self.user_levels
    }

    /// The largest overflow that can occur.
    ///
    /// A raised coefficient is `t = c_0 + (c_1·s)` with `|c| <= q/2` for every coefficient of `c_0`
    /// and `c_1` (the lift is centred and q is odd: at most `(q - 1)/2`), and a ternary `s` of
    /// weight `h`: `|t| <= (h + 1)(q - 1)/2`. With `t = q·I + m` and `|m| < q/2` an integer `I`
    /// satisfies `|I| <= (h + 1)/2`, and `|I| <= h/2` for even `h`. The circuit covers every such
    /// `I` ([`Profile::validate`] sees to it), so no ciphertext can fail, whatever its
    /// distribution.
    pub fn overflow(&self) -> u32 {
        u32::try_from(self.ephemeral_weight.div_ceil(2)).unwrap_or(u32::MAX)
    }

    /// The modular reduction.
    ///
    /// # Errors
    /// As [`EvalMod::new`].
    pub fn circuit(&self) -> Result<EvalMod, Error> {
        EvalMod::new(self.overflow(), self.polynomial_depth, self.doublings)
    }
}

/// How many butterfly layers each stage does for `layers` in all: as on a full ciphertext, with
/// fewer stages for fewer layers.
pub(super) fn stages(levels: &[DftLevel], layers: u32) -> Vec<u32> {
    if levels.iter().map(|l| l.layers).sum::<u32>() == layers {
        return levels.iter().map(|l| l.layers).collect();
    }
    let most = levels.iter().map(|l| l.layers).max().unwrap_or(1).max(1);
    super::dft::even_layers(layers, layers.div_ceil(most).clamp(1, levels.len() as u32))
}
