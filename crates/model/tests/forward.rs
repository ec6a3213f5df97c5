//! The reference forward pass: forms of attention, incremental decoding, files, certification.

use cipherlm_model::{
    Attention, Eps, Error, FitOptions, Kind, Margins, Mode, Model, Norm, Placement, Pool, Positions,
    Residual, Runner, Shape, certify, ensure_certified, fit, random, survey,
};
use cipherlm_testing::Scratch;

fn test_shape() -> Shape {
    Shape::preset("test").unwrap()
}

/// One layer, one head of width 1, weights chosen so that scores and values can be done by hand.
fn tiny(attention: Attention) -> Model {
    let shape = Shape {
        layers: 1,
        d_model: 1,
        heads: 1,
        head_dim: 1,
        ffn: 1,
        vocab: 4,
        context: 4,
        norm: Norm::RmsNorm,
        norm_eps: 0.0,
        bias: false,
        rotary: None,
        attention,
        ..test_shape()
    };
    let mut weights = random::weights_only("tiny", &shape, 0).unwrap().weights().clone();
    let mut set = |name: &str, dims: &[usize], values: Vec<f64>| weights.insert(name, dims, values).unwrap();
    set("embed.tokens", &[4, 1], vec![2.0, -1.0, 0.5, 1.0]);
    // RMSNorm turns every row into its sign, times this gain.
    set("layers.0.norm1.gain", &[1], vec![1.0]);
    for (name, value) in
        [("attn.q", 2.0), ("attn.k", 1.0), ("attn.v", 3.0), ("attn.out", 1.0), ("ffn.up", 0.0)]
    {
        set(&format!("layers.0.{name}.weight"), &[1, 1], vec![value]);
    }
    Model::new("tiny", shape, weights).unwrap()
}

#[test]
fn power_softmax_by_hand() {
    // Tokens 0 (sign +) and 1 (sign -): q = -2 in row 1, keys 1 and -1, so scores -2 and 2; values
    // 3 and -3.
    let mix = |attention| {
        let model = tiny(attention);
        let mut runner = Runner::new(&model, Mode::Exact).unwrap().with_taps();
        runner.forward(&[0, 1], Positions::All).unwrap();
        runner.tap("layers.0.attn.mix").unwrap().to_vec()
    };
    // c = 1: (-1)^4 = 1 and 3^4 = 81; mean 41; eps 2: (1*3 - 81*3)/2/43.
    let got = mix(Attention::PowerSoftmax { p: 4, c: 1.0, eps: Eps::Absolute { value: 2.0 } });
    assert!((got[1] - (-120.0 / 43.0)).abs() < 1e-12, "{got:?}");
    // Row 0 sees itself alone: (2 + 1)^4 = 81, 81*3/83.
    assert!((got[0] - 243.0 / 83.0).abs() < 1e-12);
    // c = 0 keeps magnitudes only: both weights 16, values cancel.
    let got = mix(Attention::PowerSoftmax { p: 4, c: 0.0, eps: Eps::Absolute { value: 2.0 } });
    assert!(got[1].abs() < 1e-12);
    // Relative eps 0.5: 0.5 * 81 against a mean of 41.
    let got = mix(Attention::PowerSoftmax { p: 4, c: 1.0, eps: Eps::Relative { value: 0.5 } });
    assert!((got[1] - (-120.0 / 81.5)).abs() < 1e-12);
    // Frozen eps (1 in the generator) is an absolute eps of 1.
    let got = mix(Attention::PowerSoftmax { p: 4, c: 1.0, eps: Eps::Frozen });
    assert!((got[1] - (-120.0 / 42.0)).abs() < 1e-12);
    // Softmax of -2 and 2.
    let got = mix(Attention::Softmax);
    assert!((got[1] - 3.0 * ((-2f64).exp() - 2f64.exp()) / ((-2f64).exp() + 2f64.exp())).abs() < 1e-12);
}

#[test]
fn incremental_decoding_is_bit_identical() {
    for residual in [Residual::Sequential, Residual::Parallel] {
        let model = random::certified("t", &Shape { residual, ..test_shape() }, 3).unwrap();
        let tokens = &random::windows(model.shape(), 12, 1, 9)[0];
        for mode in [Mode::Exact, Mode::Polynomial] {
            let whole = Runner::new(&model, mode).unwrap().forward(tokens, Positions::All).unwrap();
            let mut runner = Runner::new(&model, mode).unwrap();
            let mut steps = runner.append(&tokens[..5], Positions::All).unwrap();
            for token in &tokens[5..] {
                steps.extend(runner.append(&[*token], Positions::Last).unwrap());
            }
            assert_eq!(whole, steps);
        }
    }
}

#[test]
fn polynomial_mode_follows_the_exact_one() {
    let shapes = [
        test_shape(),
        Shape {
            norm: Norm::RmsNorm,
            bias: false,
            gated: true,
            activation: cipherlm_model::Activation::Silu,
            ..test_shape()
        },
        Shape { tied_head: false, residual: Residual::Parallel, ..test_shape() },
    ];
    for shape in shapes {
        let model = random::certified("t", &shape, 5).unwrap();
        ensure_certified(&model).unwrap();
        let tokens = &random::windows(&shape, 16, 1, 11)[0];
        let run = |mode| Runner::new(&model, mode).unwrap().forward(tokens, Positions::All).unwrap();
        let worst = run(Mode::Exact)
            .iter()
            .flatten()
            .zip(run(Mode::Polynomial).iter().flatten())
            .fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst > 0.0 && worst < 0.02, "{worst}");
    }
}

#[test]
fn encoder_ignores_padding() {
    let shape = Shape {
        kind: Kind::Encoder { classes: 3 },
        placement: Placement::Post,
        rotary: None,
        positions: true,
        embed_norm: true,
        tied_head: false,
        ..test_shape()
    };
    let model = random::certified("e", &shape, 7).unwrap();
    let mut runner = Runner::new(&model, Mode::Exact).unwrap();
    let plain = runner.classify(&[1, 2, 3], None).unwrap();
    let padded = runner.classify(&[1, 2, 3, 9, 9], Some(&[true, true, true, false, false])).unwrap();
    assert_eq!(plain, padded);
    assert_ne!(plain, runner.classify(&[1, 2, 3, 9, 9], None).unwrap());
    assert!(matches!(runner.append(&[1], Positions::Last), Err(Error::Unsupported { .. })));
    assert!(runner.classify(&[1, 2], Some(&[false, false])).is_err());
}

#[test]
fn a_saved_model_computes_the_same_values() {
    let dir = Scratch::new("saved");
    let model = random::certified("saved", &test_shape(), 1).unwrap();
    model.save(&dir).unwrap();
    let again = Model::load(&dir).unwrap();
    assert!(again == model);
    // A weights file from another export is refused by hash.
    random::weights_only("other", &test_shape(), 2).unwrap().save(&dir.join("other")).unwrap();
    std::fs::copy(dir.join("other/weights.safetensors"), dir.join("weights.safetensors")).unwrap();
    assert!(matches!(Model::load(&dir), Err(Error::WeightsHash { .. })));
    std::fs::write(dir.join("model.json"), "{").unwrap();
    assert!(matches!(Model::load(&dir), Err(Error::Malformed { .. })));
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(matches!(Model::load(&dir), Err(Error::File(_))));
}

#[test]
fn bad_weights_and_tokens_are_named() {
    let model = random::weights_only("bad", &test_shape(), 1).unwrap();
    let with = |name: &str, dims: &[usize], data: Vec<f64>| {
        let mut weights = model.weights().clone();
        weights.insert(name, dims, data).unwrap();
        Model::new("bad", test_shape(), weights).unwrap_err()
    };
    assert!(matches!(with("final_norm.gain", &[3], vec![1.0; 3]), Error::TensorShape { .. }));
    assert!(matches!(with("surplus", &[1], vec![1.0]), Error::UnknownTensor { .. }));
    let mut values = vec![1.0; 16];
    values[5] = f64::NAN;
    assert!(matches!(with("final_norm.gain", &[16], values), Error::NotFinite { index: 5, .. }));
    assert!(matches!(
        Model::new("bad", test_shape(), cipherlm_model::Weights::new()),
        Err(Error::MissingTensor { .. })
    ));
    let mut runner = Runner::new(&model, Mode::Exact).unwrap();
    assert!(matches!(runner.forward(&[], Positions::Last), Err(Error::Empty)));
    assert!(matches!(runner.forward(&[32], Positions::Last), Err(Error::UnknownToken { token: 32, .. })));
    assert!(matches!(
        runner.forward(&[0; 17], Positions::Last),
        Err(Error::ContextTooLong { length: 17, context: 16 })
    ));
    assert!(matches!(Runner::new(&model, Mode::Polynomial), Err(Error::NoScheme { .. })));
}

#[test]
fn violations_are_counted_and_refused() {
    let mut model = random::weights_only("v", &test_shape(), 1).unwrap();
    let windows = random::windows(model.shape(), 16, 8, 4);
    // Margins below 1 certify ranges that the calibration text itself leaves.
    let tight = Margins { activation: 0.2, ..Margins::default() };
    certify(&mut model, &windows[..4], &windows[4..], &tight).unwrap();
    fit(&mut model, &FitOptions::default()).unwrap();
    let error = ensure_certified(&model).unwrap_err();
    assert!(matches!(&error, Error::Violated { site, .. } if site == "layers.0.ffn.activation"), "{error}");
    let reports = survey(&model, &windows, Mode::Exact).unwrap();
    assert!(reports.iter().any(|r| r.violations > 0 && r.site == "layers.0.ffn.activation"));
    certify(&mut model, &windows[..4], &windows[4..], &Margins::default()).unwrap();
    fit(&mut model, &FitOptions::default()).unwrap();
    ensure_certified(&model).unwrap();
}

/// What calibration saw lies in the range by construction: the refusal names what was seen where
/// the range was left.
#[test]
fn a_violation_names_what_left_the_range() {
    let mut model = random::weights_only("v", &test_shape(), 1).unwrap();
    let windows = random::windows(model.shape(), 16, 9, 4);
    let margins = Margins { activation: 1.0, magnitude: 1.0, variance: 1.0, denominator: 1.0 };
    certify(&mut model, &windows[..1], &windows[1..], &margins).unwrap();
    for site in &model.spec().sites {
        assert_eq!(site.held_out.is_some(), site.violations > 0, "{}", site.name);
    }
    let Err(Error::Violated { lo, hi, min, max, .. }) = ensure_certified(&model) else {
        panic!("one window without margins cannot hold eight others");
    };
    assert!(min < lo || max > hi, "[{min}, {max}] lies in [{lo}, {hi}]");
}

#[test]
fn a_model_whose_weights_were_written_elsewhere_is_saved_whole() {
    let shape = Shape::preset("test").unwrap();
    let model = random::weights_only("doubles", &shape, 7).unwrap();
    // The same tensors in another type, with values between two of f32, and the last tensor first.
    let (mut header, mut data) = (String::from("{"), Vec::new());
    for (name, tensor) in model.weights().iter().collect::<Vec<_>>().into_iter().rev() {
        let from = data.len();
        data.extend(tensor.data.iter().flat_map(|x| (x * (1.0 + 1e-12)).to_le_bytes()));
        let comma = if from == 0 { "" } else { "," };
        header += &format!(
            "{comma}\"{name}\":{{\"dtype\":\"F64\",\"shape\":{:?},\"data_offsets\":[{from},{}]}}",
            tensor.dims,
            data.len()
        );
    }
    header.push('}');
    let weights = [(header.len() as u64).to_le_bytes().as_slice(), header.as_bytes(), &data].concat();
    let description = serde_json::to_string(model.spec()).unwrap();
    let hash = blake3::hash(&weights).to_hex().to_string();
    let description = description.replace(&model.spec().weights_blake3, &hash);
    let read = Model::from_parts(&description, &weights).unwrap();
    let folder = Scratch::new("doubles");
    read.save(&folder).unwrap();
    let again = Model::load(&folder).unwrap();
    assert!(again.weights() == read.weights() && again.shape() == read.shape());
}

#[test]
fn public_tokens_are_the_beginning_of_every_text() {
    let shape = Shape { kv_heads: Some(1), ..test_shape() };
    let plain = random::certified("plain", &shape, 1).unwrap();
    let model = plain.clone().with_prefix(vec![1, 9, 4]).unwrap();
    let text = &random::windows(&shape, 6, 1, 5)[0];
    let whole: Vec<u32> = [1, 9, 4].iter().chain(text).copied().collect();
    let mut runner = Runner::new(&model, Mode::Exact).unwrap().with_taps();
    let rows = runner.forward(text, Positions::All).unwrap();
    let wanted = Runner::new(&plain, Mode::Exact).unwrap().forward(&whole, Positions::All).unwrap();
    assert_eq!(rows, wanted[3..]);
    // A second text begins with them too, and nothing is reported of them.
    assert_eq!(runner.forward(text, Positions::All).unwrap(), rows);
    assert_eq!(runner.position(), 9);
    assert_eq!(runner.tap("embed").unwrap().len(), 6 * shape.d_model);
    let embedded = runner.stats().find(|(name, ..)| *name == "embed").unwrap().2.observed.count;
    assert_eq!(embedded, 2 * 6 * shape.d_model as u64);
    let (keys, values) = runner.keys_and_values(1).unwrap();
    assert_eq!((keys.len(), values.len()), (9 * shape.key_width(), 9 * shape.key_width()));
    assert!(runner.keys_and_values(2).is_none());
    // Their own rows are exact even where the text's are polynomials.
    let cached = |mode| Runner::new(&model, mode).unwrap().keys_and_values(1).unwrap().0.to_vec();
    assert_eq!(cached(Mode::Polynomial), cached(Mode::Exact));
    assert_eq!(model.behind_prefix(&whole), text.as_slice());
    assert_eq!(model.behind_prefix(text), text.as_slice());
    // Certification leaves them out and keeps them.
    let mut again = model.clone();
    certify(&mut again, std::slice::from_ref(text), &[], &Margins::default()).unwrap();
    assert_eq!(again.site("embed").unwrap().observed.count, 6 * shape.d_model as u64);
    assert_eq!(again.spec().prefix, [1, 9, 4]);
    assert!(plain.clone().with_prefix(vec![1; shape.context]).is_err(), "no room for a text");
    assert!(plain.clone().with_prefix(vec![999]).is_err());
    let encoder = Shape { kind: Kind::Encoder { classes: 2 }, ..test_shape() };
    assert!(random::weights_only("encoder", &encoder, 1).unwrap().with_prefix(vec![1]).is_err());
}

#[test]
fn what_a_client_computes_is_exact_in_both_modes() {
    let shape = Shape { embed_norm: true, ..test_shape() };
    let model = random::certified("normed", &shape, 1).unwrap();
    let embedded = |mode| Runner::new(&model, mode).unwrap().embed(&[1, 2, 3], 0).unwrap();
    assert_eq!(embedded(Mode::Polynomial), embedded(Mode::Exact));
}

#[test]
fn a_range_is_left_below_or_above() {
    let model = random::certified("sided", &test_shape(), 1).unwrap();
    let folder = Scratch::new("sided");
    let window = &random::windows(model.shape(), 16, 1, 4)[0];
    let seen = |model: &Model| {
        let mut runner = Runner::new(model, Mode::Exact).unwrap();
        runner.forward(window, Positions::All).unwrap();
        let stats = runner.stats().find(|(name, ..)| *name == "layers.0.hidden").unwrap().2;
        (stats.observed.min, stats.observed.max, stats.violations)
    };
    let (min, max, none) = seen(&model);
    assert!(min < 0.0 && max > 0.0 && none == 0, "{min} {max}");
    model.save(&folder).unwrap();
    let file = folder.join("model.json");
    let text = std::fs::read_to_string(&file).unwrap();
    // The largest value alone is out, the smallest alone, and neither.
    for (lo, hi, expected) in [(min, 0.999 * max, 1), (0.999 * min, max, 1), (min, max, 0)] {
        let mut spec: serde_json::Value = serde_json::from_str(&text).unwrap();
        let sites = spec["sites"].as_array_mut().unwrap();
        let site = sites.iter_mut().find(|site| site["name"] == "layers.0.hidden").unwrap();
        site["range"] = serde_json::json!({"lo": lo, "hi": hi});
        std::fs::write(&file, spec.to_string()).unwrap();
        assert_eq!(seen(&Model::load(&folder).unwrap()).2, expected, "[{lo}, {hi}]");
    }
}

#[test]
fn vectors_of_rows_by_hand() {
    let rows = [3.0, 0.0, 0.0, 4.0, 100.0, 100.0];
    let close = |found: Vec<f64>, wanted: [f64; 2]| {
        assert!(
            found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-15) && found.len() == 2,
            "{found:?}"
        );
    };
    close(Pool::Mean.vector(&rows, 2, Some(&[true, true, false])), [0.6, 0.8]);
    close(Pool::Mean.vector(&rows[..4], 2, None), [0.6, 0.8]);
    close(Pool::First.vector(&rows, 2, None), [1.0, 0.0]);
    close(Pool::Mean.vector(&[0.0; 4], 2, None), [0.0, 0.0]);
}

#[test]
fn a_sentence_is_its_pooled_hidden_states() {
    let shape = |pool| Shape {
        kind: Kind::Embedder { pool },
        placement: Placement::Post,
        rotary: None,
        positions: true,
        embed_norm: true,
        tied_head: false,
        ..test_shape()
    };
    for pool in [Pool::Mean, Pool::First] {
        let model = random::weights_only("s", &shape(pool), 7).unwrap();
        let mut runner = Runner::new(&model, Mode::Exact).unwrap();
        let mask = [true, true, true, false, false];
        let hidden = runner.hidden(&[1, 2, 3, 9, 9], Some(&mask)).unwrap();
        assert_eq!(hidden.len(), 5 * model.shape().d_model);
        let vector = runner.sentence(&[1, 2, 3, 9, 9], Some(&mask)).unwrap();
        assert_eq!(vector, pool.vector(&hidden, model.shape().d_model, Some(&mask)));
        assert!((vector.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-12);
        assert_eq!(runner.hidden(&[1, 2, 3], None).unwrap(), hidden[..3 * model.shape().d_model]);
    }
}

#[test]
fn a_mean_of_pointwise_weights_divides_by_the_keys() {
    let mix = |mean| {
        let model = tiny(Attention::Pointwise { mean });
        let mut runner = Runner::new(&model, Mode::Exact).unwrap().with_taps();
        runner.forward(&[0, 1], Positions::All).unwrap();
        runner.tap("layers.0.attn.mix").unwrap().to_vec()
    };
    let (sum, mean) = (mix(false), mix(true));
    assert!(sum[1].abs() > 0.1 && (sum[0], sum[1]) == (mean[0], 2.0 * mean[1]), "{sum:?} {mean:?}");
}

#[test]
fn functions_without_a_polynomial_are_refused_as_polynomials() {
    let relative = Attention::PowerSoftmax { p: 4, c: 1.0, eps: Eps::Relative { value: 0.5 } };
    for attention in [Attention::Softmax, relative] {
        let refused = Runner::new(&tiny(attention), Mode::Polynomial).map(drop).unwrap_err();
        assert!(matches!(refused, Error::Unsupported { operation: "polynomial mode", .. }), "{refused}");
    }
}

#[test]
fn learned_positions_go_on_where_a_text_stopped() {
    let shape = Shape { positions: true, rotary: None, ..test_shape() };
    let model = random::weights_only("p", &shape, 3).unwrap();
    let tokens = &random::windows(&shape, 12, 1, 9)[0];
    let mut runner = Runner::new(&model, Mode::Exact).unwrap();
    let whole = runner.forward(tokens, Positions::All).unwrap();
    assert_eq!(runner.forward(tokens, Positions::Last).unwrap(), whole[11..]);
    runner.reset();
    let mut steps = runner.append(&tokens[..5], Positions::Last).unwrap();
    assert_eq!(steps, whole[4..5]);
    for token in &tokens[5..] {
        steps.extend(runner.append(&[*token], Positions::Last).unwrap());
    }
    assert_eq!(steps, whole[4..]);
}
