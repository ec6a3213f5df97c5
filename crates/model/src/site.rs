//! Non-linear sites and certified ranges.

use serde::{Deserialize, Serialize};

use crate::function::Function;
use crate::scheme::Scheme;
use crate::shape::{Activation, Attention, Kind, Placement, Shape};

/// One place in the model where a value has to stay inside a range: either because a polynomial replaces a function there, or
/// (function [`Function::Identity`]) because its size decides scales and refreshes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// Name, one of [`Shape::sites`].
    pub name: String,
    /// The function applied there.
    pub function: Function,
    /// Certified range of the function's argument.
    pub range: Range,
    /// What calibration saw.
    pub observed: Observed,
    /// Factor by which the observed extremes were widened.
    pub margin: f64,
    /// Values outside `range` on held-out text.
    pub violations: u64,
    /// Values checked on held-out text.
    pub checked: u64,
    /// Extremes of the values on held-out text, if any of them left `range`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out: Option<Range>,
    /// The polynomial in its place.
    #[serde(default)]
    pub scheme: Option<Scheme>,
}

/// A closed interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// Lower end.
    pub lo: f64,
    /// Upper end.
    pub hi: f64,
}

impl Range {
    /// Whether `x` lies inside. NaN does not.
    pub fn contains(&self, x: f64) -> bool {
        self.lo <= x && x <= self.hi
    }

    /// Largest magnitude.
    pub fn magnitude(&self) -> f64 {
        self.lo.abs().max(self.hi.abs())
    }

    /// `hi / lo`, the difficulty of a reciprocal.
    pub fn ratio(&self) -> f64 {
        self.hi / self.lo
    }
}

/// Extremes and count of values seen at a site.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// How many values.
    pub count: u64,
    /// How many were not finite.
    pub not_finite: u64,
}

impl Default for Observed {
    fn default() -> Self {
        Self { min: f64::INFINITY, max: f64::NEG_INFINITY, count: 0, not_finite: 0 }
    }
}

impl Observed {
    /// Takes note of a value.
    pub fn record(&mut self, x: f64) {
        self.count += 1;
        if x.is_finite() {
            self.min = self.min.min(x);
            self.max = self.max.max(x);
        } else {
            self.not_finite += 1;
        }
    }

    /// Joins two sets of observations.
    pub fn merge(&mut self, other: &Self) {
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.count += other.count;
        self.not_finite += other.not_finite;
    }
}

impl Shape {
    /// Every site of a model of this shape, in the order of the forward pass.
    ///
    /// * `embed`, `layers.{l}.mid`, `layers.{l}.hidden`: the residual stream (identity);
    /// * `layers.{l}.norm1`, `norm2`, `final_norm`, `embed.norm`: variance plus eps (inverse square root);
    /// * `layers.{l}.attn.q|k|v`: after rotary (identity); `.score`: `x + c` of admitted keys (identity);
    /// * `layers.{l}.attn.reciprocal`: `(mean + eps) / unit`, with `unit` the row's frozen eps, or 1 (reciprocal);
    /// * `layers.{l}.attn.mix`: output of the attention before its projection (identity);
    /// * `layers.{l}.ffn.activation`: input of the activation; `pool.activation`: input of `tanh`; `logits` (identity).
    pub fn sites(&self) -> Vec<(String, Function)> {
        let mut out = vec![];
        if self.embed_norm {
            out.push(("embed.norm".to_owned(), Function::InvSqrt));
        }
        out.push(("embed".to_owned(), Function::Identity));
        for l in 0..self.layers {
            let mut push = |part: &str, function| out.push((format!("layers.{l}.{part}"), function));
            if self.placement == Placement::Pre {
                push("norm1", Function::InvSqrt);
            }
            for part in ["attn.q", "attn.k", "attn.v"] {
                push(part, Function::Identity);
            }
            match self.attention {
                Attention::PowerSoftmax { .. } => {
                    push("attn.score", Function::Identity);
                    push("attn.reciprocal", Function::Reciprocal);
                }
                Attention::Softmax => push("attn.score", Function::Identity),
                Attention::Pointwise { .. } => push("attn.score", Function::Gelu),
            }
            push("attn.mix", Function::Identity);
            push("mid", Function::Identity);
            if self.placement == Placement::Post {
                push("norm1", Function::InvSqrt);
            }
            if self.placement == Placement::Pre {
                push("norm2", Function::InvSqrt);
            }
            push("ffn.activation", self.activation.function());
            push("hidden", Function::Identity);
            if self.placement == Placement::Post {
                push("norm2", Function::InvSqrt);
            }
        }
        if self.placement == Placement::Pre {
            out.push(("final_norm".to_owned(), Function::InvSqrt));
        }
        if matches!(self.kind, Kind::Encoder { .. }) {
            out.push(("pool.activation".to_owned(), Function::Tanh));
        }
        out.push(("logits".to_owned(), Function::Identity));
        out
    }
}

impl Activation {
    /// The function of the activation.
    pub fn function(self) -> Function {
        match self {
            Self::Gelu => Function::Gelu,
            Self::Silu => Function::Silu,
        }
    }
}
