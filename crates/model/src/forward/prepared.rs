//! A model made ready for much text.

use super::matrix::Matrix;
use super::{Mode, Runner, rows};
use crate::error::Result;
use crate::model::Model;
use crate::program::Op;

/// A model whose linear maps are laid out in f32 for many rows at a time: certification and
/// evaluation, where text is long and seven digits are enough. Everything else stays in f64.
///
/// [`Prepared::runner`] takes no copy, so threads share one.
pub struct Prepared<'m> {
    model: &'m Model,
    /// By stage.
    maps: Vec<Option<Matrix>>,
}

impl<'m> Prepared<'m> {
    /// Lays out the maps: half as much memory again as the model takes.
    ///
    /// # Errors
    /// [`crate::Error::MissingTensor`]; none for a model that was accepted.
    pub fn new(model: &'m Model) -> Result<Self> {
        let stages = model.shape().program().stages;
        let map = |at: usize| -> Result<Option<Matrix>> {
            let (name, outputs) = (&stages[at].name, stages[at].width);
            Ok(Some(match stages[at].op {
                Op::Linear { of, .. } => {
                    let weight = rows::tensor(model, &format!("{name}.weight"))?;
                    let bias = model.weights().values(&format!("{name}.bias"));
                    Matrix::new(stages[of].width, outputs, |i, o| weight[i * outputs + o], bias)
                }
                Op::TiedHead { of } => {
                    let (table, inputs) = (rows::tensor(model, "embed.tokens")?, stages[of].width);
                    Matrix::new(inputs, outputs, |i, o| table[o * inputs + i], None)
                }
                _ => return Ok(None),
            }))
        };
        Ok(Self { model, maps: (0..stages.len()).map(map).collect::<Result<_>>()? })
    }

    /// Starts a pass over an empty sequence.
    ///
    /// # Errors
    /// As [`Runner::new`].
    pub fn runner(&self, mode: Mode) -> Result<Runner<'_>> {
        Runner::with_maps(self.model, mode, Some(&self.maps))
    }
}
