//! The training kernels (f32) against the composed operators (f64, which the kernels leave alone):
//! loss and every parameter's gradient.

use crate::common::{decoder, power};
use burn::tensor::{DType, Device};
use cipherlm_model::{Activation, Attention, Eps, Kind, Placement, Residual, Rotary, Shape};
use cipherlm_train::arch::{Arch, Form, shifted};
use cipherlm_train::loss::{cross_entropy, divergence, inputs_and_targets};
use cipherlm_train::params::{gradients, pull, push};
use cipherlm_train::probe::{Limits, Probe};
use cipherlm_train::transformer::Transformer;

const TEXT: [u32; 24] = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4];

/// Loss and gradients with element type `dtype`, for a model whose every parameter has a value of
/// its own.
fn run(arch: &Arch, dtype: DType) -> (f64, Vec<(String, Vec<f32>)>) {
    run_under(arch, dtype, Probe::off())
}

/// The same with the range loss of a probe.
fn run_under(arch: &Arch, dtype: DType, mut probe: Probe) -> (f64, Vec<(String, Vec<f32>)>) {
    let device = Device::flex().autodiff();
    let model = Transformer::new(arch, 11, &device, dtype).unwrap();
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
    let (inputs, targets) = inputs_and_targets(arch, &windows, &device).unwrap();
    let loss = cross_entropy(model.forward(inputs, None, &mut probe), targets);
    let loss = match probe.take_penalty() {
        Some(penalty) => loss.add(penalty),
        None => loss,
    };
    let value = loss.clone().into_data().iter::<f64>().next().unwrap();
    let mut grads = loss.backward();
    let names = params.into_iter().map(|p| p.name);
    (value, names.zip(gradients(&model, &mut grads)).collect())
}

fn check(arch: &Arch) {
    compare(arch, run);
}

type Run = fn(&Arch, DType) -> (f64, Vec<(String, Vec<f32>)>);

fn compare(arch: &Arch, run: Run) {
    let (exact, reference) = run(arch, DType::F64);
    let (single, fused) = run(arch, DType::F32);
    assert!((exact - single).abs() < 1e-5 * exact, "loss {single} against {exact}");
    assert!(exact > 0.1 && reference.len() == fused.len());
    for ((name, want), (_, got)) in reference.iter().zip(&fused) {
        let norm = |v: &[f32]| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let difference: Vec<f32> = want.iter().zip(got).map(|(a, b)| a - b).collect();
        let (error, size) = (norm(&difference), norm(want));
        // Key biases shift whole rows of scores: under softmax their gradient is zero but for
        // rounding.
        let silent = name.ends_with("attn.eps")
            || name.ends_with("k.bias") && arch.shape.attention == Attention::Softmax;
        assert!(silent || size > 1e-6, "{name} has no gradient under {:?}", arch.shape.attention);
        assert!(
            error < 2e-4 * size + 1e-7,
            "{name}: error {error:e} of {size:e} under {:?}",
            arch.shape.attention
        );
    }
}

fn base(attention: Attention) -> Shape {
    decoder(17, 16, 2, 24, 3, attention)
}

fn mean(shape: Shape) {
    check(&Arch::new(shape));
}

#[test]
fn softmax() {
    mean(base(Attention::Softmax));
}

#[test]
fn every_power_form_and_epsilon() {
    for p in [2, 4, 6, 8, 12, 16] {
        for form in [Form::Sum, Form::Stable, Form::Mean] {
            for eps in [Eps::Absolute { value: 0.6 }, Eps::Relative { value: 1e-2 }, Eps::Frozen] {
                let c = if p == 4 { 3.0 } else { 0.5 };
                check(&Arch { form, ..Arch::new(base(power(p, c, eps))) });
            }
        }
    }
}

#[test]
fn gated_layers() {
    for activation in [Activation::Silu, Activation::Gelu] {
        mean(Shape { gated: true, bias: false, activation, ..base(shifted(4, 3.0)) });
    }
}

#[test]
fn divergence_from_a_teacher() {
    /// The divergence of logits from those of another model, and its gradients; the teacher says
    /// the same in both types.
    fn run_taught(arch: &Arch, dtype: DType) -> (f64, Vec<(String, Vec<f32>)>) {
        let device = Device::flex();
        let teacher = Transformer::new(arch, 3, &device, dtype).unwrap();
        let windows = [&TEXT[..12], &TEXT[12..]];
        let (inputs, _) = inputs_and_targets(arch, &windows, &device).unwrap();
        // Logits that are large and far from zero.
        let wanted = teacher.forward(inputs, None, &mut Probe::off()).mul_scalar(9.0).add_scalar(40.0);
        let device = device.autodiff();
        let model = Transformer::new(arch, 11, &device, dtype).unwrap();
        let mut params = pull(&model);
        crate::common::vary(&mut params);
        let model = push(model, &params).unwrap();
        let (inputs, _) = inputs_and_targets(arch, &windows, &device).unwrap();
        let loss = divergence(wanted, model.forward(inputs, None, &mut Probe::off()), 1.5);
        let value = loss.clone().into_data().iter::<f64>().next().unwrap();
        let mut grads = loss.backward();
        let names = params.into_iter().map(|p| p.name);
        (value, names.zip(gradients(&model, &mut grads)).collect())
    }
    compare(&Arch::new(base(shifted(4, 3.0))), run_taught);
}

#[test]
fn limits_of_rows() {
    fn run_limited(arch: &Arch, dtype: DType) -> (f64, Vec<(String, Vec<f32>)>) {
        let free = Limits { scores: None, feed_forward: None, ..Limits::default() };
        let limits = match arch.shape.attention {
            Attention::PowerSoftmax { eps: Eps::Frozen, .. } => Limits { row_ratio: Some(0.01), ..free },
            _ => Limits { row_mean: Some(0.02), ..free },
        };
        let (bare, limited) = (run(arch, dtype), run_under(arch, dtype, Probe::penalise(limits)));
        assert!(limited.0 > bare.0 + 1.0, "the limits are passed: {} after {}", limited.0, bare.0);
        limited
    }
    // Of an epsilon of 1e-9 every row has too many for the kernel to tell.
    for (p, value) in [(2, 0.6), (4, 0.6), (4, 1e-9)] {
        for form in [Form::Sum, Form::Mean] {
            for eps in [Eps::Absolute { value }, Eps::Frozen] {
                compare(&Arch { form, ..Arch::new(base(power(p, 0.8, eps))) }, run_limited);
            }
        }
    }
}

#[test]
fn other_shapes() {
    let shifted = base(shifted(4, 3.0));
    mean(Shape {
        rotary: Some(Rotary { dims: 4, base: 1e4 }),
        residual: Residual::Parallel,
        tied_head: false,
        ..shifted.clone()
    });
    mean(Shape {
        rotary: None,
        positions: true,
        placement: Placement::Post,
        embed_norm: true,
        ..shifted.clone()
    });
    mean(Shape { bias: false, ..shifted.clone() });
    // Heads that do not fill the width.
    mean(Shape { head_dim: 4, rotary: Some(Rotary { dims: 4, base: 1e4 }), ..shifted.clone() });
    // Heads wide enough for matrix products.
    for attention in [Attention::Softmax, shifted.attention] {
        mean(Shape { d_model: 64, head_dim: 32, attention, ..shifted.clone() });
    }
    // More tokens than one chunk of any kernel.
    mean(Shape { context: 11, d_model: 48, head_dim: 16, ffn: 192, ..shifted });
}

/// Class logits and their gradients.
fn run_encoder(arch: &Arch, dtype: DType) -> (f64, Vec<(String, Vec<f32>)>) {
    let device = Device::flex().autodiff();
    let model = Transformer::new(arch, 11, &device, dtype).unwrap();
    let mut params = pull(&model);
    crate::common::vary(&mut params);
    let model = push(model, &params).unwrap();
    let tokens = cipherlm_train::transformer::token_tensor(arch, &TEXT[..14], 2, &device).unwrap();
    let keep = burn::tensor::TensorData::new([[1.0f32; 7], [1., 1., 1., 1., 0., 0., 0.]].concat(), [2, 7]);
    let keep = burn::tensor::Tensor::from_data(keep.convert_dtype(dtype), (&device, dtype));
    let logits = model.classify(tokens, keep, &mut Probe::off()).unwrap();
    let [count, classes] = logits.dims();
    let loss = cross_entropy(logits.reshape([count, 1, classes]), vec![0, 2]);
    let value = loss.clone().into_data().iter::<f64>().next().unwrap();
    let mut grads = loss.backward();
    let names = params.into_iter().map(|p| p.name);
    (value, names.zip(gradients(&model, &mut grads)).collect())
}

#[test]
fn encoders_with_padding() {
    for attention in [Attention::Softmax, shifted(4, 3.0)] {
        for placement in [Placement::Pre, Placement::Post] {
            let shape = crate::common::encoder(base(attention), 3);
            let shape = Shape { placement, kind: Kind::Encoder { classes: 3 }, ..shape };
            compare(&Arch::new(shape), run_encoder);
        }
    }
}
