//! A circuit with its keys, in whatever ring.

use cipherlm_circuits::bootstrap::simulate::Precision;
use cipherlm_circuits::bootstrap::{BootstrapKeys, Bootstrapper, Content, Profile};
use cipherlm_ckks::{Ciphertext, Complex64, Evaluator, KeyRequest, Params, Plaintext, SecretKey};

pub(crate) struct Bench {
    pub(crate) params: Params,
    pub(crate) secret: SecretKey,
    pub(crate) bootstrapper: Bootstrapper,
    pub(crate) evaluator: Evaluator<BootstrapKeys>,
}

impl Bench {
    pub(crate) fn new(profile: &Profile, slots: usize, content: Content) -> Self {
        let params = profile.params().unwrap();
        let secret = SecretKey::generate(&params).unwrap();
        let bootstrapper = Bootstrapper::new(&params, profile, slots, content).unwrap();
        let keys = BootstrapKeys::generate(&secret, &[&bootstrapper], &KeyRequest::new()).unwrap();
        let evaluator = Evaluator::new(&params, keys);
        Self { params, secret, bootstrapper, evaluator }
    }

    pub(crate) fn encrypt(&self, values: &[Complex64]) -> Ciphertext {
        let level = self.bootstrapper.input_level();
        let scale = self.params.default_scale(self.bootstrapper.output_level());
        let plaintext = Plaintext::encode(&self.params, values, self.bootstrapper.slots(), scale).unwrap();
        self.secret.encrypt(&plaintext, level).unwrap()
    }

    pub(crate) fn precision(&self, values: &[Complex64]) -> Precision {
        Precision::between(values, &self.refreshed(values))
    }

    pub(crate) fn refreshed(&self, values: &[Complex64]) -> Vec<Complex64> {
        let refreshed = self.bootstrapper.bootstrap(&self.evaluator, &self.encrypt(values)).unwrap();
        assert_eq!(refreshed.level(), self.bootstrapper.output_level());
        assert!(refreshed.scale().matches(self.params.default_scale(refreshed.level())));
        self.secret.decrypt(&refreshed).unwrap().decode().as_slice().to_vec()
    }
}
