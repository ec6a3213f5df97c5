//! The modulus chain as circuits see it: how many levels, what each one divides by, the scale that
//! belongs to it.

use super::{Error, Result, Scale};

/// The ladder of levels that a vector walks down, bottom first.
///
/// Level `l` is the number of rescales left. Going from level `l` to `l - 1` divides by
/// `modulus(l)`. Each level has one *canonical* scale, tied to its neighbours by
/// `scale(l - 1) = scale(l)^2 / modulus(l)`: the product of two canonical vectors, rescaled, is
/// canonical again, exactly, so no approximation ever enters through scales.
///
/// The recursion is solved from the bottom upwards, `scale(l) = sqrt(scale(l - 1) * modulus(l))`,
/// because in this direction the deviation of a prime from its nominal size is halved at each
/// level, while downwards it would double.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    slots: usize,
    moduli: Vec<Scale>,
    scales: Vec<Scale>,
    floor: usize,
}

impl Chain {
    /// A chain over `slots` complex slots whose level `l` owns the primes `groups[l]`;
    /// `bottom_scale` belongs to level 0.
    ///
    /// # Errors
    /// [`Error::Chain`] if there is no group, an empty group, or `slots` is not a power of two.
    pub fn new(slots: usize, groups: &[Vec<u64>], bottom_scale: Scale) -> Result<Self> {
        let moduli = groups
            .iter()
            .map(|group| group.iter().fold(Scale::ONE, |product, &prime| product * Scale::from_u64(prime)))
            .collect();
        Self::from_moduli(slots, moduli, bottom_scale)
    }

    /// A chain without primes, for planning and tests: `levels` levels that divide by
    /// `2^scale_bits` and a bottom modulus of `2^bottom_bits`; every canonical scale is
    /// `2^scale_bits`.
    ///
    /// # Errors
    /// [`Error::Chain`] if `slots` is not a power of two.
    pub fn uniform(slots: usize, levels: usize, scale_bits: u32, bottom_bits: u32) -> Result<Self> {
        let mut moduli = vec![Scale::from_log2(bottom_bits as i32)];
        moduli.resize(levels + 1, Scale::from_log2(scale_bits as i32));
        Self::from_moduli(slots, moduli, Scale::from_log2(scale_bits as i32))
    }

    /// A chain from the modulus that each level adds (level 0 first) and the canonical scale of
    /// level 0.
    ///
    /// # Errors
    /// [`Error::Chain`] if `moduli` is empty, one of them is below 2, or `slots` is not a power
    /// of two.
    pub fn from_moduli(slots: usize, moduli: Vec<Scale>, bottom_scale: Scale) -> Result<Self> {
        if !slots.is_power_of_two() {
            return Err(Error::Chain { reason: "the number of slots must be a power of two" });
        }
        if moduli.is_empty() || moduli.iter().any(|modulus| !modulus.is_usable() || modulus.to_f64() < 2.0) {
            return Err(Error::Chain { reason: "every level needs a modulus of at least 2" });
        }
        let mut scales = vec![bottom_scale];
        for &modulus in &moduli[1..] {
            let below = scales[scales.len() - 1];
            scales.push(square_root(below * modulus));
        }
        Ok(Self { slots, moduli, scales, floor: 0 })
    }

    /// A chain whose canonical scales are given, level 0 first (for parameter sets that keep their
    /// own table).
    ///
    /// # Errors
    /// [`Error::Chain`] if the tables are empty or of unequal length, or `slots` is not a power
    /// of two.
    pub fn with_scales(slots: usize, moduli: Vec<Scale>, scales: Vec<Scale>) -> Result<Self> {
        let bottom = *scales.first().ok_or(Error::Chain { reason: "a chain needs at least one level" })?;
        if scales.len() != moduli.len() {
            return Err(Error::Chain { reason: "one canonical scale is needed per level" });
        }
        Ok(Self { scales, ..Self::from_moduli(slots, moduli, bottom)? })
    }

    /// The same moduli for circuits that stay at or above level `floor`, where the canonical scale
    /// is `scale`: the levels below belong to a refresh, whose moduli have sizes of their own.
    ///
    /// # Errors
    /// [`Error::Chain`] if there is no level `floor`.
    pub fn with_floor(mut self, floor: usize, scale: Scale) -> Result<Self> {
        if floor > self.top() {
            return Err(Error::Chain { reason: "the floor must be a level of the chain" });
        }
        self.floor = floor;
        self.scales[..=floor].fill(scale);
        for level in floor + 1..=self.top() {
            self.scales[level] = square_root(self.scales[level - 1] * self.moduli[level]);
        }
        Ok(self)
    }

    /// The same levels for one of `lanes` vectors that share these slots.
    ///
    /// # Errors
    /// [`Error::Shape`] if `lanes` is not a power of two of at most the slots.
    pub(super) fn of_lane(&self, lanes: usize) -> Result<Self> {
        if !lanes.is_power_of_two() || lanes > self.slots {
            let what = "interleaved vectors, a power of two of at most the slots";
            return Err(Error::Shape { what, have: lanes, need: self.slots });
        }
        Ok(Self { slots: self.slots / lanes, ..self.clone() })
    }

    /// The lowest level that circuits may land on.
    pub fn floor(&self) -> usize {
        self.floor
    }

    /// Number of complex slots.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// The highest level.
    pub fn top(&self) -> usize {
        self.moduli.len() - 1
    }

    /// What a rescale at `level` divides by (at level 0: the modulus that cannot be given up).
    /// `level` is capped at the top.
    pub fn modulus(&self, level: usize) -> Scale {
        self.moduli[level.min(self.top())]
    }

    /// The canonical scale of `level`, capped at the top.
    pub fn scale(&self, level: usize) -> Scale {
        self.scales[level.min(self.top())]
    }

    /// The scale that a value at `level` must have for a rescale to leave it canonical one level
    /// below; `None` at the floor and under it.
    pub fn product_scale(&self, level: usize) -> Option<Scale> {
        (level > self.floor).then(|| self.scale(level - 1) * self.modulus(level))
    }

    /// log2 of the whole modulus that is left at `level`.
    pub fn log2_modulus(&self, level: usize) -> f64 {
        self.moduli[..=level.min(self.top())].iter().map(|modulus| modulus.log2()).sum()
    }

    /// The largest |slot| that a value of this level and scale can carry without wrapping around
    /// the modulus.
    pub fn capacity(&self, level: usize, scale: Scale) -> f64 {
        (self.log2_modulus(level) - 1.0 - scale.log2()).exp2()
    }
}

/// The positive square root, to the precision of the type: one correction of the double root by
/// half of its relative error.
pub(crate) fn square_root(scale: Scale) -> Scale {
    let root = Scale::new(scale.to_f64().sqrt());
    let (high, low) = (scale / root.square()).to_parts();
    let correction = ((high - 1.0) + low) / 2.0;
    let factor = 1.0 + correction;
    Scale::from_parts(factor, correction - (factor - 1.0)).map_or(root, |factor| root * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_canonical_values_rescale_to_canonical_values() {
        let groups = vec![
            vec![(1 << 49) - 111],
            vec![(1 << 40) + 12345],
            vec![(1 << 40) - 99999],
            vec![1 << 25, 1 << 24],
        ];
        let chain = Chain::new(8, &groups, Scale::from_log2(40)).unwrap();
        for level in 1..=chain.top() {
            let squared = chain.scale(level) * chain.scale(level);
            assert!((squared / chain.modulus(level)).matches(chain.scale(level - 1)));
            assert!(chain.product_scale(level).unwrap().matches(squared));
        }
        // Odd primes do not pull the scale away from nominal.
        assert!((chain.scale(2).log2() - 40.0).abs() < 1e-6);
    }

    #[test]
    fn levels_under_the_floor_take_no_products() {
        let groups =
            vec![vec![(1 << 46) - 21], vec![1 << 31], vec![(1 << 40) + 12345], vec![(1 << 40) - 99999]];
        let chain = Chain::new(8, &groups, Scale::from_log2(36))
            .unwrap()
            .with_floor(1, Scale::from_log2(40))
            .unwrap();
        assert_eq!(chain.floor(), 1);
        assert!(chain.scale(1).matches(Scale::from_log2(40)));
        assert!(chain.product_scale(1).is_none());
        let squared = chain.scale(2) * chain.scale(2);
        assert!((squared / chain.modulus(2)).matches(chain.scale(1)));
        assert!((chain.scale(3).log2() - 40.0).abs() < 1e-6);
        assert!(Chain::uniform(8, 2, 40, 50).unwrap().with_floor(3, Scale::from_log2(40)).is_err());
    }

    #[test]
    fn bad_chains_are_refused() {
        assert!(matches!(Chain::uniform(12, 3, 40, 50), Err(Error::Chain { .. })));
        assert!(Chain::from_moduli(8, vec![], Scale::ONE).is_err());
        assert!(Chain::with_scales(8, vec![Scale::from_log2(40)], vec![]).is_err());
    }
}
