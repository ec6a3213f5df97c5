//! A whole run from its file: stages, resuming, and files that are not what they should be.

use std::path::Path;

use crate::common::{Folder, decoder};
use cipherlm_model::{Attention, Eps, Freezing, Shape};
use cipherlm_train::arch::{Arch, shifted};
use cipherlm_train::checkpoint::{read_weights, write_weights};
use cipherlm_train::prepared::Prepared;
use cipherlm_train::recipe::Run;
use cipherlm_train::{Error, Result};
use serde_json::{Value, json};

fn stage(name: &str, steps: usize, more: Value) -> Value {
    let train =
        json!({ "seed": 1, "batch": 4, "steps": steps, "schedule": { "peak": 3e-3 }, "evaluate_windows": 8 });
    let mut stage = json!({ "name": name, "train": train });
    if let (Some(stage), Some(more)) = (stage.as_object_mut(), more.as_object()) {
        stage.extend(more.clone());
    }
    stage
}

fn shape(attention: Attention) -> Shape {
    Shape { ffn: 32, ..decoder(280, 16, 1, 16, 2, attention) }
}

fn description(folder: &Path) -> Value {
    json!({
        "name": "test",
        "data": { "generated": { "seed": 1, "stories": 200 } },
        "tokenizer": { "train": { "vocab": 280 } },
        "model": { "shape": shape(Attention::Softmax) },
        "stages": [
            stage("learn", 40, json!({})),
            // Continual training: the softmax weights under the new operator, with the softmax
            // model as teacher.
            stage("convert", 20, json!({
                "attention": {
                    "kind": "power_softmax", "p": 4, "c": 3.0,
                    "eps": { "kind": "absolute", "value": 8.1 }
                },
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

fn run(description: Value) -> Run {
    serde_json::from_value(description).unwrap()
}

/// A run from its description to the end of its stages.
fn train(description: Value, resume: bool) -> Result<(Arch, Vec<f32>)> {
    let prepared = Prepared::new(run(description), resume)?;
    let (arch, params) = prepared.train(resume, |_| {})?;
    Ok((arch, params.into_iter().flat_map(|p| p.data).collect()))
}

#[test]
fn all_stages_run_and_resume() {
    let folder = Folder::new("stages");
    let prepared = Prepared::new(run(description(&folder.0)), false).unwrap();
    let mut stages = Vec::new();
    let (arch, params) = prepared
        .train(false, |event| {
            let cipherlm_train::journal::Event::Step(p) = event else { return };
            stages.push(p.run.clone());
            assert!(p.stats.loss.is_finite());
        })
        .unwrap();
    stages.dedup();
    assert_eq!(stages, ["learn", "convert", "frozen", "polynomial"]);
    assert!(matches!(arch.shape.attention, Attention::PowerSoftmax { eps: Eps::Frozen, p: 4, .. }));
    // A run that is complete has nothing left to do and ends with the same weights.
    assert_eq!(prepared.train(true, |event| panic!("{event:?}")).unwrap(), (arch, params));
    // It is not begun again.
    assert!(matches!(Prepared::new(run(description(&folder.0)), false), Err(Error::Occupied { .. })));
    assert!(matches!(prepared.train(false, |_| {}), Err(Error::Occupied { .. })));
}

/// What was calibrated or trained by other settings is not taken for that of a changed recipe.
#[test]
fn a_recipe_that_changed_does_not_go_on_from_what_it_was() {
    let folder = Folder::new("changed");
    let lean = json!({ "quadratic": true, "windows": 16 });
    let begin = || {
        let mut whole = description(&folder.0);
        let cut = json!([{ "tensor": "layers.0.ffn.down.weight", "channels": [1], "factor": 0.5 }]);
        let freeze = json!({ "spread": 96.0, "windows": 32 });
        let first = json!({ "attention": shifted(4, 3.0), "attenuate": cut });
        let second = json!({ "lean": lean, "freeze": freeze });
        let last = stage("fitted", 2, json!({ "polynomial": true }));
        whole["stages"] = json!([stage("learn", 4, first), stage("ready", 4, second), last]);
        whole
    };
    let whole = begin();
    let trained = train(whole.clone(), false).unwrap();
    assert!(train(whole.clone(), true).unwrap() == trained);
    let refused = |change: &dyn Fn(&mut Value), file: &str, words: &str| {
        let mut changed = begin();
        change(&mut changed);
        let error = train(changed, true).unwrap_err();
        assert!(matches!(error, Error::Checkpoint { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains(file) && error.contains(words), "{error}");
    };
    let factor = |d: &mut Value| d["stages"][0]["attenuate"][0]["factor"] = json!(0.25);
    refused(&factor, "learn/last.safetensors", "the weights that the stage begins with");
    refused(&|d| d["stages"][1]["lean"]["windows"] = json!(24), "lean.safetensors", "windows 16, now 24");
    refused(&|d| d["stages"][1]["freeze"]["spread"] = json!(48.0), "frozen.safetensors", "96.0, now 48.0");
    let degree = |d: &mut Value| d["export"]["fit"]["max_degree"] = json!(511);
    refused(&degree, "fitted/last.safetensors", "\"max_degree\":255");
    // A damaged one is made again, the same.
    for file in ["lean", "frozen"] {
        let path = folder.0.join(format!("ready/{file}.safetensors"));
        std::fs::write(&path, b"damaged").unwrap();
        assert!(train(whole.clone(), true).unwrap() == trained);
        assert!(path.exists() && path.with_extension("damaged").exists());
    }
}

#[test]
fn a_teacher_can_be_the_model_that_the_run_starts_from() {
    let folder = Folder::new("teachers");
    let mut first = description(&folder.0.join("a"));
    first["stages"].as_array_mut().unwrap().truncate(1);
    train(first, false).unwrap();
    let start = folder.0.join("a/learn/last.safetensors");
    let begin = |name: &str, teacher: Value| {
        let mut next = description(&folder.0.join(name));
        next["start"] = json!(start);
        next["stages"] = json!([stage(
            "convert",
            8,
            json!({
                "attention": shifted(4, 3.0),
                "distil": { "teacher": teacher, "how": { "weight": 1.0 } }
            })
        )]);
        train(next, false).unwrap()
    };
    // The model as it enters the first stage is the start, and so is the file.
    let before = begin("b", json!("before"));
    assert!(before == begin("c", json!("start")) && before == begin("d", json!({ "file": start })));
}

#[test]
fn unusable_files_are_named() {
    let folder = Folder::new("bad");
    let mut number = 0;
    let mut prepare = |change: &dyn Fn(&mut Value)| {
        number += 1;
        let mut description = description(&folder.0.join(number.to_string()));
        change(&mut description);
        train(description, false).unwrap_err()
    };
    let (empty, text) =
        (folder.file("empty.txt", b""), folder.file("text.txt", "one two three four ".repeat(50)));
    let files = |train: &Path, held_out: &Path| json!({ "files": { "train": train, "held_out": held_out } });
    for (train, held_out) in [(&empty, &text), (&text, &empty)] {
        let error = prepare(&|d| d["data"] = files(train, held_out)).to_string();
        assert!(error.contains("empty.txt") && error.contains("is empty"), "{error}");
    }
    let missing = folder.0.join("missing.txt");
    let error = prepare(&|d| d["data"] = files(&missing, &text)).to_string();
    assert!(error.contains("missing.txt"), "{error}");
    let binary = folder.file("binary.txt", [0xff, 0xfe, 0x80]);
    assert!(matches!(prepare(&|d| d["data"] = files(&binary, &text)), Error::Corrupt { path, .. }
            if path == binary));

    let garbage = folder.file("start.safetensors", b"not a checkpoint");
    let error = prepare(&|d| d["start"] = json!(garbage));
    assert!(matches!(&error, Error::Corrupt { path, .. } if *path == garbage), "{error}");
    let teacher = json!({ "teacher": { "file": garbage } });
    assert!(matches!(prepare(&|d| d["stages"][1]["distil"] = teacher.clone()), Error::Corrupt { .. }));
    let unknown = folder.file("run.json", br#"{ "name": "x", "steps": 3 }"#);
    assert!(matches!(Run::load(&unknown), Err(Error::Corrupt { .. })));
}

#[test]
fn a_vocabulary_that_is_not_the_tokenizer_s_is_refused_before_the_first_step() {
    let folder = Folder::new("vocab");
    for vocab in [270, 300] {
        let mut description = description(&folder.0);
        description["model"]["shape"]["vocab"] = json!(vocab);
        let error = Prepared::new(run(description), false).err().unwrap();
        let message = error.to_string();
        assert!(message.contains(&vocab.to_string()) && message.contains("280"), "{message}");
    }
    // A published model may have a padded vocabulary: its rows beyond the tokenizer stay as they
    // are.
    let arch = Arch::new(Shape { vocab: 300, ..shape(Attention::Softmax) });
    let device = cipherlm_train::Device::flex();
    let model =
        cipherlm_train::transformer::Transformer::new(&arch, 1, &device, burn::tensor::DType::F32).unwrap();
    let start = folder.0.join("padded.safetensors");
    write_weights(&start, (&arch, &cipherlm_train::params::pull(&model)), &[]).unwrap();
    let mut description = description(&folder.0.join("padded"));
    description["start"] = json!(start);
    description.as_object_mut().unwrap().remove("model");
    assert_eq!(Prepared::new(run(description), false).unwrap().arch.shape.vocab, 300);
}

#[test]
fn a_start_of_another_shape_is_refused_with_both() {
    let folder = Folder::new("start");
    let mut narrow = description(&folder.0.join("narrow"));
    narrow["stages"].as_array_mut().unwrap().truncate(1);
    train(narrow, false).unwrap();
    let start = folder.0.join("narrow/learn/last.safetensors");
    for (field, value, both) in [
        ("ffn", json!(48), "ffn 32, now 48"),
        ("norm_eps", json!(1e-2), "norm_eps 0.00001, now 0.01"),
        ("gated", json!(true), "gated false, now true"),
    ] {
        let mut other = description(&folder.0.join("other"));
        other["start"] = json!(start);
        other["model"]["shape"][field] = value;
        let error = Prepared::new(run(other), false).err().unwrap().to_string();
        assert!(error.contains(both) && error.contains("last.safetensors"), "{error}");
    }
    // Another operator is what a start is for.
    let mut other = description(&folder.0.join("power"));
    other["start"] = json!(start);
    other["model"]["shape"]["attention"] = json!(shifted(4, 3.0));
    let prepared = Prepared::new(run(other), false).unwrap();
    assert_eq!(prepared.arch.shape.attention, shifted(4, 3.0));
    assert_eq!(prepared.started_from().1, read_weights(&start).unwrap().1);
}

#[test]
fn a_tokenizer_of_another_configuration_is_made_again_or_refused() {
    let folder = Folder::new("tokenizer");
    let text = |words: &str| words.repeat(400);
    let (a, b) = (
        folder.file("a.txt", text("one two three four five six ")),
        folder.file("b.txt", text("sieben acht neun zehn elf ")),
    );
    let describe = |file: &Path, vocab: usize| {
        let mut d = description(&folder.0.join("run"));
        d["data"] = json!({ "files": { "train": file, "held_out": file } });
        d["tokenizer"]["train"]["vocab"] = json!(vocab);
        d["model"]["shape"]["vocab"] = json!(vocab);
        d["stages"].as_array_mut().unwrap().truncate(1);
        d
    };
    let prepare = |file: &Path, vocab: usize, resume| Prepared::new(run(describe(file, vocab)), resume);
    let first = prepare(&a, 264, false).unwrap().tokenizer;
    let encoded = |tokenizer: &cipherlm_model::Tokenizer, text| tokenizer.encode(text).unwrap();
    assert_eq!(encoded(&prepare(&a, 264, false).unwrap().tokenizer, "one two"), encoded(&first, "one two"));
    // Before anything is learned, a new one takes the place of the old one.
    assert_eq!(prepare(&a, 262, false).unwrap().tokenizer.vocab(), 262);
    let second = prepare(&b, 264, false).unwrap().tokenizer;
    assert!(encoded(&second, "sieben").len() < encoded(&first, "sieben").len());
    train(describe(&b, 264), false).unwrap();
    for (file, vocab, words) in [(&a, 264, "text"), (&b, 262, "vocab 264, now 262")] {
        let error = prepare(file, vocab, true).err().unwrap();
        assert!(
            matches!(&error, Error::Checkpoint { path, .. } if path.ends_with("tokenizer.json")),
            "{error}"
        );
        assert!(error.to_string().contains(words), "{error}");
    }
    assert!(train(describe(&b, 264), true).is_ok());
}

#[test]
fn files_of_another_system_make_the_same_run() {
    let folder = Folder::new("windows");
    let story = "One day, Anna was in the garden.\nShe had a red ball.\n".repeat(60);
    let plain = folder.file("plain.txt", &story);
    let windows = folder.file("windows.txt", format!("\u{feff}{}", story.replace('\n', "\r\n")));
    let describe = |name: &str, file: &Path| {
        let mut d = description(&folder.0.join(name));
        d["data"] = json!({ "files": { "train": file, "held_out": file } });
        d["stages"].as_array_mut().unwrap().truncate(1);
        d
    };
    assert!(train(describe("a", &plain), false).unwrap() == train(describe("b", &windows), false).unwrap());
    let marked = folder.file("run.json", format!("\u{feff}{}", describe("c", &plain)).replace('\n', "\r\n"));
    assert_eq!(Run::load(&marked).unwrap(), run(describe("c", &plain)));
    let sixteen: Vec<u8> =
        [0xff, 0xfe].into_iter().chain("{}".encode_utf16().flat_map(u16::to_le_bytes)).collect();
    let error = Run::load(&folder.file("sixteen.json", sixteen)).unwrap_err().to_string();
    assert!(error.contains("UTF-16") && error.contains("sixteen.json"), "{error}");
}

/// Where the next test says which run file it is about.
const KILLED: &str = "CIPHERLM_TEST_RUN";

#[test]
#[ignore = "the process that the next test kills"]
fn a_run_in_a_process_of_its_own() {
    let config = std::env::var_os(KILLED).unwrap();
    let prepared = Prepared::new(Run::load(Path::new(&config)).unwrap(), true).unwrap();
    prepared.train(true, |_| {}).unwrap();
}

/// Kills a process at random moments, with checkpoints at every step, and lets it go on.
#[test]
fn a_run_that_is_killed_again_and_again_ends_like_one_that_is_not() {
    let folder = Folder::new("kill");
    let describe = |name: &str| {
        let mut d = description(&folder.0.join(name));
        for stage in d["stages"].as_array_mut().unwrap() {
            stage["train"]["steps"] = json!(5 * stage["train"]["steps"].as_u64().unwrap());
            stage["train"]["checkpoint_every"] = json!(1);
            stage["train"]["evaluate_every"] = json!(4);
            stage["train"]["log_every"] = json!(1);
        }
        folder.file(&format!("{name}.json"), d.to_string())
    };
    let program = |config: &Path| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "recipe::a_run_in_a_process_of_its_own"]).env(KILLED, config);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
        command
    };
    let start = std::time::Instant::now();
    let whole = program(&describe("whole")).output().unwrap();
    let duration = start.elapsed();
    assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stderr));
    let config = describe("killed");
    let mut kills = 0;
    for attempt in 0u32.. {
        let mut child = program(&config).spawn().unwrap();
        // Shares of the time of the whole run, growing, so that it ends on a machine of any speed.
        let share = 0.12 + 0.01 * f64::from(5 * attempt % 8) + 0.03 * f64::from(attempt);
        std::thread::sleep(duration.mul_f64(share));
        match child.try_wait().unwrap() {
            Some(status) => {
                let output = child.wait_with_output().unwrap();
                assert!(status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                break;
            }
            None => {
                child.kill().unwrap();
                child.wait().unwrap();
                kills += 1;
            }
        }
    }
    assert!(kills >= 3, "killed {kills} times only");
    for stage in ["learn", "convert", "frozen", "polynomial"] {
        let read =
            |name: &str| read_weights(&folder.0.join(name).join(stage).join("last.safetensors")).unwrap();
        assert!(read("whole") == read("killed"), "stage {stage}");
    }
    let left = std::fs::read_dir(folder.0.join("killed/learn")).unwrap().count();
    let expected = std::fs::read_dir(folder.0.join("whole/learn")).unwrap().count();
    assert_eq!(left, expected, "files were left behind");
}

/// What a difference keeps of a matrix gives rows of other means than the matrix, and the rows
/// belong to their epsilons.
#[test]
fn epsilons_are_raised_by_what_a_difference_makes_of_the_rows() {
    let folder = Folder::new("raised");
    let mut first = description(&folder.0.join("a"));
    first["stages"].as_array_mut().unwrap().truncate(1);
    train(first, false).unwrap();
    let raise = json!({ "spread": 8.0, "windows": 32, "reach": 2.0 });
    let finish = |name: &str, raise: Option<&Value>| {
        let mut next = description(&folder.0.join(name));
        next["start"] = json!(folder.0.join("a/learn/last.safetensors"));
        let freeze = json!({ "attention": shifted(4, 3.0), "freeze": { "spread": 8.0, "windows": 8 } });
        next["stages"] = json!([stage("convert", 30, freeze)]);
        next["difference"] = json!({ "rank": 1, "folder": "base", "fetch": "nothing" });
        next["export"]["raise"] = json!(raise);
        let prepared = Prepared::new(run(next), false).unwrap();
        let trained = prepared.train(false, |_| {}).unwrap();
        let (applied, report) = prepared.write_difference(trained, &folder.0.join(name)).unwrap();
        assert!(report.unwrap().lost > 0.1, "the difference keeps everything");
        let model = cipherlm_train::export::export("m", &applied.0, &applied.1).unwrap();
        let windows = prepared.train.windows(32, 16).unwrap();
        let windows: Vec<Vec<u32>> = windows.iter().map(|w| w[..16].to_vec()).collect();
        let how = Freezing { ratio: 8.0, reach: 2.0, raise: true };
        let again = cipherlm_model::freeze_eps(&model, &windows, how).unwrap();
        let [own, again] =
            [&model, &again].map(|m| m.weights().values("layers.0.attn.eps").unwrap().to_vec());
        own.iter().zip(&again).map(|(own, again)| again / own).fold(1.0, f64::max)
    };
    // What raises them again finds little: epsilons do not change the means of their own layer.
    let [left, kept] = [finish("b", None), finish("c", Some(&raise))];
    assert!(left > 1.01 && kept < 1.0001, "{left} without, {kept} with");
}

#[test]
fn a_run_behind_a_public_prefix_ends_in_a_model_behind_it() {
    let folder = Folder::new("public");
    let mut first = description(&folder.0.join("a"));
    first["stages"].as_array_mut().unwrap().truncate(1);
    train(first, false).unwrap();
    let describe = |name: &str, context: usize, text: &str| {
        let mut next = description(&folder.0.join(name));
        next.as_object_mut().unwrap().remove("model");
        next["start"] = json!(folder.0.join("a/learn/last.safetensors"));
        next["context"] = json!(context);
        next["public_prefix"] = json!(text);
        let local = json!({
            "seed": 1, "windows": 8, "batch": 4, "steps": 5, "schedule": { "peak": 1e-3 }
        });
        let teacher = json!({ "teacher": "start", "how": { "weight": 0.8, "hidden": 0.1 } });
        let attention = shifted(4, 3.0);
        next["stages"] = json!([
            stage("convert", 5, json!({ "attention": attention, "local": local, "distil": teacher })),
            stage(
                "frozen",
                5,
                json!({
                    "freeze": { "spread": 96.0, "windows": 32 }, "polynomial": true, "distil": teacher
                })
            ),
        ]);
        run(next)
    };
    let prepared = Prepared::new(describe("b", 14, "Once upon"), false).unwrap();
    let prefix = prepared.tokenizer.encode("Once upon").unwrap();
    assert!(prefix.len() > 1 && prepared.arch.prefix == prefix);
    assert_eq!((prepared.arch.shape.context, prepared.arch.room()), (14, 14 - prefix.len()));
    let trained = prepared.train(false, |_| {}).unwrap();
    assert_eq!(trained.0.prefix, prefix);
    let model = cipherlm_train::export::export("m", &trained.0, &trained.1).unwrap();
    assert_eq!((model.spec().prefix.as_slice(), model.shape().context), (&prefix[..], 14));
    assert_eq!(prepared.train(true, |event| panic!("{event:?}")).unwrap(), trained);

    for (context, text, reason) in [(17, "Once", "from 1 to the 16"), (14, "", "public_prefix")] {
        let error = Prepared::new(describe("c", context, text), false).err().unwrap().to_string();
        assert!(error.contains(reason), "{error}");
    }
    let mut alone = description(&folder.0.join("c"));
    alone["context"] = json!(14);
    assert!(Prepared::new(run(alone), false).err().unwrap().to_string().contains("without `start`"));
    let learned = Arch::new(Shape { positions: true, ..shape(Attention::Softmax) });
    let device = cipherlm_train::Device::flex();
    let model = cipherlm_train::transformer::Transformer::new(&learned, 1, &device, burn::tensor::DType::F32);
    let start = folder.file("learned.safetensors", b"");
    write_weights(&start, (&learned, &cipherlm_train::params::pull(&model.unwrap())), &[]).unwrap();
    let mut rows = describe("d", 14, "Once");
    rows.start = Some(start);
    assert!(Prepared::new(rows, false).err().unwrap().to_string().contains("each position"));
}
