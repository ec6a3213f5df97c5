//! Ciphertexts that pass between a ring and a subring (Gentry, Halevi, Peikert and Smart, "Field
//! switching in BGV-style homomorphic encryption", eprint 2012/240): small messages on the line,
//! large ones where circuits run.

use cipherlm_ring::{Eval, Poly};

use super::Evaluator;
use crate::keys::{EvaluationKeys, KeyPurpose};
use crate::{Ciphertext, Error, Params, SecretDistribution};

impl<K: EvaluationKeys> Evaluator<K> {
    /// `a` under the secret of a subring, as a ciphertext of the subring: slot `j` of the result is
    /// the mean of all slots of `a` whose number is `j` modulo the number of slots there. Level and
    /// scale stay; the key is one of
    /// [`SecretKey::projection_key`](crate::SecretKey::projection_key).
    ///
    /// # Errors
    /// [`Error::MissingKey`]; [`Error::NotLinear`]; [`Error::WrongKey`] for the key of another
    /// subring; [`Error::Ring`] for a subring of other primes.
    pub fn project(&self, a: &Ciphertext, subring: &Params) -> Result<Ciphertext, Error> {
        const OPERATION: &str = "project";
        self.check_linear(OPERATION, a)?;
        subring.check_level(OPERATION, a.level)?;
        let purpose = KeyPurpose::Project(a.key_id);
        let key = self.key_for(OPERATION, purpose, a)?;
        if key.distribution() != (SecretDistribution::Subring { degree: subring.degree() }) {
            return Err(Error::WrongKey { operation: OPERATION, have: key.purpose(), need: purpose });
        }
        let switched = self.switch_by(a, &key)?;
        let small = |part: &Poly<Eval>| part.project(subring.ring());
        let parts = switched.parts.iter().map(small).collect::<Result<_, _>>()?;
        let slots = a.slots.min(subring.slots());
        Ciphertext::from_parts(subring, switched.key_id, parts, a.level, a.scale, slots)
    }

    /// `a`, a ciphertext of a subring, under the secret of this ring: its slots repeat. Level and
    /// scale stay; the key is one of [`SecretKey::embedding_key`](crate::SecretKey::embedding_key).
    ///
    /// # Errors
    /// [`Error::MissingKey`]; [`Error::NotLinear`]; [`Error::LevelOutOfRange`]; [`Error::Ring`] for
    /// a subring of other primes.
    pub fn embed(&self, a: &Ciphertext) -> Result<Ciphertext, Error> {
        const OPERATION: &str = "embed";
        if !a.is_linear() {
            return Err(Error::NotLinear { operation: OPERATION, parts: a.parts.len() });
        }
        self.params().check_level(OPERATION, a.level)?;
        let large = |part: &Poly<Eval>| part.embed(self.params().ring());
        let parts = a.parts.iter().map(large).collect::<Result<_, _>>()?;
        let embedded = Ciphertext::from_parts(self.params(), a.key_id, parts, a.level, a.scale, a.slots)?;
        self.switch_by_source(OPERATION, &embedded)
    }
}
