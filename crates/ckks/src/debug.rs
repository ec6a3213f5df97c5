//! How objects print: what they are and whom they belong to, never what they hold. Secret keys and
//! decrypted values do not print at all.

use std::fmt::{Debug, DebugStruct, Formatter, Result};

use crate::{
    Ciphertext, EvaluationKeys, Evaluator, ExtendedCiphertext, Hoisted, KeyId, KeySet, KeyStore,
    LiftedPlaintext, Params, Plaintext, PublicKey, Scale, SwitchingKey,
};

/// Begins with the parameter set.
fn of<'a, 'b>(f: &'a mut Formatter<'b>, name: &str, params: &Params) -> DebugStruct<'a, 'b> {
    let mut shown = f.debug_struct(name);
    shown.field("params", &params.hash());
    shown
}

/// Level, scale and slots of an encrypted vector under a key.
fn vector(shown: &mut DebugStruct<'_, '_>, key: KeyId, level: usize, scale: Scale, slots: usize) -> Result {
    shown.field("key", &key).field("level", &level).field("scale", &scale).field("slots", &slots);
    shown.finish_non_exhaustive()
}

impl Debug for Ciphertext {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let mut shown = of(f, "Ciphertext", self.params());
        shown.field("parts", &self.parts().len());
        vector(&mut shown, self.key_id(), self.level(), self.scale(), self.slots())
    }
}

impl Debug for ExtendedCiphertext {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let mut shown = of(f, "ExtendedCiphertext", self.params());
        shown.field("special", &self.special());
        vector(&mut shown, self.key_id(), self.level(), self.scale(), self.slots())
    }
}

impl Debug for Hoisted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let a = self.ciphertext();
        vector(&mut of(f, "Hoisted", a.params()), a.key_id(), a.level(), a.scale(), a.slots())
    }
}

impl Debug for Plaintext {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let mut shown = of(f, "Plaintext", self.params());
        shown.field("scale", &self.scale()).field("slots", &self.slots()).finish_non_exhaustive()
    }
}

impl Debug for LiftedPlaintext {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let mut shown = of(f, "LiftedPlaintext", self.params());
        shown.field("limbs", self.limbs()).field("scale", &self.scale()).field("slots", &self.slots());
        shown.finish_non_exhaustive()
    }
}

impl Debug for PublicKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        of(f, "PublicKey", self.params()).field("key", &self.key_id()).finish_non_exhaustive()
    }
}

impl Debug for SwitchingKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let mut shown = of(f, "SwitchingKey", self.params());
        shown.field("key", &self.key_id()).field("purpose", &self.purpose()).field("shape", &self.shape());
        shown.field("form", &self.form()).finish_non_exhaustive()
    }
}

impl Debug for KeySet {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("KeySet")
            .field("key", &self.key_id())
            .field("keys", &self.len())
            .finish_non_exhaustive()
    }
}

impl Debug for KeyStore {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("KeyStore")
            .field("key", &self.key_id())
            .field("keys", &self.len())
            .finish_non_exhaustive()
    }
}

impl<K: EvaluationKeys> Debug for Evaluator<K> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        of(f, "Evaluator", self.params()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use crate::{KeyRequest, SecretKey, presets};

    use super::*;

    /// Neither the message nor a residue of anything appears in what prints.
    #[test]
    fn objects_print_whose_they_are_and_nothing_of_what_they_hold() {
        let params = presets::insecure::small(64, 40.0, 3).unwrap();
        let secret = SecretKey::generate(&params).unwrap();
        let level = params.max_level();
        let mut request = KeyRequest::new();
        request.relin(level).rotations(&params, [1], level);
        let keys = secret.key_set(&request).unwrap();
        let message = 0.123_456_789;
        let plaintext = Plaintext::encode_real(&params, &[message; 32], 32, Scale::from_log2(40)).unwrap();
        let lifted = plaintext.lift(params.limbs(0)).unwrap();
        let ciphertext = secret.encrypt(&plaintext, level).unwrap();
        let evaluator = Evaluator::new(&params, keys.clone());
        let hoisted = evaluator.hoist(&ciphertext).unwrap();
        let extended = evaluator.extend(&ciphertext, 1).unwrap();
        let public = secret.public_key().unwrap();
        let key = keys.iter().next().unwrap();
        let limb = ciphertext.parts()[0].limb(0).unwrap();
        let vectors: [&dyn Debug; 3] = [&ciphertext, &hoisted, &extended];
        let owned: [&dyn Debug; 4] = [&public, key, &keys, &ciphertext];
        let of_params: [&dyn Debug; 9] =
            [&ciphertext, &hoisted, &extended, &plaintext, &lifted, &public, key, &evaluator, &params];
        let text = |object: &dyn Debug| format!("{object:?}");
        for object in of_params {
            assert!(text(object).contains(&params.hash().to_string()), "{object:?}");
        }
        for object in owned {
            assert!(text(object).contains(&secret.id().to_string()), "{object:?}");
        }
        for object in vectors {
            assert!(
                text(object).contains(&format!("level: {level}")) && text(object).contains("slots: 32"),
                "{object:?}"
            );
        }
        for object in of_params.into_iter().chain(owned) {
            let text = text(object);
            assert!(text.len() < 400 && !text.contains("12345678"), "{text}");
            assert!(limb.iter().filter(|x| **x > 1e6).all(|x| !text.contains(&format!("{x}"))), "{text}");
        }
    }
}
