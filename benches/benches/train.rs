//! `train/2x128`, `train/4x256`: one optimiser step of 16 x 128 tokens, forward, backward and
//! AdamW; throughput in tokens.

use std::hint::black_box;

use cipherlm_model::{Attention, Shape, Tokenizer};
use cipherlm_train::arch::{Arch, shifted};
use cipherlm_train::corpus::Corpus;
use cipherlm_train::settings::TrainConfig;
use cipherlm_train::trainer::Trainer;
use cipherlm_train::{Device, stories};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn train(c: &mut Criterion) {
    let text = stories::stories(1, 2000);
    let Ok(tokenizer) = Tokenizer::train(&text, 320) else { return };
    let Ok(tokens) = tokenizer.encode(&text) else { return };
    let corpus = Corpus::new(tokens, 0);
    let mut group = c.benchmark_group("train");
    group.sample_size(10);
    for (name, power) in [("2x128", true), ("2x128/softmax", false), ("4x256", true)] {
        let attention = if power { shifted(4, 3.0) } else { Attention::Softmax };
        let Some(shape) = Shape::preset(name.trim_end_matches("/softmax")) else { continue };
        let arch = Arch::new(shape).with_attention(attention);
        let settings = TrainConfig::new(1, 16, 1_000_000, 2e-3);
        let tokens = settings.tokens_per_step(&arch) as u64;
        let Ok(mut trainer) = Trainer::new(name, arch, settings, None, &Device::flex()) else { continue };
        group.throughput(Throughput::Elements(tokens));
        group.bench_function(name, |b| b.iter(|| black_box(trainer.step(&corpus))));
    }
    group.finish();
}

criterion_group!(benches, train);
criterion_main!(benches);
