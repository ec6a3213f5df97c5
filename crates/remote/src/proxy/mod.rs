//! An OpenAI-speaking door on this machine. It holds the secret, so it listens on loopback alone,
//! wants a token of its own, writes nothing down, and shows logits with eight bits.

mod generate;
mod oracle;
mod request;
mod sample;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::channel::Channel;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::error::{Error, Result};
use crate::loopback;
pub use oracle::Oracle;
use request::Asked;

/// Largest request.
const BYTES: usize = 1 << 20;

/// The door, before it opens.
pub struct Proxy {
    oracle: Arc<Oracle>,
    token: blake3::Hash,
    /// One completion at a time: the server computes one at a time too.
    turn: Arc<Semaphore>,
}

impl Proxy {
    /// A door to what `oracle` knows, for those who send `token`.
    pub fn new(oracle: Oracle, token: &str) -> Self {
        let token = blake3::hash(token.trim().as_bytes());
        Self { oracle: Arc::new(oracle), token, turn: Arc::new(Semaphore::new(1)) }
    }

    /// A token: 32 random bytes in hexadecimal.
    ///
    /// # Errors
    /// [`Error::Client`] when the system gives no random numbers.
    pub fn fresh_token() -> Result<String> {
        let mut bytes = [0u8; 32];
        getrandom::fill(&mut bytes).map_err(|e| Error::Client(format!("no random numbers: {e}")))?;
        Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
    }

    /// Serves on a loopback address until `stop` is done.
    ///
    /// # Errors
    /// [`Error::Address`] for another address, [`Error::Listen`] when it cannot be listened on.
    pub async fn run(
        self,
        address: SocketAddr,
        told: impl FnOnce(SocketAddr),
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<()> {
        let shared = Arc::new(self);
        let router = Router::new()
            .route("/v1/models", get(models))
            .route("/v1/completions", post(complete))
            .route("/v1/chat/completions", post(chat))
            .fallback(async || refusal(StatusCode::NOT_FOUND, "no such address: /v1/models, /v1/completions"))
            .layer(DefaultBodyLimit::max(BYTES))
            .layer(from_fn_with_state(Arc::clone(&shared), admit))
            .with_state(shared);
        loopback::serve(address, router, told, stop).await
    }
}

/// Only those who know the token, and only under a name of this machine: a page elsewhere that
/// makes its own name lead here is refused.
async fn admit(State(proxy): State<Arc<Proxy>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    if !loopback::names_this_machine(headers) {
        return refusal(StatusCode::MISDIRECTED_REQUEST, "this door answers to localhost alone");
    }
    let token = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    // Hashes are compared in constant time.
    if blake3::hash(token.unwrap_or_default()) != proxy.token {
        return refusal(StatusCode::UNAUTHORIZED, "wrong API key: use the token of `cipherlm proxy`");
    }
    next.run(request).await
}

async fn models(State(proxy): State<Arc<Proxy>>) -> Response {
    let model = json!({"id": proxy.oracle.model(), "object": "model", "created": 0, "owned_by": "cipherlm"});
    answer(&json!({"object": "list", "data": [model]}))
}

async fn chat() -> Response {
    refusal(StatusCode::BAD_REQUEST, "the model has no chat template: use /v1/completions")
}

async fn complete(State(proxy): State<Arc<Proxy>>, _headers: HeaderMap, body: Bytes) -> Response {
    let asked = match Asked::read(&body, &proxy.oracle) {
        Ok(asked) => asked,
        Err(reason) => return refusal(StatusCode::BAD_REQUEST, &reason),
    };
    let Ok(turn) = Arc::clone(&proxy.turn).try_acquire_owned() else {
        return refusal(StatusCode::TOO_MANY_REQUESTS, "another completion is running: wait for it");
    };
    let (send, stream) = Channel::<Bytes>::new(4);
    let kind = if asked.stream { "text/event-stream" } else { "application/json" };
    let oracle = Arc::clone(&proxy.oracle);
    tokio::spawn(async move {
        generate::run(&oracle, &asked, send).await;
        drop(turn);
    });
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store")], Body::new(stream)).into_response()
}

fn answer(value: &Value) -> Response {
    ([(CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

fn refusal(status: StatusCode, reason: &str) -> Response {
    (status, answer(&failure(reason))).into_response()
}

/// An error as clients of OpenAI read it.
fn failure(reason: &str) -> Value {
    json!({"error": {"message": reason, "type": "cipherlm", "param": null, "code": null}})
}
