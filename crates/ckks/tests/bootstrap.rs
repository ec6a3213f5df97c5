//! Bootstrapping on small insecure rings, on every family of inputs; the full-size profiles under `--ignored`.

use cipherlm_ckks::bootstrap::simulate::{Family, Precision};
use cipherlm_ckks::bootstrap::{BootstrapKeys, Bootstrapper, Content, Profile};
use cipherlm_ckks::{Ciphertext, Complex64, Evaluator, KeyRequest, Params, Plaintext, SecretKey};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

struct Bench {
    params: Params,
    secret: SecretKey,
    bootstrapper: Bootstrapper,
    evaluator: Evaluator<BootstrapKeys>,
}

impl Bench {
    fn new(profile: &Profile, slots: usize, content: Content) -> Self {
        let params = profile.params().unwrap();
        let secret = SecretKey::generate(&params).unwrap();
        let bootstrapper = Bootstrapper::new(&params, profile, slots, content).unwrap();
        let keys = BootstrapKeys::generate(&secret, &[&bootstrapper], &KeyRequest::new()).unwrap();
        let evaluator = Evaluator::new(&params, keys);
        Self { params, secret, bootstrapper, evaluator }
    }

    fn encrypt(&self, values: &[Complex64]) -> Ciphertext {
        let level = self.bootstrapper.input_level();
        let scale = self.params.default_scale(self.bootstrapper.output_level());
        let plaintext = Plaintext::encode(&self.params, values, self.bootstrapper.slots(), scale).unwrap();
        self.secret.encrypt(&plaintext, level).unwrap()
    }

    fn precision(&self, values: &[Complex64]) -> Precision {
        let refreshed = self.bootstrapper.bootstrap(&self.evaluator, &self.encrypt(values)).unwrap();
        assert_eq!(refreshed.level(), self.bootstrapper.output_level());
        assert!(refreshed.scale().matches(self.params.default_scale(refreshed.level())));
        Precision::between(values, self.secret.decrypt(&refreshed).unwrap().decode().as_slice())
    }
}

#[test]
fn every_family_keeps_its_bits_on_a_small_ring() {
    let bench = Bench::new(&Profile::insecure(10), 512, Content::Complex);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for family in Family::ALL {
        let p = bench.precision(&family.values(512, &mut rng));
        println!("{family:?}: {:.1} / {:.1}", p.worst, p.mean);
        assert!(p.worst > 20.0, "{family:?}: {p:?}");
    }
}

#[test]
fn plaintexts_of_every_period_multiply_alike() {
    let params = cipherlm_ckks::presets::insecure::small(1 << 10, 40.0, 2).unwrap();
    let secret = SecretKey::generate(&params).unwrap();
    let evaluator = Evaluator::new(&params, cipherlm_ckks::NoKeys);
    let values: Vec<_> = (0..512).map(|j| Complex64::new((j as f64).sin(), (j as f64).cos())).collect();
    let scale = params.default_scale(2);
    let input = secret.encrypt(&Plaintext::encode(&params, &values, 512, scale).unwrap(), 2).unwrap();
    for log in 0..=9 {
        let period: Vec<_> = (0..1 << log).map(|j| Complex64::new(1.0 / (1 + j) as f64, 0.3)).collect();
        let plaintext = Plaintext::encode(&params, &period, period.len(), scale).unwrap();
        let product = evaluator.rescale(&evaluator.mul_plain(&input, &plaintext).unwrap()).unwrap();
        let expected: Vec<_> = values.iter().enumerate().map(|(j, v)| v * period[j % period.len()]).collect();
        let p = Precision::between(&expected, secret.decrypt(&product).unwrap().decode().as_slice());
        assert!(p.worst > 20.0, "period {}: {p:?}", period.len());
    }
}
