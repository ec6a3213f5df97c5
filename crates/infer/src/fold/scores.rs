//! Plaintexts of the scores: masks, the public shift, and the scale that queries bring.

use cipherlm_circuits::slots::Plain;
use cipherlm_model::{Attention, Eps, Kind, Pool};

use super::Folded;
use crate::error::{Error, Result};

impl Folded {
    /// Whether a token attends to another: a decoder's to those before it and itself, an encoder's
    /// to all that are no padding.
    pub(crate) fn admits(&self, token: usize, key: usize, length: usize) -> bool {
        if self.shape().kind == Kind::Decoder { key <= token } else { key < length }
    }

    /// One in the slot group of a token, zero elsewhere.
    pub(crate) fn token_mask(&self, position: usize) -> Plain {
        let g = self.geometry;
        Plain::real((0..g.slots).map(|s| f64::from(u8::from(s / g.features == position))).collect::<Vec<_>>())
    }

    /// The weight of each row of a text of `length` tokens in the row that they are pooled to.
    pub(crate) fn pool_mask(&self, length: usize) -> Plain {
        let g = self.geometry;
        let weight = |row: usize| match self.shape().kind {
            Kind::Embedder { pool: Pool::Mean } if row < length => 1.0 / length as f64,
            Kind::Embedder { pool: Pool::First } if row == 0 => 1.0,
            _ => 0.0,
        };
        Plain::real((0..g.slots).map(|s| weight(s / g.features)).collect::<Vec<_>>())
    }

    /// As [`Folded::score_plains`], for one token over the cache: every key up to its own position.
    pub(crate) fn cached_score_plains(
        &self,
        l: usize,
        block: usize,
        position: usize,
    ) -> Result<(Plain, Plain)> {
        let g = self.geometry;
        let Attention::PowerSoftmax { c, .. } = self.shape().attention else {
            return Err(Error::Unsupported { feature: "this attention", advice: "use PowerSoftmax" });
        };
        let scale = self.query_scale(l, 1)?;
        let root = (self.shape().head_dim as f64).sqrt();
        let (mut mask, mut add) = (vec![0.0; g.slots], vec![0.0; g.slots]);
        for key in 0..=position {
            for local in 0..g.features / g.head {
                let head = block * (g.features / g.head) + local;
                if head < self.shape().heads {
                    mask[key * g.features + local * g.head] = 1.0;
                    add[key * g.features + local * g.head] = c * root * scale[head][position];
                }
            }
        }
        Ok((Plain::real(mask), Plain::real(add)))
    }

    /// For one shift: the mask over first features of heads, and the folded shift `c` under the
    /// same mask.
    pub(crate) fn score_plains(
        &self,
        l: usize,
        block: usize,
        shift: usize,
        length: usize,
    ) -> Result<(Plain, Plain)> {
        let g = self.geometry;
        let Attention::PowerSoftmax { c, .. } = self.shape().attention else {
            return Err(Error::Unsupported { feature: "this attention", advice: "use PowerSoftmax" });
        };
        let scale = self.query_scale(l, length)?;
        let root = (self.shape().head_dim as f64).sqrt();
        let (mut mask, mut add) = (vec![0.0; g.slots], vec![0.0; g.slots]);
        for (slot, token, _) in self.admitted(shift, length) {
            for local in 0..g.features / g.head {
                let head = block * (g.features / g.head) + local;
                if head < self.shape().heads {
                    mask[slot + local * g.head] = 1.0;
                    add[slot + local * g.head] = c * root * scale[head][token];
                }
            }
        }
        Ok((Plain::real(mask), Plain::real(add)))
    }

    /// First slot of each (copy, token) whose key is admitted at a shift, with query and key
    /// tokens; every pair once over all shifts.
    fn admitted(&self, shift: usize, length: usize) -> Vec<(usize, usize, usize)> {
        let g = self.geometry;
        let mut out = vec![];
        for slot in (0..g.slots).step_by(g.features) {
            let (_, token, _) = g.place(slot);
            // Where the rotation takes the value from, and which token the spread put there.
            let from = (slot as i64 - shift as i64 * g.shift_stride()).rem_euclid(g.slots as i64) as usize;
            let (copy, position, _) = g.place(from);
            let key = (position + g.tokens * g.copies - copy) % g.tokens;
            let surplus = copy >= g.tokens;
            if self.admits(token, key, length) && !surplus {
                out.push((slot, token, key));
            }
        }
        out
    }

    /// `1 / (sqrt(head_dim) (n unit top)^(1/p))` by head and row, with `top` half the width of the
    /// denominator's range; `length` is how many tokens of an encoder's text are no padding.
    pub(crate) fn query_scale(&self, l: usize, length: usize) -> Result<Vec<Vec<f64>>> {
        let shape = self.shape();
        let Attention::PowerSoftmax { p, eps, .. } = shape.attention else {
            return Err(Error::Unsupported { feature: "this attention", advice: "use PowerSoftmax" });
        };
        let frozen = match eps {
            Eps::Frozen => Some(self.values(&format!("layers.{l}.attn.eps"))?),
            _ => None,
        };
        let root = (shape.head_dim as f64).sqrt();
        let range = self.units.layers[l].denominator;
        let top = 0.5 * (range.hi - range.lo);
        let row = |head: usize, token: usize| {
            let place = self.first() + token;
            let unit = frozen.map_or(1.0, |e| e[head * shape.context + place.min(shape.context - 1)]);
            let keys = if shape.kind == Kind::Decoder { place + 1 } else { length };
            1.0 / (root * (keys as f64 * unit * top).powf(1.0 / f64::from(p)))
        };
        let rows = if self.decoding() { shape.context - self.first() } else { self.geometry.tokens };
        Ok((0..shape.heads).map(|h| (0..rows).map(|t| row(h, t)).collect()).collect())
    }

    /// The constant added to the sum of the weights, so that the denominator runs over [-1, 1].
    pub(crate) fn denominator_offset(&self, l: usize) -> f64 {
        let natural = match self.shape().attention {
            Attention::PowerSoftmax { eps: Eps::Absolute { value }, .. } => value,
            _ => 1.0,
        };
        let range = self.units.layers[l].denominator;
        (2.0 * natural - range.lo - range.hi) / (range.hi - range.lo)
    }
}
