//! What a table of costs says of one chain: seconds by level, and of refreshes by the level they
//! reach.

use std::collections::BTreeMap;

use cipherlm_circuits::slots::{OpKind, RefreshKind, RefreshProfile};

use crate::cost::{CostModel, DEGREE, Size};
use crate::geometry::Geometry;
use crate::target::{RefreshChoice, Target};

/// Prices of a chain.
#[derive(Debug, Clone)]
pub(crate) struct Prices {
    primitives: BTreeMap<OpKind, Vec<f64>>,
    refreshes: Vec<(RefreshKind, Vec<f64>)>,
    /// What a linear transform takes of the sum of its primitives.
    pub(crate) linear: f64,
}

const KINDS: [OpKind; 14] = [
    OpKind::Encode,
    OpKind::Add,
    OpKind::AddPlain,
    OpKind::MulPlain,
    OpKind::MulConst,
    OpKind::Mul,
    OpKind::Relin,
    OpKind::Rescale,
    OpKind::Rotate,
    OpKind::Conjugate,
    OpKind::ModUp,
    OpKind::KeyProduct,
    OpKind::MulPlainExtended,
    OpKind::ModDown,
];

impl Prices {
    /// The prices of a target by a table, for a layout.
    pub(crate) fn new(target: &Target, cost: &CostModel, geometry: &Geometry) -> Self {
        Self::of_one(target, cost).with_prompts(target, geometry)
    }

    /// The same where several prompts share the vectors: what is multiplied by every token is as
    /// many times as long, and its transforms take as much more.
    fn with_prompts(mut self, target: &Target, geometry: &Geometry) -> Self {
        let degree = 2 * target.chain.slots();
        let work = |degree: usize| degree as f64 * (degree as f64).log2();
        // Runs of fewer than sixteen equal residues are not told from others.
        let lift = |values: usize| work(if 32 * values > degree { degree } else { 2 * values });
        let longer = lift(geometry.features * geometry.prompts) - lift(geometry.features);
        let share = longer / work(degree);
        for level in 0..=target.chain.top() {
            let Size { limbs, special, .. } = target.size(level);
            // A rescale takes two transforms of each limb.
            let more = share * self.seconds(OpKind::Rescale, level) / (2 * limbs.max(1)) as f64;
            for (kind, transforms) in [
                (OpKind::Encode, 1),
                (OpKind::AddPlain, limbs),
                (OpKind::MulPlain, limbs),
                (OpKind::MulPlainExtended, limbs + special + 1),
            ] {
                let price = self.primitives.get_mut(&kind).and_then(|by_level| by_level.get_mut(level));
                price.into_iter().for_each(|price| *price += transforms as f64 * more);
            }
        }
        self
    }

    fn of_one(target: &Target, cost: &CostModel) -> Self {
        // Transforms take N log N, nearly all else N.
        let size = (2 * target.chain.slots()) as f64;
        let share = size * size.log2() / (DEGREE as f64 * (DEGREE as f64).log2());
        let sizes = || (0..=target.chain.top()).map(|level| target.size(level));
        let of = |kind| (kind, sizes().map(|size| share * cost.seconds(kind, size)).collect());
        let primitives = BTreeMap::from(KINDS.map(of));
        let refreshes = target.refreshes.iter().map(|profile| {
            let reach = |level: usize| match target.work(profile.kind) {
                Some(work) => share * cost.work(work.get(level).map_or(&[], Vec::as_slice)),
                None => share * unknown(profile.kind, cost),
            };
            (profile.kind, (0..=profile.output_level).map(reach).collect())
        });
        Self { primitives, refreshes: refreshes.collect(), linear: cost.part("linear") }
    }

    /// Seconds of one primitive on an operand at a level; beyond the chain in proportion.
    pub(crate) fn seconds(&self, kind: OpKind, level: usize) -> f64 {
        let Some(by_level) = self.primitives.get(&kind) else { return 0.0 };
        match (by_level.get(level), by_level.last()) {
            (Some(&seconds), _) => seconds,
            (None, Some(&last)) => last * (level + 1) as f64 / by_level.len() as f64,
            (None, None) => 0.0,
        }
    }

    /// Seconds of one refresh of one (possibly complex) vector to a level.
    pub(crate) fn refresh(&self, kind: RefreshKind, level: usize) -> f64 {
        let known = self.refreshes.iter().find(|(known, _)| *known == kind).map(|(_, by_level)| by_level);
        known.and_then(|by_level| by_level.get(level).or(by_level.last())).copied().unwrap_or(0.0)
    }
}

/// A refresh of which only the kind is known: as many rotations as one takes at N = 2^16.
fn unknown(kind: RefreshKind, cost: &CostModel) -> f64 {
    let rotations = match kind {
        RefreshKind::Real => 70.0,
        RefreshKind::SparseReal(_) => 60.0,
        RefreshKind::Sparse(_) => 75.0,
        _ => 100.0,
    };
    rotations * cost.seconds(OpKind::Rotate, Size::usual(17))
}

/// Picks kinds of refresh: sparse ones where all values repeat, pairs where a complex refresh
/// exists.
pub(crate) fn choose(
    target: &Target,
    geometry: &Geometry,
    prices: &Prices,
) -> (RefreshChoice, RefreshProfile) {
    let period = geometry.period() * geometry.prompts;
    let known = |kind: RefreshKind| target.refreshes.iter().find(|p| p.kind == kind);
    let first = |kinds: &[RefreshKind]| kinds.iter().copied().find(|&kind| known(kind).is_some());
    let single = first(&[
        RefreshKind::SparseReal(period),
        RefreshKind::Sparse(period),
        RefreshKind::Real,
        RefreshKind::Full,
    ]);
    let pair = first(&[RefreshKind::Sparse(period), RefreshKind::Full]);
    let Some(single) = single else {
        // Without refreshes the whole circuit has to fit the chain.
        let level = target.input_level;
        let none = RefreshProfile {
            kind: RefreshKind::Full,
            input_level: 0,
            output_level: level,
            range: 1.0,
            error: 0.0,
        };
        return (RefreshChoice { pair: None, single: RefreshKind::Full }, none);
    };
    let price = |kind| prices.refresh(kind, target.input_level);
    let pays = |kind: &RefreshKind| price(*kind) < 2.0 * price(single);
    let choice = RefreshChoice { pair: pair.filter(pays), single };
    // Plan with what every kind in use can do.
    let used = [Some(single), choice.pair].into_iter().flatten().filter_map(known).copied();
    let narrow = |a: RefreshProfile, b: RefreshProfile| RefreshProfile {
        input_level: a.input_level.max(b.input_level),
        output_level: a.output_level.min(b.output_level),
        ..a
    };
    let first = known(single).copied().into_iter();
    let profile = first.chain(used).reduce(narrow).unwrap_or(RefreshProfile {
        kind: single,
        input_level: 0,
        output_level: 0,
        range: 1.0,
        error: 0.0,
    });
    (choice, profile)
}
