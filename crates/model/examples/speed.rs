//! Training throughput on random tokens.
use burn::tensor::Device;
use cipherlm_model::config::{Attention, ModelConfig, Power};
use cipherlm_model::corpus::Corpus;
use cipherlm_model::trainer::{TrainConfig, Trainer};

fn main() -> cipherlm_model::Result<()> {
    let mut x = 1u32;
    let tokens = (0..100_000)
        .map(|_| {
            x = x.wrapping_mul(1664525).wrapping_add(1013904223);
            (x >> 16) % 512
        })
        .collect();
    let corpus = Corpus::new(tokens, 0);
    for (name, attention) in [("softmax", Attention::Softmax), ("power", Attention::Power(Power::shipped()))] {
        let config = ModelConfig::preset("2x128", attention)?;
        let mut trainer = Trainer::new(name, config, TrainConfig::new(1, 16, 100, 2e-3), None, &Device::flex())?;
        trainer.step(&corpus)?;
        let t = std::time::Instant::now();
        let n = 8;
        for _ in 0..n {
            trainer.step(&corpus)?;
        }
        println!("{name}: {:.0} tokens/s", f64::from(n) * 2048.0 / t.elapsed().as_secs_f64());
    }
    Ok(())
}
