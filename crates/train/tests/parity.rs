//! The same model three times: burn f32, burn f64, and the plain f64 reference of the data model.

use burn::module::Module;
use burn::tensor::{DType, Device};
use cipherlm_model::{Mode, Positions, Runner};
use cipherlm_train::config::{Activation, Attention, Epsilon, Form, ModelConfig, Norm, Power};
use cipherlm_train::export::export;
use cipherlm_train::params::{pull, push};
use cipherlm_train::probe::{Probe, Site};
use cipherlm_train::transformer::{Decoder, token_tensor};

const TOKENS: [u32; 11] = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5];

fn base(attention: Attention) -> ModelConfig {
    ModelConfig::decoder(17, 16, 2, 24, 3, attention)
}

fn power(epsilon: Epsilon) -> Attention {
    Attention::Power(Power { power: 4, shift: 3.0, form: Form::Mean, epsilon })
}

fn logits(config: &ModelConfig, dtype: DType) -> (Vec<f64>, Decoder) {
    let device = Device::flex();
    let mut model = Decoder::new(config, 5, &device, dtype).unwrap();
    // Random initial weights leave biases, gains and epsilons trivial; give them values.
    let mut params = pull(&model);
    for (i, p) in params.iter_mut().enumerate() {
        for (j, x) in p.data.iter_mut().enumerate() {
            let wave = (0.7 * (i * 31 + j) as f32).sin();
            if !p.trained {
                *x = 0.5 + 0.4 * wave;
            } else if p.shape.len() == 1 {
                *x += 0.2 * wave;
            }
        }
    }
    model = push(model, &params).unwrap();
    let tokens = token_tensor(config, &TOKENS, 1, &device).unwrap();
    let out = model.forward(tokens, None, &mut Probe::off());
    (out.into_data().iter::<f64>().collect(), model)
}

fn check(config: &ModelConfig) {
    let (double, model) = logits(config, DType::F64);
    let (single, _) = logits(config, DType::F32);
    let spec = export("parity", config, &pull(&model)).unwrap();
    let rows = Runner::new(&spec, Mode::Exact).unwrap().forward(&TOKENS, Positions::All).unwrap();
    let reference = rows.concat();
    assert_eq!(reference.len(), double.len());
    let worst = |a: &[f64]| a.iter().zip(&reference).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(reference.iter().any(|x| x.abs() > 0.1), "trivial logits");
    assert!(worst(&double) < 1e-9, "f64 differs by {:e} for {config:?}", worst(&double));
    assert!(worst(&single) < 1e-4, "f32 differs by {:e} for {config:?}", worst(&single));
}

#[test]
fn gpt_shape_with_every_epsilon() {
    for epsilon in [Epsilon::Absolute(0.81), Epsilon::Relative(1e-3), Epsilon::Frozen] {
        check(&base(power(epsilon)));
    }
}

#[test]
fn softmax() {
    check(&base(Attention::Softmax));
}

#[test]
fn pythia_shape() {
    let config = ModelConfig { rotary: 4, parallel_residual: true, tied: false, ..base(power(Epsilon::Absolute(0.1))) };
    check(&config);
}

#[test]
fn llama_shape() {
    check(&ModelConfig {
        norm: Norm::Rms,
        activation: Activation::Silu,
        gated: true,
        bias: false,
        ..base(power(Epsilon::Frozen))
    });
}

#[test]
fn stable_and_mean_forms_give_the_same_logits() {
    let relative = |form| Attention::Power(Power { power: 6, shift: 1.0, form, epsilon: Epsilon::Frozen });
    let (mean, _) = logits(&base(relative(Form::Mean)), DType::F64);
    for form in [Form::Stable, Form::Sum] {
        let (other, _) = logits(&base(relative(form)), DType::F64);
        let worst = mean.iter().zip(&other).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-10, "{form:?}: {worst:e}");
    }
}

#[test]
fn a_causal_model_does_not_see_the_future_nor_an_encoder_its_padding() {
    let device = Device::flex();
    for attention in [Attention::Softmax, Attention::Pointwise, power(Epsilon::Absolute(0.5))] {
        let config = base(attention);
        let model = Decoder::new(&config, 1, &device, DType::F64).unwrap();
        let run = |tokens: &[u32]| {
            let t = token_tensor(&config, tokens, 1, &device).unwrap();
            model.forward(t, None, &mut Probe::off()).into_data().iter::<f64>().collect::<Vec<_>>()
        };
        let (a, b) = (run(&[1, 2, 3, 4]), run(&[1, 2, 3, 9]));
        let early = 3 * config.vocab;
        assert!(a[..early].iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-12));
        assert!(a[early..].iter().zip(&b[early..]).any(|(a, b)| (a - b).abs() > 1e-6));
    }
    let config = ModelConfig::encoder(17, 16, 2, 24, 3, power(Epsilon::Absolute(0.5)));
    let model = cipherlm_train::transformer::Encoder::new(&config, 2, 1, &device, DType::F64).unwrap();
    let run = |tokens: &[u32], keep: Vec<f64>| {
        let t = token_tensor(&config, tokens, 1, &device).unwrap();
        let keep = burn::tensor::TensorData::new(keep, [1, tokens.len()]);
        let keep = burn::tensor::Tensor::from_data(keep, (&device, DType::F64));
        model.forward(t, keep, &mut Probe::off()).into_data().iter::<f64>().collect::<Vec<_>>()
    };
    let (a, b) = (run(&[1, 2, 3, 0, 0], vec![1., 1., 1., 0., 0.]), run(&[1, 2, 3, 7, 9], vec![1., 1., 1., 0., 0.]));
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-12), "padding reaches the pooled output");
    assert!(model.num_params() > config.parameters());
}

#[test]
fn probe_reports_ranges_and_row_maxima_that_freeze() {
    let config = base(power(Epsilon::Absolute(0.5)));
    let device = Device::flex();
    let model = Decoder::new(&config, 1, &device, DType::F32).unwrap();
    let mut probe = Probe::observe();
    model.forward(token_tensor(&config, &TOKENS, 1, &device).unwrap(), None, &mut probe);
    let scores = probe.ranges()[&(Site::Scores, 1)];
    assert!(scores.min < 3.0 && scores.max > 3.0);
    let mean = probe.ranges()[&(Site::RowMean, 0)];
    let rows = probe.row_maxima(0).unwrap();
    let largest = rows.iter().copied().fold(0.0, f32::max);
    assert!((f64::from(largest) - mean.max).abs() < 1e-3 * mean.max);
    let (mut frozen, mut params) = (config, pull(&model));
    Decoder::freeze_epsilon(&mut frozen, &mut params, &probe, 100.0).unwrap();
    let table = params.iter().find(|p| p.name == "blocks.0.attention.epsilon").unwrap();
    // Every observed row mean is at most 100 epsilons.
    assert!(rows.iter().zip(&table.data).all(|(m, e)| *m <= 100.0 * e * 1.0001 && *e > 0.0));
    assert!(matches!(frozen.attention, Attention::Power(Power { epsilon: Epsilon::Frozen, .. })));
}

#[test]
fn encoder_classes_agree_with_the_reference_with_padding() {
    use cipherlm_train::{classify, transformer::Encoder};
    let config =
        ModelConfig { norm_epsilon: 1e-5, ..ModelConfig::encoder(17, 16, 2, 24, 3, power(Epsilon::Absolute(0.5))) };
    for (dtype, tolerance) in [(DType::F64, 1e-9), (DType::F32, 1e-4)] {
        let device = Device::flex();
        let model = Encoder::new(&config, 3, 1, &device, dtype).unwrap();
        let spec = classify::export("encoder", &config, 3, &pull(&model)).unwrap();
        let tokens = [3, 1, 4, 1, 5, 0, 0];
        let valid = [true, true, true, true, true, false, false];
        let ids = token_tensor(&config, &tokens, 1, &device).unwrap();
        let keep = burn::tensor::TensorData::new(valid.map(|v| f64::from(u8::from(v))).to_vec(), [1, 7]);
        let keep = burn::tensor::Tensor::from_data(keep.convert_dtype(dtype), (&device, dtype));
        let ours: Vec<f64> = model.forward(ids, keep, &mut Probe::off()).into_data().iter::<f64>().collect();
        let theirs = Runner::new(&spec, Mode::Exact).unwrap().classify(&tokens, Some(&valid)).unwrap();
        assert!(theirs.iter().any(|x| x.abs() > 0.05), "trivial logits {theirs:?}");
        for (a, b) in ours.iter().zip(&theirs) {
            assert!((a - b).abs() < tolerance, "{a} against {b} in {dtype:?}");
        }
    }
}

#[test]
fn polynomial_mode_is_that_of_the_reference_and_models_can_be_read_back() {
    use cipherlm_model::{FitOptions, Margins};
    use cipherlm_train::probe::Polynomials;
    let config = base(power(Epsilon::Frozen));
    let (exact, model) = logits(&config, DType::F32);
    let params = pull(&model);
    let mut spec = export("parity", &config, &params).unwrap();
    assert_eq!(cipherlm_train::export::import(&spec).unwrap(), (config.clone(), params));

    let windows = vec![TOKENS.to_vec()];
    cipherlm_model::certify(&mut spec, &windows, &windows, &Margins::default()).unwrap();
    // Coarse on purpose, so that polynomials and functions can be told apart.
    let coarse = FitOptions { reciprocal: 0.02, inv_sqrt: 0.02, activation: 0.05, max_degree: 255 };
    cipherlm_model::fit(&mut spec, &coarse).unwrap();
    let polynomials = Polynomials::of(&spec);
    assert_eq!(polynomials.len(), 2 * 4 + 1);
    let mut probe = Probe::off().with_polynomials(Some(polynomials));
    let tokens = token_tensor(&config, &TOKENS, 1, &Device::flex()).unwrap();
    let ours: Vec<f64> = model.forward(tokens, None, &mut probe).into_data().iter::<f64>().collect();
    let theirs = Runner::new(&spec, Mode::Polynomial).unwrap().forward(&TOKENS, Positions::All).unwrap().concat();
    let worst = |a: &[f64]| a.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst(&ours) < 1e-4, "polynomial modes differ by {:e}", worst(&ours));
    assert!(worst(&exact) > 1e-3, "the polynomials changed nothing");
}

#[test]
fn the_shipped_model_is_the_same_in_f64_and_f32() {
    let folder = std::path::Path::new("../../models/stories-2x128");
    let spec = cipherlm_model::Model::load(folder).unwrap();
    let tokenizer = cipherlm_model::Tokenizer::load(&folder.join(cipherlm_model::TOKENIZER_FILE)).unwrap();
    let mut tokens = tokenizer.encode(&cipherlm_train::stories::stories(7, 20)).unwrap();
    tokens.truncate(128);
    let (config, params) = cipherlm_train::export::import(&spec).unwrap();
    let device = Device::flex();
    let logits = |dtype| -> Vec<f64> {
        let model = push(Decoder::new(&config, 0, &device, dtype).unwrap(), &params).unwrap();
        let ids = token_tensor(&config, &tokens, 1, &device).unwrap();
        model.forward(ids, None, &mut Probe::off()).into_data().iter::<f64>().collect()
    };
    let reference = Runner::new(&spec, Mode::Exact).unwrap().forward(&tokens, Positions::All).unwrap().concat();
    assert_eq!(reference.len(), 128 * 512);
    for (dtype, tolerance) in [(DType::F64, 1e-9), (DType::F32, 1e-4)] {
        let worst = logits(dtype).iter().zip(&reference).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        println!("{dtype:?}: logits differ by at most {worst:.1e}");
        assert!(worst < tolerance, "{worst:e} in {dtype:?}");
    }
}
