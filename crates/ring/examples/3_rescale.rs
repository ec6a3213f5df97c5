//! Residues of a large integer polynomial: exact extension to further primes, and division by a
//! dropped prime.
//!
//! `cargo run --release -p cipherlm-ring --example 3_rescale`

use cipherlm_ring::{Coeff, Error, Limbs, Poly, Ring, ntt_primes};
use num_bigint::BigInt;

fn main() -> Result<(), Error> {
    let degree = 1 << 10;
    let ring = Ring::new(degree, &ntt_primes(degree, 50, 6, &[])?)?;
    let (chain, further) = (Limbs::range(0..4), Limbs::range(4..6));

    // Coefficients of about 100 bits, modulo four primes of 50.
    let before: Vec<BigInt> = (0..degree as i64).map(|i| (BigInt::from(i - 512) << 90u32) + 12_345).collect();
    let x = Poly::<Coeff>::from_bigint(&ring, &chain, &before)?;

    // The same integers modulo two more primes: exact, because the centred representative is meant.
    let extended = ring.extension(&chain, &further)?.apply(&x)?;
    for (limb, residues) in extended.iter() {
        let q = BigInt::from(ring.prime(limb)?);
        for (residue, integer) in residues.iter().zip(&before) {
            assert_eq!(((integer % &q) + &q) % &q, BigInt::from(*residue as u64));
        }
    }

    // Rescaling drops one prime and divides by it, rounding to nearest.
    let (keep, drop) = (Limbs::range(0..3), Limbs::range(3..4));
    let quotient = ring.mod_down(&keep, &drop)?.apply(&x.into_eval())?.into_coeff().to_bigint();
    let q = BigInt::from(ring.prime(3)?);
    let worst = before.iter().zip(&quotient).map(|(x, y)| (x - y * &q).magnitude().clone()).max();
    let worst = worst.expect("there are coefficients");
    assert!(worst <= q.magnitude() >> 1u32, "to nearest");
    println!("{} coefficients of {} bits", degree, before.iter().map(BigInt::bits).max().unwrap_or(0));
    println!(
        "extension to {further:?}: exact; rescaling by {q}: remainder at most {worst} (q / 2 = {})",
        &q / 2
    );
    Ok(())
}
