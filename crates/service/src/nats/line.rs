//! A line to NATS: names of subjects and streams, and how they are made.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream};
use async_nats::jetstream::{self, Context};
use async_nats::{ConnectOptions, Subscriber};
use axum::body::Bytes;
use cipherlm_protocol::Digest;

use super::wire::{Answer, Call, Introduction, Terms};
use crate::error::{Error, Result};

/// How long dead letters are kept, and how many.
const DEAD: (Duration, i64) = (Duration::from_secs(30 * 86400), 10_000);

/// Where NATS is.
#[derive(Debug, Clone)]
pub struct Nats {
    /// Addresses of the NATS servers, `nats://[USER:PASSWORD@]HOST[:PORT]` or `tls://…`.
    pub servers: Vec<String>,
    /// Certificates to trust beside those of the system, PEM.
    pub authority: Option<PathBuf>,
}

/// Any error of NATS, by its words.
pub(super) fn failed(what: &'static str) -> impl Fn(&dyn std::fmt::Display) -> Error {
    move |error| Error::Nats { what, reason: error.to_string() }
}

/// A line to NATS on which one server and its workers speak.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) context: Context,
    instance: String,
    pub(super) terms: Terms,
}

impl Line {
    /// Connects, or keeps trying: a NATS that is down is waited for.
    pub(super) async fn connect(nats: &Nats, found: &Introduction, name: &str) -> Result<Self> {
        let terms = found.terms();
        let beat = terms.lease / 3;
        let mut options = ConnectOptions::new()
            .name(name)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(|tries| Duration::from_millis(100 << tries.min(4)))
            .ping_interval(beat.max(Duration::from_secs(1)))
            .request_timeout(Some(beat.clamp(Duration::from_millis(300), Duration::from_secs(3))));
        if let Some(file) = &nats.authority {
            options = options.add_root_certificates(file.clone());
        }
        let line = options.connect(nats.servers.as_slice()).await;
        let line = line.map_err(|error| failed("connecting")(&error))?;
        let mut context = jetstream::new(line);
        context.set_timeout(beat.clamp(Duration::from_secs(1), Duration::from_secs(5)));
        Ok(Self { context, instance: found.instance.clone(), terms })
    }

    pub(super) fn subject(&self, rest: &str) -> String {
        format!("cipherlm.{}.{rest}", self.instance)
    }

    /// Subject of a job's message; `*` stands for any key or job.
    pub(super) fn work(&self, plan: &str, key: &str, job: &str) -> String {
        self.subject(&format!("work.{plan}.{key}.{job}"))
    }

    /// Time between two signs of life.
    pub(super) fn beat(&self) -> Duration {
        self.terms.lease / 3
    }

    fn config(&self, kind: &str, name: &str) -> Config {
        Config {
            name: format!("CIPHERLM_{name}_{}", self.instance),
            subjects: vec![self.subject(&format!("{kind}.>"))],
            storage: StorageType::File,
            num_replicas: self.terms.replicas,
            ..Config::default()
        }
    }

    /// The queue: at most one message a job, until it is acknowledged.
    pub(super) async fn queue(&self) -> Result<Stream> {
        let config = Config {
            retention: RetentionPolicy::WorkQueue,
            discard: DiscardPolicy::New,
            discard_new_per_subject: true,
            max_messages_per_subject: 1,
            ..self.config("work", "WORK")
        };
        let stream = self.context.get_or_create_stream(config).await;
        stream.map_err(|error| failed("the stream of jobs")(&error))
    }

    /// Where jobs are noted that came to nothing.
    pub(super) async fn dead_letters(&self) -> Result<Stream> {
        let config = Config { max_age: DEAD.0, max_messages: DEAD.1, ..self.config("dead", "DEAD") };
        let stream = self.context.get_or_create_stream(config).await;
        stream.map_err(|error| failed("the stream of dead letters")(&error))
    }

    pub(super) async fn subscribe(&self, rest: &str) -> Result<Subscriber> {
        let subscribed = self.context.client().subscribe(self.subject(rest)).await;
        subscribed.map_err(|error| failed("subscribing")(&error))
    }

    /// Says something to whoever listens; nobody may.
    pub(super) async fn say(&self, rest: &str, what: Bytes) {
        // What is lost here is found out by who waits for it.
        let _ = self.context.client().publish(self.subject(rest), what).await;
    }

    /// Asks the server; none if it does not answer in time.
    pub(super) async fn call(&self, call: &Call) -> Option<Answer> {
        let body = serde_json::to_vec(call).ok()?;
        let answer = self.context.client().request(self.subject("call"), body.into()).await.ok()?;
        serde_json::from_slice(&answer.payload).ok()
    }
}

/// The key in a message's subject.
pub(super) fn key_of(subject: &str) -> Option<Digest> {
    subject.rsplit('.').nth(1)?.parse().ok()
}

/// Name of the consumer of a key.
pub(super) fn consumer(plan: &str, key: Digest) -> String {
    format!("{}-{}", plan.get(..16).unwrap_or(plan), &key.to_string()[..32])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_names_its_key() {
        let (key, job) = (Digest::of(b"key"), Digest::of(b"job"));
        assert_eq!(key_of(&format!("cipherlm.i.work.p.{key}.{job}")), Some(key));
        assert_eq!(key_of("cipherlm.i.work.p.x.y"), None);
        assert_ne!(consumer("plan", key), consumer("plan", job));
    }
}
