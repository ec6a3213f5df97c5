//! Sockets: TLS, bounds on connections and time, and a stop that ends.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use cipherlm_files::{Access, Existing};
use cipherlm_protocol::Limits;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::ring, version::TLS13};

use crate::app::{App, Config, stopped};
use crate::auth::{Caller, Scope};
use crate::error::{Error, Result};
use crate::http;
use crate::journal::Journal;
use crate::local::Local;
use crate::patience::Patient;
use crate::runner::Runner;
use crate::served::Served;

/// Time that open connections are given when the server stops, and the step that runs.
const GRACE: Duration = Duration::from_secs(28);
/// Time between two looks for what was kept long enough.
const SWEEP: Duration = Duration::from_secs(60);
/// Largest head of a request.
const HEAD_BYTES: usize = 16 << 10;

/// Certificate chain and private key.
pub struct Tls(Arc<ServerConfig>);

impl Tls {
    /// TLS 1.3 with a certificate chain and its private key, both PEM. With `clients`, PEM too, a
    /// connection needs a certificate that one of these authorities made.
    ///
    /// # Errors
    /// [`Error::Tls`] for anything else.
    pub fn from_pem(chain: &[u8], key: &[u8], clients: Option<&[u8]>) -> Result<Self> {
        let chain = certificates("--tls-cert", chain)?;
        let key = PrivateKeyDer::from_pem_slice(key);
        let key = key.map_err(|e| bad("--tls-key", &format!("it holds no private key ({e})")))?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(&[&TLS13]).map_err(|e| bad("TLS", &e))?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates("--client-ca", pem)? {
                    roots.add(authority).map_err(|e| bad("--client-ca", &e))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().map_err(|e| bad("--client-ca", &e))?)
            }
        };
        let config = builder.with_single_cert(chain, key).map_err(|e| bad("--tls-key", &e))?;
        Ok(Self(Arc::new(config)))
    }
}

fn bad(what: &'static str, error: &dyn std::fmt::Display) -> Error {
    Error::Tls { what, reason: error.to_string() }
}

/// One or more certificates of a PEM file.
fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_slice_iter(pem).collect::<std::result::Result<Vec<_>, _>>();
    match read.map_err(|e| bad(what, &e))? {
        none if none.is_empty() => Err(bad(what, &"it holds no certificate")),
        some => Ok(some),
    }
}

/// A server that is ready to listen.
pub struct Service {
    app: Arc<App>,
    #[cfg(feature = "nats")]
    nats: Option<(crate::nats::Nats, crate::nats::Terms)>,
}

/// What goes on beside the answering of requests, until the server stops.
type Beside = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

impl Service {
    /// Opens the folder of a server. Jobs that were waiting or running go on.
    ///
    /// # Errors
    /// [`Error::Files`] and [`Error::Records`], also for a folder that another server holds;
    /// [`Error::Limits`].
    pub fn open(served: Served, config: Config, journal: Journal) -> Result<Self> {
        Ok(Self {
            app: Arc::new(App::open(served, config, journal)?),
            #[cfg(feature = "nats")]
            nats: None,
        })
    }

    /// Has workers in other processes compute, and none in this one.
    #[cfg(feature = "nats")]
    #[must_use]
    pub fn with_nats(self, nats: crate::nats::Nats, terms: crate::nats::Terms) -> Self {
        Self { nats: Some((nats, terms)), ..self }
    }

    /// Starts who computes: a thread here, or the conversation with workers elsewhere.
    fn start(&self) -> Result<(Option<JoinHandle<()>>, Beside)> {
        #[cfg(feature = "nats")]
        if let Some((nats, terms)) = &self.nats {
            let beside = crate::nats::coordinate(Arc::clone(&self.app), nats.clone(), *terms);
            return Ok((None, Box::pin(beside)));
        }
        let app = Arc::clone(&self.app);
        let work = move || {
            let (served, depot) = (Arc::clone(&app.served), app.depot.clone());
            let mut runner = Runner::new(served, depot, app.effort(), app.journal.clone());
            runner.work(&mut Local(app));
        };
        let worker = std::thread::Builder::new().name("compute".into()).spawn(work);
        let worker =
            worker.map_err(|source| Error::Network { what: "starting the compute thread".into(), source })?;
        Ok((Some(worker), Box::pin(std::future::pending())))
    }

    /// At the first start, makes a token with every scope for the tenant `owner` and leaves it in
    /// a file that its owner alone can read. True if it did.
    ///
    /// # Errors
    /// [`Error::Files`], [`Error::Records`], [`Error::Randomness`].
    pub fn first_token(&self, file: &Path) -> Result<bool> {
        if !self.app.tokens.is_empty() {
            return Ok(false);
        }
        let scopes = vec![Scope::Keys, Scope::Jobs, Scope::Admin];
        let token = self.app.tokens.create(&self.app.store, Caller { tenant: "owner".into(), scopes })?;
        cipherlm_files::write(file, token.as_bytes(), Existing::Replace, Access::Owner)?;
        Ok(true)
    }

    /// Serves until `stop` is done, then for at most half a minute more. `told` is given the
    /// address once connections are taken.
    ///
    /// # Errors
    /// [`Error::Listen`] when the address cannot be listened on, [`Error::Nats`] for addresses of
    /// NATS that are none.
    pub async fn run(
        self,
        address: SocketAddr,
        tls: Option<Tls>,
        told: impl FnOnce(SocketAddr),
        stop: impl Future<Output = ()>,
    ) -> Result<()> {
        let network = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(network)?;
        self.app.served.rest();
        told(listener.local_addr().map_err(network)?);
        let (worker, beside) = self.start()?;
        let app = self.app;
        let sweeper = {
            let app = Arc::clone(&app);
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(SWEEP).await;
                    let app = Arc::clone(&app);
                    let _ = tokio::task::spawn_blocking(move || app.sweep()).await;
                }
            })
        };
        let connections = Arc::new(Semaphore::new(app.config.limits.connections));
        tokio::select! {
            () = accept(&app, &listener, tls, &connections) => {}
            () = stop => {}
            ended = beside => ended?,
        }
        drop(listener);
        app.journal.line("stopping", json!({}));
        app.jobs.stop();
        app.stop.send_replace(true);
        sweeper.abort();
        let all = u32::try_from(app.config.limits.connections).unwrap_or(u32::MAX);
        let quiet = async {
            let _ = connections.acquire_many(all).await;
            while worker.as_ref().is_some_and(|worker| !worker.is_finished()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // What is not done by then is in the records and checkpoints.
        let in_time = tokio::time::timeout(GRACE, quiet).await.is_ok();
        app.journal.line("stopped", json!({"in_time": in_time}));
        Ok(())
    }
}

async fn accept(app: &Arc<App>, listener: &TcpListener, tls: Option<Tls>, connections: &Arc<Semaphore>) {
    let acceptor = tls.map(|tls| TlsAcceptor::from(tls.0));
    let router = http::router(app);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, say: some will be free again.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(connections).try_acquire_owned() else {
            app.metrics.add("connections_refused_total", 1.0);
            continue;
        };
        let (acceptor, router) = (acceptor.clone(), router.clone());
        let (limits, stop) = (app.config.limits.clone(), app.stop.subscribe());
        tokio::spawn(async move {
            connection(stream, acceptor, router, &limits, stop).await;
            drop(permit);
        });
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    limits: &Limits,
    stop: watch::Receiver<bool>,
) {
    // Events are small and must not wait for more.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = acceptor else { return speak(stream, router, limits, stop).await };
    let handshake = tokio::time::timeout(Duration::from_secs(limits.head_seconds), acceptor.accept(stream));
    if let Ok(Ok(stream)) = handshake.await {
        speak(stream, router, limits, stop).await;
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    limits: &Limits,
    mut stop: watch::Receiver<bool>,
) {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(limits.head_seconds))
        .max_buf_size(HEAD_BYTES);
    let stream = Patient::new(stream, Duration::from_secs(limits.stall_seconds));
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut served = std::pin::pin!(served);
    tokio::select! {
        // A connection that breaks off concerns its client alone.
        _ = served.as_mut() => return,
        () = stopped(&mut stop) => served.as_mut().graceful_shutdown(),
    }
    let _ = served.await;
}
