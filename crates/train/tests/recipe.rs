//! A whole run from its file: stages, resuming, and files that are not what they should be.

use std::path::{Path, PathBuf};

use cipherlm_train::Error;
use cipherlm_train::config::{Attention, Epsilon, Power};
use cipherlm_train::recipe::Run;
use serde_json::{Value, json};

fn stage(name: &str, steps: usize, more: Value) -> Value {
    let train = json!({ "seed": 1, "batch": 4, "steps": steps, "schedule": { "peak": 3e-3 }, "evaluate_windows": 8 });
    let mut stage = json!({ "name": name, "train": train });
    if let (Some(stage), Some(more)) = (stage.as_object_mut(), more.as_object()) {
        stage.extend(more.clone());
    }
    stage
}

fn description(folder: &Path) -> Value {
    json!({
        "name": "test",
        "data": { "generated": { "seed": 1, "stories": 200 } },
        "tokenizer": { "train": { "vocab": 280 } },
        "model": {
            "vocab": 280, "context": 16, "layers": 1, "width": 16, "heads": 2, "feed_forward": 32, "rotary": 8,
            "attention": "softmax"
        },
        "stages": [
            stage("learn", 40, json!({})),
            // Continual training: the softmax weights under the new operator, with the softmax model as teacher.
            stage("convert", 20, json!({
                "attention": { "power": { "power": 4, "shift": 3.0, "epsilon": { "absolute": 8.1 } } },
                "distil": { "how": { "weight": 0.5, "temperature": 2.0 } }
            })),
            stage("frozen", 5, json!({ "freeze": { "spread": 96.0, "windows": 32 } })),
            stage("polynomial", 5, json!({ "polynomial": true }))
        ],
        "folder": folder,
        "export": {
            "calibration_windows": 32,
            "fit": { "reciprocal": 0.02, "inv_sqrt": 0.02, "activation": 0.02, "max_degree": 255 }
        }
    })
}

fn folder(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("cipherlm-recipe-{name}-{}", std::process::id()))
}

fn run(description: Value) -> Run {
    serde_json::from_value(description).unwrap()
}

#[test]
fn all_stages_run_and_resume() {
    let folder = folder("stages");
    let prepared = run(description(&folder)).prepare().unwrap();
    let mut stages = Vec::new();
    let (config, params) = prepared
        .train(false, |p| {
            stages.push(p.run.clone());
            assert!(p.stats.loss.is_finite());
        })
        .unwrap();
    stages.dedup();
    assert_eq!(stages, ["learn", "convert", "frozen", "polynomial"]);
    assert!(matches!(config.attention, Attention::Power(Power { epsilon: Epsilon::Frozen, power: 4, .. })));
    // A run that is complete has nothing left to do and ends with the same weights.
    assert_eq!(prepared.train(true, |p| panic!("step {} again", p.stats.step)).unwrap(), (config, params));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn unusable_files_are_named() {
    let folder = folder("bad");
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, content: &[u8]| {
        std::fs::write(folder.join(name), content).unwrap();
        folder.join(name)
    };
    let prepare = |change: &dyn Fn(&mut Value)| {
        let mut description = description(&folder);
        change(&mut description);
        run(description).prepare().and_then(|prepared| prepared.train(false, |_| {}).map(|_| ()))
    };
    let (empty, text) = (file("empty.txt", b""), file("text.txt", "one two three four ".repeat(50).as_bytes()));
    let files = |train: &Path, held_out: &Path| json!({ "files": { "train": train, "held_out": held_out } });
    for (train, held_out) in [(&empty, &text), (&text, &empty)] {
        let error = prepare(&|d| d["data"] = files(train, held_out)).unwrap_err();
        assert!(matches!(error, Error::CorpusTooShort { tokens: 0, .. } | Error::Export(_)), "{error}");
    }
    let missing = folder.join("missing.txt");
    assert!(
        matches!(prepare(&|d| d["data"] = files(&missing, &text)).unwrap_err(), Error::Io { path, .. } if path == missing)
    );
    let binary = file("binary.txt", &[0xff, 0xfe, 0x80]);
    assert!(matches!(prepare(&|d| d["data"] = files(&binary, &text)).unwrap_err(), Error::Io { .. }));

    // A tokenizer of another model, with more tokens than the model has.
    let error = prepare(&|d| d["model"]["vocab"] = json!(270)).unwrap_err();
    assert!(matches!(error, Error::Config { field: "vocab", .. }), "{error}");

    let garbage = file("start.safetensors", b"not a checkpoint");
    let error = prepare(&|d| d["start"] = json!(garbage)).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { path, .. } if *path == garbage), "{error}");
    let teacher = json!({ "teacher": garbage });
    assert!(matches!(prepare(&|d| d["stages"][1]["distil"] = teacher.clone()).unwrap_err(), Error::Corrupt { .. }));
    let unknown = file("run.json", br#"{ "name": "x", "steps": 3 }"#);
    assert!(matches!(Run::load(&unknown), Err(Error::Corrupt { .. })));
    std::fs::remove_dir_all(&folder).unwrap();
}
