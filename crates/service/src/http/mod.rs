//! The addresses of a server.

mod answer;
mod jobs;
mod keys;
mod origins;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use cipherlm_protocol::{Code, JSON_BYTES, Problem, read_json};
use serde_json::json;

use crate::app::App;
use crate::auth::{Caller, Scope};
use crate::patience::Lingering;
use crate::receive;
use crate::refusal::of_own;
use answer::{Named, Refusal, authorise, digest, json_of};

type Shared = State<Arc<App>>;

/// The OpenAPI text.
const OPENAPI: &str = include_str!("../openapi.json");

/// All addresses.
pub(crate) fn router(app: &Arc<App>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(async || ([("content-type", "application/json")], OPENAPI)))
        .route("/v1/models", get(models))
        .route("/v1/limits", get(limits))
        .route("/v1/usage", get(usage))
        .route("/v1/tokens", post(tokens))
        .route("/v1/plans/{plan}", get(plan))
        .route("/v1/blobs/{hash}", get(blob))
        .route("/v1/keys/{key}", put(keys::announce).delete(keys::delete))
        .route("/v1/keys/{key}/{hash}", put(keys::upload).head(keys::there))
        .route("/v1/jobs/{job}", put(jobs::submit).get(jobs::show).delete(jobs::cancel))
        .route("/v1/jobs/{job}/events", get(jobs::events))
        .route("/v1/jobs/{job}/result", get(jobs::result))
        .fallback(async || Refusal(Problem::new(Code::NotFound, "no such address")))
        .method_not_allowed_fallback(async || Refusal(Problem::new(Code::Method, "another method")))
        .layer(from_fn_with_state(Arc::clone(app), origins::admit))
        .layer(from_fn_with_state(Arc::clone(app), watch))
        .with_state(Arc::clone(app))
}

/// Numbers, counts and notes every request; no header and no body is written down.
async fn watch(State(app): Shared, request: Request, next: Next) -> Response {
    let (method, clock) = (request.method().clone(), Instant::now());
    // Addresses hold hashes; anything else is cut off.
    let mut path = request.uri().path().to_owned();
    if !path.starts_with("/v1/") || path.len() > 160 {
        path = path.chars().take_while(char::is_ascii).take(24).collect();
    }
    let mut response = next.run(request.map(Lingering::body)).await;
    let mut id = [0u8; 8];
    // A request without a number is served all the same.
    let _ = getrandom::fill(&mut id);
    let id = u64::from_le_bytes(id);
    let problem = response.extensions_mut().remove::<Code>();
    if let Some(code) = problem {
        app.metrics.add(&format!("refused_total{{problem=\"{}\"}}", code.name()), 1.0);
    }
    app.metrics.add("requests_total", 1.0);
    app.journal.line(
        "request",
        json!({
            "request": format!("{id:016x}"),
            "method": method.as_str(),
            "path": path,
            "status": response.status().as_u16(),
            "problem": problem.map(Code::name),
            "seconds": clock.elapsed().as_secs_f64(),
        }),
    );
    if let Ok(value) = HeaderValue::from_str(&format!("{id:016x}")) {
        response.headers_mut().insert("x-request-id", value);
    }
    response
}

async fn ready(State(app): Shared) -> Result<&'static str, Refusal> {
    if app.jobs.is_stopping() {
        return Err(Problem::new(Code::Stopping, "no new jobs are taken").retry_after(30).into());
    }
    Ok("ready\n")
}

async fn metrics(State(app): Shared, headers: HeaderMap) -> Result<String, Refusal> {
    authorise(&app, &headers, Some(Scope::Admin))?;
    let (queued, running) = app.jobs.load();
    app.metrics.set("jobs{state=\"queued\"}", queued as f64);
    app.metrics.set("jobs{state=\"running\"}", running as f64);
    app.metrics.set("keys_stored_bytes", app.keys.bytes(None) as f64);
    Ok(app.metrics.text())
}

async fn models(State(app): Shared, headers: HeaderMap) -> Result<Response, Refusal> {
    authorise(&app, &headers, None)?;
    let client = &app.served.client;
    Ok(json_of(&json!({
        "models": [{"name": client.model.name, "plans": [client.plan], "profile": client.profile}]
    })))
}

async fn limits(State(app): Shared, headers: HeaderMap) -> Result<Response, Refusal> {
    authorise(&app, &headers, None)?;
    Ok(json_of(&app.config.limits))
}

async fn usage(State(app): Shared, headers: HeaderMap) -> Result<Response, Refusal> {
    let caller = authorise(&app, &headers, None)?;
    let (queued, running) = app.jobs.load();
    Ok(json_of(&json!({
        "tenant": caller.tenant,
        "key_bytes": app.keys.bytes(Some(&caller.tenant)),
        "queued": queued,
        "running": running,
    })))
}

/// Makes a token for a tenant.
async fn tokens(State(app): Shared, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    authorise(&app, &headers, Some(Scope::Admin))?;
    let body = receive::whole(&headers, body, JSON_BYTES as u64, &app.config.limits).await?;
    let caller: Caller = read_json(&body)?;
    let token = app.tokens.create(&app.store, caller).map_err(|e| of_own(&e))?;
    Ok((StatusCode::CREATED, json_of(&json!({ "token": token }))).into_response())
}

async fn plan(
    State(app): Shared,
    headers: HeaderMap,
    Named(plan): Named<String>,
) -> Result<Response, Refusal> {
    authorise(&app, &headers, None)?;
    if plan != app.served.client.plan {
        let problem = Problem::new(Code::PlanUnknown, "the server runs another plan");
        return Err(problem.with_plan(app.served.client.plan.as_str()).into());
    }
    Ok(([("content-type", "application/json")], app.served.client_json.clone()).into_response())
}

async fn blob(
    State(app): Shared,
    headers: HeaderMap,
    Named(hash): Named<String>,
) -> Result<Response, Refusal> {
    authorise(&app, &headers, None)?;
    let bytes = app.served.blob(digest(&hash)?);
    let bytes = bytes.ok_or_else(|| Problem::new(Code::NotFound, "no public file has this hash"))?;
    Ok(([("content-type", "application/octet-stream")], bytes).into_response())
}
