//! What a stage says of itself, beside what the harness measures.

use serde_json::{Map, Value, json};
use std::time::Instant;

use crate::{Result, Task};

/// Seconds of the steps of a stage, its processor time and memory, and what else it reports.
/// Written to `io/SIZE/cipherlm/STAGE.json`.
pub struct Report {
    stage: &'static str,
    start: Instant,
    last: Instant,
    steps: Vec<(String, f64)>,
    facts: Map<String, Value>,
}

impl Report {
    /// Begins to measure.
    pub fn new(stage: &'static str) -> Self {
        let now = Instant::now();
        Self { stage, start: now, last: now, steps: Vec::new(), facts: Map::new() }
    }

    /// Ends a step that began with the last one.
    pub fn step(&mut self, name: &str) {
        let now = Instant::now();
        let seconds = (now - self.last).as_secs_f64();
        println!("         [{}] {name}: {seconds:.2}s", self.stage);
        self.steps.push((name.into(), seconds));
        self.last = now;
    }

    /// Adds a fact.
    pub fn fact(&mut self, name: &str, value: impl Into<Value>) {
        self.facts.insert(name.into(), value.into());
    }

    /// The steps so far and their sum, as the harness takes them from a server: seconds by name.
    pub fn server_steps(&self) -> Vec<u8> {
        let rounded = |seconds: f64| json!((seconds * 100.0).round() / 100.0);
        let mut steps: Map<String, Value> =
            self.steps.iter().map(|(name, seconds)| (name.clone(), rounded(*seconds))).collect();
        let total: f64 = self.steps.iter().map(|(_, seconds)| seconds).sum();
        steps.insert("Total".into(), rounded(total));
        steps.insert("Core seconds".into(), rounded(core_seconds().unwrap_or(0.0)));
        Value::Object(steps).to_string().into_bytes()
    }

    /// Writes everything.
    ///
    /// # Errors
    /// [`crate::Error::Files`].
    pub fn write(self, task: &Task) -> Result<()> {
        let steps: Map<String, Value> =
            self.steps.into_iter().map(|(name, seconds)| (name, json!(seconds))).collect();
        let mut all = self.facts;
        all.insert("stage".into(), self.stage.into());
        all.insert("seconds".into(), json!(self.start.elapsed().as_secs_f64()));
        all.insert("core_seconds".into(), json!(core_seconds()));
        all.insert("peak_bytes".into(), json!(peak_bytes()));
        all.insert("steps".into(), Value::Object(steps));
        let path = task.io("cipherlm").join(format!("{}.json", self.stage));
        task.write(&path, Value::Object(all).to_string().as_bytes())
    }
}

/// Processor seconds of this process, where the system tells them.
fn core_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // User and system time are the 14th and 15th field, in hundredths; the second may hold blanks.
    let fields: Vec<&str> = text.rsplit(')').next()?.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / 100.0)
}

/// Largest memory of this process, where the system tells it.
fn peak_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix("kB")?;
    Some(kib.trim().parse::<u64>().ok()? * 1024)
}
