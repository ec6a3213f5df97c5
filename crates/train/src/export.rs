//! From a trained model to the data model that everything downstream reads, with certified ranges.

use burn::tensor::{DType, Device};
use cipherlm_model as spec;
use cipherlm_model::{FitOptions, Margins, Mode, Positions, Runner};
use serde::{Deserialize, Serialize};

use crate::config::{Activation, Attention, Epsilon, Form, ModelConfig, Norm, Power};
use crate::error::{Error, Result};
use crate::params::{HostParam, pull};
use crate::transformer::Decoder;

/// What the three forward passes say about one text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Tokens scored.
    pub tokens: usize,
    /// Perplexity per token of the exact model.
    pub exact: f64,
    /// Perplexity per token with every function a polynomial.
    pub polynomial: f64,
    /// Share of positions at which both prefer the same token.
    pub same_top1: f64,
    /// Values outside a certified range on this text, in the exact pass.
    pub violations: u64,
}

/// The data model's shape of a configuration.
pub fn shape(config: &ModelConfig) -> Result<spec::Shape> {
    let attention = match config.attention {
        Attention::Softmax => spec::Attention::Softmax,
        Attention::Pointwise => {
            return Err(Error::Export("pointwise attention with a square-root scale has no data model".into()));
        }
        Attention::Power(power) => spec::Attention::PowerSoftmax {
            p: power.power,
            c: power.shift,
            eps: match power.epsilon {
                Epsilon::Absolute(value) if power.form == Form::Mean => spec::Eps::Absolute { value },
                Epsilon::Absolute(_) => {
                    return Err(Error::Export("an absolute epsilon is exported in the mean form only".into()));
                }
                Epsilon::Relative(value) => spec::Eps::Relative { value },
                Epsilon::Frozen => spec::Eps::Frozen,
            },
        },
    };
    Ok(spec::Shape {
        kind: spec::Kind::Decoder,
        layers: config.layers,
        d_model: config.width,
        heads: config.heads,
        kv_heads: None,
        head_dim: config.head_width(),
        ffn: config.feed_forward,
        vocab: config.vocab,
        context: config.context,
        norm: match config.norm {
            Norm::Layer => spec::Norm::LayerNorm,
            Norm::Rms => spec::Norm::RmsNorm,
        },
        norm_eps: config.norm_epsilon,
        placement: if config.post_norm { spec::Placement::Post } else { spec::Placement::Pre },
        activation: match config.activation {
            Activation::Gelu => spec::Activation::Gelu,
            Activation::Silu => spec::Activation::Silu,
        },
        gated: config.gated,
        residual: if config.parallel_residual { spec::Residual::Parallel } else { spec::Residual::Sequential },
        rotary: (config.rotary > 0).then_some(spec::Rotary { dims: config.rotary, base: config.rotary_base }),
        positions: config.learned_positions,
        embed_norm: config.post_norm,
        tied_head: config.tied,
        bias: config.bias,
        attention,
    })
}

/// The way back: configuration and weights of a decoder in the project's format, for evaluation or further training.
pub fn import(model: &spec::Model) -> Result<(ModelConfig, Vec<HostParam>)> {
    let s = model.shape();
    let unsupported = |what: &str| Error::Export(format!("{what} cannot be trained further"));
    if s.kind != spec::Kind::Decoder {
        return Err(unsupported("an encoder"));
    }
    let attention = match s.attention {
        spec::Attention::Softmax => Attention::Softmax,
        spec::Attention::PowerSoftmax { p, c, eps } => Attention::Power(Power {
            power: p,
            shift: c,
            form: Form::Mean,
            epsilon: match eps {
                spec::Eps::Absolute { value } => Epsilon::Absolute(value),
                spec::Eps::Relative { value } => Epsilon::Relative(value),
                spec::Eps::Frozen => Epsilon::Frozen,
            },
        }),
        spec::Attention::Pointwise { .. } => return Err(unsupported("pointwise attention of the data model")),
    };
    let config = ModelConfig {
        feed_forward: s.ffn,
        norm: if s.norm == spec::Norm::LayerNorm { Norm::Layer } else { Norm::Rms },
        norm_epsilon: s.norm_eps,
        activation: if s.activation == spec::Activation::Gelu { Activation::Gelu } else { Activation::Silu },
        gated: s.gated,
        bias: s.bias,
        rotary: s.rotary.map_or(0, |r| r.dims),
        rotary_base: s.rotary.map_or(10_000.0, |r| r.base),
        learned_positions: s.positions,
        parallel_residual: s.residual == spec::Residual::Parallel,
        post_norm: s.placement == spec::Placement::Post,
        tied: s.tied_head,
        ..ModelConfig::decoder(s.vocab, s.context, s.layers, s.d_model, s.heads, attention)
    };
    let mut params = pull(&Decoder::new(&config, 0, &Device::flex(), DType::F32)?);
    for param in &mut params {
        let name = spec_name(&param.name, config.post_norm);
        match model.weights().values(&name) {
            Some(values) if values.len() == param.data.len() => {
                param.data = values.iter().map(|&x| x as f32).collect();
            }
            // Only frozen epsilons are exported.
            None if !param.trained => {}
            other => {
                let found = other.map(|v| vec![v.len()]).unwrap_or_default();
                return Err(Error::Shape { name, expected: param.shape.clone(), found });
            }
        }
    }
    Ok((config, params))
}

/// The data model of a decoder, not yet certified.
pub fn export(name: &str, config: &ModelConfig, params: &[HostParam]) -> Result<spec::Model> {
    if config.bidirectional {
        return Err(Error::Export("an encoder is exported by `classify::export`".into()));
    }
    let shape = shape(config)?;
    let frozen = matches!(shape.attention, spec::Attention::PowerSoftmax { eps: spec::Eps::Frozen, .. });
    let mut weights = spec::Weights::new();
    for param in params {
        if !param.trained && !frozen {
            continue;
        }
        let data = param.data.iter().map(|&x| f64::from(x)).collect();
        weights.insert(spec_name(&param.name, config.post_norm), &param.shape, data).map_err(refuse)?;
    }
    spec::Model::new(name, shape, weights).map_err(refuse)
}

/// Certifies ranges from calibration windows, fits the polynomials and checks held-out windows. The model is returned
/// only if no held-out value left its range.
pub fn certify(
    mut model: spec::Model,
    calibration: &[Vec<u32>],
    held_out: &[Vec<u32>],
    margins: &Margins,
    fit: &FitOptions,
) -> Result<spec::Model> {
    spec::certify(&mut model, calibration, held_out, margins).map_err(refuse)?;
    spec::fit(&mut model, fit).map_err(refuse)?;
    spec::ensure_certified(&model).map_err(refuse)?;
    Ok(model)
}

/// Scores windows of `context + 1` tokens with the exact and the polynomial f64 pass.
pub fn compare(model: &spec::Model, windows: &[Vec<u32>]) -> Result<Comparison> {
    let mut exact = Runner::new(model, Mode::Exact).map_err(refuse)?;
    let mut polynomial = Runner::new(model, Mode::Polynomial).map_err(refuse)?;
    let (mut nats, mut tokens, mut same) = ([0.0f64; 2], 0usize, 0usize);
    for window in windows {
        let (inputs, targets) = (&window[..window.len() - 1], &window[1..]);
        let a = exact.forward(inputs, Positions::All).map_err(refuse)?;
        let b = polynomial.forward(inputs, Positions::All).map_err(refuse)?;
        for ((a, b), &target) in a.iter().zip(&b).zip(targets) {
            nats[0] -= log_probability(a, target);
            nats[1] -= log_probability(b, target);
            same += usize::from(argmax(a) == argmax(b));
            tokens += 1;
        }
    }
    let count = tokens.max(1) as f64;
    Ok(Comparison {
        tokens,
        exact: (nats[0] / count).exp(),
        polynomial: (nats[1] / count).exp(),
        same_top1: same as f64 / count,
        violations: exact.stats().map(|(_, _, s)| s.violations).sum(),
    })
}

/// Name of a parameter in the data model.
pub(crate) fn spec_name(name: &str, post_norm: bool) -> String {
    let fixed = match name {
        "embedding" => Some("embed.tokens"),
        "positions" => Some("embed.positions"),
        "head" => Some("head.weight"),
        _ => None,
    };
    if let Some(fixed) = fixed {
        return fixed.to_owned();
    }
    let last = if post_norm { "embed.norm" } else { "final_norm" };
    let mut name = name.replacen("blocks.", "layers.", 1);
    for (ours, theirs) in [
        ("final_norm.", &format!("{last}.") as &str),
        (".attention_norm.", ".norm1."),
        (".feed_forward_norm.", ".norm2."),
        (".attention.query.", ".attn.q."),
        (".attention.key.", ".attn.k."),
        (".attention.value.", ".attn.v."),
        (".attention.output.", ".attn.out."),
        (".attention.epsilon", ".attn.eps"),
        (".feed_forward.", ".ffn."),
        (".gamma", ".gain"),
        (".beta", ".bias"),
    ] {
        name = name.replace(ours, theirs);
    }
    name
}

fn log_probability(logits: &[f64], token: u32) -> f64 {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|l| (l - largest).exp()).sum();
    logits.get(token as usize).map_or(f64::NEG_INFINITY, |l| l - largest - sum.ln())
}

fn argmax(values: &[f64]) -> Option<usize> {
    (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b]))
}

pub(crate) fn refuse(error: spec::SpecError) -> Error {
    Error::Export(error.to_string())
}
