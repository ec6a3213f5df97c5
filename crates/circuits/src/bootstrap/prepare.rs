//! The transforms of a circuit and what they keep in memory.

use super::Bootstrapper;
use super::dft::{self, DiagonalMatrix};
use super::transform::Transform;
use cipherlm_ckks::{Error, GaloisElement, Scale};

impl Bootstrapper {
    /// Makes now what the first call would make: the residues of the plaintexts that the budget
    /// allows to keep.
    ///
    /// # Errors
    /// [`Error::BadKeyShape`] if the parameters cannot hold the keys.
    pub fn prepare(&self) -> Result<(), Error> {
        let kept = |t: &&Transform| self.keeps(t);
        self.down.iter().chain(self.up.iter().filter(kept)).try_for_each(Transform::prepare)
    }

    /// The automorphisms whose sums project to the subring of `slots` slots, step by step: each
    /// step adds all of its automorphisms, which share one decomposition, to what it has. Wider
    /// steps are faster and take more keys.
    pub(super) fn sub_sum(&self) -> Vec<Vec<GaloisElement>> {
        let doublings = (self.params.slots() / self.slots).ilog2();
        let width = if doublings <= 6 { 3 } else { 2 };
        let mut steps = Vec::new();
        let mut done = 0;
        while done < doublings {
            let now = width.min(doublings - done);
            let rotation = |k: i64| GaloisElement::rotation(&self.params, k * ((self.slots as i64) << done));
            steps.push((1..1 << now).map(rotation).collect());
            done += now;
        }
        steps
    }

    /// Residues are kept for as many stages, the small ones first, as the budget allows.
    pub(super) fn keeps(&self, transform: &Transform) -> bool {
        let own = transform.bytes().1;
        let smaller: u64 = self.up.iter().map(|t| t.bytes().1).filter(|&b| b < own).sum();
        smaller + own <= self.plaintext_budget
    }

    /// The transform before the raise, for as many butterfly layers in each stage.
    pub(super) fn slots_to_coeffs(&self, layers: &[u32]) -> Result<Vec<Transform>, Error> {
        let top = layers.len();
        let drift = (self.profile.bottom - self.profile.ratio - self.profile.scale) / top as f64;
        let prepare = |(i, matrix): (usize, DiagonalMatrix)| {
            let level = top - i;
            let scale = self.params.rescale_factor(level) * Scale::new(drift.exp2());
            Transform::new(&self.params, &matrix, level, scale)
        };
        dft::slots_to_coeffs(self.slots, layers).into_iter().enumerate().map(prepare).collect()
    }

    /// The transform after the raise.
    pub(super) fn coeffs_to_slots(&self, layers: &[u32]) -> Result<Vec<Transform>, Error> {
        let count = layers.len();
        let gap = (self.params.slots() / self.slots) as f64;
        // Scales of x between the stages, each layer taken as a half of the sum.
        let result = Scale::new(self.profile.input_scale.exp2() / (2.0 * self.eval_mod.bound()));
        let between = result * Scale::new(self.profile.headroom.exp2());
        let mut scale = self.params.rescale_factor(0) * Scale::new(gap);
        let mut transforms = Vec::with_capacity(count);
        for (i, matrix) in dft::coeffs_to_slots(self.slots, layers).iter().enumerate() {
            let level = self.eval_level() + count - i;
            let next = if i + 1 == count { result } else { between };
            let growth = Scale::new(f64::from(layers[i]).exp2());
            let plain = next * self.params.rescale_factor(level) / (scale * growth);
            transforms.push(Transform::new(&self.params, matrix, level, plain)?);
            scale = next;
        }
        Ok(transforms)
    }
}
