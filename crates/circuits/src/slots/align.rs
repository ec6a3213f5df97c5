//! Bringing operands to one level and scale.

use super::{Chain, Error, Plain, Primitives, Result, Scale};
use std::borrow::Cow;

/// Two operands, borrowed where nothing had to be done to them.
pub(crate) type Pair<'a, V> = (Cow<'a, V>, Cow<'a, V>);

/// `vector`, rescaled if it is a product.
pub(crate) fn settled<'a, M: Primitives + ?Sized>(
    machine: &M,
    vector: &'a M::Vector,
) -> Result<Cow<'a, M::Vector>> {
    Ok(if machine.is_product(vector) { Cow::Owned(machine.rescale(vector)?) } else { Cow::Borrowed(vector) })
}

/// The plaintext scale that turns `vector` into a product of its level.
pub(crate) fn plain_scale<M: Primitives + ?Sized>(
    machine: &M,
    operation: &'static str,
    vector: &M::Vector,
) -> Result<Scale> {
    let have = machine.level(vector);
    let product = machine.chain().product_scale(have);
    let product =
        product.ok_or(Error::LevelExhausted { operation, have, need: machine.chain().floor() + 1 })?;
    Ok(product / machine.scale(vector))
}

/// A canonical vector as a product of its level, with the same slots.
fn times_one<M: Primitives + ?Sized>(machine: &M, vector: &M::Vector) -> Result<M::Vector> {
    let scale = plain_scale(machine, "mul_plain", vector)?;
    machine.mul_plain_at(vector, &Plain::from(1.0), scale)
}

/// [`super::Machine::mul_plain`] of a settled vector.
pub(crate) fn mul_plain<M: Primitives + ?Sized>(
    machine: &M,
    vector: &M::Vector,
    plain: &Plain,
) -> Result<M::Vector> {
    let scale = plain_scale(machine, "mul_plain", vector)?;
    if !plain.holds_at(scale) {
        let (value, log2_scale) = (plain.max_abs(), scale.log2());
        return Err(Error::ValueTooSmall { operation: "mul_plain", value, log2_scale });
    }
    machine.rescale(&machine.mul_plain_at(vector, plain, scale)?)
}

/// [`super::Machine::mul_plain_to`] of a settled vector.
pub(crate) fn mul_plain_to<M: Primitives + ?Sized>(
    machine: &M,
    vector: &M::Vector,
    plain: &Plain,
    level: usize,
) -> Result<M::Vector> {
    let have = machine.level(vector);
    if have <= level {
        return Err(Error::LevelRaise { have, want: level + 1 });
    }
    mul_plain(machine, &machine.drop_to(vector, level + 1)?, plain)
}

/// [`super::Machine::to_level`].
pub(crate) fn to_level<M: Primitives + ?Sized>(
    machine: &M,
    vector: &M::Vector,
    level: usize,
) -> Result<M::Vector> {
    let vector = settled(machine, vector)?;
    if machine.level(&vector) == level {
        require_scale(machine.chain().scale(level), machine.scale(&vector))?;
        return Ok(vector.into_owned());
    }
    mul_plain_to(machine, &vector, &Plain::from(1.0), level)
}

/// Both vectors at one level and scale.
pub(crate) fn meet<'a, M: Primitives + ?Sized>(
    machine: &M,
    left: &'a M::Vector,
    right: &'a M::Vector,
) -> Result<Pair<'a, M::Vector>> {
    let same_level = machine.level(left) == machine.level(right);
    if same_level && machine.scale(left).matches(machine.scale(right)) {
        return Ok((Cow::Borrowed(left), Cow::Borrowed(right)));
    }
    if same_level && machine.is_product(left) && machine.is_canonical(right) {
        return Ok((Cow::Borrowed(left), Cow::Owned(times_one(machine, right)?)));
    }
    if same_level && machine.is_canonical(left) && machine.is_product(right) {
        return Ok((Cow::Owned(times_one(machine, left)?), Cow::Borrowed(right)));
    }
    let (left, right) = (settled(machine, left)?, settled(machine, right)?);
    let level = machine.level(&left).min(machine.level(&right));
    Ok((lowered(machine, left, level)?, lowered(machine, right, level)?))
}

fn lowered<'a, M: Primitives + ?Sized>(
    machine: &M,
    vector: Cow<'a, M::Vector>,
    level: usize,
) -> Result<Cow<'a, M::Vector>> {
    if machine.level(&vector) == level && machine.is_canonical(&vector) {
        return Ok(vector);
    }
    to_level(machine, &vector, level).map(Cow::Owned)
}

/// All vectors at `level` and one scale: those of one common scale lose their surplus levels for
/// free, others are brought to the canonical scale.
pub(crate) fn lower_all<M: Primitives + ?Sized>(
    machine: &M,
    vectors: &[&M::Vector],
    level: usize,
) -> Result<Vec<M::Vector>> {
    let mut lowered = Vec::with_capacity(vectors.len());
    for vector in vectors {
        let vector = settled(machine, vector)?;
        let have = machine.level(&vector);
        if have < level {
            return Err(Error::LevelRaise { have, want: level });
        }
        lowered.push(vector);
    }
    let uniform = lowered.windows(2).all(|pair| machine.scale(&pair[0]).matches(machine.scale(&pair[1])));
    let lower = |vector: &Cow<'_, M::Vector>| {
        if uniform { machine.drop_to(vector, level) } else { to_level(machine, vector, level) }
    };
    lowered.iter().map(lower).collect()
}

/// All vectors of all pairs, canonical at their lowest level.
pub(crate) fn align_pairs<'a, M: Primitives + ?Sized>(
    machine: &M,
    pairs: &[(&'a M::Vector, &'a M::Vector)],
) -> Result<Vec<Pair<'a, M::Vector>>> {
    let mut settled_pairs = Vec::with_capacity(pairs.len());
    let mut level = usize::MAX;
    for &(left, right) in pairs {
        let pair = (settled(machine, left)?, settled(machine, right)?);
        level = level.min(machine.level(&pair.0)).min(machine.level(&pair.1));
        settled_pairs.push(pair);
    }
    if machine.chain().product_scale(level).is_none() {
        return Err(Error::LevelExhausted {
            operation: "mul",
            have: level,
            need: machine.chain().floor() + 1,
        });
    }
    let align = |(left, right)| Ok((lowered(machine, left, level)?, lowered(machine, right, level)?));
    settled_pairs.into_iter().map(align).collect()
}

pub(crate) fn require_scale(left: Scale, right: Scale) -> Result<()> {
    if left.matches(right) { Ok(()) } else { Err(Error::ScaleMismatch { left, right }) }
}

/// Refuses a rescale without a level, or to a scale below the error that the rescale itself leaves.
pub(crate) fn require_rescale(chain: &Chain, level: usize, scale: Scale) -> Result<()> {
    const OPERATION: &str = "rescale";
    if level == 0 {
        return Err(Error::LevelExhausted { operation: OPERATION, have: 0, need: 1 });
    }
    let scale = scale / chain.modulus(level);
    // As in a ring of twice as many coefficients as slots.
    let least = cipherlm_ckks::noise::rounding_bits(f64::from(chain.slots().ilog2()) + 1.0);
    if !scale.is_usable() || scale.log2() < least {
        return Err(Error::ScaleTooSmall { operation: OPERATION, log2_scale: scale.log2() });
    }
    Ok(())
}

pub(crate) fn require_level(left: usize, right: usize) -> Result<()> {
    if left == right { Ok(()) } else { Err(Error::LevelMismatch { left, right }) }
}
