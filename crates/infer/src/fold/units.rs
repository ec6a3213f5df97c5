//! What one unit of a slot stands for, chosen from the certified ranges so that every intermediate
//! value stays within about one.

use cipherlm_model::{Activation, Kind, Model, Placement, Range};

use crate::error::{Error, Result};

/// Units of the whole model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Units {
    /// Embedded rows as the client encrypts them.
    pub(crate) entry: f64,
    /// Answers: logits, or features of the last hidden state.
    pub(crate) logits: f64,
    /// Argument of an encoder's pooling.
    pub(crate) pool: Argument,
    /// One entry per layer.
    pub(crate) layers: Vec<LayerUnits>,
    /// Variances before the head, where there is such a norm and it is not frozen.
    pub(crate) final_norm: Option<Range>,
}

/// Units inside one layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LayerUnits {
    /// The stream after the attention.
    pub(crate) mid: f64,
    /// The stream after the feed-forward layer.
    pub(crate) hidden: f64,
    /// Certified variances; `None` of a frozen norm.
    pub(crate) norm1: Option<Range>,
    pub(crate) norm2: Option<Range>,
    pub(crate) value: f64,
    pub(crate) denominator: Range,
    pub(crate) activation: Argument,
    /// The other factor of a gated layer.
    pub(crate) gate: f64,
}

/// One normalisation of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum NormId {
    /// Of a layer's attention branch.
    First(usize),
    /// Of its feed-forward branch.
    Second(usize),
    /// Before the head.
    Final,
}

impl NormId {
    /// Name of its tensors and of its site.
    pub(crate) fn name(self) -> String {
        match self {
            Self::First(l) => format!("layers.{l}.norm1"),
            Self::Second(l) => format!("layers.{l}.norm2"),
            Self::Final => "final_norm".into(),
        }
    }

    /// The layer that it belongs to.
    pub(crate) fn layer(self) -> Option<usize> {
        match self {
            Self::First(l) | Self::Second(l) => Some(l),
            Self::Final => None,
        }
    }
}

/// Smallest unit of a slot. A tensor of zeros is certified for hardly any range; its values are
/// zero in every unit.
const SMALLEST: f64 = 1.0 / (1u64 << 30) as f64;

/// How much a stream has to grow for a new unit: a bit.
const RISE: f64 = 2.0;

fn unit(range: Range) -> f64 {
    range.magnitude().max(SMALLEST)
}

/// How a function's argument and value lie in slots: the argument as `(x - middle) / half`, the
/// value in units of `value`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Argument {
    pub(crate) middle: f64,
    pub(crate) half: f64,
    pub(crate) value: f64,
}

impl Argument {
    /// Of a value that no function is applied to.
    pub(super) fn plain(unit: f64) -> Self {
        Self { middle: 0.0, half: unit, value: unit }
    }

    pub(super) fn of(range: Range) -> Self {
        if range.magnitude() < SMALLEST {
            return Self::plain(SMALLEST);
        }
        // Functions of this kind never exceed their argument in size.
        let (middle, half) = (0.5 * (range.lo + range.hi), 0.5 * (range.hi - range.lo));
        Self { middle, half, value: range.magnitude() }
    }

    pub(super) fn is_dead(self) -> bool {
        self.half <= SMALLEST
    }
}

impl Units {
    pub(super) fn new(model: &Model) -> Result<Self> {
        let range = |name: &str| {
            let site =
                model.site(name).ok_or_else(|| cipherlm_model::Error::NoScheme { site: name.to_owned() })?;
            Ok::<Range, Error>(site.range)
        };
        let shape = model.shape();
        let mut layers = vec![];
        for l in 0..shape.layers {
            let at = |part: &str| range(&format!("layers.{l}.{part}"));
            let live = |norm: String| (!shape.freezes(&norm)).then(|| range(&norm)).transpose();
            layers.push(LayerUnits {
                mid: unit(at("mid")?),
                hidden: unit(at("hidden")?),
                norm1: live(format!("layers.{l}.norm1"))?,
                norm2: live(format!("layers.{l}.norm2"))?,
                value: unit(at("attn.v")?),
                denominator: at("attn.reciprocal")?,
                activation: match shape.activation {
                    // Bounded on both sides alike, and never off its middle.
                    Activation::Quadratic => Argument::plain(unit(at("ffn.activation")?)),
                    _ => Argument::of(at("ffn.activation")?),
                },
                gate: if shape.gated { unit(at("ffn.up")?) } else { 1.0 },
            });
        }
        let classifies = matches!(shape.kind, Kind::Encoder { .. });
        let pool = if classifies { Argument::of(range("pool.activation")?) } else { Argument::plain(1.0) };
        let answer = if matches!(shape.kind, Kind::Embedder { .. }) { "output" } else { "logits" };
        let live = shape.placement == Placement::Pre && !shape.freezes("final_norm");
        let final_norm = live.then(|| range("final_norm")).transpose()?;
        let mut units =
            Self { entry: unit(range("embed")?), logits: unit(range(answer)?), pool, layers, final_norm };
        match shape.placement {
            Placement::Pre => units.rising_stream(),
            Placement::Post => units.stream_by_sum(range)?,
        }
        Ok(units)
    }

    /// Units of a stream that grows from sum to sum: each holds what comes before it too, and a sum
    /// begins a new one only where that is [`RISE`] times the one before. Where it does, the stream
    /// is multiplied by the ratio, at a level that it has to spare.
    fn rising_stream(&mut self) {
        let sums = self.layers.iter_mut().flat_map(|layer| [&mut layer.mid, &mut layer.hidden]);
        let mut stream: Vec<&mut f64> = std::iter::once(&mut self.entry).chain(sums).collect();
        let mut largest = 0.0;
        for unit in &mut stream {
            largest = f64::max(largest, **unit);
            **unit = largest;
        }
        let mut behind = largest;
        for unit in stream.into_iter().rev() {
            if *unit * RISE > behind {
                *unit = behind;
            }
            behind = *unit;
        }
    }

    /// The unit of the stream as a layer finds it, where norms stand before the branches.
    pub(crate) fn before(&self, layer: usize) -> f64 {
        layer.checked_sub(1).and_then(|l| self.layers.get(l)).map_or(self.entry, |layer| layer.hidden)
    }

    /// A unit for each sum, which holds its first term too: that comes out of a norm, where the
    /// unit changes for nothing.
    fn stream_by_sum(&mut self, range: impl Fn(&str) -> Result<Range>) -> Result<()> {
        let mut before = self.entry;
        for (l, layer) in self.layers.iter_mut().enumerate() {
            layer.mid = layer.mid.max(before);
            layer.hidden = layer.hidden.max(unit(range(&format!("layers.{l}.norm1.out"))?));
            before = unit(range(&format!("layers.{l}.norm2.out"))?);
        }
        self.entry = self.layers.first().map_or(self.entry, |layer| layer.mid);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The units of a stream of two layers, given what its five sums reach.
    fn stream([entry, mid0, hidden0, mid1, hidden1]: [f64; 5]) -> [f64; 5] {
        let argument = Argument::plain(1.0);
        let range = Range { lo: 1.0, hi: 2.0 };
        let layer = |mid, hidden| LayerUnits {
            mid,
            hidden,
            norm1: None,
            norm2: None,
            value: 1.0,
            denominator: range,
            activation: argument,
            gate: 1.0,
        };
        let layers = vec![layer(mid0, hidden0), layer(mid1, hidden1)];
        let mut units = Units { entry, logits: 1.0, pool: argument, layers, final_norm: None };
        units.rising_stream();
        let [first, second] = [units.layers[0], units.layers[1]];
        assert_eq!([units.before(0), units.before(1)], [units.entry, first.hidden]);
        [units.entry, first.mid, first.hidden, second.mid, second.hidden]
    }

    #[test]
    fn a_stream_takes_a_new_unit_where_it_has_doubled() {
        assert_eq!(stream([2.0, 67.0, 60.0, 100.0, 1000.0]), [2.0, 100.0, 100.0, 100.0, 1000.0]);
        // What once was large stays in the sum.
        assert_eq!(stream([50.0, 3.0, 4.0, 5.0, 6.0]), [50.0; 5]);
        // Growth by less than a bit at a time, from the end back.
        assert_eq!(stream([1.0, 1.5, 2.2, 3.3, 4.9]), [1.0, 2.2, 2.2, 4.9, 4.9]);
    }
}
