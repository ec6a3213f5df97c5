//! Jobs: their records, the queue, and the turn of the thread that computes.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use cipherlm_protocol::{Code, Digest, Event, JobState, JobView, Limits, Problem};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::events::Events;
use crate::journal::now;
use crate::refusal::of_own;
use crate::store::{Store, Table};

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
    pub(crate) finished: u64,
    pub(crate) problem: Option<Problem>,
    pub(crate) result: Option<(u64, Digest)>,
}

/// A job.
pub(crate) struct Job {
    pub(crate) tenant: String,
    pub(crate) name: Digest,
    pub(crate) key: Digest,
    pub(crate) folder: PathBuf,
    pub(crate) cancelled: AtomicBool,
    pub(crate) events: Events,
    record: Mutex<Record>,
}

impl Job {
    fn of(record: Record, root: &Path) -> Arc<Self> {
        Arc::new(Self {
            tenant: record.tenant.clone(),
            name: record.job,
            key: record.key,
            folder: root.join(&record.tenant).join(record.job.to_string()),
            cancelled: AtomicBool::new(false),
            events: Events::new(record.starts),
            record: Mutex::new(record),
        })
    }

    fn record(&self) -> MutexGuard<'_, Record> {
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
            job: self.name,
            plan: record.plan.clone(),
            key: self.key,
            state: record.state,
            event: self.events.newest(),
            problem: record.problem.clone(),
            result: record.result,
        }
    }

    pub(crate) fn prompt(&self) -> PathBuf {
        self.folder.join("prompt")
    }

    pub(crate) fn answer(&self) -> PathBuf {
        self.folder.join("answer")
    }

    /// Folder of its checkpoints.
    pub(crate) fn steps(&self) -> PathBuf {
        self.folder.join("steps")
    }
}

#[derive(Default)]
struct Inner {
    known: BTreeMap<(String, Digest), Arc<Job>>,
    queue: VecDeque<Arc<Job>>,
    running: Option<Arc<Job>>,
    number: u64,
    stopping: bool,
    /// Seconds of a job, as measured, or as the plan predicts.
    seconds: f64,
}

/// All jobs.
pub(crate) struct Jobs {
    root: PathBuf,
    store: Arc<Store>,
    inner: Mutex<Inner>,
    wake: Condvar,
}

impl Jobs {
    /// Reads the records: what was queued or running goes on, in its old order.
    pub(crate) fn open(root: &Path, store: &Arc<Store>, seconds: f64) -> Result<Self> {
        cipherlm_files::create_folder(root)?;
        let mut records: Vec<Record> =
            store.all::<Record>(Table::Jobs)?.into_iter().map(|(_, record)| record).collect();
        records.sort_by_key(|record| record.number);
        let mut inner = Inner { seconds, ..Inner::default() };
        for mut record in records {
            inner.number = inner.number.max(record.number);
            record.starts += 1;
            let waits = !record.state.is_final();
            if waits {
                record.state = JobState::Queued;
                store.put(Table::Jobs, &place(&record), &record)?;
            }
            let job = Job::of(record, root);
            inner.known.insert((job.tenant.clone(), job.name), Arc::clone(&job));
            if waits {
                inner.queue.push_back(job);
            }
        }
        Ok(Self {
            root: root.into(),
            store: Arc::clone(store),
            inner: Mutex::new(inner),
            wake: Condvar::new(),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn find(&self, tenant: &str, name: Digest) -> std::result::Result<Arc<Job>, Problem> {
        let found = self.inner().known.get(&(tenant.to_owned(), name)).cloned();
        found.ok_or_else(|| Problem::new(Code::JobUnknown, "no job of this name, or it was kept long enough"))
    }

    /// Whether one more job would be taken, before its prompt is.
    pub(crate) fn ensure_room(&self, tenant: &str, limits: &Limits) -> std::result::Result<(), Problem> {
        let inner = self.inner();
        room(&inner, tenant, limits)
    }

    /// Takes a job whose prompt is in `write`'s hands; a name that is known is the same job. True
    /// if it is new.
    pub(crate) fn submit(
        &self,
        mut record: Record,
        limits: &Limits,
        write: impl FnOnce(&Path) -> Result<()>,
    ) -> std::result::Result<(Arc<Job>, bool), Problem> {
        let mut inner = self.inner();
        let name = (record.tenant.clone(), record.job);
        // One that came to no good may be tried again.
        let again = |job: &Arc<Job>| matches!(job.state(), JobState::Failed | JobState::Cancelled);
        if let Some(job) = inner.known.get(&name).filter(|job| !again(job)) {
            return Ok((Arc::clone(job), false));
        }
        room(&inner, &record.tenant, limits)?;
        inner.number += 1;
        record.number = inner.number;
        let job = Job::of(record.clone(), &self.root);
        write(&job.prompt()).map_err(|e| of_own(&e))?;
        self.store.put(Table::Jobs, &place(&record), &record).map_err(|e| of_own(&e))?;
        let position = inner.queue.len() + usize::from(inner.running.is_some());
        job.events.push(Event::Queued { position, starts_in: waiting(&inner) });
        inner.known.insert(name, Arc::clone(&job));
        inner.queue.push_back(Arc::clone(&job));
        self.wake.notify_all();
        Ok((job, true))
    }

    /// Waits for the next job; none when the server stops.
    pub(crate) fn take(&self) -> Option<Arc<Job>> {
        let mut inner = self.inner();
        loop {
            if inner.stopping {
                return None;
            }
            if let Some(job) = inner.queue.pop_front() {
                inner.running = Some(Arc::clone(&job));
                return Some(job);
            }
            inner = self.wake.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Writes down that a job runs.
    pub(crate) fn started(&self, job: &Job) -> Result<()> {
        let mut record = job.record();
        record.state = JobState::Running;
        self.store.put(Table::Jobs, &place(&record), &*record)
    }

    /// The end of a job: written down before it is told. `seconds` is what it took.
    pub(crate) fn finished(&self, job: &Arc<Job>, end: &Event, seconds: Option<f64>) -> Result<()> {
        {
            let mut record = job.record();
            record.finished = now();
            match end {
                Event::Done { bytes, blake3 } => {
                    (record.state, record.result) = (JobState::Done, Some((*bytes, *blake3)));
                }
                Event::Failed { problem } => {
                    (record.state, record.problem) = (JobState::Failed, Some(problem.clone()));
                }
                _ => record.state = JobState::Cancelled,
            }
            self.store.put(Table::Jobs, &place(&record), &*record)?;
        }
        let mut inner = self.inner();
        if inner.running.as_ref().is_some_and(|running| Arc::ptr_eq(running, job)) {
            inner.running = None;
        }
        if let Some(seconds) = seconds {
            inner.seconds = 0.7 * seconds + 0.3 * inner.seconds;
        }
        drop(inner);
        job.events.push(end.clone());
        let _ = std::fs::remove_dir_all(job.steps());
        Ok(())
    }

    /// Gives a job up: at once if it waits, between two steps if it runs.
    pub(crate) fn cancel(&self, job: &Arc<Job>) -> Result<()> {
        job.cancelled.store(true, Ordering::Relaxed);
        let waited = {
            let mut inner = self.inner();
            let before = inner.queue.len();
            inner.queue.retain(|queued| !Arc::ptr_eq(queued, job));
            inner.queue.len() < before
        };
        if waited { self.finished(job, &Event::Cancelled, None) } else { Ok(()) }
    }

    /// Forgets a job that has ended, with its answer.
    pub(crate) fn forget(&self, job: &Job) -> Result<()> {
        self.inner().known.remove(&(job.tenant.clone(), job.name));
        self.store.remove(Table::Jobs, &place(&job.record()))?;
        let _ = std::fs::remove_dir_all(&job.folder);
        Ok(())
    }

    /// Forgets jobs that ended long ago.
    pub(crate) fn expire(&self, seconds: u64) {
        let old = |job: &&Arc<Job>| {
            let record = job.record();
            record.state.is_final() && record.finished.saturating_add(seconds) < now()
        };
        let all: Vec<Arc<Job>> = self.inner().known.values().filter(old).cloned().collect();
        for job in all {
            // Tried again at the next sweep.
            let _ = self.forget(&job);
        }
    }

    /// Takes no more; whoever computes stops after its step.
    pub(crate) fn stop(&self) {
        self.inner().stopping = true;
        self.wake.notify_all();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.inner().stopping
    }

    /// Jobs that wait, and whether one runs.
    pub(crate) fn load(&self) -> (usize, bool) {
        let inner = self.inner();
        (inner.queue.len(), inner.running.is_some())
    }
}

/// Name of a record.
fn place(record: &Record) -> String {
    format!("{}/{}", record.tenant, record.job)
}

fn room(inner: &Inner, tenant: &str, limits: &Limits) -> std::result::Result<(), Problem> {
    let wait = waiting(inner).ceil().max(1.0) as u64;
    if inner.stopping {
        return Err(Problem::new(Code::Stopping, "no new jobs are taken").retry_after(30));
    }
    let own = inner.queue.iter().chain(&inner.running).filter(|job| job.tenant == tenant).count();
    if own >= limits.jobs_per_tenant {
        let detail = format!("{own} of your jobs wait or run, at most {} may", limits.jobs_per_tenant);
        return Err(Problem::new(Code::QuotaJobs, detail).retry_after(wait));
    }
    if inner.queue.len() >= limits.queue {
        let detail = format!("{} jobs wait, at most {} may", inner.queue.len(), limits.queue);
        return Err(Problem::new(Code::Busy, detail).retry_after(wait));
    }
    Ok(())
}

/// Seconds until a new job would start.
fn waiting(inner: &Inner) -> f64 {
    let left = inner.running.as_ref().map_or(0.0, |job| match job.events.newest() {
        Some(Event::Step { left, .. }) => left,
        _ => inner.seconds,
    });
    left + inner.seconds * inner.queue.len() as f64
}
