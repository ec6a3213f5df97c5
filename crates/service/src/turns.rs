//! Turns at sending: bodies that are on their way hold memory and threads, and slow ones hold them
//! for long, which must not be at the cost of other tenants.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bodies on their way at a time, of one tenant and of all.
const OWN: usize = 4;
const ALL: usize = 64;

/// Who may send.
pub(crate) struct Turns {
    all: Arc<Semaphore>,
    own: Mutex<BTreeMap<String, Arc<Semaphore>>>,
}

/// A turn, until it is dropped.
pub(crate) struct Turn {
    _own: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(ALL)), own: Mutex::default() }
    }
}

impl Turns {
    /// Waits for a turn of the tenant.
    pub(crate) async fn take(&self, tenant: &str) -> Turn {
        let own = {
            let mut known = self.own.lock().unwrap_or_else(PoisonError::into_inner);
            // Tenants of whom nobody sends are forgotten.
            known.retain(|_, turns| Arc::strong_count(turns) > 1);
            Arc::clone(known.entry(tenant.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(OWN))))
        };
        // Neither is ever closed. Who waits for its own turn holds none of all.
        let own = own.acquire_owned().await.ok();
        Turn { _own: own, _all: Arc::clone(&self.all).acquire_owned().await.ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_tenant_that_is_slow_keeps_nobody_else_waiting() {
        let turns = Turns::default();
        let soon = |tenant: &'static str| tokio::time::timeout(Duration::from_millis(50), turns.take(tenant));
        let mut slow = vec![];
        for _ in 0..OWN {
            slow.push(soon("slow").await.unwrap());
        }
        assert!(soon("slow").await.is_err(), "it has all its turns");
        drop(soon("other").await.unwrap());
        assert_eq!(turns.own.lock().unwrap().len(), 2);
        slow.pop();
        drop(soon("slow").await.unwrap());
        drop(slow);
        drop(soon("third").await.unwrap());
        assert_eq!(turns.own.lock().unwrap().len(), 1, "those who send nothing are forgotten");
    }
}
