//! Row means of attention on a text, each over the largest of its head: a distribution for the
//! division experiment.
//! `cargo run --release -p cipherlm-model --example row_means -- [MODEL] [TEXT_FILE] > rows.txt`,
//! then `cargo xtask experiment division --rows rows.txt`

use std::path::Path;

use cipherlm_model::{Attention, Mode, Model, Positions, Runner, TOKENIZER_FILE, Tokenizer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let folder = args.first().map_or("models/tiny", String::as_str);
    let dir = Path::new(folder);
    let model = Model::load(dir)?;
    let text = match args.get(1) {
        Some(file) => std::fs::read_to_string(file)?,
        None => "One day a little girl went to the park with her dog and her mom.".to_owned(),
    };
    let tokens = Tokenizer::load(&dir.join(TOKENIZER_FILE))?.encode(&text)?;
    let shape = model.shape();
    let (heads, dh) = (shape.heads, shape.head_dim);
    let Attention::PowerSoftmax { p, c, .. } = shape.attention else {
        return Err("this model's attention has no row means".into());
    };

    let mut runner = Runner::new(&model, Mode::Exact)?.with_taps();
    let mut means = vec![Vec::new(); shape.layers * heads];
    for window in tokens.chunks(shape.context) {
        runner.reset();
        runner.forward(window, Positions::Last)?;
        for (index, means) in means.iter_mut().enumerate() {
            let (layer, head) = (index / heads, index % heads);
            let tap = |name: &str| runner.tap(&format!("layers.{layer}.attn.{name}")).ok_or("no such tap");
            let (q, k) = (tap("q")?, tap("k")?);
            let part = |rows: &[f64], i: usize| rows[(i * heads + head) * dh..][..dh].to_vec();
            for i in 0..window.len() {
                let query = part(q, i);
                let score = |j: usize| {
                    let dot: f64 = query.iter().zip(part(k, j)).map(|(a, b)| a * b).sum();
                    (dot / (dh as f64).sqrt() + c).powi(p as i32)
                };
                means.push((0..=i).map(score).sum::<f64>() / (i + 1) as f64);
            }
        }
    }
    for head in &means {
        let largest = head.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        head.iter().for_each(|mean| println!("{:e}", mean / largest));
    }
    Ok(())
}
