//! A matrix times an encrypted vector by its diagonals, baby steps and giant steps.
//!
//! `cargo run --release -p cipherlm-circuits --example 2_matrix`

use cipherlm_circuits::linear::LinearTransform;
use cipherlm_circuits::slots::{Chain, Clear, Encrypted, Machine, Primitives};
use cipherlm_ckks::{Complex64, Plaintext, SecretKey, presets};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let params = presets::levels3_scale40()?;
    let (top, size) = (params.max_level(), 64);

    // A 64 x 64 matrix acts on slots with period 64: 64 diagonals, each a plaintext of period 64
    // that is kept in a small subring. Baby steps share one decomposition and giant steps one sum
    // each, so few rotations do for 63 shifts.
    let entry = |r: usize, c: usize| ((r * 31 + c * 17) % 23) as f64 / 23.0 - 0.5;
    let rows: Vec<Vec<Complex64>> =
        (0..size).map(|r| (0..size).map(|c| Complex64::new(entry(r, c), 0.0)).collect()).collect();
    let transform = LinearTransform::from_matrix(params.slots(), &rows)?;
    println!("{:?}", transform.cost());

    // Which keys: ask the circuit.
    let dry = Clear::dry(Chain::of(&params)?);
    dry.linear_transform(&dry.input(0.0, top)?, &transform)?;
    let request = dry.log().key_request(&params);
    println!("{}", request.bill(&params)?);

    let secret = SecretKey::generate(&params)?;
    let machine = Encrypted::new(&params, secret.id(), secret.key_set(&request)?)?;
    let x: Vec<f64> = (0..size).map(|j| (j as f64).sin()).collect();
    // Encoded in 64 slots the vector repeats through all 4096.
    let plaintext = Plaintext::encode_real(&params, &x, size, machine.chain().scale(top))?;
    let input = machine.input(secret.encrypt(&plaintext, top)?)?;

    let output = machine.linear_transform(&input, &transform)?;
    println!("level {} -> {}", machine.level(&input), machine.level(&output));

    let found = secret.decrypt(output.ciphertext())?.decode().real();
    let expected = |r: usize| (0..size).map(|c| entry(r, c) * x[c]).sum::<f64>();
    let worst = (0..size).map(|r| (found[r] - expected(r)).abs()).fold(0.0, f64::max);
    println!("worst of 64 slots: 2^{:.1}", worst.log2());
    assert!(worst < 2f64.powi(-18));
    Ok(())
}
