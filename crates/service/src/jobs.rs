//! Jobs: the queue, and in whose hands those are that run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cipherlm_protocol::{Code, Digest, Event, JobState, Limits, Problem};
use tokio::sync::Notify;

use crate::error::Result;
use crate::job::{Job, Record};
use crate::journal::now;
use crate::refusal::of_own;
use crate::schedule::{View, Waiting};
use crate::store::{Store, Table};
use crate::task::Depot;
use crate::transport::{Next, Resident, Wish};

/// Workers that may begin with a job before it has to get further.
const TRIES: u32 = 3;
/// Time between two looks at an empty queue; what comes is heard of besides.
const IDLE: Duration = Duration::from_secs(60);
/// The worker of this process.
pub(crate) const HERE: &str = "here";

/// What becomes of a worker's wish to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grant {
    /// The job is its.
    Go,
    /// Another worker has it.
    #[cfg(feature = "nats")]
    Busy,
    /// There is nothing to do.
    #[cfg(feature = "nats")]
    Gone,
    /// It has ended workers enough.
    Dead,
}

/// A job in a worker's hands.
struct Running {
    job: Arc<Job>,
    worker: String,
    /// When the worker last said a word.
    seen: Instant,
}

impl Running {
    fn new(job: &Arc<Job>, worker: &str) -> Self {
        Self { job: Arc::clone(job), worker: worker.into(), seen: Instant::now() }
    }
}

struct Inner {
    known: BTreeMap<(String, Digest), Arc<Job>>,
    queue: VecDeque<Arc<Job>>,
    running: Vec<Running>,
    number: u64,
    stopping: bool,
    /// Seconds of a job, as measured, or as the plan predicts.
    seconds: f64,
    /// Jobs that can run at a time.
    workers: usize,
}

impl Inner {
    fn running(&mut self, job: &Arc<Job>) -> Option<&mut Running> {
        self.running.iter_mut().find(|running| Arc::ptr_eq(&running.job, job))
    }

    fn unqueue(&mut self, job: &Arc<Job>) -> bool {
        let before = self.queue.len();
        self.queue.retain(|queued| !Arc::ptr_eq(queued, job));
        self.queue.len() < before
    }
}

/// All jobs.
pub(crate) struct Jobs {
    depot: Depot,
    store: Arc<Store>,
    inner: Mutex<Inner>,
    wake: Condvar,
    /// Told when a job begins to wait.
    pub(crate) waits: Notify,
}

impl Jobs {
    /// Reads the records: what was queued or running goes on, in its old order, unless it was for
    /// another plan than the server has now. `seconds` is the predicted time of a job.
    pub(crate) fn open(depot: &Depot, store: &Arc<Store>, plan: &str, seconds: f64) -> Result<Self> {
        cipherlm_files::create_folder(&depot.all_jobs())?;
        let mut records: Vec<Record> =
            store.all::<Record>(Table::Jobs)?.into_iter().map(|(_, record)| record).collect();
        records.sort_by_key(|record| record.number);
        let mut inner = Inner {
            known: BTreeMap::new(),
            queue: VecDeque::new(),
            running: vec![],
            number: 0,
            stopping: false,
            seconds,
            workers: 1,
        };
        for mut record in records {
            inner.number = inner.number.max(record.number);
            record.starts += 1;
            let waits = !record.state.is_final() && record.plan == plan;
            if waits {
                record.state = JobState::Queued;
                store.put(Table::Jobs, &record.place(), &record)?;
            } else if !record.state.is_final() {
                let detail = format!("the job was for plan {}, the server runs {plan}", record.plan);
                record.problem = Some(Problem::new(Code::PlanSuperseded, detail).with_plan(plan));
                (record.state, record.finished) = (JobState::Failed, now());
                store.put(Table::Jobs, &record.place(), &record)?;
            }
            let job = Job::of(record);
            inner.known.insert((job.task.tenant.clone(), job.task.job), Arc::clone(&job));
            if waits {
                inner.queue.push_back(job);
            }
        }
        Ok(Self {
            depot: depot.clone(),
            store: Arc::clone(store),
            inner: Mutex::new(inner),
            wake: Condvar::new(),
            waits: Notify::new(),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, record: &Record) -> Result<()> {
        self.store.put(Table::Jobs, &record.place(), record)
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
        let job = Job::of(record.clone());
        write(&self.depot.prompt(&job.task)).map_err(|e| of_own(&e))?;
        self.write(&record).map_err(|e| of_own(&e))?;
        let position = inner.queue.len() + inner.running.len();
        job.events.push(Event::Queued { position, starts_in: waiting(&inner) });
        inner.known.insert(name, Arc::clone(&job));
        inner.queue.push_back(Arc::clone(&job));
        self.wake.notify_all();
        self.waits.notify_one();
        Ok((job, true))
    }

    /// Waits for a job for the worker of this process.
    pub(crate) fn take(&self, resident: &Resident) -> Next<Arc<Job>> {
        let mut inner = self.inner();
        loop {
            if inner.stopping {
                return Next::Stop;
            }
            let job = match next(&inner, resident) {
                Ok(job) => job,
                // Either another job comes, or the worker turns to one that is there.
                Err(lingers) => {
                    let rest = resident.until_rest();
                    if rest.is_some_and(|left| left.is_zero()) {
                        return Next::Rest;
                    }
                    let lingers = rest.map_or(lingers, |left| left.min(lingers));
                    let pause = self.wake.wait_timeout(inner, lingers);
                    inner = pause.unwrap_or_else(PoisonError::into_inner).0;
                    continue;
                }
            };
            match self.grant(&mut inner, &job, HERE) {
                Ok(Grant::Go) => return Next::Task(job),
                Ok(Grant::Dead) => {
                    drop(inner);
                    let buried = self.bury(&job);
                    inner = self.inner();
                    if buried.is_ok() {
                        continue;
                    }
                }
                _ => {}
            }
            // A record could not be kept: the disk may have room again.
            let pause = self.wake.wait_timeout(inner, Duration::from_secs(1));
            inner = pause.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Gives a waiting job to a worker, which is written down first.
    fn grant(&self, inner: &mut Inner, job: &Arc<Job>, worker: &str) -> Result<Grant> {
        let mut record = job.record();
        let (tries, began) = match self.further(&record, job) {
            Some(kept) => (0, kept),
            None => (record.tries, record.began),
        };
        if tries >= TRIES {
            return Ok(Grant::Dead);
        }
        let after = Record { state: JobState::Running, tries: tries + 1, began, ..record.clone() };
        self.write(&after)?;
        *record = after;
        inner.unqueue(job);
        inner.running.push(Running::new(job, worker));
        Ok(Grant::Go)
    }

    /// A worker has been told of a job and wants to begin.
    #[cfg(feature = "nats")]
    pub(crate) fn begin(&self, job: &Arc<Job>, worker: &str) -> Result<Grant> {
        let mut inner = self.inner();
        if let Some(running) = inner.running(job) {
            // The answer to its own question may have been lost.
            let same = running.worker == worker;
            return Ok(if same { Grant::Go } else { Grant::Busy });
        }
        if !inner.queue.iter().any(|queued| Arc::ptr_eq(queued, job)) {
            return Ok(Grant::Gone);
        }
        let grant = self.grant(&mut inner, job, worker)?;
        drop(inner);
        if grant == Grant::Dead {
            self.bury(job)?;
        }
        Ok(grant)
    }

    /// A worker lives and works on a job: what is wanted of it.
    pub(crate) fn alive(&self, job: &Arc<Job>, worker: &str) -> Wish {
        let mut inner = self.inner();
        if let Some(running) = inner.running(job) {
            if running.worker != worker {
                return Wish::Leave;
            }
            running.seen = Instant::now();
        } else if inner.unqueue(job) {
            // It was given up, or the server started again: it has the job still.
            inner.running.push(Running::new(job, worker));
            let mut record = job.record();
            record.state = JobState::Running;
            // Queued on disk means the same at the next start.
            let _ = self.write(&record);
        } else {
            return Wish::Leave;
        }
        if job.cancelled.load(Ordering::Relaxed) { Wish::GiveUp } else { Wish::GoOn }
    }

    /// A worker says how far a job is.
    pub(crate) fn tell(&self, job: &Arc<Job>, worker: &str, event: Event) -> Wish {
        let wish = self.alive(job, worker);
        if wish == Wish::GoOn {
            job.events.push(event);
        }
        wish
    }

    /// Steps on disk, if workers have left more of them than whoever began before found: the job
    /// does get on, and what ended them is not held against it.
    fn further(&self, record: &Record, job: &Job) -> Option<usize> {
        Some(self.depot.kept_steps(&job.task)).filter(|kept| *kept > record.began)
    }

    /// A worker does not go on with a job. After a fault it counts; true if it was one too many,
    /// and the job has failed.
    pub(crate) fn release(&self, job: &Arc<Job>, worker: &str, fault: bool) -> bool {
        let mut inner = self.inner();
        let before = inner.running.len();
        inner.running.retain(|running| !(Arc::ptr_eq(&running.job, job) && running.worker == worker));
        if inner.running.len() == before {
            return false;
        }
        let dead = {
            let mut record = job.record();
            record.state = JobState::Queued;
            record.tries -= u32::from(!fault && record.tries > 0);
            // Running on disk means the same at the next start.
            let _ = self.write(&record);
            record.tries >= TRIES && self.further(&record, job).is_none()
        };
        inner.queue.push_front(Arc::clone(job));
        job.events.push(Event::Queued { position: 0, starts_in: 0.0 });
        drop(inner);
        // What cannot be written down now is found out again by who begins next.
        if job.cancelled.load(Ordering::Relaxed) {
            let _ = self.finished(job, &Event::Cancelled, None);
        } else if dead && self.bury(job).is_ok() {
            return true;
        }
        self.wake.notify_all();
        self.waits.notify_one();
        false
    }

    fn bury(&self, job: &Arc<Job>) -> Result<bool> {
        let detail = format!("{TRIES} workers in a row came to their end with it, and no further");
        self.finished(job, &Event::Failed { problem: Problem::new(Code::JobDead, detail) }, None)
    }

    /// Takes jobs back from workers that have been silent for `lease`; returns those that have
    /// failed by that.
    #[cfg(feature = "nats")]
    pub(crate) fn lapse(&self, lease: Duration) -> Vec<Arc<Job>> {
        let silent = |running: &&Running| running.seen.elapsed() > lease;
        let found: Vec<(Arc<Job>, String)> = (self.inner().running.iter().filter(silent))
            .map(|running| (Arc::clone(&running.job), running.worker.clone()))
            .collect();
        let dead = found.into_iter().filter(|(job, worker)| self.release(job, worker, true));
        dead.map(|(job, _)| job).collect()
    }

    /// Jobs that wait, and those that run.
    #[cfg(feature = "nats")]
    pub(crate) fn open_jobs(&self) -> [Vec<Arc<Job>>; 2] {
        let inner = self.inner();
        let running = inner.running.iter().map(|running| Arc::clone(&running.job));
        [inner.queue.iter().cloned().collect(), running.collect()]
    }

    /// Says how many jobs can run at a time.
    #[cfg(feature = "nats")]
    pub(crate) fn set_workers(&self, workers: usize) {
        self.inner().workers = workers.max(1);
    }

    /// The end of a job: written down before it is told. `seconds` is what it took. False if it had
    /// ended before.
    pub(crate) fn finished(&self, job: &Arc<Job>, end: &Event, seconds: Option<f64>) -> Result<bool> {
        {
            let mut record = job.record();
            if record.state.is_final() {
                return Ok(false);
            }
            let mut after = Record { finished: now(), ..record.clone() };
            match end {
                Event::Done { bytes, blake3 } => {
                    (after.state, after.result) = (JobState::Done, Some((*bytes, *blake3)));
                }
                Event::Failed { problem } => {
                    (after.state, after.problem) = (JobState::Failed, Some(problem.clone()));
                }
                _ => after.state = JobState::Cancelled,
            }
            self.write(&after)?;
            *record = after;
        }
        let mut inner = self.inner();
        inner.unqueue(job);
        inner.running.retain(|running| !Arc::ptr_eq(&running.job, job));
        if let Some(seconds) = seconds {
            inner.seconds = 0.7 * seconds + 0.3 * inner.seconds;
        }
        drop(inner);
        job.events.push(end.clone());
        let _ = std::fs::remove_dir_all(self.depot.steps(&job.task));
        Ok(true)
    }

    /// Gives a job up: at once if it waits, between two steps if it runs.
    pub(crate) fn cancel(&self, job: &Arc<Job>) -> Result<()> {
        job.cancelled.store(true, Ordering::Relaxed);
        let waits = self.inner().queue.iter().any(|queued| Arc::ptr_eq(queued, job));
        if waits { self.finished(job, &Event::Cancelled, None).map(drop) } else { Ok(()) }
    }

    /// Forgets a job that has ended, with its answer.
    pub(crate) fn forget(&self, job: &Job) -> Result<()> {
        self.inner().known.remove(&(job.task.tenant.clone(), job.task.job));
        self.store.remove(Table::Jobs, &job.record().place())?;
        let _ = std::fs::remove_dir_all(self.depot.job(&job.task.tenant, job.task.job));
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

    /// Takes no more; whoever computes here stops after its step.
    pub(crate) fn stop(&self) {
        self.inner().stopping = true;
        self.wake.notify_all();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.inner().stopping
    }

    /// Jobs that wait, and jobs that run.
    pub(crate) fn load(&self) -> (usize, usize) {
        let inner = self.inner();
        (inner.queue.len(), inner.running.len())
    }
}

/// The job that a worker with these keys should take, or how long to wait for one.
fn next(inner: &Inner, resident: &Resident) -> std::result::Result<Arc<Job>, Duration> {
    let mut first: Vec<&Arc<Job>> = vec![];
    for job in &inner.queue {
        if !first.iter().any(|known| known.task.key == job.task.key) {
            first.push(job);
        }
    }
    let waiting: Vec<Waiting<Digest>> = (first.iter())
        .map(|job| Waiting { key: job.task.key, oldest: job.since.elapsed().as_secs_f64() })
        .collect();
    let view = View {
        resident: &resident.keys,
        stayed: resident.since.elapsed().as_secs_f64(),
        idle: resident.idle.elapsed().as_secs_f64(),
        elsewhere: &BTreeSet::new(),
        job: inner.seconds,
    };
    let lingers = Duration::try_from_secs_f64(view.lingers()).unwrap_or_default();
    let pause = if waiting.is_empty() { IDLE } else { lingers + Duration::from_millis(1) };
    view.first(&waiting).map(|at| Arc::clone(first[at])).ok_or(pause)
}

fn room(inner: &Inner, tenant: &str, limits: &Limits) -> std::result::Result<(), Problem> {
    let wait = waiting(inner).ceil().max(1.0) as u64;
    if inner.stopping {
        return Err(Problem::new(Code::Stopping, "no new jobs are taken").retry_after(30));
    }
    let all = inner.queue.iter().chain(inner.running.iter().map(|running| &running.job));
    let own = all.filter(|job| job.task.tenant == tenant).count();
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
    let left = |running: &Running| match running.job.events.newest() {
        Some(Event::Step { left, .. }) => left,
        _ => inner.seconds,
    };
    if inner.running.len() < inner.workers && inner.queue.is_empty() {
        return 0.0;
    }
    let before: f64 = inner.running.iter().map(left).sum();
    (before + inner.seconds * inner.queue.len() as f64) / inner.workers as f64
}
