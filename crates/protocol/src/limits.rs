//! What a server takes, told to its clients.

use serde::{Deserialize, Serialize};

use crate::problem::{Code, Problem};

/// A day, and more years than a server lives, in seconds.
const DAY: u64 = 86400;
const AGES: u64 = 100 * 366 * DAY;

/// Bounds of a server; `GET /v1/limits` shows them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at a time, of all clients.
    pub connections: usize,
    /// Queued and running jobs of one tenant.
    pub jobs_per_tenant: usize,
    /// Queued jobs of all tenants.
    pub queue: usize,
    /// Bytes of keys that one tenant may keep.
    pub key_bytes_per_tenant: u64,
    /// Seconds until the head of a request has to be there, and the TLS handshake done.
    pub head_seconds: u64,
    /// Slowest body that is waited for, in bytes a second.
    pub body_bytes_per_second: u64,
    /// Seconds after which a client that takes nothing of an answer is left.
    pub stall_seconds: u64,
    /// Seconds that a finished job and its result are kept.
    pub result_seconds: u64,
    /// Seconds after their last use that keys are kept.
    pub key_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            jobs_per_tenant: 5,
            queue: 32,
            key_bytes_per_tenant: 16 << 30,
            head_seconds: 10,
            body_bytes_per_second: 32 << 10,
            stall_seconds: 60,
            result_seconds: 3600,
            key_seconds: 30 * DAY,
        }
    }
}

impl Limits {
    /// Checks that a server can work within these bounds.
    ///
    /// # Errors
    /// `json/field` for the first that it cannot.
    pub fn check(&self) -> Result<(), Problem> {
        for (name, found, most) in [
            ("connections", self.connections as u64, 1 << 16),
            ("jobs_per_tenant", self.jobs_per_tenant as u64, 1 << 20),
            ("queue", self.queue as u64, 1 << 20),
            ("key_bytes_per_tenant", self.key_bytes_per_tenant, u64::MAX),
            ("head_seconds", self.head_seconds, DAY),
            ("body_bytes_per_second", self.body_bytes_per_second, u64::MAX),
            ("stall_seconds", self.stall_seconds, DAY),
            ("result_seconds", self.result_seconds, AGES),
            ("key_seconds", self.key_seconds, AGES),
        ] {
            if !(1..=most).contains(&found) {
                return Err(Problem::new(Code::JsonField, format!("{name} is {found}: 1 to {most}")));
            }
        }
        Ok(())
    }

    /// Seconds within which a body of that length has to be there.
    pub fn body_seconds(&self, bytes: u64) -> u64 {
        self.head_seconds.saturating_add(bytes / self.body_bytes_per_second.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_in_which_nothing_can_be_served_are_refused() {
        assert_eq!(Limits::default().check(), Ok(()));
        let of = |text: &str| crate::read_json::<Limits>(text.as_bytes()).and_then(|limits| limits.check());
        for name in
            ["connections", "queue", "jobs_per_tenant", "head_seconds", "stall_seconds", "key_seconds"]
        {
            let said = of(&format!("{{\"{name}\": 0}}")).unwrap_err();
            assert!(said.detail.contains(name), "{said}");
            assert_eq!(of(&format!("{{\"{name}\": 7}}")), Ok(()));
            assert!(of(&format!("{{\"{name}\": {}}}", u64::MAX)).is_err(), "{name}");
            assert!(of(&format!("{{\"{name}\": -1}}")).is_err(), "{name}");
        }
    }
}
