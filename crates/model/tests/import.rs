//! Public checkpoints: outputs equal those of PyTorch (`peers/import/outputs.py`), and bad files
//! are refused by name.

mod common;

use std::path::{Path, PathBuf};

use cipherlm_model::import::Checkpoint;
use cipherlm_model::{Error, Kind, Mode, Model, Pool, Positions, Prepared, Runner};
use common::{Folder, Stored, fill, gguf, safetensors};
use serde_json::{Value, json};

/// The cases that the script wrote.
fn cases() -> Vec<Value> {
    serde_json::from_str::<Value>(include_str!("data/import.json")).unwrap().as_array().unwrap().clone()
}

fn case(name: &str) -> Value {
    cases().into_iter().find(|c| c["name"] == name).unwrap()
}

/// The tensors of a case, filled as the script fills them.
fn tensors(case: &Value) -> Vec<Stored> {
    let named = case["tensors"].as_object().unwrap().iter();
    named
        .map(|(name, dims)| Stored::f32(name, &serde_json::from_value::<Vec<usize>>(dims.clone()).unwrap()))
        .collect()
}

fn write(folder: &Folder, case: &Value, tensors: &[Stored]) {
    folder.write("config.json", case["config"].to_string().as_bytes());
    folder.write("model.safetensors", &safetensors(tensors));
}

fn ids(case: &Value) -> Vec<u32> {
    serde_json::from_value(case["ids"].clone()).unwrap()
}

fn outputs(case: &Value) -> Vec<Vec<f64>> {
    serde_json::from_value(case["outputs"].clone()).unwrap()
}

/// The model's outputs for the tokens of a case, as the script keeps them.
fn ours(model: &Model, ids: &[u32]) -> Vec<Vec<f64>> {
    outputs_of(&mut Runner::new(model, Mode::Exact).unwrap(), model, ids)
}

fn outputs_of(runner: &mut Runner<'_>, model: &Model, ids: &[u32]) -> Vec<Vec<f64>> {
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
fn relative_error(ours: &[Vec<f64>], theirs: &[Vec<f64>]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    assert!(ours.iter().zip(theirs).all(|(a, b)| a.len() == b.len()));
    let both = || ours.iter().flatten().zip(theirs.iter().flatten());
    let largest = both().fold(0.0f64, |m, (_, b)| m.max(b.abs()));
    both().fold(0.0f64, |m, (a, b)| m.max((a - b).abs())) / largest
}

#[test]
fn every_family_computes_what_pytorch_computes() {
    let all = cases();
    assert_eq!(all.len(), 6);
    for case in &all {
        let folder = Folder::new("parity");
        write(&folder, case, &tensors(case));
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        checkpoint.save(&folder.path().join("out")).unwrap();
        let model = Model::load(&folder.path().join("out")).unwrap();
        assert_eq!(model.weights(), checkpoint.model().unwrap().weights());
        let error = relative_error(&ours(&model, &ids(case)), &outputs(case));
        assert!(error < 1e-6, "{}: {error:.1e}", case["name"]);
    }
}

#[test]
fn shared_key_heads_are_kept_and_can_be_repeated() {
    for name in ["llama_shared", "llama_biased"] {
        let case = case(name);
        let folder = Folder::new("shared");
        write(&folder, &case, &tensors(&case));
        let model = Checkpoint::open(folder.path()).unwrap().model().unwrap();
        let shape = model.shape();
        assert!(shape.key_heads() < shape.heads, "{name}");
        let repeated = model.with_repeated_heads().unwrap();
        assert_eq!(repeated.shape().key_heads(), shape.heads);
        let (a, b) = (ours(&model, &ids(&case)), ours(&repeated, &ids(&case)));
        assert!(relative_error(&a, &b) < 1e-14, "{name}");
    }
}

/// A Llama of the script under GGUF's names, its queries and keys in interleaved pairs.
fn as_gguf(case: &Value) -> (Value, Vec<Stored>) {
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

#[test]
fn gguf_gives_the_weights_of_the_folder_it_was_made_from() {
    let case = case("llama_shared");
    let folder = Folder::new("gguf");
    write(&folder, &case, &tensors(&case));
    let (fields, stored) = as_gguf(&case);
    folder.write("model.gguf", &gguf(&fields, &stored));
    let from_folder = Checkpoint::open(folder.path()).unwrap().model().unwrap();
    let checkpoint = Checkpoint::open(&folder.path().join("model.gguf")).unwrap();
    let from_file = checkpoint.model().unwrap();
    assert_eq!(from_file.shape(), from_folder.shape());
    assert_eq!(from_file.weights(), from_folder.weights());
    assert!(relative_error(&ours(&from_file, &ids(&case)), &outputs(&case)) < 1e-6);
    let tokenizer = checkpoint.tokenizer().unwrap();
    assert_eq!((tokenizer.begin(), tokenizer.ends(), tokenizer.vocab()), (Some(1), &[2][..], 40));
}

#[test]
fn llama2c_shares_heads_and_refuses_impossible_headers() {
    let case = case("llama_shared");
    let (_, stored) = as_gguf(&case);
    let find = |name: &str| stored.iter().find(|t| t.name == name).unwrap().values.clone();
    let header = [16, 24, 2, 4, 2, 40, 12];
    let bytes = |header: [i32; 7], tail: usize| {
        let mut out: Vec<u8> = header.iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut put = |values: &[f32]| out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        put(&find("token_embd.weight"));
        let parts = [
            "attn_norm",
            "attn_q",
            "attn_k",
            "attn_v",
            "attn_output",
            "ffn_norm",
            "ffn_gate",
            "ffn_down",
            "ffn_up",
        ];
        for part in parts {
            (0..2).for_each(|l| put(&find(&format!("blk.{l}.{part}.weight"))));
        }
        put(&find("output_norm.weight"));
        put(&vec![0.0; 12 * 4 + tail]);
        out
    };
    let folder = Folder::new("llama2c");
    let open = |bytes: &[u8]| {
        folder.write("model.bin", bytes);
        Checkpoint::open(&folder.path().join("model.bin"))
    };
    // The format fixes the rotary base at 10,000, the case has 5,000: so the weights are compared.
    folder.write("config.json", case["config"].to_string().as_bytes());
    folder.write("model.safetensors", &safetensors(&tensors(&case)));
    let want = Checkpoint::open(folder.path()).unwrap().model().unwrap();
    let found = open(&bytes(header, 0)).unwrap().model().unwrap();
    assert_eq!(found.weights(), want.weights());
    assert_eq!(found.shape().key_heads(), 2);
    for (header, tail, word) in [
        ([4, 8, 1, 4, 4, 300, 8], 90_000, "width 4"),
        ([-16, 24, 2, 4, 2, 40, 12], 0, "`dim` is -16"),
        ([16, 24, 2, 4, 3, 40, 12], 0, "3 key/value heads"),
        ([16, 24, i32::MAX, 4, 2, 40, 12], 0, "`n_layers`"),
        ([16, 24, 2, 4, 2, 40, 12], 1, "describes"),
        ([16, 24, 3, 4, 2, 40, 12], 0, "ends within"),
    ] {
        let error = open(&bytes(header, tail)).unwrap_err().to_string();
        assert!(error.contains(word) && !error.contains('\n'), "{error}");
    }
    assert!(open(&bytes(header, 0)[..20]).unwrap_err().to_string().contains("shorter than its header"));
}

#[test]
fn buffers_go_and_any_other_tensor_is_named() {
    let case = case("bert");
    let with = |extra: &[(&str, &str, &[usize])], without: Option<&str>| {
        let folder = Folder::new("buffers");
        let mut stored = tensors(&case);
        stored.extend(extra.iter().map(|(name, dtype, dims)| Stored::zeros(name, dtype, dims)));
        stored.retain(|t| Some(t.name.as_str()) != without);
        write(&folder, &case, &stored);
        Checkpoint::open(folder.path())
    };
    let plain = with(&[("embeddings.position_ids", "I64", &[1, 12])], None).unwrap();
    assert_eq!(plain.shape().kind, Kind::Embedder { pool: Pool::Mean });
    // Heads of the pretraining tasks and a pooler without a classifier are of no use, and listed.
    let masked = with(&[("cls.predictions.bias", "F32", &[40])], None).unwrap();
    assert!(masked.left_out().contains(&"cls.predictions.bias".to_owned()));
    let stray = with(&[("encoder.layer.0.adapter.weight", "F32", &[2])], None).unwrap_err();
    assert!(
        matches!(&stray, Error::StrayTensor { name } if name == "encoder.layer.0.adapter.weight"),
        "{stray}"
    );
    for name in ["encoder.layer.1.output.dense.bias", "encoder.layer.1.output.dense.weight"] {
        let missing = with(&[], Some(name)).unwrap_err();
        assert!(matches!(&missing, Error::MissingTensor { name: n, .. } if n == name), "{missing}");
    }
    let folder = Folder::new("whole");
    let mut stored = tensors(&case);
    stored[5].dtype = "I64".into();
    write(&folder, &case, &stored);
    let whole = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(whole.contains(&stored[5].name) && whole.contains("whole numbers"), "{whole}");
}

#[test]
fn a_classifier_needs_its_pooler() {
    let case = case("bert_classifier");
    let folder = Folder::new("pooler");
    let mut stored = tensors(&case);
    stored.retain(|t| !t.name.contains("pooler"));
    write(&folder, &case, &stored);
    let error = Checkpoint::open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("pooler.dense.weight"), "{error}");
}

#[test]
fn half_precision_and_neox_buffers_are_read() {
    let case = case("neox_parallel");
    let exact = outputs(&case);
    for dtype in ["F16", "BF16"] {
        let folder = Folder::new("half");
        let mut stored: Vec<Stored> = tensors(&case).into_iter().map(|t| t.narrowed(dtype)).collect();
        stored.push(Stored::zeros("gpt_neox.layers.0.attention.bias", "BOOL", &[1, 1, 12, 12]));
        stored.push(Stored::zeros("gpt_neox.layers.1.attention.masked_bias", "F32", &[]));
        stored.push(Stored::zeros("gpt_neox.layers.1.attention.rotary_emb.inv_freq", "F32", &[2]));
        write(&folder, &case, &stored);
        let model = Checkpoint::open(folder.path()).unwrap().model().unwrap();
        let error = relative_error(&ours(&model, &ids(&case)), &exact);
        assert!(error > 1e-6 && error < if dtype == "F16" { 3e-3 } else { 3e-2 }, "{dtype}: {error:.1e}");
    }
}

#[test]
fn shards_are_all_there_or_the_model_is_incomplete() {
    let case = case("llama_shared");
    let stored = tensors(&case);
    let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let (first, second) = stored.split_at(9);
    let map = |parts: [&[Stored]; 2]| {
        let pairs = parts
            .into_iter()
            .zip(names)
            .flat_map(|(part, file)| part.iter().map(move |t| (t.name.clone(), json!(file))));
        json!({ "weight_map": pairs.collect::<serde_json::Map<_, _>>() }).to_string()
    };
    let folder = Folder::new("shards");
    folder.write("config.json", case["config"].to_string().as_bytes());
    folder.write(names[0], &safetensors(first));
    folder.write(names[1], &safetensors(second));
    let open = || Checkpoint::open(folder.path());
    assert!(open().unwrap_err().to_string().contains("sharded model is incomplete"));
    folder.write("model.safetensors.index.json", map([first, second]).as_bytes());
    let model = open().unwrap().model().unwrap();
    assert!(relative_error(&ours(&model, &ids(&case)), &outputs(&case)) < 1e-6);
    // A shard that lacks what the index says, one that is not there, one outside the folder.
    folder.write(names[1], &safetensors(&second[1..]));
    let error = open().unwrap_err().to_string();
    assert!(error.contains(&second[0].name) && error.contains(names[1]), "{error}");
    std::fs::remove_file(folder.path().join(names[1])).unwrap();
    let error = open().unwrap_err().to_string();
    assert!(error.contains(names[1]) && error.contains("incomplete"), "{error}");
    let outside = map([first, second]).replace(names[1], "../other.safetensors");
    folder.write("model.safetensors.index.json", outside.as_bytes());
    assert!(open().unwrap_err().to_string().contains("../other.safetensors"));
}

#[test]
fn hostile_safetensors_are_refused_before_anything_is_written() {
    let case = case("llama_shared");
    let good = safetensors(&tensors(&case));
    let mut huge = good.clone();
    huge[..8].copy_from_slice(&10_000_000_000u64.to_le_bytes());
    let edit = |from: &str, to: &str| {
        let length = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
        let text = String::from_utf8(good[8..8 + length].to_vec()).unwrap();
        assert!(text.contains(from), "{from}");
        let text = text.replacen(from, to, 1);
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &good[8 + length..]].concat()
    };
    let largest = usize::MAX.to_string();
    let norm = tensors(&case).into_iter().find(|t| t.name == "model.norm.weight").unwrap();
    let mut nan = tensors(&case);
    nan.iter_mut().find(|t| t.name == norm.name).unwrap().values[3] = f32::NAN;
    for (what, bytes, word) in [
        ("a header of 10 GB", huge, "header of 10000000000 bytes"),
        ("cut short", good[..good.len() - 9].to_vec(), "cut short or damaged"),
        ("empty", vec![], "too short"),
        (
            "a pointer",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n".to_vec(),
            "Git LFS pointer",
        ),
        ("an unknown type", edit("\"F32\"", "\"F8_E4M3\""), "F8_E4M3"),
        ("huge dimensions", edit("[40,16]", &format!("[{largest},{largest}]")), "no tensor has dimensions"),
        ("another shape", edit("[40,16]", "[16,40]"), "[16, 40]"),
        ("two in one place", edit("[2560,", "[0,"), "model.layers"),
        ("not JSON", edit("{", "["), "its header"),
        ("not finite", safetensors(&nan), "model.norm.weight"),
    ] {
        let folder = Folder::new("hostile");
        folder.write("config.json", case["config"].to_string().as_bytes());
        folder.write("model.safetensors", &bytes);
        let out = folder.path().join("out");
        let error = Checkpoint::open(folder.path()).and_then(|c| c.save(&out)).unwrap_err().to_string();
        assert!(error.contains(word) && !error.contains('\n'), "{what}: {error}");
        assert!(!out.exists(), "{what}: something was written");
    }
}

#[test]
fn descriptions_that_this_program_cannot_follow_are_refused_by_field() {
    let case = case("llama_shared");
    for (field, value) in [
        ("model_type", json!("qwen2")),
        ("hidden_size", json!(u64::MAX)),
        ("hidden_size", json!(-3)),
        ("num_attention_heads", json!(0)),
        ("num_attention_heads", json!(5)),
        ("num_hidden_layers", json!(1 << 20)),
        ("num_key_value_heads", json!(3)),
        ("hidden_act", json!("gelu_new")),
        ("rope_scaling", json!({"type": "yarn", "factor": 4.0})),
        ("rms_norm_eps", json!("small")),
        ("rms_norm_eps", json!(2.0)),
    ] {
        let folder = Folder::new("config");
        let mut case = case.clone();
        case["config"][field] = value.clone();
        write(&folder, &case, &tensors(&case));
        let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
        let known = ["kv_heads", "norm_eps", "layers"];
        let named = error.contains(field) || known.iter().any(|k| field.contains(k) && error.contains(k));
        assert!(
            named || (field == "num_key_value_heads" && error.contains("kv_heads")),
            "{field} = {value}: {error}"
        );
    }
    let folder = Folder::new("config");
    assert!(Checkpoint::open(folder.path()).unwrap_err().to_string().contains("no `config.json`"));
    folder.write("config.json", b"\xef\xbb\xbf{");
    assert!(matches!(Checkpoint::open(folder.path()), Err(Error::Malformed { .. })));
    folder.write("config.json", case["config"].to_string().as_bytes());
    folder.write("pytorch_model.bin", b"PK");
    assert!(Checkpoint::open(folder.path()).unwrap_err().to_string().contains("pickle"));
    assert!(matches!(Checkpoint::open(Path::new("/no/such/folder")), Err(Error::File(_))));
}

#[test]
fn hostile_gguf_is_refused() {
    let (fields, stored) = as_gguf(&case("llama_shared"));
    let good = gguf(&fields, &stored);
    let folder = Folder::new("gguf-bad");
    let open = |bytes: &[u8]| {
        folder.write("model.gguf", bytes);
        Checkpoint::open(&folder.path().join("model.gguf")).map(|c| c.model().map(drop)).and_then(|r| r)
    };
    open(&good).unwrap();
    for end in (4..good.len()).step_by(97) {
        let error = open(&good[..end]).unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
    }
    let with = |field: &str, value: Value| {
        let mut fields = fields.clone();
        fields[field] = value;
        open(&gguf(&fields, &stored)).unwrap_err().to_string()
    };
    assert!(with("general.architecture", json!("mamba")).contains("mamba"));
    assert!(with("llama.rope.scaling.type", json!("yarn")).contains("yarn"));
    assert!(with("llama.rope.dimension_count", json!(2)).contains("dimension_count"));
    assert!(with("tokenizer.ggml.model", json!("t5")).contains("t5"));
    assert!(with("llama.embedding_length", json!(1u64 << 40)).contains("embedding_length"));
    let mut bad = good.clone();
    bad[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(open(&bad).is_err(), "2^64 tensors");
    let mut bad = good.clone();
    bad[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(open(&bad).is_err(), "2^64 fields");
    bad = good.clone();
    bad[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(open(&bad).unwrap_err().to_string().contains("claims a text"), "a name of 2^64 bytes");
}

#[test]
fn a_model_that_is_there_is_not_replaced() {
    let case = case("llama_shared");
    let folder = Folder::new("twice");
    write(&folder, &case, &tensors(&case));
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let out = folder.path().join("out");
    checkpoint.save(&out).unwrap();
    let before = std::fs::read(out.join("model.json")).unwrap();
    assert!(matches!(checkpoint.save(&out), Err(Error::File(_))));
    assert_eq!(std::fs::read(out.join("model.json")).unwrap(), before);
}

/// Where base weights are, if anywhere: the folder that `CIPHERLM_BASE` names, or `models/base`.
fn base(place: &str) -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/base");
    let path = std::env::var_os("CIPHERLM_BASE").map_or(here, PathBuf::from).join(place);
    path.exists().then_some(path)
}

/// Public checkpoints against what `peers/import/outputs.py public` kept of PyTorch's outputs:
/// reference and f32 maps alike.
#[test]
fn public_checkpoints_compute_what_pytorch_computes() {
    let all: Vec<Value> = serde_json::from_str(include_str!("data/public.json")).unwrap();
    assert_eq!(all.len(), 3);
    for case in &all {
        let (name, place) = (case["name"].as_str().unwrap(), case["place"].as_str().unwrap());
        let Some(path) = base(place) else {
            println!("{name}: skipped, there is no {place} below CIPHERLM_BASE (see cargo xtask fetch)");
            continue;
        };
        let model = Checkpoint::open(&path).unwrap().model().unwrap();
        let prepared = Prepared::new(&model).unwrap();
        let step = usize::try_from(case["step"].as_u64().unwrap()).unwrap();
        for (kind, mut runner) in [
            ("f64", Runner::new(&model, Mode::Exact).unwrap()),
            ("f32", prepared.runner(Mode::Exact).unwrap()),
        ] {
            let rows: Vec<Vec<f64>> = match model.shape().kind {
                Kind::Decoder => {
                    runner.forward(&ids(case), Positions::All).unwrap().into_iter().step_by(4).collect()
                }
                _ => {
                    let rows = runner.hidden(&ids(case), None).unwrap();
                    rows.chunks_exact(model.shape().d_model).map(<[f64]>::to_vec).collect()
                }
            };
            let kept: Vec<Vec<f64>> =
                rows.into_iter().map(|row| row.into_iter().step_by(step).collect()).collect();
            let error = relative_error(&kept, &outputs(case));
            println!("{name}: {} parameters, {kind}, relative error {error:.1e}", model.shape().parameters());
            assert!(error < 1e-4, "{name}, {kind}: {error:.1e}");
        }
    }
}

/// What laying maps out in f32 costs, on every family.
#[test]
fn maps_in_f32_give_the_reference_to_seven_digits_whole_or_token_by_token() {
    for case in &cases() {
        let folder = Folder::new("prepared");
        write(&folder, case, &tensors(case));
        let model = Checkpoint::open(folder.path()).unwrap().model().unwrap();
        let prepared = Prepared::new(&model).unwrap();
        let mut runner = prepared.runner(Mode::Exact).unwrap();
        let found = outputs_of(&mut runner, &model, &ids(case));
        let error = relative_error(&found, &ours(&model, &ids(case)));
        assert!(error > 0.0 && error < 2e-6, "{}: {error:.1e}", case["name"]);
        if model.shape().kind == Kind::Decoder {
            let whole = runner.forward(&ids(case), Positions::All).unwrap();
            runner.reset();
            let steps: Vec<Vec<f64>> = ids(case)
                .iter()
                .flat_map(|&token| runner.append(&[token], Positions::All).unwrap())
                .collect();
            assert_eq!(whole, steps, "{}", case["name"]);
        }
    }
}

#[test]
fn the_formula_of_the_script_is_repeated_exactly() {
    let values = fill("model.norm.weight", &[3]);
    assert!(values.iter().all(|v| (0.8..1.2).contains(v)) && values[0] != values[1]);
    assert!(fill("a.bias", &[3]).iter().all(|v| v.abs() <= 0.1));
}
