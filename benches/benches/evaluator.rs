//! Levelled operations: `evaluator/<operation>/<degree>`, on the chain that the peers are measured
//! on.
//!
//! N = 2^16 has 24 levels of 45 bits and 3 digits; 2^15 has 16 levels and 2^14 has 8, which are
//! below 128-bit security and only there because the peers were measured so. Variants: `/level<l>`
//! at lower levels with keys cut to them (2^16 only), `/expanded`, `/packed` and `/seeded` with
//! keys in those forms where they are not the fastest.

use std::hint::black_box;
use std::time::Duration;

use cipherlm_ckks::ring::Seed;
use cipherlm_ckks::{
    Ciphertext, Complex64, Error, Evaluator, GaloisElement, KeyForm, KeyRequest, KeySet, KeyShape, Params,
    Plaintext, SecretKey, presets,
};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};

/// Steps of the 8 hoisted rotations.
const STEPS: [i64; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
/// Where the level sweep measures.
const LEVELS: [usize; 6] = [18, 12, 8, 4, 2, 1];

struct Setup {
    params: Params,
    secret: SecretKey,
    evaluator: Evaluator<KeySet>,
    values: [Vec<Complex64>; 2],
    ciphertexts: [Ciphertext; 2],
}

impl Setup {
    fn new(degree: usize, levels: usize) -> Result<Self, Error> {
        let params = if degree == 1 << 16 {
            presets::levels24_scale45()
        } else {
            presets::insecure::benchmark(degree, levels)
        }?;
        let secret = SecretKey::from_seed(&params, Seed::from_bytes([1; 32]))?;
        let top = params.max_level();
        let mut request = KeyRequest::new();
        request.relin(top).rotations(&params, STEPS, top);
        let evaluator = Evaluator::new(&params, secret.key_set(&request)?);
        let wave = |f: f64| (0..params.slots()).map(|j| Complex64::cis(j as f64 * f)).collect::<Vec<_>>();
        let values = [wave(0.7), wave(1.3)];
        let scale = params.default_scale(top);
        let encrypt = |values: &[Complex64]| -> Result<Ciphertext, Error> {
            secret.encrypt(&Plaintext::encode(&params, values, params.slots(), scale)?, top)
        };
        let ciphertexts = [encrypt(&values[0])?, encrypt(&values[1])?];
        Ok(Self { params, secret, evaluator, values, ciphertexts })
    }

    fn encrypt(&self, level: usize) -> Result<Ciphertext, Error> {
        let (slots, scale) = (self.params.slots(), self.params.default_scale(level));
        self.secret.encrypt(&Plaintext::encode(&self.params, &self.values[0], slots, scale)?, level)
    }

    /// What the times do not say: precision of a product, size of a key.
    fn print_metrics(&self) -> Result<(), Error> {
        let [a, b] = &self.ciphertexts;
        let product = self.evaluator.mul_relin_rescale(a, b)?;
        let decoded = self.secret.decrypt(&product)?.decode();
        let expected = self.values[0].iter().zip(&self.values[1]).map(|(a, b)| a * b);
        let errors: Vec<f64> = decoded.as_slice().iter().zip(expected).map(|(a, b)| (a - b).norm()).collect();
        let worst = errors.iter().copied().fold(0.0, f64::max);
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        let shape = KeyShape::cheapest(&self.params, self.params.max_level())?;
        let params = format!(
            "{} x 45 bits, {} digits, log QP {:.0}, kernel {}",
            self.params.max_level(),
            shape.digits(&self.params).len(),
            self.params.log_qp(),
            self.params.ring().kernel_name()
        );
        let degree = self.params.degree();
        println!(
            "METRICS {{\"id\":\"evaluator/mul_relin_rescale/{degree}\",\"params\":\"{params}\",\
             \"bits_worst_uniform\":{:.1},\
             \"bits_mean\":{:.1},\"key_bytes\":{},\"levels_left\":{},\"peak_rss_bytes\":{}}}",
            -worst.log2(),
            -mean.log2(),
            shape.stored_bytes(&self.params),
            product.level(),
            cipherlm_benches::peak_rss_bytes(),
        );
        for operation in
            ["rotate", "hoisted8", "mul_plain_rescale", "encode", "encrypt", "decrypt_decode", "add"]
        {
            cipherlm_benches::metrics(&format!("evaluator/{operation}/{degree}"), &params);
        }
        for form in [KeyForm::Expanded, KeyForm::Packed, KeyForm::Seeded] {
            println!(
                "METRICS {{\"id\":\"evaluator/rotate/{degree}{}\",\"params\":\"{params}\",\"key_bytes\":{},\
                 \"key_resident_bytes\":{}}}",
                variant(&self.params, form),
                shape.stored_bytes(&self.params),
                shape.resident_bytes_in(&self.params, form),
            );
        }
        Ok(())
    }
}

/// The form that keys have unless another is asked for has no suffix.
fn variant(params: &Params, form: KeyForm) -> &'static str {
    match form {
        form if form == KeyForm::fastest(params) => "",
        KeyForm::Expanded => "/expanded",
        KeyForm::Packed => "/packed",
        KeyForm::Seeded => "/seeded",
    }
}

/// Products and rotations as levels fall, each with keys cut to the level.
fn level_sweep(group: &mut BenchmarkGroup<'_, WallTime>, s: &Setup) -> Result<(), Error> {
    let degree = s.params.degree();
    for level in LEVELS {
        let mut request = KeyRequest::new();
        request.relin(level).rotations(&s.params, [1], level);
        let e = Evaluator::new(&s.params, s.secret.key_set(&request)?);
        let a = s.encrypt(level)?;
        let shape = KeyShape::cheapest(&s.params, level)?;
        let params = format!(
            "{} limbs, {} special, {} digits",
            s.params.limb_count(level),
            shape.special,
            shape.digits(&s.params).len()
        );
        for operation in ["mul_relin_rescale", "rotate"] {
            println!(
                "METRICS \
                 {{\"id\":\"evaluator/{operation}/{degree}/level{level}\",\"params\":\"{params}\",\
                 \"key_bytes\":{}}}",
                shape.stored_bytes(&s.params)
            );
        }
        group.bench_function(format!("mul_relin_rescale/{degree}/level{level}"), |bench| {
            bench.iter(|| e.mul_relin_rescale(black_box(&a), &a).expect("product"));
        });
        group.bench_function(format!("rotate/{degree}/level{level}"), |bench| {
            bench.iter(|| e.rotate(black_box(&a), 1).expect("rotation"));
        });
    }
    Ok(())
}

/// Rotations with keys in other forms.
fn key_forms(group: &mut BenchmarkGroup<'_, WallTime>, s: &Setup) -> Result<(), Error> {
    let degree = s.params.degree();
    let elements = STEPS.map(|step| GaloisElement::rotation(&s.params, step));
    let forms = [KeyForm::Expanded, KeyForm::Packed, KeyForm::Seeded];
    for form in forms.into_iter().filter(|form| *form != KeyForm::fastest(&s.params)) {
        let e = Evaluator::new(&s.params, s.evaluator.keys().clone().into_form(form)?);
        let a = &s.ciphertexts[0];
        group.bench_function(format!("rotate/{degree}{}", variant(&s.params, form)), |bench| {
            bench.iter(|| e.rotate(black_box(a), 1).expect("rotation"));
        });
        group.bench_function(format!("hoisted8/{degree}{}", variant(&s.params, form)), |bench| {
            bench.iter(|| {
                let hoisted = e.hoist(black_box(a)).expect("hoist");
                for element in elements {
                    black_box(e.rotate_hoisted(&hoisted, element).expect("rotation"));
                }
            });
        });
    }
    Ok(())
}

fn evaluator(c: &mut Criterion) {
    let mut group = c.benchmark_group("evaluator");
    group.sample_size(10).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(300));
    for (degree, levels) in [(1usize << 16, 24), (1 << 15, 16), (1 << 14, 8)] {
        let s = Setup::new(degree, levels).expect("set-up");
        s.print_metrics().expect("metrics");
        let [a, b] = &s.ciphertexts;
        let (params, e) = (&s.params, &s.evaluator);
        let top = params.max_level();
        let elements = STEPS.map(|step| GaloisElement::rotation(params, step));
        let plaintext = Plaintext::encode(params, &s.values[1], params.slots(), params.rescale_factor(top))
            .expect("encode");
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
            bench
                .iter(|| e.rescale(&e.mul_lifted(black_box(a), &lifted).expect("product")).expect("rescale"));
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
        if degree == 1 << 16 {
            key_forms(&mut group, &s).expect("key forms");
            level_sweep(&mut group, &s).expect("level sweep");
        }
    }
    group.finish();
}

criterion_group!(benches, evaluator);
criterion_main!(benches);
