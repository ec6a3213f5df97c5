//! Hybrid key switching from its parts: re-encrypt `c1 * s` under another secret, and look at the
//! noise it costs.
//!
//! `cargo run --release -p cipherlm-ring --example 1_key_switch`

use std::time::Instant;

use cipherlm_ring::{
    Decomposition, Error, Eval, Limbs, Poly, Ring, Secret, Seed, Stream, key_product, ntt_primes, sample,
};

fn main() -> Result<(), Error> {
    let degree = 1 << 14;
    let ring = Ring::new(degree, &ntt_primes(degree, 50, 10, &[])?)?;
    let (chain, special) = (Limbs::range(0..8), Limbs::range(8..10));
    let digits = [0, 2, 4, 6].map(|start| Limbs::range(start..start + 2));
    let gadget = Decomposition::new(&ring, &chain, &digits, &special)?;
    let seed = Seed::random()?;

    let secret = |label| -> Result<Secret<Eval>, Error> {
        Ok(sample::ternary(&mut Stream::new(&seed, label, 0), degree)
            .to_poly(&ring, gadget.limbs())?
            .into_eval())
    };
    let (from, to) = (secret("from")?, secret("to")?);

    // Digit d of the key: (b, a) with b = e - a * to + P * from on the limbs of the digit, e - a *
    // to elsewhere.
    let mut key = Vec::new();
    for (d, limbs) in digits.iter().enumerate() {
        let a: Poly<Eval> = sample::uniform(&ring, gadget.limbs(), &seed, "public", d as u64)?;
        let mut mask = Poly::mul(&a, to.expose())?;
        mask.neg_assign();
        let mut errors = Stream::new(&seed, "error", d as u64);
        mask.add_assign(
            sample::gaussian(&mut errors, degree).to_poly(&ring, gadget.limbs())?.into_eval().expose(),
        )?;
        let mut factors = Vec::new();
        for limb in limbs.iter() {
            let m = ring.modulus(limb)?;
            factors.push(special.iter().try_fold(1, |p, i| Ok::<_, Error>(m.mul(p, ring.prime(i)?)))?);
        }
        mask.add_scaled_assign(from.expose(), limbs, &factors)?;
        key.push([mask, a]);
    }

    let c1: Poly<Eval> = sample::uniform(&ring, &chain, &seed, "ciphertext", 0)?;
    let start = Instant::now();
    let raised = gadget.decompose(&c1)?;
    let [mut b, mut a] = [Poly::scratch(&ring, gadget.limbs())?, Poly::scratch(&ring, gadget.limbs())?];
    key_product(&mut [[&mut b, &mut a]], &[&raised], &key[..])?;
    let down = ring.mod_down(&chain, &special)?;
    let (mut b, a) = (down.apply(&b)?, down.apply(&a)?);
    let time = start.elapsed();

    // b + a * to - c1 * from is the noise.
    b.mul_add_assign(&a, to.expose())?;
    b.sub_assign(&Poly::mul(&c1, from.expose())?)?;
    let worst = b.into_coeff().to_f64().into_iter().fold(0f64, |worst, x| worst.max(x.abs()));
    println!("N = {degree}, {} + {} limbs, kernel {}", chain.len(), special.len(), ring.kernel_name());
    println!("key switch: {time:.2?}, noise at most 2^{:.1}", worst.log2());
    assert!(worst < 1e6, "noise of a key switch is far below the moduli");
    Ok(())
}
