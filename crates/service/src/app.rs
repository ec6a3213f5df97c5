//! Everything a server holds.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cipherlm_files::Lock;
use cipherlm_protocol::{Code, Event, Limits};
use serde_json::json;
use tokio::sync::watch;

use crate::auth::Tokens;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::jobs::Jobs;
use crate::journal::Journal;
use crate::keys::Registry;
use crate::metrics::Metrics;
use crate::runner::Effort;
use crate::served::Served;
use crate::store::Store;
use crate::task::Depot;
use crate::transport::{End, Spent};
use crate::turns::Turns;

/// What a server is told at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its folder: records, keys, jobs.
    pub data: PathBuf,
    /// What it takes.
    pub limits: Limits,
    /// Steps that took at least this long are kept for a restart.
    pub checkpoint_after: Duration,
    /// Bytes of one client's keys in memory; others are loaded when they are needed.
    pub key_memory: u64,
    /// Time without a job after which keys and circuits leave the memory.
    pub rest_after: Duration,
    /// Pages that may read answers, as browsers name them: `https://HOST[:PORT]`.
    pub origins: Vec<String>,
}

pub(crate) struct App {
    pub(crate) served: Arc<Served>,
    pub(crate) depot: Depot,
    pub(crate) config: Config,
    pub(crate) journal: Journal,
    pub(crate) store: Arc<Store>,
    pub(crate) tokens: Tokens,
    pub(crate) keys: Registry,
    pub(crate) jobs: Jobs,
    pub(crate) metrics: Metrics,
    pub(crate) uploads: Turns,
    /// True when the server stops: streams end.
    pub(crate) stop: watch::Sender<bool>,
    /// One server at a time in a folder.
    _lock: Lock,
}

impl App {
    pub(crate) fn open(served: Served, config: Config, journal: Journal) -> Result<Self> {
        config.limits.check().map_err(|problem| Error::Limits { reason: problem.detail.into() })?;
        cipherlm_files::create_folder(&config.data)?;
        let lock = Lock::exclusive(&config.data)?;
        lock.sweep()?;
        let store = Arc::new(Store::open(&config.data.join("records.redb"))?);
        let depot = Depot::new(&config.data);
        let keys = Registry::open(&depot, &store)?;
        let jobs = Jobs::open(&depot, &store, &served.client.plan, served.client.costs.seconds)?;
        Ok(Self {
            tokens: Tokens::load(&store)?,
            keys,
            jobs,
            served: Arc::new(served),
            depot,
            config,
            journal,
            store,
            metrics: Metrics::default(),
            uploads: Turns::default(),
            stop: watch::Sender::new(false),
            _lock: lock,
        })
    }

    /// How the worker of this process computes.
    pub(crate) fn effort(&self) -> Effort {
        Effort {
            checkpoint_after: self.config.checkpoint_after,
            key_memory: self.config.key_memory,
            rest_after: self.config.rest_after,
        }
    }

    /// Writes down how a task ended for a worker, and does what follows from it. True if the job
    /// has come to nothing for good.
    ///
    /// # Errors
    /// When the record cannot be kept: the end is to be told again.
    pub(crate) fn settle(&self, job: &Arc<Job>, worker: &str, end: &End, spent: Spent) -> Result<bool> {
        let task = &job.task;
        let name = match end {
            End::Final(event) => event.name(),
            End::Fault => "fault",
            End::Left => "interrupted",
        };
        let facts = json!({
            "job": task.job, "tenant": task.tenant, "end": name, "worker": worker,
            "seconds": spent.seconds, "load_seconds": spent.load_seconds,
        });
        let End::Final(event) = end else {
            self.journal.line("job", facts);
            return Ok(self.jobs.release(job, worker, matches!(end, End::Fault)));
        };
        let done = matches!(event, Event::Done { .. });
        if !self.jobs.finished(job, event, done.then_some(spent.seconds))? {
            return Ok(false);
        }
        self.journal.line("job", facts);
        self.metrics.add(&format!("jobs_total{{state=\"{name}\"}}"), 1.0);
        self.metrics.add("job_seconds_sum", spent.seconds);
        self.metrics.add("keys_load_seconds_sum", spent.load_seconds);
        self.metrics.set("keys_resident_bytes", spent.resident_bytes as f64);
        if let Event::Failed { problem } = event
            && problem.code() == Some(Code::KeyDamaged)
        {
            self.keys.sweep_damaged(&task.tenant, task.key);
        }
        Ok(false)
    }

    /// Forgets what was kept long enough, and returns memory that requests took.
    pub(crate) fn sweep(&self) {
        self.jobs.expire(self.config.limits.result_seconds);
        self.keys.expire(self.config.limits.key_seconds);
        if self.jobs.load() == (0, 0) {
            self.served.rest();
        }
    }
}

/// Done when the server stops.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Nobody is left to say otherwise when the sender is gone.
    let _ = stop.wait_for(|stop| *stop).await;
}
