//! Everything a server holds.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cipherlm_files::Lock;
use cipherlm_protocol::Limits;
use tokio::sync::{Semaphore, watch};

use crate::auth::Tokens;
use crate::error::Result;
use crate::jobs::Jobs;
use crate::journal::Journal;
use crate::keys::Registry;
use crate::metrics::Metrics;
use crate::served::Served;
use crate::store::Store;

/// Uploads that are written at a time.
const UPLOADS: usize = 4;

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
}

pub(crate) struct App {
    pub(crate) served: Served,
    pub(crate) config: Config,
    pub(crate) journal: Journal,
    pub(crate) store: Arc<Store>,
    pub(crate) tokens: Tokens,
    pub(crate) keys: Registry,
    pub(crate) jobs: Jobs,
    pub(crate) metrics: Metrics,
    pub(crate) uploads: Semaphore,
    /// True when the server stops: streams end.
    pub(crate) stop: watch::Sender<bool>,
    /// One server at a time in a folder.
    _lock: Lock,
}

impl App {
    pub(crate) fn open(served: Served, config: Config, journal: Journal) -> Result<Self> {
        cipherlm_files::create_folder(&config.data)?;
        let lock = Lock::exclusive(&config.data)?;
        lock.sweep()?;
        let store = Arc::new(Store::open(&config.data.join("records.redb"))?);
        let keys = Registry::open(&config.data.join("keys"), &store)?;
        let jobs = Jobs::open(&config.data.join("jobs"), &store, served.plan.seconds())?;
        Ok(Self {
            tokens: Tokens::load(&store)?,
            keys,
            jobs,
            served,
            config,
            journal,
            store,
            metrics: Metrics::default(),
            uploads: Semaphore::new(UPLOADS),
            stop: watch::Sender::new(false),
            _lock: lock,
        })
    }

    /// Forgets what was kept long enough.
    pub(crate) fn sweep(&self) {
        self.jobs.expire(self.config.limits.result_seconds);
        self.keys.expire(self.config.limits.key_seconds);
    }
}

/// Done when the server stops.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Nobody is left to say otherwise when the sender is gone.
    let _ = stop.wait_for(|stop| *stop).await;
}
