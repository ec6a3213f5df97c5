//! Quadratic activations: `a x^2 + b x` as one product, whose factors are folded into the maps
//! before and behind it.
//!
//! With `t = b / a` and `|x| <= X` the slot holds `u = α x`, `α = 1 / sqrt(X (X + |t|))`; the
//! product `u (u + α t)` stays within one, and `a / α^2` times it is the activation. No constant is
//! left over, as completing the square would leave one, and the error of `u` is multiplied by
//! `sqrt(1 + |t| / X)` where a square would multiply it by `1 + |t| / X`: a channel may be nearly
//! linear. Where `|t| / X` passes 1024 a larger `X` is taken, so that `α t` stays below 33, at the
//! price of its share of the precision.

use cipherlm_circuits::slots::Plain;
use cipherlm_model::Activation;

use super::Folded;
use crate::error::{Error, Result};

/// Largest `|t| / X` that keeps the whole of `X`.
const STRAIGHT: f64 = 1024.0;
/// Largest `|t| / X` at all: such a channel loses fifteen bits.
const STRAIGHTEST: f64 = (1 << 20) as f64;

/// One channel of a quadratic activation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Channel {
    /// Slots per argument.
    pub(super) argument: f64,
    /// What is added to one factor of the product.
    pub(super) offset: f64,
    /// The activation per slot.
    pub(super) value: f64,
}

impl Channel {
    /// Of `a x^2 + b x` for arguments up to `bound`; `None` for a line.
    fn new(a: f64, b: f64, bound: f64) -> Option<Self> {
        if a == 0.0 && b == 0.0 {
            return Some(Self { argument: 1.0 / bound, offset: 0.0, value: 0.0 });
        }
        let t = b / a;
        // A quotient that is infinite or no number is no less of a line.
        if !t.is_finite() || t.abs() > STRAIGHTEST * bound {
            return None;
        }
        let bound = bound.max(t.abs() / STRAIGHT);
        let square = bound * (bound + t.abs());
        let argument = 1.0 / square.sqrt();
        Some(Self { argument, offset: argument * t, value: a * square })
    }
}

impl Folded {
    /// Channels of a layer's activation; none where it is no quadratic.
    pub(super) fn quadratics(&self, l: usize) -> Result<Vec<Channel>> {
        if self.shape().activation != Activation::Quadratic {
            return Ok(vec![]);
        }
        let site = format!("layers.{l}.ffn.activation");
        let [square, linear] =
            ["square", "linear"].map(|part| self.values(&format!("{site}.{part}")).map(<[f64]>::to_vec));
        let bound = self.units.layers[l].activation.half;
        let (square, linear) = (square?, linear?);
        let channels = square.iter().zip(&linear).enumerate().map(|(at, (&a, &b))| {
            Channel::new(a, b, bound).ok_or_else(|| Error::Polynomial {
                site: site.clone(),
                reason: format!(
                    "channel {at} is {a:e} x^2 + {b} x on [-{bound}, {bound}], a line as far as its \
                     precision goes: give its square at least {:e}",
                    b.abs() / (STRAIGHTEST * bound)
                ),
            })
        });
        channels.collect()
    }

    /// What is added to one factor of the product, one plaintext per vector.
    pub(crate) fn quadratic_offsets(&self, l: usize) -> Result<Vec<Plain>> {
        let offsets = self.quadratics(l)?.iter().map(|channel| channel.offset).collect();
        Ok(self.geometry.layout()?.every_token(&self.over_blocks(offsets, 0.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_its_quadratic_and_stays_within_one() {
        for (a, b) in
            [(0.25, 0.5), (-0.1, 0.7), (1e-3, -0.5), (1e-5, 1.0), (0.3, 0.0), (-2.0, 1e-9), (0.0, 0.0)]
        {
            let bound = 6.5;
            let channel = Channel::new(a, b, bound).unwrap();
            for step in -20..=20 {
                let x = bound * f64::from(step) / 20.0;
                let u = channel.argument * x;
                let product = u * (u + channel.offset);
                assert!(u.abs() <= 1.0 && product.abs() <= 1.0 + 1e-12, "{a} {b} at {x}: {u} {product}");
                let wanted = (a * x + b) * x;
                assert!((channel.value * product - wanted).abs() < 1e-9, "{a} {b} at {x}");
            }
            assert!(channel.offset.abs() < 33.0);
        }
        assert_eq!(Channel::new(1e-7, 1.0, 1.0), None);
        assert_eq!(Channel::new(0.0, 1.0, 1.0), None);
    }
}
