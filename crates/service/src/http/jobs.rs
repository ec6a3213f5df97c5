//! Jobs: submitting, watching, reading, giving up.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use cipherlm_files::{Access, Existing};
use cipherlm_infer::{Asked, EncryptedPrompt, check_position};
use cipherlm_protocol::{Code, Digest, JobState, Problem};
use http_body_util::channel::{Channel, Sender};

use super::answer::{Named, Refusal, authorise, digest, json_of, number, query};
use crate::app::{App, stopped};
use crate::auth::Scope;
use crate::job::{Job, Record};
use crate::receive;
use crate::refusal::of_prompt;
use crate::task::Task;

type Shared = State<Arc<App>>;

/// Time between two comments in a stream of events: what lies between may cut off silence.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Longest time that a question after a job may wait.
const LONGEST_WAIT: u64 = 60;

/// `PUT /v1/jobs/{job}?key=`: an encrypted prompt, named by its hash.
pub(super) async fn submit(
    State(app): Shared,
    headers: HeaderMap,
    Named(name): Named<String>,
    RawQuery(asked): RawQuery,
    body: Body,
) -> Result<Response, Refusal> {
    let caller = authorise(&app, &headers, Some(Scope::Jobs))?;
    let name = digest(&name)?;
    let [key, plan] = query(asked.as_deref(), ["key", "plan"])?;
    let key = key.ok_or_else(|| Problem::new(Code::Query, "?key= is missing"))?;
    let key = key.parse().map_err(|reason| Problem::new(Code::Query, format!("in ?key= {reason}")))?;
    if let Some(plan) = plan.filter(|plan| *plan != app.served.client.plan) {
        let problem =
            Problem::new(Code::PlanSuperseded, format!("the plan has {} characters, or others", plan.len()));
        return Err(problem.with_plan(app.served.client.plan.as_str()).into());
    }
    let length = receive::exactly(&headers, app.served.client.costs.prompt_bytes)?;
    app.keys.ensure_ready(&caller.tenant, key)?;
    // A job that is known is answered without its prompt.
    if let Ok(job) = app.jobs.find(&caller.tenant, name)
        && !matches!(job.state(), JobState::Failed | JobState::Cancelled)
    {
        return Ok(json_of(&job.view()));
    }
    app.jobs.ensure_room(&caller.tenant, &app.config.limits)?;
    let _turn = app.uploads.take(&caller.tenant).await;
    let prompt = receive::whole(&headers, body, length, &app.config.limits).await?;
    let shared = Arc::clone(&app);
    let taken =
        tokio::task::spawn_blocking(move || accept(&shared, &caller.tenant, key, name, &prompt)).await;
    let (job, new) = taken.map_err(|_| Problem::new(Code::Internal, "the request ended in a fault"))??;
    let status = if new { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, [(LOCATION, format!("/v1/jobs/{name}"))], json_of(&job.view())).into_response())
}

/// Checks a prompt and queues it.
fn accept(
    app: &App,
    tenant: &str,
    key: Digest,
    name: Digest,
    bytes: &[u8],
) -> Result<(Arc<Job>, bool), Problem> {
    if Digest::of(bytes) != name {
        return Err(Problem::new(Code::JobHash, "the prompt is not what its address says"));
    }
    let (params, rings) = (app.served.params(), &app.served.order.small);
    let prompt = EncryptedPrompt::from_bytes(params, rings, bytes).map_err(|e| of_prompt(&e))?;
    check(app, key, &prompt)?;
    let task = Task { tenant: tenant.to_owned(), job: name, key, plan: app.served.client.plan.clone() };
    app.jobs.submit(Record::new(task), &app.config.limits, |path| {
        if let Some(folder) = path.parent() {
            cipherlm_files::create_folder(folder)?;
        }
        Ok(cipherlm_files::write(path, bytes, Existing::Replace, Access::Owner)?)
    })
}

/// A prompt of another plan, key, level or form is refused while that is cheap.
fn check(app: &App, key: Digest, prompt: &EncryptedPrompt) -> Result<(), Problem> {
    let (client, params) = (&app.served.client, app.served.params());
    if prompt.plan != client.plan {
        let problem = Problem::new(Code::PlanMismatch, "the prompt was packed for another plan");
        return Err(problem.with_plan(client.plan.as_str()));
    }
    let (found, places) = (prompt.lengths.len(), client.layout.prompts);
    if found != places {
        return Err(Problem::new(Code::ObjectField, format!("{found} prompts, the plan takes {places}")));
    }
    for &length in &prompt.lengths {
        let most = client.layout.tokens;
        if !(1..=most).contains(&length) {
            let detail = format!("{length} tokens, the plan takes 1 to {most}");
            return Err(Problem::new(Code::ObjectField, detail));
        }
        if let Asked::Position(position) = prompt.asked
            && check_position(&client.answers, position, length).is_err()
        {
            let detail = format!("position {position} is asked for, of {length} tokens");
            return Err(Problem::new(Code::ObjectField, detail));
        }
    }
    if prompt.ciphertexts.len() != client.layout.vectors {
        let (found, expected) = (prompt.ciphertexts.len(), client.layout.vectors);
        return Err(Problem::new(
            Code::ObjectField,
            format!("{found} ciphertexts, the plan takes {expected}"),
        ));
    }
    // Prompts of a ring of their own are under the secret of the same root there: whether it is the
    // one that a key leads from is seen when the run begins.
    if Digest::from(*prompt.key_id.as_bytes()) != key {
        return Err(Problem::new(Code::KeyMismatch, "the prompt is encrypted under another key"));
    }
    let degree = if client.layout.degree > 0 { client.layout.degree } else { params.degree() };
    for ciphertext in &prompt.ciphertexts {
        let found = ciphertext.params().degree();
        if found != degree {
            let detail = format!("a ring of degree {found}, the plan takes {degree}");
            return Err(Problem::new(Code::ObjectField, detail));
        }
        let (level, expected) = (ciphertext.level(), client.layout.level);
        if level != expected {
            return Err(Problem::new(Code::ObjectField, format!("level {level}, the plan takes {expected}")));
        }
        if ciphertext.parts().len() != 2 || ciphertext.slots() != degree / 2 {
            return Err(Problem::new(Code::ObjectField, "a ciphertext has other parts or slots"));
        }
    }
    Ok(())
}

/// `GET /v1/jobs/{job}?wait=`: where a job stands; with `wait`, after its next event.
pub(super) async fn show(
    State(app): Shared,
    headers: HeaderMap,
    Named(name): Named<String>,
    RawQuery(asked): RawQuery,
) -> Result<Response, Refusal> {
    let caller = authorise(&app, &headers, Some(Scope::Jobs))?;
    let job = app.jobs.find(&caller.tenant, digest(&name)?)?;
    let [wait] = query(asked.as_deref(), ["wait"])?;
    let wait = wait.map(|seconds| number("wait", seconds, LONGEST_WAIT)).transpose()?;
    if let Some(seconds) = wait.filter(|_| !job.state().is_final()) {
        let (mut changed, mut stop) = (job.events.watch(), app.stop.subscribe());
        let limit = Duration::from_secs(seconds);
        tokio::select! {
            _ = changed.changed() => {}
            () = stopped(&mut stop) => {}
            () = tokio::time::sleep(limit) => {}
        }
    }
    Ok(json_of(&job.view()))
}

/// `GET /v1/jobs/{job}/events`: the events as they come, from the one after `Last-Event-ID` on.
pub(super) async fn events(
    State(app): Shared,
    headers: HeaderMap,
    Named(name): Named<String>,
) -> Result<Response, Refusal> {
    let caller = authorise(&app, &headers, Some(Scope::Jobs))?;
    let job = app.jobs.find(&caller.tenant, digest(&name)?)?;
    let last = headers.get("last-event-id").map(|id| id.to_str().unwrap_or_default());
    let last = last.map(|id| number("Last-Event-ID", id, u64::MAX)).transpose()?.unwrap_or(0);
    let (send, stream) = Channel::<Bytes>::new(16);
    let shared = Arc::clone(&app);
    tokio::spawn(async move { tell(&shared, &job, last, send).await });
    let head = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((head, Body::new(stream)).into_response())
}

/// Writes events until the job ends, the reader leaves or the server stops.
async fn tell(app: &App, job: &Job, mut last: u64, mut send: Sender<Bytes>) {
    let (mut changed, mut stop) = (job.events.watch(), app.stop.subscribe());
    if job.events.newest().is_none() && job.state().is_final() {
        // It ended before this process began.
        let view = job.view();
        let end = match (view.result, view.problem) {
            (Some((bytes, blake3)), _) => cipherlm_protocol::Event::Done { bytes, blake3 },
            (_, Some(problem)) => cipherlm_protocol::Event::Failed { problem },
            _ => cipherlm_protocol::Event::Cancelled,
        };
        let _ = send.send_data(Bytes::from(end.to_stream(last + 1))).await;
        return;
    }
    loop {
        changed.borrow_and_update();
        for (id, event) in job.events.after(last) {
            last = id;
            if send.send_data(Bytes::from(event.to_stream(id))).await.is_err() || event.is_final() {
                return;
            }
        }
        tokio::select! {
            _ = changed.changed() => {}
            () = stopped(&mut stop) => return,
            () = tokio::time::sleep(KEEP_ALIVE) => {
                if send.send_data(Bytes::from_static(b": keep-alive\n\n")).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// `GET /v1/jobs/{job}/result`: the encrypted answer.
pub(super) async fn result(
    State(app): Shared,
    headers: HeaderMap,
    Named(name): Named<String>,
) -> Result<Response, Refusal> {
    let caller = authorise(&app, &headers, Some(Scope::Jobs))?;
    let job = app.jobs.find(&caller.tenant, digest(&name)?)?;
    let unfinished = || Problem::new(Code::JobUnfinished, format!("the job is {:?}", job.state()));
    let (bytes, hash) = job.result().ok_or_else(unfinished)?;
    let path = app.depot.answer(&job.task);
    let read = tokio::task::spawn_blocking(move || cipherlm_files::read(&path, bytes)).await;
    let whole = read.ok().and_then(Result::ok).filter(|answer| Digest::of(answer) == hash);
    let answer = whole.ok_or_else(|| Problem::new(Code::Internal, "the stored answer is damaged"))?;
    let head = [(CONTENT_TYPE, "application/octet-stream".to_owned()), (ETAG, format!("\"{hash}\""))];
    Ok((head, answer).into_response())
}

/// `DELETE /v1/jobs/{job}`: gives a job up, or forgets one that has ended.
pub(super) async fn cancel(
    State(app): Shared,
    headers: HeaderMap,
    Named(name): Named<String>,
) -> Result<StatusCode, Refusal> {
    let caller = authorise(&app, &headers, Some(Scope::Jobs))?;
    let job = app.jobs.find(&caller.tenant, digest(&name)?)?;
    let done = tokio::task::spawn_blocking(move || {
        if job.state().is_final() { app.jobs.forget(&job) } else { app.jobs.cancel(&job) }
    });
    match done.await {
        Ok(Ok(())) => Ok(StatusCode::NO_CONTENT),
        _ => Err(Problem::new(Code::Internal, "a record could not be kept").into()),
    }
}
