//! Plans that take several prompts of one client through one pass.

use cipherlm_circuits::slots::{Interleaved, Machine};

use crate::error::{At, Error, Result};
use crate::lanes;
use crate::plan::Plan;
use crate::small;
use crate::vector::Value;

impl Plan {
    /// Refuses another number of texts than the plan has places for, and lengths that it does not
    /// take.
    ///
    /// # Errors
    /// [`Error::Mismatch`], [`Error::Prompt`].
    pub fn check_texts(&self, lengths: &[usize]) -> Result<()> {
        lanes::check_places(lengths.len(), self.prompts())?;
        let capacity = self.tokens();
        match lengths.iter().find(|length| !(1..=capacity).contains(*length)) {
            Some(&length) => {
                let advice = "say how many tokens the text has";
                Err(Error::Prompt { length, capacity, advice })
            }
            None => Ok(()),
        }
    }

    /// The machine as one prompt of a pass sees it.
    pub(crate) fn on<'m, M: Machine>(&self, machine: &'m M) -> Result<Interleaved<'m, M>> {
        Interleaved::new(machine, self.prompts()).at("prompts")
    }

    /// Cuts a token of each prompt out of the outputs, for a small answer.
    pub(crate) fn gather<M: Machine>(
        &self,
        machine: &M,
        outputs: &Value<M>,
        tokens: &[usize],
    ) -> Result<M::Vector> {
        small::gather(&self.on(machine)?, &self.answers(), outputs, tokens)
    }
}
