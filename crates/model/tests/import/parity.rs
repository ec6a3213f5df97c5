//! Outputs equal those of PyTorch, from whatever form of file.

use std::path::{Path, PathBuf};

use cipherlm_model::import::Checkpoint;
use cipherlm_model::{Kind, Mode, Model, Positions, Prepared, Runner};
use cipherlm_testing::Scratch;
use serde_json::Value;

use crate::cases::{as_gguf, case, cases, ids, ours, outputs, outputs_of, relative_error, tensors, write};
use crate::common::{Stored, fill, gguf};

#[test]
fn every_family_computes_what_pytorch_computes() {
    let all = cases();
    assert_eq!(all.len(), 6);
    for case in &all {
        let folder = Scratch::new("parity");
        write(&folder, case, &tensors(case));
        let checkpoint = Checkpoint::open(&folder).unwrap();
        checkpoint.save(&folder.join("out")).unwrap();
        let model = Model::load(&folder.join("out")).unwrap();
        assert_eq!(model.weights(), checkpoint.model().unwrap().weights());
        let error = relative_error(&ours(&model, &ids(case)), &outputs(case));
        assert!(error < 1e-6, "{}: {error:.1e}", case["name"]);
    }
}

#[test]
fn shared_key_heads_are_kept_and_can_be_repeated() {
    for name in ["llama_shared", "llama_biased"] {
        let case = case(name);
        let folder = Scratch::new("shared");
        write(&folder, &case, &tensors(&case));
        let model = Checkpoint::open(&folder).unwrap().model().unwrap();
        let shape = model.shape();
        assert!(shape.key_heads() < shape.heads, "{name}");
        let repeated = model.with_repeated_heads().unwrap();
        assert_eq!(repeated.shape().key_heads(), shape.heads);
        let (a, b) = (ours(&model, &ids(&case)), ours(&repeated, &ids(&case)));
        assert!(relative_error(&a, &b) < 1e-14, "{name}");
    }
}

#[test]
fn gguf_gives_the_weights_of_the_folder_it_was_made_from() {
    let case = case("llama_shared");
    let folder = Scratch::new("gguf");
    write(&folder, &case, &tensors(&case));
    let (fields, stored) = as_gguf(&case);
    folder.write("model.gguf", &gguf(&fields, &stored));
    let from_folder = Checkpoint::open(&folder).unwrap().model().unwrap();
    let checkpoint = Checkpoint::open(&folder.join("model.gguf")).unwrap();
    let from_file = checkpoint.model().unwrap();
    assert_eq!(from_file.shape(), from_folder.shape());
    assert_eq!(from_file.weights(), from_folder.weights());
    assert!(relative_error(&ours(&from_file, &ids(&case)), &outputs(&case)) < 1e-6);
    let tokenizer = checkpoint.tokenizer().unwrap();
    assert_eq!((tokenizer.begin(), tokenizer.ends(), tokenizer.vocab()), (Some(1), &[2][..], 40));
}

#[test]
fn half_precision_and_neox_buffers_are_read() {
    let case = case("neox_parallel");
    let exact = outputs(&case);
    for dtype in ["F16", "BF16"] {
        let folder = Scratch::new("half");
        let mut stored: Vec<Stored> = tensors(&case).into_iter().map(|t| t.narrowed(dtype)).collect();
        stored.push(Stored::zeros("gpt_neox.layers.0.attention.bias", "BOOL", &[1, 1, 12, 12]));
        stored.push(Stored::zeros("gpt_neox.layers.1.attention.masked_bias", "F32", &[]));
        stored.push(Stored::zeros("gpt_neox.layers.1.attention.rotary_emb.inv_freq", "F32", &[2]));
        write(&folder, &case, &stored);
        let model = Checkpoint::open(&folder).unwrap().model().unwrap();
        let error = relative_error(&ours(&model, &ids(&case)), &exact);
        assert!(error > 1e-6 && error < if dtype == "F16" { 3e-3 } else { 3e-2 }, "{dtype}: {error:.1e}");
    }
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
    let all: Vec<Value> = serde_json::from_str(include_str!("../data/public.json")).unwrap();
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
        let folder = Scratch::new("prepared");
        write(&folder, case, &tensors(case));
        let model = Checkpoint::open(&folder).unwrap().model().unwrap();
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
