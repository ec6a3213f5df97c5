//! A model as data: what it is, and its answer with exact functions and with the certified
//! polynomials. `cargo run --release -p cipherlm-model --example 1_load_and_run -- [MODEL] [TEXT]`

use std::path::Path;

use cipherlm_model::{Mode, Model, Positions, Runner, TOKENIZER_FILE, Tokenizer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |i: usize, default: &str| args.get(i).map_or_else(|| default.to_owned(), Clone::clone);
    let folder = arg(0, "models/tiny");
    let dir = Path::new(&folder);
    let model = Model::load(dir)?;
    let tokenizer = Tokenizer::load(&dir.join(TOKENIZER_FILE))?;
    println!(
        "{}: {} parameters, {} certified sites",
        model.spec().name,
        model.shape().parameters(),
        model.spec().sites.len()
    );

    let tokens = tokenizer.encode(&arg(1, "One day a"))?;
    let mut answers = Vec::new();
    for mode in [Mode::Exact, Mode::Polynomial] {
        let rows = Runner::new(&model, mode)?.forward(&tokens, Positions::Last)?;
        answers.push(rows.into_iter().next_back().ok_or("no logits")?);
    }
    let best = |row: &[f64]| (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap_or(0) as u32;
    let difference = answers[0].iter().zip(&answers[1]).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    for (name, row) in ["exact", "polynomials"].iter().zip(&answers) {
        println!("{name:<12} next token {:?}", tokenizer.decode(&[best(row)])?);
    }
    println!("largest difference of a logit {difference:.1e}");
    assert!(difference < 0.1, "the polynomials stand for the functions");
    Ok(())
}
