//! What encryption gives the machine to begin with.

use super::{Added, Noise, NoiseVector};
use crate::slots::{Plain, Primitives, Result};

impl Noise {
    /// A vector as fresh encryption under the secret key gives it, canonical at `level`.
    ///
    /// # Errors
    /// As [`Clear::input`](crate::slots::Clear::input).
    pub fn input(&self, values: impl Into<Plain>, level: usize) -> Result<NoiseVector> {
        let added = Added::plain(self.model.fresh(self.chain().scale(level)));
        self.enter(&values.into(), level, added)
    }

    /// A vector as fresh encryption in a subring gives it, once it has been embedded, canonical at
    /// `level`.
    ///
    /// # Errors
    /// As [`Noise::input`] and [`NoiseModel::embedding`](cipherlm_ckks::noise::NoiseModel::embedding).
    pub fn input_embedded(&self, values: impl Into<Plain>, level: usize) -> Result<NoiseVector> {
        let scale = self.chain().scale(level);
        // In the smaller ring fewer coefficients add up in a slot: this errs on the safe side.
        let added = Added::plain(self.model.fresh(scale)).and(self.model.embedding(level, scale)?);
        self.enter(&values.into(), level, added)
    }
}
