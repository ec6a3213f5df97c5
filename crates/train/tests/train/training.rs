//! The training loop on toy data: it learns, resumes bit for bit, and stops with a reason.

use crate::common::{Folder, power, shipped, start, steps, sums, toy, train};
use burn::tensor::Device;
use cipherlm_model::{Attention, Eps, Shape};
use cipherlm_train::Error;
use cipherlm_train::arch::{Arch, Form, shifted};
use cipherlm_train::checkpoint::Archive;
use cipherlm_train::corpus::Corpus;
use cipherlm_train::eval;
use cipherlm_train::journal::{Event, Note};
use cipherlm_train::optim::Schedule;
use cipherlm_train::params::HostParam;
use cipherlm_train::probe::{Limits, Probe, Site};
use cipherlm_train::settings::{Learn, RangeLoss, TrainConfig};
use cipherlm_train::trainer::{BEST, LAST, PREVIOUS, Trainer};

fn bits(trainer: &Trainer) -> Vec<u32> {
    trainer.params().iter().flat_map(|p| &p.data).map(|x| x.to_bits()).collect()
}

#[test]
fn one_step_changes_every_trained_parameter() {
    let pointwise = toy(Attention::Pointwise { mean: true });
    for arch in [toy(Attention::Softmax), Arch { form: Form::Stable, ..pointwise }, shipped()] {
        let mut trainer = start(arch.clone(), train(10));
        let before = trainer.params().to_vec();
        trainer.step(&sums(500)).unwrap();
        for (old, new) in before.iter().zip(trainer.params()) {
            // A key bias has no gradient under softmax: it shifts a whole row.
            let exempt = arch.shape.attention == Attention::Softmax && old.name.ends_with("k.bias");
            assert!(exempt || old.data != new.data, "{} did not move under {arch:?}", old.name);
        }
    }
}

#[test]
fn only_the_chosen_tensors_move_and_at_their_rank() {
    let learn = Learn { tensors: vec!["attn.q".into(), "attn.k".into()], rank: Some(2), ..Learn::default() };
    let mut trainer = start(shipped(), TrainConfig { learn, ..train(30) });
    let before = trainer.params().to_vec();
    steps(&mut trainer, &sums(500), 30);
    for (old, new) in before.iter().zip(trainer.params()) {
        let chosen = ["attn.q", "attn.k"].iter().any(|part| old.name.contains(part));
        assert_eq!(chosen, old.data != new.data, "{}", old.name);
        if let (true, &[rows, columns]) = (chosen, &old.shape[..]) {
            let change: Vec<f64> = new.data.iter().zip(&old.data).map(|(a, b)| f64::from(a - b)).collect();
            assert!(largest_minor(&change, rows, columns) < 1e-3, "{} is not of rank 2", old.name);
        }
    }
    let nothing = Learn { tensors: vec!["attn.o".into(), "attn.x".into()], ..Learn::default() };
    let error =
        Trainer::new("t", shipped(), TrainConfig { learn: nothing, ..train(1) }, None, &Device::flex());
    assert!(error.err().unwrap().to_string().contains("attn.x"));
}

/// Largest of some 3 by 3 determinants over the product of their rows' lengths: zero for a matrix
/// of rank 2.
fn largest_minor(x: &[f64], rows: usize, columns: usize) -> f64 {
    let mut worst: f64 = 0.0;
    for i in 0..rows - 2 {
        for j in 0..columns - 2 {
            let row = |r: usize| &x[(i + r) * columns + j..][..3];
            let (a, b, c) = (row(0), row(1), row(2));
            let cross = [b[1] * c[2] - b[2] * c[1], b[2] * c[0] - b[0] * c[2], b[0] * c[1] - b[1] * c[0]];
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let size = [a, b, c].iter().map(|r| dot(r, r).sqrt()).product::<f64>();
            worst = worst.max((dot(a, &cross) / size.max(1e-12)).abs());
        }
    }
    worst
}

#[test]
fn learns_to_add() {
    let corpus = sums(3000);
    let arch = Arch::new(Shape { layers: 2, ..shipped().shape });
    let mut trainer = start(arch, TrainConfig { batch: 16, ..train(900) });
    let first = trainer.step(&corpus).unwrap().loss;
    let last = trainer.run(&corpus, &sums(3000), |_| {}).unwrap();
    // Of 7 symbols two are free digits, 2 ln 10 / 7 = 0.658 nats; without adding, the sum's digits
    // cost 0.4 more.
    assert!(first > 2.0 && last < 0.85, "from {first} to {last}");
}

/// Settings that use everything that a checkpoint has to carry.
fn everything() -> TrainConfig {
    let range = RangeLoss { weight: 0.1, ramp: 10, limits: Limits::default() };
    TrainConfig { range: Some(range), accumulation: 2, checkpoint_every: 5, evaluate_every: 10, ..train(20) }
}

#[test]
fn resuming_continues_bit_for_bit() {
    let corpus = sums(500);
    let low_rank = Learn { tensors: vec!["attn".into(), "norm".into()], rank: Some(3), ..Learn::default() };
    for learn in [Learn::default(), low_rank] {
        let folder = Folder::new("resume");
        let settings = TrainConfig { learn, ..everything() };
        let mut whole = start(shipped(), settings.clone());
        steps(&mut whole, &corpus, 20);

        let mut half = start(shipped(), settings.clone()).in_folder(&folder.0, false).unwrap();
        steps(&mut half, &corpus, 10);
        half.archive().save(&folder.0.join(LAST)).unwrap();
        drop(half);
        let mut resumed = start(shipped(), settings).in_folder(&folder.0, true).unwrap();
        assert_eq!(resumed.step_count(), 10);
        steps(&mut resumed, &corpus, 10);
        assert_eq!(bits(&whole), bits(&resumed));
    }
}

#[test]
fn a_finished_run_is_not_overwritten() {
    let (folder, corpus) = (Folder::new("finished"), sums(500));
    let mut trainer = start(shipped(), everything()).in_folder(&folder.0, false).unwrap();
    trainer.run(&corpus, &corpus, |_| {}).unwrap();
    drop(trainer);
    let read = || [LAST, PREVIOUS, BEST].map(|name| std::fs::read(folder.0.join(name)).unwrap());
    let before = read();
    let error = start(shipped(), everything()).in_folder(&folder.0, false).err().unwrap();
    assert!(matches!(error, Error::Occupied { .. }) && error.to_string().contains("--resume"), "{error}");
    let mut again = start(shipped(), everything()).in_folder(&folder.0, true).unwrap();
    again.run(&corpus, &corpus, |event| panic!("{event:?}")).unwrap();
    assert!(before == read());
}

#[test]
fn fields_that_touch_the_trajectory_are_named_and_others_may_change() {
    let (folder, corpus) = (Folder::new("fields"), sums(500));
    let mut trainer = start(shipped(), everything()).in_folder(&folder.0, false).unwrap();
    steps(&mut trainer, &corpus, 5);
    trainer.archive().save(&folder.0.join(LAST)).unwrap();
    let resume = |arch: Arch, settings: TrainConfig| start(arch, settings).in_folder(&folder.0, true);

    let cadence = TrainConfig {
        log_every: 1,
        checkpoint_every: 3,
        evaluate_every: 7,
        evaluate_windows: 4,
        ..everything()
    };
    assert_eq!(resume(shipped(), cadence).unwrap().step_count(), 5);
    let refused = |arch: Arch, settings: TrainConfig| match resume(arch, settings) {
        Err(error @ Error::Checkpoint { .. }) => error.to_string(),
        other => panic!("{:?}", other.err()),
    };
    let longer = refused(shipped(), TrainConfig { steps: 40, ..everything() });
    assert!(longer.contains("steps 20, now 40") && longer.lines().count() == 1, "{longer}");
    let peak = Schedule { peak: 1e-3, ..everything().schedule };
    let two = refused(shipped(), TrainConfig { seed: 4, schedule: peak, ..everything() });
    assert!(two.contains("seed 3, now 4") && two.contains("schedule.peak 0.004, now 0.001"), "{two}");
    let limits = Limits { scores: Some(9.0), ..Limits::default() };
    let range = refused(
        shipped(),
        TrainConfig { range: Some(RangeLoss { weight: 0.1, ramp: 10, limits }), ..everything() },
    );
    assert!(range.contains("range.limits.scores 12.0, now 9.0"), "{range}");
    let operator = refused(toy(shifted(6, 3.0)), everything());
    assert!(operator.contains("shape.attention.p 4, now 6"), "{operator}");
}

#[test]
fn another_text_is_noticed() {
    let folder = Folder::new("texts");
    let settings = TrainConfig { checkpoint_every: 5, ..train(10) };
    let mut trainer = start(shipped(), settings.clone()).in_folder(&folder.0, false).unwrap();
    let mut lines = 0;
    // Stopped in the middle.
    let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        trainer.run(&sums(500), &sums(100), |_| {
            lines += 1;
            panic!("stop")
        })
    }));
    assert!(stopped.is_err() && lines == 1);
    let last = std::fs::read(folder.0.join(LAST)).unwrap();
    let mut resumed = start(shipped(), settings.clone()).in_folder(&folder.0, true).unwrap();
    let error = resumed.run(&sums(501), &sums(100), |_| {}).unwrap_err();
    assert!(
        matches!(&error, Error::Checkpoint { differences, .. } if differences.contains("training text")),
        "{error}"
    );
    assert!(last == std::fs::read(folder.0.join(LAST)).unwrap());
    let mut resumed = start(shipped(), settings).in_folder(&folder.0, true).unwrap();
    let mut notes = Vec::new();
    resumed.run(&sums(500), &sums(99), |event| notes.extend(note(event))).unwrap();
    assert!(notes.len() == 1 && notes[0].contains("held-out"), "{notes:?}");
}

fn note(event: &Event) -> Option<String> {
    match event {
        Event::Note(Note { note, .. }) => Some(note.clone()),
        Event::Step(_) => None,
    }
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    let corpus = sums(500);
    let mut whole = start(shipped(), everything());
    whole.run(&corpus, &corpus, |_| {}).unwrap();
    let settings = TrainConfig { steps: 20, ..everything() };
    let damages: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| bytes.clear(),
        |bytes| bytes.iter_mut().rev().take(1).for_each(|b| *b ^= 4),
        |bytes| bytes[40] ^= 1,
    ];
    for damage in damages {
        let folder = Folder::new("damage");
        let mut trainer = start(shipped(), settings.clone()).in_folder(&folder.0, false).unwrap();
        for (name, more) in [(PREVIOUS, 5), (LAST, 5)] {
            steps(&mut trainer, &corpus, more);
            trainer.archive().save(&folder.0.join(name)).unwrap();
        }
        let hurt = |name: &str| {
            let mut bytes = std::fs::read(folder.0.join(name)).unwrap();
            damage(&mut bytes);
            std::fs::write(folder.0.join(name), bytes).unwrap();
        };
        hurt(LAST);
        let mut resumed = start(shipped(), settings.clone()).in_folder(&folder.0, true).unwrap();
        assert_eq!(resumed.step_count(), 5);
        let mut notes = Vec::new();
        resumed.run(&corpus, &corpus, |event| notes.extend(note(event))).unwrap();
        assert!(notes.len() == 1 && notes[0].contains(LAST), "{notes:?}");
        assert_eq!(bits(&whole), bits(&resumed));
        // With both damaged nothing is started afresh in silence.
        hurt(LAST);
        hurt(PREVIOUS);
        let error = start(shipped(), settings.clone()).in_folder(&folder.0, true).err().unwrap();
        assert!(matches!(&error, Error::Corrupt { path, .. } if path.ends_with(LAST)), "{error}");
    }
}

#[test]
fn a_crash_between_the_renames_of_a_save_loses_nothing_but_steps() {
    let (folder, corpus) = (Folder::new("renames"), sums(500));
    let mut trainer = start(shipped(), everything()).in_folder(&folder.0, false).unwrap();
    steps(&mut trainer, &corpus, 5);
    trainer.archive().save(&folder.0.join(PREVIOUS)).unwrap();
    std::fs::write(folder.0.join(".last.safetensors.part"), b"half a file").unwrap();
    let resumed = start(shipped(), everything()).in_folder(&folder.0, true).unwrap();
    assert_eq!(resumed.step_count(), 5);
    assert!(matches!(
        start(shipped(), everything()).in_folder(&folder.0, false),
        Err(Error::Occupied { .. })
    ));
}

#[test]
fn a_batch_that_overflows_is_undone_told_and_passed_over() {
    // Symbol 12 stands once in a text whose windows rarely meet it; its embedding overflows every
    // normalisation.
    let mut tokens = sums(400).tokens().iter().map(|t| t % 12).collect::<Vec<u32>>();
    let middle = tokens.len() / 2;
    tokens[middle..middle + 120].fill(12);
    let corpus = Corpus::new(tokens, 0);
    let clean = sums(50);
    let clean = Corpus::new(clean.tokens().iter().map(|t| t % 12).collect(), 0);
    let untied = || Arch::new(Shape { tied_head: false, ..shipped().shape });
    let mut params = start(untied(), train(1)).params().to_vec();
    params[0].data[12 * 32..]
        .iter_mut()
        .enumerate()
        .for_each(|(i, x)| *x = if i % 2 == 0 { 3e38 } else { -3e38 });
    let settings = TrainConfig { batch: 1, ..train(150) };
    let run = |folder: &Folder| {
        let trainer =
            Trainer::new("t", untied(), settings.clone(), Some(params.clone()), &Device::flex()).unwrap();
        let mut trainer = trainer.in_folder(&folder.0, false).unwrap();
        let mut notes = Vec::new();
        let last = trainer.run(&corpus, &clean, |event| notes.extend(note(event))).unwrap();
        (trainer, notes, last)
    };
    let folder = Folder::new("overflow");
    let (trainer, notes, last) = run(&folder);
    assert!(
        !notes.is_empty() && notes.iter().all(|n| n.contains("NaN") && n.contains("undone")),
        "{notes:?}"
    );
    assert_eq!(trainer.rate_factor(), 0.5f64.powi(notes.len() as i32));
    assert_eq!(trainer.step_count(), 150);
    assert!(trainer.params().iter().flat_map(|p| &p.data).all(|x| x.is_finite()) && last < 2.4, "{last}");
    let log = std::fs::read_to_string(folder.0.join("log.jsonl")).unwrap();
    assert_eq!(log.matches("undone").count(), notes.len());
    assert_eq!(bits(&trainer), bits(&run(&Folder::new("overflow-again")).0), "the same run ends otherwise");
}

#[test]
fn divergence_stops_with_the_reason_and_keeps_the_checkpoint() {
    let (folder, corpus) = (Folder::new("diverge"), sums(500));
    let eps = Eps::Absolute { value: 1e-9 };
    let mut wild = TrainConfig { clip: 1e9, checkpoint_every: 1, ..train(400) };
    wild.schedule.peak = 3.0;
    let mut trainer = start(toy(power(12, 0.0, eps)), wild).in_folder(&folder.0, false).unwrap();
    let error = trainer.run(&corpus, &sums(100), |_| {}).unwrap_err();
    assert!(matches!(&error, Error::Diverged { reason, .. } if !reason.is_empty()), "{error}");
    let kept = Archive::load(&folder.0.join(LAST)).unwrap();
    assert!(kept.tensors.iter().flat_map(|t| &t.data).all(|x| x.is_finite()));
}

#[test]
fn range_loss_pulls_scores_in() {
    let corpus = sums(2000);
    let run = |range| {
        let mut trainer = start(shipped(), TrainConfig { range, ..train(120) });
        trainer.run(&corpus, &corpus, |_| {}).unwrap();
        let mut probe = Probe::observe();
        eval::observe(&trainer.valid(), &corpus, 32, &mut probe).unwrap();
        probe.ranges()[&(Site::Scores, 0)].magnitude()
    };
    let limits = Limits { scores: Some(4.0), ..Limits::default() };
    let (free, bound) = (run(None), run(Some(RangeLoss { weight: 0.1, ramp: 1, limits })));
    assert!(bound < 5.0 && bound < free, "{bound} with, {free} without");
}

#[test]
fn the_range_loss_rises_over_its_ramp() {
    // Weights and ramps whose product is the same at some step must give the same update there.
    let first = |weight, ramp| {
        let limits = Limits { scores: Some(0.1), ..Limits::default() };
        let mut trainer =
            start(shipped(), TrainConfig { range: Some(RangeLoss { weight, ramp, limits }), ..train(9) });
        trainer.step(&sums(500)).unwrap();
        bits(&trainer)
    };
    assert_eq!(first(0.5, 8), first(0.0625, 1));
    assert_eq!(first(0.5, 1), first(0.5, 0));
    assert_ne!(first(0.5, 8), first(0.5, 1));
    let second = |weight, ramp| {
        let limits = Limits { scores: Some(0.1), ..Limits::default() };
        let folder = Folder::new("ramp");
        // The first step is the same for all; the second differs by the ramp alone.
        let mut trainer = start(shipped(), train(9));
        trainer.step(&sums(500)).unwrap();
        let mut archive = trainer.archive();
        let settings = TrainConfig { range: Some(RangeLoss { weight, ramp, limits }), ..train(9) };
        archive.fields.insert("train".into(), serde_json::to_string(&settings).unwrap());
        archive.save(&folder.0.join(LAST)).unwrap();
        let mut trainer = start(shipped(), settings).in_folder(&folder.0, true).unwrap();
        trainer.step(&sums(500)).unwrap();
        bits(&trainer)
    };
    assert_eq!(second(0.5, 8), second(0.125, 2));
    assert_ne!(second(0.5, 8), second(0.5, 2));
}

#[test]
fn one_two_and_three_threads_give_the_same_checkpoint() {
    let corpus = sums(500);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            // Wide enough that matrix products and reductions are shared out.
            let shape =
                Shape { d_model: 96, head_dim: 24, heads: 4, ffn: 512, context: 64, ..shipped().shape };
            let shape = Shape { rotary: Some(cipherlm_model::Rotary { dims: 24, base: 1e4 }), ..shape };
            let mut trainer = start(Arch::new(shape), TrainConfig { batch: 16, ..everything() });
            steps(&mut trainer, &corpus, 12);
            trainer.archive()
        })
    };
    let one = run(1);
    assert!(one == run(2), "two threads differ from one");
    assert!(one == run(3), "three threads differ from one");
}

#[test]
fn bad_input_is_named() {
    let device = Device::flex();
    let softmax = || toy(Attention::Softmax);
    let begin = |t| Trainer::new("t", softmax(), t, None, &device);
    assert!(matches!(begin(TrainConfig { batch: 0, ..train(1) }), Err(Error::Config { field: "batch", .. })));
    let mut trainer = begin(train(5)).unwrap();
    assert!(matches!(trainer.step(&Corpus::new(vec![], 0)), Err(Error::CorpusTooShort { tokens: 0, .. })));
    let foreign = Corpus::new(vec![99; 100], 0);
    assert!(matches!(trainer.step(&foreign), Err(Error::Vocabulary { token: 99, vocab: 13 })));
    let with =
        |params: Vec<HostParam>| Trainer::new("t", softmax(), train(5), Some(params), &device).err().unwrap();
    let mut broken = trainer.params().to_vec();
    broken[0].data[3] = f32::NAN;
    let error = with(broken).to_string();
    assert!(error.contains("embed.tokens") && error.contains("finite"), "{error}");
    let mut short = trainer.params().to_vec();
    short.pop();
    assert!(matches!(with(short), Error::Shape { .. }));
    let long = cipherlm_train::transformer::token_tensor(&softmax(), &[1; 17], 1, &device);
    assert!(matches!(long, Err(Error::ContextTooLong { tokens: 17, context: 16 })));
    let mut strange = train(5);
    strange.optimiser.groups[0].names.push("gamma".into());
    let error = begin(strange).err().unwrap().to_string();
    assert!(error.contains("gamma"), "{error}");
}
