//! Shapes, folders and trainings of toy data that the tests share.

use std::path::PathBuf;

use burn::tensor::Device;
use cipherlm_model::{Activation, Attention, Eps, Kind, Norm, Placement, Residual, Rotary, Shape};
use cipherlm_train::arch::{Arch, shifted};
use cipherlm_train::corpus::Corpus;
use cipherlm_train::params::HostParam;
use cipherlm_train::settings::TrainConfig;
use cipherlm_train::trainer::Trainer;

/// A pre-norm decoder with rotary positions on the whole head and a tied head.
pub(crate) fn decoder(
    vocab: usize,
    context: usize,
    layers: usize,
    d_model: usize,
    heads: usize,
    attention: Attention,
) -> Shape {
    Shape {
        kind: Kind::Decoder,
        layers,
        d_model,
        heads,
        kv_heads: None,
        head_dim: d_model / heads,
        ffn: 4 * d_model,
        vocab,
        context,
        norm: Norm::LayerNorm,
        norm_eps: 1e-5,
        placement: Placement::Pre,
        activation: Activation::Gelu,
        gated: false,
        residual: Residual::Sequential,
        rotary: Some(Rotary { dims: d_model / heads, base: 10_000.0 }),
        positions: false,
        embed_norm: false,
        frozen_norms: vec![],
        tied_head: true,
        bias: true,
        attention,
    }
}

/// The same as an encoder of BERT's form.
pub(crate) fn encoder(shape: Shape, classes: usize) -> Shape {
    Shape {
        kind: Kind::Encoder { classes },
        rotary: None,
        positions: true,
        embed_norm: true,
        frozen_norms: vec![],
        placement: Placement::Post,
        tied_head: false,
        ..shape
    }
}

pub(crate) fn power(p: u32, c: f64, eps: Eps) -> Attention {
    Attention::PowerSoftmax { p, c, eps }
}

/// Values that leave no bias, gain or epsilon trivial.
pub(crate) fn vary(params: &mut [HostParam]) {
    for (i, p) in params.iter_mut().enumerate() {
        for (j, x) in p.data.iter_mut().enumerate() {
            let wave = (0.7 * (i * 31 + j) as f32).sin();
            if !p.trained {
                *x = 0.5 + 0.4 * wave;
            } else if p.shape.len() == 1 {
                *x += 0.2 * wave;
            }
        }
    }
}

/// A fresh folder of the test's name, removed when dropped.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cipherlm-train-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.0.join(name), content).unwrap();
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The shape in the mean form.
pub(crate) fn arch(shape: Shape) -> Arch {
    Arch::new(shape)
}

/// One layer for thirteen symbols.
pub(crate) fn toy(attention: Attention) -> Arch {
    Arch::new(decoder(13, 16, 1, 32, 2, attention))
}

pub(crate) fn shipped() -> Arch {
    toy(shifted(4, 3.0))
}

/// Sums of two digits, `a+b=cc;` over the symbols 0-9 + = ;.
pub(crate) fn sums(count: u32) -> Corpus {
    let mut x = 7u32;
    let mut tokens = Vec::new();
    for _ in 0..count {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (a, b) = ((x >> 8) % 10, (x >> 16) % 10);
        tokens.extend([a, 10, b, 11, (a + b) / 10, (a + b) % 10, 12]);
    }
    Corpus::new(tokens, 0)
}

pub(crate) fn train(steps: usize) -> TrainConfig {
    TrainConfig { evaluate_windows: 16, ..TrainConfig::new(3, 8, steps, 4e-3) }
}

pub(crate) fn start(arch: Arch, settings: TrainConfig) -> Trainer {
    Trainer::new("t", arch, settings, None, &Device::flex()).unwrap()
}

pub(crate) fn steps(trainer: &mut Trainer, corpus: &Corpus, count: usize) {
    for _ in 0..count {
        trainer.step(corpus).unwrap();
    }
}
