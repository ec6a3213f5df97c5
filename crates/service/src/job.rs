//! One job: its record, its files, its events.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use cipherlm_protocol::{Digest, JobState, JobView, Problem};
use serde::{Deserialize, Serialize};

use crate::events::Events;
use crate::task::Task;

/// What is kept of a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) tenant: String,
    pub(crate) job: Digest,
    pub(crate) key: Digest,
    pub(crate) plan: String,
    pub(crate) state: JobState,
    /// Its place among all jobs.
    pub(crate) number: u64,
    /// Processes that have had it.
    pub(crate) starts: u64,
    /// Workers that have begun with it since it last got further.
    #[serde(default)]
    pub(crate) tries: u32,
    /// Steps that were on disk when a worker last began further on than those before it.
    #[serde(default)]
    pub(crate) began: usize,
    pub(crate) finished: u64,
    pub(crate) problem: Option<Problem>,
    pub(crate) result: Option<(u64, Digest)>,
}

impl Record {
    /// A job that waits.
    pub(crate) fn new(task: Task) -> Self {
        let Task { tenant, job, key, plan } = task;
        Self {
            tenant,
            job,
            key,
            plan,
            state: JobState::Queued,
            number: 0,
            starts: 0,
            tries: 0,
            began: 0,
            finished: 0,
            problem: None,
            result: None,
        }
    }

    /// The record's own name.
    pub(crate) fn place(&self) -> String {
        format!("{}/{}", self.tenant, self.job)
    }
}

/// A job.
pub(crate) struct Job {
    pub(crate) task: Task,
    pub(crate) cancelled: AtomicBool,
    pub(crate) events: Events,
    /// When it began to wait, in this process.
    pub(crate) since: Instant,
    record: Mutex<Record>,
}

impl Job {
    pub(crate) fn of(record: Record) -> Arc<Self> {
        Arc::new(Self {
            task: Task {
                tenant: record.tenant.clone(),
                job: record.job,
                key: record.key,
                plan: record.plan.clone(),
            },
            cancelled: AtomicBool::new(false),
            events: Events::new(record.starts),
            since: Instant::now(),
            record: Mutex::new(record),
        })
    }

    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self) -> JobState {
        self.record().state
    }

    pub(crate) fn result(&self) -> Option<(u64, Digest)> {
        self.record().result
    }

    pub(crate) fn view(&self) -> JobView {
        let record = self.record();
        JobView {
            job: self.task.job,
            plan: record.plan.clone(),
            key: self.task.key,
            state: record.state,
            event: self.events.newest(),
            problem: record.problem.clone(),
            result: record.result,
        }
    }
}
