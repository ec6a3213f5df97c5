//! A worker as a process of its own.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cipherlm_protocol::Digest;
use futures_util::StreamExt;
use serde_json::json;

use super::line::{Line, Nats};
use super::pull::{Neighbours, Pull};
use super::wire::{Hello, Introduction};
use crate::error::{Error, Result};
use crate::journal::Journal;
use crate::runner::{Effort, Runner};
use crate::served::Served;
use crate::task::Depot;

/// What a worker is told at its start.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// The server's folder, which it shares.
    pub data: PathBuf,
    /// Where tasks come from.
    pub nats: Nats,
    /// The only keys that it takes; with none, every key in the folder.
    pub keys: Vec<Digest>,
    /// Steps that took at least this long are kept for another try.
    pub checkpoint_after: Duration,
    /// Bytes of one client's keys in memory; others are loaded when they are needed.
    pub key_memory: u64,
    /// Time without a task after which keys and circuits leave the memory.
    pub rest_after: Duration,
}

/// A worker of a server that shares its folder.
pub struct Worker {
    served: Arc<Served>,
    config: WorkerConfig,
    found: Introduction,
    name: String,
    journal: Journal,
}

impl Worker {
    /// Reads what the server left for its workers.
    ///
    /// # Errors
    /// [`Error::Files`] for a folder that no server has opened for workers,
    /// [`Error::OtherServer`] for one that serves another plan or is of another version.
    pub fn open(served: Served, config: WorkerConfig, journal: Journal) -> Result<Self> {
        let found = Introduction::read(&config.data)?;
        let same = |what, server: &str, own: &str| {
            let (server, worker) = (server.to_owned(), own.to_owned());
            if server == worker { Ok(()) } else { Err(Error::OtherServer { what, server, worker }) }
        };
        same("plan", &found.plan, &served.client.plan)?;
        same("version", &found.version, env!("CARGO_PKG_VERSION"))?;
        let mut bytes = [0u8; 8];
        getrandom::fill(&mut bytes).map_err(|_| Error::Randomness)?;
        let name = format!("{:016x}", u64::from_le_bytes(bytes));
        Ok(Self { served: Arc::new(served), config, found, name, journal })
    }

    /// Its name in the server's journal.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Works until `stop` is done, and the step that runs by then.
    ///
    /// # Errors
    /// [`Error::Nats`] for addresses that are none, [`Error::Network`] when the system gives no
    /// threads.
    pub fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime =
            runtime.map_err(|source| Error::Network { what: "starting a worker".into(), source })?;
        let nats = &self.config.nats;
        let line = runtime.block_on(Line::connect(nats, &self.found, "cipherlm worker"))?;
        let stopping = Arc::new(AtomicBool::new(false));
        runtime.spawn({
            let stopping = Arc::clone(&stopping);
            async move {
                stop.await;
                stopping.store(true, Ordering::Relaxed);
            }
        });
        let neighbours = Arc::new(Mutex::new(Neighbours::default()));
        runtime.spawn(greet(line.clone(), self.name.clone(), Arc::clone(&neighbours)));
        let depot = Depot::new(&self.config.data);
        let mut pull = Pull {
            bell: runtime.block_on(line.subscribe("bell"))?,
            name: self.name,
            plan: self.served.client.plan.clone(),
            only: self.config.keys.into_iter().collect(),
            depot: depot.clone(),
            line,
            journal: self.journal.clone(),
            runtime: runtime.handle().clone(),
            stop: stopping,
            neighbours,
            seconds: self.served.client.costs.seconds,
            lingers: Duration::ZERO,
            waiting: std::collections::BTreeMap::new(),
        };
        let effort = Effort {
            checkpoint_after: self.config.checkpoint_after,
            key_memory: self.config.key_memory,
            rest_after: self.config.rest_after,
        };
        self.served.rest();
        self.journal.line("working", json!({"worker": pull.name, "plan": pull.plan}));
        Runner::new(self.served, depot, effort, self.journal.clone()).work(&mut pull);
        self.journal.line("stopped", json!({"worker": pull.name}));
        runtime.shutdown_background();
        Ok(())
    }
}

/// Says which keys this worker has, and hears which the others have.
async fn greet(line: Line, name: String, neighbours: Arc<Mutex<Neighbours>>) {
    let known = || neighbours.lock().unwrap_or_else(PoisonError::into_inner);
    let mut hellos = loop {
        match line.subscribe("hello").await {
            Ok(hellos) => break hellos,
            Err(_) => tokio::time::sleep(line.beat()).await,
        }
    };
    let mut beat = tokio::time::interval(line.beat());
    loop {
        tokio::select! {
            Some(message) = hellos.next() => {
                if let Ok(hello) = serde_json::from_slice::<Hello>(&message.payload) {
                    known().greet(hello, &name, line.terms.lease);
                }
            }
            _ = beat.tick() => {
                let hello = Hello { worker: name.clone(), keys: known().own.clone() };
                line.say("hello", serde_json::to_vec(&hello).unwrap_or_default().into()).await;
            }
        }
    }
}
