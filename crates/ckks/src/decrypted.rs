//! Decrypted messages, and the ways out of them.

use cipherlm_ring::{Seed, Stream, Wiped, wipe};
use num_complex::Complex64;

use crate::noise::{NoiseModel, Prediction};
use crate::sharing::Sharing;
use crate::{Error, KeyId, Params, Scale};

/// Bits between the error bound and half a step of rounding that [`Decrypted::decode_public`]
/// insists on.
const LEAST_MARGIN: f64 = 4.0;
/// The margin of [`Decrypted::public_bits`].
const PUBLIC_MARGIN: f64 = 16.0;
/// Precisions that a float can be rounded to without leaving its range.
const ROUNDING_BITS: f64 = 500.0;

/// A bound on the error of every slot of a result, complex modulus, in units of the message.
///
/// Take it from a [`Prediction`]: that of the noise machine for the circuit, as in
/// `decrypted.decode_public(bits, machine_result.prediction())`. A number of the caller's is
/// accepted if it is not below the error of a single fresh encryption at the scale of the result,
/// which no circuit can undercut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ErrorBound(f64);

impl From<f64> for ErrorBound {
    fn from(bound: f64) -> Self {
        Self(bound)
    }
}

impl From<Prediction> for ErrorBound {
    fn from(prediction: Prediction) -> Self {
        Self(prediction.worst)
    }
}

/// A decrypted message, noise included. It cannot be cloned, printed or serialised, and is wiped on
/// drop.
///
/// The low bits of an approximate decryption depend on the secret key: whoever sees enough of them
/// exactly can solve for it (Li and Micciancio, "On the security of homomorphic encryption on
/// approximate numbers"). [`Decrypted::decode`] is for the owner of the key alone. Two ways lead
/// outside: [`Decrypted::decode_public`] for a few values that nobody could choose,
/// [`Decrypted::decode_flooded`] for everything else.
///
/// ```
/// use cipherlm_ckks::{Plaintext, Scale, SecretKey, SharingContract, presets};
/// let params = presets::insecure::small(256, 49.0, 2)?;
/// let secret = SecretKey::generate(&params)?;
/// let message = Plaintext::encode_real(&params, &[0.25], 4, Scale::from_log2(60))?;
/// let decrypted = secret.decrypt(&secret.encrypt(&message, 2)?)?;
/// let error = 2f64.powi(-48); // of the whole circuit, from the noise machine
/// let shown = decrypted.decode_public(decrypted.public_bits(error)?, error)?;
/// assert_eq!(shown[0].re, 0.25);
/// // Two results of this key in all, hidden with 30 bits.
/// let sharing = secret.sharing_in_this_process(SharingContract::new(30, 2)?)?;
/// let given = decrypted.decode_flooded(8.0, error, &sharing)?;
/// assert!((given[0].re - 0.25).abs() < 0.01 && sharing.left()? == 1);
/// # Ok::<(), cipherlm_ckks::Error>(())
/// ```
///
/// ```compile_fail,E0277
/// fn print<T: std::fmt::Debug>(x: &T) { println!("{x:?}"); }
/// fn leak(decrypted: &cipherlm_ckks::Decrypted) { print(decrypted); }
/// ```
pub struct Decrypted {
    pub(crate) params: Params,
    pub(crate) key_id: KeyId,
    pub(crate) coefficients: Wiped<f64>,
    pub(crate) scale: Scale,
    pub(crate) slots: usize,
}

impl Decrypted {
    /// The slot values with their noise, for the owner of the key.
    pub fn decode(&self) -> DecodedSlots {
        DecodedSlots(self.slots_exact())
    }

    /// The slot values rounded to multiples of 2^-`bits`.
    ///
    /// What this gives: if `error` bounds the error, a component is the rounding of the exact
    /// result, and so says nothing of the noise, unless the exact component lies within `error` of
    /// the middle between two multiples. **In such a boundary component the noise decides**, and
    /// each of them can tell about one bit of the noise. Of components spread evenly, a part of
    /// `2^(bits + 1) error` are boundary components: one in eight at the least distance that is
    /// accepted, 4 bits, and one in 2^15 at that of [`Decrypted::public_bits`]. Whoever chooses
    /// messages can choose them at boundaries.
    ///
    /// So this is for showing a few values of one's own messages. Results that others choose or
    /// collect go through [`Decrypted::decode_flooded`]; nothing is counted here.
    ///
    /// # Errors
    /// [`Error::Sharing`] if the bound does not leave `bits` bits and 4 more, [`Error::ErrorBound`]
    /// if it is below the error of a fresh encryption.
    pub fn decode_public(&self, bits: f64, error: impl Into<ErrorBound>) -> Result<Vec<Complex64>, Error> {
        check_sharing(bits, self.checked(error.into())?, LEAST_MARGIN)?;
        Ok(round_all(self.slots_exact(), bits))
    }

    /// The bits that [`Decrypted::decode_public`] may show with a distance of 16 bits to the error,
    /// where one component in 2^15 is a boundary component.
    ///
    /// # Errors
    /// [`Error::ErrorBound`] if the bound is below the error of a fresh encryption.
    pub fn public_bits(&self, error: impl Into<ErrorBound>) -> Result<f64, Error> {
        Ok((-self.checked(error.into())?.log2() - PUBLIC_MARGIN).floor())
    }

    /// The slot values with Gaussian noise of `sqrt(12 releases slots) 2^(security / 2) error` in
    /// each real component, rounded to multiples of 2^-`bits`. Counts one release.
    ///
    /// The noise hides the error of all slots together: Li, Micciancio, Schultz and Sorrell,
    /// "Securing approximate homomorphic encryption using differential privacy", where the bound is
    /// one on the norm of the whole vector, which is `sqrt(slots)` times the bound `error` on one
    /// slot. Security and number of releases are those of the key's [`Sharing`].
    ///
    /// # Errors
    /// [`Error::Sharing`] if the noise does not leave `bits` bits, [`Error::SharingSpent`] if the
    /// releases are used up, [`Error::ErrorBound`] for an impossible bound, [`Error::KeyMismatch`]
    /// for the sharing of another key, and as counting.
    pub fn decode_flooded(
        &self,
        bits: f64,
        error: impl Into<ErrorBound>,
        sharing: &Sharing,
    ) -> Result<Vec<Complex64>, Error> {
        let (left, right) = (self.key_id, sharing.key_id());
        if left != right {
            return Err(Error::KeyMismatch { operation: "decode_flooded", left, right });
        }
        let sigma = sharing.contract().noise(self.slots) * self.checked(error.into())?;
        check_sharing(bits, sigma, 0.0)?;
        let seed = Seed::random()?;
        sharing.take()?;
        let mut stream = Stream::new(&seed, "flooding", 0);
        let mut values = self.slots_exact();
        for v in &mut values {
            let (re, im) = gaussian_pair(&mut stream);
            *v += Complex64::new(re, im) * sigma;
        }
        Ok(round_all(values, bits))
    }

    /// A usable bound, not below the error of any ciphertext of this scale.
    fn checked(&self, error: ErrorBound) -> Result<f64, Error> {
        let least = self.least_error();
        if error.0.is_finite() && error.0 >= least {
            return Ok(error.0);
        }
        Err(Error::ErrorBound { bound: error.0, least })
    }

    /// About the largest of the slot errors of a fresh encryption, or of one rescale if that is
    /// less.
    fn least_error(&self) -> f64 {
        let model = NoiseModel::new(&self.params);
        let full = model.fresh(self.scale).min(model.rounding(self.scale).mean);
        // Of `N` coefficients, a vector of few slots sees two for each slot.
        let variance = full * self.slots as f64 / self.params.slots() as f64;
        (variance * (self.slots as f64).ln().max(1.0)).sqrt()
    }

    fn slots_exact(&self) -> Vec<Complex64> {
        let gap = self.params.degree() / (2 * self.slots);
        let factor = 1.0 / self.scale.to_f64();
        self.params.embedding(self.slots).values(&self.coefficients, gap, factor)
    }
}

/// Slot values straight from decryption, for the owner of the secret key; see [`Decrypted`] for why
/// it does not print or serialise. Wiped on drop.
///
/// ```compile_fail,E0277
/// fn send<T: serde::Serialize>(x: &T) -> usize { size_of_val(x) }
/// fn leak(decoded: &cipherlm_ckks::DecodedSlots) { send(decoded); }
/// ```
pub struct DecodedSlots(Vec<Complex64>);

impl DecodedSlots {
    /// The values. Copies of them are as sensitive as this is.
    pub fn as_slice(&self) -> &[Complex64] {
        &self.0
    }

    /// The real parts. They are as sensitive as this is, and not wiped.
    pub fn real(&self) -> Vec<f64> {
        self.0.iter().map(|v| v.re).collect()
    }
}

impl Drop for DecodedSlots {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// Refuses to show more bits than `error` leaves, less a `margin`.
fn check_sharing(bits: f64, error: f64, margin: f64) -> Result<(), Error> {
    let allowed = -error.log2() - margin;
    if bits.abs() <= ROUNDING_BITS && bits <= allowed {
        return Ok(());
    }
    Err(Error::Sharing { asked: bits, allowed, reason: "the error bound does not leave that many bits" })
}

fn round_all(mut values: Vec<Complex64>, bits: f64) -> Vec<Complex64> {
    let unit = bits.floor().exp2();
    for v in &mut values {
        *v = Complex64::new((v.re * unit).round() / unit, (v.im * unit).round() / unit);
    }
    values
}

/// Two standard normal deviates (Box and Muller).
fn gaussian_pair(stream: &mut Stream) -> (f64, f64) {
    let mut uniform = || ((stream.next_u64() >> 11) as f64 + 0.5) * 2f64.powi(-53);
    let radius = (-2.0 * uniform().ln()).sqrt();
    let angle = 2.0 * std::f64::consts::PI * uniform();
    (radius * angle.cos(), radius * angle.sin())
}
