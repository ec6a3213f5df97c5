//! Shapes by name.

use crate::shape::{Activation, Attention, Eps, Kind, Norm, Placement, Pool, Residual, Rotary, Shape};

impl Shape {
    /// Names accepted by [`Shape::preset`].
    pub const PRESETS: [&'static str; 11] = [
        "2x128",
        "4x256",
        "6x512",
        "pythia-70m",
        "pythia-410m",
        "pythia-1.4b",
        "pythia-2.8b",
        "bert-tiny",
        "minilm-l6",
        "smollm2-135m",
        "test",
    ];

    /// A named shape, or `None`.
    ///
    /// ```
    /// use cipherlm_model::Shape;
    /// let all = Shape::PRESETS.iter().flat_map(|name| Shape::preset(name));
    /// assert_eq!(all.max_by_key(Shape::parameters), Shape::preset("pythia-2.8b"));
    /// ```
    ///
    /// `6x512` is the Pythia-70M body with a small vocabulary and context; `pythia-2.8b` is the
    /// 32-layer one; `minilm-l6` is all-MiniLM-L6-v2 and `smollm2-135m` SmolLM2-135M, both with
    /// PowerSoftmax.
    pub fn preset(name: &str) -> Option<Self> {
        let story = Self {
            kind: Kind::Decoder,
            layers: 2,
            d_model: 128,
            heads: 4,
            kv_heads: None,
            head_dim: 32,
            ffn: 512,
            vocab: 512,
            context: 128,
            norm: Norm::LayerNorm,
            norm_eps: 1e-5,
            placement: Placement::Pre,
            activation: Activation::Gelu,
            gated: false,
            residual: Residual::Sequential,
            rotary: Some(Rotary { dims: 32, base: 10_000.0 }),
            positions: false,
            embed_norm: false,
            frozen_norms: vec![],
            tied_head: true,
            bias: true,
            attention: Attention::PowerSoftmax { p: 4, c: 3.0, eps: Eps::Frozen },
        };
        Some(match name {
            "2x128" => story,
            "4x256" => Self { layers: 4, d_model: 256, heads: 8, ffn: 1024, vocab: 1024, ..story },
            "6x512" => Self { vocab: 512, context: 128, ..story.pythia(6, 512, 8, 2048) },
            "pythia-70m" => story.pythia(6, 512, 8, 2048),
            "pythia-410m" => story.pythia(24, 1024, 16, 4096),
            "pythia-1.4b" => story.pythia(24, 2048, 16, 8192),
            "pythia-2.8b" => story.pythia(32, 2560, 32, 10_240),
            "bert-tiny" => Self {
                kind: Kind::Encoder { classes: 2 },
                heads: 2,
                head_dim: 64,
                vocab: 30_522,
                norm_eps: 1e-12,
                placement: Placement::Post,
                rotary: None,
                positions: true,
                embed_norm: true,
                tied_head: false,
                ..story
            },
            "minilm-l6" => story.minilm(),
            "smollm2-135m" => story.smollm2(),
            "test" => Self {
                d_model: 16,
                heads: 2,
                head_dim: 8,
                ffn: 32,
                vocab: 32,
                context: 16,
                rotary: Some(Rotary { dims: 4, base: 10_000.0 }),
                ..story
            },
            _ => return None,
        })
    }

    /// One of the Pythia models.
    fn pythia(self, layers: usize, d_model: usize, heads: usize, ffn: usize) -> Self {
        Self {
            layers,
            d_model,
            heads,
            head_dim: d_model / heads,
            ffn,
            vocab: 50_304,
            context: 2_048,
            residual: Residual::Parallel,
            rotary: Some(Rotary { dims: d_model / heads / 4, base: 10_000.0 }),
            tied_head: false,
            ..self
        }
    }

    fn minilm(self) -> Self {
        Self {
            kind: Kind::Embedder { pool: Pool::Mean },
            layers: 6,
            d_model: 384,
            heads: 12,
            ffn: 1536,
            vocab: 30_522,
            context: 512,
            norm_eps: 1e-12,
            placement: Placement::Post,
            rotary: None,
            positions: true,
            embed_norm: true,
            tied_head: false,
            ..self
        }
    }

    fn smollm2(self) -> Self {
        Self {
            layers: 30,
            d_model: 576,
            heads: 9,
            kv_heads: Some(3),
            head_dim: 64,
            ffn: 1536,
            vocab: 49_152,
            context: 2_048,
            norm: Norm::RmsNorm,
            activation: Activation::Silu,
            gated: true,
            rotary: Some(Rotary { dims: 64, base: 100_000.0 }),
            bias: false,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::is_calibrated;

    #[test]
    fn published_parameter_counts() {
        let count = |name: &str| Shape::preset(name).map(|s| s.parameters());
        assert_eq!(count("2x128"), Some(462_336));
        assert_eq!(count("pythia-70m"), Some(70_426_624));
        assert_eq!(count("pythia-410m"), Some(405_334_016));
        assert_eq!(count("pythia-1.4b"), Some(1_414_647_808));
        assert_eq!(count("pythia-2.8b"), Some(2_775_208_960));
        assert_eq!(count("smollm2-135m"), Some(134_515_008));
        // Without the second row of token types and the pooler, which its vectors do not pass.
        assert_eq!(count("minilm-l6"), Some(22_713_216 - 2 * 384 - 384 * 385));
        // Without embeddings and head.
        let body = |shape: &Shape| -> usize {
            let tensors = shape.tensors().into_iter();
            let outside = |name: &str| name.starts_with("embed.") || name.starts_with("head.");
            let kept = tensors.filter(|(name, _)| !outside(name) && !is_calibrated(name));
            kept.map(|(_, dims)| dims.iter().product::<usize>()).sum()
        };
        assert_eq!(Shape::preset("6x512").map(|shape| body(&shape)), Some(18_915_328));
        assert_eq!(count("nonsense"), None);
    }

    #[test]
    fn every_preset_is_valid_and_round_trips() {
        for name in Shape::PRESETS {
            let shape = Shape::preset(name).unwrap();
            shape.validate().unwrap();
            let text = serde_json::to_string(&shape).unwrap();
            assert_eq!(serde_json::from_str::<Shape>(&text).unwrap(), shape);
        }
    }
}
