//! GPT-NeoX and Pythia: parallel branches, partial rotary positions, one fused map for queries,
//! keys and values.

use super::config::Config;
use super::recipe::{Bias, Book};
use crate::error::Result;
use crate::shape::{Attention, Kind, Norm, Placement, Residual, Rotary, Shape};

pub(super) const PREFIX: &str = "gpt_neox.";
const BUFFERS: [&str; 3] = [".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"];

pub(super) fn shape(config: &Config) -> Result<Shape> {
    let (d_model, heads) = (config.size("hidden_size")?, config.size("num_attention_heads")?);
    let head_dim = config.head_dim(d_model, heads, "num_attention_heads")?;
    let nested =
        config.get("rope_parameters").and_then(|p| p.get("partial_rotary_factor")).and_then(|v| v.as_f64());
    let share = config.number_or("rotary_pct", nested.unwrap_or(0.25))?;
    if !(share > 0.0 && share <= 1.0) {
        return Err(config.refuse("rotary_pct", format!("is {share}, expected a share above 0")));
    }
    let parallel = config.flag("use_parallel_residual", true);
    Ok(Shape {
        kind: Kind::Decoder,
        layers: config.size("num_hidden_layers")?,
        d_model,
        heads,
        kv_heads: None,
        head_dim,
        ffn: config.size("intermediate_size")?,
        vocab: config.size("vocab_size")?,
        context: config.size("max_position_embeddings")?,
        norm: Norm::LayerNorm,
        norm_eps: config.number_or("layer_norm_eps", 1e-5)?,
        placement: Placement::Pre,
        activation: config.activation("hidden_act", "gelu")?,
        gated: false,
        residual: if parallel { Residual::Parallel } else { Residual::Sequential },
        rotary: Some(Rotary {
            dims: (head_dim as f64 * share) as usize,
            base: config.rotary_base("rotary_emb_base")?,
        }),
        positions: false,
        embed_norm: false,
        frozen_norms: vec![],
        tied_head: config.flag("tie_word_embeddings", false),
        bias: true,
        attention: Attention::Softmax,
    })
}

pub(super) fn recipes(config: &Config, book: &mut Book<'_>, shape: &Shape) -> Result<()> {
    let bias = if config.flag("attention_bias", true) { Bias::File } else { Bias::Zeros };
    let (d, f, head) = (shape.d_model, shape.ffn, shape.head_dim);
    book.plain("embed.tokens", "embed_in.weight", &[shape.vocab, d])?;
    for l in 0..shape.layers {
        let ours = |name: &str| format!("layers.{l}.{name}");
        let theirs = |name: &str| format!("layers.{l}.{name}");
        let fused = theirs("attention.query_key_value");
        for (part, name) in ["attn.q", "attn.k", "attn.v"].into_iter().enumerate() {
            // Rows of the fused matrix are ordered [head][query, key, value][feature].
            let rows: Vec<usize> = (0..d).map(|o| (o / head * 3 + part) * head + o % head).collect();
            book.rows(&ours(name), &fused, (d, 3 * d), &rows, bias)?;
        }
        book.linear(&ours("attn.out"), &theirs("attention.dense"), (d, d), bias)?;
        book.norm(&ours("norm1"), &theirs("input_layernorm"), d, true)?;
        book.norm(&ours("norm2"), &theirs("post_attention_layernorm"), d, true)?;
        book.linear(&ours("ffn.up"), &theirs("mlp.dense_h_to_4h"), (d, f), Bias::File)?;
        book.linear(&ours("ffn.down"), &theirs("mlp.dense_4h_to_h"), (f, d), Bias::File)?;
    }
    book.norm("final_norm", "final_layer_norm", d, true)?;
    // Newer files call the head by the name that all families have.
    let head = if book.has("lm_head.weight") { "lm_head" } else { "embed_out" };
    if shape.tied_head {
        return book.settle(&BUFFERS, &[head]);
    }
    book.linear("head", head, (d, shape.vocab), Bias::None)?;
    book.settle(&BUFFERS, &[])
}
