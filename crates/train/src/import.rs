//! Published checkpoints into this crate's modules, by their public tensor names.
//!
//! | family | file | what is done |
//! |---|---|---|
//! | GPT-NeoX / Pythia | safetensors | the fused query-key-value matrix is split by head, linear weights are transposed |
//! | BERT | safetensors | token type 0 is folded into the positions, linear weights are transposed |
//! | llama2.c | `.bin`, version 0 | shared key/value heads are repeated, interleaved rotary pairs become halves |

use std::collections::HashMap;
use std::path::Path;

use crate::checkpoint::Archive;
use crate::config::{Activation, Attention, ModelConfig, Norm};
use crate::error::{Error, Result};
use crate::params::HostParam;

/// Tensors of a GPT-NeoX checkpoint as decoder parameters. `config` gives the shape (a Pythia preset).
pub fn gpt_neox(path: &Path, config: &ModelConfig) -> Result<Vec<HostParam>> {
    let mut source = Source::open(path)?;
    let (d, f, h) = (config.width, config.feed_forward, config.heads);
    let head = d / h;
    let mut out = vec![source.take("gpt_neox.embed_in.weight", "embedding", &[config.vocab, d])?];
    for l in 0..config.layers {
        let from = |name: &str| format!("gpt_neox.layers.{l}.{name}");
        let to = |name: &str| format!("blocks.{l}.{name}");
        source.norm(&from("input_layernorm"), &to("attention_norm"), d, &mut out)?;
        let fused = source.take(&from("attention.query_key_value.weight"), "", &[3 * d, d])?;
        let bias = source.take(&from("attention.query_key_value.bias"), "", &[3 * d])?;
        for (part, name) in ["query", "key", "value"].into_iter().enumerate() {
            // Rows of the fused matrix are ordered [head][query, key, value][feature].
            let rows: Vec<usize> = (0..d).map(|o| (o / head * 3 + part) * head + o % head).collect();
            let weight = rows.iter().flat_map(|&r| &fused.data[r * d..(r + 1) * d]).copied().collect();
            out.push(transposed(param(to(&format!("attention.{name}.weight")), &[d, d], weight)));
            let bias = rows.iter().map(|&r| bias.data[r]).collect();
            out.push(param(to(&format!("attention.{name}.bias")), &[d], bias));
        }
        source.linear(&from("attention.dense"), &to("attention.output"), d, d, &mut out)?;
        source.norm(&from("post_attention_layernorm"), &to("feed_forward_norm"), d, &mut out)?;
        source.linear(&from("mlp.dense_h_to_4h"), &to("feed_forward.up"), d, f, &mut out)?;
        source.linear(&from("mlp.dense_4h_to_h"), &to("feed_forward.down"), f, d, &mut out)?;
    }
    source.norm("gpt_neox.final_layer_norm", "final_norm", d, &mut out)?;
    out.push(transposed(source.take("embed_out.weight", "head", &[config.vocab, d])?));
    Ok(out)
}

/// Tensors of a BERT sequence classifier as encoder parameters; a checkpoint without classifier leaves it out.
pub fn bert(path: &Path, config: &ModelConfig) -> Result<Vec<HostParam>> {
    let mut source = Source::open(path)?;
    let (d, f) = (config.width, config.feed_forward);
    let words = source.take("embeddings.word_embeddings.weight", "body.embedding", &[config.vocab, d])?;
    let mut positions = source.take("embeddings.position_embeddings.weight", "body.positions", &[config.context, d])?;
    if let Some(types) = source.optional("embeddings.token_type_embeddings.weight") {
        for row in positions.data.chunks_mut(d) {
            row.iter_mut().zip(&types.data).for_each(|(p, t)| *p += t);
        }
    }
    let mut out = vec![words, positions];
    for l in 0..config.layers {
        let from = |name: &str| format!("encoder.layer.{l}.{name}");
        let to = |name: &str| format!("body.blocks.{l}.{name}");
        for name in ["query", "key", "value"] {
            source.linear(
                &from(&format!("attention.self.{name}")),
                &to(&format!("attention.{name}")),
                d,
                d,
                &mut out,
            )?;
        }
        source.linear(&from("attention.output.dense"), &to("attention.output"), d, d, &mut out)?;
        source.norm(&from("attention.output.LayerNorm"), &to("attention_norm"), d, &mut out)?;
        source.linear(&from("intermediate.dense"), &to("feed_forward.up"), d, f, &mut out)?;
        source.linear(&from("output.dense"), &to("feed_forward.down"), f, d, &mut out)?;
        source.norm(&from("output.LayerNorm"), &to("feed_forward_norm"), d, &mut out)?;
    }
    source.norm("embeddings.LayerNorm", "body.final_norm", d, &mut out)?;
    source.linear("pooler.dense", "pooler", d, d, &mut out)?;
    if let Some(weight) = source.optional("classifier.weight") {
        let classes = weight.shape[0];
        out.push(transposed(param("classifier.weight".into(), &[classes, d], weight.data)));
        out.push(source.take("classifier.bias", "classifier.bias", &[classes])?);
    }
    Ok(out)
}

/// A llama2.c checkpoint: its shape (with softmax attention) and decoder parameters.
pub fn llama2c(path: &Path) -> Result<(ModelConfig, Vec<HostParam>)> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let corrupt = |reason: String| Error::Corrupt {
        path: path.into(),
        reason,
        hint: "a llama2.c version 0 checkpoint is expected",
    };
    let mut words = bytes.chunks_exact(4).map(|c| [c[0], c[1], c[2], c[3]]);
    let mut header = [0i64; 7];
    for slot in &mut header {
        *slot = i64::from(i32::from_le_bytes(words.next().ok_or_else(|| corrupt("shorter than its header".into()))?));
    }
    let tied = header[5] > 0;
    let sizes: Vec<usize> = header.iter().map(|v| v.unsigned_abs() as usize).collect();
    let (d, f, layers, heads, kv_heads, vocab, context) =
        (sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6]);
    if sizes.iter().any(|&s| s == 0 || s > 1 << 20) || !d.is_multiple_of(heads) || !heads.is_multiple_of(kv_heads) {
        return Err(corrupt(format!("impossible header {header:?}")));
    }
    let head = d / heads;
    let kv = head * kv_heads;
    let floats: Vec<f32> = words.map(f32::from_le_bytes).collect();
    let mut at = 0;
    let mut take = |count: usize| -> Result<Vec<f32>> {
        let end = at + count;
        let slice =
            floats.get(at..end).ok_or_else(|| corrupt(format!("ends within tensor data ({end} values needed)")))?;
        at = end;
        Ok(slice.to_vec())
    };
    let embedding = take(vocab * d)?;
    let attention_norm = take(layers * d)?;
    let query = take(layers * d * d)?;
    let key = take(layers * kv * d)?;
    let value = take(layers * kv * d)?;
    let output = take(layers * d * d)?;
    let feed_norm = take(layers * d)?;
    let gate = take(layers * f * d)?;
    let down = take(layers * d * f)?;
    let up = take(layers * f * d)?;
    let final_norm = take(d)?;
    take(context * head)?; // cosines and sines, recomputed here
    let classifier = if tied { None } else { Some(take(vocab * d)?) };

    let mut out = vec![param("embedding".into(), &[vocab, d], embedding)];
    let part = |all: &[f32], l: usize, count: usize| all[l * count..(l + 1) * count].to_vec();
    for l in 0..layers {
        let name = |name: &str| format!("blocks.{l}.{name}");
        let mut linear = |to: &str, rows: usize, columns: usize, data: Vec<f32>| {
            out.push(transposed(param(name(to), &[rows, columns], data)));
        };
        let halves = |row: usize| row / head * head + 2 * (row % head % (head / 2)) + row % head / (head / 2);
        let q = part(&query, l, d * d);
        linear("attention.query.weight", d, d, pick_rows(&q, d, (0..d).map(halves)));
        // Query head `h` reads key head `h / (heads / kv_heads)`.
        let shared = |row: usize| row / head / (heads / kv_heads) * head + row % head;
        let k = part(&key, l, kv * d);
        linear("attention.key.weight", d, d, pick_rows(&k, d, (0..d).map(|r| shared(halves(r)))));
        let v = part(&value, l, kv * d);
        linear("attention.value.weight", d, d, pick_rows(&v, d, (0..d).map(shared)));
        linear("attention.output.weight", d, d, part(&output, l, d * d));
        linear("feed_forward.gate.weight", f, d, part(&gate, l, f * d));
        linear("feed_forward.up.weight", f, d, part(&up, l, f * d));
        linear("feed_forward.down.weight", d, f, part(&down, l, f * d));
        out.push(param(name("attention_norm.gamma"), &[d], part(&attention_norm, l, d)));
        out.push(param(name("feed_forward_norm.gamma"), &[d], part(&feed_norm, l, d)));
    }
    out.push(param("final_norm.gamma".into(), &[d], final_norm));
    if let Some(classifier) = classifier {
        out.push(transposed(param("head".into(), &[vocab, d], classifier)));
    }
    let config = ModelConfig {
        feed_forward: f,
        norm: Norm::Rms,
        activation: Activation::Silu,
        gated: true,
        bias: false,
        tied,
        ..ModelConfig::decoder(vocab, context, layers, d, heads, Attention::Softmax)
    };
    Ok((config, out))
}

/// Tensors of a file by name, a model prefix such as `bert.` removed.
struct Source {
    tensors: HashMap<String, HostParam>,
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        let archive = Archive::load(path)?;
        let strip = |name: &str| name.strip_prefix("bert.").unwrap_or(name).to_owned();
        Ok(Self { tensors: archive.tensors.into_iter().map(|t| (strip(&t.name), t)).collect() })
    }

    fn optional(&mut self, from: &str) -> Option<HostParam> {
        self.tensors.remove(from)
    }

    fn take(&mut self, from: &str, to: &str, shape: &[usize]) -> Result<HostParam> {
        let found = self.tensors.remove(from);
        match found {
            Some(t) if t.shape == shape => Ok(param(to.into(), shape, t.data)),
            other => Err(Error::Shape {
                name: from.into(),
                expected: shape.to_vec(),
                found: other.map(|t| t.shape).unwrap_or_default(),
            }),
        }
    }

    /// A linear layer stored `[output, input]`.
    fn linear(&mut self, from: &str, to: &str, input: usize, output: usize, out: &mut Vec<HostParam>) -> Result<()> {
        out.push(transposed(self.take(&format!("{from}.weight"), &format!("{to}.weight"), &[output, input])?));
        out.push(self.take(&format!("{from}.bias"), &format!("{to}.bias"), &[output])?);
        Ok(())
    }

    /// A LayerNorm, under its new or its TensorFlow-era names.
    fn norm(&mut self, from: &str, to: &str, width: usize, out: &mut Vec<HostParam>) -> Result<()> {
        for (new, old, ours) in [("weight", "gamma", "gamma"), ("bias", "beta", "beta")] {
            let name = if self.tensors.contains_key(&format!("{from}.{old}")) { old } else { new };
            out.push(self.take(&format!("{from}.{name}"), &format!("{to}.{ours}"), &[width])?);
        }
        Ok(())
    }
}

fn param(name: String, shape: &[usize], data: Vec<f32>) -> HostParam {
    HostParam { name, shape: shape.to_vec(), data, trained: true }
}

fn transposed(p: HostParam) -> HostParam {
    let (rows, columns) = (p.shape[0], p.shape[1]);
    let data = (0..rows * columns).map(|at| p.data[at % rows * columns + at / rows]).collect();
    HostParam { shape: vec![columns, rows], data, ..p }
}

fn pick_rows(data: &[f32], width: usize, rows: impl Iterator<Item = usize>) -> Vec<f32> {
    rows.flat_map(|r| &data[r * width..(r + 1) * width]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::decoder;
    use burn::tensor::Device;

    /// Values that tell position and tensor apart.
    fn filled(name: &str, shape: &[usize], base: f32) -> HostParam {
        let count: usize = shape.iter().product();
        param(name.into(), shape, (0..count).map(|i| base + i as f32).collect())
    }

    #[test]
    fn neox_heads_are_split_and_weights_transposed() {
        let (d, f, v) = (8, 12, 5);
        let config = ModelConfig {
            rotary: 2,
            feed_forward: f,
            parallel_residual: true,
            tied: false,
            ..ModelConfig::decoder(v, 4, 1, d, 2, Attention::Softmax)
        };
        let layer = |name: &str| format!("gpt_neox.layers.0.{name}");
        let mut tensors = vec![
            filled("gpt_neox.embed_in.weight", &[v, d], 0.0),
            filled("embed_out.weight", &[v, d], 100.0),
            filled(&layer("attention.query_key_value.weight"), &[3 * d, d], 1000.0),
            filled(&layer("attention.query_key_value.bias"), &[3 * d], 2000.0),
        ];
        for (name, output, input) in
            [("attention.dense", d, d), ("mlp.dense_h_to_4h", f, d), ("mlp.dense_4h_to_h", d, f)]
        {
            tensors.push(filled(&layer(&format!("{name}.weight")), &[output, input], 3000.0));
            tensors.push(filled(&layer(&format!("{name}.bias")), &[output], 4000.0));
        }
        for name in [layer("input_layernorm"), layer("post_attention_layernorm"), "gpt_neox.final_layer_norm".into()] {
            tensors.push(filled(&format!("{name}.weight"), &[d], 1.0));
            tensors.push(filled(&format!("{name}.bias"), &[d], 0.0));
        }
        let path = std::env::temp_dir().join(format!("cipherlm-neox-{}.safetensors", std::process::id()));
        Archive { tensors, fields: HashMap::new() }.save(&path).unwrap();
        let params = gpt_neox(&path, &config).unwrap();
        let model = decoder(&config, &params, &Device::flex()).unwrap();
        let pulled = crate::params::pull(&model);
        let find = |name: &str| &pulled.iter().find(|p| p.name == name).unwrap().data;
        // Head 1, feature 2 of the key: row (1 * 3 + 1) * 4 + 2 = 18 of the fused matrix, column 6 of ours.
        assert_eq!(find("blocks.0.attention.key.weight")[3 * d + 6], 1000.0 + (18 * d + 3) as f32);
        assert_eq!(find("blocks.0.attention.key.bias")[6], 2018.0);
        // Ours is [input, output]: input 2, output 3.
        assert_eq!(find("blocks.0.feed_forward.up.weight")[2 * f + 3], 3000.0 + (3 * d + 2) as f32);
        assert_eq!(find("head")[2 * v + 1], 100.0 + (d + 2) as f32);
        // A file of another shape is refused by name.
        let wrong = ModelConfig { vocab: 6, ..config };
        let error = gpt_neox(&path, &wrong).unwrap_err().to_string();
        assert!(error.contains("embed_in") && error.contains("[6, 8]") && error.contains("[5, 8]"), "{error}");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn bert_folds_token_types_into_positions() {
        let (d, f, v) = (4, 6, 7);
        let config = ModelConfig { feed_forward: f, ..ModelConfig::encoder(v, 3, 1, d, 2, Attention::Softmax) };
        let mut tensors = vec![
            filled("bert.embeddings.word_embeddings.weight", &[v, d], 0.0),
            filled("bert.embeddings.position_embeddings.weight", &[3, d], 10.0),
            filled("bert.embeddings.token_type_embeddings.weight", &[2, d], 100.0),
            filled("classifier.weight", &[2, d], 50.0),
            filled("classifier.bias", &[2], 60.0),
        ];
        let layer = |name: &str| format!("bert.encoder.layer.0.{name}");
        for (name, output, input) in [
            (layer("attention.self.query"), d, d),
            (layer("attention.self.key"), d, d),
            (layer("attention.self.value"), d, d),
            (layer("attention.output.dense"), d, d),
            (layer("intermediate.dense"), f, d),
            (layer("output.dense"), d, f),
            ("bert.pooler.dense".into(), d, d),
        ] {
            tensors.push(filled(&format!("{name}.weight"), &[output, input], 0.0));
            tensors.push(filled(&format!("{name}.bias"), &[output], 0.0));
        }
        let norms =
            [layer("attention.output.LayerNorm"), layer("output.LayerNorm"), "bert.embeddings.LayerNorm".into()];
        for name in norms {
            tensors.push(filled(&format!("{name}.gamma"), &[d], 1.0));
            tensors.push(filled(&format!("{name}.beta"), &[d], 0.0));
        }
        let path = std::env::temp_dir().join(format!("cipherlm-bert-{}.safetensors", std::process::id()));
        Archive { tensors, fields: HashMap::new() }.save(&path).unwrap();
        let params = bert(&path, &config).unwrap();
        std::fs::remove_file(&path).unwrap();
        let device = Device::flex();
        let model = crate::transformer::Encoder::new(&config, 2, 1, &device, burn::tensor::DType::F32).unwrap();
        let params = crate::params::align(&crate::params::pull(&model), params).unwrap();
        let find = |name: &str| &params.iter().find(|p| p.name == name).unwrap().data;
        assert_eq!(find("body.positions")[d + 1], 15.0 + 101.0);
        assert_eq!(find("classifier.weight")[2 * 2 + 1], 50.0 + (d + 2) as f32);
    }
}
