//! Non-linear sites, where ranges are certified.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::folder::MODEL_FILE;
use crate::function::Function;
use crate::range::Range;
use crate::scheme::Scheme;
use crate::shape::{Activation, Residual, Shape};

/// One place in the model where a value has to stay inside a range: either because a polynomial
/// replaces a function there, or (function [`Function::Identity`]) because its size decides scales
/// and refreshes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// Name, one of [`Shape::sites`].
    pub name: String,
    /// The function applied there.
    pub function: Function,
    /// Certified range of the function's argument.
    pub range: Range,
    /// What calibration saw.
    pub observed: Observed,
    /// Factor by which the observed extremes were widened.
    pub margin: f64,
    /// Values outside `range` on held-out text.
    pub violations: u64,
    /// Values checked on held-out text.
    pub checked: u64,
    /// Extremes of the values on held-out text, if any of them left `range`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out: Option<Range>,
    /// The polynomial in its place.
    #[serde(default)]
    pub scheme: Option<Scheme>,
}

/// Extremes and count of values seen at a site.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// How many values.
    pub count: u64,
    /// How many were not finite.
    pub not_finite: u64,
}

impl Default for Observed {
    fn default() -> Self {
        Self { min: f64::INFINITY, max: f64::NEG_INFINITY, count: 0, not_finite: 0 }
    }
}

impl Observed {
    /// What values show.
    pub(crate) fn of(values: &[f64]) -> Self {
        // Lanes that a compiler can keep in vectors. The product with zero is NaN where a value is
        // not finite.
        let (mut lo, mut hi, mut odd) = ([f64::INFINITY; 8], [f64::NEG_INFINITY; 8], [0.0; 8]);
        let (blocks, rest) = values.as_chunks::<8>();
        for block in blocks {
            for i in 0..8 {
                let x = block[i];
                lo[i] = if x < lo[i] { x } else { lo[i] };
                hi[i] = if x > hi[i] { x } else { hi[i] };
                odd[i] += x * 0.0;
            }
        }
        let finite = odd.iter().all(|x| *x == 0.0);
        let mut out = Self { count: 8 * blocks.len() as u64, ..Self::default() };
        if finite {
            out.min = lo.into_iter().fold(out.min, f64::min);
            out.max = hi.into_iter().fold(out.max, f64::max);
            rest.iter().for_each(|&x| out.record(x));
        } else {
            out.count = 0;
            values.iter().for_each(|&x| out.record(x));
        }
        out
    }

    fn record(&mut self, x: f64) {
        self.count += 1;
        if x.is_finite() {
            self.min = self.min.min(x);
            self.max = self.max.max(x);
        } else {
            self.not_finite += 1;
        }
    }

    /// Joins two sets of observations.
    pub fn merge(&mut self, other: &Self) {
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.count += other.count;
        self.not_finite += other.not_finite;
    }
}

impl Site {
    /// Checks what readers take for granted: numbers that are finite and in order, and a polynomial
    /// on the very range that is certified.
    fn check(&self) -> std::result::Result<(), String> {
        let Range { lo, hi } = self.range;
        if !(lo.is_finite() && hi.is_finite() && lo < hi) {
            return Err(format!("its range [{lo}, {hi}] is empty or not finite"));
        }
        if matches!(self.function, Function::Reciprocal | Function::InvSqrt) && lo <= 0.0 {
            return Err(format!("its range begins at {lo}, where the function has a pole"));
        }
        let Observed { min, max, count, not_finite } = self.observed;
        if count == 0 || not_finite > 0 || !(min <= max && min.is_finite() && max.is_finite()) {
            return Err(format!(
                "calibration saw [{min}, {max}] in {count} values, {not_finite} of them not finite"
            ));
        }
        if !(self.margin.is_finite() && self.margin > 0.0) || self.violations > self.checked {
            return Err(format!(
                "its margin is {}, and {} of {} values left its range",
                self.margin, self.violations, self.checked
            ));
        }
        match &self.scheme {
            Some(_) if !self.function.is_nonlinear() => {
                Err("it has a polynomial, but nothing to replace".into())
            }
            Some(scheme) => scheme.check(self.range),
            None => Ok(()),
        }
    }
}

impl Shape {
    /// Checks certified sites against the shape, and against each other where two branches share a
    /// value.
    ///
    /// # Errors
    /// [`Error::Malformed`] for other sites than [`Shape::sites`]; [`Error::Site`] naming
    /// the first bad one.
    pub(crate) fn check_sites(&self, sites: &[Site]) -> Result<()> {
        if sites.is_empty() {
            return Ok(());
        }
        if !sites.iter().map(|s| (s.name.clone(), s.function)).eq(self.sites()) {
            let reason = "the certified sites are not those of this shape, in order";
            return Err(Error::malformed(MODEL_FILE, reason));
        }
        for site in sites {
            site.check().map_err(|reason| Error::Site { site: site.name.clone(), reason })?;
        }
        if self.residual == Residual::Parallel {
            // Both branches normalise the same rows, so the circuit computes one inverse square
            // root.
            for l in 0..self.layers {
                let find = |part: &str| sites.iter().find(|s| s.name == format!("layers.{l}.{part}"));
                if let (Some(a), Some(b)) = (find("norm1"), find("norm2"))
                    && (a.range != b.range || a.scheme != b.scheme)
                {
                    let reason =
                        format!("it normalises the rows of `{}`, with another range or polynomial", a.name);
                    return Err(Error::Site { site: b.name.clone(), reason });
                }
            }
        }
        Ok(())
    }

    /// Every site of a model of this shape, in the order of the forward pass.
    ///
    /// * `embed`, `layers.{l}.mid`, `layers.{l}.hidden`: the residual stream (identity); with norms
    ///   after the branches also `norm1.out` and `norm2.out`, what they make of it;
    /// * `layers.{l}.norm1`, `norm2`, `final_norm`, `embed.norm`: variance plus eps (inverse square
    ///   root), but for frozen ones, which have no site;
    /// * `layers.{l}.attn.q|k|v`: after rotary (identity); `.score`: `x + c` of admitted keys
    ///   (identity);
    /// * `layers.{l}.attn.reciprocal`: `(mean + eps) / unit`, with `unit` the row's frozen eps, or
    ///   1 (reciprocal);
    /// * `layers.{l}.attn.mix`: output of the attention before its projection (identity);
    /// * `layers.{l}.ffn.activation`: input of the activation (identity where it is quadratic: its
    ///   size alone is certified); of a gated layer also `ffn.up`, the
    ///   other factor, and `ffn.product` (identity); `pool.activation`: input of `tanh`; `logits`,
    ///   or `output` of a model of sentence vectors (identity).
    pub fn sites(&self) -> Vec<(String, Function)> {
        self.program().sites(self)
    }
}

impl Activation {
    /// The function that a polynomial replaces; `None` for one that is a polynomial itself.
    pub fn function(self) -> Option<Function> {
        match self {
            Self::Gelu => Some(Function::Gelu),
            Self::Silu => Some(Function::Silu),
            Self::Quadratic => None,
        }
    }
}
