//! Losses, and the tensors that they compare.

use std::sync::Arc;

use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::arch::Arch;
use crate::error::Result;
use crate::fused;
use crate::probe::Probe;
use crate::settings::Distil;
use crate::transformer::{check_tokens, token_tensor};

/// Splits windows of `context + 1` tokens into inputs `[batch, context]` and `batch * context` next
/// tokens.
pub fn inputs_and_targets(
    arch: &Arch,
    windows: &[&[u32]],
    device: &Device,
) -> Result<(Tensor<2, Int>, Vec<u32>)> {
    let inputs: Vec<u32> = windows.iter().flat_map(|w| &w[..w.len() - 1]).copied().collect();
    let targets: Vec<u32> = windows.iter().flat_map(|w| &w[1..]).copied().collect();
    check_tokens(arch, &targets)?;
    Ok((token_tensor(arch, &inputs, windows.len(), device)?, targets))
}

/// Sentences as token ids `[batch, rows]`, padded at the end, and 1 for tokens and 0 for padding.
pub fn padded(arch: &Arch, sentences: &[&[u32]], device: &Device) -> Result<(Tensor<2, Int>, Tensor<2>)> {
    let rows = sentences.iter().map(|s| s.len()).max().unwrap_or(1);
    let (mut ids, mut keep) = (vec![0u32; sentences.len() * rows], vec![0.0f32; sentences.len() * rows]);
    for (i, sentence) in sentences.iter().enumerate() {
        ids[i * rows..][..sentence.len()].copy_from_slice(sentence);
        keep[i * rows..][..sentence.len()].fill(1.0);
    }
    let keep = TensorData::new(keep, [sentences.len(), rows]);
    Ok((token_tensor(arch, &ids, sentences.len(), device)?, Tensor::from_data(keep, (device, DType::F32))))
}

/// One minus the cosine of every row with its counterpart, averaged. The wanted rows are on the
/// plain device.
pub fn cosine_distance(wanted: Tensor<2>, found: Tensor<2>) -> Tensor<1> {
    let size = |x: &Tensor<2>| x.clone().mul(x.clone()).sum_dim(1).clamp_min(1e-24).sqrt();
    let unit = wanted.clone().div(size(&wanted));
    let cosine = Tensor::from_inner(unit).mul(found.clone().div(size(&found))).sum_dim(1);
    cosine.mean().neg().add_scalar(1.0)
}

/// Mean cross-entropy in nats of logits `[batch, rows, vocab]` against `batch * rows` targets below
/// `vocab`.
pub fn cross_entropy(logits: Tensor<3>, targets: Vec<u32>) -> Tensor<1> {
    let [batch, rows, vocab] = logits.dims();
    let logits = logits.reshape([batch * rows, vocab]);
    if fused::applies(&logits) {
        return fused::cross_entropy(logits, Arc::new(targets));
    }
    let ids: Vec<i64> = targets.into_iter().map(i64::from).collect();
    let ids =
        Tensor::<2, Int>::from_data(TensorData::new(ids, [batch * rows, 1]), (&logits.device(), DType::I64));
    log_softmax(logits, 1).gather(1, ids).mean().neg()
}

/// Mean Kullback-Leibler divergence in nats of a student's logits from its teacher's, both over
/// `temperature`, times its square, so that gradients keep their size. The teacher is on the plain
/// device.
pub fn divergence(teacher: Tensor<3>, student: Tensor<3>, temperature: f64) -> Tensor<1> {
    let [batch, rows, vocab] = student.dims();
    let teacher = if student.is_autodiff() { Tensor::from_inner(teacher) } else { teacher };
    let [teacher, student] = [teacher, student].map(|x| x.reshape([batch * rows, vocab]));
    if fused::applies(&student) && fused::applies(&teacher) {
        return fused::divergence(teacher, student, temperature);
    }
    let flat = |x: Tensor<2>| log_softmax(x.div_scalar(temperature), 1);
    let wanted = flat(teacher);
    let difference = wanted.clone().sub(flat(student));
    wanted.exp().mul(difference).sum().mul_scalar(temperature * temperature / (batch * rows) as f64)
}

/// Mean squared error of each pair over the mean square of the wanted one, averaged over the pairs.
/// The wanted tensors are on the plain device, and so is `keep`, which is 0 for rows that do not
/// count.
pub fn relative_error(
    wanted: Vec<Tensor<2>>,
    found: Vec<Tensor<2>>,
    keep: Option<&Tensor<2>>,
) -> Option<Tensor<1>> {
    let count = wanted.len().max(1) as f64;
    let column = keep.map(|keep| keep.clone().reshape([keep.dims()[0] * keep.dims()[1], 1]));
    let errors = wanted.into_iter().zip(found).map(|(wanted, found)| {
        let (wanted, found) = match &column {
            Some(column) => (wanted.mul(column.clone()), found.mul(Tensor::from_inner(column.clone()))),
            None => (wanted, found),
        };
        let size = scalar(&wanted.clone().mul(wanted.clone()).mean()).max(f64::from(f32::MIN_POSITIVE));
        let difference = found.sub(Tensor::from_inner(wanted));
        difference.clone().mul(difference).mean().div_scalar(size * count)
    });
    errors.reduce(|sum, error| sum.add(error))
}

/// Adds the error of the hidden states that both probes kept.
pub(crate) fn with_hidden(
    total: Tensor<1>,
    distil: &Distil,
    mut theirs: Probe,
    ours: &mut Probe,
    keep: Option<&Tensor<2>>,
) -> Tensor<1> {
    match relative_error(theirs.take_kept(), ours.take_kept(), keep) {
        Some(error) if distil.hidden > 0.0 => total.add(error.mul_scalar(distil.hidden)),
        _ => total,
    }
}

/// The value of a tensor of one element.
pub(crate) fn scalar(x: &Tensor<1>) -> f64 {
    x.clone().detach().into_data().iter::<f64>().next().unwrap_or(f64::NAN)
}
