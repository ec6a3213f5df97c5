//! Settings of a training run, as they stand in a run file.

use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::error::{Error, Result};
use crate::optim::{AdamW, Schedule};
use crate::params::HostParam;
use crate::probe::Limits;

/// One run (or one stage of a recipe).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Seed of the data order.
    pub seed: u64,
    /// Windows per micro-batch.
    pub batch: usize,
    /// Micro-batches per step.
    #[serde(default = "one")]
    pub accumulation: usize,
    /// Optimiser updates.
    pub steps: usize,
    /// Learning rate.
    pub schedule: Schedule,
    /// Optimiser.
    #[serde(default)]
    pub optimiser: AdamW,
    /// Largest global gradient norm.
    #[serde(default = "unit")]
    pub clip: f64,
    /// Which tensors learn.
    #[serde(default)]
    pub learn: Learn,
    /// Range loss, if any.
    #[serde(default)]
    pub range: Option<RangeLoss>,
    /// Steps between evaluations; 0 for only at the end.
    #[serde(default)]
    pub evaluate_every: usize,
    /// Held-out windows per evaluation.
    #[serde(default = "windows")]
    pub evaluate_windows: usize,
    /// Steps between checkpoints; 0 for only at the end.
    #[serde(default)]
    pub checkpoint_every: usize,
    /// Steps between log lines.
    #[serde(default = "log_every")]
    pub log_every: usize,
}

/// Which tensors learn, and in what form.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Learn {
    /// Tensors whose name contains one of these; all of them when empty.
    pub tensors: Vec<String>,
    /// Matrices learn as the product of two factors of this rank, added to what they were; other
    /// tensors learn whole.
    pub rank: Option<usize>,
    /// Matrices whose name contains one of these learn whole although there is a rank.
    pub whole: Vec<String>,
}

/// Weight of the range loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RangeLoss {
    /// Factor on the loss.
    pub weight: f64,
    /// Steps over which the factor rises from 0.
    #[serde(default)]
    pub ramp: usize,
    /// Targets.
    #[serde(default)]
    pub limits: Limits,
}

/// Learning from another model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distil {
    /// Share of the divergence from the teacher's logits; the rest is the cross-entropy with the
    /// text.
    pub weight: f64,
    /// Divides both models' logits.
    #[serde(default = "unit")]
    pub temperature: f64,
    /// Factor on the relative squared error of the residual stream after every block, added to the
    /// loss.
    #[serde(default)]
    pub hidden: f64,
}

/// Fields of [`TrainConfig`] that do not touch what is learned: they may change when a run is
/// resumed.
pub(crate) const FREE: [&str; 4] = ["log_every", "checkpoint_every", "evaluate_every", "evaluate_windows"];

impl TrainConfig {
    /// A run with the defaults that the shipped model uses.
    pub fn new(seed: u64, batch: usize, steps: usize, peak: f64) -> Self {
        Self {
            seed,
            batch,
            accumulation: 1,
            steps,
            schedule: Schedule { peak, warm_up: (steps / 20).clamp(1, 100), floor: 0.05 },
            optimiser: AdamW { beta2: 0.98, weight_decay: 0.05, ..AdamW::default() },
            clip: 1.0,
            learn: Learn::default(),
            range: None,
            evaluate_every: 0,
            evaluate_windows: windows(),
            checkpoint_every: 0,
            log_every: log_every(),
        }
    }

    /// Training tokens consumed by one step.
    pub fn tokens_per_step(&self, arch: &Arch) -> usize {
        self.batch * self.accumulation * arch.room()
    }

    pub(crate) fn check(&self, params: &[HostParam]) -> Result<()> {
        for (field, value) in
            [("batch", self.batch), ("accumulation", self.accumulation), ("steps", self.steps)]
        {
            if value == 0 {
                return Err(Error::config(field, value, "at least 1"));
            }
        }
        if self.clip.is_nan() || self.clip <= 0.0 {
            return Err(Error::config("clip", self.clip, "positive"));
        }
        if !(self.schedule.peak > 0.0 && self.schedule.peak.is_finite()) {
            return Err(Error::config("peak", self.schedule.peak, "positive and finite"));
        }
        self.learn.check(params)?;
        self.optimiser.check(params)
    }
}

impl Learn {
    /// True if a tensor of this name learns.
    pub fn holds(&self, name: &str) -> bool {
        self.tensors.is_empty() || self.tensors.iter().any(|part| name.contains(part.as_str()))
    }

    /// The rank at which a matrix of this name learns; `None` where it learns whole.
    pub fn rank_of(&self, name: &str) -> Option<usize> {
        self.rank.filter(|_| !self.whole.iter().any(|part| name.contains(part.as_str())))
    }

    pub(crate) fn check(&self, params: &[HostParam]) -> Result<()> {
        if self.rank == Some(0) {
            return Err(Error::config("rank", 0, "at least 1"));
        }
        match self
            .tensors
            .iter()
            .chain(&self.whole)
            .find(|part| !params.iter().any(|p| p.trained && p.name.contains(part.as_str())))
        {
            Some(part) => Err(Error::config("tensors", part, "part of the name of a tensor of the model")),
            None => Ok(()),
        }
    }
}

impl Distil {
    pub(crate) fn check(&self) -> Result<()> {
        let weight = (0.0..=1.0).contains(&self.weight);
        let temperature = self.temperature > 0.0 && self.temperature.is_finite();
        if weight && temperature && self.hidden >= 0.0 && self.hidden.is_finite() {
            return Ok(());
        }
        let expected = "a weight in [0, 1], a temperature above 0, a factor for hidden states of at least 0";
        Err(Error::config("distil", format!("{self:?}"), expected))
    }
}

fn one() -> usize {
    1
}

fn unit() -> f64 {
    1.0
}

fn windows() -> usize {
    64
}

fn log_every() -> usize {
    20
}
