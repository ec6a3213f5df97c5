//! Messages to plaintexts: complex slots to integer coefficients and back.

mod plaintext;

use cipherlm_ring::{Wiped, round_ties_even};
use num_complex::Complex64;

pub use plaintext::{LiftedPlaintext, Plaintext};

use crate::{Error, Params, Scale};

/// Largest coefficient of a plaintext, in bits: beyond it a message is surely a mistake.
pub(crate) const MAX_COEFFICIENT_BITS: f64 = 120.0;
/// Bits of a coefficient that are stored; the rest is a power of two common to the plaintext.
const MANTISSA_BITS: i32 = 62;

impl Plaintext {
    /// Encodes complex `values` into `slots` slots at `scale`; missing values are zero.
    ///
    /// A ciphertext of more slots sees the vector repeated with period `slots`, so a vector with a
    /// short period should be encoded with `slots` equal to that period: it then stays in a subring
    /// and costs less space and time.
    ///
    /// The encoding error of a slot is about `sqrt(slots / 6) / scale`, and not below 2^-48 of the
    /// largest value: the transform is one in double precision, so scales beyond 2^50 add room and
    /// no precision. Its last bit depends on the instructions that the FFT uses on this CPU and on
    /// the mathematics library, so coefficients can differ by a unit between machines.
    ///
    /// # Errors
    /// [`Error::BadSlots`], [`Error::TooManyValues`], [`Error::NotFinite`], [`Error::BadScale`], or
    /// [`Error::MessageOverflow`] for coefficients above 2^120.
    pub fn encode(params: &Params, values: &[Complex64], slots: usize, scale: Scale) -> Result<Self, Error> {
        encode(params, values.iter().copied(), slots, scale)
    }

    /// Encodes real `values`; see [`Plaintext::encode`].
    ///
    /// # Errors
    /// As [`Plaintext::encode`].
    pub fn encode_real(params: &Params, values: &[f64], slots: usize, scale: Scale) -> Result<Self, Error> {
        encode(params, values.iter().map(|&v| Complex64::new(v, 0.0)), slots, scale)
    }

    /// The vector with `value` in every slot (one slot, repeated).
    ///
    /// # Errors
    /// As [`Plaintext::encode`].
    pub fn constant(params: &Params, value: Complex64, scale: Scale) -> Result<Self, Error> {
        Self::encode(params, &[value], 1, scale)
    }

    /// Encodes polynomial coefficients directly (`2 * slots` of them, of the subring), without the
    /// embedding: the message is `coefficients * scale`, rounded. Bootstrapping and tests need
    /// this; messages do not.
    ///
    /// # Errors
    /// As [`Plaintext::encode`]; the list must have `2 * slots` entries.
    pub fn encode_coefficients(params: &Params, coefficients: &[f64], scale: Scale) -> Result<Self, Error> {
        let slots = coefficients.len() / 2;
        params.check_slots(slots)?;
        if let Some(index) = coefficients.iter().position(|v| !v.is_finite()) {
            return Err(Error::NotFinite { index });
        }
        check_scale("encode", scale)?;
        let factor = scale.to_f64();
        quantise(params, || coefficients.iter().map(|c| c * factor), slots, scale)
    }

    /// Slot values of the plaintext (public data: what was encoded, up to rounding).
    pub fn decode(&self) -> Vec<Complex64> {
        let coefficients: Wiped<f64> = self.coefficients().collect();
        self.params().embedding(self.slots()).values(&coefficients, 1, 1.0 / self.scale().to_f64())
    }
}

fn encode(
    params: &Params,
    values: impl ExactSizeIterator<Item = Complex64> + Clone,
    slots: usize,
    scale: Scale,
) -> Result<Plaintext, Error> {
    params.check_slots(slots)?;
    if values.len() > slots {
        return Err(Error::TooManyValues { given: values.len(), slots });
    }
    if let Some(index) = values.clone().position(|v| !v.is_finite()) {
        return Err(Error::NotFinite { index });
    }
    check_scale("encode", scale)?;
    let embedding = params.embedding(slots);
    let coefficients = embedding.coefficients(values, scale.to_f64());
    quantise(params, || coefficients.iter(), slots, scale)
}

pub(crate) fn check_scale(operation: &'static str, scale: Scale) -> Result<(), Error> {
    let log2 = if scale.is_usable() { scale.log2() } else { f64::NAN };
    if (0.0..=MAX_COEFFICIENT_BITS).contains(&log2) {
        return Ok(());
    }
    Err(Error::BadScale { operation, log2, min: 0.0, max: MAX_COEFFICIENT_BITS })
}

/// The largest absolute value. Infinite if there is a NaN, which comparisons and `f64::max` would
/// let pass: values near the limit of floats have sums that overflow, and differences of those.
pub(crate) fn largest(values: impl Iterator<Item = f64>) -> f64 {
    // Absolute values are ordered as their bits are, with NaN at the top.
    let top = values.fold(0, |top, x| top.max(x.abs().to_bits()));
    let largest = f64::from_bits(top);
    if largest.is_nan() { f64::INFINITY } else { largest }
}

/// Rounds to integers, keeping 62 bits of the largest one.
fn quantise<I: Iterator<Item = f64>>(
    params: &Params,
    coefficients: impl Fn() -> I,
    slots: usize,
    scale: Scale,
) -> Result<Plaintext, Error> {
    let largest = largest(coefficients());
    let log2 = largest.log2();
    if largest != 0.0 && log2 >= MAX_COEFFICIENT_BITS {
        return Err(Error::MessageOverflow {
            operation: "encode",
            coefficient: log2,
            modulus: MAX_COEFFICIENT_BITS,
        });
    }
    let shift = (log2.max(0.0).ceil() as i32 + 1 - MANTISSA_BITS).max(0);
    let down = 2f64.powi(-shift);
    let integers = coefficients().map(|c| round_ties_even(c * down) as i64).collect();
    Ok(Plaintext::from_integers(params.clone(), integers, shift as u32, slots, scale))
}
