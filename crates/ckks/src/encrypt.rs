//! Encryption and decryption.

use cipherlm_ring::{Eval, Limbs, Poly, Secret, Seed, SmallCoeffs, Stream, Wiped, sample, wipe};

use crate::decrypted::Decrypted;
use crate::encode::{Plaintext, largest};
use crate::keys::{PublicKey, SecretKey};
use crate::secrecy::finish;
use crate::{Ciphertext, Error, Params};

/// Bits above the scale that decryption reconstructs at first, from a few limbs.
const HEADROOM_BITS: f64 = 50.0;
/// Bits of these that a message must leave unused. A message that outgrew the few limbs has
/// coefficients all over their modulus, and is then taken from all limbs.
const SPARE_BITS: f64 = 20.0;
/// Part of the modulus, in bits, that no message may use: 1/8. A message that wrapped around has
/// coefficients there.
const ROOM_BITS: f64 = 0.193;

impl SecretKey {
    /// Encrypts at `level` and the scale of the plaintext. The result keeps the seed of its second
    /// half, so it takes half the space in a file; its noise is 3.2 a coefficient.
    ///
    /// # Errors
    /// [`Error::LevelOutOfRange`], [`Error::ParamsMismatch`], [`Error::MessageOverflow`] if the
    /// message does not fit the level, [`Error::Insecure`] for a sparse secret at too high a level.
    pub fn encrypt(&self, plaintext: &Plaintext, level: usize) -> Result<Ciphertext, Error> {
        self.encrypt_with_seed(plaintext, level, &Seed::random()?)
    }

    /// As [`SecretKey::encrypt`] with randomness of the caller's. The seed is bound to key, level
    /// and message: the same call gives the same ciphertext, which shows that the message is the
    /// same, and any other call shares nothing with it. It must be as secret as the key.
    ///
    /// # Errors
    /// As [`SecretKey::encrypt`].
    pub fn encrypt_with_seed(
        &self,
        plaintext: &Plaintext,
        level: usize,
        seed: &Seed,
    ) -> Result<Ciphertext, Error> {
        let params = self.params();
        params.check_same("encrypt", plaintext.params())?;
        params.check_level("encrypt", level)?;
        self.check_modulus("ciphertext", params.log_q(level))?;
        let limbs = params.limbs(level);
        plaintext.check_fits("encrypt", limbs, ROOM_BITS)?;
        let seed = bound_seed("secret key", seed, self.id(), plaintext, level);
        // The published seed is derived, and says nothing about that of the error.
        let public = *seed.derive("public half", 0).expose();
        let c1 = fresh_half(params, limbs, &public)?;
        let error = sample::gaussian(&mut Stream::new(&seed, "error", 0), params.degree());
        let mut c0 = plaintext.with_error(&error, limbs)?;
        let product = Secret::new(Poly::mul(&c1, self.eval_all())?);
        c0.expose_mut().sub_assign(product.expose())?;
        let parts = vec![c0.publish(), c1];
        Ok(ciphertext(params, self.id(), parts, level, plaintext, Some(public)))
    }

    /// Decrypts. The result can be used at once, but not stored or sent: see [`Decrypted`].
    ///
    /// # Errors
    /// [`Error::KeyMismatch`] or [`Error::ParamsMismatch`] for a ciphertext of another key or
    /// parameter set; [`Error::MessageOverflow`] if a coefficient of the message comes within an
    /// eighth of half the modulus of the level, so that the message has wrapped around, is about
    /// to, or is drowned in noise.
    pub fn decrypt(&self, ciphertext: &Ciphertext) -> Result<Decrypted, Error> {
        let params = self.params();
        params.check_same("decrypt", &ciphertext.params)?;
        if ciphertext.key_id != self.id() {
            return Err(Error::KeyMismatch {
                operation: "decrypt",
                left: ciphertext.key_id,
                right: self.id(),
            });
        }
        let all = params.limbs(ciphertext.level);
        let few = needed_limbs(params, ciphertext);
        let mut coefficients = self.phase(ciphertext, &few)?;
        let mut coefficient = largest(coefficients.iter().copied()).log2();
        if few.len() < all.len() && coefficient >= params.log_of(&few) - SPARE_BITS {
            coefficients = self.phase(ciphertext, all)?;
            coefficient = largest(coefficients.iter().copied()).log2();
        }
        let modulus = params.log_of(all);
        // Slots are sums of coefficients over the scale, and must be numbers too.
        let slot = coefficient - ciphertext.scale.log2() + f64::from(params.log_degree());
        if coefficient >= modulus - 1.0 - ROOM_BITS || slot >= f64::from(f64::MAX_EXP) {
            return Err(Error::MessageOverflow { operation: "decrypt", coefficient, modulus });
        }
        let (scale, slots) = (ciphertext.scale, ciphertext.slots);
        Ok(Decrypted { params: params.clone(), key_id: self.id(), coefficients, scale, slots })
    }

    /// `c0 + c1 s + c2 s^2` modulo some limbs, centred.
    fn phase(&self, ciphertext: &Ciphertext, limbs: &Limbs) -> Result<Wiped<f64>, Error> {
        let s = self.eval_all();
        // Horner: (c2 s + c1) s + c0.
        let [lower @ .., top] = ciphertext.parts.as_slice() else {
            return Err(Error::NotLinear { operation: "decrypt", parts: 0 });
        };
        let mut message = Secret::new(top.keep(limbs)?);
        for part in lower.iter().rev() {
            message.expose_mut().mul_assign(s)?;
            message.expose_mut().add_assign(part)?;
        }
        Ok(message.into_coeff().to_f64())
    }

    /// Squared sizes of the secret's own slots, relative to their mean: how much worse than the
    /// average slot each one rounds.
    pub(crate) fn slot_profile(&self) -> Result<Wiped<f64>, Error> {
        let params = self.params();
        let coefficients = Secret::new(self.eval_all().keep(params.limbs(0))?).into_coeff().to_f64();
        let mut slots = params.embedding(params.slots()).values(&coefficients, 1, 1.0);
        let mut profile: Wiped<f64> = slots.iter().map(|slot| slot.norm_sqr()).collect();
        wipe(&mut slots);
        let mean = profile.iter().sum::<f64>() / profile.len() as f64;
        profile.iter_mut().for_each(|square| *square /= mean);
        Ok(profile)
    }
}

impl PublicKey {
    /// Encrypts at `level` and the scale of the plaintext; the noise is about `3.2 sqrt(4N/3)` a
    /// coefficient.
    ///
    /// # Errors
    /// As [`SecretKey::encrypt`].
    pub fn encrypt(&self, plaintext: &Plaintext, level: usize) -> Result<Ciphertext, Error> {
        self.encrypt_with_seed(plaintext, level, &Seed::random()?)
    }

    /// As [`PublicKey::encrypt`] with randomness of the caller's, bound as by
    /// [`SecretKey::encrypt_with_seed`]. The seed must be kept secret.
    ///
    /// # Errors
    /// As [`SecretKey::encrypt`].
    pub fn encrypt_with_seed(
        &self,
        plaintext: &Plaintext,
        level: usize,
        seed: &Seed,
    ) -> Result<Ciphertext, Error> {
        let params = &self.params;
        params.check_same("encrypt", plaintext.params())?;
        params.check_level("encrypt", level)?;
        let (ring, limbs) = (params.ring(), params.limbs(level));
        plaintext.check_fits("encrypt", limbs, ROOM_BITS)?;
        let seed = bound_seed("public key", seed, self.id, plaintext, level);
        let stream = |label| Stream::new(&seed, label, 0);
        let spread = |small: SmallCoeffs| -> Result<_, Error> { Ok(small.to_poly(ring, limbs)?.into_eval()) };
        let u = spread(sample::ternary(&mut stream("ephemeral secret"), params.degree()))?;
        let mut c0 =
            plaintext.with_error(&sample::gaussian(&mut stream("first error"), params.degree()), limbs)?;
        let mut c1 = spread(sample::gaussian(&mut stream("second error"), params.degree()))?;
        c0.expose_mut().mul_add_assign(u.expose(), &self.b)?;
        c1.expose_mut().mul_add_assign(u.expose(), &self.a)?;
        let parts = vec![c0.publish(), c1.publish()];
        Ok(ciphertext(params, self.id, parts, level, plaintext, None))
    }
}

/// The caller's seed bound to all that an encryption depends on, so that no two encryptions share
/// randomness.
fn bound_seed(kind: &str, seed: &Seed, key_id: crate::KeyId, plaintext: &Plaintext, level: usize) -> Seed {
    let mut hasher = blake3::Hasher::new_derive_key("cipherlm-ckks 2 encryption seed");
    hasher.update(seed.expose()).update(plaintext.params().hash().as_bytes()).update(key_id.as_bytes());
    hasher
        .update(&(level as u64).to_le_bytes())
        .update(&(kind.len() as u64).to_le_bytes())
        .update(kind.as_bytes());
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
        bits += params.log_of(&Limbs::range(i..i + 1));
        more
    });
    limbs.first(count.count())
}
