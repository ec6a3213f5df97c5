//! Writes a model of a preset shape with seeded random weights and certified ranges, to plan and
//! time shapes that nobody trained here:
//! `cargo run --release --example random_model -- SHAPE MODEL OUT [SEED [lean]]`, say with
//! `6x512 models/stories-2x128`. The tokenizer, and with it the vocabulary, is that of `MODEL`.
//! `lean` freezes all norms, takes quadratic activations and reciprocals of a low degree. What the
//! new model says means nothing.

use std::path::Path;

use cipherlm_model::{Activation, FitOptions, Shape, TOKENIZER_FILE, Tokenizer, fit, random};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |i: usize| args.get(i).map(String::as_str).ok_or("arguments: SHAPE MODEL OUT [SEED [lean]]");
    let tokenizer = Tokenizer::load(&Path::new(arg(1)?).join(TOKENIZER_FILE))?;
    let preset = Shape::preset(arg(0)?).ok_or("no such preset shape")?;
    let shape = Shape { vocab: tokenizer.vocab(), context: preset.context.min(128), ..preset };
    let seed = arg(3).map_or(Ok(1), str::parse)?;
    let (shape, reciprocal) = match arg(4) {
        Err(_) => (shape, 1e-3),
        Ok("lean") => {
            let (frozen_norms, activation) = (shape.norms(), Activation::Quadratic);
            (Shape { frozen_norms, activation, ..shape }, 0.1)
        }
        Ok(other) => return Err(format!("`{other}`: expected `lean` or nothing").into()),
    };
    let mut model = random::certified(&format!("random-{}", arg(0)?), &shape, seed)?;
    // Errors below the noise of a deep circuit would only cost depth.
    fit(&mut model, &FitOptions { reciprocal, inv_sqrt: 5e-4, activation: 3e-3, ..FitOptions::default() })?;
    model.save(Path::new(arg(2)?))?;
    tokenizer.save(&Path::new(arg(2)?).join(TOKENIZER_FILE))?;
    println!("{} parameters in {}", shape.parameters(), arg(2)?);
    Ok(())
}
