//! One key switch as the level falls, with keys cut to the level:
//! `keyswitch/rotate/<degree>/level<l>`, and at the top, where keys are largest:
//! `keyswitch/one_of_many/<degree>` (four ciphertexts under one key) and
//! `keyswitch/generate/<degree>` (making a key).

use std::hint::black_box;
use std::time::Duration;

use cipherlm_ckks::ring::Seed;
use cipherlm_ckks::{
    Complex64, Evaluator, GaloisElement, KeyPurpose, KeySet, KeyShape, Plaintext, SecretKey, presets,
};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

fn keyswitch(c: &mut Criterion) {
    let mut group = c.benchmark_group("keyswitch");
    group.sample_size(10).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(300));
    let params = presets::levels24_scale45().expect("parameters");
    let secret = SecretKey::from_seed(&params, Seed::from_bytes([1; 32])).expect("secret");
    let degree = params.degree();
    let element = GaloisElement::rotation(&params, 1);
    let values: Vec<Complex64> = (0..params.slots()).map(|j| Complex64::cis(j as f64)).collect();
    for level in [24, 18, 12, 8, 4, 2, 1] {
        let shape = KeyShape::cheapest(&params, level).expect("shape");
        let mut keys = KeySet::new();
        keys.insert(secret.switching_key(KeyPurpose::Galois(element), shape).expect("key")).expect("insert");
        let evaluator = Evaluator::new(&params, keys);
        let plaintext =
            Plaintext::encode(&params, &values, params.slots(), params.default_scale(level)).expect("encode");
        let a = secret.encrypt(&plaintext, level).expect("encrypt");
        let id = BenchmarkId::new("rotate", format!("{degree}/level{level}"));
        println!(
            "METRICS {{\"id\":\"keyswitch/rotate/{degree}/level{level}\",\"params\":\"{} limbs, {} \
             special, {} digits\",\"key_bytes\":{}}}",
            params.limb_count(level),
            shape.special,
            shape.digits(&params).len(),
            shape.stored_bytes(&params),
        );
        group
            .bench_function(id, |bench| bench.iter(|| evaluator.rotate(black_box(&a), 1).expect("rotation")));
        if level == 24 {
            group.bench_function(BenchmarkId::new("generate", degree), |bench| {
                bench.iter(|| secret.switching_key(KeyPurpose::Galois(element), shape).expect("key"));
            });
            group.bench_function(BenchmarkId::new("one_of_many", degree), |bench| {
                bench.iter(|| {
                    evaluator.rotate_many_ciphertexts(&[&a, &a, &a, &a], element).expect("rotations")
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, keyswitch);
criterion_main!(benches);
