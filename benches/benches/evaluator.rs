//! Levelled operations: `evaluator/<operation>/<degree>`, on the chain that the peers are measured on.
//!
//! N = 2^16 has 24 levels of 45 bits and 3 digits; 2^15 has 16 levels and 2^14 has 8, which are below 128-bit security
//! and only there because the peers were measured so.

use std::hint::black_box;
use std::time::Duration;

use cipherlm_ckks::ring::Seed;
use cipherlm_ckks::{
    Ciphertext, Complex64, Evaluator, GaloisElement, KeyRequest, KeySet, KeyShape, Params, Plaintext, SecretKey,
    presets,
};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

/// Steps of the 8 hoisted rotations.
const STEPS: [i64; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

struct Setup {
    params: Params,
    secret: SecretKey,
    evaluator: Evaluator<KeySet>,
    values: [Vec<Complex64>; 2],
    ciphertexts: [Ciphertext; 2],
}

impl Setup {
    fn new(degree: usize, levels: usize) -> Result<Self, cipherlm_ckks::Error> {
        let params =
            if degree == 1 << 16 { presets::levels24_scale45() } else { presets::insecure::benchmark(degree, levels) }?;
        let secret = SecretKey::from_seed(&params, Seed::from_bytes([1; 32]))?;
        let top = params.max_level();
        let mut request = KeyRequest::new();
        request.relin(top).rotations(&params, STEPS, top);
        let evaluator = Evaluator::new(&params, secret.key_set(&request)?);
        let wave = |f: f64| (0..params.slots()).map(|j| Complex64::cis(j as f64 * f)).collect::<Vec<_>>();
        let values = [wave(0.7), wave(1.3)];
        let scale = params.default_scale(top);
        let encrypt = |values: &[Complex64]| -> Result<Ciphertext, cipherlm_ckks::Error> {
            secret.encrypt(&Plaintext::encode(&params, values, params.slots(), scale)?, top)
        };
        let ciphertexts = [encrypt(&values[0])?, encrypt(&values[1])?];
        Ok(Self { params, secret, evaluator, values, ciphertexts })
    }

    /// What the times do not say: precision of a product, size of a key.
    fn print_metrics(&self) -> Result<(), cipherlm_ckks::Error> {
        let [a, b] = &self.ciphertexts;
        let product = self.evaluator.mul_relin_rescale(a, b)?;
        let decoded = self.secret.decrypt(&product)?.decode();
        let expected = self.values[0].iter().zip(&self.values[1]).map(|(a, b)| a * b);
        let worst = decoded.as_slice().iter().zip(expected).map(|(a, b)| (a - b).norm()).fold(0.0, f64::max);
        let shape = KeyShape::cheapest(&self.params, self.params.max_level())?;
        println!(
            "METRICS {{\"id\":\"evaluator/mul_relin_rescale/{}\",\"params\":\"{} x 45 bits, {} digits, log QP {:.0}, kernel {}\",\
             \"bits_worst\":{:.1},\"key_bytes\":{},\"levels_left\":{}}}",
            self.params.degree(),
            self.params.max_level(),
            shape.digits(&self.params).len(),
            self.params.log_qp(),
            self.params.ring().kernel_name(),
            -worst.log2(),
            shape.stored_bytes(&self.params),
            product.level(),
        );
        Ok(())
    }
}

fn evaluator(c: &mut Criterion) {
    let mut group = c.benchmark_group("evaluator");
    group.sample_size(10).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_millis(500));
    for (degree, levels) in [(1usize << 16, 24), (1 << 15, 16), (1 << 14, 8)] {
        let s = Setup::new(degree, levels).expect("set-up");
        s.print_metrics().expect("metrics");
        let [a, b] = &s.ciphertexts;
        let (params, e) = (&s.params, &s.evaluator);
        let top = params.max_level();
        let elements = STEPS.map(|step| GaloisElement::rotation(params, step));
        let plaintext =
            Plaintext::encode(params, &s.values[1], params.slots(), params.rescale_factor(top)).expect("encode");
        let lifted = plaintext.lift(params.limbs(top)).expect("lift");
        group.bench_function(BenchmarkId::new("mul_relin_rescale", degree), |bench| {
            bench.iter(|| e.mul_relin_rescale(black_box(a), b).expect("product"));
        });
        group.bench_function(BenchmarkId::new("rotate", degree), |bench| {
            bench.iter(|| e.rotate(black_box(a), 1).expect("rotation"));
        });
        group.bench_function(BenchmarkId::new("hoisted8", degree), |bench| {
            bench.iter(|| {
                let hoisted = e.hoist(black_box(a)).expect("hoist");
                for element in elements {
                    black_box(e.rotate_hoisted(&hoisted, element).expect("rotation"));
                }
            });
        });
        group.bench_function(BenchmarkId::new("mul_plain_rescale", degree), |bench| {
            bench.iter(|| e.rescale(&e.mul_lifted(black_box(a), &lifted).expect("product")).expect("rescale"));
        });
        group.bench_function(BenchmarkId::new("encode", degree), |bench| {
            bench.iter(|| {
                let plaintext = Plaintext::encode(params, black_box(&s.values[0]), params.slots(), a.scale());
                plaintext.and_then(|p| p.lift(params.limbs(top))).expect("encode")
            });
        });
        group.bench_function(BenchmarkId::new("encrypt", degree), |bench| {
            bench.iter(|| s.secret.encrypt(black_box(&plaintext), top).expect("encrypt"));
        });
        group.bench_function(BenchmarkId::new("decrypt_decode", degree), |bench| {
            bench.iter(|| s.secret.decrypt(black_box(a)).expect("decrypt").decode());
        });
        group.bench_function(BenchmarkId::new("add", degree), |bench| {
            bench.iter(|| e.add(black_box(a), b).expect("sum"));
        });
    }
    group.finish();
}

criterion_group!(benches, evaluator);
criterion_main!(benches);
