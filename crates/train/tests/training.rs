//! The training loop on toy data: it learns, resumes bit for bit, and stops with a reason.

use burn::tensor::Device;
use cipherlm_train::Error;
use cipherlm_train::config::{Attention, Epsilon, Form, ModelConfig, Power};
use cipherlm_train::corpus::Corpus;
use cipherlm_train::probe::Limits;
use cipherlm_train::trainer::{RangeLoss, TrainConfig, Trainer};

fn config(attention: Attention) -> ModelConfig {
    ModelConfig::decoder(13, 16, 1, 32, 2, attention)
}

/// Sums of two digits, `a+b=cc;` over the symbols 0-9 + = ;.
fn sums(count: u32) -> Corpus {
    let mut x = 7u32;
    let mut tokens = Vec::new();
    for _ in 0..count {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (a, b) = ((x >> 8) % 10, (x >> 16) % 10);
        tokens.extend([a, 10, b, 11, (a + b) / 10, (a + b) % 10, 12]);
    }
    Corpus::new(tokens, 0)
}

fn train(steps: usize) -> TrainConfig {
    TrainConfig { evaluate_windows: 16, ..TrainConfig::new(3, 8, steps, 4e-3) }
}

fn steps(trainer: &mut Trainer, corpus: &Corpus, count: usize) {
    for _ in 0..count {
        trainer.step(corpus).unwrap();
    }
}

fn bits(trainer: &Trainer) -> Vec<u32> {
    trainer.params().iter().flat_map(|p| &p.data).map(|x| x.to_bits()).collect()
}

#[test]
fn one_step_changes_every_trained_parameter() {
    for attention in [Attention::Softmax, Attention::Pointwise, Attention::Power(Power::shipped())] {
        let mut trainer = Trainer::new("t", config(attention), train(10), None, &Device::flex()).unwrap();
        let before = trainer.params().to_vec();
        trainer.step(&sums(500)).unwrap();
        for (old, new) in before.iter().zip(trainer.params()) {
            if old.trained {
                // A key bias has no gradient under softmax: it shifts a whole row.
                let exempt = attention == Attention::Softmax && old.name.ends_with("key.bias");
                assert!(exempt || old.data != new.data, "{} did not move under {attention:?}", old.name);
            } else {
                assert_eq!(old.data, new.data, "{} is not trained", old.name);
            }
        }
    }
}

#[test]
fn learns_to_add() {
    let corpus = sums(3000);
    let shape = ModelConfig { layers: 2, ..config(Attention::Power(Power::shipped())) };
    let settings = TrainConfig { batch: 16, ..train(900) };
    let mut trainer = Trainer::new("adder", shape, settings, None, &Device::flex()).unwrap();
    let first = trainer.step(&corpus).unwrap().loss;
    let last = trainer.run(&corpus, &sums(3000), |_| {}).unwrap();
    // Of 7 symbols two are free digits, 2 ln 10 / 7 = 0.658 nats; without adding, the sum's digits cost 0.4 more.
    assert!(first > 2.0 && last < 0.85, "from {first} to {last}");
}

#[test]
fn resuming_continues_bit_for_bit() {
    let corpus = sums(500);
    let range = RangeLoss { weight: 0.1, ramp: 10, limits: Limits::default() };
    let settings = TrainConfig { range: Some(range), accumulation: 2, checkpoint_every: 10, ..train(20) };
    let start = || {
        Trainer::new("t", config(Attention::Power(Power::shipped())), settings.clone(), None, &Device::flex()).unwrap()
    };
    let folder = std::env::temp_dir().join(format!("cipherlm-resume-{}", std::process::id()));
    let mut whole = start();
    steps(&mut whole, &corpus, 20);

    let mut half = start().in_folder(&folder, false).unwrap();
    steps(&mut half, &corpus, 10);
    half.archive().save(&folder.join("last.safetensors")).unwrap();
    drop(half);
    let mut resumed = start().in_folder(&folder, true).unwrap();
    assert_eq!(resumed.step_count(), 10);
    steps(&mut resumed, &corpus, 10);
    assert_eq!(bits(&whole), bits(&resumed));

    // Another configuration must not continue from it.
    let other = TrainConfig { seed: 4, ..settings.clone() };
    let other = Trainer::new("t", config(Attention::Power(Power::shipped())), other, None, &Device::flex()).unwrap();
    assert!(matches!(other.in_folder(&folder, true), Err(Error::Checkpoint { field: "train", .. })));
    // Nor from a truncated file.
    let path = folder.join("last.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(matches!(start().in_folder(&folder, true), Err(Error::Corrupt { .. })));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn divergence_stops_with_the_reason_and_keeps_the_checkpoint() {
    let folder = std::env::temp_dir().join(format!("cipherlm-diverge-{}", std::process::id()));
    let corpus = sums(500);
    let power = Power { power: 12, shift: 0.0, form: Form::Mean, epsilon: Epsilon::Absolute(1e-9) };
    let mut wild = TrainConfig { clip: 1e9, checkpoint_every: 1, ..train(400) };
    wild.schedule.peak = 3.0;
    let trainer = Trainer::new("wild", config(Attention::Power(power)), wild, None, &Device::flex()).unwrap();
    let mut trainer = trainer.in_folder(&folder, false).unwrap();
    let error = trainer.run(&corpus, &sums(100), |_| {}).unwrap_err();
    assert!(matches!(&error, Error::Diverged { reason, .. } if !reason.is_empty()), "{error}");
    let kept = cipherlm_train::checkpoint::Archive::load(&folder.join("last.safetensors")).unwrap();
    assert!(kept.tensors.iter().flat_map(|t| &t.data).all(|x| x.is_finite()));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn range_loss_pulls_scores_in() {
    let corpus = sums(2000);
    let run = |range| {
        let settings = TrainConfig { range, ..train(120) };
        let mut trainer =
            Trainer::new("r", config(Attention::Power(Power::shipped())), settings, None, &Device::flex()).unwrap();
        trainer.run(&corpus, &corpus, |_| {}).unwrap();
        let mut probe = cipherlm_train::probe::Probe::observe();
        cipherlm_train::eval::observe(&trainer.valid(), &corpus, 32, &mut probe).unwrap();
        probe.ranges()[&(cipherlm_train::probe::Site::Scores, 0)].magnitude()
    };
    let limits = Limits { scores: Some(4.0), ..Limits::default() };
    let (free, bound) = (run(None), run(Some(RangeLoss { weight: 0.1, ramp: 1, limits })));
    assert!(bound < 5.0 && bound < free, "{bound} with, {free} without");
}

#[test]
fn bad_input_is_named() {
    let device = Device::flex();
    let start = |t| Trainer::new("t", config(Attention::Softmax), t, None, &device);
    assert!(matches!(start(TrainConfig { batch: 0, ..train(1) }), Err(Error::Config { field: "batch", .. })));
    let mut trainer = start(train(5)).unwrap();
    assert!(matches!(trainer.step(&Corpus::new(vec![], 0)), Err(Error::CorpusTooShort { tokens: 0, .. })));
    let foreign = Corpus::new(vec![99; 100], 0);
    assert!(matches!(trainer.step(&foreign), Err(Error::Vocabulary { token: 99, vocab: 13 })));
    let mut broken = start(train(5)).unwrap().params().to_vec();
    broken[0].data[3] = f32::NAN;
    let mut trainer = Trainer::new("t", config(Attention::Softmax), train(5), Some(broken), &device).unwrap();
    let error = trainer.step(&sums(100)).unwrap_err();
    assert!(matches!(&error, Error::Diverged { step: 1, reason } if reason.contains("NaN")), "{error}");
    let mut short = start(train(5)).unwrap().params().to_vec();
    short.pop();
    assert!(matches!(
        Trainer::new("t", config(Attention::Softmax), train(5), Some(short), &device),
        Err(Error::Shape { .. })
    ));
    let long = cipherlm_train::transformer::token_tensor(&config(Attention::Softmax), &[1; 17], 1, &device);
    assert!(matches!(long, Err(Error::ContextTooLong { tokens: 17, context: 16 })));
}

#[test]
fn the_public_llama_checkpoint_has_its_known_likelihood() {
    let data = std::path::Path::new("../../../shared/data");
    if !data.join("models/stories260K.bin").exists() {
        println!("skipped: no data");
        return;
    }
    let (config, params) = cipherlm_train::import::llama2c(&data.join("models/stories260K.bin")).unwrap();
    assert_eq!((config.layers, config.width, config.heads, config.vocab, config.context), (5, 64, 8, 512, 512));
    let model = cipherlm_train::recipe::decoder(&config, &params, &Device::flex()).unwrap();
    let bytes = std::fs::read(data.join("models/stories260K.tok512.bin")).unwrap();
    let tokenizer = cipherlm_model::Tokenizer::from_llama2c(&bytes).unwrap();
    let text = cipherlm_train::recipe::read_text(&data.join("tinystories/part2.txt.xz")).unwrap();
    let (mut nats, mut count) = (0.0, 0);
    for story in text.split("<|endoftext|>").map(str::trim).filter(|s| !s.is_empty()).take(40) {
        let tokens = tokenizer.encode(story).unwrap();
        let tokens = &tokens[..tokens.len().min(512)];
        let (likelihood, _) = cipherlm_train::eval::log_likelihood(&model, &tokens[..1], &tokens[1..]).unwrap();
        nats -= likelihood;
        count += tokens.len() - 1;
    }
    let mean = nats / f64::from(count as u32);
    assert!((mean - 1.337).abs() < 0.02, "{mean} nats per token");
}

#[test]
fn a_student_with_polynomials_learns_from_its_teacher() {
    use cipherlm_model::{FitOptions, Margins};
    use cipherlm_train::export::export;
    use cipherlm_train::probe::{Polynomials, Probe};
    use cipherlm_train::trainer::{Distil, divergence};
    use cipherlm_train::transformer::token_tensor;
    let corpus = sums(2000);
    let power = Power { epsilon: Epsilon::Absolute(8.1), ..Power::shipped() };
    let shape = config(Attention::Power(power));
    let mut teacher = Trainer::new("teacher", shape.clone(), train(150), None, &Device::flex()).unwrap();
    teacher.run(&corpus, &corpus, |_| {}).unwrap();

    // A student of other weights, its functions replaced by polynomials on its own ranges.
    let settings = TrainConfig { seed: 8, ..train(150) };
    let student = Trainer::new("student", shape.clone(), settings, None, &Device::flex()).unwrap();
    let mut model = export("student", &shape, student.params()).unwrap();
    let windows: Vec<Vec<u32>> = corpus.windows(20, 16).unwrap().iter().map(|w| w[..16].to_vec()).collect();
    let wide = Margins { denominator: 30.0, variance: 20.0, activation: 4.0, magnitude: 4.0 };
    cipherlm_model::certify(&mut model, &windows, &windows, &wide).unwrap();
    let fit = FitOptions { reciprocal: 0.05, inv_sqrt: 0.02, activation: 0.01, max_degree: 255 };
    cipherlm_model::fit(&mut model, &fit).unwrap();
    let polynomials = Polynomials::of(&model);
    let lesson = Distil { weight: 1.0, temperature: 2.0 };
    let mut student =
        student.with_polynomials(Some(polynomials.clone())).with_teacher(teacher.valid(), lesson).unwrap();
    let distance = |student: &Trainer| {
        let tokens = token_tensor(&shape, &corpus.tokens()[..64], 4, &Device::flex()).unwrap();
        let wanted = teacher.valid().forward(tokens.clone(), None, &mut Probe::off());
        let mut probe = Probe::off().with_polynomials(Some(polynomials.clone()));
        let got = student.valid().forward(tokens, None, &mut probe);
        divergence(wanted, got, 1.0).into_data().iter::<f64>().next().unwrap()
    };
    let before = distance(&student);
    steps(&mut student, &corpus, 150);
    let after = distance(&student);
    assert!(before > 0.3 && after < 0.5 * before, "from {before} to {after}");

    let other = ModelConfig { vocab: 14, ..shape.clone() };
    let stranger = Trainer::new("s", other, train(1), None, &Device::flex()).unwrap();
    assert!(matches!(stranger.with_teacher(teacher.valid(), lesson), Err(Error::Config { .. })));
}

#[test]
fn an_encoder_learns_which_of_two_symbols_comes_first() {
    use cipherlm_train::classify::{Classifier, Example, accuracy};
    let example = |i: u32| {
        let x = i.wrapping_mul(2_654_435_761) >> 8;
        let label = (x & 1) as usize;
        let (a, b) = if label == 0 { (1, 2) } else { (2, 1) };
        let filler = 3 + x / 2 % 9;
        let mut tokens = vec![0, filler, a, filler, b];
        tokens.truncate(if x.is_multiple_of(3) { 5 } else { 4 });
        Example { tokens, label }
    };
    let (learn, held_out): (Vec<_>, Vec<_>) = ((0..600).map(example).collect(), (600..800).map(example).collect());
    let shape =
        ModelConfig { norm_epsilon: 1e-5, ..ModelConfig::encoder(13, 8, 1, 32, 2, Attention::Power(Power::shipped())) };
    let settings = TrainConfig::new(2, 16, 200, 3e-3);
    let mut classifier = Classifier::new(&shape, 2, settings, &Device::flex()).unwrap();
    let before = accuracy(&classifier.valid(), &held_out).unwrap();
    for _ in 0..200 {
        classifier.step(&learn).unwrap();
    }
    let after = accuracy(&classifier.valid(), &held_out).unwrap();
    assert!(!before.significant() || before.accuracy < 0.8, "{before:?}");
    assert!(after.accuracy > 0.97 && after.significant(), "{after:?}");
    assert!(matches!(classifier.step(&[]), Err(Error::CorpusTooShort { .. })));
}
