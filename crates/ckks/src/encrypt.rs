//! Encryption and decryption, and the two ways out of a decrypted value.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cipherlm_ring::{Eval, Limbs, Poly, Secret, Seed, SmallCoeffs, Stream, sample};
use num_complex::Complex64;
use zeroize::Zeroizing;

use crate::encode::Plaintext;
use crate::keys::{PublicKey, SecretKey};
use crate::secrecy::finish;
use crate::{Ciphertext, Error, Params, Scale};

/// Bits above the scale that decryption reconstructs: values beyond 2^50 times the scale are garbage in any case.
const HEADROOM_BITS: f64 = 50.0;

impl SecretKey {
    /// Encrypts at `level` and the scale of the plaintext. The result keeps the seed of its second half, so it takes half
    /// the space in a file; its noise is 3.2 a coefficient.
    ///
    /// # Errors
    /// [`Error::LevelOutOfRange`], [`Error::ParamsMismatch`], [`Error::MessageOverflow`] if the message does not fit the
    /// level, [`Error::Insecure`] for a sparse secret at too high a level.
    pub fn encrypt(&self, plaintext: &Plaintext, level: usize) -> Result<Ciphertext, Error> {
        self.encrypt_with_seed(plaintext, level, &Seed::random()?)
    }

    /// As [`SecretKey::encrypt`] with randomness of the caller's. The seed is bound to key, level and message: the same call
    /// gives the same ciphertext, which shows that the message is the same, and any other call shares nothing with it. It
    /// must be as secret as the key.
    ///
    /// # Errors
    /// As [`SecretKey::encrypt`].
    pub fn encrypt_with_seed(&self, plaintext: &Plaintext, level: usize, seed: &Seed) -> Result<Ciphertext, Error> {
        let params = self.params();
        params.check_same("encrypt", plaintext.params())?;
        params.check_level("encrypt", level)?;
        self.check_modulus("ciphertext", params.log_q(level))?;
        let limbs = params.limbs(level);
        let seed = bound_seed("secret key", seed, self.id(), plaintext, level);
        // The published seed is derived, and says nothing about that of the error.
        let public = *seed.derive("public half", 0).expose();
        let c1 = fresh_half(params, limbs, &public)?;
        let error = sample::gaussian(&mut Stream::new(&seed, "error", 0), params.degree());
        let mut c0 = error.to_poly(params.ring(), limbs)?.into_eval();
        let product = Secret::new(Poly::mul(&c1, self.eval_all())?);
        c0.expose_mut().sub_assign(product.expose())?;
        let lifted = plaintext.lift(limbs)?;
        lifted.add_to(c0.expose_mut(), false)?;
        let parts = vec![c0.publish(), c1];
        Ok(ciphertext(params, self.id(), parts, level, plaintext, Some(public)))
    }

    /// Decrypts. The result can be used at once, but not stored or sent: see [`Decrypted`].
    ///
    /// # Errors
    /// [`Error::KeyMismatch`] or [`Error::ParamsMismatch`] for a ciphertext of another key or parameter set.
    pub fn decrypt(&self, ciphertext: &Ciphertext) -> Result<Decrypted, Error> {
        let params = self.params();
        params.check_same("decrypt", &ciphertext.params)?;
        if ciphertext.key_id != self.id() {
            return Err(Error::KeyMismatch { operation: "decrypt", left: ciphertext.key_id, right: self.id() });
        }
        let limbs = needed_limbs(params, ciphertext);
        let s = self.eval_all();
        // Horner: (c2 s + c1) s + c0.
        let [lower @ .., top] = ciphertext.parts.as_slice() else {
            return Err(Error::NotLinear { operation: "decrypt", parts: 0 });
        };
        let mut message = Secret::new(top.keep(&limbs)?);
        for part in lower.iter().rev() {
            message.expose_mut().mul_assign(s)?;
            message.expose_mut().add_assign(part)?;
        }
        let coefficients = message.into_coeff().expose().to_f64();
        Ok(Decrypted {
            params: params.clone(),
            coefficients,
            scale: ciphertext.scale,
            slots: ciphertext.slots,
            released: self.released.clone(),
        })
    }

    /// Squared sizes of the secret's own slots, relative to their mean: how much worse than the average slot each one rounds.
    pub(crate) fn slot_profile(&self) -> Result<Zeroizing<Vec<f64>>, Error> {
        let params = self.params();
        let coefficients = Secret::new(self.eval_all().keep(params.limbs(0))?).into_coeff().expose().to_f64();
        let as_message = Decrypted {
            params: params.clone(),
            coefficients,
            scale: Scale::ONE,
            slots: params.slots(),
            released: self.released.clone(),
        };
        let mut profile: Zeroizing<Vec<f64>> =
            Zeroizing::new(as_message.decode().as_slice().iter().map(|slot| slot.norm_sqr()).collect());
        let mean = profile.iter().sum::<f64>() / profile.len() as f64;
        profile.iter_mut().for_each(|square| *square /= mean);
        Ok(profile)
    }
}

impl PublicKey {
    /// Encrypts at `level` and the scale of the plaintext; the noise is about `3.2 sqrt(4N/3)` a coefficient.
    ///
    /// # Errors
    /// As [`SecretKey::encrypt`].
    pub fn encrypt(&self, plaintext: &Plaintext, level: usize) -> Result<Ciphertext, Error> {
        self.encrypt_with_seed(plaintext, level, &Seed::random()?)
    }

    /// As [`PublicKey::encrypt`] with randomness of the caller's, bound as by [`SecretKey::encrypt_with_seed`]. The seed must
    /// be kept secret.
    ///
    /// # Errors
    /// As [`SecretKey::encrypt`].
    pub fn encrypt_with_seed(&self, plaintext: &Plaintext, level: usize, seed: &Seed) -> Result<Ciphertext, Error> {
        let params = &self.params;
        params.check_same("encrypt", plaintext.params())?;
        params.check_level("encrypt", level)?;
        let (ring, limbs) = (params.ring(), params.limbs(level));
        let seed = bound_seed("public key", seed, self.id, plaintext, level);
        let stream = |label| Stream::new(&seed, label, 0);
        let spread = |small: SmallCoeffs| -> Result<_, Error> { Ok(small.to_poly(ring, limbs)?.into_eval()) };
        let u = spread(sample::ternary(&mut stream("ephemeral secret"), params.degree()))?;
        let mut c0 = spread(sample::gaussian(&mut stream("first error"), params.degree()))?;
        let mut c1 = spread(sample::gaussian(&mut stream("second error"), params.degree()))?;
        c0.expose_mut().mul_add_assign(u.expose(), &self.b)?;
        c1.expose_mut().mul_add_assign(u.expose(), &self.a)?;
        plaintext.lift(limbs)?.add_to(c0.expose_mut(), false)?;
        let parts = vec![c0.publish(), c1.publish()];
        Ok(ciphertext(params, self.id, parts, level, plaintext, None))
    }
}

/// A decrypted message, noise included. It cannot be cloned, printed or serialised.
///
/// The low bits of an approximate decryption depend on the secret key: whoever sees enough of them exactly can solve for
/// it (Li and Micciancio, "On the security of homomorphic encryption on approximate numbers"). [`Decrypted::decode`] is
/// for the owner of the key alone; what leaves the process goes through [`Decrypted::decode_public`] or
/// [`Decrypted::decode_flooded`].
///
/// ```compile_fail
/// fn print<T: std::fmt::Debug>(x: &T) { println!("{x:?}"); }
/// fn leak(decrypted: &cipherlm_ckks::Decrypted) { print(decrypted); }
/// ```
pub struct Decrypted {
    params: Params,
    coefficients: Vec<f64>,
    scale: Scale,
    slots: usize,
    released: Arc<AtomicU64>,
}

impl Decrypted {
    /// The slot values with their noise, for the owner of the key.
    pub fn decode(&self) -> DecodedSlots {
        DecodedSlots(self.slots_exact())
    }

    /// The slot values rounded to multiples of 2^-`bits`, safe to show if `error_bound` bounds the error of every slot
    /// in the worst case.
    ///
    /// Rounding hides the noise of a slot unless its value lies within `error_bound` of the middle between two
    /// multiples, so at least 4 bits of distance are required; for released values that an attacker can choose or that
    /// are many, use [`Decrypted::decode_flooded`].
    ///
    /// # Errors
    /// [`Error::Sharing`] if the bound does not leave `bits` bits.
    pub fn decode_public(&self, bits: f64, error_bound: f64) -> Result<Vec<Complex64>, Error> {
        check_sharing(bits, error_bound, 4.0)?;
        Ok(round_all(self.slots_exact(), bits))
    }

    /// The slot values with Gaussian noise of `sqrt(12 queries) 2^(security / 2) error_bound` added and rounded to
    /// multiples of 2^-`bits`; refuses after `queries` results of one key.
    ///
    /// The size is that of Li, Micciancio, Schultz and Sorrell, "Securing approximate homomorphic encryption using
    /// differential privacy". `security` is the statistical security in bits, at least 30.
    ///
    /// # Errors
    /// [`Error::Sharing`] if the key has released `queries` results, `security` is below 30, or the noise does not leave
    /// `bits` bits.
    pub fn decode_flooded(
        &self,
        bits: f64,
        error_bound: f64,
        security: u32,
        queries: u32,
    ) -> Result<Vec<Complex64>, Error> {
        let sigma = (12.0 * f64::from(queries)).sqrt() * (f64::from(security) / 2.0).exp2() * error_bound;
        if security < 30 {
            let reason = "flooding needs a statistical security of at least 30 bits";
            return Err(Error::Sharing { asked: bits, allowed: 0.0, reason });
        }
        check_sharing(bits, sigma, 0.0)?;
        let counted = self
            .released
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |used| (used < u64::from(queries)).then_some(used + 1));
        if counted.is_err() {
            let reason = "the number of results for which this key's flooding was sized is used up";
            return Err(Error::Sharing { asked: bits, allowed: 0.0, reason });
        }
        let seed = Seed::random()?;
        let mut stream = Stream::new(&seed, "flooding", 0);
        let mut values = self.slots_exact();
        for v in &mut values {
            let (re, im) = gaussian_pair(&mut stream);
            *v += Complex64::new(re, im) * sigma;
        }
        Ok(round_all(values, bits))
    }

    fn slots_exact(&self) -> Vec<Complex64> {
        let gap = self.params.degree() / (2 * self.slots);
        let factor = 1.0 / self.scale.to_f64();
        if gap == 1 {
            return self.params.embedding(self.slots).values(&self.coefficients, factor);
        }
        let coefficients: Vec<f64> = self.coefficients.iter().step_by(gap).copied().collect();
        self.params.embedding(self.slots).values(&coefficients, factor)
    }
}

impl Drop for Decrypted {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.coefficients);
    }
}

/// Slot values straight from decryption, for the owner of the secret key; see [`Decrypted`] for why it does not print or
/// serialise.
///
/// ```compile_fail
/// fn send<T: serde::Serialize>(x: &T) -> usize { size_of_val(x) }
/// fn leak(decoded: &cipherlm_ckks::DecodedSlots) { send(decoded); }
/// ```
pub struct DecodedSlots(Vec<Complex64>);

impl DecodedSlots {
    /// The values. Copies of them are as sensitive as this is.
    pub fn as_slice(&self) -> &[Complex64] {
        &self.0
    }

    /// The real parts.
    pub fn real(&self) -> Vec<f64> {
        self.0.iter().map(|v| v.re).collect()
    }
}

/// The caller's seed bound to all that an encryption depends on, so that no two encryptions share randomness.
fn bound_seed(kind: &str, seed: &Seed, key_id: crate::KeyId, plaintext: &Plaintext, level: usize) -> Seed {
    let mut hasher = blake3::Hasher::new_derive_key("cipherlm-ckks 2 encryption seed");
    hasher.update(seed.expose()).update(plaintext.params().hash().as_bytes()).update(key_id.as_bytes());
    hasher.update(&(level as u64).to_le_bytes()).update(&(kind.len() as u64).to_le_bytes()).update(kind.as_bytes());
    plaintext.hash_into(&mut hasher);
    finish(hasher)
}

/// The public half of a seeded ciphertext.
pub(crate) fn fresh_half(params: &Params, limbs: &Limbs, seed: &[u8; 32]) -> Result<Poly<Eval>, Error> {
    Ok(sample::uniform(params.ring(), limbs, &Seed::from_bytes(*seed), "fresh ciphertext", 0)?)
}

fn ciphertext(
    params: &Params,
    key_id: crate::KeyId,
    parts: Vec<Poly<Eval>>,
    level: usize,
    plaintext: &Plaintext,
    seed: Option<[u8; 32]>,
) -> Ciphertext {
    let (scale, slots) = (plaintext.scale(), plaintext.slots());
    Ciphertext { params: params.clone(), key_id, parts, level, scale, slots, seed }
}

/// The lowest limbs that hold the scale and the headroom.
fn needed_limbs(params: &Params, ciphertext: &Ciphertext) -> Limbs {
    let limbs = params.limbs(ciphertext.level);
    let need = ciphertext.scale.log2() + HEADROOM_BITS;
    let mut bits = 0.0;
    let count = limbs.iter().take_while(|&i| {
        let more = bits < need;
        bits += (params.prime(i) as f64).log2();
        more
    });
    limbs.first(count.count())
}

/// Refuses to show more bits than `error` leaves, less a `margin`.
fn check_sharing(bits: f64, error: f64, margin: f64) -> Result<(), Error> {
    let allowed = -error.log2() - margin;
    let reason = "the error bound does not leave that many bits";
    if error.is_finite() && error > 0.0 && bits <= allowed {
        Ok(())
    } else {
        Err(Error::Sharing { asked: bits, allowed, reason })
    }
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
