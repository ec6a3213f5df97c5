//! `cipherlm serve`: the server's command over a network. Nothing here can hold a secret key.

use crate::console::{err, out_json, say};
use crate::exit::usage;
use crate::options::{ModelOption, ProfileOption, gibibytes, seconds, tokens};
use crate::prices::PricesOption;
use crate::setup::Setup;
use anyhow::Context;
use cipherlm_files::{create_folder, read, shown};
use cipherlm_protocol::Limits;
use cipherlm_service::{Config, Journal, Served, Service, Tls};
use clap::Args;
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Largest certificate chain or key.
const PEM_BYTES: u64 = 1 << 20;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    model: ModelOption,
    /// Address and port to listen on.
    #[arg(long, default_value = "127.0.0.1:8443", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// The server's folder: records, keys, jobs; made if it is missing.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Certificate chain, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Without TLS: for a loopback address alone, to try things or behind a gateway on this
    /// machine.
    #[arg(long, conflicts_with = "tls_cert")]
    plain_http: bool,
    /// Longest prompt, in tokens.
    #[arg(long, default_value = "32", value_parser = tokens())]
    length: usize,
    #[command(flatten)]
    profile: ProfileOption,
    #[command(flatten)]
    prices: PricesOption,
    /// Bounds as JSON, as GET /v1/limits shows them; those that are left out keep their values.
    #[arg(long, value_name = "FILE")]
    limits: Option<PathBuf>,
    /// Keep steps that took at least this many seconds for a restart.
    #[arg(long, default_value = "1", value_name = "SECONDS", value_parser = seconds)]
    checkpoint_after: f64,
    /// Hold at most this many GiB of a client's keys in memory (default: all).
    #[arg(long, value_name = "GIB", value_parser = gibibytes)]
    key_memory: Option<f64>,
}

/// Serves until it is told to stop.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    let tls = tls(options)?;
    let limits = match &options.limits {
        None => Limits::default(),
        Some(file) => {
            let bytes = read(file, 1 << 16).context("--limits")?;
            cipherlm_protocol::read_json(&bytes).with_context(|| format!("--limits: {}", shown(file)))?
        }
    };
    create_folder(&options.data).context("--data")?;
    let (model, wanted) = (options.model.load()?, options.profile.wanted()?);
    let setup = Setup::on(model, options.length, &wanted, &options.prices.table(wanted.insecure())?)?;
    setup.price_memory()?;
    if !as_json {
        err(&setup.summary());
    }
    let plan = setup.plan.id();
    let served = Served::new(setup.circuits, setup.plan, setup.profile.name, &setup.loaded.tokenizer)?;
    let config = Config {
        data: options.data.clone(),
        limits,
        checkpoint_after: Duration::from_secs_f64(options.checkpoint_after),
        key_memory: options.key_memory.map_or(u64::MAX, |gib| (gib * f64::from(1 << 30)) as u64),
    };
    let service = Service::open(served, config, Journal::new(err)).context("--data")?;
    let token = options.data.join("token");
    let new = service.first_token(&token).context("--data")?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let told = |address: SocketAddr| {
        let address = format!("{scheme}://{address}");
        if as_json {
            out_json(&json!({"listening": address, "plan": plan, "token_file": shown(&token)}));
            return;
        }
        say!("listening         {address}  (plan {plan})");
        if new {
            say!("token             {}  (for its owner: every scope; made once)", shown(&token));
        }
        let folder = shown(&token);
        say!("next              cipherlm plan --server {address} --token-file {folder} --client client");
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(service.run(options.listen, tls, told, stop_signal()))?;
    // A step that is still running ends with the process; its checkpoints are on disk.
    runtime.shutdown_background();
    Ok(true)
}

fn tls(options: &Options) -> anyhow::Result<Option<Tls>> {
    match (&options.tls_cert, &options.tls_key) {
        (Some(chain), Some(key)) => {
            let chain = read(chain, PEM_BYTES).context("--tls-cert")?;
            Ok(Some(Tls::from_pem(&chain, &read(key, PEM_BYTES).context("--tls-key")?)?))
        }
        _ if !options.plain_http => {
            Err(usage("no TLS: give --tls-cert and --tls-key, or --plain-http on a loopback address"))
        }
        _ if !options.listen.ip().is_loopback() => {
            Err(usage("--plain-http goes with a loopback address alone: tokens would travel in the clear"))
        }
        _ => Ok(None),
    }
}

/// Done when the process is asked to stop.
pub(crate) async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        // Without a handler Ctrl-C ends the process as it always does.
        _ = tokio::signal::ctrl_c() => {}
    }
}
