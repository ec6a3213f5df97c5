//! BERT: norms after the branches, learned positions, token type 0 folded into them.

use super::config::Config;
use super::recipe::{Bias, Book};
use crate::error::Result;
use crate::shape::{Attention, Kind, Norm, Placement, Pool, Residual, Shape};

pub(super) const PREFIX: &str = "bert.";
const BUFFERS: [&str; 2] = ["embeddings.position_ids", "embeddings.token_type_ids"];
/// Heads of the pretraining tasks.
const UNUSED: [&str; 1] = ["cls."];

/// A classifier where the file has one, else a model of sentence vectors.
pub(super) fn shape(config: &Config, book: &Book<'_>, pool: Pool) -> Result<Shape> {
    let heads = config.size("num_attention_heads")?;
    let d_model = config.size("hidden_size")?;
    if config.flag("is_decoder", false) {
        return Err(config.refuse("is_decoder", "is true; this program reads BERT as an encoder"));
    }
    if let Some(kind) = config.text("position_embedding_type").filter(|kind| *kind != "absolute") {
        return Err(
            config.refuse("position_embedding_type", format!("is {kind:?}, expected absolute positions"))
        );
    }
    let classes = book.dims("classifier.weight").and_then(|dims| dims.first().copied());
    Ok(Shape {
        kind: classes.map_or(Kind::Embedder { pool }, |classes| Kind::Encoder { classes }),
        layers: config.size("num_hidden_layers")?,
        d_model,
        heads,
        kv_heads: None,
        head_dim: config.head_dim(d_model, heads, "num_attention_heads")?,
        ffn: config.size("intermediate_size")?,
        vocab: config.size("vocab_size")?,
        context: config.size("max_position_embeddings")?,
        norm: Norm::LayerNorm,
        norm_eps: config.number_or("layer_norm_eps", 1e-12)?,
        placement: Placement::Post,
        activation: config.activation("hidden_act", "gelu")?,
        gated: false,
        residual: Residual::Sequential,
        rotary: None,
        positions: true,
        embed_norm: true,
        frozen_norms: vec![],
        tied_head: false,
        bias: true,
        attention: Attention::Softmax,
    })
}

pub(super) fn recipes(book: &mut Book<'_>, shape: &Shape) -> Result<()> {
    let (d, f, a) = (shape.d_model, shape.ffn, shape.attention_width());
    book.plain("embed.tokens", "embeddings.word_embeddings.weight", &[shape.vocab, d])?;
    book.table_plus(
        "embed.positions",
        "embeddings.position_embeddings.weight",
        &[shape.context, d],
        "embeddings.token_type_embeddings.weight",
    )?;
    book.norm("embed.norm", "embeddings.LayerNorm", d, true)?;
    for l in 0..shape.layers {
        let ours = |name: &str| format!("layers.{l}.{name}");
        let theirs = |name: &str| format!("encoder.layer.{l}.{name}");
        for (part, name) in [("q", "query"), ("k", "key"), ("v", "value")] {
            let from = theirs(&format!("attention.self.{name}"));
            book.linear(&ours(&format!("attn.{part}")), &from, (d, a), Bias::File)?;
        }
        book.linear(&ours("attn.out"), &theirs("attention.output.dense"), (a, d), Bias::File)?;
        book.norm(&ours("norm1"), &theirs("attention.output.LayerNorm"), d, true)?;
        book.linear(&ours("ffn.up"), &theirs("intermediate.dense"), (d, f), Bias::File)?;
        book.linear(&ours("ffn.down"), &theirs("output.dense"), (f, d), Bias::File)?;
        book.norm(&ours("norm2"), &theirs("output.LayerNorm"), d, true)?;
    }
    let Kind::Encoder { classes } = shape.kind else {
        return book.settle(&BUFFERS, &["cls.", "pooler."]);
    };
    book.linear("pool", "pooler.dense", (d, d), Bias::File)?;
    book.linear("classifier", "classifier", (d, classes), Bias::File)?;
    book.settle(&BUFFERS, &UNUSED)
}
