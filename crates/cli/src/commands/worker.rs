//! `cipherlm worker`: computes for a server, as a process of its own. Nothing here can hold a
//! secret key.
#![cfg_attr(
    not(feature = "nats"),
    allow(dead_code, reason = "this build parses the options and has no NATS")
)]

use crate::workers::{NatsOption, ServedOption};
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    served: ServedOption,
    #[command(flatten)]
    nats: NatsOption,
    /// The server's folder, on a file system that server and workers share.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Take jobs of this key alone, by its id; may be given several times (default: of all keys in
    /// the folder).
    #[arg(long, value_name = "KEY_ID")]
    key: Vec<String>,
}

/// Without the feature there is no NATS to hear from.
#[cfg(not(feature = "nats"))]
pub(crate) fn run(_: &Options, _: bool) -> anyhow::Result<bool> {
    Err(crate::workers::no_nats())
}

/// Works until it is told to stop.
#[cfg(feature = "nats")]
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    use crate::console::{err, out_json, say};
    use crate::exit::usage;
    use anyhow::Context;
    use cipherlm_service::{Journal, Worker, WorkerConfig};

    let key = |text: &String| text.parse().map_err(|reason| usage(format!("--key: {reason}")));
    let config = WorkerConfig {
        data: options.data.clone(),
        nats: options.nats.nats()?,
        keys: options.key.iter().map(key).collect::<Result<_, _>>()?,
        checkpoint_after: options.served.checkpoint_after(),
        key_memory: options.served.key_memory(),
        rest_after: options.served.rest_after(),
    };
    let served = options.served.load(true, as_json)?;
    let worker = Worker::open(served, config, Journal::new(err)).context("--data")?;
    if as_json {
        out_json(&serde_json::json!({"worker": worker.name()}));
    } else {
        say!("worker            {}", worker.name());
    }
    worker.run(super::serve::stop_signal())?;
    Ok(true)
}
