//! Shapes and operators of the models, as plain data, and the presets.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Shape and operators of one transformer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Vocabulary size.
    pub vocab: usize,
    /// Longest sequence, in tokens.
    pub context: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Width of the hidden state.
    pub width: usize,
    /// Attention heads per block; each is `width / heads` wide.
    pub heads: usize,
    /// Width of the feed-forward layer.
    pub feed_forward: usize,
    /// Attention operator.
    pub attention: Attention,
    /// Normalisation before each branch and before the head.
    #[serde(default)]
    pub norm: Norm,
    /// Added to the variance inside the normalisation.
    #[serde(default = "defaults::norm_epsilon")]
    pub norm_epsilon: f64,
    /// Feed-forward non-linearity.
    #[serde(default)]
    pub activation: Activation,
    /// Gated feed-forward: `down(act(gate x) * up x)`, as in the Llama family.
    #[serde(default)]
    pub gated: bool,
    /// Biases on the linear layers; LayerNorm always has one.
    #[serde(default = "defaults::yes")]
    pub bias: bool,
    /// Leading dimensions of each head that are rotated by position; 0 for none. Even.
    #[serde(default)]
    pub rotary: usize,
    /// Base of the rotary frequencies.
    #[serde(default = "defaults::rotary_base")]
    pub rotary_base: f64,
    /// A learned embedding per position, added to the token embedding.
    #[serde(default)]
    pub learned_positions: bool,
    /// Attention and feed-forward both read the block's input (GPT-NeoX).
    #[serde(default)]
    pub parallel_residual: bool,
    /// Normalise after each residual sum instead of before each branch (BERT).
    #[serde(default)]
    pub post_norm: bool,
    /// The output layer shares the embedding's weights.
    #[serde(default = "defaults::yes")]
    pub tied: bool,
    /// Every position sees the whole sequence (encoder) instead of its past.
    #[serde(default)]
    pub bidirectional: bool,
}

/// Attention operator of a model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attention {
    /// The usual softmax.
    Softmax,
    /// GELU of every score divided by the square root of the key count, no normaliser (the 2023 predecessor).
    Pointwise,
    /// PowerSoftmax.
    Power(Power),
}

/// A PowerSoftmax: weights proportional to `(x + shift)^power`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Power {
    /// Even exponent.
    pub power: u32,
    /// Public constant added to every score; 0 is the paper's operator.
    #[serde(default)]
    pub shift: f64,
    /// How the normaliser is computed.
    #[serde(default)]
    pub form: Form,
    /// What is added to it.
    pub epsilon: Epsilon,
}

/// The three ways to compute a PowerSoftmax.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// `y / (eps + sum y)`.
    Sum,
    /// The sum form with each row first divided by its largest magnitude and `eps` by that magnitude's power.
    Stable,
    /// `(y / n) / (eps + sum y / n)` over the row's `n` keys.
    #[default]
    Mean,
}

/// What keeps the normaliser away from zero.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Epsilon {
    /// The same number everywhere.
    Absolute(f64),
    /// This fraction of the row's largest `(x + shift)^power`.
    Relative(f64),
    /// One number per head and row, kept with the weights (see [`crate::transformer::Decoder::freeze_epsilon`]).
    Frozen,
}

/// Normalisation layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Norm {
    /// Mean removed, divided by the standard deviation.
    #[default]
    Layer,
    /// Divided by the root mean square.
    Rms,
}

/// Feed-forward non-linearities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x * Phi(x)`, exact.
    #[default]
    Gelu,
    /// `x * sigmoid(x)`.
    Silu,
}

impl Power {
    /// The operator this project ships: `(x + 3)^4`, mean form, `eps` 1 % of `3^4`.
    pub fn shipped() -> Self {
        Self::shifted(4, 3.0)
    }

    /// `(x + shift)^power`, mean form, `eps` 1 % of `shift^power`: about `exp(x power / shift)` while `x` is small.
    pub fn shifted(power: u32, shift: f64) -> Self {
        let start = shift.powi(power as i32);
        Self { power, shift, form: Form::Mean, epsilon: Epsilon::Absolute(start / 100.0) }
    }

    /// The paper's operator: `x^p` in the stable form, `eps` relative.
    pub fn plain(power: u32) -> Self {
        Self { power, shift: 0.0, form: Form::Stable, epsilon: Epsilon::Relative(1e-6) }
    }

    /// Refuses exponents and constants for which the operator is not defined.
    pub fn check(&self) -> Result<()> {
        if self.power == 0 || self.power % 2 == 1 || self.power > 64 {
            return Err(Error::config("power", self.power, "an even number from 2 to 64"));
        }
        if !self.shift.is_finite() {
            return Err(Error::config("shift", self.shift, "finite"));
        }
        match self.epsilon {
            Epsilon::Absolute(e) | Epsilon::Relative(e) if !(e.is_finite() && e >= 0.0) => {
                Err(Error::config("epsilon", e, "finite and not negative"))
            }
            _ => Ok(()),
        }
    }
}

impl ModelConfig {
    /// A pre-norm decoder with rotary positions on the whole head, GELU of width `4 * width` and a tied head.
    pub fn decoder(
        vocab: usize,
        context: usize,
        layers: usize,
        width: usize,
        heads: usize,
        attention: Attention,
    ) -> Self {
        Self {
            vocab,
            context,
            layers,
            width,
            heads,
            feed_forward: 4 * width,
            attention,
            norm: Norm::Layer,
            norm_epsilon: defaults::norm_epsilon(),
            activation: Activation::Gelu,
            gated: false,
            bias: true,
            rotary: width / heads.max(1),
            rotary_base: defaults::rotary_base(),
            learned_positions: false,
            parallel_residual: false,
            post_norm: false,
            tied: true,
            bidirectional: false,
        }
    }

    /// A BERT-like encoder: learned positions, post-norm, no rotation.
    pub fn encoder(
        vocab: usize,
        context: usize,
        layers: usize,
        width: usize,
        heads: usize,
        attention: Attention,
    ) -> Self {
        Self {
            rotary: 0,
            learned_positions: true,
            post_norm: true,
            bidirectional: true,
            norm_epsilon: 1e-12,
            ..Self::decoder(vocab, context, layers, width, heads, attention)
        }
    }

    /// A named shape with the given attention: `2x128`, `4x256`, `pythia-70m`, `pythia-410m`, `pythia-1.4b`,
    /// `pythia-2.8b` (32 layers), `bert-tiny`, `bert-base`.
    pub fn preset(name: &str, attention: Attention) -> Result<Self> {
        let pythia = |layers, width, heads, vocab| Self {
            rotary: width / heads / 4,
            parallel_residual: true,
            tied: false,
            ..Self::decoder(vocab, 2048, layers, width, heads, attention)
        };
        Ok(match name {
            "2x128" => Self::decoder(512, 128, 2, 128, 4, attention),
            "4x128" => Self::decoder(512, 128, 4, 128, 4, attention),
            "4x256" => Self::decoder(1024, 128, 4, 256, 8, attention),
            "pythia-70m" => pythia(6, 512, 8, 50_304),
            "pythia-410m" => pythia(24, 1024, 16, 50_304),
            "pythia-1.4b" => pythia(24, 2048, 16, 50_304),
            "pythia-2.8b" => pythia(32, 2560, 32, 50_304),
            "bert-tiny" => Self::encoder(30_522, 512, 2, 128, 2, attention),
            "bert-base" => Self::encoder(30_522, 512, 12, 768, 12, attention),
            other => {
                return Err(Error::config("preset", other, Self::PRESETS.join(", ")));
            }
        })
    }

    /// Names that [`Self::preset`] knows.
    pub const PRESETS: [&str; 9] = [
        "2x128",
        "4x128",
        "4x256",
        "pythia-70m",
        "pythia-410m",
        "pythia-1.4b",
        "pythia-2.8b",
        "bert-tiny",
        "bert-base",
    ];

    /// Width of one head.
    pub fn head_width(&self) -> usize {
        self.width / self.heads
    }

    /// Number of trained parameters, without building the model.
    pub fn parameters(&self) -> usize {
        let d = self.width;
        let linear = |input: usize, output: usize| input * output + if self.bias { output } else { 0 };
        let norm = match self.norm {
            Norm::Layer => 2 * d,
            Norm::Rms => d,
        };
        let feed = self.feed_forward;
        let up = linear(d, feed) * if self.gated { 2 } else { 1 };
        let block = 4 * linear(d, d) + up + linear(feed, d) + 2 * norm;
        let embeddings = self.vocab * d
            + if self.learned_positions { self.context * d } else { 0 }
            + if self.tied { 0 } else { self.vocab * d };
        embeddings + self.layers * block + norm
    }

    /// Refuses shapes that cannot be built.
    pub fn check(&self) -> Result<()> {
        for (field, value) in [
            ("vocab", self.vocab),
            ("context", self.context),
            ("layers", self.layers),
            ("width", self.width),
            ("heads", self.heads),
            ("feed_forward", self.feed_forward),
        ] {
            if value == 0 {
                return Err(Error::config(field, value, "at least 1"));
            }
        }
        if !self.width.is_multiple_of(self.heads) {
            return Err(Error::config("width", self.width, format!("a multiple of {} heads", self.heads)));
        }
        if self.rotary % 2 == 1 || self.rotary > self.head_width() {
            return Err(Error::config("rotary", self.rotary, format!("even and at most {}", self.head_width())));
        }
        if self.parallel_residual && self.post_norm {
            return Err(Error::config("parallel_residual", true, "false with post_norm"));
        }
        if self.norm_epsilon.is_nan() || self.norm_epsilon <= 0.0 {
            return Err(Error::config("norm_epsilon", self.norm_epsilon, "positive"));
        }
        match self.attention {
            Attention::Power(power) => power.check(),
            _ => Ok(()),
        }
    }
}

mod defaults {
    pub(super) fn norm_epsilon() -> f64 {
        1e-5
    }
    pub(super) fn rotary_base() -> f64 {
        10_000.0
    }
    pub(super) fn yes() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_shapes_have_their_published_sizes() {
        let count = |name| ModelConfig::preset(name, Attention::Softmax).unwrap().parameters();
        assert_eq!(count("pythia-70m"), 70_426_624);
        assert_eq!(count("pythia-410m"), 405_334_016);
        assert_eq!(count("pythia-1.4b"), 1_414_647_808);
        assert_eq!(count("2x128"), 462_336);
    }

    #[test]
    fn every_preset_is_valid_and_unknown_ones_are_named() {
        for name in ModelConfig::PRESETS {
            ModelConfig::preset(name, Attention::Power(Power::shipped())).unwrap().check().unwrap();
        }
        let error = ModelConfig::preset("gpt-9", Attention::Softmax).unwrap_err().to_string();
        assert!(error.contains("gpt-9") && error.contains("pythia-70m"), "{error}");
    }

    #[test]
    fn impossible_shapes_are_refused() {
        let good = ModelConfig::preset("2x128", Attention::Softmax).unwrap();
        assert!(ModelConfig { heads: 3, ..good.clone() }.check().is_err());
        assert!(ModelConfig { rotary: 33, ..good.clone() }.check().is_err());
        assert!(ModelConfig { layers: 0, ..good.clone() }.check().is_err());
        let odd = Power { power: 3, ..Power::shipped() };
        assert!(ModelConfig { attention: Attention::Power(odd), ..good }.check().is_err());
    }
}
