//! Published checkpoints into this crate's modules, by their public tensor names.
//!
//! | family | file | what is done |
//! |---|---|---|
//! | GPT-NeoX / Pythia | safetensors | the fused query-key-value matrix is split by head, linear weights are transposed |
//! | BERT | safetensors | token type 0 is folded into the positions, linear weights are transposed |
//! | llama2.c | `.bin`, version 0 | shared key/value heads are repeated, interleaved rotary pairs become halves |

use std::collections::HashMap;
use std::path::Path;

use cipherlm_model::{Activation, Attention, Norm, Rotary, Shape};
use safetensors::tensor::{Dtype, SafeTensors};

use crate::arch::Arch;
use crate::checkpoint::Weighed;
use crate::error::{Error, Result};
use crate::params::HostParam;

/// Tensors of a GPT-NeoX checkpoint as decoder parameters. The shape is a Pythia preset.
pub fn gpt_neox(path: &Path, shape: &Shape) -> Result<Vec<HostParam>> {
    let mut source = Source::open(path)?;
    let (d, f, h) = (shape.d_model, shape.ffn, shape.heads);
    let head = d / h;
    let mut out = vec![source.take("gpt_neox.embed_in.weight", "embed.tokens", &[shape.vocab, d])?];
    for l in 0..shape.layers {
        let from = |name: &str| format!("gpt_neox.layers.{l}.{name}");
        let to = |name: &str| format!("layers.{l}.{name}");
        source.norm(&from("input_layernorm"), &to("norm1"), d, &mut out)?;
        let fused = source.take(&from("attention.query_key_value.weight"), "", &[3 * d, d])?;
        let bias = source.take(&from("attention.query_key_value.bias"), "", &[3 * d])?;
        for (part, name) in ["q", "k", "v"].into_iter().enumerate() {
            // Rows of the fused matrix are ordered [head][query, key, value][feature].
            let rows: Vec<usize> = (0..d).map(|o| (o / head * 3 + part) * head + o % head).collect();
            let weight = rows.iter().flat_map(|&r| &fused.data[r * d..(r + 1) * d]).copied().collect();
            out.push(transposed(param(to(&format!("attn.{name}.weight")), &[d, d], weight)));
            let bias = rows.iter().map(|&r| bias.data[r]).collect();
            out.push(param(to(&format!("attn.{name}.bias")), &[d], bias));
        }
        source.linear(&from("attention.dense"), &to("attn.out"), d, d, &mut out)?;
        source.norm(&from("post_attention_layernorm"), &to("norm2"), d, &mut out)?;
        source.linear(&from("mlp.dense_h_to_4h"), &to("ffn.up"), d, f, &mut out)?;
        source.linear(&from("mlp.dense_4h_to_h"), &to("ffn.down"), f, d, &mut out)?;
    }
    source.norm("gpt_neox.final_layer_norm", "final_norm", d, &mut out)?;
    out.push(transposed(source.take("embed_out.weight", "head.weight", &[shape.vocab, d])?));
    Ok(out)
}

/// Tensors of a BERT sequence classifier as encoder parameters; a checkpoint without classifier
/// leaves it out.
pub fn bert(path: &Path, shape: &Shape) -> Result<Vec<HostParam>> {
    let mut source = Source::open(path)?;
    let (d, f) = (shape.d_model, shape.ffn);
    let words = source.take("embeddings.word_embeddings.weight", "embed.tokens", &[shape.vocab, d])?;
    let mut positions = source.take("embeddings.position_embeddings.weight", "embed.positions", &[shape.context, d])?;
    if let Some(types) = source.optional("embeddings.token_type_embeddings.weight") {
        for row in positions.data.chunks_mut(d) {
            row.iter_mut().zip(&types.data).for_each(|(p, t)| *p += t);
        }
    }
    let mut out = vec![words, positions];
    for l in 0..shape.layers {
        let from = |name: &str| format!("encoder.layer.{l}.{name}");
        let to = |name: &str| format!("layers.{l}.{name}");
        for (name, short) in [("query", "q"), ("key", "k"), ("value", "v")] {
            let (from, to) = (from(&format!("attention.self.{name}")), to(&format!("attn.{short}")));
            source.linear(&from, &to, d, d, &mut out)?;
        }
        source.linear(&from("attention.output.dense"), &to("attn.out"), d, d, &mut out)?;
        source.norm(&from("attention.output.LayerNorm"), &to("norm1"), d, &mut out)?;
        source.linear(&from("intermediate.dense"), &to("ffn.up"), d, f, &mut out)?;
        source.linear(&from("output.dense"), &to("ffn.down"), f, d, &mut out)?;
        source.norm(&from("output.LayerNorm"), &to("norm2"), d, &mut out)?;
    }
    source.norm("embeddings.LayerNorm", "embed.norm", d, &mut out)?;
    source.linear("pooler.dense", "pool", d, d, &mut out)?;
    if let Some(weight) = source.optional("classifier.weight") {
        let classes = weight.shape[0];
        out.push(transposed(param("classifier.weight".into(), &[classes, d], weight.data)));
        out.push(source.take("classifier.bias", "classifier.bias", &[classes])?);
    }
    Ok(out)
}

/// A llama2.c checkpoint: its shape (with softmax attention) and decoder parameters.
pub fn llama2c(path: &Path) -> Result<Weighed> {
    let bytes = cipherlm_files::read(path, 1 << 36)?;
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
    if sizes.iter().any(|&s| s == 0 || s > 1 << 20) || !d.is_multiple_of(2 * heads) || !heads.is_multiple_of(kv_heads) {
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
    let norm1 = take(layers * d)?;
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

    let mut out = vec![param("embed.tokens".into(), &[vocab, d], embedding)];
    let part = |all: &[f32], l: usize, count: usize| all[l * count..(l + 1) * count].to_vec();
    for l in 0..layers {
        let name = |name: &str| format!("layers.{l}.{name}");
        let mut linear = |to: &str, rows: usize, columns: usize, data: Vec<f32>| {
            out.push(transposed(param(name(to), &[rows, columns], data)));
        };
        let halves = |row: usize| row / head * head + 2 * (row % head % (head / 2)) + row % head / (head / 2);
        let q = part(&query, l, d * d);
        linear("attn.q.weight", d, d, pick_rows(&q, d, (0..d).map(halves)));
        // Query head `h` reads key head `h / (heads / kv_heads)`.
        let shared = |row: usize| row / head / (heads / kv_heads) * head + row % head;
        let k = part(&key, l, kv * d);
        linear("attn.k.weight", d, d, pick_rows(&k, d, (0..d).map(|r| shared(halves(r)))));
        let v = part(&value, l, kv * d);
        linear("attn.v.weight", d, d, pick_rows(&v, d, (0..d).map(shared)));
        linear("attn.out.weight", d, d, part(&output, l, d * d));
        linear("ffn.gate.weight", f, d, part(&gate, l, f * d));
        linear("ffn.up.weight", f, d, part(&up, l, f * d));
        linear("ffn.down.weight", d, f, part(&down, l, f * d));
        out.push(param(name("norm1.gain"), &[d], part(&norm1, l, d)));
        out.push(param(name("norm2.gain"), &[d], part(&feed_norm, l, d)));
    }
    out.push(param("final_norm.gain".into(), &[d], final_norm));
    if let Some(classifier) = classifier {
        out.push(transposed(param("head.weight".into(), &[vocab, d], classifier)));
    }
    let shape = Shape {
        kind: cipherlm_model::Kind::Decoder,
        layers,
        d_model: d,
        heads,
        head_dim: head,
        ffn: f,
        vocab,
        context,
        norm: Norm::RmsNorm,
        norm_eps: 1e-5,
        placement: cipherlm_model::Placement::Pre,
        activation: Activation::Silu,
        gated: true,
        residual: cipherlm_model::Residual::Sequential,
        rotary: Some(Rotary { dims: head, base: 10_000.0 }),
        positions: false,
        embed_norm: false,
        tied_head: tied,
        bias: false,
        attention: Attention::Softmax,
    };
    Ok((Arch::new(shape), out))
}

/// Tensors of a file by name, a model prefix such as `bert.` removed.
struct Source {
    tensors: HashMap<String, HostParam>,
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        let corrupt = |reason: String| Error::Corrupt { path: path.into(), reason, hint: "fetch the file again" };
        let bytes = cipherlm_files::read(path, 1 << 36)?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| corrupt(e.to_string()))?;
        let mut tensors = HashMap::new();
        for (name, view) in file.tensors() {
            // Integers are buffers, such as BERT's position numbers.
            if let Some(data) = floats(view.dtype(), view.data()) {
                let name = name.strip_prefix("bert.").unwrap_or(&name).to_owned();
                tensors.insert(name.clone(), param(name, view.shape(), data));
            }
        }
        Ok(Self { tensors })
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
        for (new, old, ours) in [("weight", "gamma", "gain"), ("bias", "beta", "bias")] {
            let name = if self.tensors.contains_key(&format!("{from}.{old}")) { old } else { new };
            out.push(self.take(&format!("{from}.{name}"), &format!("{to}.{ours}"), &[width])?);
        }
        Ok(())
    }
}

fn floats(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let pairs = || bytes.as_chunks::<2>().0.iter().map(|&b| u16::from_le_bytes(b));
    Some(match dtype {
        Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        Dtype::BF16 => pairs().map(|b| f32::from_bits(u32::from(b) << 16)).collect(),
        Dtype::F16 => pairs().map(crate::convert::half_to_f32).collect(),
        Dtype::F64 => bytes.as_chunks::<8>().0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect(),
        _ => return None,
    })
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
    use crate::params::{align, pull};
    use crate::transformer::Transformer;
    use burn::tensor::{DType, Device};

    fn save(path: &Path, tensors: &[HostParam]) {
        let bytes: Vec<Vec<u8>> =
            tensors.iter().map(|t| t.data.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
        let view = |(t, b): (&HostParam, &Vec<u8>)| {
            let view = safetensors::tensor::TensorView::new(Dtype::F32, t.shape.clone(), b);
            (t.name.clone(), view.unwrap().data().to_vec(), t.shape.clone())
        };
        let all: Vec<_> = tensors.iter().zip(&bytes).map(view).collect();
        let views = all
            .iter()
            .map(|(n, b, s)| (n.as_str(), safetensors::tensor::TensorView::new(Dtype::F32, s.clone(), b).unwrap()));
        std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
    }

    /// Values that tell position and tensor apart.
    fn filled(name: &str, shape: &[usize], base: f32) -> HostParam {
        let count: usize = shape.iter().product();
        param(name.into(), shape, (0..count).map(|i| base + i as f32).collect())
    }

    #[test]
    fn neox_heads_are_split_and_weights_transposed() {
        let (d, f, v) = (8, 12, 5);
        let shape = Shape {
            layers: 1,
            d_model: d,
            heads: 2,
            head_dim: 4,
            ffn: f,
            vocab: v,
            context: 4,
            rotary: Some(Rotary { dims: 2, base: 1e4 }),
            attention: Attention::Softmax,
            ..Shape::preset("pythia-70m").unwrap()
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
        let norms = [layer("input_layernorm"), layer("post_attention_layernorm"), "gpt_neox.final_layer_norm".into()];
        for (i, name) in norms.iter().enumerate() {
            tensors.push(filled(&format!("{name}.weight"), &[d], 10.0 * (i + 1) as f32));
            tensors.push(filled(&format!("{name}.bias"), &[d], 500.0 * (i + 1) as f32));
        }
        let path = std::env::temp_dir().join(format!("cipherlm-neox-{}.safetensors", std::process::id()));
        save(&path, &tensors);
        let params = gpt_neox(&path, &shape).unwrap();
        let model = Transformer::with_params(&Arch::new(shape.clone()), &params, &Device::flex()).unwrap();
        let pulled = pull(&model);
        let find = |name: &str| &pulled.iter().find(|p| p.name == name).unwrap().data;
        // Head 1, feature 2 of the key: row (1 * 3 + 1) * 4 + 2 = 18 of the fused matrix, column 6
        // of ours.
        assert_eq!(find("layers.0.attn.k.weight")[3 * d + 6], 1000.0 + (18 * d + 3) as f32);
        assert_eq!(find("layers.0.attn.k.bias")[6], 2018.0);
        // Ours is [input, output]: input 2, output 3.
        assert_eq!(find("layers.0.ffn.up.weight")[2 * f + 3], 3000.0 + (3 * d + 2) as f32);
        assert_eq!(find("head.weight")[2 * v + 1], 100.0 + (d + 2) as f32);
        // Each normalisation has a place of its own.
        for (name, base) in [("layers.0.norm1", 1.0), ("layers.0.norm2", 2.0), ("final_norm", 3.0)] {
            assert_eq!(find(&format!("{name}.gain"))[1], 10.0 * base + 1.0, "{name}");
            assert_eq!(find(&format!("{name}.bias"))[2], 500.0 * base + 2.0, "{name}");
        }
        // A file of another shape is refused by name.
        let wrong = Shape { vocab: 6, ..shape };
        let error = gpt_neox(&path, &wrong).unwrap_err().to_string();
        assert!(error.contains("embed_in") && error.contains("[6, 8]") && error.contains("[5, 8]"), "{error}");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn bert_folds_token_types_into_positions() {
        let (d, f, v) = (4, 6, 7);
        let shape = Shape {
            layers: 1,
            d_model: d,
            head_dim: 2,
            ffn: f,
            vocab: v,
            context: 3,
            attention: Attention::Softmax,
            ..Shape::preset("bert-tiny").unwrap()
        };
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
        for (i, name) in norms.iter().enumerate() {
            tensors.push(filled(&format!("{name}.gamma"), &[d], 10.0 * (i + 1) as f32));
            tensors.push(filled(&format!("{name}.beta"), &[d], 500.0 * (i + 1) as f32));
        }
        let path = std::env::temp_dir().join(format!("cipherlm-bert-{}.safetensors", std::process::id()));
        save(&path, &tensors);
        let params = bert(&path, &shape).unwrap();
        std::fs::remove_file(&path).unwrap();
        let model = Transformer::new(&Arch::new(shape), 1, &Device::flex(), DType::F32).unwrap();
        let params = align(&pull(&model), params).unwrap();
        let find = |name: &str| &params.iter().find(|p| p.name == name).unwrap().data;
        assert_eq!(find("embed.positions")[d + 1], 15.0 + 101.0);
        for (name, base) in [("layers.0.norm1", 1.0), ("layers.0.norm2", 2.0), ("embed.norm", 3.0)] {
            assert_eq!(find(&format!("{name}.gain"))[1], 10.0 * base + 1.0, "{name}");
        }
        assert_eq!(find("classifier.weight")[2 * 2 + 1], 50.0 + (d + 2) as f32);
    }
}
