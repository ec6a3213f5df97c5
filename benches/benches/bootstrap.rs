//! Criterion group `bootstrap`: latency, and one line `METRICS {…}` per id with what is not a time.
//!
//! Full size takes up to 8 GiB and about two minutes an id; name an id to run it alone.

use std::time::{Duration, Instant};

use cipherlm_benches::peak_rss_bytes;
use cipherlm_circuits::bootstrap::simulate::{Family, Precision};
use cipherlm_circuits::bootstrap::{BootstrapKeys, Bootstrapper, Content, Profile};
use cipherlm_ckks::{Ciphertext, Evaluator, KeyRequest, Plaintext, SecretKey};
use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use rand::SeedableRng;

criterion_group!(benches, bootstrap);
criterion_main!(benches);

fn bootstrap(c: &mut Criterion) {
    let mut group = c.benchmark_group("bootstrap");
    group.sample_size(10).sampling_mode(SamplingMode::Flat).warm_up_time(Duration::from_millis(1));
    for (id, profile, slots, content) in [
        ("full/65536", Profile::n16(), 1 << 15, Content::Complex),
        (
            "full/65536/fast",
            Profile::named("n16-14").expect("a profile of the family"),
            1 << 15,
            Content::Complex,
        ),
        ("real/65536", Profile::n16(), 1 << 15, Content::Real),
        ("sparse1024/65536", Profile::n16(), 1 << 10, Content::Real),
        ("full/32768", Profile::n15(), 1 << 14, Content::Complex),
    ] {
        // Set up when first run, so that ids that are filtered out cost nothing.
        let mut bench = None;
        group.bench_function(id, |b| {
            let bench = bench.get_or_insert_with(|| Bench::new(id, &profile, slots, content));
            b.iter(|| bench.run(bench.bootstrapper.output_level()));
        });
        if id == "full/65536" {
            // Six of the thirteen levels.
            group.bench_function("full/65536/lower6", |b| {
                let bench = bench.get_or_insert_with(|| Bench::new(id, &profile, slots, content));
                b.iter(|| bench.run(bench.bootstrapper.profile().input_level() + 6));
            });
        }
    }
    group.finish();
}

struct Bench {
    bootstrapper: Bootstrapper,
    evaluator: Evaluator<BootstrapKeys>,
    input: Ciphertext,
}

impl Bench {
    fn new(id: &str, profile: &Profile, slots: usize, content: Content) -> Self {
        let params = profile.params().expect("a documented profile");
        let bootstrapper = Bootstrapper::new(&params, profile, slots, content).expect("slots that fit");
        let declared = bootstrapper.declare().expect("keys that fit");
        let secret = SecretKey::generate(&params).expect("randomness");
        let clock = Instant::now();
        let keys =
            BootstrapKeys::generate(&secret, &[&bootstrapper], &KeyRequest::new()).expect("secure keys");
        let keygen = clock.elapsed().as_secs_f64();
        let clock = Instant::now();
        bootstrapper.prepare().expect("plaintexts that fit");
        let prepare = clock.elapsed().as_secs_f64();
        let evaluator = Evaluator::new(&params, keys);
        let scale = params.default_scale(bootstrapper.output_level());
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let mut worst = [f64::INFINITY; 2];
        let mut input = None;
        let clock = Instant::now();
        let mut first_call = None;
        for family in Family::ALL {
            let mut values = family.values(slots, &mut rng);
            if content == Content::Real {
                values.iter_mut().for_each(|v| v.im = 0.0);
            }
            let plaintext = Plaintext::encode(&params, &values, slots, scale).expect("values that fit");
            let fresh = secret.encrypt(&plaintext, bootstrapper.input_level()).expect("a level that exists");
            let started = clock.elapsed();
            let output = bootstrapper.bootstrap(&evaluator, &fresh).expect("a legal input");
            first_call.get_or_insert((clock.elapsed() - started).as_secs_f64());
            let found = secret.decrypt(&output).expect("the same key").decode();
            let at = usize::from(family != Family::Uniform);
            worst[at] = worst[at].min(Precision::between(&values, found.as_slice()).worst);
            input = Some(fresh);
        }
        println!(
            "METRICS {{\"id\":\"bootstrap/{id}\",\"levels_left\":{},\"scale_bits\":{},\
             \"bits_worst_uniform\":{:.2},\
             \"bits_worst_structured\":{:.2},\"key_bytes\":{},\"key_bytes_resident\":{},\
             \"keygen_seconds\":{keygen:.2},\
             \"prepare_seconds\":{prepare:.2},\"first_call_seconds\":{:.2},\"params\":\"{} (N = 2^{}, log \
             QP {:.0}, {:.0}-bit), {slots} {content:?} slots\",\"peak_rss_bytes\":{}}}",
            profile.user_levels,
            profile.scale,
            worst[0],
            worst[1],
            declared.memory.stored_bytes,
            declared.memory.resident_bytes,
            first_call.unwrap_or(f64::NAN),
            profile.name,
            profile.log_degree,
            params.log_qp(),
            params.security().bits,
            peak_rss_bytes(),
        );
        Self { bootstrapper, evaluator, input: input.expect("a family") }
    }

    fn run(&self, level: usize) -> Ciphertext {
        let scale = self.bootstrapper.params().default_scale(level);
        self.bootstrapper
            .bootstrap_to(&self.evaluator, &self.input, level, scale, &mut |_| {})
            .expect("a legal input and level")
    }
}
