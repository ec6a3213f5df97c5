//! What travels between client and server: parameters by hash, seeded ciphertexts, switching keys,
//! a public key.
//!
//! `cargo run --release -p cipherlm-ckks --example 3_saving_and_loading`

use cipherlm_ckks::wire::Header;
use cipherlm_ckks::{
    Ciphertext, Error, Evaluator, KeyRequest, KeySet, Plaintext, SecretKey, Wire, WireError, presets,
};

fn main() -> Result<(), Error> {
    // Both sides build the same parameters; every object carries their hash.
    let params = presets::levels3_scale40()?;
    let top = params.max_level();

    // Client: a secret in 148 bytes, evaluation keys with a seed for half of them, a ciphertext
    // likewise.
    let secret = SecretKey::generate(&params)?;
    let stored = secret.to_secret_bytes();
    let mut request = KeyRequest::new();
    request.relin(top).rotations(&params, [1], top);
    let keys = secret.key_set(&request)?.to_bytes();
    let plaintext = Plaintext::encode_real(&params, &[0.5, -0.25], 2, params.default_scale(top))?;
    let upload = secret.encrypt(&plaintext, top)?.to_bytes();
    println!("secret {} bytes, keys {} bytes, ciphertext {} bytes", stored.len(), keys.len(), upload.len());

    // Server: headers tell what an object is without its parameters; reading checks everything
    // else.
    let header = Header::read(&upload)?;
    println!("object of type {} under key {}", header.kind, header.key_id);
    let evaluator = Evaluator::new(&params, KeySet::from_bytes(&params, &keys)?);
    let x = Ciphertext::from_bytes(&params, &upload)?;
    let square = evaluator.square_relin_rescale(&x)?;
    // Results go back at the lowest level that holds them: fewer bytes, and less to learn from.
    let download = evaluator.drop_to_level(&square, 0)?.to_bytes();
    println!("result {} bytes", download.len());

    // Damage is found, not decrypted.
    let mut damaged = download.clone();
    damaged[1000] ^= 1;
    assert!(matches!(
        Ciphertext::from_bytes(&params, &damaged).map(drop),
        Err(Error::Wire(WireError::Checksum))
    ));
    // A result under another key is refused, not decrypted to noise.
    let result = Ciphertext::from_bytes(&params, &download)?;
    let stranger = SecretKey::generate(&params)?;
    assert!(matches!(stranger.decrypt(&result).map(drop), Err(Error::KeyMismatch { .. })));

    let secret = SecretKey::from_secret_bytes(&params, &stored)?;
    let values = secret.decrypt(&result)?.decode().real();
    println!("squares: {values:.6?}");
    assert!((values[0] - 0.25).abs() < 1e-6 && (values[1] - 0.0625).abs() < 1e-6);
    Ok(())
}
