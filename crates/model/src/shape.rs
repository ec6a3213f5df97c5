//! The shape of a transformer: sizes and choices, no numbers that were learned.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Most blocks of a model.
const MAX_LAYERS: usize = 1024;

/// Sizes and architectural choices of a model.
///
/// All linear maps are stored `[in, out]` and act as `y = x W + b` on row vectors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Decoder (next-token model) or encoder (classifier).
    pub kind: Kind,
    /// Number of blocks.
    pub layers: usize,
    /// Width of the hidden state.
    pub d_model: usize,
    /// Attention heads.
    pub heads: usize,
    /// Key and value heads, each read by `heads / kv_heads` query heads in a row; one for each head
    /// where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_heads: Option<usize>,
    /// Features per head.
    pub head_dim: usize,
    /// Width of the feed-forward layer.
    pub ffn: usize,
    /// Vocabulary size.
    pub vocab: usize,
    /// Longest sequence.
    pub context: usize,
    /// Normalisation.
    pub norm: Norm,
    /// Constant under the square root of every normalisation.
    pub norm_eps: f64,
    /// Where the normalisations stand.
    #[serde(default)]
    pub placement: Placement,
    /// Feed-forward activation.
    pub activation: Activation,
    /// Whether the feed-forward layer is gated: `(act(x G) * (x U)) D` instead of `act(x U) D`.
    #[serde(default)]
    pub gated: bool,
    /// How the two branches of a block join the residual stream.
    pub residual: Residual,
    /// Rotary embedding, if any.
    pub rotary: Option<Rotary>,
    /// Learned absolute positions are added to the token embedding.
    #[serde(default)]
    pub positions: bool,
    /// The embedding is normalised before the first block (BERT).
    #[serde(default)]
    pub embed_norm: bool,
    /// Normalisations whose inverse root is a constant of the model, by the names of
    /// [`Shape::norms`]: linear maps, which fold into what reads them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frozen_norms: Vec<String>,
    /// The output head is the transposed token embedding.
    pub tied_head: bool,
    /// Linear maps inside the blocks carry a bias.
    pub bias: bool,
    /// The attention operator.
    pub attention: Attention,
}

/// Decoder or encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Causal next-token model.
    Decoder,
    /// Bidirectional model with `tanh` pooling of the first position and a classifier.
    Encoder {
        /// Number of classes.
        classes: usize,
    },
    /// Bidirectional model whose answer is its last hidden state, from which anybody can make one
    /// vector of a text.
    Embedder {
        /// How the rows become one vector.
        pool: Pool,
    },
}

/// One vector from the rows of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// The mean of all rows.
    Mean,
    /// The first row.
    First,
}

/// Normalisation of the hidden state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Norm {
    /// `(x - mean) / sqrt(var + eps) * gain + bias`.
    LayerNorm,
    /// `x / sqrt(mean(x^2) + eps) * gain`.
    RmsNorm,
}

/// Position of the normalisations in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// On the input of each branch, and once more before the head (GPT).
    #[default]
    Pre,
    /// On the sum after each branch, none before the head (BERT).
    Post,
}

/// Feed-forward activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x Φ(x)`, with the error function.
    Gelu,
    /// `x / (1 + exp(-x))`.
    Silu,
    /// `a x^2 + b x`, with `a` and `b` of each channel in the tensors
    /// `layers.{l}.ffn.activation.square` and `.linear`, of dimensions `[ffn]`.
    Quadratic,
}

/// How a block adds its branches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Residual {
    /// `h += attn(norm1 h); h += ffn(norm2 h)`.
    Sequential,
    /// `h += attn(norm1 h) + ffn(norm2 h)` (GPT-NeoX).
    Parallel,
}

/// Rotary position embedding on the first `dims` features of each head, in the "rotate half"
/// convention: feature `j` and feature `j + dims/2` form a pair, turned by the angle
/// `position * base^(-2j/dims)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rotary {
    /// Rotated features per head, even.
    pub dims: usize,
    /// Base of the frequencies.
    pub base: f64,
}

/// The attention operator. Scores are `x = q·k / sqrt(head_dim)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Attention {
    /// `w_j = m_j (x_j + c)^p / n / (eps + mean)`, with `mean = sum_j m_j (x_j + c)^p / n` over the
    /// `n` keys that the 0/1 mask `m` admits. Power-Softmax (arXiv 2410.09457) is `c = 0`.
    PowerSoftmax {
        /// Even power.
        p: u32,
        /// Public shift.
        c: f64,
        /// The constant in the denominator.
        eps: Eps,
    },
    /// `exp`, normalised by the row sum. Has no polynomial form here.
    Softmax,
    /// `w_j = m_j gelu(x_j)`, without normalisation (the 2023 predecessor of Power-Softmax).
    Pointwise {
        /// Divide by the number of admitted keys.
        mean: bool,
    },
}

/// Form of the constant in the PowerSoftmax denominator.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Eps {
    /// One constant against the row mean.
    Absolute {
        /// The constant.
        value: f64,
    },
    /// `value * max_j |x_j + c|^p`, what "scale the row by its largest score and add a constant"
    /// amounts to. Not polynomial.
    Relative {
        /// The factor.
        value: f64,
    },
    /// One constant for each layer, head and row, in the tensor `layers.{l}.attn.eps` of dimensions
    /// `[heads, context]`.
    Frozen,
}

impl Shape {
    /// Width of the concatenated heads.
    pub fn attention_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Key and value heads.
    pub fn key_heads(&self) -> usize {
        self.kv_heads.unwrap_or(self.heads)
    }

    /// Width of the concatenated key heads.
    pub fn key_width(&self) -> usize {
        self.key_heads() * self.head_dim
    }

    /// Number of learned values.
    pub fn parameters(&self) -> usize {
        self.tensors()
            .iter()
            .filter(|(name, _)| !is_calibrated(name))
            .map(|(_, d)| d.iter().product::<usize>())
            .sum()
    }

    /// Normalisations that can be frozen: those of the blocks and the last one. That of the
    /// embedding is the client's.
    pub fn norms(&self) -> Vec<String> {
        let blocks = (0..self.layers).flat_map(|l| [1, 2].map(|n| format!("layers.{l}.norm{n}")));
        let last = (self.placement == Placement::Pre).then(|| "final_norm".to_owned());
        blocks.chain(last).collect()
    }

    /// Whether the inverse root of a normalisation is a constant.
    pub fn freezes(&self, norm: &str) -> bool {
        self.frozen_norms.iter().any(|name| name == norm)
    }

    /// Which function this is: `lean` with frozen norms or a quadratic activation, which take fewer
    /// levels under encryption and compute something else, `unchanged` without.
    pub fn function(&self) -> &'static str {
        let lean = !self.frozen_norms.is_empty() || self.activation == Activation::Quadratic;
        if lean { "lean" } else { "unchanged" }
    }

    /// Every tensor of a model of this shape, with its dimensions, in file order.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        self.program().tensors(self)
    }

    /// Checks that the fields agree with each other.
    ///
    /// # Errors
    /// [`Error::Shape`] naming the field.
    pub fn validate(&self) -> Result<()> {
        let refuse = |field, value: String, reason| Err(Error::Shape { field, value, reason });
        for (field, value) in [
            ("layers", self.layers),
            ("d_model", self.d_model),
            ("heads", self.heads),
            ("head_dim", self.head_dim),
            ("ffn", self.ffn),
            ("vocab", self.vocab),
            ("context", self.context),
        ] {
            if value == 0 || value > 1 << 20 {
                return refuse(field, value.to_string(), "must be between 1 and 2^20");
            }
        }
        if self.layers > MAX_LAYERS {
            return refuse("layers", self.layers.to_string(), "must be at most 1024");
        }
        if !self.heads.is_multiple_of(self.key_heads().max(1)) || self.key_heads() == 0 {
            return refuse("kv_heads", self.key_heads().to_string(), "must divide the number of heads");
        }
        if self.attention_width() > 1 << 20 {
            return refuse(
                "head_dim",
                self.head_dim.to_string(),
                "must leave all heads together at most 2^20 wide",
            );
        }
        if !(self.norm_eps >= 0.0 && self.norm_eps < 1.0) {
            return refuse("norm_eps", self.norm_eps.to_string(), "must be in [0, 1)");
        }
        self.validate_frozen_norms()?;
        if let Some(rotary) = self.rotary {
            if rotary.dims == 0 || !rotary.dims.is_multiple_of(2) || rotary.dims > self.head_dim {
                return refuse(
                    "rotary.dims",
                    rotary.dims.to_string(),
                    "must be even, positive and at most head_dim",
                );
            }
            if !(rotary.base > 1.0 && rotary.base.is_finite()) {
                return refuse("rotary.base", rotary.base.to_string(), "must be finite and above 1");
            }
        }
        match self.attention {
            Attention::PowerSoftmax { p, .. } if p == 0 || p % 2 == 1 || p > 64 => {
                return refuse("attention.p", p.to_string(), "must be even, positive and at most 64");
            }
            Attention::PowerSoftmax { c, .. } if !c.is_finite() => {
                return refuse("attention.c", c.to_string(), "must be finite");
            }
            Attention::PowerSoftmax { eps: Eps::Absolute { value } | Eps::Relative { value }, .. }
                if !(value > 0.0 && value.is_finite()) =>
            {
                return refuse("attention.eps", value.to_string(), "must be positive and finite");
            }
            _ => {}
        }
        if self.placement == Placement::Post && self.residual == Residual::Parallel {
            return refuse("residual", "parallel".into(), "post-norm blocks are sequential");
        }
        if let Kind::Encoder { classes } = self.kind
            && !(1..=1 << 20).contains(&classes)
        {
            return refuse("kind.classes", classes.to_string(), "must be between 1 and 2^20");
        }
        Ok(())
    }

    fn validate_frozen_norms(&self) -> Result<()> {
        let norms = self.norms();
        for (at, name) in self.frozen_norms.iter().enumerate() {
            if !norms.contains(name) || self.frozen_norms[..at].contains(name) {
                let reason = "must name normalisations of the blocks, or `final_norm`, each once";
                return Err(Error::Shape { field: "frozen_norms", value: name.clone(), reason });
            }
        }
        Ok(())
    }
}

/// Whether a tensor is found by looking at text, not by training.
pub fn is_calibrated(tensor: &str) -> bool {
    tensor.ends_with("attn.eps") || tensor.ends_with(".root")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_named() {
        let mut shape = Shape::preset("test").unwrap();
        shape.attention = Attention::PowerSoftmax { p: 3, c: 0.0, eps: Eps::Frozen };
        let error = shape.validate().unwrap_err();
        assert!(matches!(error, Error::Shape { field: "attention.p", .. }), "{error}");
        let mut shape = Shape::preset("test").unwrap();
        shape.rotary = Some(Rotary { dims: 9, base: 1e4 });
        assert!(matches!(shape.validate(), Err(Error::Shape { field: "rotary.dims", .. })));
        for classes in [0, (1 << 20) + 1, usize::MAX] {
            let shape = Shape { kind: Kind::Encoder { classes }, ..Shape::preset("test").unwrap() };
            assert!(matches!(shape.validate(), Err(Error::Shape { field: "kind.classes", .. })));
        }
        for bad in [vec!["embed.norm"], vec!["layers.9.norm1"], vec!["final_norm", "final_norm"]] {
            let frozen_norms = bad.into_iter().map(str::to_owned).collect();
            let shape = Shape { frozen_norms, ..Shape::preset("test").unwrap() };
            assert!(matches!(shape.validate(), Err(Error::Shape { field: "frozen_norms", .. })));
        }
    }
}
