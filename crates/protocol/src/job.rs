//! Jobs as their owner sees them.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::problem::Problem;

/// Where a job stands. Exactly one of the last three is its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waiting for its turn.
    Queued,
    /// Its keys are read, or its steps run.
    Running,
    /// The answer is there.
    Done,
    /// It ended without an answer.
    Failed,
    /// Its owner gave it up.
    Cancelled,
}

impl JobState {
    /// Whether nothing will change any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// What `GET /v1/jobs/{job}` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    /// Hash of the prompt: the job's name.
    pub job: Digest,
    /// The plan.
    pub plan: String,
    /// The keys.
    pub key: Digest,
    /// Where it stands.
    pub state: JobState,
    /// The newest event, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// Length and hash of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<(u64, Digest)>,
}

/// One entry of a job's stream of events; the tag is the name of the event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Waiting.
    Queued {
        /// Jobs before it.
        position: usize,
        /// Seconds until it starts, as far as the server can tell.
        starts_in: f64,
    },
    /// Its keys are read into memory.
    Loading {
        /// Keys read.
        keys: usize,
        /// Keys in all.
        of: usize,
    },
    /// A step is about to run.
    Step {
        /// Its number.
        step: usize,
        /// Steps in all.
        steps: usize,
        /// Its name.
        name: String,
        /// The layer it belongs to.
        layer: Option<usize>,
        /// The level on which it lands.
        level: usize,
        /// Whether a bootstrap follows.
        refresh: bool,
        /// Seconds since the run began.
        elapsed: f64,
        /// Seconds that are left, as far as the server can tell.
        left: f64,
    },
    /// The answer is there.
    Done {
        /// Its length.
        bytes: u64,
        /// Its hash.
        blake3: Digest,
    },
    /// It ended without an answer.
    Failed {
        /// Why.
        problem: Problem,
    },
    /// Its owner gave it up.
    Cancelled,
}

impl Event {
    /// Its name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Loading { .. } => "loading",
            Self::Step { .. } => "step",
            Self::Done { .. } => "done",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the stream ends with it.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Failed { .. } | Self::Cancelled)
    }

    /// The event as one entry of an event stream, with its number for `Last-Event-ID`.
    pub fn to_stream(&self, id: u64) -> String {
        // Events are numbers and names: they have a JSON form.
        let data = serde_json::to_string(self).unwrap_or_default();
        format!("event: {}\nid: {id}\ndata: {data}\n\n", self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Code;

    #[test]
    fn events_survive_the_stream_and_end_once() {
        let step = Event::Step {
            step: 9,
            steps: 39,
            name: "layers.0.attn.out".into(),
            layer: Some(0),
            level: 3,
            refresh: false,
            elapsed: 6.75,
            left: 18.0,
        };
        let failed = Event::Failed { problem: Problem::new(Code::KeyIncomplete, "two of nine") };
        for (event, last) in [(step, false), (failed, true), (Event::Cancelled, true)] {
            let text = event.to_stream(17);
            let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
            assert_eq!(serde_json::from_str::<Event>(data).unwrap(), event);
            assert!(text.contains("\nid: 17\n") && text.ends_with("\n\n"));
            assert_eq!(event.is_final(), last);
        }
    }
}
