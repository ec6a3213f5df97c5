//! Linear transforms on ciphertexts: `linear/<operation>/<degree>`, 8 levels of 45 bits, one level
//! spent.
//!
//! - `token_matmul_128`: every token's 128 features times a 128 x 128 matrix (255 masked diagonals
//!   of period 128);
//! - `dense_64`: a dense complex 64 x 64 product (64 diagonals).

use cipherlm_circuits::linear::{LinearTransform, TokenLayout};
use cipherlm_circuits::slots::{self, Chain, Clear, Encrypted, EncryptedVector, Machine, Primitives};
use cipherlm_ckks::{Complex64, Params, Plaintext, SecretKey};
use criterion::{Criterion, criterion_group, criterion_main};
use std::error::Error;
use std::hint::black_box;
use std::time::Duration;

const LEVEL: usize = 8;
const FEATURES: usize = 128;

fn value(row: usize, column: usize) -> f64 {
    ((row * 37 + column * 61 + 7) % 97) as f64 / 48.5 - 1.0
}

/// The circuits that are timed, written once for the dry run (which finds the keys) and the
/// ciphertexts.
struct Circuits {
    token: LinearTransform,
    dense: LinearTransform,
}

impl Circuits {
    fn new(slots: usize) -> slots::Result<Self> {
        let weights: Vec<Vec<f64>> =
            (0..FEATURES).map(|i| (0..FEATURES).map(|o| value(i, o) / FEATURES as f64).collect()).collect();
        let rows: Vec<Vec<Complex64>> = (0..64)
            .map(|r| (0..64).map(|c| Complex64::new(value(r, c), value(c, r)) / 64.0).collect())
            .collect();
        Ok(Self {
            token: TokenLayout::new(slots, FEATURES)?.matmul(&weights)?,
            dense: LinearTransform::from_matrix(slots, &rows)?,
        })
    }

    fn all<M: Machine>(&self, machine: &M, x: &M::Vector) -> slots::Result<()> {
        machine.linear_transform(x, &self.token)?;
        machine.linear_transform(x, &self.dense).map(drop)
    }
}

fn setup(degree: usize) -> Result<(Encrypted, Circuits, EncryptedVector), Box<dyn Error>> {
    let builder = Params::builder().degree(degree).base(50.0).levels(45.0, LEVEL).digits(3);
    let params = if degree == 1 << 16 { builder.build()? } else { Params::insecure_for_tests(builder)? };
    let circuits = Circuits::new(params.slots())?;
    let dry = Clear::dry(Chain::of(&params)?);
    circuits.all(&dry, &dry.input(0.0, LEVEL)?)?;
    let request = dry.log().key_request(&params);
    println!("{degree}: {}", request.bill(&params)?);
    let secret = SecretKey::generate(&params)?;
    let machine = Encrypted::new(&params, secret.id(), secret.key_set(&request)?)?.with_plain_cache(1 << 28);
    let values: Vec<Complex64> = (0..params.slots()).map(|i| Complex64::new(value(i, 1), 0.0)).collect();
    let plaintext = Plaintext::encode(&params, &values, params.slots(), machine.chain().scale(LEVEL))?;
    let vector = machine.input(secret.encrypt(&plaintext, LEVEL)?)?;
    Ok((machine, circuits, vector))
}

fn linear(c: &mut Criterion) {
    for degree in [1 << 13, 1 << 16] {
        let (machine, circuits, x) = match setup(degree) {
            Ok(setup) => setup,
            Err(error) => {
                eprintln!("linear at degree {degree} skipped: {error}");
                continue;
            }
        };
        let mut group = c.benchmark_group("linear");
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(100))
            .measurement_time(Duration::from_secs(2));
        group.bench_function(format!("token_matmul_128/{degree}"), |b| {
            b.iter(|| black_box(machine.linear_transform(&x, &circuits.token)).is_ok())
        });
        group.bench_function(format!("dense_64/{degree}"), |b| {
            b.iter(|| black_box(machine.linear_transform(&x, &circuits.dense)).is_ok())
        });
        group.finish();
        for row in machine.log().rows().iter().filter(|row| row.total.count > 0) {
            let mean = row.total.time.as_secs_f64() * 1e3 / row.total.count as f64;
            println!("  {:?} at level {}: {} x {mean:.3} ms", row.kind, row.level, row.total.count);
        }
    }
}

criterion_group!(benches, linear);
criterion_main!(benches);
