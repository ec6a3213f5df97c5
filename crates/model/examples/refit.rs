//! Fits cheaper or finer polynomials to a certified model and says what they cost in quality:
//! `cargo run --release --example refit -- MODEL TEXT TARGETS [OUT]`, where `TARGETS`
//! are three errors: of the reciprocal, of the inverse root and of the activation.

use std::path::Path;

use cipherlm_model::{FitOptions, Mode, Model, Positions, Runner, TOKENIZER_FILE, Tokenizer, fit};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |i: usize| args.get(i).map(String::as_str).ok_or("missing argument");
    let dir = Path::new(arg(0)?);
    let mut model = Model::load(dir)?;
    let tokenizer = Tokenizer::load(&dir.join(TOKENIZER_FILE))?;
    let tokens = tokenizer.encode(&std::fs::read_to_string(arg(1)?)?)?;
    let options = FitOptions {
        reciprocal: arg(2)?.parse()?,
        inv_sqrt: arg(3)?.parse()?,
        activation: arg(4)?.parse()?,
        ..FitOptions::default()
    };
    fit(&mut model, &options)?;
    for site in model.spec().sites.iter().filter_map(|s| Some((s, s.scheme.as_ref()?))) {
        println!("{:<28} degree {:>3}, error {:.1e}", site.0.name, site.1.degree(), site.1.error);
    }
    let context = model.shape().context;
    let (mut exact, mut polynomial) =
        (Runner::new(&model, Mode::Exact)?, Runner::new(&model, Mode::Polynomial)?);
    let (mut nats, mut same, mut count) = ([0.0; 2], 0, 0);
    for window in tokens.chunks_exact(context).take(40) {
        let rows = [exact.forward(window, Positions::All)?, polynomial.forward(window, Positions::All)?];
        for position in 0..context - 1 {
            for (sum, rows) in nats.iter_mut().zip(&rows) {
                let row = &rows[position];
                let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = row.iter().map(|x| (x - top).exp()).sum();
                *sum += total.ln() + top - row[window[position + 1] as usize];
            }
            let best = |row: &[f64]| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(i, _)| i);
            same += usize::from(best(&rows[0][position]) == best(&rows[1][position]));
            count += 1;
        }
    }
    let perplexity = nats.map(|n| (n / count as f64).exp());
    println!(
        "{count} tokens: perplexity {:.4} exact, {:.4} polynomial ({:.5}x), same top-1 {:.3} %",
        perplexity[0],
        perplexity[1],
        perplexity[1] / perplexity[0],
        100.0 * same as f64 / count as f64
    );
    if let Ok(out) = arg(5) {
        model.save(Path::new(out))?;
        tokenizer.save(&Path::new(out).join(TOKENIZER_FILE))?;
    }
    Ok(())
}
