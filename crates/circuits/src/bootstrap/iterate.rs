//! Bootstrapping twice for more precision.

use super::Bootstrapper;
use cipherlm_ckks::keys::EvaluationKeys;
use cipherlm_ckks::{Ciphertext, Error, Evaluator, Scale};

impl Bootstrapper {
    /// Refreshes a message of higher precision by two bootstraps: the second refreshes the error of
    /// the first, magnified by `2^gain` (Bae, Cheon, Cho, Kim and Kim, "META-BTS: Bootstrapping
    /// precision beyond the limit").
    ///
    /// `input` carries the message at `2^gain` times the default scale of the output level, at
    /// [`Bootstrapper::input_level`] + 1 or higher; so does the result, at the output level. Its
    /// error is `2^gain` times smaller than that of [`Bootstrapper::bootstrap`]. The gain must
    /// leave the magnified error below 1: at most the worst-slot bits of the profile.
    ///
    /// # Errors
    /// As [`Bootstrapper::bootstrap`]; [`Error::ScaleMismatch`] for an input of another scale,
    /// [`Error::BadScale`] if the gain exceeds 20 bits.
    pub fn bootstrap_twice<K: EvaluationKeys>(
        &self,
        evaluator: &Evaluator<K>,
        input: &Ciphertext,
        gain: u32,
    ) -> Result<Ciphertext, Error> {
        const OPERATION: &str = "bootstrap_twice";
        let plain = self.params().default_scale(self.output_level());
        let factor = Scale::from_log2(gain as i32);
        let precise = plain * factor;
        if gain > 20 {
            return Err(Error::BadScale {
                operation: OPERATION,
                log2: precise.log2(),
                min: plain.log2(),
                max: plain.log2() + 20.0,
            });
        }
        if !input.scale().matches(precise) {
            return Err(Error::ScaleMismatch {
                operation: OPERATION,
                left: input.scale().log2(),
                right: precise.log2(),
            });
        }
        let need = self.input_level() + 1;
        if input.level() < need {
            return Err(Error::LevelExhausted { operation: OPERATION, have: input.level(), need });
        }
        let coarse = evaluator.match_scale(&evaluator.drop_to_level(input, need)?, plain)?;
        let first =
            evaluator.mul_integer(&self.bootstrap(evaluator, &coarse)?, 1 << gain)?.with_scale(precise)?;
        let below = |value: &Ciphertext| evaluator.drop_to_level(value, self.input_level());
        let error = evaluator.sub(&below(input)?, &below(&first)?)?.with_scale(plain)?;
        let second = self.bootstrap(evaluator, &error)?.with_scale(precise)?;
        evaluator.add(&first, &second)
    }
}
