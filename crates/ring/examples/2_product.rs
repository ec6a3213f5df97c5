//! The product of two polynomials modulo `X^N + 1`, by transforms and by the schoolbook rule.
//!
//! `cargo run --release -p cipherlm-ring --example 2_product`

use std::time::Instant;

use cipherlm_ring::{Coeff, Error, Limbs, Poly, Ring, ntt_primes};

fn main() -> Result<(), Error> {
    let degree = 1 << 12;
    let ring = Ring::new(degree, &ntt_primes(degree, 50, 2, &[])?)?;
    let limbs = Limbs::range(0..2);
    let a: Vec<i64> = (0..degree as i64).map(|i| i * i % 1_000_003 - 500_000).collect();
    let b: Vec<i64> = (0..degree as i64).map(|i| i * 7919 % 999_983 - 500_000).collect();

    let start = Instant::now();
    let x = Poly::<Coeff>::from_i64(&ring, &limbs, &a)?.into_eval();
    let mut product = Poly::<Coeff>::from_i64(&ring, &limbs, &b)?.into_eval();
    product.mul_assign(&x)?;
    let product = product.into_coeff().to_bigint();
    let fast = start.elapsed();

    let start = Instant::now();
    let mut naive = vec![0i128; degree];
    for (i, &x) in a.iter().enumerate() {
        for (j, &y) in b.iter().enumerate() {
            let term = i128::from(x) * i128::from(y);
            // X^N = -1.
            if i + j < degree { naive[i + j] += term } else { naive[i + j - degree] -= term }
        }
    }
    let slow = start.elapsed();
    assert!(product.iter().zip(&naive).all(|(p, &n)| *p == n.into()), "both rules give one product");
    println!(
        "N = {degree}, two 50-bit primes, kernel {}: {fast:.2?}, schoolbook {slow:.2?}",
        ring.kernel_name()
    );
    Ok(())
}
