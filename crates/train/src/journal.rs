//! The log of a run: one JSON object a line, whole lines only.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepStats {
    /// Steps done, this one included.
    pub step: usize,
    /// Cross-entropy in nats per token.
    pub loss: f64,
    /// Range loss before its weight, 0 without.
    pub range_loss: f64,
    /// Gradient norm before clipping.
    pub norm: f64,
    /// Learning rate.
    pub rate: f64,
}

/// A line of the log, and what a progress display gets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Progress {
    /// Name of the run.
    pub run: String,
    /// Last step.
    #[serde(flatten)]
    pub stats: StepStats,
    /// Steps in all.
    pub steps: usize,
    /// Training tokens per second since the previous line.
    pub tokens_per_second: f64,
    /// Seconds until the end at that speed.
    pub seconds_left: f64,
    /// Held-out nats per token, where this line follows an evaluation.
    pub held_out: Option<f64>,
}

/// Something that went otherwise than planned.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Note {
    /// Name of the run.
    pub run: String,
    /// Steps done.
    pub step: usize,
    /// What happened, and what was done about it.
    pub note: String,
}

/// A line of the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Event {
    /// A step, where it is logged.
    Step(Progress),
    /// A note.
    Note(Note),
}

/// Appends an event.
pub(crate) fn append(path: &Path, event: &Event) -> Result<()> {
    let line = serde_json::to_string(event)?;
    Ok(cipherlm_files::append(path, &line)?)
}

/// All steps of a log, in order; of a step logged twice (before and after a resume) the later line.
/// A missing file is an empty log; lines that a crash cut short are left out.
pub(crate) fn steps(path: &Path) -> Result<Vec<Progress>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let mut out: Vec<Progress> = Vec::new();
    for line in cipherlm_files::read_text(path, 1 << 32)?.lines() {
        // An event is told by its fields, so a cut line and a foreign one look alike to the
        // enumeration: ask for any object first.
        let read = serde_json::from_str::<serde_json::Value>(line);
        let event = match read {
            Err(cut) if cut.is_eof() => continue,
            read => read.and_then(serde_json::from_value),
        };
        let event = event.map_err(|e| Error::Corrupt {
            path: path.into(),
            reason: format!("{e}: {line}"),
            hint: "delete the line",
        })?;
        if let Event::Step(progress) = event {
            while out.last().is_some_and(|p| p.run == progress.run && p.stats.step >= progress.stats.step) {
                out.pop();
            }
            out.push(progress);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: usize, loss: f64) -> Event {
        let stats = StepStats { step, loss, range_loss: 0.0, norm: 1.0, rate: 1e-3 };
        let run = "r".to_owned();
        Event::Step(Progress {
            run,
            stats,
            steps: 9,
            tokens_per_second: 1.0,
            seconds_left: 1.0,
            held_out: None,
        })
    }

    #[test]
    fn a_torn_line_is_dropped_and_a_repeated_step_replaced() {
        let path = std::env::temp_dir().join(format!("cipherlm-journal-{}.jsonl", std::process::id()));
        for (at, loss) in [(1, 3.0), (2, 2.0), (3, 1.0)] {
            append(&path, &step(at, loss)).unwrap();
        }
        append(&path, &Event::Note(Note { run: "r".into(), step: 3, note: "halved".into() })).unwrap();
        let mut torn = std::fs::read(&path).unwrap();
        torn.extend(br#"{"run":"r","step":4,"lo"#);
        std::fs::write(&path, &torn).unwrap();
        assert_eq!(steps(&path).unwrap().len(), 3);
        append(&path, &step(2, 1.5)).unwrap();
        let read: Vec<(usize, f64)> =
            steps(&path).unwrap().iter().map(|p| (p.stats.step, p.stats.loss)).collect();
        assert_eq!(read, [(1, 3.0), (2, 1.5)]);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 6);
        std::fs::remove_file(&path).unwrap();
        assert!(steps(&path).unwrap().is_empty());
    }
}
