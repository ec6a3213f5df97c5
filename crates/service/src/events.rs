//! A job's events: kept from its first to its last, so that a reader who lost the line goes on.

use std::sync::{Mutex, PoisonError};

use cipherlm_protocol::Event;
use tokio::sync::watch;

/// Events that are kept: more than any plan has steps.
const KEPT: usize = 4096;

/// Numbered events of one job.
pub(crate) struct Events {
    list: Mutex<Vec<(u64, Event)>>,
    last: watch::Sender<u64>,
}

impl Events {
    /// Events that go on after those of `restarts` earlier processes.
    pub(crate) fn new(restarts: u64) -> Self {
        Self { list: Mutex::new(vec![]), last: watch::Sender::new(restarts << 20) }
    }

    pub(crate) fn push(&self, event: Event) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() == KEPT {
            list.remove(0);
        }
        let id = *self.last.borrow() + 1;
        list.push((id, event));
        self.last.send_replace(id);
    }

    /// Those after the one of that number.
    pub(crate) fn after(&self, id: u64) -> Vec<(u64, Event)> {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.iter().filter(|(known, _)| *known > id).cloned().collect()
    }

    pub(crate) fn newest(&self) -> Option<Event> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).last().map(|(_, event)| event.clone())
    }

    /// Tells of every new event.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_goes_on_where_it_stopped_and_after_a_restart() {
        let loading = |keys| Event::Loading { keys, of: 9 };
        let events = Events::new(0);
        (0..3).for_each(|n| events.push(loading(n)));
        let seen = events.after(0);
        assert_eq!(events.after(seen[1].0), seen[2..]);
        let again = Events::new(1);
        again.push(loading(7));
        assert_eq!(again.after(seen[2].0).len(), 1, "numbers grow over restarts");
        (0..2 * KEPT).for_each(|n| again.push(loading(n)));
        assert_eq!(again.after(0).len(), KEPT);
    }
}
