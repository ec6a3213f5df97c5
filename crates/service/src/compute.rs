//! The thread that computes: one job at a time, outside of everything that waits for a network.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use cipherlm_circuits::slots::Encrypted;
use cipherlm_ckks::KeyStore;
use cipherlm_files::{Access, Existing};
use cipherlm_infer::{Checkpoints, EncryptedPrompt, InferError, Progress, Server};
use cipherlm_protocol::{Code, Digest, Event, Problem};
use serde_json::json;

use crate::app::App;
use crate::jobs::Job;
use crate::refusal::{of_own, of_run};

/// A client's keys, ready for use.
type Loaded = (String, Digest, Server<Arc<KeyStore>>);

/// How a run came to its end.
enum Outcome {
    /// For good.
    Ended(Event),
    /// The server stops: the job goes on at its next start.
    Interrupted,
}

/// Works until the server stops.
pub(crate) fn work(app: &App) {
    let mut resident: Option<Loaded> = None;
    while let Some(job) = app.jobs.take() {
        let clock = Instant::now();
        // A fault in a step must not end the server.
        let run = catch_unwind(AssertUnwindSafe(|| attempt(app, &job, &mut resident)));
        let outcome = run.unwrap_or_else(|_| {
            resident = None;
            Outcome::Ended(Event::Failed {
                problem: Problem::new(Code::Internal, "the run ended in a fault"),
            })
        });
        let Outcome::Ended(event) = outcome else {
            app.journal.line("interrupted", json!({"job": job.name, "tenant": job.tenant}));
            return;
        };
        let seconds = clock.elapsed().as_secs_f64();
        app.metrics.add(&format!("jobs_total{{state=\"{}\"}}", event.name()), 1.0);
        app.metrics.add("job_seconds_sum", seconds);
        let done = matches!(event, Event::Done { .. });
        let facts = json!({"job": job.name, "tenant": job.tenant, "end": event.name(), "seconds": seconds});
        app.journal.line("job", facts);
        if let Event::Failed { problem } = &event
            && problem.code() == Some(Code::KeyDamaged)
        {
            resident = None;
            app.keys.sweep_damaged(&job.tenant, job.key);
        }
        if let Err(error) = app.jobs.finished(&job, &event, done.then_some(seconds)) {
            app.journal.line("record", json!({"error": error.to_string()}));
        }
    }
}

fn attempt(app: &App, job: &Arc<Job>, resident: &mut Option<Loaded>) -> Outcome {
    if job.cancelled.load(Ordering::Relaxed) {
        return Outcome::Ended(Event::Cancelled);
    }
    if let Err(error) = app.jobs.started(job) {
        return Outcome::Ended(Event::Failed { problem: of_own(&error) });
    }
    let failed = |problem| Outcome::Ended(Event::Failed { problem });
    match run(app, job, resident) {
        Ok(answer) => match keep(job, &answer) {
            Ok(event) => Outcome::Ended(event),
            Err(problem) => failed(problem),
        },
        Err(InferError::Stopped { .. }) if job.cancelled.load(Ordering::Relaxed) => {
            Outcome::Ended(Event::Cancelled)
        }
        Err(InferError::Stopped { .. }) => Outcome::Interrupted,
        Err(error) => failed(of_run(&error)),
    }
}

/// The answer, on disk before anybody hears of it.
fn keep(job: &Job, answer: &[u8]) -> Result<Event, Problem> {
    cipherlm_files::write(&job.answer(), answer, Existing::Replace, Access::Owner)
        .map_err(|error| of_own(&error.into()))?;
    Ok(Event::Done { bytes: answer.len() as u64, blake3: Digest::of(answer) })
}

fn run(app: &App, job: &Arc<Job>, resident: &mut Option<Loaded>) -> Result<Vec<u8>, InferError> {
    let served = &app.served;
    let bytes = cipherlm_files::read(&job.prompt(), served.client.costs.prompt_bytes)?;
    let prompt = EncryptedPrompt::from_bytes(served.params(), &bytes)?;
    drop(bytes);
    if !resident.as_ref().is_some_and(|(tenant, key, _)| *tenant == job.tenant && *key == job.key) {
        // The old keys go before the new ones come.
        *resident = None;
        *resident = Some((job.tenant.clone(), job.key, load(app, job)?));
    }
    let Some((_, _, server)) = resident else { return Err(stopped()) };
    let mut observer = |progress: &Progress<'_>| {
        job.events.push(Event::Step {
            step: progress.step,
            steps: progress.steps,
            name: progress.name.to_owned(),
            layer: progress.layer,
            level: progress.level,
            refresh: progress.refresh,
            elapsed: progress.elapsed.as_secs_f64(),
            left: progress.left.as_secs_f64(),
        });
        !job.cancelled.load(Ordering::Relaxed) && !app.jobs.is_stopping()
    };
    let mut kept = Checkpoints::new(&job.steps(), app.config.checkpoint_after, &mut observer)?;
    Ok(server.run(&served.plan, prompt, &mut kept)?.to_bytes())
}

/// Reads and checks a client's keys.
fn load(app: &App, job: &Job) -> Result<Server<Arc<KeyStore>>, InferError> {
    let (served, clock) = (&app.served, Instant::now());
    let folder = app.keys.folder(&job.tenant, job.key);
    let (store, key_id) = served.order.open(&folder, served.params(), app.config.key_memory)?;
    let of = store.len();
    let slots = |error: cipherlm_ckks::Error| InferError::Slots {
        node: "evaluation keys".into(),
        source: error.into(),
    };
    store
        .preload(|keys| {
            if keys.is_multiple_of(8) {
                job.events.push(Event::Loading { keys, of });
            }
        })
        .map_err(slots)?;
    app.metrics.set("keys_resident_bytes", store.resident_bytes() as f64);
    app.metrics.add("keys_load_seconds_sum", clock.elapsed().as_secs_f64());
    let store = Arc::new(store);
    let refresher = served.circuits.refresher(&store)?;
    let machine = Encrypted::new(served.params(), key_id, store)
        .map_err(|source| InferError::Slots { node: "evaluation keys".into(), source })?;
    let machine = machine.with_refresher(refresher);
    Ok(Server::new(machine.map_err(|source| InferError::Slots { node: "evaluation keys".into(), source })?))
}

fn stopped() -> InferError {
    InferError::Stopped { step: 0, steps: 0 }
}
