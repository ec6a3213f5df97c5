//! Operations on many limbs at degree 2^16, where memory counts. Times are per limb unless the id
//! says otherwise.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cipherlm_benches::{aligned, metrics, scattered};
use cipherlm_ring::{
    Coeff, Domain, Eval, Kernel, Limbs, PackedPair, Poly, Ring, key_product, ntt_primes, primes_near,
};
use criterion::{Criterion, criterion_group, criterion_main};

const DEGREE: usize = 1 << 16;

fn ring_of(primes: usize) -> Arc<Ring> {
    Ring::new(DEGREE, &ntt_primes(DEGREE, 50, primes, &[]).expect("enough primes")).expect("a ring")
}

/// A ring with primes as in a chain for N = 2^16: seven of 45 bits to three of 50 (the base and the
/// special ones).
fn chain_of(primes: usize) -> Arc<Ring> {
    let mut chain = ntt_primes(DEGREE, 50, primes * 3 / 10, &[]).expect("enough primes");
    chain.extend(primes_near(DEGREE, 45.0, primes - chain.len(), &[]).expect("enough primes"));
    Ring::new(DEGREE, &chain).expect("a ring")
}

fn poly<D: Domain>(ring: &Arc<Ring>, limbs: &Limbs) -> Poly<D> {
    let mut poly = Poly::zero(ring, limbs).expect("limbs of the ring");
    for (index, limb) in poly.iter_mut() {
        limb.copy_from_slice(&scattered(DEGREE, ring.prime(index).expect("a limb")));
    }
    poly
}

/// One limb after another out of 30, so that data and twiddles come from outside the L2 cache.
fn stream(c: &mut Criterion) {
    let ring = chain_of(30);
    let mut poly: Poly<Coeff> = poly(&ring, &ring.limbs());
    let kernel = ring.kernel();
    let mut next = 0;
    for inverse in [false, true] {
        let id = format!("ring/{}_stream_30/{DEGREE}", if inverse { "intt" } else { "ntt" });
        metrics(&id, &format!("a limb, 21 primes of 45 bits and 9 of 50, {} kernel", kernel.name));
        c.bench_function(&id, |b| {
            b.iter(|| {
                next = (next + 1) % 30;
                let (table, limb) =
                    (ring.ntt_table(next).expect("a limb"), poly.limb_mut(next).expect("a limb"));
                if inverse {
                    (kernel.ntt_inverse)(table, limb, 1.0)
                } else {
                    (kernel.ntt_forward)(table, limb)
                }
            });
        });
    }
}

/// All of 24 limbs, on one thread and on two; the time is for all limbs.
fn threads(c: &mut Criterion) {
    let ring = chain_of(24);
    let mut poly = Some(poly::<Coeff>(&ring, &ring.limbs()));
    for threads in [1, 2] {
        let id = format!("ring/ntt_24_both_ways/{DEGREE}/threads_{threads}");
        metrics(&id, "24 limbs, 17 of 45 bits and 7 of 50, forward and inverse");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        c.bench_function(&id, |b| {
            b.iter(|| {
                let whole = poly.take().expect("put back below");
                poly = Some(pool.install(|| whole.into_eval().into_coeff()));
            });
        });
    }
}

/// Basis extension; the time is for the whole extension, 7 * 27 * 2^16 multiply-adds.
fn extend(c: &mut Criterion) {
    let ring = ring_of(34);
    let (from, to) = (Limbs::range(0..7), Limbs::range(7..34));
    let source: Poly<Coeff> = poly(&ring, &from);
    let mut target: Poly<Coeff> = Poly::zero(&ring, &to).expect("limbs of the ring");
    let extension = ring.extension(&from, &to).expect("an extension");
    let id = format!("ring/extend_7_27/{DEGREE}");
    metrics(&id, "7 to 27 limbs, all of them");
    c.bench_function(&id, |b| {
        b.iter(|| extension.apply_into(black_box(&source), &mut target).expect("same ring"))
    });
}

/// One limb of both accumulators.
type Pair<'a> = [&'a mut [f64]; 2];

/// Four digits against both halves of a key of 28 limbs: 117 MB, packed 92 MB for primes of 50
/// bits.
fn inner(c: &mut Criterion) {
    const LIMBS: usize = 28;
    let ring = ring_of(LIMBS);
    let all = ring.limbs();
    let key: Vec<[Poly<Eval>; 2]> = (0..4).map(|_| [poly(&ring, &all), poly(&ring, &all)]).collect();
    let packed: Vec<PackedPair> =
        key.iter().map(|pair| PackedPair::pack(pair.each_ref()).expect("same limbs")).collect();
    let digits: Vec<Poly<Eval>> = (0..4).map(|_| poly(&ring, &all)).collect();
    let [mut acc0, mut acc1]: [Poly<Eval>; 2] = [poly(&ring, &all), poly(&ring, &all)];

    // As right after the digits' transforms: digits and accumulators in cache, keys from memory.
    let hot: Vec<&[f64]> = digits.iter().map(|d| d.limb(0).expect("a limb")).collect();
    let [mut out0, mut out1] = [0, 1].map(|_| scattered(DEGREE + 8, 1 << 49));
    let (out0, out1) = (aligned(&mut out0, DEGREE), aligned(&mut out1, DEGREE));
    let mut next = 0;
    let mut timed = |id: String, what: &str, f: &mut dyn FnMut(usize, Pair<'_>)| {
        metrics(&id, &format!("a limb, {what} keys from memory, digits and accumulators in cache"));
        c.bench_function(&id, |b| {
            b.iter(|| {
                next = (next + 1) % LIMBS;
                f(next, [&mut *out0, &mut *out1]);
            });
        });
    };
    for kernel in Kernel::available().into_iter().rev().filter(|k| !["scalar", "integer"].contains(&k.name)) {
        let best = kernel.name == ring.kernel_name();
        let id = format!("ring/inner_product_4/{DEGREE}{}", if best { "" } else { "/" });
        let id = if best { id } else { id + kernel.name };
        timed(id.clone(), "packed", &mut |limb, [out0, out1]| {
            let keys: Vec<&[u8]> = packed.iter().map(|pair| pair.limb(limb).expect("a limb")).collect();
            (kernel.inner_product_packed)(ring.modulus(limb).expect("a limb"), out0, out1, &hot, &keys);
        });
        timed(format!("{id}/expanded"), "expanded", &mut |limb, [out0, out1]| {
            let half =
                |h: usize| key.iter().map(|pair| pair[h].limb(limb).expect("a limb")).collect::<Vec<_>>();
            let modulus = ring.modulus(limb).expect("a limb");
            (kernel.inner_product2)(modulus, out0, out1, &hot, &half(0), &half(1));
        });
    }
    let mut cold = |name: &str, f: &mut dyn FnMut([&mut Poly<Eval>; 2])| {
        let id = format!("ring/inner_product_4_cold/{DEGREE}{name}");
        metrics(&id, "a limb, everything from memory");
        c.bench_function(&id, |b| {
            b.iter_custom(|rounds| {
                let start = Instant::now();
                for _ in 0..rounds {
                    f([&mut acc0, &mut acc1]);
                }
                start.elapsed() / LIMBS as u32
            });
        });
    };
    cold("", &mut |acc| key_product(&mut [acc], &[&digits], &packed[..]).expect("same ring"));
    cold("/expanded", &mut |acc| key_product(&mut [acc], &[&digits], &key[..]).expect("same ring"));
}

/// Slot-by-slot operations on one limb in cache.
fn pointwise(c: &mut Criterion) {
    let ring = ring_of(1);
    let (modulus, kernel) = (ring.modulus(0).expect("a limb"), ring.kernel());
    let [mut a, mut x, mut y] = [0, 1, 2].map(|_| scattered(DEGREE + 8, modulus.value()));
    let [a, x, y] = [&mut a, &mut x, &mut y].map(|buffer| aligned(buffer, DEGREE));
    let automorphism = ring.automorphism(5).expect("odd");
    c.bench_function(&format!("ring/add/{DEGREE}"), |b| {
        b.iter(|| (kernel.add)(modulus, black_box(&mut *a), x))
    });
    c.bench_function(&format!("ring/mul/{DEGREE}"), |b| {
        b.iter(|| (kernel.mul)(modulus, black_box(&mut *a), x))
    });
    c.bench_function(&format!("ring/mul_add/{DEGREE}"), |b| {
        b.iter(|| (kernel.mul_add)(modulus, black_box(&mut *a), x, y))
    });
    c.bench_function(&format!("ring/automorphism/{DEGREE}"), |b| {
        b.iter(|| (kernel.permute)(black_box(&mut *a), x, automorphism.index()));
    });
}

/// Many short samples: the machine's speed drifts more than a sample's mean.
fn short() -> Criterion {
    Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
}

criterion_group! {
    name = ring;
    config = short();
    targets = stream, threads, extend, inner, pointwise
}
criterion_main!(ring);
