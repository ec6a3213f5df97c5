//! The inner product of two encrypted vectors: one product, one relinearisation, log2(n) rotations.
//!
//! `cargo run --release -p cipherlm-ckks --example 2_rotate_and_dot`

use cipherlm_ckks::{Error, Evaluator, KeyRequest, Plaintext, SecretKey, presets};

fn main() -> Result<(), Error> {
    let params = presets::levels3_scale40()?;
    let secret = SecretKey::generate(&params)?;
    let n = 256;

    // A circuit says what keys it needs before any exists: products need a relinearisation key,
    // each rotation a key of its own. Keys are cut to the level of their use; after the product
    // below we are at level 2.
    let top = params.max_level();
    let steps: Vec<i64> = (0..8).map(|k| 1 << k).collect();
    let mut request = KeyRequest::new();
    request.relin(top).rotations(&params, steps, top - 1);
    println!("{}", request.bill(&params)?);
    let evaluator = Evaluator::new(&params, secret.key_set(&request)?);

    let x: Vec<f64> = (0..n).map(|j| (j as f64 * 0.1).sin()).collect();
    let y: Vec<f64> = (0..n).map(|j| (j as f64 * 0.2).cos()).collect();
    let encrypt = |values: &[f64]| {
        secret.encrypt(&Plaintext::encode_real(&params, values, n, params.default_scale(top))?, top)
    };
    let (a, b) = (encrypt(&x)?, encrypt(&y)?);

    // Slot by slot. The scales multiply; the rescale divides by a prime of about the same size and
    // takes one level.
    let product = evaluator.mul_relin_rescale(&a, &b)?;
    println!("product: level {}, scale {}", product.level(), product.scale());

    // Rotating by 1, 2, 4, ... and adding leaves the sum of all slots in every slot.
    let sum = evaluator.inner_sum(&product, 1, n)?;

    let found = secret.decrypt(&sum)?.decode().real()[0];
    let expected: f64 = x.iter().zip(&y).map(|(x, y)| x * y).sum();
    println!("encrypted {found:.9}, clear {expected:.9}");
    assert!((found - expected).abs() < 2f64.powi(-18));
    Ok(())
}
