//! The cases that the script `peers/import/outputs.py` wrote.

use cipherlm_model::{Kind, Mode, Model, Positions, Runner};
use cipherlm_testing::Scratch;
use serde_json::{Value, json};

use crate::common::{Stored, safetensors};

/// The cases that the script wrote.
pub(crate) fn cases() -> Vec<Value> {
    serde_json::from_str::<Value>(include_str!("../data/import.json")).unwrap().as_array().unwrap().clone()
}

pub(crate) fn case(name: &str) -> Value {
    cases().into_iter().find(|c| c["name"] == name).unwrap()
}

/// The tensors of a case, filled as the script fills them.
pub(crate) fn tensors(case: &Value) -> Vec<Stored> {
    let named = case["tensors"].as_object().unwrap().iter();
    named
        .map(|(name, dims)| Stored::f32(name, &serde_json::from_value::<Vec<usize>>(dims.clone()).unwrap()))
        .collect()
}

pub(crate) fn write(folder: &Scratch, case: &Value, tensors: &[Stored]) {
    folder.write("config.json", case["config"].to_string().as_bytes());
    folder.write("model.safetensors", &safetensors(tensors));
}

/// A Llama of the script under GGUF's names, its queries and keys in interleaved pairs.
pub(crate) fn as_gguf(case: &Value) -> (Value, Vec<Stored>) {
    let config = &case["config"];
    let head = config["hidden_size"].as_u64().unwrap() / config["num_attention_heads"].as_u64().unwrap();
    let mut out = vec![];
    for mut tensor in tensors(case) {
        let name = tensor.name.replace("model.layers.", "blk.").replace("model.embed_tokens", "token_embd");
        let mut name = name.replace("model.norm", "output_norm").replace("input_layernorm", "attn_norm");
        for (from, to) in [
            ("post_attention_layernorm", "ffn_norm"),
            ("self_attn.q_proj", "attn_q"),
            ("self_attn.k_proj", "attn_k"),
            ("self_attn.v_proj", "attn_v"),
            ("self_attn.o_proj", "attn_output"),
            ("mlp.gate_proj", "ffn_gate"),
            ("mlp.up_proj", "ffn_up"),
            ("mlp.down_proj", "ffn_down"),
        ] {
            name = name.replace(from, to);
        }
        if name.contains("attn_q") || name.contains("attn_k") {
            tensor.interleave(head as usize);
        }
        tensor.name = name;
        out.push(tensor);
    }
    let size = |field: &str| config[field].clone();
    let fields = json!({
        "general.architecture": "llama",
        "llama.block_count": size("num_hidden_layers"), "llama.embedding_length": size("hidden_size"),
        "llama.feed_forward_length": size("intermediate_size"),
        "llama.context_length": size("max_position_embeddings"),
        "llama.attention.head_count": size("num_attention_heads"),
        "llama.attention.head_count_kv": size("num_key_value_heads"),
        "llama.rope.freq_base": config["rope_theta"].as_f64().unwrap(),
        "llama.attention.layer_norm_rms_epsilon": config["rms_norm_eps"].as_f64().unwrap(),
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.tokens": (0..40).map(|i| format!("▁t{i}")).collect::<Vec<_>>(),
        "tokenizer.ggml.scores": vec![0.5; 40],
    });
    (fields, out)
}

pub(crate) fn ids(case: &Value) -> Vec<u32> {
    serde_json::from_value(case["ids"].clone()).unwrap()
}

pub(crate) fn outputs(case: &Value) -> Vec<Vec<f64>> {
    serde_json::from_value(case["outputs"].clone()).unwrap()
}

/// The model's outputs for the tokens of a case, as the script keeps them.
pub(crate) fn ours(model: &Model, ids: &[u32]) -> Vec<Vec<f64>> {
    outputs_of(&mut Runner::new(model, Mode::Exact).unwrap(), model, ids)
}

pub(crate) fn outputs_of(runner: &mut Runner<'_>, model: &Model, ids: &[u32]) -> Vec<Vec<f64>> {
    match model.shape().kind {
        Kind::Decoder => {
            runner.forward(ids, Positions::All).unwrap().into_iter().skip(1).step_by(3).collect()
        }
        Kind::Embedder { .. } => {
            let rows = runner.hidden(ids, None).unwrap();
            rows.chunks_exact(model.shape().d_model).map(<[f64]>::to_vec).collect()
        }
        Kind::Encoder { .. } => {
            let mask: Vec<bool> = (0..ids.len()).map(|i| i < 5).collect();
            vec![runner.classify(ids, Some(&mask)).unwrap()]
        }
    }
}

/// Largest difference over the largest value.
pub(crate) fn relative_error(ours: &[Vec<f64>], theirs: &[Vec<f64>]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    assert!(ours.iter().zip(theirs).all(|(a, b)| a.len() == b.len()));
    let both = || ours.iter().flatten().zip(theirs.iter().flatten());
    let largest = both().fold(0.0f64, |m, (_, b)| m.max(b.abs()));
    both().fold(0.0f64, |m, (a, b)| m.max((a - b).abs())) / largest
}
