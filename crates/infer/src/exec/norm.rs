//! Statistics of rows, what a norm makes of the rows, and the row that answers.

use cipherlm_circuits::slots::{self, Machine, Plain};
use num_complex::Complex64;

use super::Context;
use crate::error::{At, Result};
use crate::fold::NormId;
use crate::lanes::{by_text, join};
use crate::vector::{Value, lower, spread};

impl<M: Machine> Context<'_, M> {
    /// Sum of squares over the blocks, then over the features of a token, spread over all of them
    /// again; the same for the mean, where the norm takes one off.
    pub(super) fn variance(
        &self,
        rows: &[M::Vector],
        norm: NormId,
        alone: bool,
        level: usize,
    ) -> Result<Value<M>> {
        let machine = self.machine;
        let constants = self.folded.variance_constants(norm)?;
        let run = || {
            let lowered: Vec<M::Vector> =
                rows.iter().map(|row| lower(machine, row, level + 2)).collect::<slots::Result<_>>()?;
            let pairs: Vec<_> = lowered.iter().map(|row| (row, row)).collect();
            let squares = self.sum_of_rows(&machine.mul_sum(&pairs)?, constants.squares, alone)?;
            let constant = Complex64::new(constants.constant, 0.0);
            let Some(factor) = constants.mean else {
                return Ok(vec![machine.add_const(&squares, constant)?]);
            };
            let sum = machine.add_many(&lowered.iter().collect::<Vec<_>>())?;
            let mean = self.sum_of_rows(&sum, factor, alone)?;
            let variance = machine.sub(&squares, &machine.square(&mean)?)?;
            Ok(vec![machine.add_const(&variance, constant)?, lower(machine, &mean, level)?])
        };
        run().at(&self.node.name)
    }

    /// The sum over the features of each token, times `factor`, in every feature; takes a level.
    fn sum_of_rows(&self, vector: &M::Vector, factor: f64, alone: bool) -> slots::Result<M::Vector> {
        let (machine, g) = (self.machine, self.folded.geometry);
        let sum = machine.rotate_sum(vector, 1, g.features)?;
        // A single row repeats: its sum is everywhere already.
        if alone || g.tokens == 1 {
            return machine.mul_const(&sum, Complex64::new(factor, 0.0));
        }
        let mut mask = vec![0.0; g.features];
        mask[0] = factor;
        spread(machine, &machine.mul_plain(&sum, &Plain::real(mask))?, g.features)
    }

    /// Rows in another unit: times the old one over the new.
    pub(super) fn in_unit(&self, rows: &[M::Vector], factor: f64, level: usize) -> Result<Value<M>> {
        let (machine, factor) = (self.machine, Complex64::new(factor, 0.0));
        let scale = |row| machine.mul_const(&lower(machine, row, level + 1)?, factor);
        rows.iter().map(|row| scale(row).at(&self.node.name)).collect()
    }

    /// Rows with their beginning once more behind them.
    pub(super) fn extend(&self, rows: &[M::Vector], level: usize) -> Result<Value<M>> {
        let (machine, width) = (self.machine, self.folded.shape().d_model as i64);
        let mask = self.folded.beginning();
        let run = |row: &M::Vector| {
            let beginning = machine.mul_plain(&lower(machine, row, level + 1)?, &mask)?;
            machine.add(&lower(machine, row, level)?, &machine.rotate(&beginning, -width)?)
        };
        rows.iter().map(|row| run(row).at(&self.node.name)).collect()
    }

    /// Rows without their mean, times the norm's gains.
    pub(super) fn gain(
        &self,
        rows: &[M::Vector],
        mean: Option<&M::Vector>,
        norm: NormId,
        level: usize,
    ) -> Result<Value<M>> {
        let machine = self.machine;
        let (gains, means) = self.folded.gains(norm)?;
        let run = |(index, row): (usize, &M::Vector)| {
            let scaled = machine.mul_plain_lazy(&lower(machine, row, level + 1)?, &gains[index])?;
            let sum = match (mean, means.get(index)) {
                (Some(mean), Some(gain)) => {
                    let mean = machine.mul_plain_lazy(&lower(machine, mean, level + 1)?, gain)?;
                    machine.sub_aligned(&scaled, &mean)?
                }
                _ => scaled,
            };
            machine.rescale(&sum)
        };
        rows.iter().enumerate().map(|row| run(row).at(&self.node.name)).collect()
    }

    /// The row of the text's last token, in every group of slots.
    pub(super) fn select(&self, rows: &[M::Vector], level: usize) -> Result<Value<M>> {
        self.gather(rows, level, |length| self.folded.token_mask(length.saturating_sub(1)))
    }

    /// The row that the text's rows are pooled to, in every group of slots.
    pub(super) fn pool(&self, rows: &[M::Vector], level: usize) -> Result<Value<M>> {
        self.gather(rows, level, |length| self.folded.pool_mask(length))
    }

    /// The sum of the masked rows, in every group of slots; `mask` by the length of the text.
    fn gather(&self, rows: &[M::Vector], level: usize, mask: impl Fn(usize) -> Plain) -> Result<Value<M>> {
        let (machine, g) = (self.machine, self.folded.geometry);
        let masks = by_text(self.lengths, |length| Ok(mask(length.min(g.tokens))))?;
        let mask = join(&masks, g.slots);
        let run = |row: &M::Vector| {
            let alone = machine.mul_plain(&lower(machine, row, level + 1)?, &mask)?;
            machine.rotate_sum(&alone, g.features as i64, g.slots / g.features)
        };
        rows.iter().map(|row| run(row).at(&self.node.name)).collect()
    }
}
