//! Small public checkpoints with random weights, as files.

use std::fs;
use std::path::Path;

use cipherlm_model::{Kind, Placement, Pool, Shape, Tokenizer, random};
use serde_json::{Map, Value, json};

use crate::common::stories;

/// Safetensors of these tensors, filled by a generator: matrices of unit gain, gains near 1.
pub(crate) fn safetensors(tensors: &[(String, Vec<usize>)]) -> Vec<u8> {
    let (mut header, mut data, mut state) = (Map::new(), Vec::<u8>::new(), 1u32);
    for (name, dims) in tensors {
        let from = data.len();
        for _ in 0..dims.iter().product() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let unit = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
            let value = match dims[..] {
                [_] if name.ends_with("bias") => 0.05 * unit,
                [_] => 1.0 + 0.1 * unit,
                _ => unit * (1.5 / dims[dims.len() - 1] as f32).sqrt(),
            };
            data.extend(value.to_le_bytes());
        }
        header
            .insert(name.clone(), json!({"dtype": "F32", "shape": dims, "data_offsets": [from, data.len()]}));
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// A Llama of two blocks, width 16, with a byte-level tokenizer of 300 tokens.
pub(crate) fn llama(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    let (d, f, vocab) = (16, 32, 300);
    let config = json!({
        "model_type": "llama", "vocab_size": vocab, "hidden_size": d, "intermediate_size": f,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
        "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
    });
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![vocab, d])];
    for l in 0..2 {
        for (name, dims) in [
            ("self_attn.q_proj", vec![d, d]),
            ("self_attn.k_proj", vec![d, d]),
            ("self_attn.v_proj", vec![d, d]),
            ("self_attn.o_proj", vec![d, d]),
            ("mlp.gate_proj", vec![f, d]),
            ("mlp.up_proj", vec![f, d]),
            ("mlp.down_proj", vec![d, f]),
            ("input_layernorm", vec![d]),
            ("post_attention_layernorm", vec![d]),
        ] {
            tensors.push((format!("model.layers.{l}.{name}.weight"), dims));
        }
    }
    tensors.push(("model.norm.weight".into(), vec![d]));
    fs::write(dir.join("model.safetensors"), safetensors(&tensors)).unwrap();
    let tokenizer = Tokenizer::train(&stories(0, 200), vocab).unwrap();
    fs::write(dir.join("tokenizer.json"), tokenizer.to_json().unwrap()).unwrap();
}

const WORDS: [&str; 13] =
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "where", "is", "the", "cat", "dog", "a", "sat", "ran"];

/// A certified model of sentence vectors with the same words, one block, width 16.
pub(crate) fn sentences(dir: &Path) {
    let shape = Shape {
        kind: Kind::Embedder { pool: Pool::Mean },
        placement: Placement::Post,
        rotary: None,
        positions: true,
        embed_norm: true,
        tied_head: false,
        layers: 1,
        vocab: WORDS.len(),
        ..Shape::preset("test").unwrap()
    };
    random::certified("sentences", &shape, 3).unwrap().save(dir).unwrap();
    Tokenizer::from_word_pieces(&WORDS.join("\n"), true).unwrap().save(&dir.join("tokenizer.json")).unwrap();
}

/// A BERT of one block, width 16, with word pieces.
pub(crate) fn bert(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("vocab.txt"), WORDS.join("\n")).unwrap();
    let (d, f, vocab, context) = (16, 32, WORDS.len(), 24);
    let config = json!({
        "model_type": "bert", "vocab_size": vocab, "hidden_size": d, "intermediate_size": f,
        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": context,
        "hidden_act": "gelu",
    });
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let mut tensors = vec![
        ("embeddings.word_embeddings.weight".to_owned(), vec![vocab, d]),
        ("embeddings.position_embeddings.weight".into(), vec![context, d]),
        ("embeddings.token_type_embeddings.weight".into(), vec![2, d]),
        ("embeddings.LayerNorm.weight".into(), vec![d]),
        ("embeddings.LayerNorm.bias".into(), vec![d]),
    ];
    for (name, out, inputs) in [
        ("attention.self.query", d, d),
        ("attention.self.key", d, d),
        ("attention.self.value", d, d),
        ("attention.output.dense", d, d),
        ("intermediate.dense", f, d),
        ("output.dense", d, f),
    ] {
        tensors.push((format!("encoder.layer.0.{name}.weight"), vec![out, inputs]));
        tensors.push((format!("encoder.layer.0.{name}.bias"), vec![out]));
    }
    for norm in ["attention.output.LayerNorm", "output.LayerNorm"] {
        tensors.push((format!("encoder.layer.0.{norm}.weight"), vec![d]));
        tensors.push((format!("encoder.layer.0.{norm}.bias"), vec![d]));
    }
    fs::write(dir.join("model.safetensors"), safetensors(&tensors)).unwrap();
}
