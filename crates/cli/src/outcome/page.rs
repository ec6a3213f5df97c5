//! The report page.

use super::{Outcome, words};
use crate::report::{OpRow, Page};
use crate::system::{gib, peak_memory};
use cipherlm_infer::Operator;
use serde_json::Value;

impl Outcome<'_> {
    /// The report page.
    pub(crate) fn page(&self) -> Page {
        let named = |list: Vec<(String, f64)>| list.into_iter().map(|(n, s)| (words(&n), s)).collect();
        let params = self.setup.circuits.params();
        let fact = |name: &str, value: String| (name.to_string(), value);
        Page {
            title: format!("{}, encrypted", self.setup.loaded.model.spec().name),
            subtitle: format!(
                "All times and errors were measured on the encrypted machine at {:.0}-bit parameters, on {}.",
                params.security().bits,
                self.hardware()
            ),
            prompt: self.prompt.clone(),
            answer: self.answer(),
            facts: vec![
                fact("seconds for the forward pass", format!("{:.1}", self.seconds_total())),
                fact("seconds predicted by the plan", format!("{:.1}", self.setup.plan.seconds())),
                fact("bootstraps", self.reports.iter().map(|r| r.bootstraps).sum::<usize>().to_string()),
                fact("GiB of memory at the peak", format!("{:.1}", gib(peak_memory()))),
                fact("seconds for the keys", format!("{:.1}", self.seconds_keygen)),
                fact("largest error of a logit", format!("{:.1e}", self.max_abs_error())),
            ],
            checks: self.checks(),
            ops: self.ops(),
            by_operator: named(self.sum(|r| &r.by_operator)),
            attributed: named(self.sum(|r| &r.bootstrap_attributed)),
            by_primitive: named(self.sum(|r| &r.by_primitive)),
            cards: self.cards(),
        }
    }

    /// Steps of the last pass, each followed by its refresh.
    fn ops(&self) -> Vec<OpRow> {
        let schedule = self.setup.plan.schedule();
        let target = self.setup.circuits.target().ok();
        let chain = |level| target.as_ref().map_or(0.0, |t| t.chain.scale(level).log2());
        let mut rows = Vec::new();
        let mut clock = 0.0;
        for step in self.reports.last().map(|r| r.steps.as_slice()).unwrap_or_default() {
            let planned = schedule.iter().find(|s| s.name == step.name);
            let (level_in, level_out) = planned.map_or((0, 0), |s| (s.level_in, s.level_out));
            let mut row = OpRow {
                layer: step.layer.map_or_else(|| "head".into(), |l| format!("layer {}", l + 1)),
                name: step.name.clone(),
                class: operator(step.class),
                start_s: clock,
                seconds: step.seconds,
                level_in,
                level_out,
                log_scale: chain(level_out),
                memory: self
                    .memory
                    .iter()
                    .find(|(name, _)| *name == step.name)
                    .map_or(0.0, |(_, bytes)| gib(*bytes)),
                predicted_bits: None,
                measured_bits: None,
            };
            let refreshed = planned.and_then(|s| s.refreshed_to);
            // What is compared is the value that leaves the step, after its refresh if it has one.
            if let Some(bits) = self.bits.get(&step.name).filter(|_| refreshed.is_none()) {
                (row.predicted_bits, row.measured_bits) = (Some(bits.predicted), Some(bits.measured));
            }
            rows.push(row.clone());
            clock += step.seconds;
            if let Some(to) = refreshed {
                row.name.push_str(", refreshed");
                (row.class, row.start_s, row.seconds) = (words("bootstrap"), clock, step.refresh_seconds);
                (row.level_in, row.level_out, row.log_scale) = (level_out, to, chain(to));
                let bits = self.bits.get(&step.name);
                (row.predicted_bits, row.measured_bits) =
                    (bits.map(|b| b.predicted), bits.map(|b| b.measured));
                rows.push(row);
                clock += step.refresh_seconds;
            }
        }
        rows
    }
}

fn operator(class: Operator) -> String {
    let name = serde_json::to_value(class).ok();
    words(name.as_ref().and_then(Value::as_str).unwrap_or("other"))
}
