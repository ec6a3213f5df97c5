//! What a server takes, told to its clients.

use serde::{Deserialize, Serialize};

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
            result_seconds: 3600,
            key_seconds: 30 * 86400,
        }
    }
}

impl Limits {
    /// Seconds within which a body of that length has to be there.
    pub fn body_seconds(&self, bytes: u64) -> u64 {
        self.head_seconds.saturating_add(bytes / self.body_bytes_per_second.max(1))
    }
}
