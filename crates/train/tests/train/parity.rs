//! The same model three times: burn f32, burn f64, and the plain f64 reference of the data model.

use crate::common::{arch, decoder, encoder, vary};
use burn::tensor::{DType, Device, Tensor, TensorData};
use cipherlm_model::{Activation, Attention, Eps, Kind, Mode, Model, Norm, Placement, Positions, Residual};
use cipherlm_model::{Rotary, Runner, Shape};
use cipherlm_train::arch::{Arch, Form, shifted};
use cipherlm_train::export::{export, import};
use cipherlm_train::params::{HostParam, pull, push};
use cipherlm_train::probe::{Probe, Site};
use cipherlm_train::transformer::{Transformer, token_tensor};

const TOKENS: [u32; 11] = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5];

fn base(attention: Attention) -> Shape {
    decoder(17, 16, 2, 24, 3, attention)
}

fn power(eps: Eps) -> Attention {
    crate::common::power(4, 3.0, eps)
}

const SMALL: Eps = Eps::Absolute { value: 0.5 };

/// A model with weights that leave nothing trivial.
fn varied(arch: &Arch, dtype: DType) -> (Transformer, Vec<HostParam>) {
    let model = Transformer::new(arch, 5, &Device::flex(), dtype).unwrap();
    let mut params = pull(&model);
    vary(&mut params);
    (push(model, &params).unwrap(), params)
}

fn logits(arch: &Arch, dtype: DType) -> (Vec<f64>, Vec<HostParam>) {
    let (model, params) = varied(arch, dtype);
    let tokens = token_tensor(arch, &TOKENS, 1, &Device::flex()).unwrap();
    let out = model.forward(tokens, None, &mut Probe::off());
    (out.into_data().iter::<f64>().collect(), params)
}

fn worst(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn check(shape: Shape) {
    let arch = arch(shape);
    let (double, params) = logits(&arch, DType::F64);
    let (single, _) = logits(&arch, DType::F32);
    let model = export("parity", &arch, &params).unwrap();
    let reference =
        Runner::new(&model, Mode::Exact).unwrap().forward(&TOKENS, Positions::All).unwrap().concat();
    let largest = reference.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    assert!(largest > 0.01, "trivial logits: {largest}");
    // Small logits are held to as much of themselves.
    let unit = (largest / 0.1).min(1.0);
    let errors = [worst(&double, &reference), worst(&single, &reference)];
    assert!(
        errors[0] < 1e-9 * unit && errors[1] < 1e-4 * unit,
        "f64 and f32 differ by {errors:?} for {arch:?}"
    );
}

/// Class logits of both sides, with padding.
fn check_encoder(shape: Shape) {
    let arch = arch(shape);
    let tokens = [3, 1, 4, 1, 5, 0, 0];
    let valid = [true, true, true, true, true, false, false];
    for (dtype, tolerance) in [(DType::F64, 1e-9), (DType::F32, 1e-4)] {
        let (model, params) = varied(&arch, dtype);
        let keep = TensorData::new(valid.map(|v| f64::from(u8::from(v))).to_vec(), [1, 7]);
        let keep = Tensor::from_data(keep.convert_dtype(dtype), (&Device::flex(), dtype));
        let ids = token_tensor(&arch, &tokens, 1, &Device::flex()).unwrap();
        let ours = model
            .classify(ids, keep, &mut Probe::off())
            .unwrap()
            .into_data()
            .iter::<f64>()
            .collect::<Vec<_>>();
        let model = export("encoder", &arch, &params).unwrap();
        let theirs = Runner::new(&model, Mode::Exact).unwrap().classify(&tokens, Some(&valid)).unwrap();
        assert!(theirs.iter().any(|x| x.abs() > 0.05), "trivial logits {theirs:?}");
        assert!(worst(&ours, &theirs) < tolerance, "{ours:?} against {theirs:?} in {dtype:?} for {arch:?}");
    }
}

fn bert(attention: Attention) -> Shape {
    encoder(base(attention), 3)
}

#[test]
fn parameters_are_the_tensors_of_the_data_model_in_its_order() {
    let frozen = base(power(Eps::Frozen));
    let llama = Shape { norm: Norm::RmsNorm, gated: true, bias: false, ..base(Attention::Softmax) };
    let untied = Shape { tied_head: false, residual: Residual::Parallel, ..base(power(SMALL)) };
    let wide = Shape { head_dim: 16, ..base(power(SMALL)) };
    let shapes = [
        lean(frozen.clone()),
        lean(llama.clone()),
        frozen,
        llama,
        untied,
        wide,
        bert(power(SMALL)),
        Shape { placement: Placement::Pre, ..bert(power(SMALL)) },
    ];
    for shape in shapes {
        let model = Transformer::new(&arch(shape.clone()), 1, &Device::flex(), DType::F32).unwrap();
        let own: Vec<(String, Vec<usize>)> = pull(&model).into_iter().map(|p| (p.name, p.shape)).collect();
        assert_eq!(own, shape.tensors());
    }
}

#[test]
fn gpt_shape_with_every_epsilon() {
    for eps in [Eps::Absolute { value: 0.81 }, Eps::Relative { value: 1e-3 }, Eps::Frozen] {
        check(base(power(eps)));
    }
}

#[test]
fn softmax_and_pointwise() {
    check(base(Attention::Softmax));
    check(base(Attention::Pointwise { mean: true }));
    check(base(Attention::Pointwise { mean: false }));
}

#[test]
fn pythia_shape() {
    check(Shape {
        rotary: Some(Rotary { dims: 4, base: 1e4 }),
        residual: Residual::Parallel,
        tied_head: false,
        ..base(power(Eps::Absolute { value: 0.1 }))
    });
}

#[test]
fn llama_shape() {
    check(Shape {
        norm: Norm::RmsNorm,
        activation: Activation::Silu,
        gated: true,
        bias: false,
        rotary: Some(Rotary { dims: 8, base: 100_000.0 }),
        ..base(power(Eps::Frozen))
    });
}

/// Every norm frozen and quadratic activations.
fn lean(shape: Shape) -> Shape {
    Shape { frozen_norms: shape.norms(), activation: Activation::Quadratic, ..shape }
}

#[test]
fn lean_shapes() {
    check(lean(base(power(Eps::Frozen))));
    let parallel = Shape { residual: Residual::Parallel, tied_head: false, ..base(power(SMALL)) };
    check(lean(parallel));
    check(lean(Shape { norm: Norm::RmsNorm, gated: true, bias: false, ..base(power(SMALL)) }));
    // One of each kind.
    let (one, quadratic) = (vec!["layers.1.norm2".into()], Activation::Quadratic);
    check(Shape { frozen_norms: one, ..base(power(SMALL)) });
    check(Shape { activation: quadratic, ..base(power(SMALL)) });
}

#[test]
fn decoder_that_normalises_sums() {
    check(Shape { placement: Placement::Post, embed_norm: true, positions: true, ..base(power(SMALL)) });
}

#[test]
fn encoders_normalise_where_their_shape_says() {
    for attention in [power(SMALL), Attention::Softmax] {
        check_encoder(bert(attention));
        // Normalised before the branches and once more before the pooler.
        check_encoder(Shape { placement: Placement::Pre, ..bert(attention) });
        check_encoder(Shape {
            placement: Placement::Pre,
            embed_norm: false,
            positions: false,
            ..bert(attention)
        });
    }
}

#[test]
fn stable_and_mean_forms_give_the_same_logits() {
    let frozen = crate::common::power(6, 1.0, Eps::Frozen);
    let run = |form| logits(&Arch { form, ..Arch::new(base(frozen)) }, DType::F64).0;
    for form in [Form::Stable, Form::Sum] {
        let error = worst(&run(form), &run(Form::Mean));
        assert!(error < 1e-10, "{form:?}: {error:e}");
    }
}

#[test]
fn a_causal_model_does_not_see_the_future_nor_an_encoder_its_padding() {
    let device = Device::flex();
    for attention in [Attention::Softmax, Attention::Pointwise { mean: true }, power(SMALL)] {
        let arch = arch(base(attention));
        let model = Transformer::new(&arch, 1, &device, DType::F64).unwrap();
        let run = |tokens: &[u32]| {
            let t = token_tensor(&arch, tokens, 1, &device).unwrap();
            model.forward(t, None, &mut Probe::off()).into_data().iter::<f64>().collect::<Vec<_>>()
        };
        let (a, b) = (run(&[1, 2, 3, 4]), run(&[1, 2, 3, 9]));
        let early = 3 * arch.shape.vocab;
        assert!(a[..early].iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-12));
        assert!(a[early..].iter().zip(&b[early..]).any(|(a, b)| (a - b).abs() > 1e-6));
    }
    let arch = arch(bert(power(SMALL)));
    let model = Transformer::new(&arch, 1, &device, DType::F64).unwrap();
    let run = |tokens: &[u32]| {
        let t = token_tensor(&arch, tokens, 1, &device).unwrap();
        let keep =
            Tensor::from_data(TensorData::new(vec![1., 1., 1., 0., 0.], [1, 5]), (&device, DType::F64));
        model.classify(t, keep, &mut Probe::off()).unwrap().into_data().iter::<f64>().collect::<Vec<_>>()
    };
    let (a, b, other) = (run(&[1, 2, 3, 0, 0]), run(&[1, 2, 3, 7, 9]), run(&[1, 2, 4, 0, 0]));
    assert!(worst(&a, &b) < 1e-12, "padding reaches the pooled output");
    assert!(worst(&a, &other) > 1e-6, "a token does not reach it");
}

#[test]
fn probe_reports_ranges() {
    let arch = arch(Shape { gated: true, ..base(power(SMALL)) });
    let model = Transformer::new(&arch, 1, &Device::flex(), DType::F32).unwrap();
    let mut probe = Probe::observe();
    model.forward(token_tensor(&arch, &TOKENS, 1, &Device::flex()).unwrap(), None, &mut probe);
    let scores = probe.ranges()[&(Site::Scores, 1)];
    assert!(scores.lo < 3.0 && scores.hi > 3.0, "shift included: {scores:?}");
    for site in [Site::RowMean, Site::AttentionNorm, Site::FeedForwardNorm] {
        assert!(probe.ranges()[&(site, 0)].lo >= 0.0, "{site:?}");
    }
    for site in [Site::FeedForward, Site::Product, Site::Hidden] {
        let range = probe.ranges()[&(site, 1)];
        assert!(range.lo < 0.0 && range.hi > 0.0, "{site:?} {range:?}");
    }
    assert_eq!(probe.ranges().keys().filter(|(site, _)| *site == Site::FinalNorm).count(), 1);
}

#[test]
fn polynomial_mode_is_that_of_the_reference_and_models_can_be_read_back() {
    use cipherlm_model::{FitOptions, Margins};
    use cipherlm_train::probe::Polynomials;
    let arch = arch(base(power(Eps::Frozen)));
    let (exact, params) = logits(&arch, DType::F32);
    let mut model = export("parity", &arch, &params).unwrap();
    assert_eq!(import(&model).unwrap(), (arch.clone(), params.clone()));

    let windows = vec![TOKENS.to_vec()];
    cipherlm_model::certify(&mut model, &windows, &windows, &Margins::default()).unwrap();
    // Coarse on purpose, so that polynomials and functions can be told apart.
    let coarse = FitOptions { reciprocal: 0.02, inv_sqrt: 0.02, activation: 0.05, max_degree: 255 };
    cipherlm_model::fit(&mut model, &coarse).unwrap();
    let polynomials = Polynomials::of(&model);
    assert_eq!(polynomials.len(), 2 * 4 + 1);
    let mut probe = Probe::off().with_polynomials(Some(polynomials));
    let tokens = token_tensor(&arch, &TOKENS, 1, &Device::flex()).unwrap();
    let transformer = Transformer::with_params(&arch, &params, &Device::flex()).unwrap();
    let ours: Vec<f64> = transformer.forward(tokens, None, &mut probe).into_data().iter::<f64>().collect();
    let theirs =
        Runner::new(&model, Mode::Polynomial).unwrap().forward(&TOKENS, Positions::All).unwrap().concat();
    assert!(worst(&ours, &theirs) < 1e-4, "polynomial modes differ by {:e}", worst(&ours, &theirs));
    assert!(worst(&exact, &theirs) > 1e-3, "the polynomials changed nothing");
}

#[test]
fn the_shipped_model_is_the_same_in_f64_and_f32() {
    let folder = std::path::Path::new("../../models/stories-2x128");
    let model = Model::load(folder).unwrap();
    let tokenizer = cipherlm_model::Tokenizer::load(&folder.join(cipherlm_model::TOKENIZER_FILE)).unwrap();
    let mut tokens = tokenizer.encode(&cipherlm_train::stories::stories(7, 20)).unwrap();
    tokens.truncate(128);
    let (arch, params) = import(&model).unwrap();
    let device = Device::flex();
    let logits = |dtype| -> Vec<f64> {
        let model = push(Transformer::new(&arch, 0, &device, dtype).unwrap(), &params).unwrap();
        let ids = token_tensor(&arch, &tokens, 1, &device).unwrap();
        model.forward(ids, None, &mut Probe::off()).into_data().iter::<f64>().collect()
    };
    let reference =
        Runner::new(&model, Mode::Exact).unwrap().forward(&tokens, Positions::All).unwrap().concat();
    assert_eq!(reference.len(), 128 * 512);
    for (dtype, tolerance) in [(DType::F64, 1e-9), (DType::F32, 1e-4)] {
        let error = worst(&logits(dtype), &reference);
        println!("{dtype:?}: logits differ by at most {error:.1e}");
        assert!(error < tolerance, "{error:e} in {dtype:?}");
    }
}

#[test]
fn what_the_data_model_lacks_is_not_exported() {
    let arch = Arch { form: Form::Stable, ..Arch::new(base(shifted(4, 3.0))) };
    let params = pull(&Transformer::new(&arch, 1, &Device::flex(), DType::F32).unwrap());
    let error = export("stable", &arch, &params).unwrap_err().to_string();
    assert!(error.contains("form") && error.contains("Stable"), "{error}");
    // A classifier head is part of an encoder's shape, a wrong one is refused by name.
    let arch = Arch::new(Shape { kind: Kind::Encoder { classes: 3 }, ..bert(power(SMALL)) });
    let mut params = pull(&Transformer::new(&arch, 1, &Device::flex(), DType::F32).unwrap());
    params.pop();
    let error = export("headless", &arch, &params).unwrap_err().to_string();
    assert!(error.contains("classifier.bias"), "{error}");
}
