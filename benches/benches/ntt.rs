//! Negacyclic transforms of one residue polynomial in cache, on the kernel chosen for this CPU.
//! Primes of 45 bits are those that ciphertexts are made of; the base and the special primes have
//! 50, and some kernels treat them differently.

use std::hint::black_box;
use std::time::Duration;

use cipherlm_benches::{aligned, metrics, scattered};
use cipherlm_ring::{Kernel, Modulus, NttTable, ntt_primes};
use criterion::{Criterion, criterion_group, criterion_main};

fn transforms(c: &mut Criterion) {
    let kernel = Kernel::best();
    for log_n in 12..=16 {
        let n = 1 << log_n;
        for (bits, variant) in [(45, ""), (50, "/50_bits")] {
            let q = ntt_primes(n, bits, 1, &[]).expect("a prime")[0];
            let table = NttTable::new(Modulus::new(q).expect("a prime"), n).expect("a table");
            let mut buffer = scattered(n + 8, q);
            let poly = aligned(&mut buffer, n);
            for (direction, inverse) in [("forward", false), ("inverse", true)] {
                let id = format!("ntt/{direction}/{n}{variant}");
                metrics(&id, &format!("{bits}-bit prime, {} kernel", kernel.name));
                c.bench_function(&id, |b| match inverse {
                    false => b.iter(|| (kernel.ntt_forward)(&table, black_box(&mut *poly))),
                    true => b.iter(|| (kernel.ntt_inverse)(&table, black_box(&mut *poly), 1.0)),
                });
            }
        }
    }
}

/// Many short samples: the machine's speed drifts more than a sample's mean.
fn short() -> Criterion {
    Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
}

criterion_group! { name = ntt; config = short(); targets = transforms }
criterion_main!(ntt);
