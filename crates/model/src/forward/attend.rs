//! The attention operators.

use super::rows::{dot, power, rotate};
use super::{Cache, Runner};
use crate::error::Result;
use crate::shape::{Attention, Eps, Kind};

/// Queries, keys and values of the appended positions, before rotary.
pub(super) struct Rows<'v> {
    pub(super) q: Vec<f64>,
    pub(super) k: Vec<f64>,
    pub(super) v: &'v [f64],
}

/// One row of one head.
struct Place {
    layer: usize,
    head: usize,
    position: usize,
    /// Sites of scores and reciprocals.
    score: usize,
    reciprocal: usize,
}

impl<'m> Runner<'m> {
    /// Appends keys and values to the cache of a layer and mixes values for every appended row.
    pub(super) fn attend(
        &mut self,
        at: usize,
        layer: usize,
        eps: &'m [f64],
        rows: Rows<'_>,
        valid: Option<&[bool]>,
    ) -> Result<Vec<f64>> {
        let Rows { mut q, mut k, v } = rows;
        let (shape, site) = (self.model.shape(), self.site_at[at]);
        let (width, key_width, dh) = (shape.attention_width(), shape.key_width(), shape.head_dim);
        let shared = shape.heads / shape.key_heads();
        let count = q.len() / width;
        for row in 0..count {
            for (x, width) in [(&mut q, width), (&mut k, key_width)] {
                rotate(&mut x[row * width..(row + 1) * width], self.position + row, shape);
            }
        }
        for (index, x) in [&q[..], &k, v].into_iter().enumerate() {
            self.observe(site + index, x);
            let name = self.names[site + index].clone();
            self.tap_rows(&name, x);
        }
        let mut cache = std::mem::take(&mut self.cache[layer]);
        cache.keys.extend_from_slice(&k);
        cache.values.extend_from_slice(v);
        let Cache { keys, values } = &cache;
        let total = keys.len() / key_width;
        let mut mix = vec![0.0; count * width];
        let mut scores = vec![];
        let scale = 1.0 / (dh as f64).sqrt();
        for row in 0..count {
            let position = self.position + row;
            let limit = if shape.kind == Kind::Decoder { position + 1 } else { total };
            let admitted: Vec<usize> = (0..limit).filter(|&j| valid.is_none_or(|mask| mask[j])).collect();
            for head in 0..shape.heads {
                let query = &q[row * width + head * dh..][..dh];
                // Query heads in a row read one key head.
                let from = |j: usize| j * key_width + head / shared * dh;
                scores.clear();
                scores.extend(admitted.iter().map(|&j| dot(query, &keys[from(j)..][..dh]) * scale));
                let place = Place { layer, head, position, score: site + 3, reciprocal: site + 4 };
                let factor = self.weigh(&place, &mut scores, eps)?;
                let out = &mut mix[row * width + head * dh..][..dh];
                for (&j, &w) in admitted.iter().zip(&scores) {
                    out.iter_mut().zip(&values[from(j)..][..dh]).for_each(|(o, v)| *o += w * v);
                }
                out.iter_mut().for_each(|x| *x *= factor);
            }
        }
        self.cache[layer] = cache;
        let last = site + crate::program::attention_sites(shape.attention).len() - 1;
        self.observe(last, &mix);
        let name = self.names[last].clone();
        self.tap_rows(&name, &mix);
        Ok(mix)
    }

    /// Turns scores into weights; returns what their sum over values is multiplied by.
    fn weigh(&mut self, place: &Place, scores: &mut [f64], frozen: &[f64]) -> Result<f64> {
        let shape = self.model.shape();
        let n = scores.len() as f64;
        match shape.attention {
            Attention::Softmax => {
                self.observe(place.score, scores);
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                scores.iter_mut().for_each(|s| *s = (*s - max).exp());
                Ok(1.0 / scores.iter().sum::<f64>())
            }
            Attention::Pointwise { mean } => {
                self.apply_site(place.score, scores)?;
                Ok(if mean { 1.0 / n } else { 1.0 })
            }
            Attention::PowerSoftmax { p, c, eps } => {
                scores.iter_mut().for_each(|s| *s += c);
                self.observe(place.score, scores);
                let largest = scores.iter().fold(0.0f64, |m, s| m.max(s.abs()));
                scores.iter_mut().for_each(|s| *s = power(*s, p));
                let mean = scores.iter().sum::<f64>() / n;
                if let Some(maxima) = self.row_mean_max.as_mut().filter(|_| !self.muted) {
                    let slot = (place.layer * shape.heads + place.head) * shape.context + place.position;
                    maxima[slot] = maxima[slot].max(mean);
                }
                let (eps, unit) = match eps {
                    Eps::Absolute { value } => (value, 1.0),
                    Eps::Relative { value } => (value * power(largest, p), 1.0),
                    Eps::Frozen => {
                        let e = frozen[place.head * shape.context + place.position];
                        (e, e)
                    }
                };
                let mut reciprocal = [(mean + eps) / unit];
                self.apply_site(place.reciprocal, &mut reciprocal)?;
                Ok(reciprocal[0] / (unit * n))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mode, Shape, random};

    #[test]
    fn weights_are_those_of_the_formulas() {
        let place = |head| Place { layer: 0, head, position: 3, score: 0, reciprocal: 0 };
        let shape = Shape { attention: Attention::Softmax, ..Shape::preset("test").unwrap() };
        let model = random::weights_only("softmax", &shape, 1).unwrap();
        let mut runner = Runner::new(&model, Mode::Exact).unwrap();
        // Exponentials of these alone are beyond all numbers.
        let mut scores = [900.0, 899.0];
        let factor = runner.weigh(&place(0), &mut scores, &[]).unwrap();
        let share = 1.0 / (1.0 + (-1.0f64).exp());
        assert!((factor * scores[0] - share).abs() < 1e-15, "{scores:?}");

        let frozen = Attention::PowerSoftmax { p: 4, c: 3.0, eps: Eps::Frozen };
        let shape = Shape { attention: frozen, ..shape };
        let model = random::certified("frozen", &shape, 1).unwrap();
        let mut runner = Runner::new(&model, Mode::Exact).unwrap();
        let at = runner.functions.iter().position(|f| *f == crate::Function::Reciprocal).unwrap();
        let eps: Vec<f64> = (1..=shape.heads * shape.context).map(|i| i as f64).collect();
        for head in 0..shape.heads {
            let mut scores = [1.0, -2.0];
            let factor = runner.weigh(&Place { reciprocal: at, ..place(head) }, &mut scores, &eps).unwrap();
            let own = eps[head * shape.context + 3];
            assert_eq!(scores, [256.0, 1.0]);
            assert!((factor * 2.0 * (128.5 + own) - 1.0).abs() < 1e-12, "head {head}: {factor}");
        }
    }
}
