//! What precision a chain will give, before any key exists.
//!
//! The modular reduction runs on plain complex numbers with the rounding error of every rescale
//! injected, on a full vector of coefficients at full amplitude, with overflows drawn from the
//! distribution of the ephemeral secret (or all at the bound). A chain is settled here in a second
//! instead of in minutes of encrypted runs; compare before relying on tenths of a bit.

use std::convert::Infallible;
use std::f64::consts::PI;

use num_complex::Complex64;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Profile;
use super::eval_mod::{EvalMod, ModArithmetic, Sum};
use cipherlm_ckks::Error;

/// Errors that the linear stages of a profile make, as standard deviations.
impl Profile {
    /// One rescale's rounding error in a complex slot, times the scale: dense ternary secret.
    pub fn rounding(&self) -> f64 {
        cipherlm_ckks::noise::rounding_bits(f64::from(self.log_degree)).exp2()
    }

    /// What the slots-to-coefficients transform leaves in a coefficient, relative to a message of
    /// size 1.
    pub fn slots_to_coeffs_error(&self) -> f64 {
        // The scale moves evenly from the user's to the coefficients' over the stages. The noise of
        // a stage shrinks with every layer before it, because the layers make the signal grow. The
        // plaintexts of a stage live in a subring as large as its layers reach.
        let drift = (self.bottom - self.ratio - self.scale) / self.slots_to_coeffs.len() as f64;
        let mut scale = self.scale;
        let mut layers = 0u32;
        let mut variance = 0.0;
        for level in &self.slots_to_coeffs {
            layers = layers.saturating_add(level.layers);
            scale += drift;
            variance += (self.rounding() / scale.exp2()).powi(2) / 2.0 / f64::from(layers).exp2();
            variance += plain_error(layers, level.bits + drift);
        }
        variance.sqrt()
    }

    /// What the coefficients-to-slots stages leave in a complex slot of `x`, but for the last
    /// rescale.
    pub fn coeffs_to_slots_error(&self) -> f64 {
        let output = self.input_scale - EvalMod::bound_for(self.overflow()).log2() - 1.0;
        let mut scale = self.bottom;
        let mut after = self.coeffs_to_slots.iter().fold(0u32, |sum, l| sum.saturating_add(l.layers));
        let overflow = (self.ephemeral_weight as f64 + 1.0) / 6.0;
        let mut variance = 0.0;
        for (i, level) in self.coeffs_to_slots.iter().enumerate() {
            let last = i + 1 == self.coeffs_to_slots.len();
            let next = if last { output } else { output + self.headroom };
            variance += plain_error(after, level.bits + next - scale - f64::from(level.layers)) * overflow;
            after = after.saturating_sub(level.layers);
            scale = next;
            if !last {
                variance += (self.rounding() / scale.exp2()).powi(2) / f64::from(after).exp2();
            }
        }
        variance.sqrt()
    }
}

/// Relative variance from rounding the plaintexts of a stage whose butterflies are `2^layers` wide:
/// two diagonals for each that adds to the signal.
fn plain_error(layers: u32, bits: f64) -> f64 {
    2.0 * (f64::from(layers) + 1.0).exp2() / 12.0 * (-2.0 * bits).exp2()
}

/// A family of inputs, all at full amplitude.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Real and imaginary parts uniform in [-1, 1].
    Uniform,
    /// The same value in every slot.
    Constant,
    /// One slot 1, the others 0.
    OneHot,
    /// Runs of +1 and -1.
    Blocks,
    /// Real and imaginary parts random signs.
    Maximal,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 5] = [Self::Uniform, Self::Constant, Self::OneHot, Self::Blocks, Self::Maximal];

    /// `count` values of the family.
    pub fn values(self, count: usize, rng: &mut impl Rng) -> Vec<Complex64> {
        let sign = |bit: bool| if bit { 1.0 } else { -1.0 };
        (0..count)
            .map(|j| match self {
                Self::Uniform => Complex64::new(2.0 * unit(rng) - 1.0, 2.0 * unit(rng) - 1.0),
                Self::Constant => Complex64::new(1.0, 1.0),
                Self::OneHot => Complex64::new(if j == count / 3 { 1.0 } else { 0.0 }, 0.0),
                Self::Blocks => Complex64::new(sign((j / 64) % 2 == 0), sign((j / 16) % 2 == 0)),
                Self::Maximal => Complex64::new(sign(unit(rng) < 0.5), sign(unit(rng) < 0.5)),
            })
            .collect()
    }
}

/// Precision in bits: `-log2` of the error's size.
#[derive(Clone, Copy, Debug)]
pub struct Precision {
    /// Of the worst slot.
    pub worst: f64,
    /// Mean of the slots' bits.
    pub mean: f64,
}

impl Precision {
    /// Compares two vectors slot by slot.
    pub fn between(expected: &[Complex64], found: &[Complex64]) -> Self {
        let bits: Vec<f64> =
            expected.iter().zip(found).map(|(a, b)| -(a - b).norm().max(1e-18).log2()).collect();
        let worst = bits.iter().copied().fold(f64::INFINITY, f64::min);
        Self { worst, mean: bits.iter().sum::<f64>() / bits.len() as f64 }
    }
}

/// Runs one simulated bootstrap of `values`; with `saturated`, every overflow is at its bound.
///
/// # Errors
/// As [`Profile::validate`].
pub fn bootstrap(
    profile: &Profile,
    values: &[Complex64],
    saturated: bool,
    seed: u64,
) -> Result<Vec<Complex64>, Error> {
    profile.validate()?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let circuit = profile.circuit()?;
    let bottom = profile.slots_to_coeffs_error();
    let linear = profile.coeffs_to_slots_error() / 2f64.sqrt();
    let ratio = profile.ratio.exp2();
    let raise = |m: f64, rng: &mut ChaCha8Rng| {
        let overflow = overflow(profile.ephemeral_weight, circuit.overflow(), saturated, rng);
        overflow + (m + bottom * gaussian(rng)) / ratio + linear * gaussian(rng)
    };
    let x: Vec<_> = values.iter().map(|v| [raise(v.re, &mut rng), raise(v.im, &mut rng)]).collect();
    let secret = values
        .iter()
        .map(|_| (gaussian(&mut rng).powi(2) + gaussian(&mut rng).powi(2)).sqrt() / 2f64.sqrt())
        .collect();
    let mut machine = Simulated { profile, rng, secret };
    let mut parts = [0, 1].map(|part| {
        let scale = profile.input_scale.exp2();
        let slots = x.iter().map(|x| Complex64::new(0.0, x[part] / circuit.bound())).collect();
        let input = machine.noisy(Simulacrum { slots, scale, level: profile.eval_mod.len() });
        let Ok(result) = circuit.evaluate(&mut machine, &input, profile.scale.exp2(), profile.ratio);
        result
    });
    let imaginary = parts[1].slots.clone();
    for (re, im) in parts[0].slots.iter_mut().zip(imaginary) {
        *re = Complex64::new(2.0 * re.im, 2.0 * im.im);
    }
    let [combined, _] = parts;
    let Ok(result) = machine.rescale(combined);
    let gain = result.scale / profile.scale.exp2();
    Ok(result.slots.iter().map(|v| v * gain).collect())
}

fn overflow(weight: usize, bound: u32, saturated: bool, rng: &mut ChaCha8Rng) -> f64 {
    if saturated {
        return if unit(rng) < 0.5 { f64::from(bound) } else { -f64::from(bound) };
    }
    (0..=weight).map(|_| unit(rng) - 0.5).sum::<f64>().round()
}

fn unit(rng: &mut impl Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 * (-53f64).exp2()
}

fn gaussian(rng: &mut impl Rng) -> f64 {
    (-2.0 * (1.0 - unit(rng)).ln()).sqrt() * (2.0 * PI * unit(rng)).cos()
}

/// A vector of slots with a scale and a level.
#[derive(Clone)]
struct Simulacrum {
    slots: Vec<Complex64>,
    scale: f64,
    level: usize,
}

struct Simulated<'a> {
    profile: &'a Profile,
    rng: ChaCha8Rng,
    /// Absolute value of the secret in each slot, relative to its root mean square: a rounding
    /// error is multiplied by the secret, so the same slots are the worst in every rescale.
    secret: Vec<f64>,
}

impl Simulated<'_> {
    fn noisy(&mut self, mut value: Simulacrum) -> Simulacrum {
        let deviation = self.profile.rounding() / 2f64.sqrt() / value.scale;
        for (slot, secret) in value.slots.iter_mut().zip(&self.secret) {
            *slot += Complex64::new(gaussian(&mut self.rng), gaussian(&mut self.rng)) * deviation * secret;
        }
        value
    }
}

impl ModArithmetic for Simulated<'_> {
    type Value = Simulacrum;
    type Error = Infallible;

    fn level(&self, value: &Simulacrum) -> usize {
        value.level
    }

    fn scale(&self, value: &Simulacrum) -> f64 {
        value.scale
    }

    fn divisor(&self, level: usize) -> f64 {
        self.profile.eval_mod[self.profile.eval_mod.len() - level].exp2()
    }

    fn fused(
        &mut self,
        level: usize,
        scale: f64,
        sum: &Sum<'_, Simulacrum>,
    ) -> Result<Simulacrum, Infallible> {
        let first = sum.products.first().map(|p| p.0).or(sum.linear.first().map(|l| l.1));
        let mut slots = vec![Complex64::ZERO; first.map_or(0, |value| value.slots.len())];
        for (left, right) in sum.products {
            debug_assert!((left.scale * right.scale / scale - 1.0).abs() < 1e-9);
            for ((sum, a), b) in slots.iter_mut().zip(&left.slots).zip(&right.slots) {
                *sum += a * b;
            }
        }
        slots.iter_mut().for_each(|slot| *slot = *slot * sum.weight as f64 + sum.constant);
        for (c, value) in sum.linear {
            slots.iter_mut().zip(&value.slots).for_each(|(sum, v)| *sum += v * c);
        }
        Ok(Simulacrum { slots, scale, level })
    }

    fn rescale(&mut self, mut value: Simulacrum) -> Result<Simulacrum, Infallible> {
        value.scale /= self.divisor(value.level);
        value.level -= 1;
        Ok(self.noisy(value))
    }
}
