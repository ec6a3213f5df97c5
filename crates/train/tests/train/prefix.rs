//! A public prefix in training: the rows of the data model, no place in any loss, and a run that
//! goes on where it stopped.

use crate::common::{Folder, decoder, power, sums, train, vary};
use burn::tensor::{DType, Device};
use cipherlm_model::{
    Activation, Attention, Eps, FitOptions, Margins, Mode, Model, Norm, Positions, Runner, Shape,
};
use cipherlm_train::Error;
use cipherlm_train::arch::{Arch, shifted};
use cipherlm_train::corpus::Corpus;
use cipherlm_train::export::{export, import};
use cipherlm_train::params::{HostParam, pull};
use cipherlm_train::probe::{Limits, Polynomials, Probe, Site};
use cipherlm_train::settings::{Distil, Learn, RangeLoss, TrainConfig};
use cipherlm_train::trainer::{LAST, Trainer};
use cipherlm_train::transformer::{Transformer, token_tensor};

const PREFIX: [u32; 3] = [12, 4, 12];
const TEXT: [u32; 10] = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3];

/// The Llama family in small, behind public tokens.
fn llama(attention: Attention) -> Arch {
    let shape = decoder(13, 16, 2, 24, 3, attention);
    let shape = Shape {
        norm: Norm::RmsNorm,
        activation: Activation::Silu,
        gated: true,
        bias: false,
        ffn: 40,
        ..shape
    };
    Arch { prefix: PREFIX.to_vec(), ..Arch::new(shape) }
}

/// Weights under which the rows of the prefix are far larger than those of any text: its token
/// occurs nowhere else.
fn with_sink(arch: &Arch) -> Vec<HostParam> {
    let mut params = pull(&Transformer::new(arch, 5, &Device::flex(), DType::F32).unwrap());
    vary(&mut params);
    let width = arch.shape.d_model;
    let table = params.iter_mut().find(|p| p.name == "embed.tokens").unwrap();
    table.data[12 * width..][..width].iter_mut().for_each(|x| *x *= 400.0);
    params
}

fn forward(arch: &Arch, params: &[HostParam], probe: &mut Probe) -> Vec<f64> {
    let device = Device::flex();
    let tokens = token_tensor(arch, &TEXT, 1, &device).unwrap();
    let model = Transformer::with_params(arch, params, &device).unwrap();
    model.forward(tokens, None, probe).into_data().iter::<f64>().collect()
}

fn reference(model: &Model, mode: Mode) -> Vec<f64> {
    Runner::new(model, mode).unwrap().forward(&TEXT, Positions::All).unwrap().concat()
}

/// Largest difference over the largest value.
fn relative(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let size = b.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / size
}

/// Sums without the token of the prefix.
fn texts() -> Corpus {
    let other = |&token: &u32| if token == 12 { 10 } else { token };
    Corpus::new(sums(300).tokens().iter().map(other).collect(), 0)
}

/// Certified behind the prefix, with coarse polynomials.
fn certified(arch: &Arch, params: &[HostParam], windows: &[Vec<u32>], margins: &Margins) -> Model {
    let mut model = export("behind", arch, params).unwrap();
    cipherlm_model::certify(&mut model, windows, windows, margins).unwrap();
    let coarse = FitOptions { reciprocal: 0.02, inv_sqrt: 0.02, activation: 0.05, max_degree: 255 };
    cipherlm_model::fit(&mut model, &coarse).unwrap();
    model
}

#[test]
fn logits_behind_a_prefix_are_those_of_the_data_model_exact_and_polynomial() {
    let eps = Eps::Absolute { value: 0.5 };
    for attention in [Attention::Softmax, power(4, 3.0, eps), power(4, 3.0, Eps::Frozen)] {
        let arch = llama(attention);
        let params = with_sink(&arch);
        let model = export("behind", &arch, &params).unwrap();
        assert_eq!(model.spec().prefix, PREFIX);
        assert_eq!(import(&model).unwrap(), (arch.clone(), params.clone()));
        let (ours, theirs) = (forward(&arch, &params, &mut Probe::off()), reference(&model, Mode::Exact));
        assert_eq!(ours.len(), TEXT.len() * 13);
        let error = relative(&ours, &theirs);
        assert!(error < 1e-4, "{attention:?}: {error:e}");
        // It is no small matter what stands before a text.
        let bare = Arch { prefix: vec![], ..arch.clone() };
        assert!(relative(&forward(&bare, &params, &mut Probe::off()), &theirs) > 1e-2);
        if attention != power(4, 3.0, Eps::Frozen) {
            continue;
        }
        let model = certified(&arch, &params, &[TEXT.to_vec()], &Margins::default());
        let mut probe = Probe::off().with_polynomials(Some(Polynomials::of(&model)));
        let (ours, theirs) = (forward(&arch, &params, &mut probe), reference(&model, Mode::Polynomial));
        let error = relative(&ours, &theirs);
        assert!(error < 1e-4, "polynomials: {error:e}");
        assert!(relative(&reference(&model, Mode::Exact), &theirs) > 1e-3, "they changed nothing");
    }
}

#[test]
fn ranges_and_hidden_states_are_those_of_texts() {
    let arch = llama(power(4, 3.0, Eps::Frozen));
    let params = with_sink(&arch);
    let model = certified(&arch, &params, &[TEXT.to_vec()], &Margins::default());
    let mut probe = Probe::observe().keeping_hidden();
    forward(&arch, &params, &mut probe);
    let width = arch.shape.d_model;
    assert!(probe.take_kept().iter().all(|x| x.dims() == [TEXT.len(), width]));
    let mut compared = 0;
    for (site, at, name) in [
        (Site::AttentionNorm, 0, "layers.0.norm1"),
        (Site::FeedForwardNorm, 1, "layers.1.norm2"),
        (Site::FeedForward, 1, "layers.1.ffn.activation"),
        (Site::RowRatio, 1, "layers.1.attn.reciprocal"),
        (Site::FinalNorm, 2, "final_norm"),
    ] {
        let (ours, theirs) = (probe.ranges()[&(site, at)], model.site(name).unwrap().observed);
        // The data model counts an epsilon in: one, where a row is divided by it.
        let added = match site {
            Site::RowRatio => 1.0,
            Site::FeedForward => 0.0,
            _ => arch.shape.norm_eps,
        };
        for (a, b) in [(ours.lo + added, theirs.min), (ours.hi + added, theirs.max)] {
            assert!((a - b).abs() < 1e-3 * (1e-3 + b.abs()), "{name}: {a} and {b}");
        }
        compared += 1;
    }
    assert_eq!(compared, 5);
    // A limit that the prefix alone breaks costs nothing.
    let limits = Limits { hidden: Some(50.0), ..serde_json::from_str(NONE).unwrap() };
    let penalty = |arch: &Arch| {
        let mut probe = Probe::penalise(limits);
        forward(arch, &params, &mut probe);
        probe.take_penalty().unwrap().into_data().iter::<f64>().next().unwrap()
    };
    assert_eq!(penalty(&arch), 0.0);
    let bare = Arch { prefix: vec![], ..arch };
    let tokens = token_tensor(&bare, &[&PREFIX[..], &TEXT].concat(), 1, &Device::flex()).unwrap();
    let mut probe = Probe::penalise(limits);
    Transformer::with_params(&bare, &params, &Device::flex()).unwrap().forward(tokens, None, &mut probe);
    assert!(probe.take_penalty().unwrap().into_data().iter::<f64>().next().unwrap() > 0.0);
}

const NONE: &str = r#"{"scores": null, "feed_forward": null}"#;

fn settings(learn: Learn) -> TrainConfig {
    let limits = Limits { row_ratio: Some(2.0), variance_ratio: Some(4.0), ..Limits::default() };
    let range = RangeLoss { weight: 0.1, ramp: 10, limits };
    TrainConfig { range: Some(range), accumulation: 2, learn, ..train(12) }
}

fn student(learn: Learn, polynomials: bool) -> Trainer {
    let arch = llama(power(4, 3.0, Eps::Frozen));
    let (texts, room) = (texts(), arch.room());
    let windows: Vec<Vec<u32>> =
        texts.windows(60, room).unwrap().iter().map(|w| w[..room].to_vec()).collect();
    let model = export("s", &arch, &with_sink(&arch)).unwrap();
    let params =
        import(&cipherlm_model::freeze_eps(&model, &windows, cipherlm_model::Freezing::at(20.0)).unwrap())
            .unwrap()
            .1;
    let teacher = Transformer::with_params(&llama(Attention::Softmax), &plain(&params), &Device::flex());
    let polynomials = polynomials.then(|| {
        let wide = Margins { denominator: 30.0, variance: 20.0, activation: 4.0, magnitude: 4.0 };
        Polynomials::of(&certified(&arch, &params, &windows, &wide))
    });
    let trainer = Trainer::new("s", arch, settings(learn), Some(params), &Device::flex()).unwrap();
    let lesson = Distil { weight: 0.5, temperature: 1.0, hidden: 0.1 };
    let trainer = match polynomials {
        Some(polynomials) => trainer.with_polynomials(polynomials, &()),
        None => trainer,
    };
    trainer.with_teacher(teacher.unwrap(), lesson).unwrap()
}

/// Without the epsilons, which softmax has not.
fn plain(params: &[HostParam]) -> Vec<HostParam> {
    params.iter().filter(|p| !p.name.ends_with("attn.eps")).cloned().collect()
}

#[test]
fn the_loss_of_a_step_is_that_of_the_texts_tokens() {
    let corpus = texts();
    let mut trainer = student(Learn::default(), false);
    let arch = trainer.arch().clone();
    let model = export("behind", &arch, trainer.params()).unwrap();
    let mut runner = Runner::new(&model, Mode::Exact).unwrap();
    let (mut nats, mut tokens) = (0.0, 0.0);
    for micro in 0..2 {
        // As long as the prefix leaves room for, and one to predict.
        for window in corpus.batch(3, micro, 8, 16 - PREFIX.len()).unwrap() {
            let rows = runner.forward(&window[..window.len() - 1], Positions::All).unwrap();
            for (row, &next) in rows.iter().zip(&window[1..]) {
                let largest = row.iter().copied().fold(f64::MIN, f64::max);
                let sum: f64 = row.iter().map(|x| (x - largest).exp()).sum();
                nats += largest + sum.ln() - row[next as usize];
                tokens += 1.0;
            }
        }
    }
    let stats = trainer.step(&corpus).unwrap();
    assert!((stats.loss - nats / tokens).abs() < 1e-4 * stats.loss, "{} and {}", stats.loss, nats / tokens);
    assert!(stats.range_loss.is_finite() && stats.norm.is_finite());
}

#[test]
fn a_run_behind_a_prefix_goes_on_bit_for_bit_and_behind_no_other() {
    let corpus = texts();
    let bits = |trainer: &Trainer| -> Vec<u32> {
        trainer.params().iter().flat_map(|p| p.data.iter().map(|x| x.to_bits())).collect()
    };
    let advance = |trainer: &mut Trainer, count: usize| {
        (0..count).for_each(|_| assert!(trainer.step(&corpus).unwrap().loss.is_finite()));
    };
    let low_rank = Learn { tensors: vec!["attn".into(), "norm".into()], rank: Some(3), ..Learn::default() };
    for (learn, polynomials) in [(Learn::default(), false), (low_rank, true)] {
        let folder = Folder::new("behind");
        let make = || student(learn.clone(), polynomials);
        let mut whole = make();
        advance(&mut whole, 12);
        let mut half = make().in_folder(&folder.0, false).unwrap();
        advance(&mut half, 6);
        half.archive().save(&folder.0.join(LAST)).unwrap();
        drop(half);
        let mut resumed = make().in_folder(&folder.0, true).unwrap();
        assert_eq!(resumed.step_count(), 6);
        advance(&mut resumed, 6);
        assert_eq!(bits(&whole), bits(&resumed));

        let arch = Arch { prefix: vec![12, 5], ..llama(power(4, 3.0, Eps::Frozen)) };
        let other = Trainer::new("s", arch, settings(learn), None, &Device::flex()).unwrap();
        let error = other.in_folder(&folder.0, true).err().unwrap();
        assert!(
            matches!(&error, Error::Checkpoint { .. }) && error.to_string().contains("prefix"),
            "{error}"
        );
    }
    let teacher = Arch { prefix: vec![], ..llama(Attention::Softmax) };
    let params = plain(&with_sink(&teacher));
    let teacher = Transformer::with_params(&teacher, &params, &Device::flex()).unwrap();
    let lesson = Distil { weight: 0.5, temperature: 1.0, hidden: 0.0 };
    let error = student(Learn::default(), false).with_teacher(teacher, lesson).err().unwrap().to_string();
    assert!(error.contains("public_prefix") && error.contains("[12, 4, 12]"), "{error}");
}

#[test]
fn layers_are_matched_behind_a_prefix() {
    use cipherlm_train::convert::{Local, match_layers};
    use cipherlm_train::journal::Event;
    use cipherlm_train::prepared::convert;
    let (corpus, folder) = (texts(), Folder::new("behind-local"));
    let arch = llama(Attention::Softmax);
    let teacher = (arch.clone(), with_sink(&arch));
    let how: Local = serde_json::from_value(serde_json::json!({
        "seed": 1, "windows": 24, "batch": 4, "steps": 60, "schedule": { "peak": 3e-3, "warm_up": 3 },
        "range": { "weight": 0.001, "limits": { "scores": null, "feed_forward": null, "row_mean": 1e9 } }
    }))
    .unwrap();
    let run = |place: &str, resume: bool, stop: usize| {
        let (mut losses, folder) = (Vec::new(), folder.0.join(place));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let student = convert(&teacher, shifted(8, 8.0)).unwrap();
            let report = &mut |event: &Event| {
                let Event::Step(p) = event else { panic!("{event:?}") };
                losses.push(p.stats.loss);
                assert!(losses.len() != stop, "stop");
            };
            let out = match_layers("s", &how, &teacher, student, &corpus, &folder, resume, report).unwrap();
            (out, losses)
        }))
    };
    let (whole, losses) = run("whole", false, 0).unwrap();
    assert_eq!(whole.0.prefix, PREFIX);
    assert!(losses.len() == 6 && losses.iter().all(|loss| *loss < 0.1), "{losses:?}");
    assert!(run("stopped", false, 4).is_err());
    assert!(run("stopped", true, 0).unwrap().0 == whole);
}
