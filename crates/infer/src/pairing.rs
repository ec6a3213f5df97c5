//! Two real matrix products in one complex one.
//!
//! Slots are complex, values are real. Two outputs can share a product as `w1 + i w2`, two inputs
//! as `x1 + i x2` against `w1 - i w2`; either way half of the plaintext products remain, for one
//! conjugation at the end.

use cipherlm_circuits::linear::LinearTransform;
use cipherlm_circuits::slots::{self, Machine, Plain};
use num_complex::Complex64;
use std::collections::BTreeMap;

/// How a transform's vectors were joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pairing {
    /// Neighbouring outputs are real and imaginary parts.
    Outputs,
    /// Neighbouring inputs are, and the real part of each output counts.
    Inputs,
}

impl Pairing {
    /// The way that saves more; `None` where nothing can be joined.
    pub(crate) fn choose(inputs: usize, outputs: usize) -> Option<Self> {
        if inputs >= 2 && outputs <= inputs {
            Some(Self::Inputs)
        } else if outputs >= 2 {
            Some(Self::Outputs)
        } else {
            None
        }
    }

    /// The joined transform; halved, because a value and its conjugate are added afterwards.
    pub(crate) fn join(self, transform: &LinearTransform) -> slots::Result<LinearTransform> {
        let (inputs, outputs) = (transform.inputs(), transform.outputs());
        let mut joined: BTreeMap<(usize, usize, i64), Vec<Complex64>> = BTreeMap::new();
        for (output, input, shift, plain) in transform.diagonals() {
            let (key, factor) = match self {
                Self::Outputs => {
                    let single = output + 1 == outputs && output % 2 == 0;
                    let part = if output % 2 == 1 { Complex64::I } else { Complex64::ONE };
                    ((output / 2, input, shift), part * if single { 1.0 } else { 0.5 })
                }
                Self::Inputs => {
                    let part = if input % 2 == 1 { -Complex64::I } else { Complex64::ONE };
                    ((output, input / 2, shift), part * 0.5)
                }
            };
            let values = joined.entry(key).or_insert_with(|| vec![Complex64::ZERO; plain.period()]);
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
            halve(outputs, self == Self::Outputs),
            halve(inputs, self == Self::Inputs),
            diagonals,
        )
    }

    /// Joins neighbouring inputs, if that is the way.
    pub(crate) fn gather<M: Machine>(
        self,
        machine: &M,
        inputs: &[M::Vector],
    ) -> slots::Result<Vec<M::Vector>> {
        if self == Self::Outputs {
            return Ok(inputs.to_vec());
        }
        let join = |pair: &[M::Vector]| match pair {
            [a, b] => machine.add(a, &machine.mul_i(b)?),
            _ => Ok(pair[0].clone()),
        };
        inputs.chunks(2).map(join).collect()
    }

    /// Takes the joined results apart into `outputs` real vectors.
    pub(crate) fn split<M: Machine>(
        self,
        machine: &M,
        results: &[M::Vector],
        outputs: usize,
    ) -> slots::Result<Vec<M::Vector>> {
        let mut out = Vec::with_capacity(outputs);
        for result in results {
            match self {
                Self::Inputs => out.push(machine.twice_real(result)?),
                Self::Outputs if out.len() + 1 == outputs => out.push(result.clone()),
                Self::Outputs => {
                    let conjugate = machine.conjugate(result)?;
                    out.push(machine.add(result, &conjugate)?);
                    out.push(machine.mul_i(&machine.sub(&conjugate, result)?)?);
                }
            }
        }
        Ok(out)
    }
}
