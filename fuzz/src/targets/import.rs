//! Public checkpoints: a Hugging Face folder, a GGUF file, a llama2.c file.

// The files that the tests of import are made of; not all of it is needed here.
#[allow(dead_code, unreachable_pub)]
#[path = "../../../crates/model/tests/common/mod.rs"]
mod made;

use std::path::PathBuf;

use cipherlm_model::import::Checkpoint;
use cipherlm_model::{Kind, Mode, Model, Positions, Runner};
use serde_json::{Value, json};

use super::{Target, Verdict, json_ceiling, scratch_folder};
use crate::engine::Probe;
use crate::mutate::{bytes, join, json as edit_json, safetensors, split};
use crate::rng::Rng;
use made::Stored;

/// Cases of the tests of import: configurations, and names and sizes of tensors.
const CASES: &str = include_str!("../../../crates/model/tests/data/import.json");

/// Names of the files of a folder.
const FILES: [&str; 2] = ["config.json", "model.safetensors"];

/// How a checkpoint is stored.
#[derive(Clone, Copy, PartialEq)]
enum Format {
    Folder,
    Gguf,
    Llama2c,
}

/// A checkpoint that somebody else made.
pub(crate) struct Public {
    format: Format,
    scratch: PathBuf,
}

impl Public {
    pub(super) fn folder() -> anyhow::Result<Self> {
        Ok(Self { format: Format::Folder, scratch: scratch_folder("hugging_face")? })
    }

    pub(super) fn gguf() -> anyhow::Result<Self> {
        Ok(Self { format: Format::Gguf, scratch: scratch_folder("gguf")? })
    }

    pub(super) fn llama2c() -> anyhow::Result<Self> {
        Ok(Self { format: Format::Llama2c, scratch: scratch_folder("llama2c")? })
    }

    /// Where the input is opened.
    fn place(&self) -> PathBuf {
        match self.format {
            Format::Folder => self.scratch.join("source"),
            Format::Gguf => self.scratch.join("source.gguf"),
            Format::Llama2c => self.scratch.join("source.bin"),
        }
    }

    fn write(&self, input: &[u8]) -> std::io::Result<()> {
        let place = self.place();
        if self.format != Format::Folder {
            return std::fs::write(place, input);
        }
        std::fs::create_dir_all(&place)?;
        let parts = split(input, FILES.len());
        FILES.iter().zip(parts).try_for_each(|(name, part)| std::fs::write(place.join(name), part))
    }

    /// Saves the model that was read and loads it.
    fn saved(&self, checkpoint: &Checkpoint) -> cipherlm_model::Result<Model> {
        let out = self.scratch.join("out");
        let _ = std::fs::remove_dir_all(&out);
        checkpoint.save(&out)?;
        Model::load(&out)
    }
}

impl Drop for Public {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.scratch);
    }
}

fn folders() -> anyhow::Result<Vec<Vec<u8>>> {
    let cases: Vec<Value> = serde_json::from_str(CASES)?;
    let folder = |case: &Value| -> anyhow::Result<Vec<u8>> {
        let sizes: std::collections::BTreeMap<String, Vec<usize>> =
            serde_json::from_value(case["tensors"].clone())?;
        let tensors: Vec<Stored> = sizes.iter().map(|(name, dims)| Stored::f32(name, dims)).collect();
        Ok(join(&[case["config"].to_string().into_bytes(), made::safetensors(&tensors)]))
    };
    cases.iter().map(folder).collect()
}

/// Width, feed-forward width, layers, heads, key heads, vocabulary, context.
const SIZES: [usize; 7] = [8, 12, 1, 2, 1, 16, 6];

/// Tensors of one layer in the order of llama2.c, under GGUF's names.
fn tensors() -> Vec<Stored> {
    let [d, ffn, _, heads, kv_heads, vocab, _] = SIZES;
    let kv = d / heads * kv_heads;
    let layer: [(&str, Vec<usize>); 9] = [
        ("attn_norm", vec![d]),
        ("attn_q", vec![d, d]),
        ("attn_k", vec![kv, d]),
        ("attn_v", vec![kv, d]),
        ("attn_output", vec![d, d]),
        ("ffn_norm", vec![d]),
        ("ffn_gate", vec![ffn, d]),
        ("ffn_down", vec![d, ffn]),
        ("ffn_up", vec![ffn, d]),
    ];
    let mut all = vec![Stored::f32("token_embd.weight", &[vocab, d])];
    all.extend(layer.iter().map(|(name, dims)| Stored::f32(&format!("blk.0.{name}.weight"), dims)));
    all.push(Stored::f32("output_norm.weight", &[d]));
    all
}

fn gguf() -> Vec<u8> {
    let [d, ffn, layers, heads, kv_heads, vocab, context] = SIZES;
    let fields = json!({
        "general.architecture": "llama", "llama.block_count": layers, "llama.embedding_length": d,
        "llama.feed_forward_length": ffn, "llama.context_length": context,
        "llama.attention.head_count": heads, "llama.attention.head_count_kv": kv_heads,
        "llama.rope.freq_base": 5000.5, "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.tokens": (0..vocab).map(|i| format!("▁t{i}")).collect::<Vec<_>>(),
        "tokenizer.ggml.scores": vec![0.5; vocab],
    });
    made::gguf(&fields, &tensors())
}

fn llama2c() -> Vec<u8> {
    let mut out: Vec<u8> = SIZES.iter().flat_map(|&size| (size as i32).to_le_bytes()).collect();
    let rotary = SIZES[6] * SIZES[0] / SIZES[3];
    let values = tensors().into_iter().flat_map(|tensor| tensor.values).chain(vec![0.0; rotary]);
    out.extend(values.flat_map(f32::to_le_bytes));
    out
}

impl Target for Public {
    fn seeds(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        match self.format {
            Format::Folder => folders(),
            Format::Gguf => Ok(vec![gguf()]),
            Format::Llama2c => Ok(vec![llama2c()]),
        }
    }

    fn mutate(&self, input: &mut Vec<u8>, pool: &[Vec<u8>], rng: &mut Rng) {
        if self.format != Format::Folder {
            return bytes(input, pool, rng);
        }
        let mut parts = split(input, FILES.len());
        let other = rng.pick(pool).map(|other| split(other, FILES.len())).unwrap_or_default();
        match rng.below(8) {
            0 if other.len() == FILES.len() => parts[1].clone_from(&other[1]),
            1..=3 => safetensors(&mut parts[1], &[], rng),
            _ => edit_json(&mut parts[0], &other[..other.len().min(1)], rng),
        }
        *input = join(&parts);
    }

    fn run(&self, input: &[u8], probe: &mut Probe) -> Verdict {
        if let Err(error) = self.write(input) {
            return Verdict::Refused(format!("the test could not write: {error}"));
        }
        let place = self.place();
        let checkpoint = match probe.parse(|| Checkpoint::open(&place)) {
            Ok(checkpoint) => checkpoint,
            Err(error) => return Verdict::Refused(error.to_string()),
        };
        let model = match checkpoint.model() {
            Ok(model) => model,
            Err(error) => return Verdict::Refused(error.to_string()),
        };
        // Whatever was accepted runs, or says why not.
        if let Ok(mut runner) = Runner::new(&model, Mode::Exact) {
            let _ = match model.shape().kind {
                Kind::Decoder => runner.forward(&[0, 1], Positions::Last).map(drop),
                Kind::Encoder { .. } => runner.classify(&[0, 1], None).map(drop),
                Kind::Embedder { .. } => runner.hidden(&[0, 1], None).map(drop),
            };
        }
        match self.saved(&checkpoint) {
            Ok(again) if again.shape() == model.shape() && again.weights() == model.weights() => {
                Verdict::Accepted
            }
            Ok(_) => Verdict::Wrong("saved and loaded, it is another model".into()),
            Err(error) => Verdict::Wrong(format!("accepted; saved, it is refused: {error}")),
        }
    }

    fn ceiling(&self, length: usize) -> usize {
        // Headers become JSON values.
        json_ceiling(length)
    }
}
