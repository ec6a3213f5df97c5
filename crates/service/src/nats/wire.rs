//! What servers and workers say to each other: names and numbers, nothing of a prompt.

use std::path::Path;
use std::time::Duration;

use cipherlm_files::{Access, Existing};
use cipherlm_protocol::{Digest, Event};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::transport::{Spent, Wish};

/// A worker to the server, about one job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Call {
    pub(super) worker: String,
    pub(super) tenant: String,
    pub(super) job: Digest,
    pub(super) say: Say,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Say {
    /// May I begin?
    Begin,
    /// I am at it.
    Alive,
    /// I am as far as this.
    Tell(Event),
    /// It has ended; an answer is on disk.
    End(Event, Spent),
    /// It ended in a fault.
    Fault(Spent),
    /// I leave it to others.
    Left(Spent),
}

/// The server's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// Work.
    GoOn,
    /// Its owner gave it up.
    GiveUp,
    /// It is another's, or has ended.
    Leave,
    /// Another has it now; that one may fail.
    Busy,
    /// What was said is written down.
    Written,
    /// A record could not be kept: say it again.
    Again,
}

impl From<Wish> for Answer {
    fn from(wish: Wish) -> Self {
        match wish {
            Wish::GoOn => Self::GoOn,
            Wish::GiveUp => Self::GiveUp,
            Wish::Leave => Self::Leave,
        }
    }
}

/// A worker to all: that it lives, and which keys it has in memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hello {
    pub(super) worker: String,
    pub(super) keys: Vec<Digest>,
}

/// What a server lays down for its workers.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// A worker that has been silent for so long has lost its job.
    pub lease: Duration,
    /// NATS servers that hold each message.
    pub replicas: usize,
}

/// What a server leaves in its folder for its workers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Introduction {
    /// Part of every subject: several servers may share a NATS.
    pub(super) instance: String,
    /// The plan that it serves.
    pub(super) plan: String,
    /// The version of the program: answers of another may differ.
    pub(super) version: String,
    /// Seconds of silence after which a worker has lost its job.
    pub(super) lease: f64,
    /// NATS servers that hold each message.
    pub(super) replicas: usize,
}

/// Name and largest size of the introduction.
const INTRODUCTION: (&str, u64) = ("workers.json", 4096);

impl Introduction {
    pub(super) fn terms(&self) -> Terms {
        let lease = Duration::try_from_secs_f64(self.lease.clamp(0.1, 86400.0)).unwrap_or_default();
        Terms { lease, replicas: self.replicas }
    }

    /// Reads what a server left.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let file = folder.join(INTRODUCTION.0);
        let bytes = cipherlm_files::read(&file, INTRODUCTION.1)?;
        let plain = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric());
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(found) if plain(&found.instance) && plain(&found.plan) => Ok(found),
            _ => Err(Error::Introduction { path: file }),
        }
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        let file = folder.join(INTRODUCTION.0);
        Ok(cipherlm_files::write(&file, &bytes, Existing::Replace, Access::Everyone)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard() {
        let (bytes, blake3) = (7, Digest::of(b"answer"));
        let spent = Spent { seconds: 1.5, load_seconds: 0.5, resident_bytes: 9 };
        for say in [Say::Begin, Say::End(Event::Done { bytes, blake3 }, spent), Say::Tell(Event::Cancelled)] {
            let call = Call { worker: "w".into(), tenant: "t".into(), job: Digest::of(b"job"), say };
            let text = serde_json::to_vec(&call).unwrap();
            assert_eq!(serde_json::from_slice::<Call>(&text).unwrap(), call);
        }
    }
}
