//! `cipherlm serve`: the server's command over a network. Nothing here can hold a secret key.

use crate::console::{err, out_json, say};
use crate::exit::usage;
use crate::options::count;
use crate::workers::{NatsOption, ServedOption};
use anyhow::Context;
use cipherlm_files::{create_folder, read, shown};
use cipherlm_protocol::{Limits, Problem};
use cipherlm_service::{Config, Journal, Service, Tls};
use clap::Args;
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Largest certificate chain or key.
const PEM_BYTES: u64 = 1 << 20;

#[derive(Args)]
#[cfg_attr(not(feature = "nats"), allow(dead_code, reason = "this build parses the options and has no NATS"))]
pub(crate) struct Options {
    #[command(flatten)]
    served: ServedOption,
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
    /// Only clients with a certificate that one of these authorities made, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    client_ca: Option<PathBuf>,
    /// Without TLS: for a loopback address alone, to try things or behind a gateway on this
    /// machine.
    #[arg(long, conflicts_with = "tls_cert")]
    plain_http: bool,
    /// Bounds as JSON, as GET /v1/limits shows them; those that are left out keep their values.
    #[arg(long, value_name = "FILE")]
    limits: Option<PathBuf>,
    /// A page that may use this server from a browser: scheme, host and port as the address bar
    /// shows them, once for each. Nobody else's pages may.
    #[arg(long, value_name = "ORIGIN", value_parser = origin)]
    allow_origin: Vec<String>,
    #[command(flatten)]
    nats: NatsOption,
    /// With NATS: a worker that has been silent for so many seconds has lost its job.
    #[arg(long, default_value = "30", value_name = "SECONDS", value_parser = lease)]
    lease: f64,
    /// With NATS: how many of its servers hold each message.
    #[arg(long, default_value = "1", value_parser = count(1..=5))]
    nats_replicas: usize,
}

fn lease(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.5..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("it takes seconds, 0.5 to 3600".into()),
    }
}

/// An origin as browsers write it.
fn origin(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.:[]".contains(c);
    match rest {
        Some(rest) if !rest.is_empty() && rest.chars().all(plain) => Ok(text.to_owned()),
        _ => Err("it takes http(s)://HOST[:PORT], in small letters and without a path".into()),
    }
}

impl Options {
    #[cfg(not(feature = "nats"))]
    fn with_workers(&self, _: Service) -> anyhow::Result<Service> {
        Err(crate::workers::no_nats())
    }

    /// The service with its computing elsewhere.
    #[cfg(feature = "nats")]
    fn with_workers(&self, service: Service) -> anyhow::Result<Service> {
        let lease = std::time::Duration::from_secs_f64(self.lease);
        let terms = cipherlm_service::Terms { lease, replicas: self.nats_replicas };
        Ok(service.with_nats(self.nats.nats()?, terms))
    }
}

/// Serves until it is told to stop.
pub(crate) fn run(options: &Options, as_json: bool) -> anyhow::Result<bool> {
    let tls = tls(options)?;
    let limits = match &options.limits {
        None => Limits::default(),
        Some(file) => {
            let bytes = read(file, 1 << 16).context("--limits")?;
            let read = cipherlm_protocol::read_json::<Limits>(&bytes);
            let refused = |problem: Problem| usage(format!("--limits: {}: {}", shown(file), problem.detail));
            read.and_then(|limits| limits.check().map(|()| limits)).map_err(refused)?
        }
    };
    create_folder(&options.data).context("--data")?;
    let elsewhere = !options.nats.servers().is_empty();
    let served = options.served.load(!elsewhere, as_json)?;
    let plan = served.plan_id().to_owned();
    let config = Config {
        data: options.data.clone(),
        limits,
        checkpoint_after: options.served.checkpoint_after(),
        key_memory: options.served.key_memory(),
        rest_after: options.served.rest_after(),
        origins: options.allow_origin.clone(),
    };
    let service = Service::open(served, config, Journal::new(err)).context("--data")?;
    let service = if elsewhere { options.with_workers(service)? } else { service };
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
            let clients = options.client_ca.as_ref();
            let clients = clients.map(|file| read(file, PEM_BYTES).context("--client-ca")).transpose()?;
            let key = Zeroizing::new(read(key, PEM_BYTES).context("--tls-key")?);
            Ok(Some(Tls::from_pem(&chain, &key, clients.as_deref())?))
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
