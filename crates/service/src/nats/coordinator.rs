//! The server's side: rings for jobs that wait, answers workers, takes jobs back from the silent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::Message;
use axum::body::Bytes;
use cipherlm_protocol::Event;
use futures_util::StreamExt;
use serde_json::json;

use super::line::{Line, Nats, consumer, failed};
use super::wire::{Answer, Call, Hello, Introduction, Say, Terms};
use crate::app::App;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::jobs::Grant;
use crate::transport::{End, Wish};

/// A message that nobody takes although workers are free is looked into after so many leases.
const STUCK: u32 = 4;

/// Leaves what workers have to know in the server's folder.
fn introduce(app: &App, terms: Terms) -> Result<Introduction> {
    let folder = &app.config.data;
    let instance = match Introduction::read(folder) {
        Ok(found) => found.instance,
        Err(_) => {
            let mut bytes = [0u8; 8];
            getrandom::fill(&mut bytes).map_err(|_| Error::Randomness)?;
            format!("{:016x}", u64::from_le_bytes(bytes))
        }
    };
    let (plan, version) = (app.served.client.plan.clone(), env!("CARGO_PKG_VERSION").to_owned());
    let Terms { lease, replicas } = terms;
    let introduction = Introduction { instance, plan, version, lease: lease.as_secs_f64(), replicas };
    introduction.write(folder)?;
    Ok(introduction)
}

/// Speaks with workers for as long as it is polled.
///
/// # Errors
/// When it cannot begin; a NATS that is down is waited for.
pub(crate) async fn coordinate(app: Arc<App>, nats: Nats, terms: Terms) -> Result<()> {
    let found = introduce(&app, terms)?;
    let line = Line::connect(&nats, &found, "cipherlm serve").await?;
    let (mut calls, mut hellos) = (line.subscribe("call").await?, line.subscribe("hello").await?);
    let coordinator = Coordinator { app, line, workers: Mutex::default() };
    let mut dispatch = std::pin::pin!(coordinator.dispatch());
    loop {
        tokio::select! {
            Some(message) = calls.next() => coordinator.hear(message).await,
            Some(message) = hellos.next() => coordinator.greet(&message),
            () = &mut dispatch => {}
        }
    }
}

struct Coordinator {
    app: Arc<App>,
    line: Line,
    /// Workers that live, and when they last said so.
    workers: Mutex<BTreeMap<String, Instant>>,
}

impl Coordinator {
    fn greet(&self, message: &Message) {
        let Ok(hello) = serde_json::from_slice::<Hello>(&message.payload) else { return };
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.insert(hello.worker, Instant::now());
        workers.retain(|_, seen| seen.elapsed() < self.line.terms.lease);
        self.app.jobs.set_workers(workers.len());
        self.app.metrics.set("workers", workers.len() as f64);
    }

    /// Answers a worker.
    async fn hear(&self, message: Message) {
        let Ok(call) = serde_json::from_slice::<Call>(&message.payload) else { return };
        let app = Arc::clone(&self.app);
        // Records go to the disk.
        let said = tokio::task::spawn_blocking(move || answer(&app, call)).await;
        let (answer, dead) = said.unwrap_or((Answer::Again, None));
        let body = serde_json::to_vec(&answer).unwrap_or_default();
        if let Some(reply) = message.reply {
            // A worker without an answer asks again.
            let _ = self.line.context.client().publish(reply, body.into()).await;
        }
        if let Some(job) = dead {
            self.bury(&job).await;
        }
    }

    /// Notes a job that came to nothing where its operator looks for it.
    async fn bury(&self, job: &Job) {
        let view = job.view();
        let letter = json!({"task": job.task, "problem": view.problem});
        self.app.journal.line("dead", letter.clone());
        self.app.metrics.add("jobs_dead_total", 1.0);
        let subject = self.line.subject(&format!("dead.{}.{}", job.task.key, job.task.job));
        let sent = async {
            self.line.dead_letters().await?;
            let sent = self.line.context.publish(subject, Bytes::from(letter.to_string())).await;
            sent.map_err(|error| failed("a dead letter")(&error))?
                .await
                .map_err(|e| failed("a dead letter")(&e))
        };
        // The record says the same.
        if let Err(error) = sent.await {
            self.app.journal.line("nats", json!({"error": error.to_string()}));
        }
    }

    /// Rings for jobs as they come, and looks after all of them at every beat.
    async fn dispatch(&self) {
        let (mut said, mut stuck) = (String::new(), BTreeMap::new());
        loop {
            let app = Arc::clone(&self.app);
            let lease = self.line.terms.lease;
            let dead = tokio::task::spawn_blocking(move || app.jobs.lapse(lease)).await;
            for job in dead.unwrap_or_default() {
                self.bury(&job).await;
            }
            match self.reconcile(&mut stuck).await {
                Ok(()) => said.clear(),
                // Once for each reason: NATS may be down for long.
                Err(error) if error.to_string() != said => {
                    said = error.to_string();
                    self.app.journal.line("nats", json!({"error": said}));
                }
                Err(_) => {}
            }
            tokio::select! {
                () = self.app.jobs.waits.notified() => {}
                () = tokio::time::sleep(self.line.beat().min(Duration::from_secs(15))) => {}
            }
        }
    }

    /// Compares messages with jobs: rings for jobs without one, takes messages out that have no
    /// job.
    async fn reconcile(&self, stuck: &mut BTreeMap<String, Instant>) -> Result<()> {
        let queue = self.line.queue().await?;
        let bad = failed("the stream of jobs");
        let mut there = BTreeMap::new();
        let mut subjects =
            queue.info_with_subjects(self.line.subject("work.>")).await.map_err(|error| bad(&error))?;
        while let Some(subject) = subjects.next().await {
            let (subject, _) = subject.map_err(|error| bad(&error))?;
            there.insert(subject, ());
        }
        // Jobs after messages: a message that was there has its job by now.
        let [waiting, running] = self.app.jobs.open_jobs();
        let subject = |job: &Arc<Job>| {
            let task = &job.task;
            self.line.work(&task.plan, &task.key.to_string(), &task.job.to_string())
        };
        let mut rung = false;
        for job in &waiting {
            let subject = subject(job);
            if there.remove(&subject).is_some() {
                continue;
            }
            let body = serde_json::to_vec(&job.task).unwrap_or_default();
            let sent = self.line.context.publish(subject, body.into()).await;
            sent.map_err(|error| bad(&error))?.await.map_err(|error| bad(&error))?;
            rung = true;
        }
        if rung {
            self.line.say("bell", Bytes::new()).await;
        }
        for job in &running {
            there.remove(&subject(job));
        }
        for subject in there.into_keys() {
            queue.purge().filter(subject).await.map_err(|error| bad(&error))?;
        }
        self.unstick(&queue, &waiting, stuck).await
    }

    /// Makes a key's consumer anew when a job of it waits for long beside idle workers: consumers
    /// of work queues have been seen to stand still.
    async fn unstick(
        &self,
        queue: &async_nats::jetstream::stream::Stream,
        waiting: &[Arc<Job>],
        stuck: &mut BTreeMap<String, Instant>,
    ) -> Result<()> {
        let (_, running) = self.app.jobs.load();
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner).len();
        if running > 0 || workers == 0 {
            stuck.clear();
            return Ok(());
        }
        let names: Vec<String> = waiting.iter().map(|job| consumer(&job.task.plan, job.task.key)).collect();
        stuck.retain(|name, _| names.contains(name));
        for name in names {
            let since = *stuck.entry(name.clone()).or_insert_with(Instant::now);
            if since.elapsed() > STUCK * self.line.terms.lease {
                stuck.remove(&name);
                self.app.journal.line("consumer", json!({"again": name}));
                // Its worker makes it again.
                let _ = queue.delete_consumer(&name).await;
            }
        }
        Ok(())
    }
}

/// What a worker is answered, and the job that has failed by its call.
fn answer(app: &App, call: Call) -> (Answer, Option<Arc<Job>>) {
    let Call { worker, tenant, job, say } = call;
    let Ok(job) = app.jobs.find(&tenant, job) else { return (Answer::Leave, None) };
    let end = match say {
        Say::Begin => {
            return match app.jobs.begin(&job, &worker) {
                Ok(Grant::Go) => (Answer::GoOn, None),
                Ok(Grant::Busy) => (Answer::Busy, None),
                Ok(Grant::Gone) => (Answer::Leave, None),
                Ok(Grant::Dead) => (Answer::Leave, Some(job)),
                Err(_) => (Answer::Again, None),
            };
        }
        Say::Alive => return (app.jobs.alive(&job, &worker).into(), None),
        Say::Tell(event) if event.is_final() => return (Answer::Leave, None),
        Say::Tell(event) => return (app.jobs.tell(&job, &worker, event).into(), None),
        Say::End(event, spent) => (End::Final(event), spent),
        Say::Fault(spent) => (End::Fault, spent),
        Say::Left(spent) => (End::Left, spent),
    };
    let (end, spent) = end;
    let end = match end {
        // An answer is what it is, whoever made it; that it is there is seen with own eyes.
        End::Final(done @ Event::Done { .. }) if app.depot.kept(&job.task).as_ref() == Some(&done) => {
            End::Final(done)
        }
        End::Final(Event::Done { .. }) => End::Fault,
        // What else becomes of a job, only who has it may say.
        end if app.jobs.alive(&job, &worker) == Wish::Leave => {
            drop(end);
            return (Answer::Leave, None);
        }
        end => end,
    };
    match app.settle(&job, &worker, &end, spent) {
        Ok(dead) => (Answer::Written, dead.then_some(job)),
        Err(_) => (Answer::Again, None),
    }
}
