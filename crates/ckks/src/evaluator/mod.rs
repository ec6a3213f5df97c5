//! Arithmetic on ciphertexts.
//!
//! An [`Evaluator`] is a parameter set and a source of keys, nothing else: it has no state, so any
//! number of threads can share one. Every operation states what it does to level and scale; no
//! operation changes either silently.

mod arith;
mod extended;
mod fused;
mod key_product;
mod keyswitch;
mod product;
mod rotate;
mod rows;
mod subring;

use num_complex::Complex64;

pub use extended::ExtendedCiphertext;
pub use keyswitch::Hoisted;
pub use rows::Columns;

use crate::keys::{EvaluationKeys, KeySet};
use crate::{Ciphertext, Error, Params, Scale};

/// Evaluates circuits on ciphertexts with the public keys of their owner.
///
/// ```
/// use cipherlm_ckks::{Ciphertext, Error, Evaluator, GaloisElement, KeyRequest};
/// use cipherlm_ckks::{Plaintext, SecretKey, presets};
/// let params = presets::insecure::small(1 << 10, 40.0, 3)?; // see `presets` for secure ones
/// let secret = SecretKey::generate(&params)?;
/// let keys = secret.key_set(KeyRequest::new().relin(3).rotations(&params, [1, 2], 3))?;
/// let evaluator = Evaluator::new(&params, keys);
/// let scale = params.default_scale(3);
/// let plain = |values: [f64; 4]| Plaintext::encode_real(&params, &values, 4, scale);
/// let x = secret.encrypt(&plain([1.0, 2.0, 3.0, 4.0])?, 3)?;
/// let y = secret.public_key()?.encrypt(&plain([0.5; 4])?, 3)?;
/// let is = |found: &Ciphertext, values: [f64; 4]| -> Result<bool, Error> {
///     let found = secret.decrypt(found)?.decode().real();
///     Ok(found.iter().zip(values).all(|(a, b)| (a - b).abs() < 1e-3))
/// };
/// assert!(is(&evaluator.sub_plain(&x, &plain([1.0; 4])?)?, [0.0, 1.0, 2.0, 3.0])?);
/// assert!(is(&evaluator.mul_relin_rescale(&x, &y)?, [0.5, 1.0, 1.5, 2.0])?);
/// // A sum of products is relinearised and rescaled once.
/// assert!(is(&evaluator.mul_sum_rescale(&[(&x, &y), (&y, &y)])?, [0.75, 1.25, 1.75, 2.25])?);
/// // A plaintext of several products is transformed once.
/// let half = plain([0.5; 4])?.lift(params.limbs(3))?;
/// let mut sum = evaluator.mul_lifted(&x, &half)?;
/// evaluator.mul_lifted_add(&mut sum, &y, &half)?;
/// assert!(is(&evaluator.rescale(&sum)?, [0.75, 1.25, 1.75, 2.25])?);
/// assert!(is(&evaluator.inner_sum(&x, 1, 4)?, [10.0; 4])?);
/// // One key for several ciphertexts is read once.
/// let turned = evaluator.rotate_many_ciphertexts(&[&x, &y], GaloisElement::rotation(&params, 1))?;
/// assert!(is(&turned[0], [2.0, 3.0, 4.0, 1.0])?);
/// # Ok::<(), Error>(())
/// ```
pub struct Evaluator<K = KeySet> {
    params: Params,
    keys: K,
}

impl<K: EvaluationKeys> Evaluator<K> {
    /// An evaluator over `keys`; pass [`NoKeys`](crate::NoKeys) for circuits without products and
    /// rotations.
    pub fn new(params: &Params, keys: K) -> Self {
        Self { params: params.clone(), keys }
    }

    /// The parameter set.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The source of keys.
    pub fn keys(&self) -> &K {
        &self.keys
    }

    fn check_one(&self, operation: &'static str, a: &Ciphertext) -> Result<(), Error> {
        self.params.check_same_levels(operation, &a.params)
    }

    /// Same parameters, same secret, same level.
    fn check_pair(&self, operation: &'static str, a: &Ciphertext, b: &Ciphertext) -> Result<(), Error> {
        self.check_one(operation, a)?;
        self.check_one(operation, b)?;
        if a.key_id != b.key_id {
            return Err(Error::KeyMismatch { operation, left: a.key_id, right: b.key_id });
        }
        if a.level != b.level {
            return Err(Error::LevelMismatch { operation, left: a.level, right: b.level });
        }
        Ok(())
    }

    fn check_linear(&self, operation: &'static str, a: &Ciphertext) -> Result<(), Error> {
        self.check_one(operation, a)?;
        if a.is_linear() { Ok(()) } else { Err(Error::NotLinear { operation, parts: a.parts.len() }) }
    }

    /// Refuses a product whose scale leaves no room below the modulus of its level.
    fn check_room(&self, operation: &'static str, level: usize, scale: Scale) -> Result<(), Error> {
        if scale.is_usable() && scale.log2() >= self.params.log_q(level) {
            return Err(Error::LevelExhausted { operation, have: level, need: level + 1 });
        }
        crate::encode::check_scale(operation, scale)
    }
}

fn check_scales(operation: &'static str, left: Scale, right: Scale) -> Result<(), Error> {
    if left.matches(right) {
        return Ok(());
    }
    Err(Error::ScaleMismatch { operation, left: left.log2(), right: right.log2() })
}

fn check_finite(value: Complex64) -> Result<(), Error> {
    if value.is_finite() { Ok(()) } else { Err(Error::NotFinite { index: 0 }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GaloisElement, KeyRequest, KeyShape, Plaintext, SecretKey, presets};

    /// A ciphertext can't lose a limb, but if it did, an operation must not make up for it with
    /// what is left in memory.
    #[test]
    fn a_missing_limb_is_an_error_and_never_old_memory() {
        let params = presets::insecure::small(64, 40.0, 2).unwrap();
        let secret = SecretKey::generate(&params).unwrap();
        let mut request = KeyRequest::new();
        request.relin(2).rotations(&params, [1], 2).conjugation(&params, 2);
        let evaluator = Evaluator::new(&params, secret.key_set(&request).unwrap());
        let values = [0.5, -0.25];
        let plaintext = Plaintext::encode_real(&params, &values, 2, params.default_scale(2)).unwrap();
        let whole = secret.encrypt(&plaintext, 2).unwrap();
        for part in [0, 1] {
            let mut damaged = whole.clone();
            damaged.parts[part] = damaged.parts[part].keep(params.limbs(1)).unwrap();
            let (e, x, y) = (&evaluator, &damaged, &whole);
            let element = GaloisElement::rotation(&params, 1);
            let hoisted = e.hoist(x).unwrap();
            let results = [
                e.add(y, x).map(drop),
                e.sub(y, x).map(drop),
                e.add_assign(&mut y.clone(), x),
                e.mul(x, y).map(drop),
                e.mul(y, x).map(drop),
                e.square(x).map(drop),
                e.mul_add(&mut e.mul(y, y).unwrap(), x, y).map(drop),
                e.rotate(x, 1).map(drop),
                e.rotate_hoisted(&hoisted, element).map(drop),
                e.rotate_hoisted_qp(&hoisted, element).map(drop),
                e.rotated_sum(&hoisted, &[element], KeyShape::cheapest(&params, 2).unwrap().special)
                    .map(drop),
                e.conjugate(x).map(drop),
                e.rescale(&x.clone().with_scale(Scale::from_log2(80)).unwrap()).map(drop),
                e.drop_to_level(x, 2).map(drop),
            ];
            for (operation, result) in results.into_iter().enumerate() {
                assert!(
                    matches!(result, Err(Error::Ring(_))),
                    "operation {operation}, part {part}: {result:?}"
                );
            }
        }
    }

    /// A view has the hash of its parameters, but its levels are others.
    #[test]
    fn levels_of_a_shortened_chain_do_not_meet_those_of_the_whole_one() {
        let params = presets::insecure::small(64, 40.0, 3).unwrap();
        let short = params.without_levels(&[2]);
        let (key, scale) = (SecretKey::generate(&params).unwrap().id(), Scale::from_log2(40));
        let zero = |params: &Params, level| {
            let parts = (0..2)
                .map(|_| cipherlm_ring::Poly::zero(params.ring(), params.limbs(level)).unwrap())
                .collect();
            Ciphertext::from_parts(params, key, parts, level, scale, 32).unwrap()
        };
        let (whole, view) = (Evaluator::new(&params, crate::NoKeys), Evaluator::new(&short, crate::NoKeys));
        let internal = |result: Result<Ciphertext, Error>| matches!(result, Err(Error::Internal { .. }));
        for level in 0..=2 {
            let (a, b) = (zero(&params, level), zero(&short, level));
            assert!(internal(whole.add(&a, &b)) && internal(view.add(&b, &a)), "level {level}");
            assert!(internal(whole.neg(&b)) && internal(view.drop_to_level(&a, 0)), "level {level}");
            assert!(whole.add(&a, &a).is_ok() && view.add(&b, &b).is_ok());
        }
    }
}
