//! Bootstrapping, as the encrypted machine calls it.

use crate::slots::{RefreshKind, RefreshProfile, Result, Scale};
use cipherlm_ckks::{Ciphertext, Params};

/// Bootstrapping, as the encrypted machine calls it.
pub trait Refresher: Send + Sync {
    /// The level at which refreshes take their inputs; circuits stay at or above it. By default
    /// that of a full refresh, or else of a real one.
    fn floor(&self) -> usize {
        let profile = self.profile(RefreshKind::Full).or_else(|| self.profile(RefreshKind::Real));
        profile.map_or(0, |profile| profile.input_level)
    }

    /// Refuses a machine of other parameters than the refresher's own.
    ///
    /// # Errors
    /// [`cipherlm_ckks::Error::ParamsMismatch`], as a [`slots::Error`](crate::slots::Error).
    fn check(&self, params: &Params) -> Result<()>;

    /// What a refresh of this kind needs and gives; `None` if it is not on offer.
    fn profile(&self, kind: RefreshKind) -> Option<RefreshProfile>;

    /// Refreshes a ciphertext at or above the profile's input level to level `target`, at `scale`.
    ///
    /// # Errors
    /// Those of bootstrapping.
    fn refresh(
        &self,
        ciphertext: &Ciphertext,
        kind: RefreshKind,
        target: usize,
        scale: Scale,
    ) -> Result<Ciphertext>;
}
