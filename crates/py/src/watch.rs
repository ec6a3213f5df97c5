//! Long work beside Python: the interpreter is free meanwhile, a callback hears how far it is, and
//! Ctrl-C stops it between two steps.

use crate::refusal::{Refusal, Result};
use cipherlm_protocol::Code;
use pyo3::prelude::*;
use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// How long a signal may go unseen.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// The worker's end.
pub(crate) struct Watch {
    /// `None` when the work has ended.
    told: Sender<Option<(u64, u64)>>,
    stop: AtomicBool,
}

impl Watch {
    /// Says how far the work is; false where it is to stop.
    pub(crate) fn tell(&self, done: u64, all: u64) -> bool {
        // Nobody listens once the work is given up.
        let _ = self.told.send(Some((done, all)));
        !self.is_stopped()
    }

    /// Whether the work is to stop.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Does the work on a thread of its own. `progress` is called with two numbers, what is done and
/// what there is; an exception that it raises stops the work and is raised here.
pub(crate) fn watched<T: Send>(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&Watch) -> Result<T> + Send,
) -> PyResult<T> {
    let (told, mut heard) = channel();
    let watch = Watch { told, stop: AtomicBool::new(false) };
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let done = work(&watch);
            let _ = watch.told.send(None);
            done
        });
        let mut raised = None;
        loop {
            let heard = &mut heard;
            let message = py.detach(move || heard.recv_timeout(PAUSE));
            let (end, at) = match message {
                Ok(message) => (message.is_none(), message),
                Err(RecvTimeoutError::Timeout) => (worker.is_finished(), None),
                Err(RecvTimeoutError::Disconnected) => (true, None),
            };
            if raised.is_none() {
                let called = match (progress, at) {
                    (Some(progress), Some(at)) => progress.call1(at).map(drop),
                    _ => Ok(()),
                };
                if let Err(error) = called.and_then(|()| py.check_signals()) {
                    watch.stop.store(true, Ordering::Relaxed);
                    raised = Some(error);
                }
            }
            if end {
                break;
            }
        }
        let done = worker.join().unwrap_or_else(|panic| Err(fault(panic.as_ref())));
        match raised {
            Some(error) => Err(error),
            None => Ok(done?),
        }
    })
}

/// A fault of ours, as an error.
pub(crate) fn fault(panic: &(dyn Any + Send)) -> Refusal {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no more is known");
    Refusal::coded(Code::Internal, format!("a fault of this library, please report it: {said}"))
}
