//! Counters in the text format that Prometheus reads.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

/// Named numbers.
#[derive(Default)]
pub(crate) struct Metrics(Mutex<BTreeMap<String, f64>>);

impl Metrics {
    /// Adds to a counter; `name` carries its labels.
    pub(crate) fn add(&self, name: &str, amount: f64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(format!("cipherlm_{name}")).or_default() += amount;
    }

    /// Sets a gauge.
    pub(crate) fn set(&self, name: &str, value: f64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(format!("cipherlm_{name}"), value);
    }

    /// All of them, a line each.
    pub(crate) fn text(&self) -> String {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = String::new();
        for (name, value) in all.iter() {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{name} {value}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_add_up_and_gauges_do_not() {
        let metrics = Metrics::default();
        metrics.add("refused_total{problem=\"auth\"}", 1.0);
        metrics.add("refused_total{problem=\"auth\"}", 1.0);
        metrics.set("queue", 4.0);
        metrics.set("queue", 3.0);
        assert_eq!(metrics.text(), "cipherlm_queue 3\ncipherlm_refused_total{problem=\"auth\"} 2\n");
    }
}
