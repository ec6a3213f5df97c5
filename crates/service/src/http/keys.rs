//! Registering keys.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use cipherlm_ckks::SwitchingKey;
use cipherlm_protocol::{Code, JSON_BYTES, KeyManifest, Problem, read_json};

use super::answer::{Named, Refusal, authorise, digest, json_of};
use crate::app::App;
use crate::auth::Scope;
use crate::keys::check_head;
use crate::receive;

type Shared = State<Arc<App>>;

/// `PUT /v1/keys/{key}`: the list of a client's keys; answered by what is missing.
pub(super) async fn announce(
    State(app): Shared,
    headers: HeaderMap,
    Named(key): Named<String>,
    body: Body,
) -> Result<Response, Refusal> {
    let caller = authorise(&app, &headers, Some(Scope::Keys))?;
    let key = digest(&key)?;
    let body = receive::whole(&headers, body, JSON_BYTES as u64, &app.config.limits).await?;
    let manifest: KeyManifest = read_json(&body)?;
    let reply =
        blocking(move || app.keys.announce(&caller.tenant, key, manifest, &app.served, &app.config.limits))
            .await?;
    Ok(json_of(&reply))
}

/// `PUT /v1/keys/{key}/{hash}`: one key file.
pub(super) async fn upload(
    State(app): Shared,
    headers: HeaderMap,
    Named((key, hash)): Named<(String, String)>,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let caller = authorise(&app, &headers, Some(Scope::Keys))?;
    let (key, hash) = (digest(&key)?, digest(&hash)?);
    let entry = app.keys.entry(&caller.tenant, key, hash)?;
    let path = app.keys.file(&caller.tenant, key, hash);
    if path.is_file() {
        return Ok(StatusCode::OK);
    }
    let length = receive::exactly(&headers, entry.bytes)?;
    let _turn = app.uploads.take(&caller.tenant).await;
    let head = SwitchingKey::HEAD_BYTES as usize;
    let check = |head: &[u8]| check_head(&app.served, key, head, length);
    receive::into_file(body, length, hash, path, &app.config.limits, head, check).await?;
    app.metrics.add("key_bytes_received", length as f64);
    Ok(StatusCode::CREATED)
}

/// `HEAD /v1/keys/{key}/{hash}`: whether a key file is there.
pub(super) async fn there(
    State(app): Shared,
    headers: HeaderMap,
    Named((key, hash)): Named<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let caller = authorise(&app, &headers, Some(Scope::Keys))?;
    let there = app.keys.file(&caller.tenant, digest(&key)?, digest(&hash)?).is_file();
    Ok(if there { StatusCode::OK } else { StatusCode::NOT_FOUND })
}

/// `DELETE /v1/keys/{key}`: forgets the keys of a secret.
pub(super) async fn delete(
    State(app): Shared,
    headers: HeaderMap,
    Named(key): Named<String>,
) -> Result<Response, Refusal> {
    let caller = authorise(&app, &headers, Some(Scope::Keys))?;
    let key = digest(&key)?;
    if blocking(move || app.keys.delete(&caller.tenant, key)).await? {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Err(Problem::new(Code::KeyUnknown, "no keys are registered under this id").into())
}

/// Runs what waits for a disk outside of the threads that wait for a network.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Problem::new(Code::Internal, "the request ended in a fault")))
}
