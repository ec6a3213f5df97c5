//! Cross-entropy and divergence with the softmax inside.

use rayon::prelude::*;

use super::primitive::{CHUNK, Primitive, contiguous, exp, sum, tensor, values};

/// The mean loss, and its gradient with respect to the logits.
pub(super) fn forward(logits: Primitive, targets: &[u32]) -> (Primitive, Primitive) {
    let mut logits = contiguous(logits);
    let (start, count) = (logits.layout().start_offset(), logits.layout().num_elements());
    let rows = targets.len();
    let width = count / rows.max(1);
    let share = 1.0 / rows as f32;
    let mut losses = vec![0.0f64; rows];
    let x = &mut logits.storage_mut::<f32>()[start..start + count];
    x.par_chunks_mut(width).zip(targets).zip(&mut losses).with_min_len(16).for_each(
        |((row, &target), loss)| {
            let target = target as usize;
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let wanted = row[target];
            row.iter_mut().for_each(|x| *x = exp(*x - largest));
            let total = sum(row, row, |a, _| a);
            // A NaN among the logits is lost in the maximum: `wanted` and the total carry it on.
            *loss = f64::from(total).ln() + f64::from(largest) - f64::from(wanted);
            let factor = share / total;
            row.iter_mut().for_each(|x| *x *= factor);
            row[target] -= share;
        },
    );
    let mean = losses.iter().sum::<f64>() / rows as f64;
    (tensor(vec![mean as f32], [1].into()), logits)
}

/// The mean divergence of a student's logits from its teacher's, both over `temperature`, times its
/// square; and its gradient with respect to the student's logits.
pub(super) fn divergence(teacher: Primitive, student: Primitive, temperature: f32) -> (Primitive, Primitive) {
    let teacher = contiguous(teacher);
    let mut student = contiguous(student);
    let (start, count) = (student.layout().start_offset(), student.layout().num_elements());
    let width = student.layout().shape().last().copied().unwrap_or(1).max(1);
    let rows = count / width;
    let (inverse, share) = (1.0 / temperature, temperature / rows as f32);
    let mut losses = vec![0.0f64; rows];
    let x = &mut student.storage_mut::<f32>()[start..start + count];
    let pairs = x.par_chunks_mut(width).zip(values(&teacher).par_chunks(width));
    pairs.zip(&mut losses).with_min_len(16).for_each(|((row, teacher), loss)| {
        let largest = |row: &[f32]| row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let (ours, theirs) = (largest(row), largest(teacher));
        let weight = |x: f32, largest: f32| exp((x - largest) * inverse);
        let of_ours = sum(row, row, |x, _| weight(x, ours));
        let of_theirs = sum(teacher, teacher, |t, _| weight(t, theirs));
        // Both from their largest, so that the terms are small where the weights are not.
        let apart = sum(row, teacher, |x, t| weight(t, theirs) * ((t - theirs) - (x - ours)) * inverse);
        *loss = f64::from(apart / of_theirs) + f64::from(of_ours).ln() - f64::from(of_theirs).ln();
        let (ours_share, theirs_share) = (share / of_ours, share / of_theirs);
        for (x, &t) in row.iter_mut().zip(teacher) {
            *x = weight(*x, ours) * ours_share - weight(t, theirs) * theirs_share;
        }
    });
    let mean = losses.iter().sum::<f64>() / rows as f64 * f64::from(temperature).powi(2);
    (tensor(vec![mean as f32], [1].into()), student)
}

pub(super) fn backward(gradient: Primitive, upstream: &Primitive) -> Primitive {
    let factor = values(upstream)[0];
    let mut out = gradient;
    if factor != 1.0 {
        let (start, count) = (out.layout().start_offset(), out.layout().num_elements());
        let all = &mut out.storage_mut::<f32>()[start..start + count];
        all.par_chunks_mut(CHUNK).for_each(|c| c.iter_mut().for_each(|x| *x *= factor));
    }
    out
}
