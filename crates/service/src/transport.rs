//! Between jobs and those who compute: where tasks come from, and where their ends go.

use std::time::{Duration, Instant};

use cipherlm_protocol::{Digest, Event};
use serde::{Deserialize, Serialize};

use crate::task::Task;

/// The keys that a worker has in memory, since when, when it last had work, and when it rests
/// without any.
#[derive(Debug, Clone)]
pub(crate) struct Resident {
    pub(crate) keys: Vec<Digest>,
    pub(crate) since: Instant,
    pub(crate) idle: Instant,
    /// None for a worker that rests.
    pub(crate) rests: Option<Instant>,
}

/// What a worker does next.
pub(crate) enum Next<L> {
    /// A task.
    Task(L),
    /// Nothing, for so long that it may give its memory back.
    Rest,
    /// The end.
    Stop,
}

impl Resident {
    /// Time until the worker rests, if it is not resting.
    pub(crate) fn until_rest(&self) -> Option<Duration> {
        self.rests.map(|at| at.saturating_duration_since(Instant::now()))
    }
}

/// What is wanted of a worker in the middle of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Work.
    GoOn,
    /// Its owner gave the job up.
    GiveUp,
    /// The worker stops, or the task is another's by now.
    Leave,
}

/// How a task ended for its worker.
pub(crate) enum End {
    /// For good: done, failed or cancelled.
    Final(Event),
    /// In a fault, which another try may not meet.
    Fault,
    /// Not at all: another goes on from the checkpoints.
    Left,
}

/// What a task took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spent {
    pub(crate) seconds: f64,
    /// Of them, preparing circuits and reading keys.
    pub(crate) load_seconds: f64,
    /// Bytes of keys in memory after it.
    pub(crate) resident_bytes: u64,
}

/// Where a worker gets its tasks.
pub(crate) trait Transport {
    type Lease: Lease;

    /// Waits for a task, with the keys in mind that are in memory.
    fn next(&mut self, resident: &Resident) -> Next<Self::Lease>;
}

/// A task that is one worker's, until it says how it ended or falls silent.
pub(crate) trait Lease: Sync {
    fn task(&self) -> &Task;

    /// Says how far it is.
    fn tell(&self, event: Event);

    fn wish(&self) -> Wish;

    /// Says how it ended; returns when that is written down, or cannot be.
    fn end(self, end: End, spent: Spent);
}
