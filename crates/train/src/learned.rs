//! What the optimiser moves: whole tensors, or the two factors of a change to a matrix.
//!
//! A matrix that learns at rank `r` is `W + A B` with `A` of `[rows, r]` random and `B` of `[r,
//! columns]` zero at first (LoRA, arXiv 2106.09685). With `G` the gradient of the whole matrix the
//! factors' are `G B^T` and `A^T G`, so the model itself only ever sees whole matrices.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::layers::gaussian;
use crate::optim::{AdamW, Moments};
use crate::params::HostParam;
use crate::settings::Learn;

/// Arrays that learn, with their optimiser state.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Learned {
    slots: Vec<Slot>,
    pub(crate) arrays: Vec<HostParam>,
    pub(crate) moments: Moments,
}

/// Where a parameter's array is.
#[derive(Debug, Clone, PartialEq)]
enum Slot {
    /// The array is the parameter.
    Whole { param: usize },
    /// Two arrays, after each other, whose product is added to `base`.
    Factors { param: usize, base: Vec<f32> },
}

impl Learned {
    /// Picks the arrays; parameters that stay as they are lose their mark `trained`.
    pub(crate) fn new(params: &mut [HostParam], learn: &Learn, seed: u64) -> Self {
        let (mut slots, mut arrays) = (Vec::new(), Vec::new());
        for (at, param) in params.iter_mut().enumerate() {
            param.trained &= learn.holds(&param.name);
            if !param.trained {
                continue;
            }
            match (learn.rank_of(&param.name), &param.shape[..]) {
                (Some(rank), &[rows, columns]) if rank < rows.min(columns) => {
                    let mut rng = ChaCha8Rng::seed_from_u64(seed);
                    rng.set_stream(at as u64);
                    let deviation = 1.0 / (rows as f64).sqrt();
                    let a = (0..rows * rank).map(|_| (gaussian(&mut rng) * deviation) as f32).collect();
                    arrays.push(HostParam::new(format!("{}/a", param.name), &[rows, rank], a));
                    let b = vec![0.0; rank * columns];
                    arrays.push(HostParam::new(format!("{}/b", param.name), &[rank, columns], b));
                    slots.push(Slot::Factors { param: at, base: param.data.clone() });
                }
                _ => {
                    arrays.push(param.clone());
                    slots.push(Slot::Whole { param: at });
                }
            }
        }
        let moments = Moments::new(&arrays);
        Self { slots, arrays, moments }
    }

    /// Gradients of the arrays from those of the parameters.
    pub(crate) fn gradients(&self, mut grads: Vec<Vec<f32>>) -> Vec<Vec<f32>> {
        let mut out = Vec::with_capacity(self.arrays.len());
        for slot in &self.slots {
            match slot {
                Slot::Whole { param } => out.push(std::mem::take(&mut grads[*param])),
                Slot::Factors { param, .. } => {
                    let [a, b] = [out.len(), out.len() + 1].map(|at| &self.arrays[at]);
                    let (rows, rank, columns) = (a.shape[0], a.shape[1], b.shape[1]);
                    let g = &grads[*param];
                    out.push(product(g, &transposed(&b.data, rank, columns), rows, columns, rank));
                    out.push(product(&transposed(&a.data, rows, rank), g, rank, rows, columns));
                }
            }
        }
        out
    }

    /// One optimiser step, then the parameters follow. `step` counts from 1.
    pub(crate) fn update(
        &mut self,
        optimiser: &AdamW,
        grads: &[Vec<f32>],
        rate: f64,
        step: usize,
        params: &mut [HostParam],
    ) {
        optimiser.update(&mut self.arrays, &mut self.moments, grads, rate, step);
        self.write(params);
    }

    /// Writes the arrays' values into the parameters.
    pub(crate) fn write(&self, params: &mut [HostParam]) {
        let mut arrays = self.arrays.iter();
        for slot in &self.slots {
            match (slot, arrays.next()) {
                (Slot::Whole { param }, Some(array)) => params[*param].data.copy_from_slice(&array.data),
                (Slot::Factors { param, base }, Some(a)) => {
                    let Some(b) = arrays.next() else { return };
                    let change = product(&a.data, &b.data, a.shape[0], a.shape[1], b.shape[1]);
                    let values = base.iter().zip(&change).map(|(w, d)| w + d);
                    params[*param].data.iter_mut().zip(values).for_each(|(p, v)| *p = v);
                }
                (_, None) => return,
            }
        }
    }

    /// The factors and base matrices of what learns at a rank; a checkpoint needs them beside the
    /// parameters.
    pub(crate) fn factors(&self) -> Vec<HostParam> {
        let mut out: Vec<HostParam> = self.arrays.iter().filter(|a| a.name.contains('/')).cloned().collect();
        let mut arrays = self.arrays.iter();
        for slot in &self.slots {
            let array = arrays.next();
            if let (Slot::Factors { base, .. }, Some(a)) = (slot, array) {
                let columns = arrays.next().map_or(0, |b| b.shape[1]);
                let name = format!("{}base", a.name.trim_end_matches('a'));
                out.push(HostParam::new(name, &[a.shape[0], columns], base.clone()));
            }
        }
        out
    }

    /// Takes arrays, moments and bases from named tensors of a checkpoint, whole ones from the
    /// parameters.
    pub(crate) fn restore(&mut self, params: &[HostParam], mut find: impl FnMut(&str) -> Option<Vec<f32>>) {
        let mut at = 0;
        for slot in &mut self.slots {
            let count = match slot {
                Slot::Whole { param } => {
                    self.arrays[at].data.clone_from(&params[*param].data);
                    1
                }
                Slot::Factors { base, .. } => {
                    let stem = self.arrays[at].name.trim_end_matches('a').to_owned();
                    if let Some(found) = find(&format!("{stem}base")) {
                        *base = found;
                    }
                    for array in &mut self.arrays[at..at + 2] {
                        if let Some(found) = find(&array.name) {
                            array.data = found;
                        }
                    }
                    2
                }
            };
            for array in at..at + count {
                let name = &self.arrays[array].name;
                for (kind, side) in [("first", &mut self.moments.first), ("second", &mut self.moments.second)]
                {
                    if let Some(found) = find(&format!("{kind}/{name}")) {
                        side[array] = found;
                    }
                }
            }
            at += count;
        }
    }
}

/// `a b` for row-major `a` of `[m, n]` and `b` of `[n, k]`; the order of the sums does not depend
/// on the number of threads.
pub(crate) fn product(a: &[f32], b: &[f32], m: usize, n: usize, k: usize) -> Vec<f32> {
    let mut out = vec![0.0f32; m * k];
    out.par_chunks_mut(k).zip(a.par_chunks(n)).with_min_len(16).for_each(|(out, a)| {
        for (&x, b) in a.iter().zip(b.chunks_exact(k)) {
            out.iter_mut().zip(b).for_each(|(o, b)| *o += x * b);
        }
    });
    out
}

/// The transpose of `[rows, columns]`.
pub(crate) fn transposed(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns).map(|at| x[at % rows * columns + at / rows]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(name: &str, rows: usize, columns: usize) -> HostParam {
        let value = |i: usize| (0.37 * i as f32).sin();
        HostParam::new(name, &[rows, columns], (0..rows * columns).map(value).collect())
    }

    #[test]
    fn only_the_named_tensors_learn() {
        let mut params = vec![matrix("layers.0.attn.q.weight", 3, 4), matrix("layers.0.ffn.up.weight", 3, 4)];
        let learn = Learn { tensors: vec!["attn.q".into()], ..Learn::default() };
        let learned = Learned::new(&mut params, &learn, 1);
        assert_eq!(learned.arrays, params[..1]);
        assert_eq!(params.iter().map(|p| p.trained).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn gradients_of_factors_are_those_of_finite_differences() {
        let mut params = vec![matrix("w", 5, 4)];
        let start = params.clone();
        let mut learned = Learned::new(&mut params, &Learn { rank: Some(2), ..Learn::default() }, 7);
        learned.write(&mut params);
        assert_eq!(params, start, "the change starts at zero");
        for array in &mut learned.arrays {
            array.data.iter_mut().enumerate().for_each(|(i, x)| *x = (0.9 * i as f32).cos());
        }
        // Loss: the sum of all entries times fixed factors.
        let factors = matrix("g", 5, 4).data;
        let loss = |learned: &Learned| -> f64 {
            let mut params = start.clone();
            learned.write(&mut params);
            params[0].data.iter().zip(&factors).map(|(w, g)| f64::from(*w) * f64::from(*g)).sum()
        };
        let grads = learned.gradients(vec![factors.clone()]);
        assert_eq!(grads.len(), 2);
        for (array, grads) in grads.iter().enumerate() {
            assert_eq!(grads.len(), learned.arrays[array].data.len());
            for (i, gradient) in grads.iter().enumerate() {
                let mut moved = learned.clone();
                moved.arrays[array].data[i] += 0.5;
                let slope = (loss(&moved) - loss(&learned)) / 0.5;
                assert!((slope - f64::from(*gradient)).abs() < 1e-5, "{slope} against {gradient}");
            }
        }
    }
}
