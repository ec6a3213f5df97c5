//! Conversion of a softmax model: layers match, an interrupted conversion goes on, caches are
//! checked, the difference is the model.

use std::path::Path;

use crate::common::{Folder, decoder};
use cipherlm_model::difference::{DIFFERENCE_FILE, Difference, apply, write};
use cipherlm_model::{Attention, Model, Shape};
use cipherlm_train::Error;
use cipherlm_train::arch::{Arch, shifted};
use cipherlm_train::checkpoint::Weighed;
use cipherlm_train::convert::{Local, match_layers};
use cipherlm_train::corpus::Corpus;
use cipherlm_train::export::export;
use cipherlm_train::journal::Event;
use cipherlm_train::optim::Schedule;
use cipherlm_train::prepared::convert;
use cipherlm_train::settings::{Learn, TrainConfig};
use cipherlm_train::trainer::Trainer;
use serde_json::json;

/// Repeated phrases over 20 symbols: attention has something to find.
fn corpus() -> Corpus {
    let mut x = 5u32;
    let mut tokens = Vec::new();
    for _ in 0..400 {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let phrase: Vec<u32> = (0..3 + (x >> 28) % 3).map(|i| (x >> (4 * i)) % 19).collect();
        tokens.extend(phrase.iter().chain(&phrase).copied().chain([19]));
    }
    Corpus::new(tokens, 0)
}

fn teacher(corpus: &Corpus) -> Weighed {
    let arch = Arch::new(decoder(20, 24, 2, 32, 2, Attention::Softmax));
    let settings = TrainConfig::new(1, 16, 150, 4e-3);
    let mut trainer =
        Trainer::new("teacher", arch.clone(), settings, None, &cipherlm_train::Device::flex()).unwrap();
    for _ in 0..150 {
        trainer.step(corpus).unwrap();
    }
    (arch, trainer.params().to_vec())
}

fn local() -> Local {
    let schedule = Schedule { peak: 3e-3, warm_up: 3, floor: 0.05 };
    serde_json::from_value(json!({
        "seed": 1, "windows": 24, "batch": 4, "steps": 40, "schedule": schedule, "checkpoint_every": 7
    }))
    .unwrap()
}

fn run(how: &Local, teacher: &Weighed, corpus: &Corpus, folder: &Path, resume: bool) -> (Weighed, Vec<f64>) {
    let student = convert(teacher, shifted(8, 8.0)).unwrap();
    let mut losses = Vec::new();
    let out = match_layers("s", how, teacher, student, corpus, folder, resume, &mut |event| match event {
        Event::Step(p) => losses.push(p.stats.loss),
        Event::Note(note) => panic!("{note:?}"),
    });
    (out.unwrap(), losses)
}

/// Mean divergence of a model's next-token distributions from the teacher's.
fn distance(teacher: &Weighed, student: &Weighed, corpus: &Corpus) -> f64 {
    use cipherlm_train::loss::divergence;
    use cipherlm_train::probe::Probe;
    use cipherlm_train::transformer::{Transformer, token_tensor};
    let device = cipherlm_train::Device::flex();
    let [wanted, found] = [teacher, student].map(|(arch, params)| {
        let tokens = token_tensor(arch, &corpus.tokens()[..480], 20, &device).unwrap();
        let model = Transformer::with_params(arch, params, &device).unwrap();
        model.forward(tokens, None, &mut Probe::off())
    });
    divergence(wanted, found, 1.0).into_data().iter::<f64>().next().unwrap()
}

#[test]
fn layers_learn_what_the_old_operator_did_and_an_interrupted_stage_goes_on() {
    let (corpus, folder) = (corpus(), Folder::new("local"));
    let teacher = teacher(&corpus);
    let naive = convert(&teacher, shifted(8, 8.0)).unwrap();
    let (whole, losses) = run(&local(), &teacher, &corpus, &folder.0.join("whole"), false);
    assert!(losses[1] < losses[0] && losses[3] < losses[2], "{losses:?}");
    let (before, after) = (distance(&teacher, &naive, &corpus), distance(&teacher, &whole, &corpus));
    assert!(after < 0.5 * before, "{after} after, {before} before");
    for (new, old) in whole.1.iter().zip(&naive.1) {
        let learned = ["attn.q", "attn.k"].iter().any(|part| new.name.contains(part));
        assert_eq!(learned, new.data != old.data, "{}", new.name);
    }

    // Stopped by a panic in every step that is reported, then in the middle of a layer.
    let place = folder.0.join("stopped");
    let student = || convert(&teacher, shifted(8, 8.0)).unwrap();
    for at in [1, 2, 3] {
        let mut seen = 0;
        let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            match_layers("s", &local(), &teacher, student(), &corpus, &place, true, &mut |_| {
                seen += 1;
                if seen == at {
                    panic!("stop");
                }
            })
        }));
        assert!(stopped.is_err());
    }
    assert!(
        run(&local(), &teacher, &corpus, &place, true).0 == whole,
        "the interrupted stage ends otherwise"
    );
    // Finished: nothing is learned again, and without --resume nothing is overwritten.
    let (again, losses) = run(&local(), &teacher, &corpus, &place, true);
    assert!(again == whole && losses.is_empty());
    let error =
        match_layers("s", &local(), &teacher, student(), &corpus, &place, false, &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::Occupied { .. }), "{error}");
    let other = Local { steps: 50, ..local() };
    let error =
        match_layers("s", &other, &teacher, student(), &corpus, &place, true, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("steps 40, now 50"), "{error}");
}

#[test]
fn states_of_another_teacher_or_text_are_made_again() {
    let (corpus, folder) = (corpus(), Folder::new("states"));
    let teacher = teacher(&corpus);
    let states = |name: &str| folder.0.join(name).join("states/layer-0.safetensors");
    let fresh = run(&local(), &teacher, &corpus, &folder.0.join("fresh"), false).0;
    let mut other = teacher.clone();
    other
        .1
        .iter_mut()
        .filter(|p| p.name.contains("attn.v"))
        .flat_map(|p| &mut p.data)
        .for_each(|x| *x *= -1.5);
    run(&local(), &other, &corpus, &folder.0.join("reused"), false);
    // The cache of the other teacher, and one that a crash damaged, under the name that this run
    // looks for.
    for damage in [false, true] {
        let place = folder.0.join(format!("place-{damage}"));
        std::fs::create_dir_all(place.join("states")).unwrap();
        for layer in 0..2 {
            let from = folder.0.join(format!(
                "{}/states/layer-{layer}.safetensors",
                if damage { "fresh" } else { "reused" }
            ));
            let mut bytes = std::fs::read(from).unwrap();
            if damage {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            }
            std::fs::write(place.join(format!("states/layer-{layer}.safetensors")), bytes).unwrap();
        }
        assert!(run(&local(), &teacher, &corpus, &place, false).0 == fresh, "damage {damage}");
        assert_eq!(
            std::fs::read(states(&format!("place-{damage}"))).unwrap().len(),
            std::fs::read(states("fresh")).unwrap().len()
        );
    }
}

#[test]
fn settings_that_cannot_be_are_named() {
    let (corpus, folder) = (corpus(), Folder::new("settings"));
    let arch = Arch::new(decoder(20, 24, 1, 16, 2, Attention::Softmax));
    let model = cipherlm_train::transformer::Transformer::new(
        &arch,
        1,
        &cipherlm_train::Device::flex(),
        burn::tensor::DType::F32,
    );
    let teacher = (arch, cipherlm_train::params::pull(&model.unwrap()));
    let refused = |how: Local| {
        let student = convert(&teacher, shifted(8, 8.0)).unwrap();
        let out = match_layers("s", &how, &teacher, student, &corpus, &folder.0, false, &mut |_| {});
        out.unwrap_err().to_string()
    };
    assert!(refused(Local { steps: 0, ..local() }).contains("local.steps"));
    let learn = Learn { tensors: vec!["ffn.up".into()], ..Learn::default() };
    assert!(refused(Local { learn, ..local() }).contains("ffn.up"));
    let frozen = crate::common::power(8, 8.0, cipherlm_model::Eps::Frozen);
    assert!(convert(&teacher, frozen).unwrap_err().to_string().contains("freeze"));
}

#[test]
fn a_low_rank_stage_ships_as_a_small_difference() {
    let (corpus, folder) = (corpus(), Folder::new("rank"));
    let teacher = teacher(&corpus);
    let learn = Learn { rank: Some(6), ..local().learn };
    let how = Local { learn, ..local() };
    let student = run(&how, &teacher, &corpus, &folder.0.join("stage"), false).0;
    let [base, model] = [&teacher, &student].map(|(arch, params)| export("m", arch, params).unwrap());
    // The size of the queries changes before they learn; that is of full rank, and taken into
    // account here.
    let report = write(
        &base,
        &model,
        &Difference {
            rank: Some(16),
            whole: vec![],
            at_most: 100_000,
            folder: String::new(),
            fetch: String::new(),
        },
        &folder.0,
    )
    .unwrap();
    let shipped: Model = apply(&base, &folder.0.join(DIFFERENCE_FILE)).unwrap();
    let again = cipherlm_train::export::import(&shipped).unwrap();
    assert_eq!(again.0.shape, Shape { attention: shifted(8, 8.0), ..teacher.0.shape.clone() });
    let (trained, kept) = (distance(&teacher, &student, &corpus), distance(&teacher, &again, &corpus));
    assert!(report.lost < 0.5 && kept < 3.0 * trained + 0.02, "{report:?}, {kept} from {trained}");
}
