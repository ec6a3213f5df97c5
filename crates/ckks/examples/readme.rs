//! The example of the repository's README.
//!
//! `cargo run --release -p cipherlm-ckks --example readme`

use cipherlm_ckks::{Error, Evaluator, KeyRequest, Plaintext, SecretKey, presets};

fn main() -> Result<(), Error> {
    let params = presets::levels3_scale40()?; // refused if it were below 128-bit security
    let secret = SecretKey::generate(&params)?;
    let mut request = KeyRequest::new();
    request.relin(params.max_level()).rotations(&params, [1], params.max_level());
    println!("keys will take {}", request.bill(&params)?);
    let evaluator = Evaluator::new(&params, secret.key_set(&request)?);

    let (level, scale) = (params.max_level(), params.default_scale(params.max_level()));
    let x = Plaintext::encode_real(&params, &[1.0, 2.0, 3.0, 4.0], 4, scale)?;
    let x = secret.encrypt(&x, level)?;
    let squared = evaluator.mul_relin_rescale(&x, &x)?; // one level down, the scale tracked exactly
    let turned = evaluator.rotate(&squared, 1)?;

    let answer = secret.decrypt(&turned)?.decode_public(16.0, 2f64.powi(-20))?;
    println!("{answer:?}"); // 4, 9, 16, 1
    Ok(())
}
