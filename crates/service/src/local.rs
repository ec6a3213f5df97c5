//! The transport within one process: a server that computes by itself needs no other program.

use std::sync::Arc;
use std::time::Duration;

use cipherlm_protocol::Event;
use serde_json::json;

use crate::app::App;
use crate::job::Job;
use crate::jobs::HERE;
use crate::task::Task;
use crate::transport::{End, Lease, Next, Resident, Spent, Transport, Wish};

/// The server's own queue.
pub(crate) struct Local(pub(crate) Arc<App>);

impl Transport for Local {
    type Lease = Held;

    fn next(&mut self, resident: &Resident) -> Next<Held> {
        match self.0.jobs.take(resident) {
            Next::Task(job) => Next::Task(Held { app: Arc::clone(&self.0), job }),
            Next::Rest => {
                self.0.metrics.set("keys_resident_bytes", 0.0);
                Next::Rest
            }
            Next::Stop => Next::Stop,
        }
    }
}

/// A job of the server's own worker.
pub(crate) struct Held {
    app: Arc<App>,
    job: Arc<Job>,
}

impl Lease for Held {
    fn task(&self) -> &Task {
        &self.job.task
    }

    fn tell(&self, event: Event) {
        self.app.jobs.tell(&self.job, HERE, event);
    }

    fn wish(&self) -> Wish {
        let wish = self.app.jobs.alive(&self.job, HERE);
        if wish == Wish::GoOn && self.app.jobs.is_stopping() { Wish::Leave } else { wish }
    }

    fn end(self, end: End, spent: Spent) {
        // While the disk takes no record, the end waits for one.
        while let Err(error) = self.app.settle(&self.job, HERE, &end, spent) {
            self.app.journal.line("record", json!({"error": error.to_string()}));
            if self.app.jobs.is_stopping() {
                return;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}
