//! Encrypts two vectors, adds them without the key, decrypts the sum.
//!
//! `cargo run --release -p cipherlm-ckks --example 1_encrypt_and_add`

use cipherlm_ckks::{Error, Evaluator, NoKeys, Plaintext, SecretKey, presets};

fn main() -> Result<(), Error> {
    // 2^13 coefficients carry 4096 slots; the modulus is 207 bits, which is 128-bit secure with
    // room to spare.
    let params = presets::levels3_scale40()?;
    println!("{params:?}");

    // The client owns the secret. Everything else in this program could run on a server.
    let secret = SecretKey::generate(&params)?;

    // A message is a vector of slots times a scale, rounded to integers: at a scale of 2^40 the
    // rounding is far below the noise of encryption, and values keep about 30 bits behind the
    // point.
    let level = params.max_level();
    let scale = params.default_scale(level);
    let prices = Plaintext::encode_real(&params, &[1.25, 2.5, 3.75, 5.0], 4, scale)?;
    let taxes = Plaintext::encode_real(&params, &[0.25, 0.50, 0.75, 1.0], 4, scale)?;
    let (a, b) = (secret.encrypt(&prices, level)?, secret.encrypt(&taxes, level)?);

    // Sums need no keys. Operands must agree in level and scale: nothing is adjusted silently.
    let evaluator = Evaluator::new(&params, NoKeys);
    let sum = evaluator.add(&a, &b)?;
    println!("sum at level {} and scale {}", sum.level(), sum.scale());

    // What decryption returns still holds noise that depends on the secret. It may be used here ...
    let decrypted = secret.decrypt(&sum)?;
    println!("for the owner: {:?}", decrypted.decode().real());
    // ... but what leaves the process is rounded first.
    let public: Vec<f64> = decrypted.decode_public(20.0, 2f64.powi(-25))?.iter().map(|v| v.re).collect();
    println!("for anybody:   {public:?}");
    assert_eq!(public, [1.5, 3.0, 4.5, 6.0]);
    Ok(())
}
