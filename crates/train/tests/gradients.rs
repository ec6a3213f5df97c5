//! The training kernels (f32) against the composed operators (f64, which the kernels leave alone): loss and every
//! parameter's gradient.

use burn::tensor::{DType, Device};
use cipherlm_train::config::{Attention, Epsilon, Form, ModelConfig, Power};
use cipherlm_train::params::{gradients, pull, push};
use cipherlm_train::probe::Probe;
use cipherlm_train::trainer::{cross_entropy, inputs_and_targets};
use cipherlm_train::transformer::Decoder;

const TEXT: [u32; 24] = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4];

/// Loss and gradients with element type `dtype`, for a model whose every parameter has a value of its own.
fn run(config: &ModelConfig, dtype: DType) -> (f64, Vec<(String, Vec<f32>)>) {
    let device = Device::flex().autodiff();
    let model = Decoder::new(config, 11, &device, dtype).unwrap();
    let mut params = pull(&model);
    for (i, p) in params.iter_mut().enumerate() {
        for (j, x) in p.data.iter_mut().enumerate() {
            let wave = (0.7 * (i * 31 + j) as f32).sin();
            match (p.trained, p.shape.len()) {
                (false, _) => *x = 0.5 + 0.4 * wave,
                (true, 1) => *x += 0.2 * wave,
                (true, _) => *x *= 1.5,
            }
        }
    }
    let model = push(model, &params).unwrap();
    let windows = [&TEXT[..12], &TEXT[12..]];
    let (inputs, targets) = inputs_and_targets(config, &windows, &device).unwrap();
    let loss = cross_entropy(model.forward(inputs, None, &mut Probe::off()), targets);
    let value = loss.clone().into_data().iter::<f64>().next().unwrap();
    let mut grads = loss.backward();
    let names = params.into_iter().map(|p| p.name);
    (value, names.zip(gradients(&model, &mut grads)).collect())
}

fn check(config: &ModelConfig) {
    let (exact, reference) = run(config, DType::F64);
    let (single, fused) = run(config, DType::F32);
    assert!((exact - single).abs() < 1e-5 * exact, "loss {single} against {exact}");
    assert!(exact > 1.0 && reference.len() == fused.len());
    for ((name, want), (_, got)) in reference.iter().zip(&fused) {
        let norm = |v: &[f32]| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let difference: Vec<f32> = want.iter().zip(got).map(|(a, b)| a - b).collect();
        let (error, size) = (norm(&difference), norm(want));
        // Key biases shift whole rows of scores: under softmax their gradient is zero but for rounding.
        let silent = name.ends_with("epsilon") || name.ends_with("key.bias") && config.attention == Attention::Softmax;
        assert!(silent || size > 1e-6, "{name} has no gradient under {:?}", config.attention);
        assert!(error < 2e-4 * size + 1e-7, "{name}: error {error:e} of {size:e} under {:?}", config.attention);
    }
}

fn base(attention: Attention) -> ModelConfig {
    ModelConfig::decoder(17, 16, 2, 24, 3, attention)
}

#[test]
fn softmax() {
    check(&base(Attention::Softmax));
    check(&ModelConfig { bidirectional: true, ..base(Attention::Softmax) });
}

#[test]
fn every_power_form_and_epsilon() {
    for power in [2, 4, 6, 8, 12] {
        for form in [Form::Sum, Form::Stable, Form::Mean] {
            for epsilon in [Epsilon::Absolute(0.6), Epsilon::Relative(1e-2), Epsilon::Frozen] {
                let shift = if power == 4 { 3.0 } else { 0.5 };
                check(&base(Attention::Power(Power { power, shift, form, epsilon })));
            }
        }
    }
}

#[test]
fn other_shapes() {
    let shifted = base(Attention::Power(Power::shipped()));
    check(&ModelConfig { rotary: 4, parallel_residual: true, tied: false, ..shifted.clone() });
    check(&ModelConfig { rotary: 0, learned_positions: true, post_norm: true, bidirectional: true, ..shifted.clone() });
    check(&ModelConfig { bias: false, ..shifted.clone() });
    // More tokens than one chunk of any kernel.
    let wide = ModelConfig { context: 11, width: 48, ..shifted };
    check(&wide);
}
