//! Llama: RMS norms, gated feed-forward, shared key/value heads; Hugging Face, GGUF and llama2.c
//! names.

use super::config::Config;
use super::recipe::{Bias, Book, halves_of_pairs};
use crate::error::Result;
use crate::shape::{Attention, Kind, Norm, Placement, Residual, Rotary, Shape};

pub(super) const PREFIX: &str = "model.";
const BUFFERS: [&str; 1] = [".rotary_emb.inv_freq"];

/// Names of one layout, and whether rotary features lie in interleaved pairs.
pub(super) struct Names {
    embed: &'static str,
    block: &'static str,
    norms: [&'static str; 2],
    attention: [&'static str; 4],
    gate_up_down: [&'static str; 3],
    final_norm: &'static str,
    head: &'static str,
    pairs: bool,
}

pub(super) const HUGGING_FACE: Names = Names {
    embed: "embed_tokens",
    block: "layers",
    norms: ["input_layernorm", "post_attention_layernorm"],
    attention: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"],
    gate_up_down: ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"],
    final_norm: "norm",
    head: "lm_head",
    pairs: false,
};

pub(super) const GGUF: Names = Names {
    embed: "token_embd",
    block: "blk",
    norms: ["attn_norm", "ffn_norm"],
    attention: ["attn_q", "attn_k", "attn_v", "attn_output"],
    gate_up_down: ["ffn_gate", "ffn_up", "ffn_down"],
    final_norm: "output_norm",
    head: "output",
    pairs: true,
};

/// Sizes that differ in name between layouts.
pub(super) struct Sizes {
    pub(super) layers: usize,
    pub(super) d_model: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) ffn: usize,
    pub(super) vocab: usize,
    pub(super) context: usize,
    pub(super) norm_eps: f64,
    pub(super) rotary_base: f64,
    pub(super) tied_head: bool,
}

pub(super) fn shape_of(sizes: &Sizes, bias: bool) -> Shape {
    Shape {
        kind: Kind::Decoder,
        layers: sizes.layers,
        d_model: sizes.d_model,
        heads: sizes.heads,
        kv_heads: (sizes.kv_heads != sizes.heads).then_some(sizes.kv_heads),
        head_dim: sizes.head_dim,
        ffn: sizes.ffn,
        vocab: sizes.vocab,
        context: sizes.context,
        norm: Norm::RmsNorm,
        norm_eps: sizes.norm_eps,
        placement: Placement::Pre,
        activation: crate::Activation::Silu,
        gated: true,
        residual: Residual::Sequential,
        rotary: Some(Rotary { dims: sizes.head_dim, base: sizes.rotary_base }),
        positions: false,
        embed_norm: false,
        frozen_norms: vec![],
        tied_head: sizes.tied_head,
        bias,
        attention: Attention::Softmax,
    }
}

pub(super) fn shape(config: &Config, book: &Book<'_>) -> Result<Shape> {
    let (d_model, heads) = (config.size("hidden_size")?, config.size("num_attention_heads")?);
    let own = if config.get("head_dim").is_some() {
        config.size("head_dim")?
    } else {
        config.head_dim(d_model, heads, "num_attention_heads")?
    };
    config.activation("hidden_act", "silu").and_then(|activation| match activation {
        crate::Activation::Silu => Ok(()),
        other => Err(config.refuse("hidden_act", format!("is {other:?}, expected silu"))),
    })?;
    let sizes = Sizes {
        layers: config.size("num_hidden_layers")?,
        d_model,
        heads,
        kv_heads: config.size_or("num_key_value_heads", Some(heads))?,
        head_dim: own,
        ffn: config.size("intermediate_size")?,
        vocab: config.size("vocab_size")?,
        context: config.size_or("max_position_embeddings", Some(2048))?,
        norm_eps: config.number_or("rms_norm_eps", 1e-6)?,
        rotary_base: config.rotary_base("rope_theta")?,
        // A file without a head ties it, whatever the description leaves out.
        tied_head: config.flag("tie_word_embeddings", false) || !book.has("lm_head.weight"),
    };
    Ok(shape_of(&sizes, has_bias(book, &HUGGING_FACE)))
}

/// Whether any linear map of the first block has a bias.
pub(super) fn has_bias(book: &Book<'_>, names: &Names) -> bool {
    let maps = names.attention.iter().chain(&names.gate_up_down);
    maps.into_iter().any(|name| book.has(&format!("{}.0.{name}.bias", names.block)))
}

pub(super) fn recipes(book: &mut Book<'_>, shape: &Shape, names: &Names) -> Result<()> {
    let (d, f) = (shape.d_model, shape.ffn);
    let (a, k) = (shape.attention_width(), shape.key_width());
    // A map has its bias in every block or in none.
    let biases = |book: &Book<'_>, map: &str| match shape.bias {
        false => Bias::None,
        true if book.has(&format!("{}.0.{map}.bias", names.block)) => Bias::File,
        true => Bias::Zeros,
    };
    book.plain("embed.tokens", &format!("{}.weight", names.embed), &[shape.vocab, d])?;
    for l in 0..shape.layers {
        let ours = |name: &str| format!("layers.{l}.{name}");
        let theirs = |name: &str| format!("{}.{l}.{name}", names.block);
        // A list of rows only for a map that has them: the description alone may claim any number.
        let turned = |map: &str, rows: usize| match book.dims(&format!("{}.weight", theirs(map))) {
            Some([have, _]) if names.pairs && *have == rows => halves_of_pairs(rows, shape.head_dim),
            _ => vec![],
        };
        let maps = [
            ("attn.q", (d, a), turned(names.attention[0], a)),
            ("attn.k", (d, k), turned(names.attention[1], k)),
            ("attn.v", (d, k), vec![]),
            ("attn.out", (a, d), vec![]),
        ];
        for ((to, size, rows), from) in maps.into_iter().zip(names.attention) {
            let bias = biases(book, from);
            book.rows(&ours(to), &theirs(from), size, &rows, bias)?;
        }
        book.norm(&ours("norm1"), &theirs(names.norms[0]), d, false)?;
        book.norm(&ours("norm2"), &theirs(names.norms[1]), d, false)?;
        let maps = [("ffn.gate", (d, f)), ("ffn.up", (d, f)), ("ffn.down", (f, d))];
        for ((to, size), from) in maps.into_iter().zip(names.gate_up_down) {
            let bias = biases(book, from);
            book.linear(&ours(to), &theirs(from), size, bias)?;
        }
    }
    book.norm("final_norm", names.final_norm, d, false)?;
    if shape.tied_head {
        return book.settle(&BUFFERS, &[names.head]);
    }
    book.linear("head", names.head, (d, shape.vocab), Bias::None)?;
    book.settle(&BUFFERS, &[])
}
