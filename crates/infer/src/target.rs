//! What a plan is made for, and which kinds of refresh it takes.

use cipherlm_circuits::bootstrap::Work;
use cipherlm_circuits::slots::{Chain, RefreshKind, RefreshProfile};
use cipherlm_ckks::Params;

use crate::cost::{CostModel, Size};
use crate::error::{At, Result};
use crate::small::Degrees;

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
    /// What primitives cost where the plan will run. It says how long that takes, and changes
    /// nothing in the plan: steps and refreshes are placed by [`CostModel::default`], so that a
    /// client and a server make the same plan whatever they have measured.
    pub cost: CostModel,
    /// Sizes of operands and keys by level.
    sizes: Vec<Size>,
    /// Work of each kind of refresh, by the level of the result.
    works: Vec<(RefreshKind, Vec<Vec<Work>>)>,
    /// The parameters and bootstrapping profiles behind all this, for the identity of a plan.
    pub(crate) origin: String,
    /// Least degrees of the rings of small messages; none without levels below the floor.
    pub(crate) small: Option<Degrees>,
}

impl Target {
    /// The chain of a parameter set, without refreshes; see [`Target::with_refresh`].
    ///
    /// # Errors
    /// [`crate::Error::Slots`] when the parameters have no usable chain.
    pub fn of(params: &Params) -> Result<Self> {
        let chain = Chain::of(params).at("parameters")?;
        let origin = params.hash().as_bytes().iter().map(|b| format!("{b:02x}")).collect();
        let sizes = (0..=params.max_level()).map(|level| Size::at(params, level)).collect();
        let (input_level, cost) = (chain.top(), CostModel::builtin(params.ring().kernel_name()));
        Ok(Self { input_level, chain, refreshes: vec![], cost, sizes, works: vec![], origin, small: None })
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

    /// The same, with the work of one kind of refresh by the level of its result.
    pub(crate) fn with_work(mut self, kind: RefreshKind, work: Vec<Vec<Work>>) -> Self {
        self.works.push((kind, work));
        self
    }

    /// The size of operands and keys at a level.
    pub(crate) fn size(&self, level: usize) -> Size {
        self.sizes.get(level).copied().unwrap_or_else(|| Size::usual(level + 1))
    }

    /// Limbs at the top of the whole chain; those of the usual one where nothing is known.
    pub(crate) fn most_limbs(&self) -> u64 {
        self.sizes.last().map_or(32, |size| size.limbs as u64)
    }

    /// The work of a kind of refresh by the level of its result, if it is known.
    pub(crate) fn work(&self, kind: RefreshKind) -> Option<&[Vec<Work>]> {
        self.works.iter().find(|(known, _)| *known == kind).map(|(_, work)| work.as_slice())
    }

    /// A uniform chain without primes, with full and real refreshes from level 0 to `levels`: for
    /// tests and planning.
    ///
    /// # Errors
    /// [`crate::Error::Slots`] when `slots` is not a power of two.
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
            sizes: vec![],
            works: vec![],
            origin: "uniform".into(),
            small: None,
        })
    }
}

/// The lowest level that circuits use: those below a refresh's input belong to it, and their scales
/// suit nothing else.
pub(crate) fn floor(target: &Target) -> usize {
    target.refreshes.iter().map(|profile| profile.input_level).max().unwrap_or(0).max(target.chain.floor())
}
