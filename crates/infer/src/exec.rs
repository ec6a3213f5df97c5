//! Carrying out one node on a machine.

use cipherlm_circuits::polynomial;
use cipherlm_circuits::slots::{Machine, Plain, RefreshKind, Scale, SlotResult};
use cipherlm_model::Attention;
use num_complex::Complex64;
use rayon::prelude::*;

use crate::error::{At, InferError, Result, broken};
use crate::fold::{Folded, Map};
use crate::graph::{Node, Op};
use crate::pairing::Pairing;
use crate::report::POWER_LABEL;
use crate::target::RefreshChoice;

/// The vectors of one node.
pub(crate) type Value<M> = Vec<<M as Machine>::Vector>;

/// A session within one step: read as it was before, written for after. A step that is done twice
/// so leaves what one does.
pub(crate) struct Turn<'a, M: Machine> {
    pub(crate) before: &'a Session<M>,
    pub(crate) after: &'a mut Session<M>,
}

/// Evaluates a node whose inputs are given (already sliced) so that every output is canonical at
/// `level`.
pub(crate) fn evaluate<M: Machine>(
    machine: &M,
    folded: &Folded,
    node: &Node,
    inputs: &[&[M::Vector]],
    level: usize,
    turn: Option<&mut Turn<'_, M>>,
) -> Result<Value<M>> {
    let context = Context { machine, folded, node };
    match (&node.op, inputs) {
        (Op::Variance { site }, [hidden]) => context.variance(hidden, site, level),
        (Op::Poly { plan }, [arguments]) => {
            let apply = |x: &M::Vector| {
                let mut values = polynomial::evaluate_all_to(machine, plan, x, level)?;
                Ok(values.swap_remove(0))
            };
            arguments.par_iter().map(|x| apply(x).at(&node.name)).collect()
        }
        (Op::Linear { map, bias }, [vectors]) => context.linear(vectors, *map, *bias, level),
        (Op::Scaled { map }, [raw, factor]) => context.scaled(raw, factor, *map, level),
        (Op::Spread { layer }, [vectors]) => {
            let transform = match &turn {
                Some(turn) if folded.decoding() => folded.spread_one(*layer, turn.before.position)?,
                turn => folded.spread(*layer, turn.as_ref().map_or(usize::MAX, |turn| turn.before.prompt))?,
            };
            let inputs: Vec<&M::Vector> = vectors.iter().collect();
            machine.linear_transforms_to(&inputs, &transform, level).at(&node.name)
        }
        (Op::Attend { layer }, [qkv]) if folded.packs_scores() => {
            crate::packed::attend(machine, folded, &node.name, qkv, *layer, level)
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
        (op, _) => {
            let counts: Vec<usize> = inputs.iter().map(|input| input.len()).collect();
            Err(broken(&format!("{} takes no operands of {counts:?} vectors for {op:?}", node.name)))
        }
    }
}

/// Puts keys and values into the cache of a session, as [`evaluate`] does, for attention whose
/// result was kept from another run.
pub(crate) fn remember<M: Machine>(
    machine: &M,
    folded: &Folded,
    node: &Node,
    inputs: &[&[M::Vector]],
    level: usize,
    turn: &mut Turn<'_, M>,
) -> Result<()> {
    let context = Context { machine, folded, node };
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
) -> SlotResult<[M::Vector; 2]> {
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

/// `vector` at `level`, canonical; unchanged if it is there.
pub(crate) fn lower<M: Machine>(machine: &M, vector: &M::Vector, level: usize) -> SlotResult<M::Vector> {
    if machine.level(vector) == level && machine.is_canonical(vector) {
        return Ok(vector.clone());
    }
    machine.to_level(vector, level)
}

/// Copies the first of every `count` slots to all of them, where the others are zero. Rotates to
/// the left only, by the steps of a sum over the same slots: one more rotation than the other way
/// round, and hardly any key.
pub(crate) fn spread<M: Machine>(machine: &M, vector: &M::Vector, count: usize) -> SlotResult<M::Vector> {
    machine.rotate_sum(&machine.rotate(vector, 1 - count as i64)?, 1, count)
}

/// Keys and values of the tokens so far, encrypted, and the position of the next token.
pub struct Session<M: Machine> {
    /// Position of the token to run next.
    pub(crate) position: usize,
    /// Tokens of the prompt to come; what follows them in its plan is padding and stays out of the
    /// cache.
    pub(crate) prompt: usize,
    /// Slots per token of the cache.
    pub(crate) features: usize,
    /// Keys after rotary, then values, by layer and block: token-major, one slot group per token.
    pub(crate) cache: Vec<Vec<Option<[M::Vector; 2]>>>,
}

impl<M: Machine> Clone for Session<M> {
    fn clone(&self) -> Self {
        Self { cache: self.cache.clone(), ..*self }
    }
}

impl<M: Machine> Session<M> {
    /// An empty session for a prompt of `prompt` tokens.
    pub(crate) fn empty(folded: &Folded, prompt: usize) -> Self {
        let g = folded.geometry;
        let cache = vec![vec![None; g.blocks]; folded.shape().layers];
        Self { position: 0, prompt, features: g.features, cache }
    }

    /// Number of tokens in the cache.
    pub fn position(&self) -> usize {
        self.position
    }
}

struct Context<'a, M> {
    machine: &'a M,
    folded: &'a Folded,
    node: &'a Node,
}

impl<M: Machine> Context<'_, M> {
    /// Sum of squares over the blocks, then over the features of a token, spread over all of them
    /// again.
    fn variance(&self, hidden: &[M::Vector], site: &str, level: usize) -> Result<Value<M>> {
        let (machine, g) = (self.machine, self.folded.geometry);
        let range = self.folded.model.site(site).map(|s| s.range);
        let range = range
            .ok_or_else(|| InferError::Polynomial { site: site.into(), reason: "not certified".into() })?;
        let (factor, constant) = self.folded.variance_constants(range);
        let mut mask = vec![0.0; g.features];
        mask[0] = factor;
        let run = || {
            let lowered: Vec<M::Vector> =
                hidden.iter().map(|h| lower(machine, h, level + 2)).collect::<SlotResult<_>>()?;
            let pairs: Vec<_> = lowered.iter().map(|h| (h, h)).collect();
            let squares = machine.mul_sum(&pairs)?;
            let sum = machine.rotate_sum(&squares, 1, g.features)?;
            // A single token repeats: its sum is everywhere already.
            let all = if g.tokens == 1 {
                machine.mul_const(&sum, Complex64::new(factor, 0.0))?
            } else {
                spread(machine, &machine.mul_plain(&sum, &Plain::real(mask))?, g.features)?
            };
            machine.add_const(&all, Complex64::new(constant, 0.0))
        };
        Ok(vec![run().at(&self.node.name)?])
    }

    fn linear(&self, inputs: &[M::Vector], map: Map, bias: bool, level: usize) -> Result<Value<M>> {
        let (machine, name) = (self.machine, &self.node.name);
        let (transform, biases) = self.folded.transform(map)?;
        let outputs = match Pairing::choose(transform.inputs(), transform.outputs()) {
            None => {
                let inputs: Vec<&M::Vector> = inputs.iter().collect();
                machine.linear_transforms_to(&inputs, &transform, level).at(name)?
            }
            Some(pairing) => {
                let joined = pairing.join(&transform).at(name)?;
                let inputs = pairing.gather(machine, inputs).at(name)?;
                let inputs: Vec<&M::Vector> = inputs.iter().collect();
                let results = machine.linear_transforms_to(&inputs, &joined, level).at(name)?;
                pairing.split(machine, &results, transform.outputs()).at(name)?
            }
        };
        if bias { self.add_plains(outputs, &biases) } else { Ok(outputs) }
    }

    fn scaled(&self, raw: &[M::Vector], inv: &[M::Vector], map: Map, level: usize) -> Result<Value<M>> {
        let machine = self.machine;
        let inv = inv.first().ok_or_else(|| InferError::Malformed {
            what: self.node.name.clone(),
            reason: "no factor".into(),
        })?;
        let inv = lower(machine, inv, level + 1).at(&self.node.name)?;
        let products = raw.par_iter().map(|x| {
            let x = lower(machine, x, level + 1).at(&self.node.name)?;
            machine.mul(&x, &inv).at(&self.node.name)
        });
        let products = products.collect::<Result<Vec<_>>>()?;
        let affine = self.folded.affine(map)?;
        self.add_plains(products, &self.folded.geometry.layout()?.every_token(&affine.bias))
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

    /// Hands the keys and values of a whole prompt to a session.
    fn keep(&self, spread: &[M::Vector], layer: usize, session: &mut Session<M>) -> Result<()> {
        let blocks = self.folded.geometry.blocks;
        for block in 0..blocks {
            let (Some(key), Some(value)) = (spread.get(3 * blocks + block), spread.get(4 * blocks + block))
            else {
                return Err(broken(&format!("{} has no keys and values for the cache", self.node.name)));
            };
            session.cache[layer][block] = Some([key.clone(), value.clone()]);
        }
        Ok(())
    }

    /// Keys and values of a block with those of the token added.
    fn cached(
        &self,
        spread: &[M::Vector],
        layer: usize,
        block: usize,
        level: usize,
        before: &Session<M>,
    ) -> Result<[M::Vector; 2]> {
        let (machine, blocks) = (self.machine, self.folded.geometry.blocks);
        let own = self.folded.token_mask(before.position);
        let (key_level, value_level) = (level + 3 + crate::graph::power_depth(self.power()?), level + 1);
        let run = || {
            let key = machine.mul_plain_to(&spread[blocks + block], &own, key_level)?;
            let value = machine.mul_plain_to(&spread[2 * blocks + block], &own, value_level)?;
            let Some([keys, values]) = before.cache[layer][block].as_ref() else { return Ok([key, value]) };
            let key = machine.add(&lower(machine, keys, key_level)?, &key)?;
            Ok([key, machine.add(&lower(machine, values, value_level)?, &value)?])
        };
        run().at(&self.node.name)
    }

    fn power(&self) -> Result<u32> {
        match self.folded.shape().attention {
            Attention::PowerSoftmax { p, .. } => Ok(p),
            _ => Err(InferError::Unsupported { feature: "this attention", advice: "use PowerSoftmax" }),
        }
    }

    /// Attention of one token over the cache, after adding the token to it.
    fn attend_cached(
        &self,
        spread: &[M::Vector],
        layer: usize,
        level: usize,
        turn: &mut Turn<'_, M>,
    ) -> Result<Value<M>> {
        let (machine, g, name) = (self.machine, self.folded.geometry, &self.node.name);
        let p = self.power()?;
        let (mut numerators, mut denominators) = (vec![], vec![]);
        for block in 0..g.blocks {
            let [key, value] = self.cached(spread, layer, block, level, turn.before)?;
            let (mask, add) = self.folded.cached_score_plains(layer, block, turn.before.position)?;
            let run = || {
                let query = lower(machine, &spread[block], machine.level(&key))?;
                let sum = machine.rotate_sum(&machine.mul(&query, &key)?, 1, g.head)?;
                let first = machine.add_plain(&machine.mul_plain(&sum, &mask)?, &add)?;
                let weight = power(machine, &machine.rotate_sum(&first, -1, g.head)?, p)?;
                let stride = g.features as i64;
                let numerator =
                    machine.rotate_sum(&machine.mul(&weight, &value)?, stride, g.slots / g.features)?;
                let sum =
                    machine.rotate_sum(&lower(machine, &weight, level)?, stride, g.slots / g.features)?;
                let offset = Complex64::new(self.folded.denominator_offset(layer), 0.0);
                Ok((numerator, machine.add_const(&sum, offset)?))
            };
            let (numerator, denominator) = run().at(name)?;
            turn.after.cache[layer][block] = Some([key, value]);
            numerators.push(numerator);
            denominators.push(denominator);
        }
        numerators.extend(denominators);
        Ok(numerators)
    }

    fn attend(&self, spread: &[M::Vector], layer: usize, level: usize) -> Result<Value<M>> {
        let (machine, g) = (self.machine, self.folded.geometry);
        let p = self.power()?;
        let steps: Vec<i64> = (0..g.shifts()).map(|a| -(a as i64) * g.shift_stride()).collect();
        // Product, mask and the power lie above the weights, which lie one above the output.
        let key_level = level + 3 + crate::graph::power_depth(p);
        let copies_stride = g.period() as i64;
        let mut numerators = vec![];
        let mut denominators = vec![];
        for block in 0..g.blocks {
            let part = |index: usize, at: usize| {
                lower(machine, &spread[index * g.blocks + block], at).at(&self.node.name)
            };
            let (query, key) = (part(0, key_level)?, part(1, key_level)?);
            let value = part(2, level + 1)?;
            let keys = machine.rotate_many(&key, &steps).at(&self.node.name)?;
            let values = machine.rotate_many(&value, &steps).at(&self.node.name)?;
            let sums = keys.par_iter().map(|key| machine.rotate_sum(&machine.mul(&query, key)?, 1, g.head));
            let sums = sums.collect::<SlotResult<Vec<_>>>().at(&self.node.name)?;
            let label = machine.log().label(&format!("{}{POWER_LABEL}", self.node.name));
            let weights = sums.par_iter().enumerate().map(|(shift, sum)| {
                let (mask, add) = self.folded.score_plains(layer, block, shift)?;
                let run = || {
                    let first = machine.add_plain(&machine.mul_plain(sum, &mask)?, &add)?;
                    power(machine, &machine.rotate_sum(&first, -1, g.head)?, p)
                };
                run().at(&self.node.name)
            });
            let weights = weights.collect::<Result<Vec<_>>>()?;
            drop(label);
            let run = || {
                let pairs: Vec<_> = weights.iter().zip(&values).collect();
                let numerator = machine.rotate_sum(&machine.mul_sum(&pairs)?, copies_stride, g.copies)?;
                let sum = machine.add_many(&weights.iter().collect::<Vec<_>>())?;
                let sum = machine.rotate_sum(&lower(machine, &sum, level)?, copies_stride, g.copies)?;
                let offset = Complex64::new(self.folded.denominator_offset(layer), 0.0);
                Ok((numerator, machine.add_const(&sum, offset)?))
            };
            let (numerator, denominator) = run().at(&self.node.name)?;
            numerators.push(numerator);
            denominators.push(denominator);
        }
        numerators.extend(denominators);
        Ok(numerators)
    }
}

/// `x^p` for p = 2, 4, 6, 8, 16.
pub(crate) fn power<M: Machine>(machine: &M, x: &M::Vector, p: u32) -> SlotResult<M::Vector> {
    let square = machine.square(x)?;
    if p == 6 {
        let fourth = machine.square(&square)?;
        return machine.mul(&fourth, &square);
    }
    (1..p.trailing_zeros()).try_fold(square, |x, _| machine.square(&x))
}
