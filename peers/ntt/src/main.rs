//! Forward and inverse negacyclic transforms of other crates, one residue polynomial in cache, one
//! JSON object a line.
//!
//! Their inverse leaves out the factor 1/N, which ours includes. 59-bit primes are their common
//! use; 50-bit ones are timed too because those are what we use.

use std::hint::black_box;
use std::time::Instant;

const SAMPLES: usize = 41;
const SAMPLE_NANOS: u64 = 4_000_000;

fn main() {
    for bits in [59, 50] {
        for log_n in 12..=16 {
            let n = 1usize << log_n;
            let q = prime(bits, n as u64);
            let word = |i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15) % q;
            let mut buffer: Vec<u64> = (0..n as u64 + 8).map(word).collect();
            // On a cache-line boundary, as ours.
            let start = buffer.as_ptr().align_offset(64);
            let values = &mut buffer[start..start + n];
            if let Some(plan) = tfhe_ntt::prime64::Plan::try_new(n, q) {
                row("tfhe-ntt 0.7.1", "forward", n, bits, || plan.fwd(black_box(&mut *values)));
                row("tfhe-ntt 0.7.1", "inverse", n, bits, || plan.inv(black_box(&mut *values)));
            }
            values.iter_mut().for_each(|x| *x %= q);
            if let Some(plan) = concrete_ntt::prime64::Plan::try_new(n, q) {
                row("concrete-ntt 0.2.0", "forward", n, bits, || plan.fwd(black_box(&mut *values)));
                row("concrete-ntt 0.2.0", "inverse", n, bits, || plan.inv(black_box(&mut *values)));
            }
        }
    }
}

/// Times `f` and prints the result.
fn row(peer: &str, direction: &str, n: usize, bits: u32, mut f: impl FnMut()) {
    let start = Instant::now();
    let mut warm = 0;
    while warm < 3 || (start.elapsed().as_nanos() as u64) < SAMPLE_NANOS {
        f();
        warm += 1;
    }
    let rounds = warm;
    let mut times: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let start = Instant::now();
            (0..rounds).for_each(|_| f());
            start.elapsed().as_nanos() as f64 / f64::from(rounds)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let (median, min, max) = (times[SAMPLES / 2], times[0], times[SAMPLES - 1]);
    println!(
        "{{\"id\":\"ntt/{direction}/{n}\",\"params\":\"{bits}-bit prime\",\"median_ns\":{median:.1},\
         \"min_ns\":{min:.1},\"max_ns\":{max:.1},\"samples\":{SAMPLES},\"peer\":\"{peer} {bits}-bit\"}}"
    );
}

/// The largest prime below `2^bits` that is 1 modulo `2n`.
fn prime(bits: u32, n: u64) -> u64 {
    (1..).map(|k| (1 << bits) + 1 - 2 * n * k).find(|&q| is_prime(q)).expect("primes are dense enough")
}

/// Miller-Rabin with bases that decide all 64-bit numbers.
fn is_prime(q: u64) -> bool {
    let twos = (q - 1).trailing_zeros();
    [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37].iter().all(|&base| {
        let mut x = pow(base, (q - 1) >> twos, q);
        x == 1
            || (0..twos).any(|_| {
                let found = x == q - 1;
                x = mul(x, x, q);
                found
            })
    })
}

fn mul(a: u64, b: u64, q: u64) -> u64 {
    (u128::from(a) * u128::from(b) % u128::from(q)) as u64
}

fn pow(mut base: u64, mut exponent: u64, q: u64) -> u64 {
    let mut result = 1;
    while exponent != 0 {
        if exponent & 1 == 1 {
            result = mul(result, base, q);
        }
        base = mul(base, base, q);
        exponent >>= 1;
    }
    result
}
