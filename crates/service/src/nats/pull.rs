//! The worker's side: chooses a key, pulls a message, asks whether it may begin.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::Subscriber;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{AckKind, Message};
use cipherlm_protocol::Digest;
use futures_util::StreamExt;
use serde_json::json;
use tokio::runtime::Handle;

use super::held::Held;
use super::line::{Line, consumer, failed, key_of};
use super::wire::{Answer, Call, Hello, Say};
use crate::error::Result;
use crate::journal::Journal;
use crate::schedule::{View, Waiting};
use crate::task::{Depot, Task, is_tenant};
use crate::transport::{Next, Resident, Transport};

/// Messages of a key that may be in workers' hands: far more than there are workers, since
/// consumers at their bound have been seen to stand still.
const IN_HANDS: i64 = 1000;
/// After the end of a wait.
const SOON: Duration = Duration::from_millis(1);
/// A consumer that nobody asks is forgotten after this.
const FORGOTTEN: Duration = Duration::from_secs(7 * 86400);

/// What workers know of each other.
#[derive(Default)]
pub(super) struct Neighbours {
    /// Keys that this worker has, or is about to load.
    pub(super) own: Vec<Digest>,
    others: BTreeMap<String, (Instant, Vec<Digest>)>,
}

impl Neighbours {
    pub(super) fn greet(&mut self, hello: Hello, own: &str, lease: Duration) {
        if hello.worker != own {
            self.others.insert(hello.worker, (Instant::now(), hello.keys));
        }
        self.others.retain(|_, (seen, _)| seen.elapsed() < lease);
    }

    fn elsewhere(&self, lease: Duration) -> BTreeSet<Digest> {
        let live = self.others.values().filter(|(seen, _)| seen.elapsed() < lease);
        live.flat_map(|(_, keys)| keys.iter().copied()).collect()
    }
}

/// A worker's queue.
pub(super) struct Pull {
    pub(super) name: String,
    pub(super) plan: String,
    /// Keys that it may take, if not all.
    pub(super) only: BTreeSet<Digest>,
    pub(super) depot: Depot,
    pub(super) line: Line,
    pub(super) journal: Journal,
    pub(super) runtime: Handle,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) bell: Subscriber,
    pub(super) neighbours: Arc<Mutex<Neighbours>>,
    /// Seconds of a job, as the plan predicts.
    pub(super) seconds: f64,
    /// How long it still waits for the next job of its key.
    pub(super) lingers: Duration,
    /// Since when there have been messages of a key.
    pub(super) waiting: BTreeMap<Digest, Instant>,
}

impl Transport for Pull {
    type Lease = Held;

    fn next(&mut self, resident: &Resident) -> Next<Held> {
        self.runtime.clone().block_on(self.seek(resident))
    }
}

impl Pull {
    fn has(&self, key: Digest) -> bool {
        let allowed = self.only.is_empty() || self.only.contains(&key);
        let tenants = || std::fs::read_dir(self.depot.all_keys()).into_iter().flatten().flatten();
        allowed && tenants().any(|tenant| tenant.path().join(key.to_string()).is_dir())
    }

    fn know(&self, keys: Vec<Digest>) -> BTreeSet<Digest> {
        let mut neighbours = self.neighbours.lock().unwrap_or_else(PoisonError::into_inner);
        neighbours.own = keys;
        neighbours.elsewhere(self.line.terms.lease)
    }

    async fn seek(&mut self, resident: &Resident) -> Next<Held> {
        let (mut said, pause) = (String::new(), (self.line.terms.lease / 6).min(Duration::from_secs(5)));
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Next::Stop;
            }
            match self.look(resident).await {
                Ok(Some(held)) => return Next::Task(held),
                Ok(None) => said.clear(),
                // Once for each reason: NATS may be down for long.
                Err(error) if error.to_string() != said => {
                    said = error.to_string();
                    self.journal.line("nats", json!({"error": said}));
                }
                Err(_) => {}
            }
            let rest = resident.until_rest();
            if rest.is_some_and(|left| left.is_zero()) {
                return Next::Rest;
            }
            let pause = rest.map_or(pause, |left| left.min(pause));
            let pause = if self.lingers.is_zero() { pause } else { pause.min(self.lingers + SOON) };
            tokio::select! {
                _ = self.bell.next() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One round over the keys that have messages.
    async fn look(&mut self, resident: &Resident) -> Result<Option<Held>> {
        let elsewhere = self.know(resident.keys.clone());
        let queue = self.line.queue().await?;
        let waiting = self.messages(&queue).await?;
        let view = View {
            resident: &resident.keys,
            stayed: resident.since.elapsed().as_secs_f64(),
            idle: resident.idle.elapsed().as_secs_f64(),
            elsewhere: &elsewhere,
            job: self.seconds,
        };
        self.lingers = Duration::try_from_secs_f64(view.lingers()).unwrap_or_default();
        for at in view.order(&waiting) {
            let Some(message) = self.pull(&queue, waiting[at].key).await? else { continue };
            if let Some(held) = self.take(message).await {
                return Ok(Some(held));
            }
        }
        Ok(None)
    }

    /// The keys that have messages and that this worker may take.
    async fn messages(&mut self, queue: &Stream) -> Result<Vec<Waiting<Digest>>> {
        let bad = failed("the stream of jobs");
        let all = self.line.work(&self.plan, "*", "*");
        let mut subjects = queue.info_with_subjects(all).await.map_err(|error| bad(&error))?;
        let mut keys = BTreeSet::new();
        while let Some(subject) = subjects.next().await {
            keys.extend(key_of(&subject.map_err(|error| bad(&error))?.0));
        }
        keys.retain(|key| self.has(*key));
        self.waiting.retain(|key, _| keys.contains(key));
        let mut since = |key| self.waiting.entry(key).or_insert_with(Instant::now).elapsed().as_secs_f64();
        Ok(keys.into_iter().map(|key| Waiting { key, oldest: since(key) }).collect())
    }

    /// A message of a key, if one is in nobody's hands.
    async fn pull(&self, queue: &Stream, key: Digest) -> Result<Option<Message>> {
        let bad = failed("the messages of a key");
        let name = consumer(&self.plan, key);
        let config = pull::Config {
            durable_name: Some(name.clone()),
            filter_subject: self.line.work(&self.plan, &key.to_string(), "*"),
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.line.terms.lease,
            max_ack_pending: IN_HANDS,
            inactive_threshold: FORGOTTEN,
            ..pull::Config::default()
        };
        let consumer = queue.get_or_create_consumer(&name, config).await.map_err(|error| bad(&error))?;
        let mut batch = consumer.fetch().max_messages(1).messages().await.map_err(|error| bad(&error))?;
        batch.next().await.transpose().map_err(|error| bad(&error))
    }

    /// Asks the server about a message.
    async fn take(&mut self, message: Message) -> Option<Held> {
        let task = serde_json::from_slice::<Task>(&message.payload).ok();
        let Some(task) = task.filter(|task| is_tenant(&task.tenant) && task.plan == self.plan) else {
            let _ = message.double_ack().await;
            return None;
        };
        let (worker, tenant) = (self.name.clone(), task.tenant.clone());
        let call = Call { worker, tenant, job: task.job, say: Say::Begin };
        let later = |wait: Duration| message.ack_with(AckKind::Nak(Some(wait)));
        let _ = match self.line.call(&call).await {
            Some(Answer::GoOn) => {
                self.know(vec![task.key]);
                self.waiting.remove(&task.key);
                let (line, runtime) = (self.line.clone(), self.runtime.clone());
                return Some(Held::new(task, &self.name, message, line, &self.stop, &runtime));
            }
            Some(Answer::Leave) => message.double_ack().await,
            Some(Answer::Busy) => later(self.line.terms.lease / 2).await,
            // The server is down, or cannot write.
            _ => later(self.line.beat().min(Duration::from_secs(2))).await,
        };
        None
    }
}
