//! What a plan is made for, and which kinds of refresh it takes.

use cipherlm_circuits::slots::{Chain, RefreshKind, RefreshProfile};
use cipherlm_ckks::Params;

use crate::cost::CostModel;
use crate::error::{At, Result};
use crate::geometry::Geometry;

/// How the vectors of a value are refreshed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RefreshChoice {
    /// Kind for two real vectors at once, if that pays.
    pub(crate) pair: Option<RefreshKind>,
    /// Kind for a vector on its own.
    pub(crate) single: RefreshKind,
}

impl RefreshChoice {
    /// Refreshes done for `width` vectors: (pairs, singles).
    pub(crate) fn counts(&self, width: usize) -> (usize, usize) {
        if self.pair.is_some() { (width / 2, width % 2) } else { (0, width) }
    }
}

/// What a plan is made for.
#[derive(Debug, Clone)]
pub struct Target {
    /// Levels and scales.
    pub chain: Chain,
    /// The kinds of refresh there are.
    pub refreshes: Vec<RefreshProfile>,
    /// Highest level at which the client encrypts.
    pub input_level: usize,
    /// What primitives cost.
    pub cost: CostModel,
    /// The parameters and bootstrapping profiles behind all this, for the identity of a plan.
    pub(crate) origin: String,
}

impl Target {
    /// The chain of a parameter set, without refreshes; see [`Target::with_refresh`].
    ///
    /// # Errors
    /// [`crate::InferError::Slots`] when the parameters have no usable chain.
    pub fn of(params: &Params) -> Result<Self> {
        let chain = Chain::of(params).at("parameters")?;
        let origin = params.hash().as_bytes().iter().map(|b| format!("{b:02x}")).collect();
        Ok(Self { input_level: chain.top(), chain, refreshes: vec![], cost: CostModel::default(), origin })
    }

    /// The same with one more kind of refresh; fresh encryptions stay at or below its output.
    #[must_use]
    pub fn with_refresh(mut self, profile: RefreshProfile) -> Self {
        self.input_level = self.input_level.min(profile.output_level);
        self.refreshes.push(profile);
        self
    }

    /// The same with another table of costs, as [`CostModel::load`] reads it.
    #[must_use]
    pub fn with_cost(self, cost: CostModel) -> Self {
        Self { cost, ..self }
    }

    /// A uniform chain without primes, with full and real refreshes from level 0 to `levels`: for
    /// tests and planning.
    ///
    /// # Errors
    /// [`crate::InferError::Slots`] when `slots` is not a power of two.
    pub fn uniform(slots: usize, levels: usize, scale_bits: u32, bottom_bits: u32) -> Result<Self> {
        let chain = Chain::uniform(slots, levels, scale_bits, bottom_bits).at("chain")?;
        let profile =
            |kind| RefreshProfile { kind, input_level: 0, output_level: levels, range: 1.0, error: 1e-6 };
        let refreshes = vec![profile(RefreshKind::Full), profile(RefreshKind::Real)];
        Ok(Self {
            chain,
            refreshes,
            input_level: levels,
            cost: CostModel::default(),
            origin: "uniform".into(),
        })
    }
}

/// The lowest level that circuits use: those below a refresh's input belong to it, and their scales
/// suit nothing else.
pub(crate) fn floor(target: &Target) -> usize {
    target.refreshes.iter().map(|profile| profile.input_level).max().unwrap_or(0).max(target.chain.floor())
}

/// Picks kinds of refresh: sparse ones where all values repeat, pairs where a complex refresh
/// exists.
pub(crate) fn choose(target: &Target, geometry: &Geometry) -> (RefreshChoice, RefreshProfile) {
    let period = geometry.period();
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
    let pays = |kind: &RefreshKind| target.cost.refresh(*kind) < 2.0 * target.cost.refresh(single);
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
