//! What a worker does with a task: reads the keys, runs the plan, keeps the answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cipherlm_circuits::slots::Encrypted;
use cipherlm_ckks::KeyStore;
use cipherlm_infer::{Checkpoints, EncryptedPrompt, Progress, Server};
use cipherlm_protocol::{Code, Digest, Event, Problem};
use serde_json::json;

use crate::journal::Journal;
use crate::refusal::{STORED_PROMPT, of_own, of_run};
use crate::served::{Engine, Served};
use crate::task::{Depot, Task};
use crate::transport::{End, Lease, Next, Resident, Spent, Transport, Wish};

/// How long a full disk is waited for, and how often it is looked at.
const DISK: (Duration, Duration) = (Duration::from_secs(600), Duration::from_millis(500));

/// How a worker computes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Steps that took at least this long are kept for another try.
    pub(crate) checkpoint_after: Duration,
    /// Bytes of one client's keys in memory.
    pub(crate) key_memory: u64,
    /// Time without a task after which keys and circuits leave the memory.
    pub(crate) rest_after: Duration,
}

/// A client's keys, ready for use.
struct Loaded {
    tenant: String,
    key: Digest,
    store: Arc<KeyStore>,
    server: Server<Arc<KeyStore>>,
}

/// A worker, whatever brings it its tasks.
pub(crate) struct Runner {
    served: Arc<Served>,
    depot: Depot,
    effort: Effort,
    journal: Journal,
    engine: Option<Arc<Engine>>,
    loaded: Option<Loaded>,
    since: Instant,
    idle: Instant,
}

impl Runner {
    pub(crate) fn new(served: Arc<Served>, depot: Depot, effort: Effort, journal: Journal) -> Self {
        let now = Instant::now();
        Self { served, depot, effort, journal, engine: None, loaded: None, since: now, idle: now }
    }

    /// Works until it is to stop.
    pub(crate) fn work<T: Transport>(&mut self, transport: &mut T) {
        loop {
            match transport.next(&self.resident()) {
                Next::Task(lease) => self.take(lease),
                Next::Rest => self.rest(),
                Next::Stop => return,
            }
        }
    }

    /// Gives memory back until there is a task again.
    fn rest(&mut self) {
        (self.loaded, self.engine) = (None, None);
        self.served.rest();
        self.journal.line("resting", json!({}));
    }

    fn take<L: Lease>(&mut self, lease: L) {
        let (clock, mut spent) = (Instant::now(), Spent::default());
        // A fault in a step must not end the process.
        let run = catch_unwind(AssertUnwindSafe(|| self.attempt(&lease, &mut spent)));
        let end = run.unwrap_or(End::Fault);
        let damaged = |problem: &Problem| problem.code() == Some(Code::KeyDamaged);
        match &end {
            End::Fault => self.loaded = None,
            End::Final(Event::Failed { problem }) if damaged(problem) => self.loaded = None,
            _ => {}
        }
        spent.seconds = clock.elapsed().as_secs_f64();
        spent.resident_bytes = self.loaded.as_ref().map_or(0, |loaded| loaded.store.resident_bytes());
        lease.end(end, spent);
        self.idle = Instant::now();
    }

    fn resident(&self) -> Resident {
        Resident {
            keys: self.loaded.iter().map(|loaded| loaded.key).collect(),
            since: self.since,
            idle: self.idle,
            rests: self.engine.as_ref().and_then(|_| self.idle.checked_add(self.effort.rest_after)),
        }
    }

    fn attempt<L: Lease>(&mut self, lease: &L, spent: &mut Spent) -> End {
        let clock = Instant::now();
        // A try before this one may have come to the end, and have been cut off before it said so.
        if let Some(done) = self.depot.kept(lease.task()) {
            return End::Final(done);
        }
        let mut answer = None;
        loop {
            match lease.wish() {
                Wish::GoOn => {}
                Wish::GiveUp => return End::Final(Event::Cancelled),
                Wish::Leave => return End::Left,
            }
            let full = match self.ended(lease, spent, &mut answer) {
                Ok(end) => return end,
                Err(problem) if clock.elapsed() > DISK.0 => return End::Final(Event::Failed { problem }),
                Err(problem) => problem,
            };
            let task = lease.task();
            self.journal.line("waiting", json!({"job": task.job, "tenant": task.tenant, "for": full.detail}));
            std::thread::sleep(DISK.1);
        }
    }

    /// The end of a task; a problem while the disk is full, which is no fault of the job.
    fn ended<L: Lease>(
        &mut self,
        lease: &L,
        spent: &mut Spent,
        answer: &mut Option<Vec<u8>>,
    ) -> Result<End, Problem> {
        if answer.is_none() {
            match self.run(lease, spent) {
                Ok(bytes) => *answer = Some(bytes),
                Err(cipherlm_infer::Error::Stopped { .. }) => {
                    let given_up = lease.wish() == Wish::GiveUp;
                    return Ok(if given_up { End::Final(Event::Cancelled) } else { End::Left });
                }
                Err(error) => {
                    let problem = of_run(&error);
                    let full = problem.code() == Some(Code::Disk);
                    return if full { Err(problem) } else { Ok(End::Final(Event::Failed { problem })) };
                }
            }
        }
        let Some(bytes) = answer else { return Ok(End::Left) };
        match self.depot.keep(lease.task(), bytes) {
            Ok(done) => Ok(End::Final(done)),
            Err(error) => match of_own(&error) {
                problem if problem.code() == Some(Code::Disk) => Err(problem),
                problem => Ok(End::Final(Event::Failed { problem })),
            },
        }
    }

    fn run<L: Lease>(&mut self, lease: &L, spent: &mut Spent) -> Result<Vec<u8>, cipherlm_infer::Error> {
        let (clock, task) = (Instant::now(), lease.task());
        let bytes = cipherlm_files::read(&self.depot.prompt(task), self.served.client.costs.prompt_bytes)?;
        let engine = self.engine()?;
        let prompt = prompt(&engine, task, &bytes)?;
        drop(bytes);
        let ours = |loaded: &Loaded| loaded.tenant == task.tenant && loaded.key == task.key;
        if !self.loaded.as_ref().is_some_and(ours) {
            // The old keys go before the new ones come.
            self.loaded = None;
            self.loaded = Some(self.load(&engine, lease)?);
            self.since = Instant::now();
            spent.load_seconds = clock.elapsed().as_secs_f64();
        }
        let Some(loaded) = &self.loaded else {
            return Err(cipherlm_infer::Error::Stopped { step: 0, steps: 0 });
        };
        let mut observer = |progress: &Progress<'_>| {
            lease.tell(Event::Step {
                step: progress.step,
                steps: progress.steps,
                name: progress.name.to_owned(),
                layer: progress.layer,
                level: progress.level,
                refresh: progress.refresh,
                elapsed: progress.elapsed.as_secs_f64(),
                left: progress.left.as_secs_f64(),
            });
            lease.wish() == Wish::GoOn
        };
        let (steps, after) = (self.depot.steps(task), self.effort.checkpoint_after);
        let mut kept = Checkpoints::new(&steps, after, &mut observer)?;
        Ok(loaded.server.run(&engine.plan, prompt, &mut kept)?.to_bytes())
    }

    /// Circuits and plan, compiled after a rest.
    fn engine(&mut self) -> Result<Arc<Engine>, cipherlm_infer::Error> {
        if let Some(engine) = &self.engine {
            return Ok(Arc::clone(engine));
        }
        let engine = Arc::new(self.served.engine()?);
        self.engine = Some(Arc::clone(&engine));
        Ok(engine)
    }

    /// Reads and checks a client's keys.
    fn load<L: Lease>(&self, engine: &Engine, lease: &L) -> Result<Loaded, cipherlm_infer::Error> {
        let (task, params) = (lease.task(), engine.circuits.params());
        let folder = self.depot.keys(&task.tenant, task.key);
        let (store, key_id) = engine.order.open(&folder, params, self.effort.key_memory)?;
        let of = store.len();
        let slots = |source| cipherlm_infer::Error::Slots { node: "evaluation keys".into(), source };
        store
            .preload(|keys| {
                if keys.is_multiple_of(8) {
                    lease.tell(Event::Loading { keys, of });
                }
            })
            .map_err(|error| slots(error.into()))?;
        let store = Arc::new(store);
        let refresher = engine.circuits.refresher(&store)?;
        let machine = Encrypted::new(params, key_id, Arc::clone(&store)).map_err(slots)?;
        let server = Server::new(machine.with_refresher(refresher).map_err(slots)?);
        Ok(Loaded { tenant: task.tenant.clone(), key: task.key, store, server })
    }
}

/// The prompt of a task, which must be what its name says.
fn prompt(engine: &Engine, task: &Task, bytes: &[u8]) -> Result<EncryptedPrompt, cipherlm_infer::Error> {
    if Digest::of(bytes) != task.job {
        let reason = "its hash is not its name: send it again".into();
        return Err(cipherlm_infer::Error::Malformed { what: STORED_PROMPT.into(), reason });
    }
    EncryptedPrompt::from_bytes(engine.circuits.params(), &engine.order.small, bytes)
}
