//! Jobs: an encrypted prompt on its way to an answer.

use crate::refusal::{Refusal, Result};
use crate::watch::{PAUSE, fault};
use cipherlm_protocol::{Digest, Event};
use pyo3::exceptions::PyTimeoutError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// An encrypted prompt, for a server.
#[pyclass(frozen, module = "cipherlm")]
pub(crate) struct Prompt {
    pub(crate) bytes: Arc<Vec<u8>>,
    pub(crate) plan: String,
    pub(crate) key: String,
    pub(crate) length: usize,
}

#[pymethods]
impl Prompt {
    /// Its bytes, as `cipherlm run` reads them.
    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.bytes)
    }

    /// Identity of its plan.
    #[getter]
    fn plan(&self) -> &str {
        &self.plan
    }

    /// Identity of the secret that it is encrypted under.
    #[getter]
    fn key_id(&self) -> &str {
        &self.key
    }

    /// Tokens that it has, which is public.
    #[getter]
    fn length(&self) -> usize {
        self.length
    }

    fn __len__(&self) -> usize {
        self.bytes.len()
    }

    fn __repr__(&self) -> String {
        format!("<cipherlm.Prompt of {} tokens, {} bytes>", self.length, self.bytes.len())
    }
}

/// An encrypted answer, for the client whose prompt it answers.
#[pyclass(frozen, module = "cipherlm")]
pub(crate) struct Answer {
    pub(crate) bytes: Arc<Vec<u8>>,
}

#[pymethods]
impl Answer {
    /// An answer from its bytes, as `cipherlm run` wrote them.
    #[staticmethod]
    fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { bytes: Arc::new(bytes) }
    }

    /// Its bytes.
    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.bytes)
    }

    fn __len__(&self) -> usize {
        self.bytes.len()
    }

    fn __repr__(&self) -> String {
        format!("<cipherlm.Answer, {} bytes, encrypted>", self.bytes.len())
    }
}

/// What the worker of a job and those who wait for it share.
#[derive(Default)]
pub(crate) struct Course {
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
    /// Wakes a worker that waits for a server.
    stopped: tokio::sync::Notify,
}

#[derive(Default)]
struct State {
    /// As JSON, one an event.
    events: Vec<String>,
    status: &'static str,
    end: Option<Result<Arc<Vec<u8>>>>,
}

impl Course {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the job is to stop.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Until the job is to stop.
    pub(crate) async fn stopped(&self) {
        self.stopped.notified().await;
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.stopped.notify_one();
    }

    /// Another event; how the job ended is told by [`Course::end`] alone.
    pub(crate) fn tell(&self, event: &Event) {
        let status = match event {
            Event::Queued { .. } => "queued",
            Event::Loading { .. } => "loading",
            Event::Step { .. } => "running",
            _ => return,
        };
        // Events are numbers and names: they have a JSON form.
        self.push(serde_json::to_value(event).unwrap_or_default(), status, None);
    }

    fn end(&self, found: Result<Vec<u8>>) {
        let (event, status) = match &found {
            Ok(bytes) => {
                let blake3 = Digest::of(bytes).to_string();
                (json!({"event": "done", "bytes": bytes.len(), "blake3": blake3}), "done")
            }
            Err(refusal) if refusal.class == "Cancelled" => (json!({"event": "cancelled"}), "cancelled"),
            Err(refusal) => (json!({"event": "failed", "error": refusal.text}), "failed"),
        };
        self.push(event, status, Some(found.map(Arc::new)));
    }

    fn push(&self, event: Value, status: &'static str, end: Option<Result<Arc<Vec<u8>>>>) {
        let mut state = self.state();
        state.events.push(event.to_string());
        state.status = status;
        state.end = end;
        drop(state);
        self.changed.notify_all();
    }

    /// Waits a moment for `ready`.
    fn glance<T>(&self, pause: Duration, ready: impl Fn(&State) -> Option<T>) -> Option<T> {
        let state = self.state();
        if let Some(found) = ready(&state) {
            return Some(found);
        }
        let (state, _) = self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner);
        ready(&state)
    }

    /// Waits for `ready`, while Python goes on. `None` after the last moment.
    fn wait<T: Send>(
        &self,
        py: Python<'_>,
        last: Option<Instant>,
        ready: impl Fn(&State) -> Option<T> + Sync,
    ) -> PyResult<Option<T>> {
        loop {
            let left = last.map_or(PAUSE, |last| last.saturating_duration_since(Instant::now()).min(PAUSE));
            if let Some(found) = py.detach(|| self.glance(left, &ready)) {
                return Ok(Some(found));
            }
            py.check_signals()?;
            if left.is_zero() {
                return Ok(None);
            }
        }
    }
}

/// An encrypted prompt that a server works on. `await` gives its answer as `result` does.
///
/// A job that nobody holds any more is cancelled.
#[pyclass(frozen, module = "cipherlm")]
pub(crate) struct Job {
    course: Arc<Course>,
}

impl Job {
    /// Begins the work on a thread of its own, which knows nothing of Python.
    pub(crate) fn begin(work: impl FnOnce(&Course) -> Result<Vec<u8>> + Send + 'static) -> Self {
        let course = Arc::new(Course::default());
        course.state().status = "queued";
        let own = Arc::clone(&course);
        std::thread::spawn(move || {
            let found = catch_unwind(AssertUnwindSafe(|| work(&own)));
            own.end(found.unwrap_or_else(|panic| Err(fault(panic.as_ref()))));
        });
        Self { course }
    }

    /// Waits for the answer.
    pub(crate) fn answer(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Answer> {
        let last = timeout.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default());
        let last = last.and_then(|timeout| Instant::now().checked_add(timeout));
        let found = self.course.wait(py, last, |state| state.end.clone());
        match found {
            Ok(Some(found)) => Ok(Answer { bytes: found? }),
            Ok(None) => Err(PyTimeoutError::new_err("the job goes on: wait longer, or cancel it")),
            Err(interrupt) => {
                self.course.stop();
                Err(interrupt)
            }
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.course.stop();
    }
}

#[pymethods]
impl Job {
    /// Where it stands: `queued`, `loading`, `running`, `done`, `failed` or `cancelled`.
    #[getter]
    fn status(&self) -> &'static str {
        self.course.state().status
    }

    /// Every event from the beginning, as dictionaries, to the end of the job.
    fn events(slf: Bound<'_, Self>) -> Events {
        Events { job: slf.unbind(), next: Mutex::new(0) }
    }

    /// Gives the job up: it stops before its next step.
    fn cancel(&self) {
        self.course.stop();
    }

    /// Waits for the encrypted answer, at most `timeout` seconds. Ctrl-C gives the job up.
    #[pyo3(signature = (timeout = None))]
    fn result(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Answer> {
        self.answer(py, timeout)
    }

    fn __await__<'py>(slf: Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let wait = slf.py().import("cipherlm._wait")?;
        wait.call_method1("result", (slf,))?.call_method0("__await__")
    }

    fn __repr__(&self) -> String {
        format!("<cipherlm.Job {}>", self.status())
    }
}

/// The events of a job, one after the other.
#[pyclass(frozen, module = "cipherlm._cipherlm")]
pub(crate) struct Events {
    job: Py<Job>,
    next: Mutex<usize>,
}

#[pymethods]
impl Events {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let at = *self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let course = &self.job.get().course;
        // Either another event, or the end after the last one.
        let ready = |state: &State| match state.events.get(at) {
            Some(event) => Some(Some(event.clone())),
            None => state.end.as_ref().map(|_| None),
        };
        let Some(Some(event)) = course.wait(py, None, ready)? else { return Ok(None) };
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = at + 1;
        Ok(Some(py.import("json")?.call_method1("loads", (event,))?))
    }
}

/// A cancelled job.
pub(crate) fn cancelled() -> Refusal {
    Refusal::new("Cancelled", "the job was cancelled: submit it again")
}
