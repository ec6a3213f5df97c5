//! A key source that lies about one key.

use std::sync::Arc;

use cipherlm_ckks::{
    Error, EvaluationKeys, GaloisElement, KeyPurpose, KeyShape, Params, SecretKey, SwitchingKey,
};

/// A source that is honest but about one key at one level.
pub(crate) struct Liar<K> {
    pub(crate) keys: K,
    pub(crate) about: (KeyPurpose, usize),
    pub(crate) offers: Arc<SwitchingKey>,
}

impl<K: EvaluationKeys> EvaluationKeys for Liar<K> {
    fn key(&self, purpose: KeyPurpose, level: usize) -> Result<Arc<SwitchingKey>, Error> {
        if (purpose, level) == self.about { Ok(self.offers.clone()) } else { self.keys.key(purpose, level) }
    }
}

/// Who keys are made by, to lie about those of the first.
pub(crate) struct Family {
    pub(crate) secret: SecretKey,
    /// Of the same parameters.
    pub(crate) stranger: SecretKey,
    /// Of others.
    pub(crate) foreigner: SecretKey,
}

impl Family {
    pub(crate) fn new(params: &Params, others: &Params) -> Self {
        let [secret, stranger, foreigner] = [params, params, others].map(|p| SecretKey::generate(p).unwrap());
        Self { secret, stranger, foreigner }
    }

    /// Every way to offer a wrong key for `purpose` at `level`; each must be refused by `run`, by
    /// the right name.
    pub(crate) fn lie<K: EvaluationKeys, T>(
        &self,
        keys: &K,
        (purpose, level): (KeyPurpose, usize),
        run: impl Fn(Liar<&K>) -> Result<T, Error>,
    ) {
        let make = |secret: &SecretKey, purpose, level| {
            let shape = KeyShape::cheapest(secret.params(), level).unwrap();
            Arc::new(secret.switching_key(purpose, shape).unwrap())
        };
        let other = match purpose {
            KeyPurpose::Relinearise => KeyPurpose::Galois(GaloisElement::conjugation(self.secret.params())),
            _ => KeyPurpose::Relinearise,
        };
        let refused = |what, offers, is: &dyn Fn(&Error) -> bool| {
            let error = run(Liar { keys, about: (purpose, level), offers }).err();
            assert!(error.as_ref().is_some_and(is), "{what} for {purpose} at {level}: {error:?}");
        };
        refused("another purpose", make(&self.secret, other, level), &|e| {
            matches!(e, Error::WrongKey { .. })
        });
        refused("another secret", make(&self.stranger, purpose, level), &|e| {
            matches!(e, Error::KeyMismatch { .. })
        });
        refused("other parameters", make(&self.foreigner, purpose, level), &|e| {
            matches!(e, Error::ParamsMismatch { .. })
        });
        if level > 0 {
            refused(
                "a lower level",
                make(&self.secret, purpose, level - 1),
                &|e| matches!(e, Error::LevelOutOfRange { max, .. } if *max == level - 1),
            );
        }
    }
}
