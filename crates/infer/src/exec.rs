//! Carrying out one node on a machine.

mod attend;
mod norm;

use cipherlm_circuits::polynomial;
use cipherlm_circuits::slots::{self, Machine, Plain, RefreshKind, Scale};
use rayon::prelude::*;

use crate::error::{At, Error, Result, broken};
use crate::fold::{Folded, Map};
use crate::graph::{Node, Op};
use crate::lanes::{by_text, join_maps};
use crate::pairing::Pairing;
use crate::session::Turn;
use crate::target::RefreshChoice;
use crate::vector::{Value, lower};

/// Evaluates a node whose inputs are given (already sliced) so that every output is canonical at
/// `level`. `lengths`: the tokens of each text, without what fills it up. The session may be that
/// of the machine below this one.
pub(crate) fn evaluate<M: Machine, S: Machine<Vector = M::Vector>>(
    machine: &M,
    folded: &Folded,
    node: &Node,
    inputs: &[&[M::Vector]],
    level: usize,
    lengths: &[usize],
    turn: Option<&mut Turn<'_, S>>,
) -> Result<Value<M>> {
    let context = Context { machine, folded, node, lengths };
    match (&node.op, inputs) {
        (Op::Variance { norm, alone }, [rows]) => context.variance(rows, *norm, *alone, level),
        (Op::Gain { norm }, [rows]) => context.gain(rows, None, *norm, level),
        (Op::Gain { norm }, [rows, mean]) => context.gain(rows, mean.first(), *norm, level),
        (Op::Enter, [rows]) => {
            rows.iter().map(|row| lower(machine, row, level)).collect::<slots::Result<_>>().at(&node.name)
        }
        (Op::Select, [rows]) => context.select(rows, level),
        (Op::Pool, [rows]) => context.pool(rows, level),
        (Op::Poly { plan }, [arguments]) => {
            let apply = |x: &M::Vector| {
                let mut values = polynomial::evaluate_all_to(machine, plan, x, level)?;
                Ok(values.swap_remove(0))
            };
            arguments.par_iter().map(|x| apply(x).at(&node.name)).collect()
        }
        (Op::Quadratic { layer }, [arguments]) => context.quadratic(arguments, *layer, level),
        (Op::Linear { map, bias }, [vectors]) => context.linear(vectors, *map, *bias, level),
        (Op::Scaled { map }, [raw, factor]) => context.scaled(raw, factor, *map, level),
        (Op::Spread { layer }, [vectors]) => {
            let transform = match &turn {
                Some(turn) if folded.decoding() => folded.spread_one(*layer, turn.before.position)?,
                _ => join_maps(by_text(lengths, |length| folded.spread(*layer, length))?).at(&node.name)?,
            };
            let inputs: Vec<&M::Vector> = vectors.iter().collect();
            machine.linear_transforms_to(&inputs, &transform, level).at(&node.name)
        }
        (Op::Attend { layer }, [qkv]) if folded.packs_scores() => {
            crate::packed::attend(machine, folded, &node.name, qkv, *layer, level, lengths)
        }
        (Op::Attend { layer }, [spread]) => match turn {
            Some(turn) if folded.decoding() => context.attend_cached(spread, *layer, level, turn),
            Some(turn) => {
                context.keep(spread, *layer, turn.after)?;
                context.attend(spread, *layer, level)
            }
            None => context.attend(spread, *layer, level),
        },
        (Op::Mul, [left, right]) if left.len() == right.len() => {
            let multiply = |(a, b): (&M::Vector, &M::Vector)| {
                let (a, b) = (lower(machine, a, level + 1)?, lower(machine, b, level + 1)?);
                machine.mul(&a, &b)
            };
            left.par_iter().zip(*right).map(|pair| multiply(pair).at(&node.name)).collect()
        }
        (Op::Add, [left, right]) if left.len() == right.len() => {
            let sum = |(a, b): (&M::Vector, &M::Vector)| {
                machine.add(&lower(machine, a, level)?, &lower(machine, b, level)?)
            };
            left.iter().zip(*right).map(|pair| sum(pair).at(&node.name)).collect()
        }
        (Op::Extend, [rows]) => context.extend(rows, level),
        (Op::Unit { factor }, [rows]) => context.in_unit(rows, *factor, level),
        (op, _) => {
            let counts: Vec<usize> = inputs.iter().map(|input| input.len()).collect();
            Err(broken(&format!("{} takes no operands of {counts:?} vectors for {op:?}", node.name)))
        }
    }
}

/// Puts keys and values into the cache of a session, as [`evaluate`] does, for attention whose
/// result was kept from another run.
pub(crate) fn remember<M: Machine, S: Machine<Vector = M::Vector>>(
    machine: &M,
    folded: &Folded,
    node: &Node,
    inputs: &[&[M::Vector]],
    level: usize,
    turn: &mut Turn<'_, S>,
) -> Result<()> {
    let context = Context { machine, folded, node, lengths: &[turn.before.prompt] };
    match (&node.op, inputs) {
        (Op::Attend { layer }, [spread]) if folded.decoding() => {
            for block in 0..folded.geometry.blocks {
                let pair = context.cached(spread, *layer, block, level, turn.before)?;
                turn.after.cache[*layer][block] = Some(pair);
            }
            Ok(())
        }
        (Op::Attend { layer }, [spread]) => context.keep(spread, *layer, turn.after),
        _ => Err(broken(&format!("{} has no cache", node.name))),
    }
}

/// Refreshes all vectors of a value to `level`, two by two as real and imaginary parts where the
/// choice says so.
pub(crate) fn refresh<M: Machine>(
    machine: &M,
    name: &str,
    vectors: &[M::Vector],
    choice: &RefreshChoice,
    level: usize,
) -> Result<Value<M>> {
    let mut out = Vec::with_capacity(vectors.len());
    for part in vectors.chunks(2) {
        match (part, choice.pair) {
            ([a, b], Some(kind)) => out.extend(refresh_pair(machine, [a, b], kind, level).at(name)?),
            _ => {
                for vector in part {
                    out.push(machine.refresh(vector, choice.single, Some(level)).at(name)?);
                }
            }
        }
    }
    Ok(out)
}

/// Like [`Machine::refresh_pair`], with any kind of complex refresh.
fn refresh_pair<M: Machine>(
    machine: &M,
    [first, second]: [&M::Vector; 2],
    kind: RefreshKind,
    level: usize,
) -> slots::Result<[M::Vector; 2]> {
    if kind == RefreshKind::Full {
        let (a, b) = machine.refresh_pair(first, second, Some(level))?;
        return Ok([a, b]);
    }
    let pair = machine.add(first, &machine.mul_i(second)?)?;
    // Half of the pair goes through, so that v + conj(v) is the real part itself.
    let half = machine.with_scale(&pair, machine.scale(&pair) * Scale::from_log2(1))?;
    let fresh = machine.refresh(&half, kind, Some(level))?;
    let conjugate = machine.conjugate(&fresh)?;
    let real = machine.add(&fresh, &conjugate)?;
    let imaginary = machine.mul_i(&machine.sub(&conjugate, &fresh)?)?;
    Ok([real, imaginary])
}

struct Context<'a, M> {
    machine: &'a M,
    folded: &'a Folded,
    node: &'a Node,
    /// Tokens of each text, without what fills it up.
    lengths: &'a [usize],
}

impl<M: Machine> Context<'_, M> {
    fn linear(&self, inputs: &[M::Vector], map: Map, bias: bool, level: usize) -> Result<Value<M>> {
        let (machine, name) = (self.machine, &self.node.name);
        let (transform, biases) = self.folded.transform(map)?;
        let pairing = Pairing::choose(&transform);
        let outputs = pairing.apply(machine, inputs, &transform, level).at(name)?;
        if bias { self.add_plains(outputs, &biases) } else { Ok(outputs) }
    }

    fn quadratic(&self, arguments: &[M::Vector], layer: usize, level: usize) -> Result<Value<M>> {
        let (machine, offsets) = (self.machine, self.folded.quadratic_offsets(layer)?);
        let apply = |(x, offset): (&M::Vector, &Plain)| {
            let x = lower(machine, x, level + 1)?;
            machine.mul(&x, &machine.add_plain(&x, offset)?)
        };
        arguments.par_iter().zip(&offsets).map(|pair| apply(pair).at(&self.node.name)).collect()
    }

    fn scaled(&self, raw: &[M::Vector], inv: &[M::Vector], map: Map, level: usize) -> Result<Value<M>> {
        let machine = self.machine;
        let inv = inv
            .first()
            .ok_or_else(|| Error::Malformed { what: self.node.name.clone(), reason: "no factor".into() })?;
        let inv = lower(machine, inv, level + 1).at(&self.node.name)?;
        let products = raw.par_iter().map(|x| {
            let x = lower(machine, x, level + 1).at(&self.node.name)?;
            machine.mul(&x, &inv).at(&self.node.name)
        });
        let products = products.collect::<Result<Vec<_>>>()?;
        self.add_plains(products, &self.folded.bias(map)?)
    }

    fn add_plains(&self, vectors: Value<M>, plains: &[Plain]) -> Result<Value<M>> {
        let add = |(vector, plain): (M::Vector, &Plain)| {
            if plain.is_zero() {
                Ok(vector)
            } else {
                self.machine.add_plain(&vector, plain).at(&self.node.name)
            }
        };
        vectors.into_iter().zip(plains).map(add).collect()
    }
}
