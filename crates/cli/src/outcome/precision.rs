//! Bits of precision, step by step: what the noise machine promises, and what a run shows.

use cipherlm_infer::StepError;

/// Bits promised and bits seen of a step. Slots are in units of their certified range.
#[derive(Clone, Copy, serde::Serialize)]
pub(crate) struct Bits {
    /// Root mean square of all slots, from simulated runs.
    pub(crate) predicted: f64,
    /// Root mean square of all slots.
    pub(crate) measured: f64,
    /// Worst slot, from simulated runs.
    pub(crate) predicted_worst: f64,
    /// Worst slot.
    pub(crate) measured_worst: f64,
    /// Worst slot, from the variances of all operations.
    pub(crate) ceiling_worst: f64,
}

impl From<&StepError> for Bits {
    fn from(row: &StepError) -> Self {
        let ((predicted, predicted_worst), (measured, measured_worst)) =
            (row.predicted.bits(), row.measured.bits());
        Self { predicted, measured, predicted_worst, measured_worst, ceiling_worst: row.ceiling.bits().1 }
    }
}
