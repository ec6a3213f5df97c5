//! Bad files are refused by name.

use std::path::Path;

use cipherlm_model::import::Checkpoint;
use cipherlm_model::{Error, Kind, Pool};
use cipherlm_testing::Scratch;
use serde_json::{Value, json};

use crate::cases::{as_gguf, case, ids, ours, outputs, relative_error, tensors, write};
use crate::common::{Stored, gguf, safetensors};

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
    let folder = Scratch::new("llama2c");
    let open = |bytes: &[u8]| {
        folder.write("model.bin", bytes);
        Checkpoint::open(&folder.join("model.bin"))
    };
    // The format fixes the rotary base at 10,000, the case has 5,000: so the weights are compared.
    folder.write("config.json", case["config"].to_string().as_bytes());
    folder.write("model.safetensors", &safetensors(&tensors(&case)));
    let want = Checkpoint::open(&folder).unwrap().model().unwrap();
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
        let folder = Scratch::new("buffers");
        let mut stored = tensors(&case);
        stored.extend(extra.iter().map(|(name, dtype, dims)| Stored::zeros(name, dtype, dims)));
        stored.retain(|t| Some(t.name.as_str()) != without);
        write(&folder, &case, &stored);
        Checkpoint::open(&folder)
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
    let folder = Scratch::new("whole");
    let mut stored = tensors(&case);
    stored[5].dtype = "I64".into();
    write(&folder, &case, &stored);
    let whole = Checkpoint::open(&folder).unwrap_err().to_string();
    assert!(whole.contains(&stored[5].name) && whole.contains("whole numbers"), "{whole}");
}

#[test]
fn a_classifier_needs_its_pooler() {
    let case = case("bert_classifier");
    let folder = Scratch::new("pooler");
    let mut stored = tensors(&case);
    stored.retain(|t| !t.name.contains("pooler"));
    write(&folder, &case, &stored);
    let error = Checkpoint::open(&folder).unwrap_err();
    assert!(error.to_string().contains("pooler.dense.weight"), "{error}");
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
    let folder = Scratch::new("shards");
    folder.write("config.json", case["config"].to_string().as_bytes());
    folder.write(names[0], &safetensors(first));
    folder.write(names[1], &safetensors(second));
    let open = || Checkpoint::open(&folder);
    assert!(open().unwrap_err().to_string().contains("sharded model is incomplete"));
    folder.write("model.safetensors.index.json", map([first, second]).as_bytes());
    let model = open().unwrap().model().unwrap();
    assert!(relative_error(&ours(&model, &ids(&case)), &outputs(&case)) < 1e-6);
    // A shard that lacks what the index says, one that is not there, one outside the folder.
    folder.write(names[1], &safetensors(&second[1..]));
    let error = open().unwrap_err().to_string();
    assert!(error.contains(&second[0].name) && error.contains(names[1]), "{error}");
    std::fs::remove_file(folder.join(names[1])).unwrap();
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
        let folder = Scratch::new("hostile");
        folder.write("config.json", case["config"].to_string().as_bytes());
        folder.write("model.safetensors", &bytes);
        let out = folder.join("out");
        let error = Checkpoint::open(&folder).and_then(|c| c.save(&out)).unwrap_err().to_string();
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
        let folder = Scratch::new("config");
        let mut case = case.clone();
        case["config"][field] = value.clone();
        write(&folder, &case, &tensors(&case));
        let error = Checkpoint::open(&folder).unwrap_err().to_string();
        let known = ["kv_heads", "norm_eps", "layers"];
        let named = error.contains(field) || known.iter().any(|k| field.contains(k) && error.contains(k));
        assert!(
            named || (field == "num_key_value_heads" && error.contains("kv_heads")),
            "{field} = {value}: {error}"
        );
    }
    let folder = Scratch::new("config");
    assert!(Checkpoint::open(&folder).unwrap_err().to_string().contains("no `config.json`"));
    folder.write("config.json", b"\xef\xbb\xbf{");
    assert!(matches!(Checkpoint::open(&folder), Err(Error::Malformed { .. })));
    folder.write("config.json", case["config"].to_string().as_bytes());
    folder.write("pytorch_model.bin", b"PK");
    assert!(Checkpoint::open(&folder).unwrap_err().to_string().contains("pickle"));
    assert!(matches!(Checkpoint::open(Path::new("/no/such/folder")), Err(Error::File(_))));
}

#[test]
fn a_folder_with_one_gguf_file_opens_it_and_with_two_it_is_asked_which() {
    let (fields, stored) = as_gguf(&case("llama_shared"));
    let good = gguf(&fields, &stored);
    let folder = Scratch::new("gguf-folder");
    folder.write("model.gguf", &good);
    folder.write("LICENSE", b"text");
    let [file, of_folder] = [folder.join("model.gguf"), folder.to_path_buf()]
        .map(|path| Checkpoint::open(&path).unwrap().model().unwrap());
    assert_eq!(file.spec().weights_blake3, of_folder.spec().weights_blake3);
    assert_eq!(of_folder.spec().name, "model");
    folder.write("other.gguf", &good);
    let error = Checkpoint::open(&folder).unwrap_err().to_string();
    assert!(error.contains("2 GGUF files"), "{error}");
}

#[test]
fn hostile_gguf_is_refused() {
    let (fields, stored) = as_gguf(&case("llama_shared"));
    let good = gguf(&fields, &stored);
    let folder = Scratch::new("gguf-bad");
    let open = |bytes: &[u8]| {
        folder.write("model.gguf", bytes);
        Checkpoint::open(&folder.join("model.gguf")).map(|c| c.model().map(drop)).and_then(|r| r)
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
    let folder = Scratch::new("twice");
    write(&folder, &case, &tensors(&case));
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let out = folder.join("out");
    checkpoint.save(&out).unwrap();
    let before = std::fs::read(out.join("model.json")).unwrap();
    assert!(matches!(checkpoint.save(&out), Err(Error::File(_))));
    assert_eq!(std::fs::read(out.join("model.json")).unwrap(), before);
}
