//! Optimiser updates that can be taken back.

use crate::error::{Error, Result};
use crate::learned::Learned;
use crate::optim::{AdamW, Moments, clip_global_norm};
use crate::params::HostParam;

/// Updates that may be taken back one after the other.
const PATIENCE: u32 = 8;

/// What learns, and how to undo its last update.
pub(crate) struct Descent {
    pub(crate) learned: Learned,
    /// Factor on the learning rate, halved with every update that was undone.
    pub(crate) factor: f64,
    /// Arrays and moments before the last update.
    before: Option<(Vec<HostParam>, Moments)>,
    /// Updates undone since the last one that was not.
    undone: u32,
}

/// What became of one step.
pub(crate) enum Outcome {
    /// The parameters moved: gradient norm before clipping, and learning rate.
    Moved { norm: f64, rate: f64 },
    /// Loss or gradient were not finite: the update before is undone, the rate halved.
    Undone(String),
}

impl Descent {
    pub(crate) fn new(learned: Learned) -> Self {
        Self { learned, factor: 1.0, before: None, undone: 0 }
    }

    /// Moves `params` against the gradients of the learned arrays, or takes the last move back
    /// where the loss or the gradient is not finite. `step` counts from 1.
    pub(crate) fn step(
        &mut self,
        optimiser: &AdamW,
        (loss, mut grads): (f64, Vec<Vec<f32>>),
        clip: f64,
        rate: f64,
        step: usize,
        params: &mut [HostParam],
    ) -> Result<Outcome> {
        let norm = clip_global_norm(&mut grads, clip);
        if !loss.is_finite() || !norm.is_finite() {
            return self.undo(loss, norm, step, params).map(Outcome::Undone);
        }
        self.undone = 0;
        self.before = Some((self.learned.arrays.clone(), self.learned.moments.clone()));
        let rate = rate * self.factor;
        self.learned.update(optimiser, &grads, rate, step, params);
        Ok(Outcome::Moved { norm, rate })
    }

    fn undo(&mut self, loss: f64, norm: f64, step: usize, params: &mut [HostParam]) -> Result<String> {
        let reason = format!("the loss is {loss}, the gradient norm {norm}");
        self.undone += 1;
        if self.undone > PATIENCE {
            let reason = format!("{reason}, and {PATIENCE} steps in a row were undone already");
            return Err(Error::Diverged { step, reason });
        }
        if let Some((arrays, moments)) = self.before.take() {
            (self.learned.arrays, self.learned.moments) = (arrays, moments);
            self.learned.write(params);
        }
        self.factor *= 0.5;
        let factor = self.factor;
        Ok(format!("{reason}: the step before is undone, the learning rate is times {factor} from here"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Learn;

    #[test]
    fn a_step_that_is_not_finite_takes_the_one_before_back_and_halves_the_rate() {
        let mut params = vec![HostParam::new("w", &[2], vec![1.0, 2.0])];
        let mut descent = Descent::new(Learned::new(&mut params, &Learn::default(), 0));
        let optimiser = AdamW::default();
        let start = params.clone();
        let step = |descent: &mut Descent, params: &mut Vec<HostParam>, loss: f64, slope: f32, at| {
            descent.step(&optimiser, (loss, vec![vec![slope; 2]]), 1.0, 0.1, at, params)
        };
        let Ok(Outcome::Moved { rate, .. }) = step(&mut descent, &mut params, 1.0, 1.0, 1) else {
            panic!("undone")
        };
        assert_eq!(rate, 0.1);
        let moved = params.clone();
        assert_ne!(moved, start);
        for (loss, slope) in [(f64::NAN, 1.0), (1.0, f32::NAN), (1.0, f32::INFINITY)] {
            let Ok(Outcome::Undone(note)) = step(&mut descent, &mut params, loss, slope, 2) else {
                panic!("moved")
            };
            assert!(note.contains("undone"), "{note}");
        }
        // Once taken back there is nothing more to take back; the rate goes on falling.
        assert_eq!(params, start);
        assert_eq!(descent.factor, 0.125);
        let Ok(Outcome::Moved { rate, .. }) = step(&mut descent, &mut params, 1.0, 1.0, 5) else {
            panic!("undone")
        };
        assert_eq!(rate, 0.0125);
        for _ in 0..8 {
            assert!(matches!(step(&mut descent, &mut params, f64::INFINITY, 1.0, 6), Ok(Outcome::Undone(_))));
        }
        let error = step(&mut descent, &mut params, f64::NAN, 1.0, 7).err().unwrap();
        assert!(matches!(&error, Error::Diverged { step: 7, reason } if reason.contains("NaN")), "{error}");
    }
}
