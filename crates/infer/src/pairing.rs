//! Two real matrix products in one complex one.
//!
//! Slots are complex, values are real. Two outputs can share a product as `w1 + i w2`, two inputs
//! as `x1 + i x2` against `w1 - i w2`, and an input without a neighbour has one in itself: of
//! `x + i rot(x, m)` the diagonals `k` and `k + m` are one. Each way leaves half of the plaintext
//! products, for conjugations at the end.

use cipherlm_circuits::linear::LinearTransform;
use cipherlm_circuits::slots::{self, Machine, Plain};
use num_complex::Complex64;
use std::collections::{BTreeMap, BTreeSet};

use crate::vector::lower;

/// What a rotation costs in plaintext products of the same level, by the tables of both kernels.
const ROTATION: usize = 24;

/// Output, input and shift of a diagonal.
type Place = (usize, usize, i64);

/// How the vectors of one transform are joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pairing {
    way: Way,
    inputs: usize,
    outputs: usize,
    /// Least shift from the last input to each output.
    firsts: Vec<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Each vector on its own.
    Alone,
    /// Neighbouring outputs are real and imaginary parts.
    Outputs,
    /// Neighbouring inputs are, and the real part of each output counts. The last one of an odd
    /// number is joined with itself, turned so far.
    Inputs { turn: i64 },
}

impl Pairing {
    /// The way that saves most.
    pub(crate) fn choose(transform: &LinearTransform) -> Self {
        let (inputs, outputs) = (transform.inputs(), transform.outputs());
        let places: Vec<Place> =
            transform.diagonals().map(|(output, input, k, _)| (output, input, k)).collect();
        let of_last = |output| {
            let own = places.iter().filter(move |place| place.0 == output && place.1 + 1 == inputs);
            own.map(|place| place.2)
        };
        let firsts = (0..outputs).map(|output| of_last(output).min().unwrap_or(0)).collect();
        let alone = Self { way: Way::Alone, inputs, outputs, firsts };
        let span = |output| of_last(output).max().map_or(0, |last| last - alone.firsts[output] + 1);
        let turns: BTreeSet<i64> = match inputs % 2 {
            0 => BTreeSet::from([0]),
            _ => (0..outputs).map(|output| (span(output) + 1) / 2).filter(|&turn| turn > 0).collect(),
        };
        let ways = turns.into_iter().map(|turn| Way::Inputs { turn });
        let ways = [Way::Alone, Way::Outputs].into_iter().chain(ways);
        let pairings = ways.map(|way| Self { way, ..alone.clone() });
        pairings.min_by_key(|pairing| pairing.work(&places)).unwrap_or(alone)
    }

    /// Plaintext products of the joined transform, and what joining takes besides.
    fn work(&self, places: &[Place]) -> usize {
        let products: BTreeSet<Place> = places.iter().map(|&place| self.part(place).0).collect();
        let rotations = match self.way {
            Way::Alone => 0,
            Way::Outputs => self.outputs / 2,
            Way::Inputs { turn } => self.outputs + usize::from(turn != 0),
        };
        products.len() + ROTATION * rotations
    }

    /// Where a diagonal goes, and what it is multiplied by; halved where a value and its conjugate
    /// are added afterwards.
    fn part(&self, (output, input, shift): Place) -> (Place, Complex64) {
        let half = Complex64::new(0.5, 0.0);
        let imaginary = -0.5 * Complex64::I;
        match self.way {
            Way::Alone => ((output, input, shift), Complex64::ONE),
            Way::Outputs if output + 1 == self.outputs && output % 2 == 0 => {
                ((output / 2, input, shift), Complex64::ONE)
            }
            Way::Outputs => {
                let part = if output % 2 == 1 { -imaginary } else { half };
                ((output / 2, input, shift), part)
            }
            Way::Inputs { turn } if turn != 0 && input + 1 == self.inputs => {
                match ((shift - self.firsts[output]) / turn) % 2 {
                    0 => ((output, input / 2, shift), half),
                    _ => ((output, input / 2, shift - turn), imaginary),
                }
            }
            Way::Inputs { .. } => ((output, input / 2, shift), if input % 2 == 1 { imaginary } else { half }),
        }
    }

    /// The joined transform.
    pub(crate) fn join(&self, transform: &LinearTransform) -> slots::Result<LinearTransform> {
        let mut joined: BTreeMap<Place, Vec<Complex64>> = BTreeMap::new();
        for (output, input, shift, plain) in transform.diagonals() {
            let (place, factor) = self.part((output, input, shift));
            let values = joined.entry(place).or_insert_with(|| vec![Complex64::ZERO; plain.period()]);
            values.iter_mut().zip(plain.values()).for_each(|(sum, value)| *sum += value * factor);
        }
        let diagonals = joined.into_iter().map(|((output, input, shift), values)| {
            let real = values.iter().all(|v| v.im == 0.0);
            let plain = if real {
                Plain::real(values.iter().map(|v| v.re).collect::<Vec<_>>())
            } else {
                Plain::complex(values)
            };
            (output, input, shift, plain)
        });
        let halve = |count: usize, when: bool| if when { count.div_ceil(2) } else { count };
        LinearTransform::block(
            transform.slots(),
            halve(self.outputs, self.way == Way::Outputs),
            halve(self.inputs, matches!(self.way, Way::Inputs { .. })),
            diagonals,
        )
    }

    /// The results of the transform at `level`, as many real vectors as it has outputs.
    pub(crate) fn apply<M: Machine>(
        &self,
        machine: &M,
        inputs: &[M::Vector],
        transform: &LinearTransform,
        level: usize,
    ) -> slots::Result<Vec<M::Vector>> {
        let inputs = self.gather(machine, inputs, level + 1)?;
        let inputs: Vec<&M::Vector> = inputs.iter().collect();
        if self.way == Way::Alone {
            return machine.linear_transforms_to(&inputs, transform, level);
        }
        let results = machine.linear_transforms_to(&inputs, &self.join(transform)?, level)?;
        self.split(machine, &results)
    }

    /// Joins inputs, if that is the way; one with itself at `level`, where the rotation is cheap.
    fn gather<M: Machine>(
        &self,
        machine: &M,
        inputs: &[M::Vector],
        level: usize,
    ) -> slots::Result<Vec<M::Vector>> {
        let Way::Inputs { turn } = self.way else { return Ok(inputs.to_vec()) };
        let join = |pair: &[M::Vector]| match pair {
            [a, b] => machine.add(a, &machine.mul_i(b)?),
            _ => {
                let own = lower(machine, &pair[0], level)?;
                machine.add(&own, &machine.mul_i(&machine.rotate(&own, turn)?)?)
            }
        };
        inputs.chunks(2).map(join).collect()
    }

    /// Takes the joined results apart.
    fn split<M: Machine>(&self, machine: &M, results: &[M::Vector]) -> slots::Result<Vec<M::Vector>> {
        let mut out = Vec::with_capacity(self.outputs);
        for result in results {
            match self.way {
                Way::Inputs { .. } => out.push(machine.twice_real(result)?),
                Way::Outputs if out.len() + 1 < self.outputs => {
                    let conjugate = machine.conjugate(result)?;
                    out.push(machine.add(result, &conjugate)?);
                    out.push(machine.mul_i(&machine.sub(&conjugate, result)?)?);
                }
                Way::Outputs | Way::Alone => out.push(result.clone()),
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cipherlm_circuits::linear::TokenLayout;
    use cipherlm_circuits::slots::{Chain, Clear, Primitives};

    fn weights(inner: usize, outer: usize) -> Vec<Vec<f64>> {
        (0..inner).map(|i| (0..outer).map(|o| ((i * 5 + o * 3) % 7) as f64 / 7.0 - 0.4).collect()).collect()
    }

    /// Every way of joining is the product itself, and the one that is chosen takes the products
    /// that it should.
    #[test]
    fn joined_products_are_the_product_for_half_the_diagonals() {
        let full = |d: usize| 2 * d - 1;
        // Features, inner and outer width, and the products of the way that is taken.
        let cases = [
            // One input with itself: two diagonals a token apart are one.
            (128, 128, 128, 128),
            (128, 128, 384, 3 * 128),
            (128, 100, 100, 100),
            // Two outputs, hence fewer conjugations.
            (128, 128, 256, full(128)),
            // Two inputs; three, of which the last with itself.
            (64, 128, 64, full(64)),
            (64, 192, 64, full(64) + 64),
            // Not worth a conjugation.
            (8, 8, 8, full(8)),
        ];
        for (features, inner, outer, products) in cases {
            for repeated in [false, true] {
                let layout = TokenLayout::new(1024, features).unwrap();
                let layout = if repeated { layout.repeated() } else { layout };
                let tokens = layout.tokens();
                let row = |t: usize| (0..inner).map(|i| ((t * 3 + i) % 5) as f64 - 2.0).collect();
                let rows: Vec<Vec<f64>> = (0..tokens).map(|t| row(if repeated { 0 } else { t })).collect();
                let machine = Clear::new(Chain::uniform(1024, 2, 40, 60).unwrap());
                let inputs = layout.pack(&rows).unwrap();
                let inputs: Vec<_> = inputs.into_iter().map(|v| machine.input(v, 2).unwrap()).collect();
                let transform = layout.matmul(&weights(inner, outer)).unwrap();
                let pairing = Pairing::choose(&transform);
                if !repeated {
                    let joined = pairing.join(&transform).unwrap();
                    assert_eq!(joined.diagonals().count(), products, "{features} {inner} {outer}");
                }
                let outputs = pairing.apply(&machine, &inputs, &transform, 0).unwrap();
                assert!(outputs.iter().all(|output| machine.level(output) == 0));
                let found: Vec<_> = outputs.iter().map(|output| output.real()).collect();
                let found = layout.unpack(&found, tokens, outer).unwrap();
                for (row, found) in rows.iter().zip(&found) {
                    for (o, value) in found.iter().enumerate() {
                        let expected: f64 =
                            row.iter().zip(&weights(inner, outer)).map(|(x, w)| x * w[o]).sum();
                        assert!((value - expected).abs() < 1e-9, "{features} {inner} {outer}");
                    }
                }
            }
        }
    }
}
