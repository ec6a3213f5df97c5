//! Students of teachers, with polynomials and without; and an encoder that classifies.

use crate::common::{decoder, power, shipped, start, steps, sums, toy, train};
use burn::tensor::Device;
use cipherlm_model::{Attention, Eps, Shape};
use cipherlm_train::Error;
use cipherlm_train::arch::{Arch, shifted};
use cipherlm_train::corpus::Corpus;
use cipherlm_train::probe::Probe;
use cipherlm_train::settings::TrainConfig;
use cipherlm_train::trainer::Trainer;

#[test]
fn a_student_with_polynomials_learns_from_its_teacher() {
    use cipherlm_model::{FitOptions, Margins};
    use cipherlm_train::export::export;
    use cipherlm_train::loss::divergence;
    use cipherlm_train::probe::Polynomials;
    use cipherlm_train::settings::Distil;
    use cipherlm_train::transformer::token_tensor;
    let corpus = sums(2000);
    let shape = toy(power(4, 3.0, Eps::Absolute { value: 8.1 }));
    let mut teacher = start(shape.clone(), train(150));
    teacher.run(&corpus, &corpus, |_| {}).unwrap();

    // A student of other weights, its functions replaced by polynomials on its own ranges.
    let student = start(shape.clone(), TrainConfig { seed: 8, ..train(150) });
    let mut model = export("student", &shape, student.params()).unwrap();
    let windows: Vec<Vec<u32>> = corpus.windows(20, 16).unwrap().iter().map(|w| w[..16].to_vec()).collect();
    let wide = Margins { denominator: 30.0, variance: 20.0, activation: 4.0, magnitude: 4.0 };
    cipherlm_model::certify(&mut model, &windows, &windows, &wide).unwrap();
    let fit = FitOptions { reciprocal: 0.05, inv_sqrt: 0.02, activation: 0.01, max_degree: 255 };
    cipherlm_model::fit(&mut model, &fit).unwrap();
    let polynomials = Polynomials::of(&model);
    let lesson = Distil { weight: 1.0, temperature: 2.0, hidden: 0.0 };
    let mut student =
        student.with_polynomials(polynomials.clone(), &()).with_teacher(teacher.valid(), lesson).unwrap();
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

    let stranger = start(Arch::new(Shape { vocab: 14, ..shape.shape.clone() }), train(1));
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
    let (learn, held_out): (Vec<_>, Vec<_>) =
        ((0..600).map(example).collect(), (600..800).map(example).collect());
    let shape = Arch::new(crate::common::encoder(decoder(13, 8, 1, 32, 2, shifted(4, 3.0)), 2));
    let settings = TrainConfig::new(2, 16, 200, 3e-3);
    let mut classifier = Classifier::new(&shape, settings, &Device::flex()).unwrap();
    let before = accuracy(&classifier.valid(), &held_out).unwrap();
    for _ in 0..200 {
        classifier.step(&learn).unwrap();
    }
    let after = accuracy(&classifier.valid(), &held_out).unwrap();
    assert!(!before.significant() || before.accuracy < 0.8, "{before:?}");
    assert!(after.accuracy > 0.97 && after.significant(), "{after:?}");
    assert!(matches!(classifier.step(&[]), Err(Error::CorpusTooShort { .. })));
}

#[test]
fn hidden_states_of_a_teacher_are_learned_from() {
    use cipherlm_train::loss::relative_error;
    use cipherlm_train::settings::Distil;
    use cipherlm_train::transformer::token_tensor;
    let corpus = sums(2000);
    let mut teacher = start(toy(Attention::Softmax), train(150));
    teacher.run(&corpus, &corpus, |_| {}).unwrap();
    let run = |hidden: f64| {
        let student =
            Trainer::new("s", shipped(), train(60), Some(teacher.params().to_vec()), &Device::flex())
                .unwrap();
        let lesson = Distil { weight: 1.0, temperature: 1.0, hidden };
        let mut student = student.with_teacher(teacher.valid(), lesson).unwrap();
        steps(&mut student, &corpus, 60);
        let tokens = token_tensor(&shipped(), &corpus.tokens()[..64], 4, &Device::flex()).unwrap();
        let kept = [teacher.valid(), student.valid()].map(|model| {
            let mut probe = Probe::off().keeping_hidden();
            model.forward(tokens.clone(), None, &mut probe);
            probe.take_kept()
        });
        let [theirs, ours] = kept;
        assert_eq!(theirs.len(), 1);
        relative_error(theirs, ours, None).unwrap().into_data().iter::<f64>().next().unwrap()
    };
    let (without, with) = (run(0.0), run(10.0));
    assert!(with < 0.7 * without, "{with} with, {without} without");
}

#[test]
fn a_converted_encoder_comes_close_to_its_softmax_teacher_whatever_the_padding() {
    use cipherlm_train::convert::{Local, match_layers};
    use cipherlm_train::prepared::convert;
    use cipherlm_train::settings::Distil;
    let sentence = |i: u32| {
        let x = i.wrapping_mul(2_654_435_761) >> 7;
        (0..3 + x % 6).map(|j| (x >> (3 * j)) % 13).collect::<Vec<u32>>()
    };
    let corpus = Corpus::of_sentences(&(0..400).map(sentence).collect::<Vec<_>>());
    let held_out = Corpus::of_sentences(&(400..500).map(sentence).collect::<Vec<_>>());
    let shape = Arch::new(crate::common::encoder(decoder(13, 8, 2, 32, 2, Attention::Softmax), 2));
    let model =
        cipherlm_train::transformer::Transformer::new(&shape, 3, &Device::flex(), burn::tensor::DType::F32);
    // Larger than at the start of training, so that attention is not flat and its output counts.
    let mut params = cipherlm_train::params::pull(&model.unwrap());
    for (part, factor) in [("attn.q", 4.0), ("attn.k", 2.0), ("attn.out", 8.0)] {
        let some = params.iter_mut().filter(|p| p.name.contains(part));
        some.flat_map(|p| &mut p.data).for_each(|x| *x *= factor);
    }
    let teacher = (shape.clone(), params);
    let softmax =
        cipherlm_train::transformer::Transformer::with_params(&shape, &teacher.1, &Device::flex()).unwrap();
    let student = convert(&teacher, shifted(8, 8.0)).unwrap();
    let distance = |(arch, params): &(Arch, Vec<_>)| {
        let model =
            cipherlm_train::transformer::Transformer::with_params(arch, params, &Device::flex()).unwrap();
        cipherlm_train::eval::distance(&softmax, &model, &held_out, 100).unwrap()
    };
    let naive = distance(&student);
    let how: Local = serde_json::from_value(serde_json::json!({
        "seed": 1, "windows": 200, "batch": 16, "steps": 60, "schedule": { "peak": 3e-3, "warm_up": 3 }
    }))
    .unwrap();
    let folder = crate::common::Folder::new("encoder");
    let local = match_layers("s", &how, &teacher, student, &corpus, &folder.0, false, &mut |_| {}).unwrap();
    let matched = distance(&local);
    assert!(matched < 0.7 * naive, "{matched} after matching, {naive} before");
    let settings = TrainConfig { evaluate_windows: 100, ..TrainConfig::new(3, 16, 250, 1e-3) };
    let trainer =
        Trainer::new("s", local.0.clone(), settings.clone(), Some(local.1.clone()), &Device::flex()).unwrap();
    let lesson = Distil { weight: 1.0, temperature: 1.0, hidden: 1.0 };
    let mut trainer = trainer.with_teacher(softmax.clone(), lesson).unwrap();
    let last = trainer.run(&corpus, &held_out, |_| {}).unwrap();
    assert!(last < 0.6 * matched, "{last} after training, {matched} before");
    // Without a teacher there is nothing to learn here.
    let mut alone = Trainer::new("s", local.0, settings, Some(local.1), &Device::flex()).unwrap();
    assert!(matches!(alone.step(&corpus), Err(Error::Config { field: "distil", .. })));
}
